"""One circuit in one process: what it counts, when it trips, and what it lets through."""

from __future__ import annotations

import datetime as dt
import sys
import threading

import pytest

from router.breaker import Breaker, BreakerSettings, Permit, Verdict
from router.drill.run import SETTLED_WITHIN_S
from router.transitions import ADMITTING, State
from router.windows import Counts, Thresholds
from tests.fakes.one_circuit import START, Circuit

# ---------------------------------------------------------------- window


def test_nothing_trips_below_the_minimum_number_of_calls() -> None:
    """Nine failures of nine say too little; the tenth call is what trips."""
    circuit = Circuit()
    assert circuit.calls("F" * 9) == []
    assert circuit.state is State.CLOSED
    (transition,) = circuit.calls("F")
    assert transition.state is State.OPEN


def test_nothing_trips_below_the_minimum_number_of_calls_of_a_time_window() -> None:
    """The same, where the window is ten seconds."""
    circuit = Circuit(window_s=10.0)
    assert circuit.calls("F" * 9) == []
    assert len(circuit.calls("F")) == 1


def test_a_minimum_larger_than_a_count_window_is_capped_by_it() -> None:
    """With a window of four a minimum of ten could never be reached; four calls are enough."""
    circuit = Circuit(window_calls=4, minimum_calls=10)
    assert circuit.calls("FFF") == []
    assert len(circuit.calls("F")) == 1


def test_a_minimum_larger_than_the_window_of_slow_calls_is_capped_by_it() -> None:
    """The window of slow calls has its own size, and the same minimum."""
    circuit = Circuit(slow_window_calls=4, minimum_calls=10)
    assert circuit.calls("sss", took_s=4.0) == []
    assert len(circuit.calls("s", took_s=4.0)) == 1


@pytest.mark.parametrize(("results", "trips"), [("sssssFFFFF", True), ("ssssssFFFF", False), ("sssssFFFFs", False)])
def test_a_rate_equal_to_the_threshold_trips_and_one_below_it_does_not(results: str, trips: bool) -> None:
    """Five failures of ten are half, four are not."""
    assert bool(Circuit().calls(results)) is trips


@pytest.mark.parametrize("failures", [1, 3, 7, 13, 29, 57, 93])
def test_a_rate_equal_to_the_threshold_trips_whatever_its_binary_fraction(failures: int) -> None:
    """0.07 × 100 is a little more than 7 in floating point; seven of a hundred trip all the same."""
    circuit = Circuit(window_calls=100, minimum_calls=100, failure_rate=failures / 100)
    assert circuit.calls("F" * (failures - 1) + "s" * (100 - failures)) == []
    assert len(circuit.calls("F")) == 1


def test_the_evaluation_also_runs_on_a_success_that_completes_the_minimum() -> None:
    """Half of the first ten failed; that the tenth itself went well does not hide it."""
    circuit = Circuit()
    assert circuit.calls("FFFFFssss") == []
    (transition,) = circuit.calls("s")
    assert transition.reason == "5 of the last 10 calls failed"


def test_a_window_by_count_holds_the_last_calls() -> None:
    """Failures leave it at its far end, so nine in twenty is where a steady 45% stays."""
    circuit = Circuit()
    assert circuit.calls(("s" * 11 + "F" * 9) * 5) == []
    assert circuit.figures == (20, 9)


def test_a_full_outage_after_a_long_calm_trips_at_the_tenth_failure() -> None:
    """The window holds twenty successes; half of it must be replaced."""
    circuit = Circuit()
    assert circuit.calls("s" * 500 + "F" * 9) == []
    assert len(circuit.calls("F")) == 1


def test_optionally_consecutive_failures_trip_before_the_minimum() -> None:
    """Three in a row, where three are set; a success between them begins anew."""
    circuit = Circuit(consecutive_failures=3)
    assert circuit.calls("FFsFF") == []
    (transition,) = circuit.calls("U")
    assert transition.reason == "3 failures in a row"
    assert Circuit().calls("FFFFF") == []


