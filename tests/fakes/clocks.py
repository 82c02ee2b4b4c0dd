"""A clock whose wall can be stepped, as an NTP correction or a person does it."""

from __future__ import annotations

import datetime as dt

from router.clock import ManualClock


class SteppedClock(ManualClock):
    """A `ManualClock` whose wall time jumps by `step_wall`, while its monotonic time goes on as if nothing was."""

    def __init__(self) -> None:
        super().__init__()
        self._off = dt.timedelta()

    def now(self) -> dt.datetime:
        return super().now() + self._off

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock forward, or back."""
        self._off += dt.timedelta(seconds=seconds)
