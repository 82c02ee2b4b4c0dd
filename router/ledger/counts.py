"""What each process saw of each provider, hour by hour: shared so that processes judge by all calls, not only theirs.

A row holds counts so far, and a reader takes differences: reading a row twice, or missing one version of it, loses
and doubles nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from router.ledger.engine import Database
from router.ledger.tables import from_micros, provider_counts, to_micros

HOUR_S = 3600
_COUNTS = ("calls", "failures", "unreachable", "slow", "overdue", "refused")


def hour_of(moment: dt.datetime) -> int:
    """Hours since 1970."""
    return int(moment.timestamp()) // HOUR_S


Key = tuple[str, str, int, int, bool]
"""Process, provider, hour, version, normal."""


@dataclass(frozen=True, slots=True)
class CountRow:
    """What one process saw of one provider in one hour, under one version of its circuit, so far."""

    process: str
    """Unique to one life of a process, so that its counts never go back."""
    provider: str
    hour: int
    """Since 1970."""
    calls: int
    failures: int
    unreachable: int
    slow: int
    updated_at: dt.datetime
    histogram: Mapping[int, int] = field(default_factory=dict)
    """Calls by latency bucket."""
    version: int = 0
    """The circuit's transition that was in force when the calls ended; 0: none yet."""
    normal: bool = True
    """Its process took these calls for normal ones and learned from them: trouble must not be learned later either,
    by a process that begins after it."""
    overdue: int = 0
    """As in `Counts`: it may go down, and below 0."""
    refused: int = 0

    @property
    def key(self) -> Key:
        """What a reader remembers a row by."""
        return self.process, self.provider, self.hour, self.version, self.normal


class CountLedger:
    """The counts' queries."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def write(self, rows: Iterable[CountRow]) -> None:
        """Commit these counts in place of what their process wrote before. Raises LedgerUnavailableError."""
        values = [_to_row(row) for row in rows]
        if not values:
            return
        insert = sqlite.insert if self._database.is_sqlite else postgresql.insert
        statement = insert(provider_counts)
        replaced = {name: statement.excluded[name] for name in (*_COUNTS, "histogram", "updated_at")}
        key = [column.name for column in provider_counts.primary_key]
        with self._database.write() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=key, set_=replaced), values)

    def since(self, updated_after: dt.datetime, *, not_process: str) -> Sequence[CountRow]:
        """Other processes' rows that were written after that moment, by their own clocks.

        Ask with some seconds of overlap: two machines' clocks differ, and a row read twice adds nothing.
        """
        table = provider_counts
        return self._read(
            table.select().where(table.c.updated_at > to_micros(updated_after), table.c.process != not_process)
        )

    def hours(self, providers: Iterable[str], *, from_hour: int) -> Sequence[CountRow]:
        """Every process's rows of these providers, from that hour on, the oldest hour first."""
        table = provider_counts
        return self._read(
            table.select()
            .where(table.c.provider.in_(sorted(providers)), table.c.hour >= from_hour)
            .order_by(table.c.hour, table.c.process, table.c.version, table.c.normal)
        )

    def _read(self, query: sa.Select[tuple[object, ...]]) -> Sequence[CountRow]:
        with self._database.read() as connection:
            return [_from_row(row) for row in connection.execute(query).mappings()]


def _to_row(row: CountRow) -> dict[str, Any]:
    return {
        "process": row.process,
        "provider": row.provider,
        "hour": row.hour,
        "version": row.version,
        "normal": row.normal,
        **{name: getattr(row, name) for name in _COUNTS},
        "histogram": {str(bucket): count for bucket, count in row.histogram.items()},
        "updated_at": to_micros(row.updated_at),
    }


def _from_row(row: sa.RowMapping) -> CountRow:
    return CountRow(
        process=row["process"],
        provider=row["provider"],
        hour=row["hour"],
        version=row["version"],
        normal=row["normal"],
        **{name: row[name] for name in _COUNTS},
        updated_at=from_micros(row["updated_at"]),
        histogram={int(bucket): count for bucket, count in row["histogram"].items()},
    )
