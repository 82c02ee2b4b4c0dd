"""Captures, voids and refunds, as the ledger has them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from router.ledger.records import from_row, to_row
from router.ledger.tables import operations
from router.ledger.together import Insert, Step, Update, this_row

OperationKind = Literal["capture", "void", "refund"]
OperationState = Literal["started", "unknown", "received", "done", "refused", "failed"]
"""started, unknown: not settled · received: a webhook follows · done · refused: never happened · failed: undone."""

RANK: Mapping[str, int] = {"started": 0, "unknown": 1, "received": 2, "refused": 3, "done": 4, "failed": 5}
"""What is told in whatever order: the higher rank stands, so late and doubled news change nothing."""
UNSETTLED = ("started", "unknown")
IN_FORCE = ("received", "done")
"""States in which an operation counts as having moved money."""
UNSEEN = "router: unseen"
"""Who asked for a void of an attempt of which nobody knows whether there is anything to void: one that is only
`received` may have come ahead of the authorization, and counts for nothing."""


CHECKOUT = "checkout"
ABANDONED = "router: abandoned"
"""Who asked for a void because the customer did not come back."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One capture, void or refund. Amounts are integer minor units by ISO 4217."""

    id: str
    payment_id: str
    attempt_id: str
    kind: OperationKind
    amount: int
    provider: str
    idempotency_key: str
    state: OperationState
    asked_by: str
    """`checkout`, or why the router did it by itself."""
    started_at: dt.datetime
    reason: str | None = None
    provider_reference: str | None = None
    sends: int = 1
    """How often it may have been sent, counted before each send; 0: held back so far, and certainly never sent."""
    finished_at: dt.datetime | None = None
    failures: Sequence[str] = ()
    """Of a void that is asked again and again (UNSEEN): each of its sends that is known to have come to nothing."""

    @property
    def may_come(self) -> bool:
        """Whether a void that nobody sees (UNSEEN) may yet take something away: one of its sends has no known end."""
        return self.state in (*UNSETTLED, "received") and self.sends > len(self.failures)


_COLUMNS = [f"{column.name}" for column in operations.columns]


_NEW = Insert(operations, _COLUMNS)
_AGAIN = Update(operations, _COLUMNS, where=[this_row(operations)])


def step(operation: Operation, *, new: bool) -> Step:
    """A new operation's row, or how one stands now."""
    row = to_row({name: getattr(operation, name) for name in _COLUMNS} | {"failures": list(operation.failures)})
    return (_NEW, row) if new else (_AGAIN, {**row, "this": operation.id})


def of_payment(connection: sa.Connection, payment_id: str) -> list[Operation]:
    """A payment's operations, in the order in which they were started."""
    query = operations.select().where(operations.c.payment_id == payment_id)
    rows = connection.execute(query.order_by(operations.c.started_at, operations.c.id)).mappings()
    return [operation_of(row) for row in rows]


def operation_of(row: Mapping[Any, Any]) -> Operation:
    """An operation as its row has it."""
    return Operation(**from_row(row) | {"failures": tuple(row["failures"])})