@pytest.mark.parametrize("between", ["i", "C"])
def test_what_counts_nowhere_does_not_end_a_run_of_failures(between: str) -> None:
    """Neither an ignored outcome nor a refusal of our credentials says that the provider works."""
    assert len(Circuit(consecutive_failures=3).calls(f"FF{between}F")) == 1


def test_unreachable_is_counted_apart_from_a_provider_error() -> None:
    """Both are failures; the figures tell which."""
    circuit = Circuit()
    (transition,) = circuit.calls("ssssFFUUUU")
    assert (transition.evidence["failures"], transition.evidence["unreachable"]) == (6, 4)
    assert circuit.breaker.snapshot().window.unreachable == 4


# ---------------------------------------------------------------- slow calls


def test_a_slow_call_rate_trips_on_its_own() -> None:
    """Nothing failed; three of ten took longer than three seconds."""
    circuit = Circuit()
    assert circuit.calls("ssssss", took_s=0.2) + circuit.calls("sss", took_s=3.1) == []
    (transition,) = circuit.calls("s", took_s=0.2)
    assert transition.reason == "3 of the last 10 calls took longer than 3 s"
    assert (transition.evidence["slow"], transition.evidence["slow_rate"]) == (3, 0.3)
    assert transition.evidence["failures"] == 0


def test_a_call_of_exactly_the_slow_threshold_is_not_slow() -> None:
    """Slow is past it."""
    circuit = Circuit()
    assert circuit.calls("s" * 10, took_s=3.0) == []
    assert circuit.slow_figures == (10, 0)


def test_a_slow_success_counts_as_slow() -> None:
    """And on the slow axis only."""
    circuit = Circuit()
    circuit.calls("s", took_s=5.0)
    assert (circuit.figures, circuit.slow_figures) == ((1, 0), (1, 1))
    assert circuit.breaker.snapshot().window.slow == 1


def test_a_slow_failure_counts_on_both_axes() -> None:
    """It failed, and it kept us waiting."""
    circuit = Circuit()
    circuit.calls("F", took_s=5.0)
    assert (circuit.figures, circuit.slow_figures) == ((1, 1), (1, 1))


def test_slow_calls_have_a_window_of_their_own_size() -> None:
    """Twenty calls later a slow one no longer counts among the calls that may fail, but still among the fifty."""
    circuit = Circuit()
    circuit.calls("s", took_s=5.0)
    circuit.calls("s" * 49)
    assert circuit.slow_figures == (50, 1)
    assert circuit.breaker.snapshot().window.slow == 0
    circuit.calls("s")
    assert circuit.slow_figures == (50, 0)


def test_a_call_still_in_flight_past_the_slow_threshold_counts_as_slow_at_that_moment() -> None:
    """A provider that hangs is noticed before the read timeout, without one call having ended."""
    circuit = Circuit()
    for _ in range(10):
        circuit.breaker.admit(circuit.now)
    circuit.wait(3.0)
    assert circuit.breaker.tick(circuit.now) is None
    assert circuit.slow_figures == (0, 0)
    circuit.wait(0.01)
    transition = circuit.breaker.tick(circuit.now)
    assert transition is not None
    assert transition.reason == "10 of the last 10 calls took longer than 3 s"
    assert transition.evidence["in_flight_overdue"] == 10
    assert circuit.state is State.OPEN


def test_a_call_counted_in_flight_is_counted_once() -> None:
    """Neither a second look nor its end counts it as slow again."""
    circuit = Circuit()
    permit = circuit.breaker.admit(circuit.now)
    assert permit is not None
    circuit.wait(4.0)
    circuit.breaker.tick(circuit.now)
    circuit.breaker.tick(circuit.now)
    assert (circuit.slow_figures, circuit.breaker.snapshot().slow.in_flight_overdue) == ((1, 1), 1)
    circuit.breaker.record(permit, Verdict.OK, circuit.now)
    assert (circuit.slow_figures, circuit.breaker.snapshot().slow.in_flight_overdue) == ((1, 1), 0)
    assert circuit.figures == (1, 0)


