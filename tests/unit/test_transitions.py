"""Transitions: versions, incidents and their open time, and what is refused."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any

import pytest

from router.transitions import NOT_OPEN_TIME, RELEASED, State, Transition, following

START = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


def after(minutes: float) -> dt.datetime:
    return START + dt.timedelta(minutes=minutes)


def step(last: Transition | None, minutes: float, state: State, **fields: Any) -> Transition:
    fields.setdefault("reason", "why")
    return following(last, state, provider="stripe", at=after(minutes), actor="me", **fields)


def chain(steps: Iterable[tuple[float, State]]) -> list[Transition]:
    """Transitions at these minutes, each following the one before."""
    made: list[Transition] = []
    for minutes, state in steps:
        made.append(step(made[-1] if made else None, minutes, state))
    return made


def test_an_incident_goes_on_through_short_closings_and_its_open_time_adds_up() -> None:
    """Open 2 minutes, closed 4:59, open again: one incident, and only the time not closed counts."""
    made = chain([(0, State.OPEN), (1, State.HALF_OPEN), (2, State.CLOSED), (6.98, State.OPEN), (8, State.HALF_OPEN)])
    assert {each.incident for each in made} == {"inc_stripe_1"}
    assert [each.version for each in made] == [1, 2, 3, 4, 5]
    assert made[2].open_time_at(after(60)) == dt.timedelta(minutes=2)
    assert made[3].open_time == dt.timedelta(minutes=2)
    assert made[4].open_time_at(after(9)) == dt.timedelta(minutes=2) + (after(9) - after(6.98))


def test_five_minutes_of_closed_end_an_incident() -> None:
    """The next opening is a new one, from zero; exactly five minutes are enough."""
    made = chain([(0, State.OPEN), (1, State.CLOSED), (6, State.OPEN)])
    assert [each.incident for each in made] == ["inc_stripe_1", "inc_stripe_1", "inc_stripe_3"]
    assert made[2].open_time == dt.timedelta()


def test_a_suspect_mark_does_not_make_an_incident_last() -> None:
    """Closed for five minutes, by when it closed and not by when it was marked."""
    closed = chain([(0, State.OPEN), (1, State.CLOSED)])[-1]
    marked = step(closed, 4, State.CLOSED, suspect=True)
    assert (marked.incident, marked.began, marked.suspect) == ("inc_stripe_1", after(1), True)
    cleared = step(marked, 5.5, State.CLOSED)
    assert cleared.began == after(1)
    assert step(cleared, 6, State.OPEN).incident == "inc_stripe_5"


def test_a_mark_after_the_incident_belongs_to_none() -> None:
    """Nor is being suspect an incident of its own."""
    closed = chain([(0, State.OPEN), (1, State.CLOSED)])[-1]
    assert step(closed, 60, State.CLOSED, suspect=True).incident is None
    assert step(None, 60, State.CLOSED, suspect=True).incident is None


def test_an_incident_never_ends_while_the_circuit_is_not_closed() -> None:
    """An outage of a day is one incident, with a day of open time."""
    made = chain([(0, State.OPEN), (600, State.HALF_OPEN), (600.1, State.OPEN), (1440, State.HALF_OPEN)])
    assert made[-1].incident == "inc_stripe_1"
    assert made[-1].open_time == dt.timedelta(days=1)


def test_slow_start_is_open_time() -> None:
    """Payments are still kept away, in part."""
    made = chain([(0, State.OPEN), (1, State.HALF_OPEN), (2, State.SLOW_START), (3, State.CLOSED)])
    assert {each.incident for each in made} == {"inc_stripe_1"}
    assert made[-1].open_time_at(after(99)) == dt.timedelta(minutes=3)


@pytest.mark.parametrize("state", [State.SLOW_START, State.FORCED_OPEN, State.BYPASS, State.METRICS_ONLY])
def test_only_open_begins_an_incident_and_every_other_state_carries_it_on(state: State) -> None:
    """An operator's override of a healthy provider is no incident; during one it belongs to it."""
    assert step(None, 0, state).incident is None
    opened = step(None, 0, State.OPEN)
    assert step(opened, 10, state).incident == "inc_stripe_1"


def test_a_circuit_that_is_released_begins_no_incident_before_a_probe_has_failed() -> None:
    """Forced open is no outage, nor is the moment in which nobody knows yet."""
    forced = step(None, 0, State.FORCED_OPEN)
    released = step(forced, 10, State.OPEN)
    probed = step(released, 11, State.HALF_OPEN)
    assert (released.incident, probed.incident) == (None, None)
    assert step(probed, 12, State.SLOW_START).incident is None
    failed = step(probed, 12, State.OPEN)
    assert (failed.incident, failed.open_time) == ("inc_stripe_4", dt.timedelta())


