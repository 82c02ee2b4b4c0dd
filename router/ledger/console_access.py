"""Who may use the console: sessions, passwords and refused logins."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import sqlalchemy as sa

from router.ledger.engine import Database
from router.ledger.tables import (
    api_keys,
    console_failures,
    console_passwords,
    console_sessions,
    from_micros,
    to_micros,
)

KEY = "key"
"""The credential's kind where an API key of the ledger opened a session: `key:<its digest>`."""
REAPED_AT_ONCE = 500
"""Rows that a login deletes of what is over: more than come in meanwhile, and a commit of milliseconds."""


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who is logged in."""

    digest: str
    """Of the cookie's secret."""
    credential: str
    """What it was opened with, `kind:digest`; it ends when that is revoked or changed."""
    merchant: str
    scopes: frozenset[str]
    label: str
    """Who it is, as far as is known: named where an order is recorded."""
    created_at: dt.datetime
    expires_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Password:
    """A merchant's password, as a hash with its parameters."""

    merchant: str
    hash: str
    changed_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Failures:
    """Logins that were refused since some moment."""

    of_origin: int
    in_all: int


class ConsoleAccess:
    """The queries."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # ------------------------------------------------------------ sessions

    def begin(self, session: Session, *, instead_of: str | None) -> None:
        """Commit a session; the one of digest `instead_of` ends with it, and some of those that are over go."""
        table, at = console_sessions, to_micros(session.created_at)
        over = sa.select(table.c.digest).where(table.c.expires_at <= at).limit(REAPED_AT_ONCE)
        row = {
            "digest": session.digest,
            "credential": session.credential,
            "merchant": session.merchant,
            "scopes": sorted(session.scopes),
            "label": session.label,
            "created_at": at,
            "expires_at": to_micros(session.expires_at),
        }
        with self._database.write() as connection:
            connection.execute(table.delete().where(table.c.digest.in_(over)))
            if instead_of is not None:
                connection.execute(table.delete().where(table.c.digest == instead_of))
            connection.execute(table.insert(), row)

    def find(self, digest: str, now: dt.datetime) -> Session | None:
        """The session, unless it is over, or the API key that opened it was revoked."""
        table = console_sessions
        query = table.select().where(table.c.digest == digest, table.c.expires_at > to_micros(now))
        with self._database.read() as connection:
            row = connection.execute(query).mappings().one_or_none()
            if row is None:
                return None
            kind, _, of = row["credential"].partition(":")
            if kind == KEY and not _is_valid(connection, of, to_micros(now)):
                return None
        return Session(
            digest=row["digest"],
            credential=row["credential"],
            merchant=row["merchant"],
            scopes=frozenset(row["scopes"]),
            label=row["label"],
            created_at=from_micros(row["created_at"]),
            expires_at=from_micros(row["expires_at"]),
        )

    def end(self, digest: str) -> None:
        """Commit that a session is over: its cookie opens nothing from now on."""
        with self._database.write() as connection:
            connection.execute(console_sessions.delete().where(console_sessions.c.digest == digest))

    # ------------------------------------------------------------ passwords

    def passwords(self) -> list[Password]:
        """Every merchant's password: as many as there are merchants who set one, which are few."""
        with self._database.read() as connection:
            return [
                Password(row.merchant, row.hash, from_micros(row.changed_at))
                for row in connection.execute(console_passwords.select().order_by(console_passwords.c.merchant))
            ]

    def set_password(self, password: Password) -> None:
        """Commit a merchant's password in place of the one before."""
        table = console_passwords
        row = {"merchant": password.merchant, "hash": password.hash, "changed_at": to_micros(password.changed_at)}
        with self._database.write() as connection:
            connection.execute(table.delete().where(table.c.merchant == password.merchant))
            connection.execute(table.insert(), row)

    # ------------------------------------------------------------ refused logins

    def failures(self, origin: str, since: dt.datetime) -> Failures:
        """How many logins were refused since then: of this origin, and in all."""
        table = console_failures
        mine = sa.func.coalesce(sa.func.sum(sa.case((table.c.origin == origin, 1), else_=0)), 0)
        query = sa.select(mine, sa.func.count()).where(table.c.at > to_micros(since))
        with self._database.read() as connection:
            of_origin, in_all = connection.execute(query).one()
        return Failures(int(of_origin), int(in_all))

    def failed(self, origin: str, now: dt.datetime, *, forget_before: dt.datetime) -> None:
        """Commit that a login was refused; those that count no more go."""
        table = console_failures
        with self._database.write() as connection:
            connection.execute(table.delete().where(table.c.at <= to_micros(forget_before)))
            connection.execute(table.insert(), {"origin": origin, "at": to_micros(now)})

    def forgive(self, origin: str) -> None:
        """Commit that this origin's refusals count no more: it has logged in."""
        with self._database.write() as connection:
            connection.execute(console_failures.delete().where(console_failures.c.origin == origin))


def _is_valid(connection: sa.Connection, digest: str, at: int) -> bool:
    lasts = sa.or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > at)
    query = sa.select(api_keys.c.digest).where(api_keys.c.digest == digest, api_keys.c.revoked_at.is_(None), lasts)
    return connection.scalar(query) is not None