def test_a_call_counted_in_flight_that_then_fails_adds_its_failure_without_a_second_call() -> None:
    """One call on each axis: slow when it grew slow, failed when it failed."""
    circuit = Circuit()
    permit = circuit.breaker.admit(circuit.now)
    assert permit is not None
    circuit.wait(10.0)
    circuit.breaker.tick(circuit.now)
    circuit.breaker.record(permit, Verdict.UNREACHABLE, circuit.now)
    assert (circuit.figures, circuit.slow_figures) == ((1, 1), (1, 1))
    assert circuit.breaker.snapshot().window.slow == 1


def test_only_the_calls_that_are_overdue_count_at_a_tick() -> None:
    """Two began long ago, one just now; a call that has ended is not in flight."""
    circuit = Circuit()
    for _ in range(2):
        circuit.breaker.admit(circuit.now)
    circuit.calls("s")
    circuit.wait(3.5)
    circuit.breaker.admit(circuit.now)
    circuit.breaker.tick(circuit.now)
    assert circuit.slow_figures == (3, 2)


# ---------------------------------------------------------------- after a long calm


def test_an_overdue_call_after_a_long_calm_leaves_the_window_again() -> None:
    """Fifty healthy calls later nothing is left of it."""
    circuit = Circuit()
    circuit.calls("s" * 100)
    circuit.breaker.admit(circuit.now)
    circuit.wait(4)
    circuit.breaker.tick(circuit.now)
    assert circuit.slow_figures == (50, 1)
    circuit.calls("s" * 50)
    assert circuit.slow_figures == (50, 0)


def test_other_processes_failures_after_a_long_calm_leave_the_window_again() -> None:
    """Our healthy calls push them out as any others."""
    circuit = Circuit()
    circuit.calls("s" * 100)
    circuit.breaker.absorb(Counts(calls=4, failures=4), circuit.now)
    assert circuit.figures == (20, 4)
    circuit.calls("s" * 20)
    assert circuit.figures == (20, 0)


def test_healthy_calls_are_counted_anew_after_a_state_that_began_in_calm() -> None:
    """An operator's override ends; the window fills from nothing."""
    circuit = Circuit()
    circuit.calls("s" * 100)
    circuit.adopt(State.METRICS_ONLY)
    circuit.calls("sss")
    assert (circuit.figures, circuit.slow_figures) == ((3, 0), (3, 0))


# ---------------------------------------------------------------- generations


def test_results_of_calls_admitted_earlier_change_nothing_while_open() -> None:
    """Neither does a late failure extend the wait nor a late success close."""
    circuit = Circuit()
    late = [circuit.breaker.admit(circuit.now) for _ in range(3)]
    circuit.calls("F" * 10)
    before = circuit.breaker.snapshot()
    circuit.wait(5)
    for permit, verdict in zip(late, (Verdict.UNREACHABLE, Verdict.OK, Verdict.CREDENTIALS_REFUSED), strict=True):
        assert permit is not None
        assert circuit.breaker.record(permit, verdict, circuit.now) is None
    assert circuit.breaker.tick(circuit.now) is None
    assert circuit.breaker.snapshot() == before


def test_a_result_from_another_generation_is_dropped() -> None:
    """Calls that hung through the outage all fail at its end; the circuit that closed meanwhile stays closed."""
    circuit = Circuit()
    late = [circuit.breaker.admit(circuit.now) for _ in range(30)]
    circuit.calls("F" * 10)
    circuit.adopt(State.HALF_OPEN)
    circuit.adopt(State.CLOSED)
    circuit.wait(60)
    for permit in late:
        assert permit is not None
        assert circuit.breaker.record(permit, Verdict.UNREACHABLE, circuit.now) is None
        circuit.breaker.give_back(permit)
    assert circuit.breaker.tick(circuit.now) is None
    assert (circuit.state, circuit.figures, circuit.slow_figures) == (State.CLOSED, (0, 0), (0, 0))


def test_one_call_is_one_result() -> None:
    """Told twice, or told and then given back, it counts once."""
    circuit = Circuit()
    permit = circuit.breaker.admit(circuit.now)
    assert permit is not None
    for _ in range(3):
        circuit.breaker.record(permit, Verdict.UNREACHABLE, circuit.now)
        circuit.breaker.give_back(permit)
    assert circuit.figures == (1, 1)


