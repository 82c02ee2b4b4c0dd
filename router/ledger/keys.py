"""API keys: only a digest is kept, so a stolen ledger opens nothing.

A key's id is the beginning of its digest: every key has one, those of before this version too, and it is found by the
primary key. 96 bits of the digest of 160 random bits say nothing of the key.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from router.ledger.engine import Database
from router.ledger.tables import api_key_changes, api_keys, from_micros, to_micros

SCOPES = frozenset({"payments", "reports", "operate"})
ID_PREFIX = "key_"
ID_HEX = 24
EXPIRED = "its time was over"
"""Who revoked a key that expired."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: a merchant, and what this key lets it do."""

    merchant: str
    scopes: frozenset[str]
    label: str = ""
    """What the key is for: named where an order of its holder is recorded."""
    key_id: str = "bootstrap"
    expires_at: dt.datetime | None = None
    is_house: bool = False
    """The house's own operator, who may make keys of every merchant: whoever holds the bootstrap key."""


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as it may be shown: not the key itself, which nobody has kept."""

    id: str
    merchant: str
    scopes: frozenset[str]
    label: str
    hint: str
    """How it begins; empty for a key of before there were hints."""
    created_at: dt.datetime
    created_by: str
    last_used_at: dt.datetime | None
    """Right to a minute or two: written by a batch."""
    expires_at: dt.datetime | None
    revoked_at: dt.datetime | None
    revoked_by: str
    replaced_by: str | None
    """The id of the key that came in its place."""

    def is_valid(self, now: dt.datetime) -> bool:
        """Whether it opens anything now."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)


@dataclass(frozen=True, slots=True)
class KeyChange:
    """Who did what to a key: the audit record."""

    key_id: str
    merchant: str
    what: str
    """created, rotated or revoked."""
    by: str
    detail: str
    at: dt.datetime


def digest(key: str) -> str:
    """SHA-256: the keys are 160 random bits, so a slow hash would protect nothing more."""
    return hashlib.sha256(key.encode()).hexdigest()


def id_of(of: str) -> str:
    """The id of the key with this digest."""
    return ID_PREFIX + of[:ID_HEX]


