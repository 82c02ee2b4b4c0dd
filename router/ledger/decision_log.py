"""Payments with the decisions they were routed by and what became of them, streamed in the order of time.

A batch at a time, each of one moment, so that it may run beside the service, over any period, in constant memory.
Payments' ids begin with their time, so the primary key finds a period without an index of its own.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from router.clock import CROCKFORD
from router.ledger.engine import Database
from router.ledger.tables import attempts, from_micros, payment_events, payments, to_micros

BATCH = 500
"""Payments read together: about a megabyte, and a query of milliseconds."""
ID_SLACK = dt.timedelta(hours=1)
"""By so much an id's time may differ from the payment's: a paused process, a clock that was set."""


class Tried(NamedTuple):
    """One attempt."""

    id: str
    provider: str
    outcome: str | None
    was_approved: bool
    """Its provider has ever said so."""


class LogEntry(NamedTuple):
    """One payment; its flags and decision are those of its first round."""

    payment_id: str
    merchant: str
    created_at: dt.datetime
    status: str
    amount: int
    """Minor units."""
    currency: str
    provider: str | None
    """Who took it."""
    attempt_id: str | None
    """The attempt that it stands or falls with."""
    order: Mapping[str, Any]
    flags: Mapping[str, Any]
    decision: Mapping[str, Any]
    tried: Sequence[Tried]


class DecisionLog:
    """The log's query."""

    def __init__(self, database: Database, *, batch: int = BATCH) -> None:
        self._database = database
        self._batch = batch

    def between(
        self, start: dt.datetime, end: dt.datetime, *, merchant: str | None = None, currency: str | None = None
    ) -> Iterator[LogEntry]:
        """Payments created at `start` or later and before `end`, oldest id first. Raises LedgerUnavailableError."""
        after, last = _first_id(start, -ID_SLACK), _first_id(end, ID_SLACK)
        table = payments.c
        conditions = [table.created_at >= to_micros(start), table.created_at < to_micros(end), table.id < last]
        if merchant is not None:
            conditions.append(table.merchant == merchant)
        if currency is not None:
            conditions.append(table.currency == currency)
        while True:
            entries = self._page(after, conditions)
            yield from entries
            if len(entries) < self._batch:
                return
            after = entries[-1].payment_id

    def _page(self, after: str, conditions: Sequence[sa.ColumnElement[bool]]) -> Sequence[LogEntry]:
        table = payments.c
        query = (
            sa.select(
                table.id, table.merchant, table.created_at, table.status, table.amount, table.currency,
                table.provider, table.attempt_id, table.order, table.flags, table.decision, table.tries,
            )
            .where(table.id > after, *conditions)
            .order_by(table.id)
            .limit(self._batch)
        )  # fmt: skip
        with self._database.read() as connection:
            rows = connection.execute(query).all()
            if not rows:
                return []
            tried: dict[str, list[Tried]] = {row.id: [] for row in rows}
            mine = attempts.c
            for made in connection.execute(
                sa.select(mine.payment_id, mine.id, mine.provider, mine.outcome, mine.was_approved)
                .where(mine.payment_id.in_(tried))
                .order_by(mine.payment_id, mine.number)
            ):
                tried[made.payment_id].append(Tried(*made[1:]))
            first = _first_rounds(connection, [row.id for row in rows if row.tries > 0])
        entries = []
        for row in rows:
            flags, decision = first.get(row.id, (row.flags, row.decision))
            entries.append(
                LogEntry(
                    row.id, row.merchant, from_micros(row.created_at), row.status, row.amount, row.currency,
                    row.provider, row.attempt_id, row.order, flags, decision, tried[row.id],
                )
            )  # fmt: skip
        return entries


def _first_rounds(
    connection: sa.Connection, payment_ids: Sequence[str]
) -> Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Flags and decision of parked payments as they came: their rows have those of the round that took them."""
    if not payment_ids:
        return {}
    table = payment_events.c
    query = sa.select(table.payment_id, table.changes).where(table.payment_id.in_(payment_ids), table.version == 1)
    return {row.payment_id: (row.changes["flags"], row.changes["decision"]) for row in connection.execute(query)}


def _first_id(moment: dt.datetime, slack: dt.timedelta) -> str:
    """The least id that a payment of that millisecond could have."""
    since = (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + slack) // dt.timedelta(milliseconds=1)
    number, letters = max(0, since) << 80, ""
    for _ in range(26):
        number, digit = divmod(number, 32)
        letters = CROCKFORD[digit] + letters
    return f"pay_{letters}"