@pytest.mark.parametrize("state", State)
def test_only_states_that_keep_payments_away_by_themselves_add_open_time(state: State) -> None:
    """Closed, bypass and metrics-only let all through; forced open is an operator's word, and no outage: planned work
    of an hour, soon after a short one, must not move the flag when it is over."""
    transition = Transition("stripe", 3, state, START, "me", "why", open_time=HOUR)
    assert transition.open_time_at(START + HOUR) == (HOUR if state in NOT_OPEN_TIME else 2 * HOUR)
    assert {State.CLOSED, State.FORCED_OPEN, State.BYPASS, State.METRICS_ONLY} == NOT_OPEN_TIME


def test_a_release_adds_no_open_time_to_its_incident_before_a_probe_has_failed() -> None:
    """Open and half-open after an order, it is not failing but asked; with a probe that fails its time begins."""
    short = chain([(0, State.OPEN), (1, State.HALF_OPEN), (2, State.CLOSED), (3, State.FORCED_OPEN)])[-1]
    released = step(short, 60, State.OPEN, evidence={RELEASED: "forced_open"})
    probing = step(released, 61, State.HALF_OPEN)
    failed = step(probing, 62, State.OPEN)
    again = step(failed, 63, State.HALF_OPEN)
    made = [released, probing, failed, again]
    assert {each.incident for each in made} == {"inc_stripe_1"}
    assert [each.open_time for each in made] == [after(2) - START] * 3 + [after(3) - START]
    assert [each.open_time_at(each.at + HOUR) - each.open_time for each in made] == [HOUR * 0] * 2 + [HOUR] * 2
    assert [(each.is_released, each.is_failing) for each in made] == [(True, False)] * 2 + [(False, True)] * 2
    assert not short.is_failing
    assert not step(probing, 62, State.SLOW_START).is_released


def test_a_wall_clock_that_was_set_back_takes_no_open_time_away() -> None:
    """A minute back is no minute less of outage."""
    transition = Transition("stripe", 3, State.OPEN, START, "me", "why", open_time=HOUR)
    assert transition.open_time_at(START - dt.timedelta(seconds=60)) == HOUR


def test_closed_straight_to_half_open_is_refused() -> None:
    """There is nothing to probe for; from open it is the usual way."""
    closed = chain([(0, State.OPEN), (1, State.CLOSED)])[-1]
    for last in (None, closed):
        with pytest.raises(ValueError, match="nothing to probe for"):
            step(last, 2, State.HALF_OPEN)
    assert step(step(None, 0, State.OPEN), 2, State.HALF_OPEN).version == 2


@pytest.mark.parametrize("state", State)
def test_there_is_no_event_for_a_self_transition(state: State) -> None:
    """What changes nothing is no row."""
    last = None if state is State.CLOSED else Transition("stripe", 1, state, START, "me", "why")
    with pytest.raises(ValueError, match=f"{state.value} already"):
        step(last, 1, state)


def test_a_stage_of_slow_start_is_a_row_and_keeps_its_beginning() -> None:
    """A tenth, then a quarter."""
    first = step(step(None, 0, State.OPEN), 1, State.SLOW_START, share=0.1)
    second = step(first, 2, State.SLOW_START, share=0.25)
    assert (second.share, second.at, second.began, second.incident) == (0.25, after(2), after(1), "inc_stripe_1")
    assert second.open_time_at(after(3)) == dt.timedelta(minutes=3)
    third = step(second, 3, State.SLOW_START, share=0.5)
    assert third.began == after(1)
    with pytest.raises(ValueError, match="slow_start already"):
        step(third, 4, State.SLOW_START, share=0.5)


@pytest.mark.parametrize("state", [State.FORCED_OPEN, State.BYPASS, State.METRICS_ONLY])
def test_an_overrides_end_or_reason_may_change(state: State) -> None:
    """It is the same override; who changed it is on record."""
    first = step(None, 0, state, until=after(10), reason="deploy")
    longer = step(first, 5, state, until=after(20), reason="deploy")
    assert (longer.until, longer.began) == (after(20), after(0))
    assert step(longer, 6, state, until=after(20), reason="deploy went wrong").began == after(0)


@pytest.mark.parametrize("state", [state for state in State if state not in (State.CLOSED, State.HALF_OPEN)])
def test_only_a_closed_circuit_is_suspect(state: State) -> None:
    """Any other state says it all."""
    marked = step(None, 0, State.CLOSED, suspect=True)
    assert marked.suspect
    assert not step(marked, 1, state, suspect=True).suspect


def test_the_failed_round_count_is_reset_on_close() -> None:
    """The next wait is the first one again."""
    opened = step(step(None, 0, State.OPEN), 1, State.HALF_OPEN, failed_rounds=7)
    assert step(opened, 2, State.CLOSED).failed_rounds == 0