def test_an_ignored_outcome_or_an_interrupt_counts_nothing_and_is_no_longer_in_flight() -> None:
    """What is given back is never counted as overdue either."""
    circuit = Circuit()
    circuit.calls("iii")
    overdue = circuit.breaker.admit(circuit.now)
    circuit.wait(5)
    circuit.breaker.tick(circuit.now)
    assert overdue is not None
    circuit.breaker.give_back(overdue)
    circuit.breaker.give_back(overdue)
    assert circuit.figures == (0, 0)
    assert circuit.slow_figures == (1, 1)
    assert circuit.breaker.snapshot().slow.in_flight_overdue == 0


# ---------------------------------------------------------------- states


@pytest.mark.parametrize("state", State)
def test_a_state_admits_payments_or_does_not(state: State) -> None:
    """Half-open is for synthetic probes and not for customers; forced open and open let nothing through."""
    circuit = Circuit()
    circuit.adopt(state)
    permit = circuit.breaker.admit(circuit.now)
    assert isinstance(permit, Permit) if state in ADMITTING else permit is None
    assert {State.CLOSED, State.SLOW_START, State.BYPASS, State.METRICS_ONLY} == ADMITTING


def test_the_window_is_empty_after_closing() -> None:
    """Yesterday's failures say nothing of today: it takes the full minimum to open again."""
    circuit = Circuit()
    circuit.calls("F" * 10, took_s=4.0)
    assert (circuit.figures, circuit.slow_figures) == ((10, 10), (10, 10))
    circuit.adopt(State.CLOSED)
    assert (circuit.figures, circuit.slow_figures) == ((0, 0), (0, 0))
    assert circuit.breaker.snapshot().window.failure_rate is None
    assert circuit.breaker.snapshot().slow.slow_rate is None
    assert circuit.calls("F" * 9) == []
    assert len(circuit.calls("F")) == 1


def test_open_rejects_whatever_time_has_passed() -> None:
    """The end of the wait is the worker's to act on; a payment is not the first probe."""
    circuit = Circuit()
    circuit.calls("F" * 10)
    for seconds in (9.9, 0.1, 86400.0):
        circuit.wait(seconds)
        assert circuit.breaker.admit(circuit.now) is None


def test_reset_empties_the_window_and_the_failed_round_count() -> None:
    """An operator's "automatic" closes the circuit as if nothing had been."""
    circuit = Circuit()
    circuit.calls("F" * 10)
    circuit.adopt(State.HALF_OPEN, failed_rounds=3)
    circuit.adopt(State.OPEN, failed_rounds=4)
    assert circuit.breaker.snapshot().failed_rounds == 4
    circuit.adopt(State.CLOSED)
    assert (circuit.figures, circuit.breaker.snapshot().failed_rounds) == ((0, 0), 0)


# ---------------------------------------------------------------- slow start


def starting() -> Circuit:
    circuit = Circuit()
    circuit.calls("F" * 10)
    circuit.adopt(State.HALF_OPEN)
    circuit.adopt(State.SLOW_START, share=0.1)
    return circuit


def test_slow_start_begins_with_an_empty_window_and_falls_back_on_two_failures_in_a_row() -> None:
    """The provider was broken a moment ago: two are enough, and the incident goes on."""
    circuit = starting()
    assert (circuit.figures, circuit.breaker.snapshot().share) == ((0, 0), 0.1)
    assert circuit.calls("FsF") == []
    (transition,) = circuit.calls("U")
    assert (transition.state, transition.reason, transition.version) == (State.OPEN, "2 failures in a row", 4)


def test_slow_start_falls_back_on_the_usual_rate_with_fewer_calls() -> None:
    """Five calls are enough to judge; half of them failed."""
    circuit = starting()
    assert circuit.calls("FsFs") == []
    (transition,) = circuit.calls("F")
    assert transition.reason == "3 of the last 5 calls failed"


