"""What providers charge for an attempt, by their own word: how it is written, and read with what was estimated."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from router.ledger.engine import Database
from router.ledger.records import Attempt
from router.ledger.tables import attempts, payments, settlement_lines, to_micros

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


def fee_values(attempt: Attempt, read: Attempt | None) -> Mapping[str, Any]:
    """What to write of an attempt's fee, by a process that read it as `read` says (None: it knows no older state).

    A settlement file's word is the last: it has all that was kept of all captures, and it is written without an event
    of the payment. So a fee that was not told anew is left alone, and one that was told takes no settled fee's place,
    be that one of before the reading (its lines are there) or of since (the columns are others by now).
    """
    told: tuple[int | None, str | None] = (attempt.fee_actual, attempt.fee_currency)
    if read is None:
        return {"fee_actual": told[0], "fee_currency": told[1]}
    was = (read.fee_actual, read.fee_currency)
    if told == was:
        return {}
    stays = sa.or_(attempts.c.fee_actual.is_distinct_from(was[0]), attempts.c.fee_currency.is_distinct_from(was[1]))
    if was[0] is not None:
        of = (settlement_lines.c.attempt_id == attempts.c.id, settlement_lines.c.kind == "capture")
        stays = sa.or_(stays, sa.select(sa.literal(1)).select_from(settlement_lines).where(*of).exists())
    return {
        name: sa.case((stays, attempts.c[name]), else_=sa.literal(value, attempts.c[name].type))
        for name, value in zip(("fee_actual", "fee_currency"), told, strict=True)
    }


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
