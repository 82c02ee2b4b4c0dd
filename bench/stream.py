"""Calls at a made-up provider, in simulated time, through the real breaker and early warning of one process.

Latencies are log-normal with an AR(1) between neighbouring calls; failures are independent. All from a seed.
"""

from __future__ import annotations

import datetime as dt
import heapq
import math
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from router.breaker import Breaker, BreakerSettings, Permit, Verdict
from router.early_warning import EarlyWarning
from router.histogram import bucket_of
from router.transitions import State, following
from router.windows import Counts

WATCH_EVERY_S = 0.2
"""How often health looks at its breakers and feeds the early warning."""
START = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class Weather:
    """How a provider answers now."""

    failing: float
    """Share of calls that fail."""
    slower: float = 1.0
    """Factor on every latency."""
    refusing: bool = False
    """Nothing listens: every call is refused at once."""


@dataclass(frozen=True, slots=True)
class Provider:
    """How a provider answers when it is well."""

    median_s: float = 0.3
    sigma: float = 0.5
    """Of the natural log of latencies."""
    correlation: float = 0.0
    """Of neighbouring calls' log latencies."""
    failing: float = 0.005


@dataclass(slots=True)
class Heard:
    """What one breaker did."""

    breaker: Breaker
    tuned: bool
    opened_at: list[float] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


class Stream:
    """One provider's calls at a steady rate. `breakers` see the same calls: one with the settings' thresholds, one
    with the tuned ones.
    """

    def __init__(self, provider: Provider, calls_per_s: float, seed: int, settings: BreakerSettings) -> None:
        self.now = 0.0
        self.calls = 0
        self.suspect_calls = 0
        self.suspected_at: list[float] = []
        self.warning = EarlyWarning("stripe", settings)
        self.breakers = [Heard(self._breaker(settings), tuned) for tuned in (False, True)]
        self._provider = provider
        self._interval_s = 1 / calls_per_s
        self._random = random.Random(seed)  # noqa: S311 - a simulation, repeatable from its seed
        self._state = self._random.gauss(0, 1)
        self._noise = math.sqrt(1 - provider.correlation**2)
        self._ending: list[tuple[float, int, list[Permit | None], Verdict, float]] = []
        self._next_watch = WATCH_EVERY_S
        self._ended: list[tuple[Verdict, float]] = []

    def run(
        self, seconds: float, weather: Callable[[float], Weather], *, until: Callable[[], bool] | None = None
    ) -> None:
        """Make calls for so long; `weather` tells how the provider is, by seconds since this began."""
        began, end = self.now, self.now + seconds
        while self.now < end and not (until is not None and until()):
            self._settle(self.now)
            self._call(weather(self.now - began))
            self.now += self._interval_s

    def samples(self, calls: int) -> Iterator[tuple[Verdict, float]]:
        """So many calls while all is well, that nothing here sees: an earlier day's."""
        for _ in range(calls):
            failed = self._random.random() < self._provider.failing
            yield Verdict.PROVIDER_ERROR if failed else Verdict.OK, self._latency_s()

    def _latency_s(self) -> float:
        self._state = self._provider.correlation * self._state + self._noise * self._random.gauss(0, 1)
        return self._provider.median_s * math.exp(self._provider.sigma * self._state)

    def _call(self, weather: Weather) -> None:
        latency_s = self._latency_s() * weather.slower
        verdict = Verdict.OK
        if weather.refusing:
            latency_s, verdict = 0.002, Verdict.UNREACHABLE
        elif self._random.random() < weather.failing:
            verdict = Verdict.PROVIDER_ERROR
        permits = [heard.breaker.admit(self.now) for heard in self.breakers]
        self.calls += 1
        self.suspect_calls += self.warning.suspect
        heapq.heappush(self._ending, (self.now + latency_s, self.calls, permits, verdict, latency_s))

    def _settle(self, now: float) -> None:
        """Everything that ends, and every look that is due, up to now, in order."""
        while True:
            ends_at = self._ending[0][0] if self._ending else math.inf
            if min(ends_at, self._next_watch) > now:
                return
            if ends_at <= self._next_watch:
                at, _, permits, verdict, latency_s = heapq.heappop(self._ending)
                self._ended.append((verdict, latency_s))
                for heard, permit in zip(self.breakers, permits, strict=True):
                    if permit is not None and heard.breaker.record(permit, verdict, at):
                        self._opened(heard, at)
            else:
                self._watch(self._next_watch)
                self._next_watch += WATCH_EVERY_S

    def _watch(self, now: float) -> None:
        """What `ProviderHealth.watch_once` does."""
        changed = self.warning.feed(counts_of(self._ended), now)
        self._ended.clear()
        if changed and self.warning.suspect:
            self.suspected_at.append(now)
        thresholds = self.warning.thresholds(now)
        for heard in self.breakers:
            if heard.tuned:
                heard.breaker.retune(thresholds)
            if heard.breaker.tick(now):
                self._opened(heard, now)

    def _breaker(self, settings: BreakerSettings) -> Breaker:
        return Breaker("stripe", settings, wall=self._wall, actor="bench")

    def _wall(self) -> dt.datetime:
        # Two stretches of CLOSED that began at one moment would be one and the same to a breaker.
        return START + dt.timedelta(seconds=self.now)

    def _opened(self, heard: Heard, now: float) -> None:
        """Note it, and close the circuit again, so that the next one can be counted."""
        last = heard.breaker.snapshot().last
        heard.opened_at.append(now)
        heard.reasons.append("" if last is None else last.reason)
        closed = following(last, State.CLOSED, provider="stripe", at=self._wall(), actor="bench", reason="to go on")
        heard.breaker.adopt(closed)


def counts_of(ended: Iterable[tuple[Verdict, float]]) -> Counts:
    """Calls that ended, with their seconds, as one batch."""
    calls = failures = unreachable = 0
    histogram: dict[int, int] = {}
    for verdict, latency_s in ended:
        calls += 1
        if verdict is Verdict.OK:
            bucket = bucket_of(latency_s)
            histogram[bucket] = histogram.get(bucket, 0) + 1
        else:
            failures += 1
            unreachable += verdict is Verdict.UNREACHABLE
    return Counts(calls, failures, unreachable, 0, histogram)
