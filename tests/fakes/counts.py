"""Counts shared in memory: a ledger that can be away, lag behind, or lose its answer."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence

from router.ledger.counts import CountRow, Key
from router.ledger.unavailable import LedgerUnavailableError


class MemoryCounts:
    """Satisfies `CountStore`; `away` refuses everything, `no_reads` and `no_writes` half of it."""

    def __init__(self) -> None:
        self.rows: dict[Key, CountRow] = {}
        self.away = self.no_reads = self.no_writes = False
        self.written = 0
        """Rows, each time that one was written."""
        self.stale: list[CountRow] | None = None
        """What is read instead of the rows, as from a standby that lags behind."""

    def write(self, rows: Iterable[CountRow]) -> None:
        self._check(self.no_writes)
        for row in rows:
            self.written += 1
            self.rows[row.key] = row

    def since(self, updated_after: dt.datetime, *, not_process: str) -> Sequence[CountRow]:
        self._check(self.no_reads)
        rows = list(self.rows.values()) if self.stale is None else self.stale
        return [row for row in rows if row.updated_at > updated_after and row.process != not_process]

    def hours(self, providers: Iterable[str], *, from_hour: int) -> Sequence[CountRow]:
        self._check(self.no_reads)
        names = set(providers)
        return [row for row in self.rows.values() if row.provider in names and row.hour >= from_hour]

    def _check(self, refused: bool) -> None:
        if self.away or refused:
            raise LedgerUnavailableError("OperationalError")
