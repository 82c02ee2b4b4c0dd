"""Who passes events on, how far they have come, and which process does it now.

One row a relay (`kafka`, or one for each webhook endpoint). A process takes the relay's lease, delivers what follows
the position, and advances; the lease goes on with each step. A process that dies is followed by another when its
lease has run out. A process that was paused past its lease learns of it when it advances: then it has delivered what
another delivers too, each event under the same id.

Two of them at once do not change the order in which events are seen for the first time: both deliver in the order of
the feed, and each begins no later than at the first event that nobody has delivered.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from router.ledger.engine import Database
from router.ledger.event_feed import START, Position, beyond
from router.ledger.tables import from_micros, payment_events, relays, to_micros

MOST_COUNTED = 100_000
"""A lag beyond this is told as this: counting it takes 20 ms, and it must not take seconds after a week."""


class LeaseLostError(Exception):
    """Another process has this relay now, or its position was moved by hand."""


@dataclass(frozen=True, slots=True)
class Relay:
    """A relay, as the process that has its lease knows it."""

    name: str
    position: Position
    holder: str | None
    lease_until: dt.datetime | None
    failing_since: dt.datetime | None
    """The first time that something was to be delivered and could not be, since something last was."""
    cause: str | None
    """Why, in a word of ours."""
    updated_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Lag:
    """What a relay has before it."""

    relay: Relay
    events: int
    """Not delivered yet; MOST_COUNTED: as many or more."""
    seconds: float
    """Since the oldest of them happened; 0: there is none."""


class RelayLedger:
    """The relays' queries. Each raises LedgerUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(
        self, name: str, holder: str, *, now: dt.datetime, until: dt.datetime, start: Position = START
    ) -> Relay | None:
        """Take, or keep, the lease of this relay until then; None: another process has it.

        `start` is where a relay begins that has no row yet. A commit where the lease can be had, else only a read.
        """
        with self._database.read() as connection:
            found = connection.execute(relays.select().where(relays.c.name == name)).one_or_none()
        if found is None:
            return self._begin(name, holder, start, now, until)
        if found.holder not in (None, holder) and found.lease_until > to_micros(now):
            return None
        free = sa.or_(relays.c.holder.is_(None), relays.c.holder == holder, relays.c.lease_until <= to_micros(now))
        query = (
            relays.update()
            .where(relays.c.name == name, free)
            .values(holder=holder, lease_until=to_micros(until))
            .returning(relays)
        )
        with self._database.write() as connection:
            taken = connection.execute(query).one_or_none()
        return None if taken is None else _relay(taken)

    def advance(self, relay: Relay, to: Position, *, now: dt.datetime, until: dt.datetime) -> Relay:
        """Commit that all up to there is delivered, and keep the lease until then. Ends a failure.

        Raises LeaseLostError: then the position is as it was, or another's.
        """
        values = {"xact": to.xact, "number": to.number, "updated_at": to_micros(now)}
        return self._change(relay, values | {"failing_since": None, "cause": None, "lease_until": to_micros(until)})

    def failing(self, relay: Relay, cause: str, *, now: dt.datetime, until: dt.datetime) -> Relay:
        """Commit that nothing can be delivered at present, and keep the lease until then. Raises LeaseLostError."""
        since = to_micros(relay.failing_since or now)
        return self._change(relay, {"failing_since": since, "cause": cause, "lease_until": to_micros(until)})

    def release(self, name: str, holder: str) -> None:
        """Let another process have it at once; nothing happens where this one has not got it."""
        mine = relays.update().where(relays.c.name == name, relays.c.holder == holder)
        with self._database.write() as connection:
            connection.execute(mine.values(holder=None, lease_until=None))

    def move(self, name: str, to: Position) -> bool:
        """Deliver again, or begin, from there, by a person's wish; whoever has the lease follows. False: no such."""
        with self._database.write() as connection:
            moved = connection.execute(
                relays.update().where(relays.c.name == name).values(xact=to.xact, number=to.number)
            )
        return moved.rowcount == 1

    def forget(self, name: str) -> bool:
        """Forget a relay that is not to come back. False: there is none of this name."""
        with self._database.write() as connection:
            return connection.execute(relays.delete().where(relays.c.name == name)).rowcount == 1

    def lags(self, now: dt.datetime) -> Sequence[Lag]:
        """How far behind each relay is, by name: whatever is committed counts, readable yet or not."""
        with self._database.read() as connection:
            rows = connection.execute(relays.select().order_by(relays.c.name)).all()
            return [_lag(connection, _relay(row), now) for row in rows]

    def _begin(self, name: str, holder: str, start: Position, now: dt.datetime, until: dt.datetime) -> Relay | None:
        row = {
            "name": name,
            "xact": start.xact,
            "number": start.number,
            "holder": holder,
            "lease_until": to_micros(until),
            "created_at": to_micros(now),
            "updated_at": to_micros(now),
        }
        try:
            with self._database.write() as connection:
                return _relay(connection.execute(relays.insert().values(row).returning(relays)).one())
        except sa.exc.IntegrityError:
            return None  # another process was first

    def _change(self, relay: Relay, values: dict[str, object]) -> Relay:
        was = relay.position
        still = (
            relays.c.name == relay.name,
            relays.c.holder == relay.holder,
            relays.c.xact == was.xact,
            relays.c.number == was.number,
        )
        with self._database.write() as connection:
            row = connection.execute(relays.update().where(*still).values(values).returning(relays)).one_or_none()
        if row is None:
            raise LeaseLostError(relay.name)
        return _relay(row)


def _lag(connection: sa.Connection, relay: Relay, now: dt.datetime) -> Lag:
    events = payment_events.c
    waiting = beyond(relay.position)
    some = sa.select(events.number).where(waiting).limit(MOST_COUNTED).subquery()
    count = connection.scalar(sa.select(sa.func.count()).select_from(some)) or 0
    oldest = connection.scalar(sa.select(events.at).where(waiting).order_by(events.xact, events.number).limit(1))
    seconds = 0.0 if oldest is None else (now - from_micros(oldest)).total_seconds()
    return Lag(relay, count, max(0.0, seconds))


def _relay(row: sa.Row[tuple[object, ...]]) -> Relay:
    found = row._mapping
    return Relay(
        name=found["name"],
        position=Position(found["xact"], found["number"]),
        holder=found["holder"],
        lease_until=_moment(found["lease_until"]),
        failing_since=_moment(found["failing_since"]),
        cause=found["cause"],
        updated_at=from_micros(found["updated_at"]),
    )


def _moment(micros: int | None) -> dt.datetime | None:
    return None if micros is None else from_micros(micros)
