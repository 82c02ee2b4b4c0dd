"""What is normal for one provider, from the last day's calls, and the thresholds that follow from it. Pure.

Whoever owns it decides what is learned: nothing while the provider is in trouble, or trouble would become normal.
Why a provider's own past: a slow call at Stripe is a usual one at a provider that takes three seconds for 3-D Secure,
and 25% failures of 20 calls happen by chance once in a million windows at a base rate of 0.5%, but daily at 5%.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from router.breaker import BreakerSettings
from router.histogram import log_latency_of, log_moments, quantile
from router.windows import Counts, Thresholds

HOUR_S = 3600.0
HOURS_KEPT = 24
STEP_EVERY_S = 60.0
STEP = 0.2
"""A threshold moves by at most a fifth, at most once a minute: ten odd minutes cannot make a slow provider normal."""

ENOUGH_LATENCIES = 500
"""Five calls above the p99: fewer make no p99."""
SHORTEST_SLOW_S, LONGEST_SLOW_S = 1.0, 5.0
"""A customer does not notice less, and does not wait for more."""

ENOUGH_CALLS = 1000
USUAL_FAILURE_RATE, USUAL_WEIGHT = 0.005, 200
"""Before its calls say more, a provider is taken to fail once in 200."""
LOWEST_FAILURE_RATE, HIGHEST_FAILURE_RATE = 0.001, 0.05
"""Above the highest a provider is in trouble, however long it has been."""
BY_CHANCE = 1e-6
"""Odds at which a healthy provider's window may reach the threshold."""
LEAST_SHARE = 0.2
"""Fewer failures than a fifth never open a circuit; CUSUM and the values of the routes see to those."""

NARROWEST_SIGMA = 0.25
"""Of log seconds. A stand-in that always takes 50 ms must not alarm at 60 ms."""

