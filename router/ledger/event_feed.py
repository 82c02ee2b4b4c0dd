"""The feed of payment events, for whoever passes them on: in an order that is kept, and in which none is skipped.

**Not skipped.** PostgreSQL hands a row its number before the row's transaction commits, so a reader that has passed
number 7 may be followed by a commit of number 6, which it would never see. Each row therefore has the id of the
transaction that wrote it (`xact`, a column default, so that no writer can forget it), the order is (xact, number),
and only rows below the oldest transaction id still at work (`pg_snapshot_xmin` of the reader's own snapshot) are
read. Of a transaction below that, PostgreSQL says that it is over: it is committed and its rows are in this snapshot,
or it left none. Every later commit belongs to an id at or above it, so nothing can ever appear below a position that
was answered. SQLite has one writer at a time and numbers rows in the order of their commits; there `xact` is 0 in
every row, as it is in those from before the column, and the number alone is the order.

**The order of one payment.** The first thing that a transaction writes is the payment's own row, by compare-and-set
on its version (`PaymentLedger.change`; `create` inserts it). PostgreSQL gives a transaction its id at its first
write, and the compare-and-set finds version n only once the transaction that wrote n has committed: so the id of
version n+1 is younger than that of n. (Where all is one statement, each of its parts asks for the row of that one:
`together`.) A writer that wrote anything else before would break this; a test holds it.

**Delays.** A transaction that writes, in any database of the same PostgreSQL server, and stays open holds back the
events of every transaction that began after it, until it ends: they come late, in order, and none is lost. So do
prepared transactions that nobody ends. Transactions that only read, a dump or a report, have no id and hold back
nothing. The router's own last milliseconds; `statement_timeout` ends a query of its after 5 s.

**How to use it.** A relay takes its lease and position from `router.ledger.relays`, asks `after` for what follows,
delivers it, and only then advances. What is delivered twice after a crash has the same payment and version.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from router.ledger.engine import Database
from router.ledger.tables import event_clock, from_micros, payment_events

TOLD_COLUMNS = frozenset(
    {
        "merchant",
        "reference",
        "status",
        "amount",
        "currency",
        "amount_captured",
        "amount_refunded",
        "capture_pending",
        "provider",
        "decline",
        "dispute",
    }
)
"""Columns of a payment that may be told to others. What else the events hold, a card's token among it, is not even
answered by the feed."""
HISTORY_AT_ONCE = 500
"""Earlier events held in memory together: one payment can have thousands."""
MOST_AT_ONCE = 1_000
"""Events of one answer; each payment of theirs is a variable of one query."""


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in the feed: all up to this event, and itself. Compares in the feed's order."""

    xact: int
    number: int


START = Position(-1, 0)
"""Before the first event."""


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """One event of a payment."""

    position: Position
    payment_id: str
    version: int
    """1, 2, 3… for each payment, without a gap. With the payment's id it names the event, for ever."""
    kind: str
    """The router's own word for what happened; it may change with a release."""
    at: dt.datetime
    before: Mapping[str, Any]
    """TOLD_COLUMNS just before; empty for the first event. JSON's values: money in minor units."""
    after: Mapping[str, Any]
    """TOLD_COLUMNS as this event left them, whatever has happened since."""


class EventFeed:
    """Reads `payment_events`; thread-safe, and without any state of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def after(self, position: Position, limit: int) -> tuple[Sequence[FeedEvent], Position]:
        """The next events after this position, at most `limit` (1 to MOST_AT_ONCE), and where to go on from.

        No events and the same position: there is nothing that may be read yet. Raises LedgerUnavailableError.
        """
        with self._database.read() as connection:
            found = connection.execute(self.readable(connection, position).limit(limit)).all()
            events = _folded(connection, found)
        return events, events[-1].position if events else position

    def head(self) -> Position:
        """The last event that may be read now: whoever begins here is told of all that becomes readable later."""
        with self._database.read() as connection:
            query = self.readable(connection, START).order_by(None)
            last = query.order_by(*(column.desc() for column in in_order(self._database))).limit(1)
            found = connection.execute(last.with_only_columns(_EVENTS.xact, _EVENTS.number)).one_or_none()
        return START if found is None else Position(*found)

    def readable(self, connection: sa.Connection, position: Position) -> sa.Select[Any]:
        """The query of what may be read after that position, in order; to be run in this very transaction."""
        query = sa.select(payment_events).where(beyond(position, self._database))
        if not self._database.is_sqlite:
            # Of the snapshot that the rows are read in, which `Database.read` holds for the whole transaction.
            query = query.where(_EVENTS.xact < connection.scalar(_HORIZON))
        return query.order_by(*in_order(self._database))


def beyond(position: Position, database: Database) -> sa.ColumnElement[bool]:
    """Of rows of `payment_events`: those after this position, whether they may be read yet or not."""
    if database.is_sqlite:
        # Of a comparison of rows its index takes only the first part, which is the same in every row there.
        return _EVENTS.number > position.number
    return sa.tuple_(_EVENTS.xact, _EVENTS.number) > sa.tuple_(position.xact, position.number)


def in_order(database: Database) -> Sequence[sa.ColumnElement[Any]]:
    """The order of the feed."""
    return (_EVENTS.number,) if database.is_sqlite else (_EVENTS.xact, _EVENTS.number)


_EVENTS = payment_events.c
_BASE = sa.func.coalesce(sa.select(event_clock.c.base).scalar_subquery(), 0)
_HORIZON = sa.select(_BASE + sa.literal_column("pg_snapshot_xmin(pg_current_snapshot())::text::bigint"))


def _folded(connection: sa.Connection, found: Sequence[sa.Row[Any]]) -> Sequence[FeedEvent]:
    """The events, each with its payment before and after it: what the events up to it give, folded."""
    if not found:
        return []
    wanted = {(row.payment_id, row.version): row for row in found}
    states: dict[tuple[str, int], tuple[Mapping[str, Any], Mapping[str, Any]]] = {}
    payment_id, state = "", dict[str, Any]()
    for each in _history(connection, sorted({row.payment_id for row in found}), max(row.version for row in found)):
        if each["payment_id"] != payment_id:
            payment_id, state = each["payment_id"], {}
        before = state
        state = before | {name: value for name, value in each["changes"].items() if name in TOLD_COLUMNS}
        if (payment_id, each["version"]) in wanted:
            states[payment_id, each["version"]] = before, state
    return [
        FeedEvent(
            Position(row.xact, row.number),
            row.payment_id,
            row.version,
            row.type,
            from_micros(row.at),
            *states[row.payment_id, row.version],
        )
        for row in found
    ]


def _history(connection: sa.Connection, payments: Sequence[str], version: int) -> Iterator[sa.RowMapping]:
    query = (
        sa.select(_EVENTS.payment_id, _EVENTS.version, _EVENTS.changes)
        .where(_EVENTS.payment_id.in_(payments), _EVENTS.version <= version)
        .order_by(_EVENTS.payment_id, _EVENTS.version)
    )
    yield from connection.execute(query, execution_options={"yield_per": HISTORY_AT_ONCE}).mappings()
