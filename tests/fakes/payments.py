"""Payments for tests of the ledger alone, where no provider has a part."""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa

from router.ledger.payments import _append_event
from router.ledger.records import Payment, to_row
from router.ledger.tables import payments

NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)


def a_payment(payment_id: str, **changes: Any) -> Payment:
    """A payment that is about to be written: 19.99 EUR, processing."""
    usual: dict[str, Any] = {
        "merchant": "default",
        "reference": f"ORD-{payment_id}",
        "status": "processing",
        "amount": 1999,
        "currency": "EUR",
        "order": {"allow_repeat_reference": False},
        "flags": {},
        "decision": {},
        "created_at": NOW,
        "updated_at": NOW,
        "expires_at": NOW,
        "version": 1,
    }
    return Payment(id=payment_id, **(usual | changes))


def passed_on(connection: sa.Connection, payment: Payment) -> None:
    """Write it and its first event in a transaction of the test's, which the ledger would commit at once."""
    row = to_row({column.name: getattr(payment, column.name) for column in payments.columns})
    connection.execute(payments.insert(), row)
    _append_event(connection, payment.id, "created", row)
