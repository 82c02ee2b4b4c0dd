"""Attempts whose provider has said what it charges, with what the decision estimated."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from router.ledger.engine import Database
from router.ledger.tables import attempts, payments, to_micros

PAGE = 1000
"""Rows that one query reads: a report over months must neither fill the memory nor hold a transaction open."""


@dataclass(frozen=True, slots=True)
class ActualFee:
    """One attempt."""

    provider: str
    amount: int
    """Of the payment, in minor units."""
    currency: str
    fee: int
    """In minor units of `fee_currency`."""
    fee_currency: str
    decision: Mapping[str, Any]
    """The payment's, as its JSON has it."""


class ActualFees:
    """The query."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def between(self, since: dt.datetime, until: dt.datetime) -> Iterator[ActualFee]:
        """Those that were begun from `since` until before `until`, the oldest first."""
        table = attempts.c
        query = (
            sa.select(
                table.id,
                table.provider,
                table.started_at,
                table.fee_actual,
                table.fee_currency,
                payments.c.amount,
                payments.c.currency,
                payments.c.decision,
            )
            .join_from(attempts, payments, table.payment_id == payments.c.id)
            .where(table.fee_actual.is_not(None), table.started_at < to_micros(until))
            .order_by(table.started_at, table.id)
            .limit(PAGE)
        )
        past = table.started_at >= to_micros(since)
        while True:
            with self._database.read() as connection:
                rows = connection.execute(query.where(past)).all()
            for row in rows:
                yield ActualFee(
                    row.provider, row.amount, row.currency, row.fee_actual, row.fee_currency, row.decision
                )
            if len(rows) < PAGE:
                return
            last = rows[-1]
            past = sa.tuple_(table.started_at, table.id) > (last.started_at, last.id)
