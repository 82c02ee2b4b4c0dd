"""Windows by count and by time, limits, and how counts are spread."""

from __future__ import annotations

import pytest

from router.windows import FAILED, SLOW, UNREACHABLE, Counts, CountWindow, Limit, TimeWindow, spread


def figures(window: CountWindow | TimeWindow, now: float = 0.0) -> tuple[int, int, int, int]:
    window.expire(now)
    return window.calls, window.failures, window.unreachable, window.slow


def test_a_count_window_lets_go_of_what_it_counted() -> None:
    """Every kind of call leaves at the far end, and only what it was."""
    window = CountWindow(3)
    for code in (FAILED, FAILED | UNREACHABLE | SLOW, SLOW):
        window.add(code, 0.0)
    assert figures(window) == (3, 2, 1, 2)
    window.add(0, 0.0)
    assert figures(window) == (3, 1, 1, 2)
    window.add(0, 0.0)
    assert figures(window) == (3, 0, 0, 1)
    window.add(0, 0.0)
    assert figures(window) == (3, 0, 0, 0)


def test_a_count_window_is_calm_when_it_is_full_of_healthy_calls() -> None:
    """Not before it is full, and not while one bad call is in it."""
    window = CountWindow(2)
    seen = []
    for code in (0, 0, SLOW, 0, 0, FAILED, 0, 0):
        window.add(code, 0.0)
        seen.append(window.calm)
    assert seen == [False, True, False, False, True, False, False, True]
    window.clear()
    assert not window.calm


def test_a_count_window_that_was_emptied_starts_from_nothing() -> None:
    """No old result is subtracted from the new figures."""
    window = CountWindow(3)
    for _ in range(4):
        window.add(FAILED, 0.0)
    window.clear()
    assert figures(window) == (0, 0, 0, 0)
    for _ in range(4):
        window.add(0, 0.0)
    assert figures(window) == (3, 0, 0, 0)


def test_time_alone_takes_nothing_from_a_count_window() -> None:
    """A thin night does not drain it."""
    window = CountWindow(3)
    window.add(FAILED, 0.0)
    assert figures(window, 1e9) == (1, 1, 0, 0)


def test_failures_that_straddle_a_bucket_edge_still_add_up() -> None:
    """Two just before the second is over and two just after it are four."""
    window = TimeWindow(10.0)
    for at in (4.98, 4.99, 5.0, 5.01):
        window.add(FAILED, at)
    assert figures(window, 5.02) == (4, 4, 0, 0)


def test_a_time_window_slides_second_by_second() -> None:
    """Ten buckets, the one that runs included: what was counted in second 0 is gone when second 10 begins."""
    window = TimeWindow(10.0)
    window.add(FAILED | UNREACHABLE | SLOW, 0.5)
    window.add(SLOW, 1.5)
    assert figures(window, 9.99) == (2, 1, 1, 2)
    assert figures(window, 10.0) == (1, 0, 0, 1)
    assert figures(window, 11.0) == (0, 0, 0, 0)


def test_idle_time_drains_a_time_window() -> None:
    """Without a call the figures go too."""
    window = TimeWindow(5.0)
    window.add(FAILED, 100.0)
    assert figures(window, 200.0) == (0, 0, 0, 0)


@pytest.mark.parametrize("jump_s", [10.0, 20.0, 100.0, 1e6])
def test_a_big_jump_never_brings_old_buckets_back(jump_s: float) -> None:
    """Least of all a jump by a multiple of the window, which lands in the same place of a ring."""
    window = TimeWindow(10.0)
    for second in range(10):
        window.add(FAILED, second + 0.5)
    window.add(0, 9.5 + jump_s)
    assert figures(window, 9.5 + jump_s) == (1, 0, 0, 0)


def test_a_call_with_an_older_clock_reading_counts_in_the_newest_bucket() -> None:
    """A thread that was held up between reading the clock and counting does not break the order."""
    window = TimeWindow(2.0)
    window.add(0, 5.1)
    window.add(FAILED, 4.9)
    assert figures(window, 6.9) == (2, 1, 0, 0)
    assert figures(window, 7.0) == (0, 0, 0, 0)


def test_a_time_window_shorter_than_a_bucket_is_one_bucket_and_never_calm() -> None:
    """Half a second means this second."""
    window = TimeWindow(0.5)
    window.add(0, 1.0)
    assert figures(window, 1.9) == (1, 0, 0, 0)
    assert not window.calm
    window.clear()
    assert figures(window, 1.9) == (0, 0, 0, 0)


def test_a_limit_by_table_goes_on_beyond_it_with_its_last_share() -> None:
    """A time window holds any number of calls; a fifth of twenty is a fifth of a thousand."""
    limit = Limit(0.5, 10, tuple(max(4, n // 5) for n in range(1, 21)))
    assert [limit.reached(n, bad) for n, bad in ((9, 9), (10, 3), (10, 4), (20, 4), (1000, 199), (1000, 200))] == [
        False,
        False,
        True,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize("needed", [(), tuple(max(3, n // 4) for n in range(1, 21)), (2, 2, 2)])
@pytest.mark.parametrize("rate", [0.07, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("minimum", [1, 5, 10])
def test_fewer_than_the_least_never_trip(rate: float, minimum: int, needed: tuple[int, ...]) -> None:
    """The quick look agrees with the division for every number of calls."""
    limit = Limit(rate, minimum, needed)
    assert not any(limit.reached(calls, bad) for calls in range(1, 60) for bad in range(limit.least))


def test_counts_are_spread_evenly_and_whole() -> None:
    """All of them, none bunched: three failures among ten are never neighbours."""
    codes = spread(Counts(calls=10, failures=3, unreachable=1, slow=5), 10)
    assert [code & FAILED for code in codes] == [0, 0, 0, 1, 0, 0, 1, 0, 0, 1]
    assert sum(bool(code & UNREACHABLE) for code in codes) == 1
    assert sum(bool(code & SLOW) for code in codes) == 5
    assert all(code & FAILED for code in codes if code & UNREACHABLE)


def test_of_more_counts_than_a_window_holds_the_last_are_made() -> None:
    """A million calls cost no more than the window; their share is kept."""
    codes = spread(Counts(calls=1_000_000, failures=100_000), 20)
    assert (len(codes), sum(codes)) == (20, 2)
    assert spread(Counts(calls=30, failures=1), 3) == [0, 0, FAILED]


def test_counts_that_disagree_are_cut_to_their_calls() -> None:
    """A row read half-way through an update cannot make more failures than calls."""
    codes = spread(Counts(calls=2, failures=5, unreachable=9, slow=7), 10)
    assert codes == [FAILED | UNREACHABLE | SLOW] * 2
