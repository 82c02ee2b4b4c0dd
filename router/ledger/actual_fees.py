"""What providers charge for an attempt, by their own word: how it is written, and read with what was estimated."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from router.ledger.engine import Database
from router.ledger.records import Attempt
from router.ledger.tables import attempts, from_micros, payments, settlement_lines, to_micros
from router.ledger.tables import settlement_imports as imports

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


@dataclass(frozen=True, slots=True)
class SettledFee:
    """One attempt whose whole payment was captured and settled, with what a schedule prices it by."""

    provider: str
    amount: int
    """In minor units, as `fee`."""
    currency: str
    fee: int
    brand: str | None
    funding: str | None
    card_country: str | None
    customer_country: str | None
    merchant: str
    on: dt.date
    """The day of the payment, in UTC."""


IMPORTS_READ = 40
"""Of one provider: more than a month of daily files."""


def fee_values(attempt: Attempt, read: Attempt | None) -> dict[str, Any]:
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

    def newest_import(self, provider: str) -> str | None:
        """The newest file of that provider that was judged and brought lines; None: there is none."""
        with self._database.read() as connection:
            return connection.scalar(_imports(provider).with_only_columns(imports.c.id).limit(1))

    def settled(self, provider: str, *, since: dt.datetime, limit: int) -> Sequence[SettledFee]:
        """The newest files' captures, spread over each file, about so many; imported since then.

        Only those that agree in their amount, of whole payments, settled in the payment's currency: of a part, or in
        another currency, a fee says nothing of the schedule.
        """
        found: list[SettledFee] = []
        recent = _imports(provider).where(imports.c.at >= to_micros(since)).limit(IMPORTS_READ)
        with self._database.read() as connection:
            for file in connection.execute(recent).all():
                step = max(1, file.lines // (limit - len(found)))
                found += map(_settled, connection.execute(_captures(provider, file.id, step, limit - len(found))))
                if len(found) >= limit:
                    break
        return found


def _imports(provider: str) -> sa.Select[Any]:
    done = (imports.c.provider == provider, imports.c.state == "done", imports.c.new_lines > 0)
    return sa.select(imports.c.id, imports.c.lines).where(*done).order_by(imports.c.id.desc())


def _captures(provider: str, import_id: str, step: int, limit: int) -> sa.Select[Any]:
    line, table, payment = settlement_lines.c, attempts.c, payments.c
    return (
        sa.select(
            table.provider,
            payment.amount,
            payment.currency,
            table.fee_actual,
            payment.order,
            payment.merchant,
            payment.created_at,
        )
        .select_from(settlement_lines)
        .join(attempts, table.id == line.attempt_id)
        .join(payments, payment.id == table.payment_id)
        .where(
            line.import_id == import_id,
            line.verdict.in_(("matched", "fee_differs")),
            line.number % step == 0,
            line.provider == provider,
            line.kind == "capture",
            line.settled == payment.amount,
            table.fee_actual.is_not(None),
            table.fee_currency == payment.currency,
        )
        .limit(limit)
    )


def _settled(row: sa.Row[Any]) -> SettledFee:
    """Of the order, whatever an earlier version may have left out."""
    card = _part(_part(row.order, "payment_method"), "card")
    return SettledFee(
        provider=row.provider,
        amount=row.amount,
        currency=row.currency,
        fee=row.fee_actual,
        brand=card.get("brand"),
        funding=card.get("funding"),
        card_country=card.get("country"),
        customer_country=_part(row.order, "customer").get("country"),
        merchant=row.merchant,
        on=from_micros(row.created_at).date(),
    )


def _part(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = of.get(name)
    return found if isinstance(found, Mapping) else {}
