"""Rates that every process counts together, in a store of the `limits` library (Redis).

Not with every request: a process takes slices, a fiftieth of what is allowed in a window at most, and lets its own
requests have them one by one, for a second at most. So the store costs a request little, and each process lets at
most one slice too many through. A slice is as large as the one before was used, and doubles while they are used up:
what is left of one is lost to all, and with whole slices a trickle at each of six processes would use up everything.

While the store is away each process goes by its own part of the rate, as without one: a store that fails refuses no
payment.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

import limits
import structlog
from limits.storage import Storage, storage_from_string
from limits.strategies import SlidingWindowCounterRateLimiter

from router.limits.rate import NAMES_AT_MOST, LocalRates, Pace, divided

log = structlog.get_logger("router.limits")

TIMEOUT_S = 0.1
"""A store on the same network answers within a millisecond; checkout must not wait for one that does not."""
AWAY_S = 5.0
"""So long a store that failed is not asked again: one request in that time waits, not each."""
SLICES = 50
SLICE_S = 1.0
REFUSED_S = 0.1
"""So long a refusal is believed without asking again: a flood must not flood the store."""


@dataclass(slots=True)
class _Slice:
    taken: int
    left: int
    until: float
    """In seconds of the monotonic clock."""


def redis_storage(url: str) -> Storage:
    """The store at `redis://…`, `rediss://…` or `redis+sentinel://…`. Connects with the first request."""
    storage = storage_from_string(
        url,
        wrap_exceptions=True,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        # The client's own would try three times, for seconds.
        retry=None,  # type: ignore[arg-type]  # passed on to redis, whose type is wider
    )
    assert isinstance(storage, Storage)  # not an asynchronous one, which other addresses name
    return storage


class SharedRates:
    """Of all processes with this store. Thread-safe."""

    def __init__(
        self, storage: Storage, *, processes: int, told: Callable[[bool], None] = lambda _away: None
    ) -> None:
        """`processes`: between so many the rate is divided while the store is away. `told`: whether it is away."""
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        self._processes = processes
        self._told = told
        self._alone = LocalRates()
        self._slices: dict[str, _Slice] = {}
        self._refused: dict[str, float] = {}
        self._away_until = -math.inf
        self._away = False
        self._lock = threading.Lock()

    def take(self, name: str, pace: Pace, now: float) -> float:
        """As of `Rates`; a refusal's wait is a guess here, of a tenth of a second at least."""
        with self._lock:
            kept = self._slices.get(name)
            if kept is not None and kept.left > 0 and now < kept.until:
                kept.left -= 1
                return 0.0
            if now < self._refused.get(name, -math.inf):
                return REFUSED_S
            alone = now < self._away_until
            wanted = 1 if kept is None else kept.taken * 2 if now < kept.until else max(1, kept.taken - kept.left)
        if alone:
            return self._take_alone(name, pace, now)
        window_s = max(1, math.ceil(pace.burst / pace.per_s))
        item = limits.RateLimitItemPerSecond(max(1, round(pace.per_s * window_s)), window_s)
        size = min(wanted, max(1, item.amount // SLICES))
        try:
            taken = size if self._limiter.hit(item, name, cost=size) else 0
            if not taken and size > 1 and self._limiter.hit(item, name):
                taken = 1
        except Exception as error:  # noqa: BLE001 - whatever it is:
            # to let one too many through is better than to refuse one too many.
            with self._lock:
                self._away_until = now + AWAY_S
            self._tell(away=True, cause=type(error).__name__)
            return self._take_alone(name, pace, now)
        self._tell(away=False)
        with self._lock:
            if not taken:
                self._refused[name] = now + REFUSED_S
                return max(REFUSED_S, 1.0 / pace.per_s)
            self._refused.pop(name, None)
            kept = self._slices.get(name)
            # Another thread may have brought one meanwhile.
            left = kept.left if kept is not None and now < kept.until else 0
            if kept is None and len(self._slices) >= NAMES_AT_MOST:
                self._slices = {each: slice_ for each, slice_ in self._slices.items() if now < slice_.until}
                self._refused = {each: until for each, until in self._refused.items() if now < until}
            self._slices[name] = _Slice(left + taken, left + taken - 1, now + SLICE_S)
        return 0.0

    def give_back(self, name: str, pace: Pace) -> None:
        """As of `Rates`: into this process's slice."""
        with self._lock:
            kept = self._slices.get(name)
            if kept is not None:
                kept.left += 1
        self._alone.give_back(name, pace)

    def _take_alone(self, name: str, pace: Pace, now: float) -> float:
        return self._alone.take(name, divided(pace, self._processes), now)

    def _tell(self, *, away: bool, cause: str = "") -> None:
        with self._lock:
            before, self._away = self._away, away
        if before != away:
            log.warning("limits_store_away" if away else "limits_store_back", cause=cause)
            self._told(away)
