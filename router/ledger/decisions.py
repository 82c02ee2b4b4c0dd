"""Decisions that checkout asked for, and what it told of the calls that it then made."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from router.ledger.engine import Database
from router.ledger.prepared import Prepared
from router.ledger.tables import decision_outcomes, decisions, from_micros, secrets, to_micros
from router.ledger.unavailable import LedgerUnavailableError

REQUIRES_ACTION = "requires_action"
AFTER_ACTION = ("approved", "declined")
"""What the issuer can have answered when the customer had acted."""
_RACES = 3
"""Others that may be first in the moment between a look and a commit; a decision has two or three providers."""


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """A decision as it is kept. No token, nothing of the customer."""

    id: str
    merchant: str
    reference: str
    amount: int
    currency: str
    method: str
    card_brand: str | None
    card_country: str | None
    card_funding: str | None
    decision: str
    """As the HTTP contract shows it: JSON."""
    created_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Told:
    """What checkout told of one provider."""

    decision_id: str
    provider: str
    merchant: str
    outcome: str
    latency_ms: int
    decline_code: str | None
    decline: Mapping[str, Any] | None
    finishes: bool
    """After it there is nothing more to tell of the decision."""
    decided_at: dt.datetime
    told_at: dt.datetime

    def says_the_same(self, other: Told) -> bool:
        """Whether both are one outcome, told twice."""
        return (self.provider, self.outcome, self.latency_ms, self.decline_code) == (
            other.provider,
            other.outcome,
            other.latency_ms,
            other.decline_code,
        )

    def follows(self, earlier: Told) -> bool:
        """Whether it is what became of the customer's step at the same provider."""
        return (
            self.provider == earlier.provider and earlier.outcome == REQUIRES_ACTION and self.outcome in AFTER_ACTION
        )


class DecisionLedger:
    """The decisions' queries."""

    def __init__(self, database: Database) -> None:
        self._database = database
        statement = self._insert(decisions).on_conflict_do_nothing(index_elements=[decisions.c.id])
        self._one_more = Prepared(statement, database.engine.dialect, as_given=["decision"])

    def write(self, rows: Sequence[DecisionRow]) -> None:
        """Commit these, all or none; those that are written already stay. Raises LedgerUnavailableError."""
        with self._database.write() as connection:
            self._one_more.many(connection, map(_row, rows))

    def told(self, decision_id: str) -> Sequence[Told]:
        """What is known of a decision's outcomes, in the order in which they were told."""
        table = decision_outcomes
        query = sa.select(table).where(table.c.decision_id == decision_id).order_by(table.c.told_at, table.c.provider)
        with self._database.read() as connection:
            rows = connection.execute(query).mappings().all()
        return [
            Told(**dict(row) | {"decided_at": from_micros(row["decided_at"]), "told_at": from_micros(row["told_at"])})
            for row in rows
        ]

    def tell(self, news: Told) -> tuple[bool, Sequence[Told]]:
        """Commit what was told. Answers whether it was written, and what had been told before.

        It is not where the provider has an outcome already that this one does not follow (what it follows, it
        replaces), or the decision is finished; of any number of processes that try at once, one writes. Raises
        LedgerUnavailableError.
        """
        table = decision_outcomes
        mine = (table.c.decision_id == news.decision_id) & (table.c.provider == news.provider)
        values = _values(news) | {"decided_at": to_micros(news.decided_at), "told_at": to_micros(news.told_at)}
        for _ in range(_RACES):
            before = self.told(news.decision_id)
            own = next((each for each in before if each.provider == news.provider), None)
            if any(each.finishes for each in before) or (own is not None and not news.follows(own)):
                return False, before
            statement: sa.Insert | sa.Update = table.insert()
            if own is not None:
                statement = table.update().where(mine, table.c.outcome == REQUIRES_ACTION)
            try:
                with self._database.write() as connection:
                    written = connection.execute(statement, values).rowcount
            except sa.exc.IntegrityError:
                continue  # another was first: the same provider, or one that finishes as well
            if written:
                return True, before
        raise LedgerUnavailableError("this decision's outcomes are told by too many at once")

    def secret(self, name: str, candidate: str, now: dt.datetime) -> str:
        """The secret of that name: the candidate, where the ledger holds none yet.

        Raises LedgerUnavailableError; of it UnreadableError where its key is not here.
        """
        query = sa.select(secrets.c.value).where(secrets.c.name == name)
        with self._database.read() as connection:
            found = connection.scalar(query)
        if found is None:
            kept = self._database.seals.text(candidate, f"secret:{name}")
            values = {"name": name, "value": kept, "created_at": to_micros(now)}
            with self._database.write() as connection:
                connection.execute(self._insert(secrets).on_conflict_do_nothing(index_elements=["name"]), values)
            # Another process may have been first.
            with self._database.read() as connection:
                found = connection.scalar(query)
        return self._database.seals.open_text(str(found), f"secret:{name}")

    # ------------------------------------------------------------ upkeep

    def reap(self, before: dt.datetime, *, limit: int) -> int:
        """Forget decisions made before that moment. Says how many."""
        return self._reap(decisions, [decisions.c.id], decisions.c.created_at, before, limit)

    def reap_outcomes(self, before: dt.datetime, *, limit: int) -> int:
        """Forget outcomes of decisions made before that moment. Says how many."""
        table = decision_outcomes
        return self._reap(table, [table.c.decision_id, table.c.provider], table.c.decided_at, before, limit)

    def _reap(
        self, table: sa.Table, key: Sequence[sa.Column[Any]], age: sa.Column[Any], before: dt.datetime, limit: int
    ) -> int:
        # Found in a read of its own, so that no writer waits for the search.
        query = sa.select(*key).where(age < to_micros(before)).order_by(age).limit(limit)
        with self._database.read() as connection:
            found = [tuple(row) for row in connection.execute(query)]
        if found:
            with self._database.write() as connection:
                connection.execute(table.delete().where(sa.tuple_(*key).in_(found)))
        return len(found)

    def _insert(self, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
        return sqlite.insert(table) if self._database.is_sqlite else postgresql.insert(table)


def _values(told: Told) -> dict[str, Any]:
    return {name: getattr(told, name) for name in told.__slots__}


def _row(row: DecisionRow) -> dict[str, Any]:
    # Written out: a thousand a second of them are looked at.
    return {
        "id": row.id,
        "merchant": row.merchant,
        "reference": row.reference,
        "amount": row.amount,
        "currency": row.currency,
        "method": row.method,
        "card_brand": row.card_brand,
        "card_country": row.card_country,
        "card_funding": row.card_funding,
        "decision": row.decision,
        "created_at": to_micros(row.created_at),
    }
