"""A card's earlier tries, whatever provider they were made at."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from router.ledger.engine import Database
from router.ledger.tables import COUNTED_TRIES, attempts, from_micros, payments
from router.retry_budget import Try

LATEST = 100
"""More than any network's limit; and after a decline that forbids any further try there are no later ones."""

_TRIES = (
    sa.select(attempts.c.started_at, attempts.c.outcome, payments.c.amount, payments.c.currency, attempts.c.decline)
    .join(payments, payments.c.id == attempts.c.payment_id)
    # As the index has it, word for word: else neither database would use it.
    .where(attempts.c.card == sa.bindparam("card"), sa.text(COUNTED_TRIES))
    .order_by(attempts.c.started_at.desc())
    .limit(LATEST)
)


class CardLedger:
    """The cards' queries."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def tries(self, card: str) -> Sequence[Try]:
        """The latest tries of a card that count against a network's limits, newest first."""
        with self._database.read() as connection:
            return [
                Try(from_micros(at), outcome, amount, currency, decline)
                for at, outcome, amount, currency, decline in connection.execute(_TRIES, {"card": card})
            ]
