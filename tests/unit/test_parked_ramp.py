"""How fast parked payments are tried, by all workers together."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.parked_ramp import (
    BURST_S,
    FLOOR_PER_S,
    IDLE_S,
    STAGE_S,
    Ramp,
    allowed,
    beginning,
    heard,
    next_at,
    spent,
)

NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
MOST = 100.0


def after(seconds: float) -> dt.datetime:
    return NOW + dt.timedelta(seconds=seconds)


def given_out(*, seconds: float, step_s: float = 0.05, bad_share: float = 0.0, workers: int = 1) -> Iterator[int]:
    """Tries in each second, with workers that take all they may, and whose calls end at once."""
    ramp, bad, counted = beginning(NOW), 0.0, 0
    for step in range(round(seconds / step_s)):
        now = after(step * step_s)
        for _ in range(workers):
            tries = allowed(ramp, now)
            ramp = spent(ramp, now, tries)
            counted += tries
            bad += tries * bad_share
            failed, bad = int(bad), bad - int(bad)
            ramp = heard(ramp, now, good=tries - failed, bad=failed, most_per_s=MOST)
        if round((step + 1) * step_s, 6) % 1 == 0:
            yield counted
            counted = 0


def test_it_begins_slowly_and_doubles_while_calls_succeed() -> None:
    """Every two seconds, up to the most; with several workers it is the same."""
    alone, three = list(given_out(seconds=16)), list(given_out(seconds=16, workers=3))
    assert alone == three
    assert alone[:2] == [FLOOR_PER_S, FLOOR_PER_S]
    for second in range(8):
        assert alone[second] <= FLOOR_PER_S * 2 ** ((second + 1) // 2) * (1 + BURST_S)
    assert sum(alone[-4:]) == pytest.approx(4 * MOST, rel=0.05)


def test_calls_that_fail_keep_it_slow() -> None:
    """A fifth of them is enough: more than a round of probes would forgive."""
    assert max(given_out(seconds=20, bad_share=0.2)) <= 2 * FLOOR_PER_S * (1 + BURST_S)
    assert max(given_out(seconds=20, bad_share=0.01)) >= MOST * 0.9


def test_a_failure_halves_it_and_never_below_its_beginning() -> None:
    fast = dataclasses.replace(beginning(NOW), rate=80.0)
    once = heard(fast, after(1), good=0, bad=1, most_per_s=MOST)
    assert once.rate == 40.0
    for step in range(9):
        once = heard(once, after(1 + step / 10), good=0, bad=5, most_per_s=MOST)
    assert once.rate == FLOOR_PER_S


def test_a_rate_that_is_not_used_proves_nothing() -> None:
    """Three payments a second do not open the door to two hundred."""
    ramp = dataclasses.replace(beginning(NOW), rate=40.0)
    for second in range(1, 30):
        ramp = dataclasses.replace(ramp, spent_until=after(second))
        ramp = heard(ramp, after(second), good=3, bad=0, most_per_s=MOST)
    assert ramp.rate == 40.0


def test_after_a_pause_it_begins_anew() -> None:
    """What was known of the providers' strength is old."""
    fast = Ramp(MOST, began_at=NOW, spent_until=NOW, restarted_at=NOW)
    assert heard(fast, after(IDLE_S), good=0, bad=0, most_per_s=MOST).rate == MOST
    anew = heard(fast, after(IDLE_S + 0.1), good=0, bad=0, most_per_s=MOST)
    assert (anew.rate, allowed(anew, after(IDLE_S + 0.1))) == (FLOOR_PER_S, 1)


def test_the_first_try_is_due_at_once_and_the_next_an_interval_later() -> None:
    ramp = beginning(NOW)
    assert allowed(ramp, NOW) == 1
    ramp = spent(ramp, NOW, 1)
    assert allowed(ramp, NOW) == 0
    assert next_at(ramp) == after(1 / FLOOR_PER_S)
    assert allowed(ramp, next_at(ramp)) == 1


@given(
    rate=st.floats(FLOOR_PER_S, 500),
    pauses=st.lists(st.floats(0, 3), min_size=1, max_size=60),
)
def test_no_window_gets_more_than_its_rate_and_one_burst(rate: float, pauses: list[float]) -> None:
    """Whenever it is asked, and however long nobody asked."""
    ramp, at = dataclasses.replace(beginning(NOW), rate=rate), 0.0
    taken: list[tuple[float, int]] = []
    for pause in pauses:
        at += pause
        tries = allowed(ramp, after(at))
        ramp = spent(ramp, after(at), tries)
        taken.append((at, tries))
    for index, (began, _) in enumerate(taken):
        for ended, _ in taken[index:]:
            tries = sum(count for moment, count in taken if began <= moment <= ended)
            assert tries <= rate * (ended - began) + max(1.0, rate * BURST_S) + 1e-3


def test_a_setting_may_keep_it_slower_than_its_beginning() -> None:
    """One a second at most: from the second try on, for the first is given out before anything is heard."""
    ramp = spent(beginning(NOW), NOW, 1)
    ramp = heard(ramp, NOW, good=0, bad=0, most_per_s=1.0)
    assert (ramp.rate, allowed(ramp, after(0.9)), allowed(ramp, after(1.0))) == (1.0, 0, 1)


def test_a_stage_is_as_long_as_it_says() -> None:
    """Success before its end changes nothing."""
    ramp = heard(beginning(NOW), after(STAGE_S - 0.01), good=100, bad=0, most_per_s=MOST)
    assert ramp.rate == FLOOR_PER_S
    assert heard(ramp, after(STAGE_S), good=0, bad=0, most_per_s=MOST).rate == 2 * FLOOR_PER_S


def test_a_clock_that_was_wrong_stops_nobody_for_long() -> None:
    """A worker an hour ahead has given out an hour's tries, it seems; some seconds ahead are the usual difference."""
    wrong = dataclasses.replace(beginning(after(3600)), rate=80.0)
    now = heard(wrong, NOW, good=0, bad=0, most_per_s=MOST)
    assert (now.rate, allowed(now, NOW), now.restarted_at) == (FLOOR_PER_S, 1, NOW)
    usual = dataclasses.replace(beginning(after(5)), rate=80.0)
    assert heard(usual, NOW, good=0, bad=0, most_per_s=MOST).rate == 80.0