def test_a_fall_from_slow_start_is_one_more_failed_round() -> None:
    """It was open for seven rounds and has not been well: it waits as after eight, not as after none."""
    circuit = Circuit()
    circuit.adopt(State.SLOW_START, failed_rounds=7, share=0.1)
    (fallen,) = circuit.calls("FF")
    assert (fallen.state, fallen.failed_rounds) == (State.OPEN, 8)
    circuit.adopt(State.CLOSED)
    (opened,) = circuit.calls("F" * 10)
    assert opened.failed_rounds == 0


def test_slow_start_falls_back_on_slow_calls() -> None:
    """Two of five take too long."""
    circuit = starting()
    assert circuit.calls("sss") + circuit.calls("s", took_s=4.0) == []
    assert len(circuit.calls("s", took_s=4.0)) == 1


def test_a_stage_of_slow_start_keeps_the_window_and_the_calls_in_flight() -> None:
    """A larger share is no new beginning."""
    circuit = starting()
    circuit.calls("sF")
    permit = circuit.breaker.admit(circuit.now)
    since = circuit.breaker.snapshot().since
    circuit.adopt(State.SLOW_START, share=0.25, since=since)
    assert (circuit.figures, circuit.breaker.snapshot().share) == ((2, 1), 0.25)
    assert permit is not None
    assert circuit.breaker.record(permit, Verdict.UNREACHABLE, circuit.now) is not None


def test_after_slow_start_one_more_failure_is_no_longer_too_much() -> None:
    """Closed judges by the full minimum again."""
    circuit = starting()
    circuit.adopt(State.CLOSED)
    assert circuit.calls("F" * 9) == []


# ---------------------------------------------------------------- operator


def test_forced_open_ignores_time() -> None:
    """An hour later it still lets nothing through, and no late result moves it."""
    circuit = Circuit()
    permit = circuit.breaker.admit(circuit.now)
    circuit.adopt(State.FORCED_OPEN)
    circuit.wait(3600)
    assert permit is not None
    assert circuit.breaker.record(permit, Verdict.OK, circuit.now) is None
    assert circuit.breaker.tick(circuit.now) is None
    assert circuit.breaker.admit(circuit.now) is None
    assert circuit.state is State.FORCED_OPEN


def test_bypass_admits_all_and_records_nothing() -> None:
    """Failures, refusals, calls that hang, other processes' calls: none leaves a trace."""
    circuit = Circuit(consecutive_failures=2)
    circuit.adopt(State.BYPASS)
    assert circuit.calls("F" * 50 + "C" * 50, took_s=1.0) == []
    hanging = circuit.breaker.admit(circuit.now)
    circuit.wait(60)
    assert circuit.breaker.tick(circuit.now) is None
    assert circuit.breaker.absorb(Counts(calls=100, failures=100), circuit.now) is None
    assert hanging is not None
    circuit.breaker.give_back(hanging)
    assert (circuit.state, circuit.figures, circuit.slow_figures) == (State.BYPASS, (0, 0), (0, 0))


def test_bypass_keeps_hold_of_no_call() -> None:
    """A bypass that lasts for days must not remember every call of them."""
    circuit = Circuit()
    circuit.adopt(State.BYPASS)
    permit = circuit.breaker.admit(circuit.now)
    assert sys.getrefcount(permit) == 2  # this name and the argument


def test_metrics_only_records_and_never_trips() -> None:
    """Twenty failures are counted and let through."""
    circuit = Circuit()
    circuit.adopt(State.METRICS_ONLY)
    assert circuit.calls("F" * 50) == []
    assert (circuit.state, circuit.figures) == (State.METRICS_ONLY, (20, 20))


def test_metrics_only_says_would_have_opened_once() -> None:
    """One event for one trouble; another only after the calls were well in between."""
    circuit = Circuit()
    circuit.adopt(State.METRICS_ONLY)
    told = []
    for results in ("F" * 9, "F", "F" * 30, "s" * 20, "F" * 10):
        circuit.calls(results)
        told.append(circuit.breaker.would_have_opened)
    before, first, still, well, again = told
    assert first is not None
    assert (first.state, first.reason) == (State.OPEN, "10 of the last 10 calls failed")
    assert first.evidence["failures"] == 10
    assert still is first
    assert before is well is None
    assert again not in (None, first)


