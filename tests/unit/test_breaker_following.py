"""A circuit that several processes share: what one process takes over from the ledger, and what it keeps."""

from __future__ import annotations

import datetime as dt

import pytest

from router.breaker import Verdict
from router.transitions import State, Transition
from tests.fakes.one_circuit import START, Circuit


def test_a_newer_transition_is_followed() -> None:
    """Versions may be skipped: a process that slept sees only the last."""
    circuit = Circuit()
    circuit.wait(3)
    assert circuit.adopt(State.OPEN, 7)
    snapshot = circuit.breaker.snapshot()
    assert (snapshot.version, snapshot.since) == (7, START + dt.timedelta(seconds=3))


def test_a_process_that_joins_while_the_circuit_is_open_neither_closes_it_nor_restarts_its_wait() -> None:
    """It opened a minute before this process was born, and that is when its wait began."""
    circuit = Circuit()
    opened = Transition("stripe", 3, State.OPEN, START - dt.timedelta(minutes=1), "other", "why", failed_rounds=2)
    assert circuit.breaker.adopt(opened)
    snapshot = circuit.breaker.snapshot()
    assert (snapshot.state, snapshot.since, snapshot.failed_rounds) == (State.OPEN, opened.at, 2)
    assert circuit.breaker.admit(circuit.now) is None


@pytest.mark.parametrize("version", [1, 2])
def test_a_delayed_close_with_an_old_version_loses_against_a_newer_open(version: int) -> None:
    """Whatever order they arrive in, the higher version stands."""
    circuit = Circuit()
    circuit.adopt(State.OPEN, 3)
    before = circuit.breaker.snapshot()
    assert not circuit.adopt(State.CLOSED, version)
    assert circuit.breaker.snapshot() == before


def test_the_same_transition_again_changes_nothing() -> None:
    """It is read five times a second; a window must not be emptied each time."""
    circuit = Circuit()
    closed = Transition("stripe", 2, State.CLOSED, START, "other", "why")
    assert circuit.breaker.adopt(closed)
    circuit.calls("FFs")
    assert not circuit.breaker.adopt(closed)
    assert circuit.figures == (3, 2)


def test_our_own_transition_read_back_changes_nothing() -> None:
    """It is in force since it was decided."""
    circuit = Circuit()
    (ours,) = circuit.calls("F" * 10)
    before = circuit.breaker.snapshot()
    assert not circuit.breaker.adopt(ours)
    assert circuit.breaker.snapshot() == before


def test_the_written_opening_is_followed_even_where_it_agrees_with_ours_in_version_and_state() -> None:
    """Two processes opened at once; the one that lost must name the incident that the ledger names."""
    circuit = Circuit()
    (ours,) = circuit.calls("F" * 10)
    theirs = Transition("stripe", ours.version, State.OPEN, START, "other", "why", incident="inc_other")
    assert circuit.breaker.adopt(theirs)
    assert circuit.breaker.snapshot().last == theirs
    assert not circuit.breaker.adopt(theirs)


def test_another_decision_under_our_version_wins_when_it_was_written() -> None:
    """An operator bypassed the circuit while we opened it; the ledger holds the bypass."""
    circuit = Circuit()
    circuit.calls("F" * 10)
    assert circuit.adopt(State.BYPASS, 1)
    assert circuit.state is State.BYPASS


def test_two_processes_that_saw_the_same_name_the_same_incident() -> None:
    """Whoever writes first, the other's copy is the same but for who and when."""
    first, second = Circuit(), Circuit()
    assert first.calls("F" * 10)[0].incident == second.calls("s" * 5 + "F" * 5)[0].incident == "inc_stripe_1"


@pytest.mark.parametrize("suspect", [True, False])
def test_a_suspect_mark_changes_neither_the_window_nor_the_generation(suspect: bool) -> None:
    """Calls in flight are still this circuit's, and the nine failures so far still count."""
    circuit = Circuit()
    if not suspect:
        circuit.adopt(State.CLOSED, suspect=True)
    circuit.calls("F" * 9)
    permit = circuit.breaker.admit(circuit.now)
    circuit.wait(1)
    assert circuit.adopt(State.CLOSED, suspect=suspect, since=circuit.breaker.snapshot().since)
    assert (circuit.breaker.snapshot().suspect, circuit.figures) == (suspect, (9, 9))
    assert permit is not None
    transition = circuit.breaker.record(permit, Verdict.UNREACHABLE, circuit.now)
    assert transition is not None
    assert not circuit.breaker.snapshot().suspect


def test_marks_that_a_process_slept_through_do_not_empty_its_window() -> None:
    """The state began when it began, three versions ago."""
    circuit = Circuit()
    circuit.adopt(State.CLOSED, 4)
    circuit.calls("FF")
    circuit.adopt(State.CLOSED, 7, suspect=True, since=circuit.breaker.snapshot().since)
    assert circuit.figures == (2, 2)


def test_an_outage_that_a_process_slept_through_empties_its_window() -> None:
    """Closed before and closed now, but it was open in between: another generation."""
    circuit = Circuit()
    circuit.adopt(State.CLOSED, 4)
    circuit.calls("FF")
    late = circuit.breaker.admit(circuit.now)
    circuit.wait(60)
    circuit.adopt(State.CLOSED, 7)
    assert late is not None
    circuit.breaker.record(late, Verdict.UNREACHABLE, circuit.now)
    assert circuit.figures == (0, 0)


@pytest.mark.parametrize("marks", [1, 2])
def test_a_suspect_mark_written_in_place_of_our_opening_does_not_undo_it(marks: int) -> None:
    """Both had seen the same version; what made us open still stands, and opens at the next tick."""
    circuit = Circuit()
    circuit.adopt(State.CLOSED, 4)
    since = circuit.breaker.snapshot().since
    circuit.wait(5)
    (ours,) = circuit.calls("F" * 10)
    assert ours.version == 5
    circuit.adopt(State.CLOSED, 4 + marks, suspect=marks == 1, since=since)
    assert (circuit.state, circuit.figures) == (State.CLOSED, (10, 10))
    again = circuit.breaker.tick(circuit.now)
    assert again is not None
    assert (again.state, again.version) == (State.OPEN, 5 + marks)


def test_a_suspect_mark_as_the_first_row_of_all_does_not_undo_an_opening_either() -> None:
    """The same where nothing was written before."""
    circuit = Circuit()
    circuit.calls("F" * 10)
    circuit.adopt(State.CLOSED, 1, suspect=True)
    again = circuit.breaker.tick(circuit.now)
    assert again is not None
    assert again.version == 2


def test_calls_go_on_with_the_local_window_while_nothing_is_heard_of_the_others() -> None:
    """A process alone opens by what it sees, and takes the shared state over when there is one again."""
    circuit = Circuit()
    (ours,) = circuit.calls("sssssF" + "F" * 4)
    assert circuit.state is State.OPEN
    assert circuit.adopt(State.SLOW_START, ours.version + 4, share=0.25)
    assert (circuit.state, circuit.breaker.snapshot().share) == (State.SLOW_START, 0.25)
