"""Rates: exact to the request, bursts bounded, no second turn at a second's turn; divided, given back, forgotten."""

from __future__ import annotations

import itertools
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.clock import ManualClock
from router.limits import rate
from router.limits.guard import Guard, Refusal
from router.limits.quota import QuotaBounds, hours_that_count, pace_of, quota, quotas
from router.limits.rate import LocalRates, Pace, divided

BOUNDS = QuotaBounds(floor=60, cap=6000, growth=3.0)


@given(
    st.floats(0.5, 50),
    st.integers(1, 20),
    st.lists(st.floats(0, 2, allow_nan=False), min_size=1, max_size=200),
)
def test_in_no_time_whatever_more_come_through_than_the_rate_and_one_burst(
    per_s: float, burst: int, pauses: list[float]
) -> None:
    rates, pace, moments = LocalRates(), Pace(per_s, burst), list(itertools.accumulate(pauses))
    passed = [now for now in moments if rates.take("a", pace, now) == 0]
    for first, begin in enumerate(passed):
        for last in range(first, len(passed)):
            assert last - first + 1 <= per_s * (passed[last] - begin) + burst + 1e-3


@given(st.floats(0.5, 50), st.integers(1, 20))
def test_who_comes_back_when_told_to_gets_through_and_not_before(per_s: float, burst: int) -> None:
    rates, pace = LocalRates(), Pace(per_s, burst)
    assert [rates.take("a", pace, 10.0) for _ in range(burst)] == [0.0] * burst
    wait_s = rates.take("a", pace, 10.0)
    assert wait_s == pytest.approx(1 / per_s, rel=1e-3)
    assert rates.take("a", pace, 10.0 + wait_s * 0.99) > 0
    assert rates.take("a", pace, 10.0 + wait_s) == 0
    assert rates.take("b", pace, 10.0) == 0


def test_a_steady_pace_within_the_rate_is_never_refused() -> None:
    rates = LocalRates()
    assert all(rates.take("a", Pace(100, 1), number / 100) == 0 for number in range(10_000))


def test_what_is_given_back_may_be_taken_again() -> None:
    rates, pace = LocalRates(), Pace(1, 2)
    assert [rates.take("a", pace, 0) == 0 for _ in range(3)] == [True, True, False]
    rates.give_back("a", pace)
    assert [rates.take("a", pace, 0) == 0 for _ in range(2)] == [True, False]


def test_names_that_rest_are_forgotten_and_those_that_do_not_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "NAMES_AT_MOST", 10)
    rates, pace = LocalRates(), Pace(1, 1)
    rates.take("busy", Pace(0.001, 1), 0)
    for number in range(100):
        rates.take(str(number), pace, number * 10.0)
    assert len(rates._ahead) <= 11
    assert rates.take("busy", Pace(0.001, 1), 999) > 0


def test_threads_together_get_what_one_may() -> None:
    rates, pace, passed = LocalRates(), Pace(1, 500), []

    def come() -> None:
        passed.append(sum(rates.take("a", pace, 0) == 0 for _ in range(400)))

    threads = [threading.Thread(target=come) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sum(passed) == 500


def test_parts_add_up_to_the_whole() -> None:
    part = divided(Pace(100, 50), 4)
    assert (part.per_s * 4, part.burst * 4) == (100, 50)
    assert divided(Pace(1, 1), 8).burst == 1


# ---------------------------------------------------------------- quotas


def test_a_quota_is_the_busiest_minute_some_times_over_within_bounds() -> None:
    assert quota([], BOUNDS) == quota([5], BOUNDS) == 60
    assert quota([100, 40], BOUNDS) == 300
    assert quota([9000], BOUNDS) == 6000
    assert quotas({"a": [1], "b": [100]}, BOUNDS) == {"b": 300}


def test_the_day_before_and_the_same_hour_of_four_weeks_count() -> None:
    hours = hours_that_count(10_000)
    assert 10_000 not in hours
    assert {9_976, 9_999, 10_000 - 168, 10_001 - 168, 9_999 - 4 * 168} <= hours
    assert len(hours) == 24 + 4 * 3


@given(st.lists(st.floats(1.0, 2.99), min_size=1, max_size=60), st.integers(1, 60))
def test_a_merchant_that_grows_gradually_is_never_refused(growth: list[float], first: int) -> None:
    """Hour by hour its busiest minute grows, less than threefold."""
    bounds = QuotaBounds(floor=60, cap=10**9, growth=3.0)
    peaks, volume, hour = {0: first}, first, 0
    for each in growth:
        hour, volume = hour + 1, int(min(volume * each, 1e8))
        counted = [peaks[past] for past in hours_that_count(hour) if past in peaks]
        pace = pace_of(quota(counted, bounds))
        assert volume <= pace.per_s * 60 + 1
        peaks[hour] = volume


def test_a_flood_grows_no_faster_than_threefold_an_hour() -> None:
    peaks: dict[int, int] = {}
    for hour in range(1, 6):
        allowed = quota([peaks[past] for past in hours_that_count(hour) if past in peaks], BOUNDS)
        assert allowed == min(6000, 60 * 3 ** (hour - 1))
        peaks[hour] = allowed


# ---------------------------------------------------------------- the guard


def a_guard(clock: ManualClock, *, processes: int = 1, per_s: float = 2) -> tuple[Guard, list[str]]:
    told: list[str] = []
    rates = Pace(per_s, per_s)
    return Guard(rate=rates, bounds=BOUNDS, clock=clock, processes=processes, refused=told.append), told


def test_making_starves_neither_changes_nor_reads_nor_another_key() -> None:
    guard, told = a_guard(ManualClock())
    assert [guard.request("a", "make") for _ in range(3)] == [None, None, Refusal("rate", 1)]
    assert guard.request("a", "change") is guard.request("a", "read") is guard.request("b", "make") is None
    assert told == []
    guard.tell("rate")
    assert told == ["rate"]


def test_a_process_has_its_part_and_a_quota_its_burst() -> None:
    clock = ManualClock()
    guard, _ = a_guard(clock, processes=2, per_s=4)
    assert [guard.request("a", "make") is None for _ in range(3)] == [True, True, False]
    # 60 a minute, 20 s at once, half of it here.
    assert [guard.payment("books") is None for _ in range(11)] == [True] * 10 + [False]
    assert guard.payment("toys") is None
    guard.follow({"books": 6000})
    clock.advance(1)
    assert all(guard.payment("books") is None for _ in range(50))


def test_an_answer_that_made_nothing_does_not_count() -> None:
    guard, _ = a_guard(ManualClock())
    for _ in range(100):
        assert guard.payment("books") is None
        guard.not_made("books")


def test_the_wait_is_in_whole_seconds_and_enough() -> None:
    clock = ManualClock()
    guard, _ = a_guard(clock, per_s=0.4)
    assert guard.request("a", "make") is None
    refusal = guard.request("a", "make")
    assert refusal == Refusal("rate", 3)
    clock.advance(3)
    assert guard.request("a", "make") is None


def test_all_of_it_costs_a_request_a_few_microseconds() -> None:
    """The house's bound is 15 µs of a thread's CPU; this leaves room for a slow machine."""
    guard, _ = a_guard(ManualClock(), per_s=1e6)
    guard.follow({"books": 600_000_000})
    best = 1.0
    for _ in range(5):
        begun = time.thread_time()
        for _ in range(2000):
            guard.request("key", "make")
            guard.payment("books")
        best = min(best, (time.thread_time() - begun) / 2000)
    assert best < 15e-6
