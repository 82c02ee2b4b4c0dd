"""The rows that reports are made of: payments as they stand, with their attempts and operations."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from router.ledger.tables import attempts, operations, payments


class RawAttempt(NamedTuple):
    """What the reports need of an attempt's row; moments in microseconds."""

    payment_id: str
    id: str
    number: int
    provider: str
    outcome: str | None
    was_approved: bool
    decline: Mapping[str, Any] | None
    fee_actual: int | None
    fee_currency: str | None
    latency_us: int | None
    started_at: int
    finished_at: int | None


class RawOperation(NamedTuple):
    """The same of an operation's."""

    payment_id: str
    attempt_id: str
    kind: str
    amount: int
    state: str
    started_at: int
    finished_at: int | None


class RawPayment(NamedTuple):
    """The same of a payment's, with its attempts by number and its operations."""

    id: str
    version: int
    merchant: str
    status: str
    amount: int
    currency: str
    amount_captured: int
    amount_refunded: int
    provider: str | None
    attempt_id: str | None
    decline: Mapping[str, Any] | None
    dispute: Mapping[str, Any] | None
    tries: int
    order: Mapping[str, Any]
    decision: Mapping[str, Any]
    created_at: int
    attempts: Sequence[RawAttempt] = ()
    operations: Sequence[RawOperation] = ()


_PAYMENT_COLUMNS = [payments.c[name] for name in RawPayment._fields if name not in ("attempts", "operations")]
_ATTEMPT_COLUMNS = [attempts.c[name] for name in RawAttempt._fields]
_OPERATION_COLUMNS = [operations.c[name] for name in RawOperation._fields]


def raw_payments(connection: sa.Connection, ids: Collection[str]) -> Sequence[RawPayment]:
    """These payments as they are in this snapshot, by id."""
    if not ids:
        return []
    tried: dict[str, list[RawAttempt]] = {}
    of_these = among(connection, attempts.c.payment_id, ids)
    for row in connection.execute(sa.select(*_ATTEMPT_COLUMNS).where(of_these).order_by(attempts.c.number)):
        tried.setdefault(row[0], []).append(RawAttempt._make(row))
    done: dict[str, list[RawOperation]] = {}
    for row in connection.execute(
        sa.select(*_OPERATION_COLUMNS).where(among(connection, operations.c.payment_id, ids))
    ):
        done.setdefault(row[0], []).append(RawOperation._make(row))
    wanted = sa.select(*_PAYMENT_COLUMNS).where(among(connection, payments.c.id, ids)).order_by(payments.c.id)
    rows = connection.execute(wanted)
    return [RawPayment._make((*row, tried.get(row[0], ()), done.get(row[0], ()))) for row in rows]


def among(connection: sa.Connection, column: sa.Column[str], ids: Collection[str]) -> sa.ColumnElement[bool]:
    """Whether a column is one of these. To PostgreSQL as one value: worded with hundreds, a statement is another one
    for each number of them, and to word and to read it takes longer than to run it.
    """
    if connection.dialect.name == "sqlite":
        return column.in_(list(ids))
    return column == sa.any_(sa.literal(list(ids), postgresql.ARRAY(sa.Text)))
