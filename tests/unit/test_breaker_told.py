"""One circuit: calls that hang at one moment, and to which state an answer, or what others tell, belongs."""

from __future__ import annotations

from router.breaker import Verdict
from router.transitions import State
from router.windows import Counts, Thresholds
from tests.fakes.one_circuit import Circuit

# ---------------------------------------------------------------- calls that hang at one moment


def test_calls_that_hang_at_one_moment_trip_before_the_minimum() -> None:
    """Three of the six that fit side by side: no further call will end before the read timeout."""
    circuit = Circuit(hanging_at_once=3)
    for _ in range(3):
        assert circuit.breaker.admit(circuit.now) is not None
    circuit.wait(circuit.settings.hangs_after_s)
    assert circuit.breaker.tick(circuit.now) is None, "slow, and not yet for so long that it cannot be bad luck"
    circuit.wait(0.1)
    transition = circuit.breaker.tick(circuit.now)
    assert transition is not None
    assert transition.reason == "3 calls hang at once"
    assert transition.evidence["in_flight_overdue"] == transition.evidence["hanging"] == 3
    assert circuit.breaker.take_newly_overdue() == 3
    assert circuit.breaker.take_newly_overdue() == 0


def test_calls_that_hung_one_after_the_other_are_not_at_one_moment() -> None:
    """Two at a time, again and again; each has ended or was given back before the next is overdue."""
    circuit = Circuit(hanging_at_once=3, slow_minimum_calls=50)
    for nth in range(10):
        permits = [circuit.breaker.admit(circuit.now) for _ in range(2)]
        circuit.wait(3.6)
        assert circuit.breaker.tick(circuit.now) is None
        for permit in permits:
            assert permit is not None
            if nth % 2:
                circuit.breaker.give_back(permit)
            else:
                assert circuit.breaker.record(permit, Verdict.OK, circuit.now) is None
    assert circuit.state is State.CLOSED
    assert circuit.breaker.take_newly_overdue() == 20


def test_a_call_hangs_when_it_takes_longer_than_is_slow_for_this_provider() -> None:
    """One that usually takes four seconds does not hang after three and a half."""
    circuit = Circuit(hanging_at_once=3)
    circuit.breaker.retune(Thresholds(5.0, ()))
    for _ in range(3):
        assert circuit.breaker.admit(circuit.now) is not None
    circuit.wait(5.0)
    assert circuit.breaker.tick(circuit.now) is None
    circuit.wait(0.1)
    assert circuit.breaker.tick(circuit.now) is not None


def test_without_the_setting_any_number_may_hang_below_the_minimum() -> None:
    """Who puts processes together knows how many fit side by side; the circuit does not."""
    circuit = Circuit()
    for _ in range(9):
        assert circuit.breaker.admit(circuit.now) is not None
    circuit.wait(9.0)
    assert circuit.breaker.tick(circuit.now) is None


# ---------------------------------------------------------------- which state an answer and others' counts belong to


def test_a_permit_tells_whether_its_answer_was_accepted() -> None:
    """In the state that it was admitted in, and nowhere else; in bypass nothing is learned."""
    circuit = Circuit()
    late, present = circuit.breaker.admit(circuit.now), None
    circuit.calls("F" * 10)
    circuit.adopt(State.OPEN, 1)
    circuit.adopt(State.HALF_OPEN, 2)
    circuit.adopt(State.SLOW_START, 3, share=0.1)
    present = circuit.breaker.admit(circuit.now)
    for permit in (late, present):
        assert permit is not None
        circuit.breaker.record(permit, Verdict.OK, circuit.now)
    assert late is not None
    assert present is not None
    assert (late.accepted, present.accepted) == (False, True)
    circuit.adopt(State.BYPASS, 4)
    passed = circuit.breaker.admit(circuit.now)
    assert passed is not None
    circuit.breaker.record(passed, Verdict.PROVIDER_ERROR, circuit.now)
    assert not passed.accepted


def test_others_counts_of_an_earlier_state_change_nothing_and_a_mark_begins_no_state() -> None:
    """A mark or a stage is a version of its own, and leaves the windows as they are."""
    circuit = Circuit()
    circuit.adopt(State.CLOSED, 1, suspect=True)
    assert (circuit.breaker.version, circuit.breaker.first_version) == (1, 0)
    circuit.breaker.absorb(Counts(calls=2, failures=2), circuit.now, version=0)
    assert circuit.figures == (2, 2)
    circuit.adopt(State.OPEN, 2)
    circuit.adopt(State.CLOSED, 3)
    assert circuit.breaker.first_version == 3
    for version in (0, 1, 2):
        assert circuit.breaker.absorb(Counts(calls=20, failures=20), circuit.now, version=version) is None
    assert circuit.figures == (0, 0)
    circuit.breaker.absorb(Counts(calls=2, failures=2), circuit.now, version=3)
    assert circuit.figures == (2, 2)


def test_an_opening_that_fell_leaves_the_state_that_began_before_it() -> None:
    """Another process's mark was first: it is the same closed state, and others' counts of it count."""
    circuit = Circuit()
    assert len(circuit.calls("F" * 10)) == 1
    circuit.adopt(State.CLOSED, 1, suspect=True)
    assert circuit.state is State.CLOSED
    assert (circuit.breaker.version, circuit.breaker.first_version) == (1, 0)


def test_what_others_tell_of_calls_in_flight_is_slow_once() -> None:
    """When they grow overdue, and not again when they end, be it in one batch with other calls."""
    circuit = Circuit()
    circuit.breaker.absorb(Counts(slow=4, overdue=4), circuit.now)
    assert (circuit.slow_figures, circuit.figures) == ((4, 4), (0, 0))
    circuit.breaker.absorb(Counts(calls=7, failures=3, slow=1, overdue=-3), circuit.now)
    assert (circuit.slow_figures, circuit.figures) == ((8, 5), (7, 3))
