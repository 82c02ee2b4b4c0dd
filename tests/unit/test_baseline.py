"""What is normal for a provider, and the thresholds that follow, each with its reason."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.baseline import Baseline, Dispersion, Fixed, Normal, by_chance
from router.breaker import BreakerSettings
from router.histogram import bucket_of, latency_of
from router.windows import Counts

MINUTE, HOUR = 60.0, 3600.0


def calls(n: int, *, failures: int = 0, latency_s: float = 0.3) -> Counts:
    """A batch of calls that all took as long."""
    return Counts(n, failures, 0, 0, {bucket_of(latency_s): n - failures})


def stepped(counts: Counts, *, times: int = 1, fixed: Fixed | None = None) -> Baseline:
    """A baseline that learned these and has taken so many steps since."""
    baseline = Baseline(BreakerSettings(), fixed)
    baseline.learn(counts, 0.0)
    for minute in range(times):
        baseline.step(minute * MINUTE)
    return baseline


def test_before_enough_calls_the_settings_hold() -> None:
    """3 s, and half of the calls; the reasons say that it is too early."""
    thresholds = stepped(calls(499)).thresholds
    assert thresholds.slow_call_s == 3.0
    assert thresholds.failures_needed == tuple(math.ceil(n / 2) for n in range(1, 21))
    assert "too few" in thresholds.reasons["slow_call_s"]
    assert "too few" in thresholds.reasons["failure_rate"]


@pytest.mark.parametrize(
    ("failing", "expected"),
    [(0.001, 4), (0.005, 5), (0.02, 7), (0.05, 9), (0.5, 9)],
    ids=["0.1%", "0.5%: a quarter", "2%: 35%", "5%", "above 5% it counts as 5%"],
)
def test_the_failure_threshold_follows_the_base_rate(failing: float, expected: int) -> None:
    """Of 20 calls, after so many that the estimate is sure."""
    baseline = stepped(calls(1_000_000, failures=int(1_000_000 * failing)))
    assert baseline.thresholds.failures_needed[19] == expected


@given(st.integers(0, 100_000), st.floats(0.0, 1.0))
def test_the_failure_threshold_stays_between_a_fifth_and_the_settings(n: int, failing: float) -> None:
    """Whatever was learned."""
    for size, needed in enumerate(stepped(calls(n, failures=int(n * failing))).thresholds.failures_needed, 1):
        assert math.ceil(size / 5) <= needed <= math.ceil(size / 2)


def test_a_young_baseline_is_careful() -> None:
    """A thousand calls without a failure may be luck; a million are not."""
    young, old = stepped(calls(1000)), stepped(calls(1_000_000))
    assert young.cautious_failure_rate > 1.5 * old.cautious_failure_rate
    assert young.thresholds.failures_needed[19] >= old.thresholds.failures_needed[19]


@given(st.integers(1, 60), st.floats(0.001, 0.3))
def test_by_chance_is_the_smallest_count_rarer_than_the_odds(n: int, p: float) -> None:
    """Against the tail summed from its other end."""

    def tail(k: int) -> float:
        return math.fsum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))

    found = by_chance(n, p)
    assert found == n or tail(found) < 1e-6 * 1.001
    assert found == 1 or tail(found - 1) >= 1e-6 * 0.999


@pytest.mark.parametrize(
    ("n", "p", "share"),
    [(20, 0.005, 0.25), (50, 0.005, 0.12), (100, 0.005, 0.07), (20, 0.02, 0.35), (50, 0.02, 0.18)],
)
def test_the_shares_of_the_facts_come_out(n: int, p: float, share: float) -> None:
    """The table that the rule was measured with."""
    assert by_chance(n, p) / n == pytest.approx(share)


def test_the_slow_threshold_moves_by_a_fifth_a_minute_towards_the_p99() -> None:
    """From 3 s to 2 s: 2.4, then there; and it says that it is on the way."""
    baseline = stepped(calls(1000, latency_s=1.95))
    assert baseline.thresholds.slow_call_s == pytest.approx(2.4)
    assert "at most 20% a minute" in baseline.thresholds.reasons["slow_call_s"]
    assert not baseline.step(59.0)
    assert baseline.step(60.0)
    assert 1.95 <= baseline.thresholds.slow_call_s <= 1.95 * 1.1
    assert "1,000 calls" in baseline.thresholds.reasons["slow_call_s"]


@pytest.mark.parametrize(("latency_s", "expected"), [(0.05, 1.0), (30.0, 5.0)], ids=["fast", "very slow"])
def test_the_slow_threshold_is_clamped(latency_s: float, expected: float) -> None:
    """One second at least, five at most."""
    baseline = stepped(calls(1000, latency_s=latency_s), times=30)
    assert baseline.thresholds.slow_call_s == pytest.approx(expected)
    assert f"clamped to {expected:.1f} s" in baseline.thresholds.reasons["slow_call_s"]


@given(st.lists(st.tuples(st.floats(0.001, 90.0), st.integers(1, 5000)), max_size=20))
def test_no_step_is_larger_than_a_fifth(batches: list[tuple[float, int]]) -> None:
    """Whatever was learned in between."""
    baseline, before = Baseline(BreakerSettings()), 3.0
    for minute, (latency_s, n) in enumerate(batches):
        baseline.learn(calls(n, latency_s=latency_s), minute * MINUTE)
        baseline.step(minute * MINUTE)
        now = baseline.thresholds.slow_call_s
        assert before * 0.8 - 1e-9 <= now <= before * 1.2 + 1e-9
        assert 0.8 <= now <= 6.0
        before = now


def test_a_threshold_that_a_person_set_wins_and_names_its_setting() -> None:
    """However much was learned."""
    fixed = Fixed(slow_call_s=7.5, failure_rate=0.3, set_by={"slow_call_s": "ROUTER_BREAKER_SLOW_CALL_SECONDS"})
    thresholds = stepped(calls(1_000_000), fixed=fixed).thresholds
    assert thresholds.slow_call_s == 7.5
    assert thresholds.failures_needed[19] == 6
    assert thresholds.failures_needed[9] == 3
    assert thresholds.reasons["slow_call_s"] == "set by ROUTER_BREAKER_SLOW_CALL_SECONDS"
    assert thresholds.reasons["failure_rate"] == "set by settings"


def test_what_is_a_day_old_is_forgotten() -> None:
    """A slot is gone 24 hours on; the one before is still there."""
    baseline = Baseline(BreakerSettings())
    baseline.learn(calls(100_000, failures=5000), 0.0)
    baseline.learn(calls(2000), 23 * HOUR)
    baseline.step(23 * HOUR)
    assert baseline.failure_rate > 0.04
    baseline.learn(calls(2000), 24 * HOUR)
    baseline.step(24 * HOUR)
    assert baseline.failure_rate == pytest.approx(0.001)


def test_hours_that_the_ledger_kept_count_as_learned() -> None:
    """A process that begins knows yesterday evening at once, and forgets it when its time has come."""
    baseline = Baseline(BreakerSettings())
    baseline.load(calls(10_000, failures=200), 5 * HOUR, hours_ago=20)
    baseline.step(5 * HOUR)
    assert baseline.failure_rate == pytest.approx(0.02, rel=0.05)
    assert baseline.normal is not None
    baseline.learn(calls(1), 9 * HOUR)
    baseline.step(9 * HOUR)
    assert baseline.failure_rate == pytest.approx(0.005, rel=0.05)


def test_normal_latency_is_that_of_the_log_and_never_too_narrow() -> None:
    """A stand-in that always takes as long has no spread of its own."""
    normal = stepped(calls(500, latency_s=0.2)).normal
    assert normal is not None
    assert normal.median_s == pytest.approx(0.2, rel=0.05)
    assert normal.sigma == 0.25
    assert normal.calls == 500


NORMAL = Normal(math.log(latency_of(60)), 0.5, 1000)


def test_latencies_that_alternate_are_not_dispersed() -> None:
    """The blocks' means are all the same."""
    dispersion = Dispersion()
    for _ in range(1000):
        dispersion.add({55: 25, 65: 25}, NORMAL)
    assert dispersion.factor == 1.0


