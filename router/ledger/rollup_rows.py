"""The rows that reports are made of: payments as they stand, with their attempts and operations."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

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
    wanted = list(ids)
    tried: dict[str, list[RawAttempt]] = {}
    of_these = attempts.c.payment_id.in_(wanted)
    for row in connection.execute(sa.select(*_ATTEMPT_COLUMNS).where(of_these).order_by(attempts.c.number)):
        tried.setdefault(row[0], []).append(RawAttempt._make(row))
    done: dict[str, list[RawOperation]] = {}
    for row in connection.execute(sa.select(*_OPERATION_COLUMNS).where(operations.c.payment_id.in_(wanted))):
        done.setdefault(row[0], []).append(RawOperation._make(row))
    rows = connection.execute(sa.select(*_PAYMENT_COLUMNS).where(payments.c.id.in_(wanted)).order_by(payments.c.id))
    return [RawPayment._make((*row, tried.get(row[0], ()), done.get(row[0], ()))) for row in rows]
