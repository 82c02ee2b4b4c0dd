"""One circuit, driven by letters instead of calls."""

from __future__ import annotations

import datetime as dt
from typing import Any

from router.breaker import Breaker, BreakerSettings, Verdict
from router.transitions import State, Transition

START = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
VERDICTS = {
    "s": Verdict.OK,
    "F": Verdict.PROVIDER_ERROR,
    "U": Verdict.UNREACHABLE,
    "C": Verdict.CREDENTIALS_REFUSED,
}


class Circuit:
    """A breaker with clocks that are moved by hand."""

    def __init__(self, settings: BreakerSettings | None = None, **changes: Any) -> None:
        self.settings = settings or BreakerSettings(**changes)
        self.now = 1000.0
        self.wall = START
        self.breaker = Breaker("stripe", self.settings, wall=self._read_wall, actor="me")

    def _read_wall(self) -> dt.datetime:
        return self.wall

    def wait(self, seconds: float) -> None:
        """Time passes, on both clocks."""
        self.now += seconds
        self.wall += dt.timedelta(seconds=seconds)

    def calls(self, results: str, *, took_s: float = 0.0) -> list[Transition]:
        """One call a letter: `s` succeeds, `F` is the provider's fault, `U` did not reach it, `C` is a 401; `i` says
        nothing. The transitions that they caused.
        """
        caused = []
        for letter in results:
            permit = self.breaker.admit(self.now)
            assert permit is not None, "the circuit lets nothing through"
            self.wait(took_s)
            if letter == "i":
                self.breaker.give_back(permit)
                continue
            transition = self.breaker.record(permit, VERDICTS[letter], self.now)
            if transition is not None:
                caused.append(transition)
        return caused

    def adopt(self, state: State, version: int | None = None, **fields: Any) -> bool:
        """Follow a transition of another process; the next version unless one is named."""
        if version is None:
            version = self.breaker.snapshot().version + 1
        return self.breaker.adopt(Transition("stripe", version, state, self.wall, "other", "why", **fields))

    @property
    def state(self) -> State:
        """What it is now."""
        return self.breaker.snapshot().state

    @property
    def figures(self) -> tuple[int, int]:
        """Calls and failures of the window."""
        window = self.breaker.snapshot(self.now).window
        return window.calls, window.failures

    @property
    def slow_figures(self) -> tuple[int, int]:
        """Calls and slow ones of the window of slow calls."""
        slow = self.breaker.snapshot(self.now).slow
        return slow.calls, slow.slow
