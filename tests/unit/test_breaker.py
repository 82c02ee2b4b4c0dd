"""One circuit in one process: when it trips, what it lets through, and what it follows."""

from __future__ import annotations

import datetime as dt
import functools
import sys
import threading
from collections.abc import Iterable, Iterator

import pytest

from router.breaker import Breaker, BreakerSettings, Permit, State, Transition, following
from tests.fakes.threads import together

START = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
SETTINGS = BreakerSettings(window_calls=20, minimum_calls=10, failure_rate=0.5)


def a_breaker(settings: BreakerSettings = SETTINGS) -> Breaker:
    return Breaker("stripe", settings, now=START)


def calls(breaker: Breaker, results: str, *, now: dt.datetime = START) -> list[Transition]:
    """Make one call a letter, `F` for a failure and `s` for a success; the transitions that they caused."""
    caused = []
    for letter in results:
        permit = breaker.admit()
        assert permit is not None, "the circuit is not closed"
        transition = breaker.record(permit, failed=letter == "F", now=now, actor="me")
        if transition is not None:
            caused.append(transition)
    return caused


def a_transition(version: int, state: State, *, seconds: float = 0) -> Transition:
    return Transition("stripe", version, state, START + dt.timedelta(seconds=seconds), "other", "why")


@pytest.fixture
def _eager_threads() -> Iterator[None]:
    """Threads are switched a thousand times as often as usual, so that a race shows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


# ---------------------------------------------------------------- tripping


def test_fewer_calls_than_the_minimum_never_trip() -> None:
    """Nine failures of nine say too little; the tenth call is what trips."""
    breaker = a_breaker()
    assert calls(breaker, "F" * 9) == []
    assert breaker.snapshot().state is State.CLOSED
    (transition,) = calls(breaker, "F")
    assert transition.state is State.OPEN


@pytest.mark.parametrize(("results", "trips"), [("sssssFFFFF", True), ("ssssssFFFF", False), ("sssssFFFFs", False)])
def test_a_rate_equal_to_the_threshold_trips_and_one_below_it_does_not(results: str, trips: bool) -> None:
    """Five failures of ten are half, four are not."""
    assert bool(calls(a_breaker(), results)) is trips


def test_a_success_that_completes_the_minimum_is_judged_as_well() -> None:
    """Half of the first ten failed; that the tenth itself went well does not hide it."""
    breaker = a_breaker()
    assert calls(breaker, "FFFFFssss") == []
    (transition,) = calls(breaker, "s")
    assert transition.reason == "5 of the last 10 calls failed"


def test_a_minimum_above_the_window_is_capped_by_it() -> None:
    """With a window of four a minimum of ten could never be reached; four calls are enough."""
    breaker = a_breaker(BreakerSettings(window_calls=4, minimum_calls=10))
    assert calls(breaker, "FFF") == []
    assert len(calls(breaker, "F")) == 1


def test_only_the_last_calls_count() -> None:
    """Failures leave the window at its far end, so nine in twenty is where a steady 45% stays."""
    breaker = a_breaker()
    assert calls(breaker, ("s" * 11 + "F" * 9) * 5) == []
    assert (breaker.snapshot().window.calls, breaker.snapshot().window.failures) == (20, 9)


def test_a_full_outage_after_a_long_calm_trips_at_the_tenth_failure() -> None:
    """The window holds twenty successes; half of it must be replaced."""
    breaker = a_breaker()
    assert calls(breaker, "s" * 500 + "F" * 9) == []
    assert len(calls(breaker, "F")) == 1


def test_the_transition_says_what_the_window_held_and_is_in_force_at_once() -> None:
    """Version, moment, process, reason and figures are the audit record."""
    breaker = a_breaker()
    later = START + dt.timedelta(seconds=9)
    (transition,) = calls(breaker, "ssssFFFFFF", now=later)
    assert (transition.version, transition.state, transition.at, transition.actor) == (1, State.OPEN, later, "me")
    assert transition.evidence == {"calls": 10, "failures": 6, "failure_rate": 0.6}
    snapshot = breaker.snapshot()
    assert (snapshot.state, snapshot.since, snapshot.version, snapshot.last) == (State.OPEN, later, 1, transition)
    assert breaker.admit() is None


# ---------------------------------------------------------------- late answers


def test_a_late_answer_changes_nothing_while_the_circuit_is_open() -> None:
    """Neither does a late success close, nor a late failure move the moment it opened."""
    breaker = a_breaker()
    late = [breaker.admit() for _ in range(2)]
    calls(breaker, "F" * 10)
    before = breaker.snapshot()
    for permit, failed in zip(late, (True, False), strict=True):
        assert permit is not None
        assert breaker.record(permit, failed=failed, now=START + dt.timedelta(seconds=5), actor="me") is None
    assert breaker.snapshot() == before


def test_an_answer_from_before_the_outage_does_not_count_after_it() -> None:
    """Calls that hung through the outage all fail at its end; the circuit that closed meanwhile stays closed."""
    breaker = a_breaker()
    late = [breaker.admit() for _ in range(30)]
    calls(breaker, "F" * 10)
    breaker.adopt(a_transition(2, State.HALF_OPEN))
    breaker.adopt(a_transition(3, State.CLOSED))
    for permit in late:
        assert permit is not None
        assert breaker.record(permit, failed=True, now=START, actor="me") is None
    assert breaker.snapshot().state is State.CLOSED
    assert breaker.snapshot().window.calls == 0


@pytest.mark.parametrize("state", [State.OPEN, State.HALF_OPEN])
def test_no_payment_is_let_through_unless_the_circuit_is_closed(state: State) -> None:
    """Half-open is for synthetic probes, not for customers."""
    breaker = a_breaker()
    breaker.adopt(a_transition(1, state))
    assert breaker.admit() is None
    breaker.adopt(a_transition(2, State.CLOSED))
    assert isinstance(breaker.admit(), Permit)


# ---------------------------------------------------------------- following the ledger


def test_a_newer_transition_is_followed() -> None:
    """Versions may be skipped: a process that slept sees only the last."""
    breaker = a_breaker()
    assert breaker.adopt(a_transition(7, State.OPEN, seconds=3))
    assert breaker.snapshot().version == 7
    assert breaker.snapshot().since == START + dt.timedelta(seconds=3)


def test_an_older_transition_changes_nothing() -> None:
    """A delayed "close" loses against a newer "open"."""
    breaker = a_breaker()
    breaker.adopt(a_transition(3, State.OPEN))
    before = breaker.snapshot()
    assert not breaker.adopt(a_transition(2, State.CLOSED))
    assert breaker.snapshot() == before


def test_the_same_transition_again_changes_nothing() -> None:
    """It is read five times a second; a window must not be emptied each time."""
    breaker = a_breaker()
    closed = a_transition(2, State.CLOSED)
    assert breaker.adopt(closed)
    calls(breaker, "FFs")
    assert not breaker.adopt(closed)
    assert breaker.snapshot().window.calls == 3


def test_another_process_with_the_same_version_wins_when_it_was_written() -> None:
    """What the ledger holds under our version is the truth, even if we had decided otherwise."""
    breaker = a_breaker()
    calls(breaker, "F" * 10)
    assert breaker.adopt(a_transition(1, State.CLOSED))
    assert breaker.snapshot().state is State.CLOSED


def test_the_written_opening_is_followed_even_where_it_agrees_with_ours_in_version_and_state() -> None:
    """Two processes opened at once; the one that lost must name the incident that the ledger names."""
    breaker = a_breaker()
    (ours,) = calls(breaker, "F" * 10)
    theirs = Transition("stripe", ours.version, State.OPEN, START, "other", "why", incident="inc_other")
    assert breaker.adopt(theirs)
    assert breaker.snapshot().last == theirs
    assert not breaker.adopt(theirs)


def test_closing_empties_the_window() -> None:
    """Yesterday's failures say nothing of today: it takes the full minimum to open again."""
    breaker = a_breaker()
    calls(breaker, "F" * 10)
    assert breaker.snapshot().window.failures == 10
    breaker.adopt(a_transition(3, State.CLOSED))
    assert (breaker.snapshot().window.calls, breaker.snapshot().window.failures) == (0, 0)
    assert breaker.snapshot().window.failure_rate is None
    assert calls(breaker, "F" * 9) == []
    assert calls(breaker, "F")[0].version == 4


