"""What each process saw of issuers' answers and of calls, minute by minute: shared, so that all score alike.

A minute's row holds counts so far, and a reader takes differences, as with `router.ledger.counts`. Minutes that are
over for long are merged into hours, and those into days, of all processes together. Merged rows are read only by a
process that learns the past, in the same moment as the minutes that are left, so nothing counts twice: who hears
minutes as they come never reads a merged row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from router.ledger.engine import Database
from router.ledger.tables import score_counts as table

MINUTE_S, HOUR_S, DAY_S = 60, 3_600, 86_400
CALLS = "*"
"""The segment of calls; no segment's key is so."""
TOGETHER = ""
"""The process of rows that hold all processes' counts."""
_COUNTS = ("good", "bad", "good_ms", "bad_ms")
_KEY = tuple(column for column in table.c if column.primary_key)

Key = tuple[str, str, str, int]
"""Process, provider, segment, start."""


class ScoreRow(NamedTuple):
    """What one process, or all together, saw of one provider and segment in one stretch of time, so far."""

    process: str
    """Unique to one life of a process, so that its counts never go back."""
    provider: str
    segment: str
    """A segment's key, or CALLS."""
    starts_s: int
    """Since 1970."""
    good: int
    """Approvals; calls that did not fail."""
    bad: int
    good_ms: int
    """The sum of their moments, after the start."""
    bad_ms: int

    @property
    def key(self) -> Key:
        """What a reader remembers a minute's row by."""
        return self[:4]


class Past(NamedTuple):
    """What the ledger knows at one moment; `minutes` and `earlier` have nothing in common."""

    minutes: Sequence[ScoreRow]
    """Each process's own."""
    earlier: Sequence[ScoreRow]
    """Of all processes together: older minutes, hours and days."""


class ScoreLedger:
    """The scores' queries."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def write(self, rows: Iterable[ScoreRow], *, at_us: int) -> None:
        """Commit these minutes in place of what their process wrote before. Raises LedgerUnavailableError."""
        values = [_values(row, width_s=MINUTE_S, updated_at=at_us) for row in rows]
        if not values:
            return
        statement = self._insert()
        replaced = {name: statement.excluded[name] for name in (*_COUNTS, "updated_at")}
        with self._database.write() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=_KEY, set_=replaced), values)

    def since(self, updated_after_us: int, *, not_process: str) -> Sequence[ScoreRow]:
        """Other processes' minutes that were written after that moment, by their own clocks.

        Ask with some minutes of overlap: two machines' clocks differ, and a row read twice adds nothing.
        """
        query = sa.select(*_columns()).where(
            table.c.updated_at > updated_after_us,
            table.c.process.not_in((not_process, TOGETHER)),
            table.c.width_s == MINUTE_S,
        )
        with self._database.read() as connection:
            return [ScoreRow(*row) for row in connection.execute(query)]

    def past(self, *, minutes_from_s: int, from_s: int, calls_from_s: int) -> Past:
        """Everything since `from_s`, calls since `calls_from_s`; minutes by process since `minutes_from_s`."""
        since = sa.case((table.c.segment == CALLS, calls_from_s), else_=from_s)
        recent = sa.and_(table.c.width_s == MINUTE_S, table.c.starts_s >= minutes_from_s)
        minutes = sa.select(*_columns()).where(recent)
        sums = [sa.cast(sa.func.sum(table.c[name]), sa.BigInteger) for name in _COUNTS]
        place = (table.c.provider, table.c.segment, table.c.starts_s)
        earlier = (
            sa.select(sa.literal(TOGETHER), *place, *sums)
            .where(sa.not_(recent), table.c.starts_s + table.c.width_s > since)
            .group_by(*place, table.c.width_s)
        )
        with self._database.read() as connection:
            return Past(
                [ScoreRow(*row) for row in connection.execute(minutes)],
                [ScoreRow(*row) for row in connection.execute(earlier)],
            )

    # ------------------------------------------------------------ upkeep

    def merge(self, before_s: int, *, narrow_s: int, wide_s: int, limit: int) -> int:
        """Put rows of `narrow_s` that began before that moment together in rows of `wide_s`. Says how many.

        Calls are forgotten: of hours ago they say nothing of now.

        In one commit, so that whoever reads the past has each count once; two workers cannot take the same row.
        """
        old = sa.select(*_KEY).where(table.c.width_s == narrow_s, table.c.starts_s < before_s)
        if not self._any(old):
            return 0
        taken = sa.tuple_(*_KEY).in_(old.order_by(table.c.starts_s).limit(limit))
        with self._database.write() as connection:
            deleted = table.delete().where(taken).returning(*_columns(), table.c.updated_at)
            rows = connection.execute(deleted).mappings().all()
            if rows:
                self._add(connection, rows, wide_s)
        return len(rows)

    def forget(self, before_s: int, *, limit: int) -> int:
        """Delete rows that began before that moment. Says how many."""
        # Every width there is, as the index has it.
        widths = table.c.width_s.in_((MINUTE_S, HOUR_S, DAY_S))
        old = sa.select(*_KEY).where(widths, table.c.starts_s < before_s)
        if not self._any(old):
            return 0
        with self._database.write() as connection:
            return connection.execute(table.delete().where(sa.tuple_(*_KEY).in_(old.limit(limit)))).rowcount

    def _any(self, query: sa.Select[Any]) -> bool:
        # In a read of its own: a round with nothing to do must keep no writer waiting.
        with self._database.read() as connection:
            return connection.execute(query.limit(1)).first() is not None

    def _add(self, connection: sa.Connection, rows: Iterable[sa.RowMapping], wide_s: int) -> None:
        merged: dict[tuple[str, str, int], dict[str, Any]] = {}
        for row in rows:
            if row["segment"] == CALLS:
                continue
            starts_s = row["starts_s"] // wide_s * wide_s
            later_ms = (row["starts_s"] - starts_s) * 1000
            moved = ScoreRow(
                TOGETHER,
                row["provider"],
                row["segment"],
                starts_s,
                row["good"],
                row["bad"],
                row["good_ms"] + row["good"] * later_ms,
                row["bad_ms"] + row["bad"] * later_ms,
            )
            place = (row["provider"], row["segment"], starts_s)
            into = merged.get(place)
            if into is None:
                merged[place] = _values(moved, width_s=wide_s, updated_at=row["updated_at"])
                continue
            for name in _COUNTS:
                into[name] += getattr(moved, name)
            into["updated_at"] = max(into["updated_at"], row["updated_at"])
        statement = self._insert()
        added: dict[str, Any] = {name: table.c[name] + statement.excluded[name] for name in _COUNTS}
        statement = statement.on_conflict_do_update(
            index_elements=_KEY, set_=added | {"updated_at": statement.excluded.updated_at}
        )
        if merged:
            connection.execute(statement, [merged[place] for place in sorted(merged)])

    def _insert(self) -> postgresql.Insert | sqlite.Insert:
        return sqlite.insert(table) if self._database.is_sqlite else postgresql.insert(table)


def _columns() -> Sequence[sa.Column[Any]]:
    return [table.c[name] for name in ScoreRow._fields]


def _values(row: ScoreRow, **more: int) -> dict[str, Any]:
    return row._asdict() | more
