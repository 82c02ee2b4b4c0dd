"""What the timeline is drawn from, asked of the ledger once for all who look.

A page that refreshes itself every few seconds on ten screens must not read the same hours ten times: stretches that
are over are kept for a while, the one that goes on for a second.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Mapping, Sequence

from router.clock import Clock
from router.console.lanes import Window
from router.ledger.console import ConsoleLedger, Count

STRETCH_BUCKETS = 15
OVER_KEPT_S = 30.0
"""An unknown outcome that is found out later shows after so long."""
RUNNING_KEPT_S = 1.0
RECENT = dt.timedelta(minutes=15)
"""What the figures beside each provider are of."""
SETTLES_AFTER = dt.timedelta(seconds=30)
"""The longest that a request takes: until then outcomes of a stretch still come in."""


class History:
    """Counts and latencies of the last hours, shared by all requests of this process. Thread-safe."""

    def __init__(self, ledger: ConsoleLedger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, dt.datetime], tuple[float, Sequence[Count]]] = {}
        self._latencies: tuple[float, Mapping[str, Sequence[int]]] | None = None

    def counts(self, window: Window, now: dt.datetime) -> Sequence[Count]:
        """Attempts of this window. Raises LedgerUnavailableError."""
        until = window.ends(now)
        since = until - window.span
        step = window.width * STRETCH_BUCKETS
        begins = since - (since - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) % step
        found: list[Count] = []
        # One at a time: whoever waits finds what the other has read.
        with self._lock:
            at = self._clock.monotonic()
            self._kept = {key: each for key, each in self._kept.items() if at - each[0] < OVER_KEPT_S}
            while begins < until:
                kept = self._kept.get((window.name, begins))
                is_over = begins + step + SETTLES_AFTER < now
                if kept is None or (not is_over and at - kept[0] >= RUNNING_KEPT_S):
                    kept = (at, self._ledger.counts(begins, begins + step, width=window.width))
                    self._kept[window.name, begins] = kept
                found += kept[1]
                begins += step
        return found

    def latencies(self, now: dt.datetime) -> Mapping[str, Sequence[int]]:
        """By provider, ascending: microseconds of the newest attempts. Raises LedgerUnavailableError."""
        with self._lock:
            at = self._clock.monotonic()
            if self._latencies is None or at - self._latencies[0] >= RUNNING_KEPT_S:
                self._latencies = (at, self._ledger.latencies(now - RECENT))
            return self._latencies[1]
