"""Flips: what the machine did to the primary flag, how far it got, and the overrides that stand in meanwhile.

A flip is decided by whoever is first (`claim`), and carried on by one worker at a time: `take` leases it, and
every `change` is a compare-and-set on the holder and the state, so a worker that was paused past its lease stops.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy as sa

from router.ledger import alerts
from router.ledger.alerts import Alert
from router.ledger.engine import Database
from router.ledger.tables import flips, from_micros, primary_overrides, to_micros

FlipState = Literal["overriding", "requested", "confirmed", "superseded", "needs approval", "failed", "restored"]
"""overriding: decided, the override is in force, nothing was sent yet · requested: the write is being sent, in doubt
until it is read back · confirmed: the flag holds it · superseded: a person got there first, flips were switched off,
or the incident was over first · needs approval: a person is asked for it · failed: it cannot be written, and the
override stays until the incident is over · restored: the flag holds again what it did."""

RESTORABLE: tuple[FlipState, ...] = ("confirmed",)
STOPPABLE: tuple[FlipState, ...] = ("requested", "needs approval")
"""A person's word ends these too, once a worker has seen what became of the write, or taken the request back."""
CLAIM_LOCK = 0x666C6970
"""PostgreSQL's advisory lock of whoever decides a flip: any number that no other has; "flip"."""
MACHINE = "pointsman"
"""Who asks for a restore, where it is not a person."""
UNWRITTEN: tuple[FlipState, ...] = ("overriding", "requested", "needs approval")
"""Not ended: somebody has to carry it on."""


class LostFlipError(Exception):
    """Another worker holds the flip, or it has ended."""


class RestoreRefusedError(Exception):
    """The flip cannot be restored; the message says why, in words fit for a person."""


@dataclass(frozen=True, slots=True)
class Flip:
    """An automatic change of the primary flag."""

    id: str
    flag: str
    from_value: str
    to_value: str
    state: FlipState
    incident: str
    reason: str
    evidence: Mapping[str, Any]
    created_at: dt.datetime
    confirmed_at: dt.datetime | None = None
    holder: str | None = None
    lease_until: dt.datetime | None = None
    tries: int = 0
    """Rounds in which the store could not be reached."""
    refusals: int = 0
    """Rounds in which it said no, and a repetition will hardly help."""
    next_try_at: dt.datetime | None = None
    requested_at: dt.datetime | None = None
    """When the write was sent; None where nothing was, for sure."""
    before: Mapping[str, Any] | None = None
    """What the flag served before the write: `value` or `weights`."""
    mark: str | None = None
    """The flag's mark before the write."""
    written: str | None = None
    """The flag's mark after it, or after a restore that brought back what it wrote."""
    pins: Sequence[str] | None = None
    """Rules and targets that served the failing provider to some."""
    approval: str | None = None
    """The approval request's id."""
    cause: str | None = None
    """Why it waits, failed, was superseded or is not restored."""
    restore_by: str | None = None
    restore_reason: str | None = None
    restore_at: dt.datetime | None = None
    """When its undoing was asked for."""
    restore_sent_at: dt.datetime | None = None
    restored_at: dt.datetime | None = None

    @property
    def was_sent(self) -> bool:
        """Whether its write may have been done."""
        return self.requested_at is not None


@dataclass(frozen=True, slots=True)
class Override:
    """Everyone whom the flag sends to the one provider goes to the other, until the flag itself says so."""

    flip: str
    from_value: str
    to_value: str
    began_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Task:
    """A flip that somebody has to look after."""

    flip: Flip
    is_overriding: bool = field(default=False)
    """Its override is in force."""


@dataclass(frozen=True, slots=True)
class Unless:
    """What keeps a flip from being decided: the limits, by when the primary was moved."""

    since: dt.datetime
    held: Callable[[Sequence[dt.datetime]], str | None]
    """Why not, by the moves since then; None: nothing speaks against it."""