def test_what_would_have_opened_is_over_when_time_has_drained_the_window() -> None:
    """No call came, and none is needed to see it."""
    circuit = Circuit(window_s=10.0, slow_window_calls=100)
    circuit.adopt(State.METRICS_ONLY)
    circuit.calls("F" * 10)
    assert circuit.breaker.would_have_opened is not None
    circuit.wait(11)
    circuit.breaker.tick(circuit.now)
    assert circuit.breaker.would_have_opened is None


def test_metrics_only_forgets_what_would_have_opened_when_the_mode_ends() -> None:
    """The next mode begins without it."""
    circuit = Circuit()
    circuit.adopt(State.METRICS_ONLY)
    circuit.calls("F" * 10)
    circuit.adopt(State.CLOSED)
    assert circuit.breaker.would_have_opened is None


def test_an_overrides_end_and_reason_change_without_a_new_beginning() -> None:
    """What metrics-only has counted so far stays."""
    circuit = Circuit()
    circuit.adopt(State.METRICS_ONLY)
    circuit.calls("Fss")
    until = START + dt.timedelta(hours=1)
    circuit.adopt(State.METRICS_ONLY, until=until, since=circuit.breaker.snapshot().since)
    assert (circuit.breaker.snapshot().until, circuit.figures) == (until, (3, 1))


# ---------------------------------------------------------------- credentials


def test_a_run_of_refused_credentials_opens_the_circuit() -> None:
    """Five 401s in a row: every payment would get one, so none is sent there."""
    circuit = Circuit()
    assert circuit.calls("CCCC") == []
    (transition,) = circuit.calls("C")
    assert (transition.reason, transition.evidence["credentials_refused"]) == ("credentials refused", 5)


@pytest.mark.parametrize("between", ["s", "F", "U"])
def test_anything_else_in_between_ends_a_run_of_refused_credentials(between: str) -> None:
    """Where the same key passes, it is not the key. Also where the windows are full of healthy calls."""
    circuit = Circuit()
    assert circuit.calls("s" * 100 + f"CCCC{between}CCCC") == []
    assert len(circuit.calls("C")) == 1


def test_refused_credentials_are_no_failures_and_no_calls_of_the_window() -> None:
    """Our own fault counts nowhere, however long it took."""
    circuit = Circuit()
    circuit.calls("CCCC", took_s=1.0)
    assert (circuit.figures, circuit.slow_figures) == ((0, 0), (0, 0))


# ---------------------------------------------------------------- other processes, thresholds


def test_other_processes_calls_count_too() -> None:
    """Five failures here and five there are ten: together they trip."""
    circuit = Circuit()
    assert circuit.calls("F" * 5) == []
    transition = circuit.breaker.absorb(Counts(calls=5, failures=5, unreachable=2), circuit.now)
    assert transition is not None
    assert (transition.evidence["failures"], transition.evidence["unreachable"]) == (10, 2)


def test_other_processes_failures_are_spread_evenly_among_their_calls() -> None:
    """A thousand calls with 30% failing look like 30% in a window of twenty, and do not trip half."""
    circuit = Circuit()
    assert circuit.breaker.absorb(Counts(calls=1000, failures=300, slow=100), circuit.now) is None
    assert (circuit.figures, circuit.slow_figures) == ((20, 6), (50, 5))
    assert Circuit().breaker.absorb(Counts(calls=1000, failures=500), circuit.now) is not None


def test_other_processes_slow_calls_trip_by_the_slow_rate() -> None:
    """Three of ten."""
    circuit = Circuit()
    transition = circuit.breaker.absorb(Counts(calls=10, slow=3), circuit.now)
    assert transition is not None
    assert transition.reason == "3 of the last 10 calls took longer than 3 s"


