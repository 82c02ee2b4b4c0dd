"""Whether a payment may wait, and until when."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from router.parked_terms import LONGEST_WAIT_S, may_wait, next_try
from tests.fakes.house import an_order

BROWSER = {"user_agent": "Mozilla/5.0"}
AT = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("said", "default", "waits"),
    [
        ({}, "park", True),
        ({}, "fail", False),
        ({"when_unavailable": "park"}, "fail", True),
        ({"when_unavailable": "fail"}, "park", False),
        # Her bank asks for her, and she is gone.
        ({"browser": BROWSER}, "park", False),
        ({"browser": BROWSER, "when_unavailable": "park"}, "park", True),
        ({"browser": BROWSER, "initiator": "merchant"}, "park", True),
        ({"browser": BROWSER, "initiator": "merchant"}, "fail", False),
    ],
)
def test_checkouts_word_wins_then_the_session_then_the_merchant(
    said: dict[str, Any], default: Any, waits: bool
) -> None:
    assert may_wait(an_order(**said), default) is waits


def test_the_waits_double_up_to_ten_minutes() -> None:
    """By how long it has waited, so that no counter is needed that a crash could lose."""
    now, waits = AT, []
    for _ in range(9):
        again = next_try(now, AT, 15.0, 0.0)
        waits.append((again - now).total_seconds())
        now = again
    assert waits == [15, 15, 30, 60, 120, 240, 480, LONGEST_WAIT_S, LONGEST_WAIT_S]


def test_jitter_takes_up_to_half_of_it_away() -> None:
    """Never more: what is down is not asked more often than twice as often."""
    at = AT + dt.timedelta(seconds=100)
    assert [(next_try(at, AT, 15.0, each) - at).total_seconds() for each in (0.0, 0.5, 0.999999)] == pytest.approx(
        [100, 75, 50], abs=0.01
    )