BLOCK_CALLS = 50
BLOCKS_REMEMBERED = 500
BLOCKS_BEFORE = 20
LARGEST_BLOCK = 60.0
"""One block speaks for at most so much dispersion."""
USUAL_DISPERSION, MARGIN_PER_DISPERSION, LARGEST_MARGIN = 4.0, 1 / 6, 2.5
"""Slow calls that come in runs open a healthy circuit: with a correlation of 0.9 between neighbours (a dispersion of
10 to 14) 30% of 50 calls were above the p99 38 times in a million calls, and above 1.4 times the p99 once. Up to 0.7
(3 to 5) it did not happen in two million (`make bench-alarms`)."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """Thresholds that a person set: they win over what was learned."""

    slow_call_s: float | None = None
    failure_rate: float | None = None
    set_by: Mapping[str, str] = field(default_factory=dict)
    """What set each, by its name: `{"slow_call_s": "ROUTER_BREAKER_SLOW_CALL_SECONDS"}`."""


@dataclass(frozen=True, slots=True)
class Normal:
    """How a provider answers when it is well."""

    mu: float
    """Mean of the natural log of seconds."""
    sigma: float
    """Its standard deviation, at least 0.25."""
    calls: int
    """How many successful calls that comes from."""

    @property
    def median_s(self) -> float:
        """Seconds that half of the calls stay below."""
        return math.exp(self.mu)


class Baseline:
    """Hourly slots of one provider's calls over a day. Not thread-safe: its owner calls it from one thread."""

    def __init__(self, settings: BreakerSettings, fixed: Fixed | None = None) -> None:
        self._settings = settings
        self._fixed = fixed or Fixed()
        self._slots: dict[float, _Slot] = {}
        self._slow_call_s = settings.slow_call_s
        self._calls = 0
        self._stepped_at: float | None = None
        self._dispersion = Dispersion()
        self.normal: Normal | None = None
        """None before 500 successful calls."""
        self.failure_rate = USUAL_FAILURE_RATE
        """Share of calls that fail when all is well, 0.1% to 5%."""
        self.thresholds = self._settle()

    @property
    def cautious_failure_rate(self) -> float:
        """The same as it may well be: two standard errors above. A young baseline is careful."""
        bound = self.failure_rate
        bound += 2 * math.sqrt(bound * (1 - bound) / (self._calls + USUAL_WEIGHT))
        return min(HIGHEST_FAILURE_RATE, bound)

    @property
    def dispersion(self) -> float:
        """How many times more neighbouring calls' mean latency varies than independent calls' would; 1 or more."""
        return self._dispersion.factor

    def learn(self, counts: Counts, now: float) -> None:
        """Take calls for normal ones. `now` is monotonic seconds: it picks the hourly slot."""
        self.load(counts, now)
        oldest = now // HOUR_S - HOURS_KEPT
        for old in [each for each in self._slots if each <= oldest]:
            del self._slots[old]
        if self.normal is not None:
            self._dispersion.add(counts.histogram, self.normal)

    def forget_block(self) -> None:
        """What was learned last may be trouble's beginning: calls after it are no neighbours of those before."""
        self._dispersion.forget_block()

    def load(self, counts: Counts, now: float, *, hours_ago: int = 0) -> None:
        """Add calls of an earlier hour: what the ledger kept of the time before this process began."""
        slot = self._slots.setdefault(now // HOUR_S - hours_ago, _Slot())
        slot.calls += counts.calls
        slot.failures += counts.failures
        slot.histogram.update(counts.histogram)

    def step(self, now: float) -> bool:
        """Take in what was learned, at most once a minute. True when it did so."""
        if self._stepped_at is not None and now - self._stepped_at < STEP_EVERY_S:
            return False
        self._stepped_at = now
        self.thresholds = self._settle()
        return True

    def _settle(self) -> Thresholds:
        histogram: Counter[int] = Counter()
        calls = failures = 0
        for slot in self._slots.values():
            histogram.update(slot.histogram)
            calls, failures = calls + slot.calls, failures + slot.failures
        self._calls, successes = calls, histogram.total()
        moments = log_moments(histogram)
        if moments is not None and successes >= ENOUGH_LATENCIES:
            self.normal = Normal(moments[0], max(NARROWEST_SIGMA, moments[1]), successes)
        rate = (failures + USUAL_FAILURE_RATE * USUAL_WEIGHT) / (calls + USUAL_WEIGHT)
        self.failure_rate = min(HIGHEST_FAILURE_RATE, max(LOWEST_FAILURE_RATE, rate))
        needed, why_needed = self._failures_needed(calls)
        slow_call_s, why_slow = self._slow(histogram, successes)
        return Thresholds(slow_call_s, needed, {"slow_call_s": why_slow, "failure_rate": why_needed})

    def _slow(self, histogram: Mapping[int, int], successes: int) -> tuple[float, str]:
        if self._fixed.slow_call_s is not None:
            self._slow_call_s = self._fixed.slow_call_s
            return self._slow_call_s, f"set by {self._fixed.set_by.get('slow_call_s', 'settings')}"
        p99 = quantile(histogram, 0.99)
        if p99 is None or successes < ENOUGH_LATENCIES:
            return self._slow_call_s, f"{successes:,} successful calls are too few to learn from ({ENOUGH_LATENCIES})"
        margin = 1 + max(0.0, self.dispersion - USUAL_DISPERSION) * MARGIN_PER_DISPERSION
        wanted = p99 * min(LARGEST_MARGIN, margin)
        aim = min(LONGEST_SLOW_S, max(SHORTEST_SLOW_S, wanted))
        reason = f"p99 of {successes:,} calls is {p99:.2f} s"
        if wanted > p99:
            reason += f", {wanted / p99:.1f} times that since slow calls come in runs"
        if aim != wanted:
            reason += f", clamped to {aim:.1f} s"
        low, high = self._slow_call_s * (1 - STEP), self._slow_call_s * (1 + STEP)
        self._slow_call_s = min(high, max(low, aim))
        if self._slow_call_s != aim:
            reason += "; on the way there by at most 20% a minute"
        return self._slow_call_s, reason

    def _failures_needed(self, calls: int) -> tuple[tuple[int, ...], str]:
        most = range(1, self._settings.window_calls + 1)
        if self._fixed.failure_rate is not None:
            rate = self._fixed.failure_rate
            why = f"set by {self._fixed.set_by.get('failure_rate', 'settings')}"
            return tuple(_share_of(n, rate) for n in most), why
        if calls < ENOUGH_CALLS:
            why = f"{calls:,} calls are too few to learn from ({ENOUGH_CALLS:,})"
            return tuple(_share_of(n, self._settings.failure_rate) for n in most), why
        p0 = self.cautious_failure_rate
        # The bounds may cross (a person may set 10%): then the least share gives way, for a person set the other.
        needed = tuple(
            min(_share_of(n, self._settings.failure_rate), max(_share_of(n, LEAST_SHARE), by_chance(n, p0)))
            for n in most
        )
        last = self._settings.window_calls
        why = (
            f"{self.failure_rate:.1%} of {calls:,} calls fail when all is well; "
            f"{needed[-1]} of {last} is no chance (below 1 in a million) or a fifth"
        )
        return needed, why


@dataclass(slots=True)
class _Slot:
    """One hour."""

    calls: int = 0
    failures: int = 0
    histogram: Counter[int] = field(default_factory=Counter)


class Dispersion:
    """How far latencies of neighbouring calls hang together, from the means of blocks of 50 calls.

    Latencies that hang together (a busy minute at the provider) make long harmless runs, which look like trouble to a
    detector that takes calls for independent ones. For an AR(1) of correlation r the factor is (1+r)/(1-r).
    """

    def __init__(self) -> None:
        self._sum, self._calls = 0.0, 0
        self._mean, self._blocks = 1.0, BLOCKS_BEFORE

    @property
    def factor(self) -> float:
        """Variance of a block's mean as a multiple of independent calls'; 1 or more."""
        return max(1.0, self._mean)

    def add(self, histogram: Mapping[int, int], normal: Normal) -> None:
        """Healthy successful calls, in the order of time from call to call of this."""
        for bucket, calls in histogram.items():
            self._sum += calls * (log_latency_of(bucket) - normal.mu) / normal.sigma
            self._calls += calls
        if self._calls >= BLOCK_CALLS:
            block = min(LARGEST_BLOCK, self._sum * self._sum / self._calls)
            self._blocks = min(self._blocks + 1, BLOCKS_REMEMBERED)
            self._mean += (block - self._mean) / self._blocks
            self.forget_block()

    def forget_block(self) -> None:
        """Drop the block begun: trouble may be in it."""
        self._sum, self._calls = 0.0, 0


def by_chance(n: int, p: float, odds: float = BY_CHANCE) -> int:
    """The smallest k with P(X ≥ k) < odds, for X failures of n calls that fail with probability p each; at most n."""
    tail = 1.0
    for k in range(n):
        tail -= math.comb(n, k) * p**k * (1 - p) ** (n - k)
        # Differences of floats near 1e-16 are noise, ten orders below the odds.
        if tail < odds:
            return k + 1
    return n


def _share_of(n: int, share: float) -> int:
    """The smallest count that is this share of n, or more; at least 1."""
    # 0.2 * 15 is 3.0000000000000004 in floats; a share that is met must not round up to one more.
    return max(1, math.ceil(n * share - 1e-9))