def test_nothing_is_absorbed_by_an_open_circuit_nor_of_no_calls() -> None:
    """The others' late failures change as little as ours."""
    circuit = Circuit()
    assert circuit.breaker.absorb(Counts(), circuit.now) is None
    circuit.calls("F" * 10)
    before = circuit.breaker.snapshot()
    assert circuit.breaker.absorb(Counts(calls=9, failures=9), circuit.now) is None
    assert circuit.breaker.snapshot() == before


def test_a_tuned_failure_threshold_takes_fewer_failures() -> None:
    """Five of twenty, for a provider that fails one call in two hundred; the minimum holds as before."""
    circuit = Circuit()
    needed = tuple(max(4, -(-n // 4)) for n in range(1, 21))
    circuit.breaker.retune(Thresholds(slow_call_s=1.0, failures_needed=needed))
    assert circuit.calls("FFFFF") == []
    circuit = Circuit()
    circuit.breaker.retune(Thresholds(slow_call_s=1.0, failures_needed=needed))
    assert circuit.calls("s" * 16 + "FFFF") == []
    assert circuit.breaker.snapshot().window.failure_rate_threshold == 0.25
    (transition,) = circuit.calls("F")
    assert transition.evidence["failure_rate_threshold"] == 0.25


def test_a_tuned_slow_threshold_holds_for_calls_in_flight_too() -> None:
    """Admitted under three seconds, overdue under one."""
    circuit = Circuit()
    circuit.breaker.admit(circuit.now)
    circuit.breaker.retune(Thresholds(slow_call_s=1.0, failures_needed=()))
    circuit.wait(1.5)
    circuit.breaker.tick(circuit.now)
    assert circuit.slow_figures == (1, 1)
    assert circuit.breaker.snapshot().window.slow_call_s == 1.0


def test_tuned_thresholds_hold_in_every_state_that_follows() -> None:
    """Opening and closing do not forget them."""
    circuit = Circuit()
    circuit.breaker.retune(Thresholds(slow_call_s=1.0, failures_needed=(1,) * 20))
    circuit.adopt(State.OPEN)
    circuit.adopt(State.CLOSED)
    assert circuit.breaker.snapshot().slow.slow_call_s == 1.0
    assert circuit.breaker.snapshot().window.failure_rate_threshold == 0.1


# ---------------------------------------------------------------- events, clocks


def test_one_event_per_real_transition_in_order() -> None:
    """Versions count up without a gap; what comes after the tripping call causes nothing."""
    circuit = Circuit()
    permits = [circuit.breaker.admit(circuit.now) for _ in range(15)]
    made = [circuit.breaker.record(each, Verdict.UNREACHABLE, circuit.now) for each in permits if each]
    assert [each.version for each in made if each] == [1]
    circuit.adopt(State.HALF_OPEN)
    circuit.adopt(State.CLOSED)
    assert [each.version for each in circuit.calls("F" * 10)] == [4]


def test_a_transition_says_what_the_window_held_and_is_in_force_at_once() -> None:
    """Version, moment, process, reason and figures are the audit record."""
    circuit = Circuit()
    circuit.wait(9)
    (transition,) = circuit.calls("ssssFFFFFU")
    assert (transition.version, transition.state, transition.at, transition.actor) == (
        1,
        State.OPEN,
        START + dt.timedelta(seconds=9),
        "me",
    )
    assert transition.evidence == {
        "calls": 10,
        "failures": 6,
        "unreachable": 1,
        "failure_rate": 0.6,
        "failure_rate_threshold": 0.5,
        "minimum_calls": 10,
        "slow_calls": 10,
        "slow": 0,
        "slow_rate": 0.0,
        "slow_rate_threshold": 0.3,
        "slow_call_s": 3.0,
        "in_flight_overdue": 0,
        "hanging": 0,
    }
    snapshot = circuit.breaker.snapshot()
    assert (snapshot.state, snapshot.since, snapshot.version, snapshot.last) == (
        State.OPEN,
        transition.at,
        1,
        transition,
    )
    assert circuit.breaker.admit(circuit.now) is None


@pytest.mark.parametrize("step_s", [-60, 60])
def test_wall_clock_steps_change_nothing(step_s: float) -> None:
    """What is slow and what is in the window is measured by the monotonic clock alone."""
    circuit = Circuit(window_s=10.0)
    permit = circuit.breaker.admit(circuit.now)
    circuit.calls("F" * 5)
    circuit.wall += dt.timedelta(seconds=step_s)
    assert permit is not None
    circuit.breaker.record(permit, Verdict.OK, circuit.now)
    assert (circuit.figures, circuit.slow_figures) == ((6, 5), (6, 0))


def test_the_wall_clock_is_read_for_transitions_only() -> None:
    """A read of it costs more than a whole call may."""
    reads = []

    def wall() -> dt.datetime:
        reads.append(1)
        return START

    breaker = Breaker("stripe", BreakerSettings(), wall=wall, actor="me")
    reads.clear()
    for _ in range(10):
        permit = breaker.admit(0.0)
        assert permit is not None
        breaker.record(permit, Verdict.OK, 0.0)
        breaker.tick(0.0)
    breaker.snapshot()
    assert reads == []


def test_the_lock_is_never_held_across_the_guarded_call() -> None:
    """While one call is on its way, another goes from beginning to end."""
    circuit = Circuit()
    first = circuit.breaker.admit(circuit.now)
    other = threading.Thread(target=circuit.calls, args=("sss",))
    other.start()
    other.join(10)
    assert not other.is_alive()
    assert first is not None
    circuit.breaker.record(first, Verdict.OK, circuit.now)
    assert circuit.figures == (4, 0)


# ---------------------------------------------------------------- the wait


def test_the_wait_grows_by_a_multiplier_per_failed_round_up_to_a_cap() -> None:
    """1, 2, 4, 8 and then ten seconds for ever, a million failed rounds included."""
    settings = BreakerSettings(open_wait_s=1.0, wait_multiplier=2.0, maximum_wait_s=10.0)
    assert [settings.wait_s(rounds) for rounds in (0, 1, 2, 3, 4, 5, 10**6)] == [1, 2, 4, 8, 10, 10, 10]


def test_a_first_wait_longer_than_the_cap_is_kept() -> None:
    """Who sets a minute means a minute, whatever the default cap is."""
    assert [BreakerSettings(open_wait_s=60.0).wait_s(rounds) for rounds in (0, 5)] == [60, 60]


def test_the_jitter_is_inside_one_plus_or_minus_j() -> None:
    """From 0.9 of the wait to just short of 1.1 of it, and the wait itself in the middle."""
    settings = BreakerSettings(open_wait_s=10.0, wait_jitter=0.1)
    assert settings.wait_s(0, 0.0) == pytest.approx(9.0)
    assert settings.wait_s(0) == pytest.approx(10.0)
    assert 10.9 < settings.wait_s(0, 0.999) < 11.0
    assert BreakerSettings(wait_jitter=0.0).wait_s(0, 0.999) == 10.0


# ---------------------------------------------------------------- the settings that are shipped


def test_the_shipped_settings_keep_to_what_is_known_of_breakers() -> None:
    """A round of 5 to 10 probes, most of which must succeed, decided in 30 to 60 s; waits that are not in step."""
    usual = BreakerSettings()
    assert 5 <= usual.probes <= 10
    assert 1 <= usual.probes_at_once < usual.probes
    assert 0.9 <= usual.probe_success_rate <= 1.0
    assert 30 <= usual.round_deadline_s <= 60
    assert usual.probe_lease_s < usual.round_deadline_s
    assert 0 < usual.wait_jitter < 1
    assert usual.slow_rate == 0.3
    assert list(usual.stages) == sorted(set(usual.stages))
    assert all(0 < share < 1 for share in usual.stages)


def test_a_provider_that_recovers_is_closed_in_time_whatever_the_wait_has_grown_to() -> None:
    """Within the two minutes that people in this field ask for, and half of what the drill waits."""
    usual = BreakerSettings()
    longest_s = usual.wait_s(10**6, 0.999) + usual.probe_lease_s + len(usual.stages) * usual.stage_s
    assert longest_s <= 120
    assert 2 * longest_s <= SETTLED_WITHIN_S
