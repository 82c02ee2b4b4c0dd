"""One provider's early warning: is it *suspect*, and which thresholds fit it? Pure; `now` is monotonic seconds.

A suspect provider is sent less and somebody is told; its circuit is not opened, for a latency CUSUM alarms now and
then when nothing is wrong (see `make bench-alarms`). Calls come in batches, a few a second: this process's own and
what the others tell of theirs.
"""

from __future__ import annotations

import math
import threading
from typing import Any

from router.baseline import Baseline, Fixed
from router.breaker import BreakerSettings
from router.cusum import LATENCY_ALARM, LATENCY_DRIFT, ErrorCusum, LatencyCusum
from router.windows import Counts, Thresholds

TROUBLE_FAILURE_RATE = 0.10
TROUBLE_FACTOR = 4.0
"""A provider that fails at this rate, and at four times its own, is in trouble."""

ALARM_PER_DISPERSION = 5.0
HIGHEST_LATENCY_ALARM = 40.0
"""The alarm's height for latencies that hang together: 5 for each time that neighbours vary more than independent
calls, from 15 to 40. At a correlation of 0.9 between neighbours, 15 made 1,100 alarms in a million calls and 40 made
70. Three times slower is 1.2 a call at a sigma of 0.5, so 40 takes 34 calls: 7 of the 10 s it may, at 5 calls/s."""

LEAST_USUAL_LOG_S = math.log(0.05)
"""No provider is slow below 50 ms, however quick it usually is: what answers in milliseconds takes some ten more
whenever this machine is busy, and that says nothing of the provider."""

FADES_BY_HALF_S = 60.0
"""While suspect. A provider that is sent nothing any more cannot prove itself; three minutes on it is asked again."""
ENOUGH_TO_JUDGE = 200
"""Calls to know of a provider before it may be suspect. With fewer, the guess at its failure rate weighs more than
its own calls (`baseline.USUAL_WEIGHT`), and one that has always failed more than that would be suspect at once."""
RELEARN_AFTER_S = 3600.0
"""A provider suspect for an hour has changed: the baseline learns again, or it would be suspect for ever."""


