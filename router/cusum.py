"""Two CUSUMs: do errors, or latencies, run above what is normal for this provider? Pure; no clock.

A CUSUM adds up how much every call speaks for trouble and never falls below zero, so it sees a small change that
lasts as surely as a large one. Both take batches: the order inside a batch is not known, and need not be.
Source of the method: E. S. Page, "Continuous inspection schemes", Biometrika 41 (1954).

    failures  log-likelihood ratio of a failure rate p1 against p0, per call
    latency   (log latency - mu) / sigma - k, per successful call
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from router.histogram import log_latency_of

ERROR_ALARM = 12.0
"""e^-12 is the odds against one healthy run reaching it: half an alarm per million calls at a base rate of 0.5%."""
LATENCY_ALARM = 15.0
LATENCY_DRIFT = 1.0
"""Standard deviations a call must be above the mean to count for trouble; half of 2, about what 3 times slower is."""
LONGEST_STEP = 4.0
"""Standard deviations one call can speak for at most: a single hung call is no slow provider."""
CALM_SHARE = 0.25
"""Of the alarm's height: below it all is well again. The gap keeps a detector from flickering at one height."""
CAP_SHARE = 2.0
"""Of the alarm's height: no higher, so that an hour of trouble is forgotten as soon as ten seconds of it."""


class Cusum:
    """A sum that starts at 0, stays in [0, 2h], alarms at h and is calm below h/4."""

    def __init__(self, alarm_at: float) -> None:
        if alarm_at <= 0:
            raise ValueError("the alarm's height must be above 0")
        self.alarm_at = alarm_at
        self.statistic = 0.0

    @property
    def alarmed(self) -> bool:
        """Whether there is trouble now."""
        return self.statistic >= self.alarm_at

    @property
    def calm(self) -> bool:
        """Whether an alarm, if there was one, is over."""
        return self.statistic < self.alarm_at * CALM_SHARE

    def fade(self, share: float) -> None:
        """Keep this share of the statistic, 0 to 1: what was seen long ago says less."""
        self.statistic *= min(1.0, max(0.0, share))

    def reset(self) -> None:
        """Know nothing."""
        self.statistic = 0.0

    def _step(self, amount: float) -> None:
        self.statistic = min(self.alarm_at * CAP_SHARE, max(0.0, self.statistic + amount))


class ErrorCusum(Cusum):
    """Tells a failure rate of `p1` from the normal `p0`."""

    def __init__(self, p0: float, p1: float, alarm_at: float = ERROR_ALARM) -> None:
        super().__init__(alarm_at)
        self.aim(p0, p1)

    def aim(self, p0: float, p1: float) -> None:
        """Other rates, the statistic kept. Raises ValueError unless 0 < p0 < p1 < 1."""
        if not 0 < p0 < p1 < 1:
            raise ValueError("the rates must be 0 < p0 < p1 < 1")
        self._failure = math.log(p1 / p0)
        self._success = math.log((1 - p1) / (1 - p0))

    def add(self, calls: int, failures: int) -> None:
        """So many calls ended, so many of them failed; the failures are taken as spread evenly among the others.

        Raises ValueError for more failures than calls, or fewer than none.
        """
        if not 0 <= failures <= calls:
            raise ValueError("failures must be between 0 and the calls")
        between = (calls - failures) / (failures + 1)
        self._step(between * self._success)
        for _ in range(failures):
            self._step(self._failure)
            self._step(between * self._success)


class LatencyCusum(Cusum):
    """Tells slower answers from the normal log-normal ones; `sigma` and `mu` are of the natural log of seconds."""

    def __init__(
        self, mu: float, sigma: float, drift: float = LATENCY_DRIFT, alarm_at: float = LATENCY_ALARM
    ) -> None:
        super().__init__(alarm_at)
        self._drift = drift
        self.aim(mu, sigma, alarm_at)

    def aim(self, mu: float, sigma: float, alarm_at: float) -> None:
        """Another normal and height; the statistic keeps its share of the height. Raises ValueError unless
        sigma and the height are above 0.
        """
        if sigma <= 0 or alarm_at <= 0:
            raise ValueError("sigma and the alarm's height must be above 0")
        self._mu, self._sigma = mu, sigma
        self.statistic *= alarm_at / self.alarm_at
        self.alarm_at = alarm_at

    def add(self, histogram: Mapping[int, int]) -> None:
        """Successful calls' latencies, as calls per bucket (`router.histogram`)."""
        total = 0.0
        for bucket, calls in histogram.items():
            deviation = (log_latency_of(bucket) - self._mu) / self._sigma
            total += calls * (min(deviation, LONGEST_STEP) - self._drift)
        self._step(total)
