"""Writes decisions to the ledger a moment after they were answered, many in one commit.

Deciding waits for nothing and fails with nothing here: what comes while the ledger is away is kept up to a bound,
and dropped beyond it. An outcome needs no row (`router.decision_ids`); a replay of another policy does without some.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import structlog

from router.ledger.decisions import DecisionRow
from router.ledger.unavailable import LedgerUnavailableError

log = structlog.get_logger("router.decision_writing")

WRITE_INTERVAL_S = 0.15
"""With a commit of some milliseconds, within the 200 ms that a row may be late; seven commits a second at most."""
BATCH = 500
"""Rows in one commit: some 10 ms, so that no payment waits long for SQLite's one writer."""
WAITING = 20_000
"""Rows kept while the ledger is away: some 40 MB, and 20 s at a thousand decisions a second."""


class DecisionStore(Protocol):
    """Where decisions are kept: the ledger."""

    def write(self, rows: Sequence[DecisionRow]) -> None:
        """Commit these, all or none; those that are there already stay. Raises LedgerUnavailableError."""


class DecisionWriter:
    """Any number of threads put; one writes."""

    def __init__(self, store: DecisionStore, *, waiting: int = WAITING, batch: int = BATCH) -> None:
        self._store = store
        self._waiting: deque[DecisionRow] = deque()
        self._most = waiting
        self._batch = batch
        self._writing = threading.Lock()
        self._counting = threading.Lock()
        self._dropped = 0
        self._away = False

    @property
    def is_away(self) -> bool:
        """Whether the ledger could not be written the last time."""
        return self._away

    @property
    def dropped(self) -> int:
        """Rows that were dropped and not yet told of."""
        return self._dropped

    def put(self, row: DecisionRow) -> bool:
        """Write it soon; False: there is no room left, and it is dropped."""
        if len(self._waiting) < self._most:
            self._waiting.append(row)
            return True
        self._drop(1, "the ledger is away for too long")
        return False

    def run_once(self) -> int:
        """Write what waits. Answers how many rows. Raises LedgerUnavailableError; what is not written waits on."""
        with self._writing:
            total = 0
            while rows := self._taken():
                try:
                    self._store.write(rows)
                except LedgerUnavailableError:
                    # Written or not, where the commit's answer was lost: the same rows once more change nothing.
                    self._waiting.extendleft(reversed(rows))
                    self._away = True
                    raise
                except Exception:
                    # A fault of ours; those rows would fail again, and hold up all that come.
                    self._drop(len(rows), "cannot be written")
                    raise
                total += len(rows)
                self._is_back()
            return total

    def flush(self, within_s: float) -> bool:
        """Write what waits, within a bound; whether it is over. To be called when nobody puts any more."""
        thread = threading.Thread(target=self._last_round, name="decisions-last", daemon=True)
        thread.start()
        thread.join(within_s)
        if self._waiting:
            log.error("decisions_lost", count=len(self._waiting), cause="the process ends")
        return not thread.is_alive()

    # ------------------------------------------------------------ inside

    def _last_round(self) -> None:
        try:
            self.run_once()
        except LedgerUnavailableError:
            pass  # said by `flush`, with the number of what is lost
        except Exception:
            log.exception("decisions_not_written")

    def _taken(self) -> list[DecisionRow]:
        taken: list[DecisionRow] = []
        while self._waiting and len(taken) < self._batch:
            taken.append(self._waiting.popleft())
        return taken

    def _drop(self, count: int, cause: str) -> None:
        with self._counting:
            first, self._dropped = not self._dropped, self._dropped + count
        if first:
            log.error("decisions_dropped", cause=cause)

    def _is_back(self) -> None:
        self._away = False
        if self._dropped:
            with self._counting:
                dropped, self._dropped = self._dropped, 0
            log.error("decisions_dropped_until_now", count=dropped)
