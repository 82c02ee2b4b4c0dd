"""What the last calls say: windows by count and by time, and how many bad calls of so many are too many. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

FAILED = 1
UNREACHABLE = 2
"""Set beside FAILED: the provider never acted on the call."""
SLOW = 4


@dataclass(frozen=True, slots=True)
class Counts:
    """Calls that ended (or grew overdue) in some stretch of time, in one process or in several together."""

    calls: int = 0
    failures: int = 0
    """Of `calls`; the unreachable ones among them."""
    unreachable: int = 0
    slow: int = 0
    """Each once: when it grew overdue in flight, or else when it ended."""
    histogram: Mapping[int, int] = field(default_factory=dict)
    """Successful calls by latency bucket (`router.baseline.bucket_of`)."""
    overdue: int = 0
    """Calls that grew overdue in flight, and are of `slow` since then, less those of `calls` that had done so before.
    Below 0 where more ended than began to hang."""
    refused: int = 0
    """Refusals of our credentials, not of `calls`."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What is too slow and too many for one provider, as its own past tells."""

    slow_call_s: float
    """Seconds; a call that takes longer is slow."""
    failures_needed: tuple[int, ...]
    """How many failures of n calls trip, for n = 1, 2 …"""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why each threshold is what it is, in plain words, by its name."""


@dataclass(frozen=True, slots=True)
class Window:
    """Figures of the calls that count for failures now, and the thresholds in force."""

    calls: int
    failures: int
    unreachable: int
    """Of `failures`."""
    slow: int
    """Slow ones of `calls`, failed or not. The rule on slow calls has a window of its own: `SlowWindow`."""
    minimum_calls: int
    failure_rate_threshold: float
    """Share of failures that trips, at this number of calls (at the minimum, while there are fewer)."""
    slow_call_s: float
    slow_rate_threshold: float

    @property
    def failure_rate(self) -> float | None:
        """Share of failures; None before the first call."""
        return self.failures / self.calls if self.calls else None


@dataclass(frozen=True, slots=True)
class SlowWindow:
    """Figures of the calls that count for slowness now: those that ended, and those in flight for too long."""

    calls: int
    slow: int
    in_flight_overdue: int
    """Calls in flight now that count as slow already."""
    minimum_calls: int
    slow_call_s: float
    slow_rate_threshold: float

    @property
    def slow_rate(self) -> float | None:
        """Share of slow calls; None before the first call."""
        return self.slow / self.calls if self.calls else None


class CountWindow:
    """The last `size` calls. Not thread-safe: its owner holds a lock."""

    __slots__ = ("_next", "_ring", "calls", "calm", "failures", "size", "slow", "unreachable")

    def __init__(self, size: int) -> None:
        self.size = size
        self._ring = bytearray(size)
        self._next = 0
        self.calls = 0
        self.failures = 0
        self.unreachable = 0
        self.slow = 0
        self.calm = False
        """Full of healthy calls: one more healthy call changes nothing, and need not be added."""

    def add(self, code: int, now: float) -> None:  # noqa: ARG002 - a time window needs it
        """Count a call; `code` is 0 or FAILED, UNREACHABLE and SLOW together."""
        at = self._next
        if self.calls < self.size:
            self.calls += 1
        else:
            old = self._ring[at]
            if old:
                self.failures -= old & FAILED
                self.unreachable -= (old & UNREACHABLE) >> 1
                self.slow -= old >> 2
        self._ring[at] = code
        if code:
            self.failures += code & FAILED
            self.unreachable += (code & UNREACHABLE) >> 1
            self.slow += code >> 2
        self._next = at + 1 if at + 1 < self.size else 0
        self.calm = not (code or self.failures or self.slow) and self.calls == self.size

    def expire(self, now: float) -> None:
        """Time alone takes nothing from a window of calls."""

    def clear(self) -> None:
        """Forget all calls."""
        self.calm = False
        self._next = self.calls = self.failures = self.unreachable = self.slow = 0


class TimeWindow:
    """The calls of the last seconds, in buckets of one second. Not thread-safe: its owner holds a lock."""

    __slots__ = ("_buckets", "calls", "failures", "seconds", "slow", "unreachable")
    calm = False
    """Never: every call counts until its second is over."""

    def __init__(self, window_s: float) -> None:
        self.seconds = max(1, math.ceil(window_s))
        # [second, calls, failures, unreachable, slow], oldest first. Keyed by the second itself and never by a
        # place in a ring, so no jump of the clock brings an old bucket back.
        self._buckets: deque[list[int]] = deque()
        self.calls = 0
        self.failures = 0
        self.unreachable = 0
        self.slow = 0

    def add(self, code: int, now: float) -> None:
        """Count a call at `now` (monotonic seconds)."""
        self.expire(now)
        second = math.floor(now)
        # A thread that was held up between reading the clock and coming here counts in the newest bucket.
        if not self._buckets or self._buckets[-1][0] < second:
            self._buckets.append([second, 0, 0, 0, 0])
        bucket = self._buckets[-1]
        failed, unreachable, slow = code & FAILED, (code & UNREACHABLE) >> 1, code >> 2
        bucket[1] += 1
        bucket[2] += failed
        bucket[3] += unreachable
        bucket[4] += slow
        self.calls += 1
        self.failures += failed
        self.unreachable += unreachable
        self.slow += slow

    def expire(self, now: float) -> None:
        """Let go of the buckets that are out of the window at `now`."""
        oldest = math.floor(now) - self.seconds
        while self._buckets and self._buckets[0][0] <= oldest:
            _, calls, failures, unreachable, slow = self._buckets.popleft()
            self.calls -= calls
            self.failures -= failures
            self.unreachable -= unreachable
            self.slow -= slow

    def clear(self) -> None:
        """Forget all calls."""
        self._buckets.clear()
        self.calls = self.failures = self.unreachable = self.slow = 0


class Limit:
    """How many of n calls are too many: a rate, or a table by n; never fewer calls than the minimum."""

    __slots__ = ("_needed", "least", "minimum", "rate")

    def __init__(self, rate: float, minimum: int, needed: tuple[int, ...] = ()) -> None:
        self.rate = rate
        self.minimum = minimum
        self._needed = needed
        at_minimum = max(1, math.floor(rate * minimum)) if not needed else min(needed[minimum - 1 :] or needed[-1:])
        self.least = at_minimum
        """Fewer bad calls than this never trip, of however many: a quick look before a division."""

    def reached(self, calls: int, bad: int) -> bool:
        """Whether `bad` of `calls` trip. A rate equal to the threshold does."""
        return bad > 0 and calls >= self.minimum and bad / calls >= self.rate_at(calls)

    def rate_at(self, calls: int) -> float:
        """The share that trips, of so many calls. Beyond the table its last share holds: it is rarer still there."""
        if not self._needed:
            return self.rate
        at = min(max(calls, self.minimum, 1), len(self._needed))
        return self._needed[at - 1] / at


def spread(counts: Counts, most: int) -> list[int]:
    """The codes of these calls, failures and slow ones spread evenly among them; of more than `most`, the last."""
    calls = counts.calls
    failures, slow = min(counts.failures, calls), min(counts.slow, calls)
    unreachable = min(counts.unreachable, failures)
    codes = []
    for i in range(max(0, calls - most), calls):
        code = SLOW if (i + 1) * slow // calls > i * slow // calls else 0
        nth = i * failures // calls
        if (i + 1) * failures // calls > nth:
            code |= FAILED
            if (nth + 1) * unreachable // failures > nth * unreachable // failures:
                code |= UNREACHABLE
        codes.append(code)
    return codes