class EarlyWarning:
    """Two detectors over one baseline. Thread-safe."""

    def __init__(self, provider: str, settings: BreakerSettings, fixed: Fixed | None = None) -> None:
        self.provider = provider
        self._lock = threading.Lock()
        self._baseline = Baseline(settings, fixed)
        self._errors = ErrorCusum(*_rates(self._baseline.cautious_failure_rate))
        self._latency: LatencyCusum | None = None
        self._suspect_since: float | None = None
        self._fed_at: float | None = None
        self._known = 0
        self._heard = 0
        self._loaded = False
        """There are earlier hours that no step has taken in."""
        self._frozen = False

    def feed(self, counts: Counts, now: float, *, healthy: bool = True) -> bool:
        """Learn of calls that ended since the last time, none among them too. True when `suspect` has changed.

        The rest as `hear` has it.
        """
        was = self.suspect
        self.hear(counts, now, healthy=healthy)
        return self.suspect != was

    def hear(self, counts: Counts, now: float, *, healthy: bool = True, marked_s: float = 0.0) -> bool:
        """Judge these calls, none among them too. Answers whether they were taken for normal ones, and learned.

        `healthy`: the circuit is closed and not marked as suspect. What comes otherwise is judged, but not taken for
        normal. `marked_s`: for how long it has been marked, by whichever process: all learn anew at the same time.
        """
        with self._lock:
            self._fade(now)
            # A call counted as overdue in one batch may fail in the next, which then has a failure and no call.
            self._errors.add(max(counts.calls, counts.failures), counts.failures)
            if self._latency is not None:
                self._latency.add(counts.histogram)
            if self._known < ENOUGH_TO_JUDGE:
                self._forget()
            self._judge(now)
            suspect_for = max(marked_s, 0.0 if self._suspect_since is None else now - self._suspect_since)
            self._heard += counts.calls
            self._frozen = (self._suspect_since is not None or not healthy) and suspect_for < RELEARN_AFTER_S
            if self._frozen:
                self._baseline.forget_block()
            else:
                self._baseline.learn(counts, now)
                self._known += counts.calls
            self._step(now)
            return not self._frozen

    def load(self, counts: Counts, now: float, *, hours_ago: int = 0) -> None:
        """Take an earlier hour of the fleet's calls for normal ones: once each, when the process starts."""
        with self._lock:
            self._baseline.load(counts, now, hours_ago=hours_ago)
            self._known += counts.calls
            self._loaded = True

    def reset(self) -> None:
        """Suspect nothing, and keep what is normal: for when a circuit is not closed, and begins anew."""
        with self._lock:
            self._suspect_since = None
            self._forget()

    def thresholds(self, now: float) -> Thresholds:
        """What fits this provider now; the same for at least a minute, and while it is in trouble."""
        with self._lock:
            self._step(now)
            return self._baseline.thresholds

    @property
    def suspect(self) -> bool:
        """Whether a detector has alarmed, and not all have calmed since."""
        return self._suspect_since is not None

    @property
    def can_judge(self) -> bool:
        """Whether it knows enough of the provider to suspect it, or to say that nothing speaks against it."""
        return self._known >= ENOUGH_TO_JUDGE

    @property
    def rates(self) -> tuple[float, float]:
        """The failure rates that it tells apart: the provider's own, and one that is trouble."""
        with self._lock:
            return _rates(self._baseline.cautious_failure_rate)

    @property
    def heard(self) -> int:
        """Calls that it has judged, of this process and of others."""
        return self._heard

    @property
    def calm(self) -> bool:
        """Whether both detectors are far below their alarms."""
        with self._lock:
            return all(detector.calm for detector in self._detectors())

    @property
    def reason(self) -> str:
        """What speaks for trouble, in plain words; empty when nothing does."""
        return "; ".join(self.reasons)

    @property
    def reasons(self) -> tuple[str, ...]:
        """The same, one per detector that is not calm while the provider is suspect."""
        with self._lock:
            if self._suspect_since is None:
                return ()
            said = []
            if not self._errors.calm:
                said.append(f"more failures than the usual {self._baseline.failure_rate:.1%}")
            normal = self._baseline.normal
            if self._latency is not None and normal is not None and not self._latency.calm:
                said.append(f"slower than usual (median {normal.median_s:.2f} s)")
            return tuple(said)

    def evidence(self) -> dict[str, Any]:
        """The figures behind it, for a transition's record."""
        with self._lock:
            found: dict[str, Any] = {
                "error_cusum": round(self._errors.statistic, 2),
                "error_alarm": self._errors.alarm_at,
                "base_failure_rate": round(self._baseline.failure_rate, 5),
            }
            normal = self._baseline.normal
            if self._latency is not None and normal is not None:
                found |= {
                    "latency_cusum": round(self._latency.statistic, 2),
                    "latency_alarm": round(self._latency.alarm_at, 2),
                    "usual_median_s": round(normal.median_s, 4),
                    "latency_dispersion": round(self._baseline.dispersion, 2),
                }
            return found

    # ------------------------------------------------------------ inside the lock

    def _detectors(self) -> list[ErrorCusum | LatencyCusum]:
        return [self._errors] if self._latency is None else [self._errors, self._latency]

    def _forget(self) -> None:
        for detector in self._detectors():
            detector.reset()

    def _fade(self, now: float) -> None:
        if self._suspect_since is not None and self._fed_at is not None:
            for detector in self._detectors():
                detector.fade(0.5 ** ((now - self._fed_at) / FADES_BY_HALF_S))
        self._fed_at = now

    def _judge(self, now: float) -> None:
        detectors = self._detectors()
        if self._suspect_since is None and any(each.alarmed for each in detectors):
            self._suspect_since = now
        elif all(each.calm for each in detectors):
            self._suspect_since = None

    def _step(self, now: float) -> None:
        # A process that begins in the midst of trouble has earlier hours to go by, and learns no present ones.
        if (self._frozen and not self._loaded) or not self._baseline.step(now):
            return
        self._loaded = False
        self._errors.aim(*_rates(self._baseline.cautious_failure_rate))
        normal = self._baseline.normal
        if normal is None:
            return
        mu = max(normal.mu, LEAST_USUAL_LOG_S)
        height = min(HIGHEST_LATENCY_ALARM, max(LATENCY_ALARM, ALARM_PER_DISPERSION * self._baseline.dispersion))
        if self._latency is None:
            self._latency = LatencyCusum(mu, normal.sigma, LATENCY_DRIFT, height)
        else:
            self._latency.aim(mu, normal.sigma, height)


def _rates(usual: float) -> tuple[float, float]:
    """The failure rates to tell apart."""
    return usual, max(TROUBLE_FAILURE_RATE, TROUBLE_FACTOR * usual)
