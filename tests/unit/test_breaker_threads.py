"""One circuit and many threads."""

from __future__ import annotations

import datetime as dt
import functools
import threading

from router.breaker import Permit, Verdict
from router.transitions import State, Transition
from router.windows import Counts
from tests.fakes.one_circuit import START, Circuit
from tests.fakes.threads import eager, together


def test_thirty_two_threads_that_cross_the_threshold_together_make_one_transition() -> None:
    """Each has its permit before any answer is in; one opens the circuit, the others are late."""
    for _ in range(30):
        circuit = Circuit()
        permits = [circuit.breaker.admit(circuit.now) for _ in range(32)]
        made: list[Transition] = []

        def answer(permit: Permit | None, circuit: Circuit = circuit, made: list[Transition] = made) -> None:
            assert permit is not None
            transition = circuit.breaker.record(permit, Verdict.UNREACHABLE, circuit.now)
            if transition is not None:
                made.append(transition)

        with eager():
            together([functools.partial(answer, permit) for permit in permits])
        assert [each.version for each in made] == [1]
        assert circuit.figures == (10, 10)


def test_calls_ticks_and_others_counts_that_cross_the_threshold_together_make_one_transition() -> None:
    """Whichever of the three is first."""
    for _ in range(30):
        circuit = Circuit()
        permits = [circuit.breaker.admit(circuit.now) for _ in range(22)]
        circuit.wait(4)
        made: list[Transition | None] = []

        def answer(permit: Permit | None, circuit: Circuit = circuit, made: list[Transition | None] = made) -> None:
            assert permit is not None
            made.append(circuit.breaker.record(permit, Verdict.PROVIDER_ERROR, circuit.now))

        def tick(circuit: Circuit = circuit, made: list[Transition | None] = made) -> None:
            made.append(circuit.breaker.tick(circuit.now))

        def absorb(circuit: Circuit = circuit, made: list[Transition | None] = made) -> None:
            made.append(circuit.breaker.absorb(Counts(calls=4, failures=4), circuit.now))

        with eager():
            together([*(functools.partial(answer, permit) for permit in permits), *[tick] * 5, *[absorb] * 5])
        assert [each.version for each in made if each] == [1]


def test_every_call_of_thirty_two_threads_is_counted_once() -> None:
    """A thousand calls, ticks and looks in between: nothing is lost, nothing is left in flight."""
    # The threads' first calls fail, all of them: with a smaller minimum they might open the circuit.
    circuit = Circuit(window_calls=2000, slow_window_calls=2000, minimum_calls=2000)

    def work() -> None:
        for turn in range(32):
            permit = circuit.breaker.admit(circuit.now)
            assert permit is not None
            circuit.breaker.tick(circuit.now)
            verdict = Verdict.PROVIDER_ERROR if turn % 4 == 0 else Verdict.OK
            circuit.breaker.record(permit, verdict, circuit.now)

    with eager():
        together([work] * 32)
    assert (circuit.figures, circuit.slow_figures) == ((1024, 256), (1024, 0))
    circuit.wait(60)
    circuit.breaker.tick(circuit.now)
    assert circuit.slow_figures == (1024, 0)


def test_a_call_that_ends_while_it_grows_overdue_is_counted_once() -> None:
    """Its end and the tick race; one call on the slow axis, whoever wins."""
    for _ in range(30):
        circuit = Circuit(minimum_calls=1000, window_s=100.0, slow_window_calls=1000)
        permits = [circuit.breaker.admit(circuit.now) for _ in range(28)]
        circuit.wait(4)

        def answer(permit: Permit | None, circuit: Circuit = circuit) -> None:
            assert permit is not None
            circuit.breaker.record(permit, Verdict.OK, circuit.now)

        tick = functools.partial(circuit.breaker.tick, circuit.now)
        with eager():
            together([*(functools.partial(answer, permit) for permit in permits), *[tick] * 4])
        assert (circuit.figures, circuit.slow_figures) == ((28, 0), (28, 28))
        assert circuit.breaker.snapshot().slow.in_flight_overdue == 0


def test_a_snapshot_is_never_torn() -> None:
    """While one thread opens and closes and others record, state, version, moment and windows always agree."""
    circuit = Circuit()
    done = threading.Event()

    def churn() -> None:
        try:
            for version in range(1, 1500):
                at = START + dt.timedelta(seconds=version)
                state = (State.CLOSED, State.OPEN, State.SLOW_START)[version % 3]
                circuit.breaker.adopt(Transition("stripe", version, state, at, "other", "why", share=version / 1500))
        finally:
            done.set()

    def record() -> None:
        while not done.is_set():
            permit = circuit.breaker.admit(circuit.now)
            if permit is not None:
                circuit.breaker.record(permit, Verdict.OK, circuit.now)

    def look() -> None:
        while not done.is_set():
            seen = circuit.breaker.snapshot()
            if seen.last is not None:
                assert (seen.state, seen.since, seen.version) == (seen.last.state, seen.last.at, seen.last.version)
                assert seen.since == START + dt.timedelta(seconds=seen.version)
                assert (seen.share, seen.state) == (
                    seen.version / 1500,
                    (State.CLOSED, State.OPEN, State.SLOW_START)[seen.version % 3],
                )
                minimum = 5 if seen.state is State.SLOW_START else 10
                assert (seen.window.minimum_calls, seen.slow.minimum_calls) == (minimum, minimum)
            # Every call is healthy and both windows are emptied together.
            assert seen.window.calls == min(seen.slow.calls, 20)
            assert seen.window.failures == seen.slow.slow == 0

    with eager():
        together([churn, look, look, record, record, record])