class KeyLedger:
    """The keys' queries."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # ------------------------------------------------------------ using

    def find(self, key: str, now: dt.datetime | None = None) -> Caller | None:
        """Whose key this is; None for one that is unknown, revoked, or expired by `now`."""
        query = sa.select(
            api_keys.c.merchant, api_keys.c.scopes, api_keys.c.label, api_keys.c.digest, api_keys.c.expires_at
        ).where(api_keys.c.digest == digest(key), api_keys.c.revoked_at.is_(None))
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        expires_at = _time(row.expires_at)
        if expires_at is not None and now is not None and expires_at <= now:
            return None
        return Caller(row.merchant, frozenset(row.scopes), row.label, id_of(row.digest), expires_at)

    def used(self, at: Mapping[str, dt.datetime]) -> None:
        """Commit when keys were used last, by id; an earlier moment than the one on record changes nothing."""
        if not at:
            return
        with self._database.write() as connection:
            for key_id, moment in sorted(at.items()):
                micros = to_micros(moment)
                older = api_keys.c.last_used_at.is_(None) | (api_keys.c.last_used_at < micros)
                connection.execute(api_keys.update().where(_has_id(key_id), older).values(last_used_at=micros))

    def end_expired(self, now: dt.datetime) -> int:
        """Commit that the keys whose time is over are revoked; answers how many. What asks for `revoked_at` alone
        (a console session that such a key opened, a process of the version before) then ends with them."""
        at = to_micros(now)
        over = (api_keys.c.expires_at <= at) & api_keys.c.revoked_at.is_(None)
        with self._database.read() as connection:
            if connection.scalar(sa.select(api_keys.c.digest).where(over).limit(1)) is None:
                return 0
        with self._database.write() as connection:
            return connection.execute(
                api_keys.update().where(over).values(revoked_at=api_keys.c.expires_at, revoked_by=EXPIRED)
            ).rowcount

    # ------------------------------------------------------------ keeping

    def add(
        self,
        key: str,
        *,
        merchant: str,
        scopes: Iterable[str],
        label: str,
        now: dt.datetime,
        hint: str = "",
        by: str = "",
        expires_at: dt.datetime | None = None,
    ) -> KeyRecord:
        """Commit a new key."""
        row = _new_row(
            key, merchant=merchant, scopes=scopes, label=label, hint=hint, by=by, now=now, expires_at=expires_at
        )
        with self._database.write() as connection:
            connection.execute(api_keys.insert(), row)
            _note(connection, row, what="created", by=by, detail=",".join(row["scopes"]), now=now)
        return _record(row)

    def rotate(
        self, key_id: str, new_key: str, *, hint: str, by: str, now: dt.datetime, old_until: dt.datetime
    ) -> KeyRecord | None:
        """Commit a new key like this one, which ends at `old_until`; None where it was replaced, revoked or expired
        meanwhile: of two rotations at once one comes about."""
        table = api_keys
        with self._database.write() as connection:
            found = connection.execute(table.select().where(_has_id(key_id))).mappings().one_or_none()
            if found is None:
                return None
            ends_at = min(to_micros(old_until), found["expires_at"] or to_micros(old_until))
            of = digest(new_key)
            still = table.c.revoked_at.is_(None) & table.c.replaced_by.is_(None)
            unexpired = table.c.expires_at.is_(None) | (table.c.expires_at > to_micros(now))
            taken = connection.execute(
                table.update()
                .where(table.c.digest == found["digest"], still, unexpired)
                .values(expires_at=ends_at, replaced_by=id_of(of))
            )
            if taken.rowcount != 1:
                return None
            # It lives as long as the one before was to live: to be rotated is no way to outlive an end that was set.
            expires_at = _time(found["expires_at"])
            row = _new_row(
                new_key,
                merchant=found["merchant"],
                scopes=found["scopes"],
                label=found["label"],
                hint=hint,
                by=by,
                now=now,
                expires_at=expires_at,
            )
            connection.execute(table.insert(), row)
            _note(
                connection,
                found,
                what="rotated",
                by=by,
                detail=f"replaced by {id_of(of)}, valid until {old_until:%FT%TZ}",
                now=now,
            )
            _note(connection, row, what="created", by=by, detail=f"in place of {key_id}", now=now)
        return _record(row)

    def revoke(self, key_id: str, *, by: str, reason: str, now: dt.datetime) -> bool:
        """Commit that a key opens nothing any more; False where that is so already."""
        with self._database.write() as connection:
            found = connection.execute(api_keys.select().where(_has_id(key_id))).mappings().one_or_none()
            if found is None or found["revoked_at"] is not None:
                return False
            connection.execute(
                api_keys.update()
                .where(api_keys.c.digest == found["digest"])
                .values(revoked_at=to_micros(now), revoked_by=by)
            )
            _note(connection, found, what="revoked", by=by, detail=reason, now=now)
        return True

    # ------------------------------------------------------------ looking

    def get(self, key_id: str) -> KeyRecord | None:
        """A key by its id."""
        with self._database.read() as connection:
            row = connection.execute(api_keys.select().where(_has_id(key_id))).mappings().one_or_none()
        return None if row is None else _record(row)

    def page(self, *, merchant: str | None, with_revoked: bool, limit: int, after: str | None) -> Sequence[KeyRecord]:
        """Keys in the order of their ids, of one merchant or of all; `after` is the last id of the page before."""
        query = api_keys.select().order_by(api_keys.c.digest).limit(limit)
        if merchant is not None:
            query = query.where(api_keys.c.merchant == merchant)
        if not with_revoked:
            query = query.where(api_keys.c.revoked_at.is_(None))
        if after is not None:
            query = query.where(api_keys.c.digest > _beginning(after) + "g")  # behind every hexadecimal digit
        with self._database.read() as connection:
            return [_record(row) for row in connection.execute(query).mappings()]

    def count(self, merchant: str) -> int:
        """How many keys a merchant has that are not revoked."""
        query = sa.select(sa.func.count()).where(api_keys.c.merchant == merchant, api_keys.c.revoked_at.is_(None))
        with self._database.read() as connection:
            return int(connection.scalar(query) or 0)

    def changes(self, key_id: str) -> Sequence[KeyChange]:
        """What was done to a key, oldest first."""
        table = api_key_changes
        query = table.select().where(table.c.key_id == key_id).order_by(table.c.number)
        with self._database.read() as connection:
            return [
                KeyChange(row.key_id, row.merchant, row.what, row.by, row.detail, from_micros(row.at))
                for row in connection.execute(query)
            ]


def _beginning(key_id: str) -> str:
    return key_id.removeprefix(ID_PREFIX)


def _has_id(key_id: str) -> sa.ColumnElement[bool]:
    beginning = _beginning(key_id)
    if not key_id.startswith(ID_PREFIX) or len(beginning) != ID_HEX or set(beginning) - set("0123456789abcdef"):
        return sa.false()
    return api_keys.c.digest.between(beginning, beginning + "g")


def _new_row(
    key: str,
    *,
    merchant: str,
    scopes: Iterable[str],
    label: str,
    hint: str,
    by: str,
    now: dt.datetime,
    expires_at: dt.datetime | None,
) -> dict[str, Any]:
    return {
        "digest": digest(key),
        "merchant": merchant,
        "scopes": sorted(scopes),
        "label": label,
        "hint": hint,
        "created_at": to_micros(now),
        "created_by": by,
        "expires_at": None if expires_at is None else to_micros(expires_at),
        "last_used_at": None,
        "revoked_at": None,
        "revoked_by": "",
        "replaced_by": None,
    }


def _note(
    connection: sa.Connection,
    row: Mapping[str, Any] | sa.RowMapping,
    *,
    what: str,
    by: str,
    detail: str,
    now: dt.datetime,
) -> None:
    connection.execute(
        api_key_changes.insert(),
        {
            "key_id": id_of(row["digest"]),
            "merchant": row["merchant"],
            "what": what,
            "by": by,
            "detail": detail,
            "at": to_micros(now),
        },
    )


def _record(row: Mapping[str, Any] | sa.RowMapping) -> KeyRecord:
    return KeyRecord(
        id=id_of(row["digest"]),
        merchant=row["merchant"],
        scopes=frozenset(row["scopes"]),
        label=row["label"],
        hint=row["hint"],
        created_at=from_micros(row["created_at"]),
        created_by=row["created_by"],
        last_used_at=_time(row["last_used_at"]),
        expires_at=_time(row["expires_at"]),
        revoked_at=_time(row["revoked_at"]),
        revoked_by=row["revoked_by"],
        replaced_by=row["replaced_by"],
    )


def _time(micros: int | None) -> dt.datetime | None:
    return None if micros is None else from_micros(micros)
