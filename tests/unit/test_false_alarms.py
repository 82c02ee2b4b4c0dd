"""`make bench-alarms` in short: the healthy stay in use and the sick are noticed."""

from __future__ import annotations

from statistics import median

import pytest

from bench.false_alarms import HEALTHY, healthy, noticed
from bench.stream import Provider
from router.breaker import BreakerSettings

SETTINGS = BreakerSettings()


def test_fifty_thousand_healthy_calls_open_nothing() -> None:
    """Failures as usual, latencies that hang together, and thresholds tuned to them."""
    provider = Provider(median_s=HEALTHY.median_s, correlation=0.7, failing=0.02)
    stream = healthy(provider, 50_000, seed=1, settings=SETTINGS)
    assert stream.calls >= 50_000
    assert [heard.opened_at for heard in stream.breakers] == [[], []]
    # Both were judged by more than the settings at the end, or this would show nothing.
    thresholds = stream.warning.thresholds(stream.now)
    assert thresholds.failures_needed[-1] < 10
    assert thresholds.slow_call_s < 3.0
    assert len(stream.suspected_at) <= 2


@pytest.mark.parametrize(
    ("fault", "within_s"),
    [("hard outage", 3.0), ("30% failing", 10.0), ("3x slower", 10.0), ("brownout: 10% errors, 2x slower", 60.0)],
)
def test_faults_are_noticed_in_time_at_five_calls_a_second(fault: str, within_s: float) -> None:
    """The median of five seeds, by suspicion or by opening; slowness by suspicion."""
    found = [noticed(Provider(correlation=0.7), 5.0, fault, seed, SETTINGS) for seed in range(1, 6)]
    by_slowness = "slower" in fault
    assert median(pair[0] if by_slowness else min(pair) for pair in found) <= within_s
