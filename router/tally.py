"""What a circuit has counted since its state began, and whether it is too much. Pure."""

from __future__ import annotations

from typing import Any

from router.windows import FAILED, SLOW, Counts, CountWindow, Limit, SlowWindow, TimeWindow, Window, spread

NEVER = 1 << 62
"""More in a row than there can be: the rule is off."""


class Tally:
    """Two windows, two runs, and the limits of each. Not thread-safe: its owner holds a lock."""

    __slots__ = (
        "_credentials_in_a_row",
        "_failures_in_a_row",
        "_hanging_at_once",
        "_in_a_row",
        "_limit",
        "_refused_in_a_row",
        "_refused_together",
        "_slow",
        "_slow_limit",
        "_window",
        "calm",
        "hanging",
        "in_flight_overdue",
        "slow_call_s",
    )

    def __init__(self, window: CountWindow | TimeWindow, slow: CountWindow, *, credentials_in_a_row: int) -> None:
        self._window = window
        self._slow = slow
        self._credentials_in_a_row = credentials_in_a_row
        self._failures_in_a_row = 0
        self._refused_in_a_row = 0
        self._refused_together = 0
        self.in_flight_overdue = 0
        """Calls in flight now that count as slow already."""
        self.hanging = 0
        """Those of them that have hung for long, when last looked at."""
        self.calm = False
        """Both windows are full of healthy calls, so that one more changes nothing: nearly always, and quick."""

    def judge_by(
        self, limit: Limit, slow_limit: Limit, *, slow_call_s: float, in_a_row: int, hanging_at_once: int
    ) -> None:
        """Set the limits: of the window, of slow calls, of failures in a row, of calls that hang at one moment."""
        self._limit = limit
        self._slow_limit = slow_limit
        self.slow_call_s = slow_call_s
        """Seconds; a call that takes longer is slow."""
        self._in_a_row = in_a_row
        self._hanging_at_once = hanging_at_once

    def add(self, code: int, now: float, counted_slow: bool) -> None:
        """Count a call that ended; `counted_slow`: it is in the window of slow calls since it grew overdue."""
        if code & FAILED:
            self._failures_in_a_row += 1
        else:
            self._failures_in_a_row = 0
        self._refused_in_a_row = self._refused_together = 0
        window, slow = self._window, self._slow
        if code or not window.calm:
            window.add(code, now)
        if not counted_slow and (code & SLOW or not slow.calm):
            slow.add(code & SLOW, now)
        self.calm = window.calm and slow.calm

    def add_overdue(self, now: float) -> None:
        """Count a call in flight as slow."""
        self._slow.add(SLOW, now)
        self.in_flight_overdue += 1
        self.calm = False

    def add_refused(self) -> None:
        """Count a refusal of our credentials."""
        self._refused_in_a_row += 1
        self._refused_together += 1
        self.calm = False

    def absorb(self, counts: Counts, now: float) -> None:
        """Count other processes' calls. Only what the windows can hold is gone through."""
        for code in spread(counts, counts.calls if isinstance(self._window, TimeWindow) else self._window.size):
            self._window.add(code, now)
            self._failures_in_a_row = self._failures_in_a_row + 1 if code & FAILED else 0
        # Calls in flight have no end yet that could be a failure; those that were told of then are slow only once.
        timed = Counts(calls=max(0, counts.calls + counts.overdue), slow=counts.slow)
        for code in spread(timed, self._slow.size):
            self._slow.add(code, now)
        # Others' good calls do not excuse our refusals: this process alone may have the wrong key.
        self._refused_together = 0 if counts.calls else self._refused_together + counts.refused
        self.calm = False

    def expire(self, now: float) -> None:
        """Let go of what is past."""
        self._window.expire(now)

    def clear(self) -> None:
        """Start anew."""
        self._window.clear()
        self._slow.clear()
        self._failures_in_a_row = self._refused_in_a_row = self._refused_together = 0
        self.calm = False

    def fault(self) -> str | None:
        """Why the circuit should open; None: it should not."""
        if max(self._refused_in_a_row, self._refused_together) >= self._credentials_in_a_row:
            return "credentials refused"
        if self._failures_in_a_row >= self._in_a_row:
            return f"{self._failures_in_a_row} failures in a row"
        if self.hanging >= self._hanging_at_once:
            return f"{self.hanging} calls hang at once"
        window, slow = self._window, self._slow
        if window.failures >= self._limit.least and self._limit.reached(window.calls, window.failures):
            return f"{window.failures} of the last {window.calls} calls failed"
        if slow.slow >= self._slow_limit.least and self._slow_limit.reached(slow.calls, slow.slow):
            return f"{slow.slow} of the last {slow.calls} calls took longer than {self.slow_call_s:g} s"
        return None

    def window(self) -> Window:
        """Figures of the failures."""
        window = self._window
        return Window(
            calls=window.calls,
            failures=window.failures,
            unreachable=window.unreachable,
            slow=window.slow,
            minimum_calls=self._limit.minimum,
            failure_rate_threshold=self._limit.rate_at(window.calls),
            slow_call_s=self.slow_call_s,
            slow_rate_threshold=self._slow_limit.rate,
        )

    def slow(self) -> SlowWindow:
        """Figures of the slow calls."""
        return SlowWindow(
            calls=self._slow.calls,
            slow=self._slow.slow,
            in_flight_overdue=self.in_flight_overdue,
            minimum_calls=self._slow_limit.minimum,
            slow_call_s=self.slow_call_s,
            slow_rate_threshold=self._slow_limit.rate,
        )

    def evidence(self) -> dict[str, Any]:
        """Every figure that `fault` looks at, and the limits that it holds them to."""
        window, slow = self.window(), self.slow()
        found: dict[str, Any] = {
            "calls": window.calls,
            "failures": window.failures,
            "unreachable": window.unreachable,
            "failure_rate": _rounded(window.failure_rate),
            "failure_rate_threshold": _rounded(window.failure_rate_threshold),
            "minimum_calls": window.minimum_calls,
            "slow_calls": slow.calls,
            "slow": slow.slow,
            "slow_rate": _rounded(slow.slow_rate),
            "slow_rate_threshold": slow.slow_rate_threshold,
            "slow_call_s": _rounded(slow.slow_call_s),
            "in_flight_overdue": slow.in_flight_overdue,
            "hanging": self.hanging,
        }
        if refused := max(self._refused_in_a_row, self._refused_together):
            found["credentials_refused"] = refused
        return found


def _rounded(figure: float | None) -> float | None:
    return None if figure is None else round(figure, 4)
