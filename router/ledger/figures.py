"""Counts for the metrics: each by an index, or over rows that are few, so that a scrape is a few milliseconds."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from router.ledger.engine import Database
from router.ledger.tables import (
    alerts,
    circuit_transitions,
    flips,
    from_micros,
    payments,
    primary_overrides,
    settlement_imports,
    settlement_lines,
    to_micros,
    webhooks,
)

MOST_COUNTED = 100_000
"""More than so many is so many: whoever is to act needs no other figure."""
SETTLED_WITHIN = dt.timedelta(days=90)
"""Differences in files that are older than a quarter are not for an alert."""


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits."""

    count: int
    oldest: dt.datetime | None


class Figures:
    """The queries. Each raises LedgerUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def unresolved(self) -> tuple[Queue, int]:
        """Payments of which something is being found out, and those among them that need a person."""
        rows = sa.select(payments.c.created_at, payments.c.attention).where(payments.c.resolve_at.is_not(None))
        some = rows.limit(MOST_COUNTED).subquery()
        query = sa.select(sa.func.count(), sa.func.min(some.c.created_at), sa.func.count(some.c.attention))
        with self._database.read() as connection:
            count, oldest, attention = connection.execute(query).one()
        return _queue(count, oldest), attention

    def inbox(self) -> Queue:
        """Providers' webhooks that are stored and not applied."""
        some = sa.select(webhooks.c.received_at).where(webhooks.c.applied_at.is_(None)).limit(MOST_COUNTED).subquery()
        return self._queue(some.c.received_at)

    def alerts(self) -> Queue:
        """Alerts that nobody has been told of yet."""
        some = sa.select(alerts.c.at).where(alerts.c.next_try_at.is_not(None)).limit(MOST_COUNTED).subquery()
        return self._queue(some.c.at)

    def flips(self) -> tuple[Mapping[str, int], dt.datetime | None, int]:
        """Flips by state, when the last was decided, and the overrides in force."""
        by_state = sa.select(flips.c.state, sa.func.count(), sa.func.max(flips.c.created_at)).group_by(flips.c.state)
        in_force = sa.select(sa.func.count()).where(primary_overrides.c.ended_at.is_(None))
        with self._database.read() as connection:
            rows = connection.execute(by_state).all()
            overrides = connection.scalar(in_force) or 0
        newest = max((at for _, _, at in rows), default=None)
        return {state: count for state, count, _ in rows}, None if newest is None else from_micros(newest), overrides

    def transitions(self, after: Mapping[str, int]) -> Sequence[tuple[str, int, str]]:
        """Provider, version and state of every circuit's transitions past these versions, in their order."""
        table = circuit_transitions.c
        known = [sa.and_(table.provider == name, table.version <= version) for name, version in after.items()]
        query = sa.select(table.provider, table.version, table.state).where(sa.not_(sa.or_(sa.false(), *known)))
        with self._database.read() as connection:
            return [tuple(row) for row in connection.execute(query.order_by(table.provider, table.version))]

    def settled(self, now: dt.datetime) -> Sequence[tuple[str, str, int]]:
        """Settlement lines of the last months by provider and verdict: counted by an index, import by import."""
        recent = settlement_imports.c.at >= to_micros(now - SETTLED_WITHIN)
        query = (
            sa.select(settlement_imports.c.provider, settlement_lines.c.verdict, sa.func.count())
            .join_from(settlement_imports, settlement_lines, settlement_lines.c.import_id == settlement_imports.c.id)
            .where(recent, settlement_lines.c.verdict.is_not(None))
            .group_by(settlement_imports.c.provider, settlement_lines.c.verdict)
        )
        with self._database.read() as connection:
            return [tuple(row) for row in connection.execute(query)]

    def _queue(self, moment: sa.ColumnElement[int]) -> Queue:
        with self._database.read() as connection:
            return _queue(*connection.execute(sa.select(sa.func.count(), sa.func.min(moment))).one())


def _queue(count: int, oldest: int | None) -> Queue:
    return Queue(count, None if oldest is None else from_micros(oldest))
