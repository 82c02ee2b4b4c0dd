"""A day of tries, and no more: pure."""

from __future__ import annotations

import datetime as dt
import itertools

import pytest

from router.webhooks_out_retries import LEAST_TRIES, TRIED_FOR, again

BEGAN = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)


@pytest.mark.parametrize("chance", [0.0, 0.3, 0.5, 1.0])
def test_the_last_try_of_an_event_is_at_the_end_of_its_day(chance: float) -> None:
    """Neither earlier nor later, however its waits fall."""
    at, last = BEGAN, BEGAN
    for failures in itertools.count(1):
        following = again(BEGAN, failures, at, chance)
        if following is None:
            break
        assert following > at
        at = last = following
    assert last == BEGAN + TRIED_FOR


def test_what_nobody_tried_for_a_day_is_tried_often_enough_all_the_same() -> None:
    """With its waits between: a worker that comes back does not knock without a pause."""
    late = BEGAN + 2 * TRIED_FOR
    following = again(BEGAN, LEAST_TRIES - 1, late, 0.5)
    assert following is not None
    assert following - late > dt.timedelta(minutes=1)
    assert again(BEGAN, LEAST_TRIES, late, 0.5) is None
