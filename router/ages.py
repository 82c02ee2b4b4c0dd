"""How long circuits are as they are, whatever becomes of the wall clock. Pure but for the clock."""

from __future__ import annotations

import datetime as dt

from router.clock import Clock
from router.transitions import Snapshot, State

_Which = tuple[int, tuple[State, dt.datetime, str] | None]
"""Which of a circuit's transitions. The version alone does not tell: ours may fall before another's of the same."""


class Ages:
    """How long circuits are as they are, by the clock that cannot step."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # What was seen, when it began, when it was last looked at: monotonic seconds.
        self._seen: dict[str, tuple[_Which, float, float]] = {}

    def of(self, circuit: Snapshot) -> float:
        """Seconds since the circuit's last transition.

        What was before this process first saw it is by the wall clock, and not more than since this process last
        saw another: a step of the wall clock moves only what was before this process began.
        """
        now = self._clock.monotonic()
        which = circuit.version, None if circuit.last is None else circuit.last.identity
        seen = self._seen.get(circuit.provider)
        if seen is not None and seen[0] == which:
            began_at = seen[1]
        else:
            at = circuit.since if circuit.last is None else circuit.last.at
            before_s = max(0.0, (self._clock.now() - at).total_seconds())
            began_at = now - (before_s if seen is None else min(before_s, now - seen[2]))
        self._seen[circuit.provider] = (which, began_at, now)
        return now - began_at
