"""The two CUSUMs: what they notice, what they forget, and that batches are worth what single calls are."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.cusum import ErrorCusum, LatencyCusum
from router.histogram import bucket_of

MU, SIGMA = math.log(0.3), 0.5


def errors() -> ErrorCusum:
    """From half a percent to a tenth."""
    return ErrorCusum(0.005, 0.10)


def latency() -> LatencyCusum:
    """Around 300 ms."""
    return LatencyCusum(MU, SIGMA)


def at(sigmas: float, calls: int = 1) -> dict[int, int]:
    """Calls so many standard deviations above the mean."""
    return {bucket_of(math.exp(MU + sigmas * SIGMA)): calls}


def test_five_failures_in_a_row_alarm() -> None:
    """Each is worth ln(0.1 / 0.005) = 3.0, and the alarm is at 12."""
    detector = errors()
    for _ in range(4):
        detector.add(1, 1)
    assert not detector.alarmed
    detector.add(1, 1)
    assert detector.alarmed


def test_the_usual_failure_rate_never_alarms() -> None:
    """One failure in 200 is what the base rate is."""
    detector = errors()
    for _ in range(5000):
        detector.add(200, 1)
        assert not detector.alarmed


def test_the_rate_looked_for_alarms_within_sixty_calls() -> None:
    """Its drift is the Kullback-Leibler distance, 0.21 a call: 12 takes 57."""
    detector = errors()
    for calls in range(10, 61, 10):
        detector.add(10, 1)
        if calls == 40:
            assert not detector.alarmed
    assert detector.alarmed


def test_calm_comes_in_time_after_a_long_outage() -> None:
    """The statistic is capped at twice the alarm: 210 good calls calm it, after ten failures or 10,000."""
    detector = errors()
    detector.add(10_000, 10_000)
    assert detector.statistic == 24.0
    detector.add(200, 0)
    assert not detector.calm
    detector.add(10, 0)
    assert detector.calm


def test_between_alarm_and_calm_it_is_neither() -> None:
    """What alarmed must fall to a quarter of the height, or it would flicker."""
    detector = errors()
    detector.add(3, 3)
    assert not detector.alarmed
    assert not detector.calm


def test_good_calls_are_not_saved_up() -> None:
    """A day without failures makes nobody slower to notice the outage."""
    fresh, old = errors(), errors()
    old.add(400_000, 0)
    for detector in (fresh, old):
        detector.add(4, 4)
    assert fresh.statistic == old.statistic


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=60))
def test_the_error_statistic_stays_within_its_bounds(batches: list[tuple[int, int]]) -> None:
    """Between 0 and twice the alarm, and never both alarmed and calm."""
    detector = errors()
    for calls, failures in batches:
        detector.add(calls + failures, failures)
        assert 0.0 <= detector.statistic <= 24.0
        assert not (detector.alarmed and detector.calm)


@given(st.lists(st.booleans(), max_size=40))
def test_a_batch_is_worth_about_what_its_calls_are(failed: list[bool]) -> None:
    """Where in a batch its failures were is not known; that is worth at most what its failures are."""
    one_by_one, batch = errors(), errors()
    for each in failed:
        one_by_one.add(1, int(each))
    batch.add(len(failed), sum(failed))
    assert abs(batch.statistic - one_by_one.statistic) <= 3.0 * sum(failed) + 1e-9
    if not any(failed) or all(failed):
        assert batch.statistic == pytest.approx(one_by_one.statistic)


@pytest.mark.parametrize(("calls", "failures"), [(1, 2), (1, -1)])
def test_impossible_counts_are_refused(calls: int, failures: int) -> None:
    """More failures than calls are a mistake of the caller's."""
    with pytest.raises(ValueError, match="failures"):
        errors().add(calls, failures)


@pytest.mark.parametrize(("p0", "p1"), [(0.0, 0.1), (0.1, 0.1), (0.2, 0.1), (0.5, 1.0)])
def test_rates_that_cannot_be_told_apart_are_refused(p0: float, p1: float) -> None:
    """Also 0 and 1, whose logarithms are infinite."""
    with pytest.raises(ValueError, match="rates"):
        ErrorCusum(p0, p1)


def test_other_rates_keep_the_statistic() -> None:
    """Retuning in the middle of trouble does not forget it."""
    detector = errors()
    detector.add(3, 3)
    before = detector.statistic
    detector.aim(0.02, 0.10)
    assert detector.statistic == before


def test_three_times_slower_alarms_within_fifteen_calls() -> None:
    """ln 3 / 0.5 is 2.2 standard deviations, of which one is the drift: 1.2 a call, 15 takes 13."""
    detector = latency()
    for _ in range(11):
        detector.add(at(math.log(3) / SIGMA))
    assert not detector.alarmed
    for _ in range(4):
        detector.add(at(math.log(3) / SIGMA))
    assert detector.alarmed


def test_less_than_the_drift_never_alarms() -> None:
    """A third slower is 0.6 standard deviations: within what a day brings."""
    detector = latency()
    for _ in range(1000):
        detector.add(at(0.6, 10))
    assert detector.statistic == 0.0


def test_one_hung_call_is_no_slow_provider() -> None:
    """A minute is ten standard deviations; one call speaks for four at most."""
    detector = latency()
    detector.add({bucket_of(60.0): 1})
    assert detector.statistic == pytest.approx(3.0)


def test_a_new_height_keeps_the_share_of_it() -> None:
    """Half way to the alarm is half way to the new alarm."""
    detector = latency()
    detector.add(at(3.5, 3))
    half = detector.statistic / detector.alarm_at
    detector.aim(MU, SIGMA, 40.0)
    assert detector.statistic / detector.alarm_at == pytest.approx(half)


@given(st.lists(st.dictionaries(st.integers(0, 120), st.integers(1, 500), max_size=8), max_size=30))
def test_the_latency_statistic_stays_within_its_bounds(batches: list[dict[int, int]]) -> None:
    """Between 0 and twice the alarm, whatever the histograms."""
    detector = latency()
    for histogram in batches:
        detector.add(histogram)
        assert 0.0 <= detector.statistic <= 30.0


@pytest.mark.parametrize(("sigma", "alarm_at"), [(0.0, 15.0), (0.5, 0.0), (-1.0, 15.0)])
def test_a_normal_without_width_is_refused(sigma: float, alarm_at: float) -> None:
    """It would divide by nothing."""
    with pytest.raises(ValueError, match="above 0"):
        LatencyCusum(MU, sigma, alarm_at=alarm_at)


def test_fading_forgets_by_halves_and_reset_forgets_all() -> None:
    """What was seen long ago says less."""
    detector = errors()
    detector.add(8, 8)
    detector.fade(0.5)
    assert detector.statistic == pytest.approx(12.0, abs=0.1)
    detector.reset()
    assert detector.statistic == 0.0