class FlipLedger:
    """The flips' queries."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # ------------------------------------------------------------ deciding

    def claim(self, flip: Flip, *, alert: Alert | None = None, unless: Unless | None = None) -> bool:
        """Commit a flip, with its override where it is to be carried on.

        False when this incident already has one, so that exactly one worker acts; or another one is being carried on,
        or `unless` holds it, both looked at where no other worker can decide one at the same time.
        """
        try:
            with self._database.write() as connection:
                is_begun = flip.state == "overriding"
                if is_begun and (self._is_busy(connection, flip.flag) or _is_held(connection, unless)):
                    return False
                connection.execute(flips.insert(), _to_row(flip))
                if is_begun:
                    began = {"flip_id": flip.id, "began_at": to_micros(flip.created_at)}
                    ways = {"from_value": flip.from_value, "to_value": flip.to_value}
                    connection.execute(primary_overrides.insert(), began | ways)
                if alert is not None:
                    alerts.add(connection, alert)
        except sa.exc.IntegrityError:
            return False
        return True

    def _is_busy(self, connection: sa.Connection, flag: str) -> bool:
        if not self._database.is_sqlite:
            # Two claims of two incidents would not see each other: the second waits for the first one's commit.
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(CLAIM_LOCK)))
        # One that has lost its override only waits for a look at what became of its write: the store may be away for
        # hours, in which the next incident needs an override of its own.
        begun = flips.outerjoin(primary_overrides, primary_overrides.c.flip_id == flips.c.id)
        carried_on = flips.c.state.in_(UNWRITTEN) & primary_overrides.c.ended_at.is_(None)
        query = sa.select(flips.c.id).select_from(begun).where(flips.c.flag == flag, carried_on).limit(1)
        return connection.scalar(query) is not None

    def exists(self, incident: str) -> bool:
        """Whether this incident has had its flip."""
        with self._database.read() as connection:
            return connection.scalar(sa.select(flips.c.id).where(flips.c.incident == incident).limit(1)) is not None

    def writes(self, since: dt.datetime) -> Sequence[dt.datetime]:
        """When we moved the primary since then, or may have: flips, once each, and restores, in order.

        An override that no write followed has moved everybody too.
        """
        with self._database.read() as connection:
            return _moves(connection, since)

    def wrote(self, flag: str, mark: str, *, but: str) -> str | None:
        """Which other flip, or its restore, left the flag with this mark; None: none did."""
        query = sa.select(flips.c.id).where(flips.c.flag == flag, flips.c.written == mark, flips.c.id != but)
        with self._database.read() as connection:
            return connection.scalar(query.order_by(flips.c.created_at.desc()).limit(1))

    def newest(self, *, limit: int) -> Sequence[Flip]:
        """The last flips that were decided, newest first."""
        return self._read(flips.select().order_by(flips.c.created_at.desc(), flips.c.id.desc()).limit(limit))

    # ------------------------------------------------------------ carrying on

    def tasks(self, holder: str, now: dt.datetime) -> Sequence[Task]:
        """Flips that this worker may look after now: not ended, with an override, or to be restored."""
        in_force = primary_overrides.c.ended_at.is_(None) & primary_overrides.c.flip_id.is_not(None)
        overriding = sa.and_(primary_overrides.c.flip_id == flips.c.id, primary_overrides.c.ended_at.is_(None))
        restoring = (flips.c.state == "confirmed") & flips.c.restore_at.is_not(None)
        waited = flips.c.next_try_at.is_(None) | (flips.c.next_try_at <= to_micros(now))
        query = (
            sa.select(flips, primary_overrides.c.flip_id.label("override"))
            .select_from(flips.outerjoin(primary_overrides, overriding))
            # What only its override holds is looked at in every round: how long a store is to be left alone is no
            # reason to overrule a person.
            .where(in_force | ((flips.c.state.in_(UNWRITTEN) | restoring) & waited), _free(holder, now))
            .order_by(flips.c.created_at, flips.c.id)
        )
        with self._database.read() as connection:
            rows = connection.execute(query).mappings().all()
        return [Task(_flip(row), row["override"] is not None) for row in rows]

    def take(self, flip: Flip, holder: str, *, now: dt.datetime, until: dt.datetime) -> Flip | None:
        """Lease a flip; it as it stands then. None: another worker has it, or it has moved on."""
        free, values = _free(holder, now), {"holder": holder, "lease_until": to_micros(until)}
        with self._database.write() as connection:
            query = flips.update().where(flips.c.id == flip.id, flips.c.state == flip.state, free).values(values)
            if connection.execute(query).rowcount != 1:
                return None
            row = connection.execute(flips.select().where(flips.c.id == flip.id)).mappings().one()
        return _flip(row)

    def change(
        self,
        flip: Flip,
        *,
        at: dt.datetime,
        alert: Alert | None = None,
        override_over: str | None = None,
        mark_moved: tuple[str, str] | None = None,
        **values: Any,
    ) -> Flip:
        """Commit what became of a flip that its holder has; `override_over`: why its override ends with it.

        `mark_moved` (from, to): where the one is the mark of an earlier flip's write, it is the other from now on.
        Raises LostFlipError where it has another holder or state by now; then nothing is written.
        """
        changed = dataclasses.replace(flip, **values)
        row = _to_row(changed)
        still = (flips.c.id == flip.id, flips.c.holder == flip.holder, flips.c.state == flip.state)
        with self._database.write() as connection:
            # An update by nothing but the condition, so that a lost lease is found even where no value changes.
            columns = {name: row[name] for name in values} or {"state": flip.state}
            if connection.execute(flips.update().where(*still).values(columns)).rowcount != 1:
                raise LostFlipError(flip.id)
            if "to_value" in values:
                mine = primary_overrides.update().where(primary_overrides.c.flip_id == flip.id)
                connection.execute(mine.values(to_value=changed.to_value))
            if override_over is not None:
                _end_override(connection, flip.id, override_over, at)
            if mark_moved is not None:
                earlier = flips.c.flag == flip.flag, flips.c.id != flip.id, flips.c.state == "confirmed"
                same = flips.c.written == mark_moved[0]
                connection.execute(flips.update().where(*earlier, same).values(written=mark_moved[1]))
            if alert is not None:
                alerts.add(connection, alert)
        return changed

    def release(self, flip: Flip) -> None:
        """Give the lease back, where it is still held."""
        mine = flips.c.id == flip.id, flips.c.holder == flip.holder
        with self._database.write() as connection:
            connection.execute(flips.update().where(*mine).values(holder=None, lease_until=None))

    # ------------------------------------------------------------ restoring

    def ask_restore(self, flip_id: str, *, by: str, reason: str, at: dt.datetime) -> Flip | None:
        """Commit that a flip is to be undone; it as it stands then, None where there is no such flip.

        A person's word ends its override in the same transaction, whatever the flag store does. A flip that was not
        written ends with it: at once, or, where something may be with the store, when a worker has looked there.
        Raises RestoreRefusedError.
        """
        is_person = by != MACHINE
        asked = {"restore_by": by, "restore_reason": reason, "restore_at": to_micros(at)}
        fresh: dict[str, Any] = {
            "restore_sent_at": None,
            "next_try_at": None,
            "tries": 0,
            "refusals": 0,
            "cause": None,
        }
        ended: dict[str, Any] = {"state": "superseded", "cause": stopped(by, reason), "next_try_at": None}
        restorable = (*RESTORABLE, *STOPPABLE) if is_person else RESTORABLE
        wanted = flips.c.id == flip_id, flips.c.state.in_(restorable), flips.c.restore_at.is_(None)
        with self._database.write() as connection:
            changed = connection.execute(flips.update().where(*wanted).values(asked | fresh)).rowcount
            if is_person:
                _end_override(connection, flip_id, stopped(by, reason), at)
                unsent = flips.c.id == flip_id, flips.c.state.in_(("overriding", "failed"))
                changed += connection.execute(flips.update().where(*unsent).values(ended)).rowcount
            row = connection.execute(flips.select().where(flips.c.id == flip_id)).mappings().one_or_none()
        if row is None:
            return None
        flip = _flip(row)
        if changed != 1:
            raise RestoreRefusedError(_why_not(flip))
        return flip

    # ------------------------------------------------------------ reading

    def get(self, flip_id: str) -> Flip | None:
        """One flip."""
        found = self._read(flips.select().where(flips.c.id == flip_id))
        return found[0] if found else None

    def of(self, incidents: Iterable[str]) -> Mapping[str, str]:
        """The flips of these incidents: the incident's id to the flip's."""
        query = sa.select(flips.c.incident, flips.c.id).where(flips.c.incident.in_(sorted(incidents)))
        with self._database.read() as connection:
            return {row.incident: row.id for row in connection.execute(query)}

    def page(self, *, limit: int, before: str | None) -> Sequence[Flip]:
        """Flips, newest first, older than the id `before`."""
        query = flips.select() if before is None else flips.select().where(flips.c.id < before)
        return self._read(query.order_by(flips.c.id.desc()).limit(limit))

    def overrides(self) -> Sequence[Override]:
        """The overrides in force, newest first: asked several times a second, of an index that is nearly empty."""
        table = primary_overrides
        query = table.select().where(table.c.ended_at.is_(None)).order_by(table.c.began_at.desc())
        with self._database.look() as connection:
            return [
                Override(row.flip_id, row.from_value, row.to_value, from_micros(row.began_at))
                for row in connection.execute(query)
            ]

    def _read(self, query: sa.Select[tuple[object, ...]]) -> Sequence[Flip]:
        with self._database.read() as connection:
            return [_flip(row) for row in connection.execute(query).mappings()]


def _is_held(connection: sa.Connection, unless: Unless | None) -> bool:
    return unless is not None and unless.held(_moves(connection, unless.since)) is not None


def _moves(connection: sa.Connection, since: dt.datetime) -> Sequence[dt.datetime]:
    began = flips.outerjoin(primary_overrides, primary_overrides.c.flip_id == flips.c.id)
    moved = sa.func.coalesce(flips.c.requested_at, primary_overrides.c.began_at)
    queries = [
        sa.select(moved).select_from(began).where(moved > to_micros(since)),
        sa.select(flips.c.restore_sent_at).where(flips.c.restore_sent_at > to_micros(since)),
    ]
    return sorted(from_micros(at) for query in queries for at in connection.scalars(query))


def _free(holder: str, now: dt.datetime) -> sa.ColumnElement[bool]:
    """Not leased to another worker; to this one only where it could not give the lease back."""
    lapsed = flips.c.lease_until.is_(None) | (flips.c.lease_until <= to_micros(now))
    return sa.or_(lapsed, flips.c.holder == holder)


def _end_override(connection: sa.Connection, flip_id: str, why: str, at: dt.datetime) -> None:
    table = primary_overrides
    mine = table.update().where(table.c.flip_id == flip_id, table.c.ended_at.is_(None))
    connection.execute(mine.values(ended_at=to_micros(at), why_ended=why))


def stopped(by: str, reason: str) -> str:
    """Why a flip ends that a person has stopped."""
    return f"stopped by {by}: {reason}"


def _why_not(flip: Flip) -> str:
    if flip.state == "restored":
        return "The flip has been restored."
    if flip.state == "superseded":
        return "The flip is superseded: there is nothing to restore."
    return "Restoring it has been asked for already."


_COLUMNS = [column.name for column in flips.columns]
_MOMENTS = frozenset(name for name in _COLUMNS if name.endswith("_at") or name == "lease_until")


def _to_row(flip: Flip) -> dict[str, Any]:
    row = {name: getattr(flip, name) for name in _COLUMNS}
    return {
        name: to_micros(value) if name in _MOMENTS and value is not None else value for name, value in row.items()
    }


def _flip(row: Mapping[Any, Any]) -> Flip:
    values: dict[str, Any] = {name: row[name] for name in _COLUMNS}
    moments = {name: from_micros(values[name]) for name in _MOMENTS if values[name] is not None}
    return Flip(**(values | moments))
