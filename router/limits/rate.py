"""How fast somebody may come: so many a second, and a burst of so many at once. Pure, and O(1).

The generic cell rate algorithm (ITU-T I.371): for each name the moment at which it will have used up nothing, which
each request moves on by its share of a second; a burst is how far that moment may lie ahead. Unlike a counter by the
second it lets nobody through twice at the turn of one, and it says exactly when to come again.

This process's own limits are kept here and not in the memory storage of the `limits` library, which keeps the shared
ones (`router.limits.shared`): measured on this machine, that storage starts a thread every 10 ms to look for what is
over, 60 to 94 µs of CPU a request at a few hundred requests a second, and reads the wall clock.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Protocol

NAMES_AT_MOST = 20_000
"""Only valid keys and known merchants have one: a house that has more is looked through for those that rest."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast."""

    per_s: float
    burst: float
    """Requests at once, after a rest; at least 1."""


class Rates(Protocol):
    """Where it is known how fast each name came."""

    def take(self, name: str, pace: Pace, now: float) -> float:
        """0.0: it may, and did. Else the seconds until it may."""

    def give_back(self, name: str, pace: Pace) -> None:
        """The last one that it took is not to count."""


class LocalRates:
    """Of this process alone. Thread-safe."""

    def __init__(self) -> None:
        self._ahead: dict[str, float] = {}
        """When each name will have used up nothing, in seconds of the monotonic clock."""
        self._lock = threading.Lock()

    def take(self, name: str, pace: Pace, now: float) -> float:
        """As of `Rates`."""
        step = 1.0 / pace.per_s
        with self._lock:
            then = max(self._ahead.get(name, now), now) + step
            over_s = then - now - max(1.0, pace.burst) * step
            if over_s > step * 1e-6:  # else rounding alone
                return over_s
            if name not in self._ahead and len(self._ahead) >= NAMES_AT_MOST:
                self._ahead = {each: until for each, until in self._ahead.items() if until > now}
            self._ahead[name] = then
            return 0.0

    def give_back(self, name: str, pace: Pace) -> None:
        """As of `Rates`."""
        with self._lock:
            if name in self._ahead:
                self._ahead[name] -= 1.0 / pace.per_s


def divided(pace: Pace, processes: int) -> Pace:
    """One process's part."""
    return Pace(pace.per_s / processes, max(1.0, pace.burst / processes))