# ---------------------------------------------------------------- waits and incidents


def test_the_wait_grows_with_every_failed_round_up_to_its_cap() -> None:
    """1, 2, 4, 8 and then ten seconds for ever, a million failed rounds included."""
    settings = BreakerSettings(open_wait_s=1.0, wait_multiplier=2.0, maximum_wait_s=10.0)
    assert [settings.wait_s(rounds) for rounds in (0, 1, 2, 3, 4, 5, 10**6)] == [1, 2, 4, 8, 10, 10, 10]


def test_a_first_wait_longer_than_the_cap_is_kept() -> None:
    """Who sets a minute means a minute, whatever the default cap is."""
    assert [BreakerSettings(open_wait_s=60.0).wait_s(rounds) for rounds in (0, 5)] == [60, 60]


def after(minutes: float) -> dt.datetime:
    return START + dt.timedelta(minutes=minutes)


def chain(steps: Iterable[tuple[float, State]]) -> list[Transition]:
    """Transitions at these minutes, each following the one before."""
    made: list[Transition] = []
    for minutes, state in steps:
        last = made[-1] if made else None
        made.append(following(last, state, provider="stripe", at=after(minutes), actor="me", reason="why"))
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


def test_an_incident_never_ends_while_the_circuit_is_not_closed() -> None:
    """An outage of a day is one incident, with a day of open time."""
    made = chain([(0, State.OPEN), (600, State.HALF_OPEN), (600.1, State.OPEN), (1440, State.HALF_OPEN)])
    assert made[-1].incident == "inc_stripe_1"
    assert made[-1].open_time == dt.timedelta(days=1)


