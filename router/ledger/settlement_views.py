"""What an import found, and what should be in a settlement file by now and is in none."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from router.ledger.engine import Database
from router.ledger.operations import IN_FORCE
from router.ledger.settlements import Import, import_of
from router.ledger.tables import attempts, from_micros, operations, payments, to_micros
from router.ledger.tables import settlement_imports as imports
from router.ledger.tables import settlement_lines as lines


@dataclass(frozen=True, slots=True)
class JudgedLine:
    """One line with its verdict. Money is integer minor units; positive where it came to the merchant."""

    provider: str
    id: str
    import_id: str
    number: int
    kind: str
    type: str
    reference: str | None
    amount: int
    currency: str
    fee: int
    net: int
    net_currency: str
    at: dt.datetime
    batch: str | None
    verdict: str
    payment_id: str | None
    attempt_id: str | None
    operation_id: str | None
    settled: int | None
    expected: int | None
    expected_currency: str | None
    expected_fee: int | None
    expected_fee_currency: str | None
    fee_basis: str | None


@dataclass(frozen=True, slots=True)
class Missing:
    """A capture or refund that the ledger knows and no settlement file has."""

    provider: str
    kind: str
    id: str
    """Of the attempt (captured with its approval), or of the capture or refund."""
    payment_id: str
    reference: str | None
    """The provider's."""
    amount: int
    """In minor units; negative of a refund."""
    currency: str
    at: dt.datetime
    """When it was begun."""


class SettlementViews:
    """The queries. `merchant` None: all merchants'."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def imports(self, *, limit: int, before: str | None = None) -> Sequence[Import]:
        """Files, the latest first, past the id `before`."""
        query = imports.select().order_by(imports.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(imports.c.id < before)
        with self._database.read() as connection:
            return [import_of(row) for row in connection.execute(query).mappings()]

    def counts(self, import_id: str) -> Mapping[tuple[str, str], int]:
        """How many new lines an import brought, by verdict and kind."""
        query = sa.select(lines.c.verdict, lines.c.kind, sa.func.count()).where(
            lines.c.import_id == import_id, lines.c.verdict.is_not(None)
        )
        with self._database.read() as connection:
            found = connection.execute(query.group_by(lines.c.verdict, lines.c.kind)).all()
        return Counter({(verdict, kind): count for verdict, kind, count in found})

    def lines(
        self,
        import_id: str,
        *,
        limit: int,
        verdict: str | None = None,
        after: int = 0,
        merchant: str | None = None,
        strangers: bool = True,
    ) -> Sequence[JudgedLine]:
        """An import's new lines in the file's order, past the line `after`.

        `merchant`: only lines of its payments, and, with `strangers`, lines of no payment.
        """
        wanted = [lines.c[name] for name in JudgedLine.__slots__]
        query = sa.select(*wanted).where(
            lines.c.import_id == import_id, lines.c.verdict.is_not(None), lines.c.number > after
        )
        if verdict is not None:
            query = query.where(lines.c.verdict == verdict)
        if merchant is not None:
            theirs = sa.select(payments.c.id).where(
                payments.c.id == lines.c.payment_id, payments.c.merchant == merchant
            )
            nobodys = sa.and_(sa.literal(strangers), lines.c.payment_id.is_(None))
            query = query.where(sa.or_(theirs.exists(), nobodys))
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(lines.c.number).limit(limit)).mappings()
            return [JudgedLine(**{**row, "at": from_micros(row["at"])}) for row in rows]

    def covered(self, provider: str) -> tuple[dt.datetime, dt.datetime] | None:
        """The moments of the first and the last line that any file of a provider has; None: there is none."""
        first, last = sa.func.min(imports.c.first_at), sa.func.max(imports.c.last_at)
        of = (imports.c.provider == provider, imports.c.state != "importing")
        with self._database.read() as connection:
            row = connection.execute(sa.select(first, last).where(*of)).one()
        return None if row[0] is None else (from_micros(row[0]), from_micros(row[1]))

    def missing(
        self,
        provider: str,
        since: dt.datetime,
        until: dt.datetime,
        *,
        limit: int,
        after: tuple[dt.datetime, str] | None = None,
        merchant: str | None = None,
    ) -> Sequence[Missing]:
        """Begun from `since` until before `until`, settled nowhere; the oldest first, past `after`."""
        found = _missing(provider, since, until, merchant)
        query = sa.select(found).order_by(found.c.at, found.c.id).limit(limit)
        if after is not None:
            query = query.where(sa.tuple_(found.c.at, found.c.id) > (to_micros(after[0]), after[1]))
        with self._database.read() as connection:
            rows = connection.execute(query).mappings()
            return [Missing(**{**row, "provider": provider, "at": from_micros(row["at"])}) for row in rows]

    def count_missing(self, provider: str, since: dt.datetime, until: dt.datetime) -> int:
        """How many there are."""
        found = _missing(provider, since, until, None)
        with self._database.read() as connection:
            return connection.scalar(sa.select(sa.func.count()).select_from(found)) or 0


def _missing(provider: str, since: dt.datetime, until: dt.datetime, merchant: str | None) -> sa.Subquery:
    a, o, p = attempts.c, operations.c, payments.c
    line = sa.select(sa.literal(1)).select_from(lines)
    of_attempt = line.where(lines.c.attempt_id == a.id, lines.c.kind == "capture").exists()
    of_whole = line.where(
        lines.c.attempt_id == o.attempt_id, lines.c.kind == "capture", lines.c.operation_id.is_(None)
    ).exists()
    of_operation = line.where(lines.c.operation_id == o.id).exists()
    bounds = to_micros(since), to_micros(until)
    at_once = (
        sa.select(
            sa.literal("capture").label("kind"),
            a.id,
            a.payment_id,
            a.provider_reference.label("reference"),
            p.amount,
            p.currency,
            a.started_at.label("at"),
        )
        .join_from(attempts, payments, a.payment_id == p.id)
        .where(
            a.provider == provider,
            # As its index has it.
            sa.text("attempts.outcome = 'approved'"),
            a.started_at >= bounds[0],
            a.started_at < bounds[1],
            a.capture.in_(("done", "pending")),
            ~of_attempt,
        )
    )
    signed = sa.case((o.kind == "refund", -o.amount), else_=o.amount)
    by_operation = (
        sa.select(o.kind, o.id, o.payment_id, o.provider_reference, signed, p.currency, o.started_at)
        .join_from(operations, payments, o.payment_id == p.id)
        .where(
            o.provider == provider,
            o.kind.in_(("capture", "refund")),
            o.state.in_(IN_FORCE),
            o.started_at >= bounds[0],
            o.started_at < bounds[1],
            ~of_operation,
            sa.or_(o.kind == "refund", ~of_whole),
        )
    )
    if merchant is not None:
        at_once, by_operation = (each.where(p.merchant == merchant) for each in (at_once, by_operation))
    return sa.union_all(at_once, by_operation).subquery()
