"""The operator's queue: payments that the machine cannot end without a guess."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from router.ledger.engine import Database
from router.ledger.operations import Operation
from router.ledger.payments import PaymentLedger
from router.ledger.records import Attempt, Payment
from router.ledger.tables import payments


class AttentionLedger:
    """The queue's query."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._payments = PaymentLedger(database)

    def page(
        self, *, merchant: str | None, limit: int, after: str | None
    ) -> Sequence[tuple[Payment, Sequence[Attempt], Sequence[Operation]]]:
        """A merchant's payments that need a person, or all merchants', the oldest first, past the id `after`."""
        # What has attention is still being found out: few rows, and there is an index of them.
        query = sa.select(payments.c.id).where(payments.c.resolve_at.is_not(None), payments.c.attention.is_not(None))
        if merchant is not None:
            query = query.where(payments.c.merchant == merchant)
        if after is not None:
            query = query.where(payments.c.id > after)
        with self._database.read() as connection:
            ids = connection.scalars(query.order_by(payments.c.id).limit(limit)).all()
        loaded = [self._payments.load(each) for each in ids]
        return [each for each in loaded if each is not None]