def test_two_processes_that_saw_the_same_name_the_same_incident() -> None:
    """Whoever writes first, the other's copy is the same but for who and when."""
    first, second = a_breaker(), a_breaker()
    assert calls(first, "F" * 10)[0].incident == calls(second, "s" * 5 + "F" * 5)[0].incident == "inc_stripe_1"


# ---------------------------------------------------------------- threads


@pytest.mark.usefixtures("_eager_threads")
def test_thirty_two_threads_that_cross_the_threshold_together_make_one_transition() -> None:
    """Each has its permit before any answer is in; one opens the circuit, the others are late."""
    for _ in range(20):
        breaker = a_breaker()
        permits = [breaker.admit() for _ in range(32)]
        made: list[Transition] = []

        def answer(permit: Permit | None, breaker: Breaker = breaker, made: list[Transition] = made) -> None:
            assert permit is not None
            transition = breaker.record(permit, failed=True, now=START, actor="me")
            if transition is not None:
                made.append(transition)

        together([functools.partial(answer, permit) for permit in permits])
        assert [each.version for each in made] == [1]
        assert breaker.snapshot().window.calls == 10


@pytest.mark.usefixtures("_eager_threads")
def test_a_snapshot_is_never_torn() -> None:
    """While one thread opens and closes and others record, state, version, moment and window always agree."""
    breaker = a_breaker()
    done = threading.Event()

    def churn() -> None:
        for version in range(1, 1500):
            breaker.adopt(a_transition(version, (State.CLOSED, State.OPEN)[version % 2], seconds=version))
        done.set()

    def record() -> None:
        while not done.is_set():
            permit = breaker.admit()
            if permit is not None:
                breaker.record(permit, failed=False, now=START, actor="me")

    threads = [threading.Thread(target=churn), *(threading.Thread(target=record) for _ in range(3))]
    for thread in threads:
        thread.start()
    while not done.is_set():
        seen = breaker.snapshot()
        if seen.last is not None:
            assert (seen.state, seen.since, seen.version) == (seen.last.state, seen.last.at, seen.last.version)
            assert seen.since == START + dt.timedelta(seconds=seen.version)
        assert 0 <= seen.window.failures <= seen.window.calls <= 20
    for thread in threads:
        thread.join(10)
