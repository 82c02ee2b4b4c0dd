"""What a worker may ask of a provider whose circuit is open."""

from __future__ import annotations

from router.trickle import Trickle
from tests.fakes.threads import eager, together


def test_nothing_at_once_and_then_one_call_a_minute() -> None:
    """What has just opened is broken; what stays open is asked now and then."""
    trickle = Trickle()
    asked = [now for now in range(200) if trickle.take(float(now), "inc_1")]
    assert asked == [60, 120, 180]


def test_a_new_incident_begins_with_nothing() -> None:
    """Whatever the one before had left."""
    trickle = Trickle()
    assert [trickle.take(now, "inc_1") for now in (0.0, 60.0)] == [False, True]
    assert [trickle.take(now, "inc_2") for now in (500.0, 559.0, 560.0)] == [False, False, True]


def test_one_call_and_not_one_more_whoever_asks() -> None:
    """Thirty-two threads at the instant the minute is over."""
    trickle = Trickle()
    trickle.take(0.0, None)
    taken: list[bool] = []
    with eager():
        together([lambda: taken.append(trickle.take(60.0, None))] * 32)
    assert (len(taken), sum(taken)) == (32, 1)