def test_latencies_that_come_in_runs_are_dispersed() -> None:
    """Fifty slow calls, then fifty fast ones: a block is (5 × ln 1.1 / 0.5)² × 50 = 45."""
    dispersion = Dispersion()
    for _ in range(500):
        dispersion.add({55: 50}, NORMAL)
        dispersion.add({65: 50}, NORMAL)
    assert dispersion.factor == pytest.approx(45, rel=0.1)


def test_the_slow_threshold_leaves_room_where_slow_calls_come_in_runs() -> None:
    """Else a healthy provider's busy minute would open its circuit."""
    baseline = Baseline(BreakerSettings())
    baseline.learn(Counts(1000, 0, 0, 0, {65: 500, 75: 500}), 0.0)
    baseline.step(0.0)
    for _ in range(500):
        baseline.learn(Counts(50, 0, 0, 0, {65: 50}), 0.0)
        baseline.learn(Counts(50, 0, 0, 0, {75: 50}), 0.0)
    for minute in range(1, 10):
        baseline.step(minute * MINUTE)
    p99 = latency_of(75) * 1.1**0.5
    assert baseline.thresholds.slow_call_s == pytest.approx(min(5.0, p99 * 2.5))
    assert "2.5 times that since slow calls come in runs" in baseline.thresholds.reasons["slow_call_s"]
