"""Scores shared in memory: a ledger that can be away, lag behind, or lose its answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from router.ledger.scores import CALLS, Key, Past, ScoreRow
from router.ledger.unavailable import LedgerUnavailableError


class MemoryScores:
    """Satisfies `ScoreStore`; `no_reads` and `no_writes` refuse, `loses_answers` writes, and then says so."""

    def __init__(self) -> None:
        self.rows: dict[Key, tuple[ScoreRow, int]] = {}
        self.no_reads = self.no_writes = self.loses_answers = False
        self.commits = 0
        self.stale: list[ScoreRow] | None = None
        """What is read instead of the rows, as from a standby that lags behind."""

    def write(self, rows: Iterable[ScoreRow], *, at_us: int) -> None:
        self._check(self.no_writes)
        self.commits += 1
        for row in rows:
            self.rows[row.key] = (row, at_us)
        self._check(self.loses_answers)

    def since(self, updated_after_us: int, *, not_process: str) -> Sequence[ScoreRow]:
        self._check(self.no_reads)
        if self.stale is not None:
            return self.stale
        return [row for row, at_us in self.rows.values() if at_us > updated_after_us and row.process != not_process]

    def past(self, *, minutes_from_s: int, from_s: int, calls_from_s: int) -> Past:
        self._check(self.no_reads)
        rows = [row for row, _ in self.rows.values()]
        kept = [row for row in rows if row.starts_s + 60 > (calls_from_s if row.segment == CALLS else from_s)]
        minutes = [row for row in kept if row.starts_s >= minutes_from_s]
        return Past(minutes, [row for row in kept if row.starts_s < minutes_from_s])

    def _check(self, refused: bool) -> None:
        if refused:
            raise LedgerUnavailableError("OperationalError")
