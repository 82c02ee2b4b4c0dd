"""Settlement files as the console lists them: how many lines differ, counted along an index and nowhere else."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from router.ledger.engine import Database
from router.ledger.settlement_views import Missing, SettlementViews
from router.ledger.tables import settlement_imports as imports
from router.ledger.tables import settlement_lines as lines
from router.ledger.tables import to_micros

IMPORTS_AT_MOST = 50
"""Newest files whose open differences are counted for a summary: a year of weekly ones."""
LOOKED_AT_ONCE = dt.timedelta(days=7)
"""Of what is in the ledger only: a query over months could take longer than PostgreSQL is let to."""


class SettlementSummaries:
    """The queries. Their counts are the house's, of all merchants, as the files are."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._views = SettlementViews(database)

    def verdicts(
        self, import_ids: Collection[str], only: Collection[str] | None = None
    ) -> Mapping[str, Mapping[str, int]]:
        """By import: how many of its new lines are judged how. `only`: of these verdicts alone, which is quick."""
        query = sa.select(lines.c.import_id, lines.c.verdict, sa.func.count()).where(
            lines.c.import_id.in_(import_ids),
            lines.c.verdict.is_not(None) if only is None else lines.c.verdict.in_(only),
        )
        found: dict[str, dict[str, int]] = {each: {} for each in import_ids}
        with self._database.read() as connection:
            for id, verdict, count in connection.execute(query.group_by(lines.c.import_id, lines.c.verdict)):
                found[id][verdict] = count
        return found

    def open_differences(self, verdicts: Collection[str], *, since: dt.datetime) -> int:
        """Lines with one of these verdicts, of the newest files that were imported since that moment."""
        newest = sa.select(imports.c.id).where(imports.c.at >= to_micros(since)).order_by(imports.c.id.desc())
        with self._database.read() as connection:
            ids = connection.scalars(newest.limit(IMPORTS_AT_MOST)).all()
        return sum(sum(each.values()) for each in self.verdicts(ids, verdicts).values()) if ids else 0

    def missing(self, provider: str, since: dt.datetime, until: dt.datetime, **more: Any) -> Sequence[Missing]:
        """As `SettlementViews.missing`, a week at a time until there are `limit` of them."""
        found: list[Missing] = []
        limit: int = more.pop("limit")
        after: tuple[dt.datetime, str] | None = more.pop("after", None)
        begins = since if after is None else max(since, after[0])
        while begins < until and len(found) < limit:
            ends = min(begins + LOOKED_AT_ONCE, until)
            found += self._views.missing(provider, begins, ends, limit=limit - len(found), after=after, **more)
            begins = ends
        return found
