"""The breaker that every policy is played with: a plain model, so that policies differ by their choices only.

A circuit opens after 5 failures in a row, or 10 among the last 20 calls (the router's own opens at 10 of 20 too;
`router.breaker`). While it is open it is probed every 10 seconds, and closes after 3 good probes in a row. Slow
start, suspicion and the shared ledger are left out. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from router.routing_simulation.troubles import PROBE_EVERY_S

IN_A_ROW = 5
LAST_CALLS = 20
FAILED_OF_LAST = 10
GOOD_PROBES = 3

_LAST = (1 << LAST_CALLS) - 1
_ROW = (1 << IN_A_ROW) - 1


class Circuits:
    """All providers' circuits in one play."""

    def __init__(self, probes: Sequence[bytes]) -> None:
        """`probes`: by provider, whether a probe in each stretch of `PROBE_EVERY_S` is answered."""
        self._probes = probes
        self._failed = [0] * len(probes)
        """The last calls, a bit each, 1 for a failure, the newest lowest."""
        self._open: dict[int, tuple[int, int]] = {}
        """Provider to the next probe's slot and the good probes so far."""
        self._everyone = tuple(range(len(probes)))
        self._admitted = self._everyone
        self.opened = 0

    def admitted(self, now: float) -> tuple[int, ...]:
        """The providers whose circuits are closed, in their order."""
        if self._open:
            self._probe(now)
        return self._admitted

    def count(self, provider: int, failed: bool, now: float) -> None:
        """A call's end. Calls that were under way when the circuit opened count for nothing."""
        if provider in self._open:
            return
        calls = self._failed[provider] = (self._failed[provider] << 1 | failed) & _LAST
        if failed and (calls & _ROW == _ROW or calls.bit_count() >= FAILED_OF_LAST):
            self._open[provider] = (int(now / PROBE_EVERY_S) + 1, 0)
            self._failed[provider] = 0
            self.opened += 1
            self._remember()

    def _probe(self, now: float) -> None:
        """Catch up with the probes that were due."""
        this = int(now / PROBE_EVERY_S)
        for provider, (due, so_far) in list(self._open.items()):
            slot, good = due, so_far
            answers = self._probes[provider]
            while slot <= this and good < GOOD_PROBES:
                good = good + 1 if slot >= len(answers) or answers[slot] else 0
                slot += 1
            if good >= GOOD_PROBES:
                del self._open[provider]
                self._remember()
            else:
                self._open[provider] = (slot, good)

    def _remember(self) -> None:
        self._admitted = tuple(each for each in self._everyone if each not in self._open)
