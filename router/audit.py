"""Checks the ledger against itself: a payment's events, folded, give its row; its attempts give where it stands.

Streams: a batch of payments at a time, each batch of one moment, so that it may run beside the service, over any
number of payments, in constant memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from router import standing
from router.ledger import operations as operation_rows
from router.ledger.engine import Database
from router.ledger.records import Attempt, Payment, from_row
from router.ledger.sealed import Seals, UnreadableError
from router.ledger.tables import attempts, operations, payment_events, payments

BATCH = 200
"""Payments read together: some hundred kilobytes, and few enough for one short query each."""
EVENTS_AT_ONCE = 500
"""Events held in memory: one payment can have thousands."""
SHOWN = frozenset(
    {
        "id",
        "status",
        "amount",
        "currency",
        "amount_captured",
        "amount_refunded",
        "capture_pending",
        "provider",
        "attempt_id",
        "holds_reference",
        "version",
        "lease_holder",
        "told",
        "tries",
        "resolve_tries",
    }
)
"""Columns whose values may be shown: numbers, and words of ours. The others can hold a customer's or a secret."""
ALWAYS_UNLOGGED = frozenset({"contact_at"})
WHILE_PARKED = ALWAYS_UNLOGGED | {"next_try_at", "claimed_until", "faults", "updated_at"}
ADDED_LATER: Mapping[str, Any] = {"claimed_until": None, "faults": 0, "dead_at": None, "failure": None}
"""Columns that payments of earlier versions have no event for, and what they hold then."""
SOURCE = "its attempts and operations give"
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Difference:
    """One column of one payment that is not what it must be."""

    payment_id: str
    column: str
    text: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a check has come."""

    payments: int
    last: Payment
    differences: Sequence[Difference]
    """Of this batch."""


def verify(database: Database) -> Iterator[Progress]:
    """Check every payment, batch by batch. Raises LedgerUnavailableError."""
    done, after = 0, ""
    while True:
        batch = _batch(database, after)
        if batch is None:
            return
        done, after = done + batch.payments, batch.last.id
        yield Progress(done, batch.last, batch.differences)


def _batch(database: Database, after: str) -> Progress | None:
    with database.read() as connection:
        query = payments.select().where(payments.c.id > after).order_by(payments.c.id).limit(BATCH)
        rows = [dict(row) for row in connection.execute(query).mappings()]
        if not rows:
            return None
        between = (after, rows[-1]["id"])
        unfolded = {row["id"]: row for row in rows}
        found: list[Difference] = []
        for payment_id, events in groupby(_events(connection, between), key=lambda event: event["payment_id"]):
            row = unfolded.pop(payment_id, None)
            if row is not None:
                folded, differences = _fold(payment_id, events)
                found += differences or list(_compare(row, folded, database.seals))
        found += [Difference(payment_id, "version", "has no events") for payment_id in unfolded]
        found += _standings(connection, rows, between, database.seals)
        return Progress(len(rows), Payment(**from_row(rows[-1])), sorted(found, key=lambda each: each.payment_id))


# ---------------------------------------------------------------- the events


def _events(connection: sa.Connection, between: tuple[str, str]) -> Iterator[sa.RowMapping]:
    table = payment_events
    query = (
        sa.select(table.c.payment_id, table.c.version, table.c.changes)
        .where(table.c.payment_id > between[0], table.c.payment_id <= between[1])
        .order_by(table.c.payment_id, table.c.version)
    )
    # A server-side cursor on PostgreSQL; SQLite reads as it goes in any case.
    yield from connection.execute(query, execution_options={"yield_per": EVENTS_AT_ONCE}).mappings()


def _fold(payment_id: str, events: Iterator[sa.RowMapping]) -> tuple[dict[str, Any], list[Difference]]:
    """What the events make, and the first gap in them."""
    folded: dict[str, Any] = {}
    differences: list[Difference] = []
    for number, event in enumerate(events, 1):
        changes: Mapping[str, Any] = event["changes"]
        if event["version"] != number or changes.get("version") != number:
            differences = differences or [Difference(payment_id, "version", f"event {number} is missing or another")]
        folded |= changes
    return folded, differences


def _compare(row: Mapping[str, Any], folded: Mapping[str, Any], seals: Seals) -> Iterator[Difference]:
    for column, value in row.items():
        if column in _unlogged(row):
            continue
        expected = folded.get(column, ADDED_LATER.get(column, _MISSING))
        if expected is _MISSING:
            yield Difference(row["id"], column, "is set by no event")
        elif difference := _difference(row["id"], column, (value, expected), "its events give", seals):
            yield difference


def _unlogged(row: Mapping[str, Any]) -> frozenset[str]:
    """Columns that change with no event: checkout's contact, and what workers note of a payment that is parked."""
    return WHILE_PARKED if row["status"] == "parked" else ALWAYS_UNLOGGED


# ---------------------------------------------------------------- the attempts and operations


def _standings(
    connection: sa.Connection, rows: Sequence[Mapping[str, Any]], between: tuple[str, str], seals: Seals
) -> Iterator[Difference]:
    """Payments that nobody is working on stand where their attempts and operations say."""
    idle = {row["id"]: Payment(**from_row(row)) for row in rows if row["lease_holder"] is None}
    tried: dict[str, list[Attempt]] = {payment_id: [] for payment_id in idle}
    made: dict[str, list[operation_rows.Operation]] = {payment_id: [] for payment_id in idle}
    inside = sa.and_(attempts.c.payment_id > between[0], attempts.c.payment_id <= between[1])
    for row in connection.execute(attempts.select().where(inside).order_by(attempts.c.number)).mappings():
        if row["payment_id"] in tried:
            tried[row["payment_id"]].append(Attempt(**from_row(row)))
    inside = sa.and_(operations.c.payment_id > between[0], operations.c.payment_id <= between[1])
    for row in connection.execute(operations.select().where(inside)).mappings():
        if row["payment_id"] in made:
            made[row["payment_id"]].append(operation_rows.operation_of(row))
    for payment_id, payment in idle.items():
        yield from _stands(payment, tried[payment_id], made[payment_id], seals)


def _stands(
    payment: Payment, tried: Sequence[Attempt], made: Sequence[operation_rows.Operation], seals: Seals
) -> Iterator[Difference]:
    attempt = standing.chosen(payment, tried, made)
    if attempt is None:
        return  # closed, parked or never placed: no attempt decides it
    expected = standing.columns(payment.amount, payment.capture_mode, attempt, tried, made)
    for column, value in expected.items():
        actual = getattr(payment, column)
        if difference := _difference(payment.id, column, (actual, value), SOURCE, seals):
            yield difference


def _difference(
    payment_id: str, column: str, values: tuple[Any, Any], source: str, seals: Seals
) -> Difference | None:
    """How two values differ, if they do; what is sealed is opened where it is not the same text."""
    try:
        if seals.same(*values, payment_id):
            return None
    except UnreadableError as error:
        return Difference(payment_id, column, f"cannot be compared with what {source}: {error}")
    return Difference(payment_id, column, _differs(column, *values, source))


def _differs(column: str, value: Any, expected: Any, source: str) -> str:
    if column not in SHOWN:
        return f"is not what {source}"
    return f"is {value!r}, {source} {expected!r}"
