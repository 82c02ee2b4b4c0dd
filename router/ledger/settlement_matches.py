"""What settlement lines are judged by: the attempts and refunds that they name, and the lines that go with them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from router.ledger.engine import Database
from router.ledger.rollups import mark
from router.ledger.settlements import BATCH, hold
from router.ledger.tables import attempts, operations, payments
from router.ledger.tables import settlement_lines as lines

_COLUMNS = (
    *(lines.c.id, lines.c.kind, lines.c.reference, lines.c.modification, lines.c.own, lines.c.amount),
    *(lines.c.currency, lines.c.fee, lines.c.net_currency, lines.c.unit, lines.c.attempt_id),
    *(lines.c.expected_fee, lines.c.fee_basis, lines.c.expected_fee_currency),
)


@dataclass(frozen=True, slots=True)
class Line:
    """A line as it is judged."""

    id: str
    kind: str
    reference: str | None
    modification: str | None
    own: str | None
    amount: int
    currency: str
    fee: int
    net_currency: str
    unit: str | None
    attempt_id: str | None
    expected_fee: int | None
    fee_basis: str | None
    expected_fee_currency: str | None


@dataclass(frozen=True, slots=True)
class AttemptFound:
    """An attempt that lines name, with its payment."""

    id: str
    payment_id: str
    provider_reference: str | None
    outcome: str | None
    capture: str | None
    fee_actual: int | None
    fee_currency: str | None
    amount: int
    currency: str
    decision: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class OperationFound:
    """A capture or refund, with its payment's currency."""

    id: str
    payment_id: str
    attempt_id: str
    kind: str
    state: str
    amount: int
    provider_reference: str | None
    currency: str


@dataclass(frozen=True, slots=True)
class Writing:
    """What is to be written of one batch."""

    judged: Sequence[Mapping[str, Any]]
    """A row for each line: `line`, and its columns."""
    fees: Sequence[Mapping[str, Any]]
    """`attempt`, `fee_actual`, `fee_currency`: what the provider kept in the end."""


class MatchLedger:
    """Queries of the judging."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def unjudged(self, import_id: str) -> Sequence[Line]:
        """The next lines of an import without a verdict."""
        query = sa.select(*_COLUMNS).where(lines.c.import_id == import_id, lines.c.verdict.is_(None))
        return self._lines(query.order_by(lines.c.number).limit(BATCH))

    def judged_as(self, provider: str, verdicts: Collection[str], *, after: str) -> Sequence[Line]:
        """The next lines of a provider with one of these verdicts, past that id."""
        query = sa.select(*_COLUMNS).where(
            lines.c.provider == provider, lines.c.verdict.in_(verdicts), lines.c.id > after
        )
        return self._lines(query.order_by(lines.c.id).limit(BATCH))

    def with_units(self, provider: str, units: Collection[str], attempt_ids: Collection[str]) -> Sequence[Line]:
        """Lines that were put to these units, or are captures of these attempts."""
        of = sa.or_(lines.c.unit.in_(units), sa.and_(lines.c.kind == "capture", lines.c.attempt_id.in_(attempt_ids)))
        kinds = lines.c.kind.in_(("capture", "refund"))
        return self._lines(sa.select(*_COLUMNS).where(lines.c.provider == provider, kinds, of))

    def _lines(self, query: sa.Select[Any]) -> Sequence[Line]:
        with self._database.read() as connection:
            return [Line(*row) for row in connection.execute(query)]

    def attempts(self, provider: str, references: Collection[str], own: Collection[str]) -> Sequence[AttemptFound]:
        """Attempts by the provider's reference, or by our own id."""
        a = attempts.c
        wanted = (
            *(a.id, a.payment_id, a.provider_reference, a.outcome, a.capture, a.fee_actual, a.fee_currency),
            *(payments.c.amount, payments.c.currency, payments.c.decision),
        )
        query = (
            sa.select(*wanted)
            .join_from(attempts, payments, a.payment_id == payments.c.id)
            .where(a.provider == provider)
        )
        found: dict[str, AttemptFound] = {}
        with self._database.read() as connection:
            for condition in (a.provider_reference.in_(references), a.id.in_(own)):
                found |= {
                    row["id"]: AttemptFound(**row) for row in connection.execute(query.where(condition)).mappings()
                }
        return list(found.values())

    def captures(self, attempt_ids: Collection[str]) -> Sequence[OperationFound]:
        """Captures of these attempts."""
        payment_ids = sa.select(attempts.c.payment_id).where(attempts.c.id.in_(attempt_ids))
        return self._operations(
            operations.c.payment_id.in_(payment_ids),
            operations.c.kind == "capture",
            operations.c.attempt_id.in_(attempt_ids),
        )

    def refunds(self, provider: str, references: Collection[str], own: Collection[str]) -> Sequence[OperationFound]:
        """Refunds by the provider's reference, or by our own id."""
        of = (operations.c.provider == provider, operations.c.kind == "refund")
        found = self._operations(*of, operations.c.provider_reference.in_(references))
        named = self._operations(*of, operations.c.id.in_(own)) if own else ()
        return [*found, *named]

    def _operations(self, *conditions: sa.ColumnElement[bool]) -> Sequence[OperationFound]:
        o = operations.c
        wanted = (o.id, o.payment_id, o.attempt_id, o.kind, o.state, o.amount, o.provider_reference)
        query = sa.select(*wanted, payments.c.currency).join_from(operations, payments, o.payment_id == payments.c.id)
        with self._database.read() as connection:
            return [OperationFound(*row) for row in connection.execute(query.where(*conditions))]

    def write(self, import_id: str, holder: str, provider: str, writing: Writing, *, now: dt.datetime) -> None:
        """Write verdicts, and the fees that follow from them, in one commit. Raises LeaseLostError."""
        names = [name for name in (writing.judged[0] if writing.judged else {}) if name != "line"]
        one = lines.update().where(lines.c.provider == provider, lines.c.id == sa.bindparam("line"))
        fee = attempts.update().where(attempts.c.id == sa.bindparam("attempt"))
        with self._database.write() as connection:
            hold(connection, import_id, holder, now)
            if writing.judged:
                values: dict[str, Any] = {name: sa.bindparam(f"new_{name}") for name in names}
                rows = [
                    {"line": each["line"], **{f"new_{name}": each[name] for name in names}} for each in writing.judged
                ]
                connection.execute(one.values(values), rows)
            if writing.fees:
                told: dict[str, Any] = {name: sa.bindparam(f"new_{name}") for name in ("fee_actual", "fee_currency")}
                of = [
                    {
                        "attempt": each["attempt"],
                        "new_fee_actual": each["fee_actual"],
                        "new_fee_currency": each["fee_currency"],
                    }
                    for each in writing.fees
                ]
                connection.execute(fee.values(told), of)
                # No event tells of a fee, and the reports have it.
                changed = sa.select(attempts.c.payment_id).distinct()
                mark(
                    connection, connection.scalars(changed.where(attempts.c.id.in_([each["attempt"] for each in of])))
                )
