"""The circuit against the simplest model of it, over whatever order of calls, ticks, counts and transitions."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from router.breaker import BreakerSettings, Permit, Verdict
from router.transitions import State, Transition, following
from router.windows import Counts, Thresholds
from tests.fakes.one_circuit import START, Circuit

COUNTING = (State.CLOSED, State.SLOW_START, State.METRICS_ONLY)
ADMITTING = (*COUNTING, State.BYPASS)


@dataclass
class Call:
    """A call on its way."""

    permit: Permit
    at: float
    stay: int
    overdue: bool = False
    ended: bool = False


class CircuitModel(RuleBasedStateMachine):
    """Lists of all that ever counted, from which every figure is worked out anew each time."""

    @initialize(
        window=st.integers(1, 6),
        window_s=st.sampled_from([None, None, 1.0, 3.5]),
        minimum=st.integers(1, 8),
        rate=st.sampled_from([0.25, 0.5, 0.75, 1.0]),
        in_a_row=st.sampled_from([None, 2, 4]),
        slow_window=st.integers(1, 8),
        slow_rate=st.sampled_from([0.3, 0.5, 1.0]),
    )
    def begin(
        self,
        window: int,
        window_s: float | None,
        minimum: int,
        rate: float,
        in_a_row: int | None,
        slow_window: int,
        slow_rate: float,
    ) -> None:
        self.settings = BreakerSettings(
            window_calls=window,
            window_s=window_s,
            minimum_calls=minimum,
            failure_rate=rate,
            consecutive_failures=in_a_row,
            credentials_in_a_row=3,
            slow_window_calls=slow_window,
            slow_rate=slow_rate,
            stage_calls=3,
        )
        self.circuit = Circuit(self.settings)
        self.breaker = self.circuit.breaker
        self.thresholds = Thresholds(self.settings.slow_call_s, ())
        self.last: Transition | None = None
        # What the ledger holds, as far as this process knows, and its own decisions since.
        self.written: Transition | None = None
        self.unwritten: list[Transition] = []
        self.stay = 0
        self.calls: list[Call] = []
        self.told = False
        self.run = 0
        self.refused = 0
        self._forget()

    # ------------------------------------------------------------ what may happen

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 2.9, 3.0, 3.1, 60.0, 1e6]))
    def wait(self, seconds: float) -> None:
        self.circuit.wait(seconds)

    @rule()
    def admit(self) -> None:
        permit = self.breaker.admit(self.circuit.now)
        assert (permit is not None) == (self.state in ADMITTING)
        if permit is not None:
            self.calls.append(Call(permit, self.circuit.now, self.stay))

    @precondition(lambda self: self.calls)
    @rule(
        which=st.integers(0, 1000), verdict=st.sampled_from([*Verdict, Verdict.OK, Verdict.OK]), forget=st.booleans()
    )
    def answer(self, which: int, verdict: Verdict, forget: bool) -> None:
        call = self.calls[which % len(self.calls)]
        if forget:
            self.calls.remove(call)  # else it may be answered again, which must change nothing
        made = self.breaker.record(call.permit, verdict, self.circuit.now)
        if not self._ends(call):
            assert made is None
            return
        slow = call.overdue or self.circuit.now - call.at > self.thresholds.slow_call_s
        if verdict is Verdict.CREDENTIALS_REFUSED:
            self.refused += 1
        else:
            failed = verdict is not Verdict.OK
            self._count(failed, verdict is Verdict.UNREACHABLE, slow)
            self.refused = 0
            if not call.overdue:
                self.slow.append(slow)
        self._check(made)

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 1000))
    def give_back(self, which: int) -> None:
        call = self.calls[which % len(self.calls)]
        self.breaker.give_back(call.permit)
        self._ends(call)

    @rule()
    def tick(self) -> None:
        made = self.breaker.tick(self.circuit.now)
        if self.state not in COUNTING:
            assert made is None
            return
        for call in self._in_flight():
            if not call.overdue and self.circuit.now - call.at > self.thresholds.slow_call_s:
                call.overdue = True
                self.slow.append(True)
        self._check(made)

    @rule(failed=st.lists(st.booleans(), max_size=5))
    def hear_of_other_processes(self, failed: list[bool]) -> None:
        """Calls one by one, so that how they are spread is another test's matter."""
        for each in failed:
            made = self.breaker.absorb(Counts(calls=1, failures=each, slow=each), self.circuit.now)
            if self.state not in COUNTING:
                assert made is None
                continue
            self._count(each, False, each)
            self.slow.append(each)
            self._check(made)

    @rule(
        slow_call_s=st.sampled_from([1.0, 2.0]), needed=st.sampled_from([(), (1,) * 6, (2, 2, 2), tuple(range(1, 7))])
    )
    def retune(self, slow_call_s: float, needed: tuple[int, ...]) -> None:
        self.thresholds = Thresholds(slow_call_s, needed)
        self.breaker.retune(self.thresholds)

    @precondition(lambda self: self.unwritten)
    @rule(read_back=st.booleans(), several=st.integers(0, 3))
    def what_was_decided_here_is_written(self, read_back: bool, several: int) -> None:
        if read_back:  # the ledger did not answer, and holds them
            written = dataclasses.replace(self.unwritten[: several + 1][-1])
            assert not self.breaker.adopt(written)
            self.unwritten, self.written = self.unwritten[several + 1 :], written
            return
        first = self.unwritten.pop(0)
        assert self.breaker.unwritten() is first
        self.breaker.written(first)
        self.breaker.written(first)  # said twice, it changes nothing
        self.written = first

    @rule(suspect=st.booleans(), stale=st.booleans())
    def mark(self, suspect: bool, stale: bool) -> None:
        marked = self.last is not None and self.last.suspect
        if suspect == marked and not stale and self.state is State.CLOSED:
            return  # it would change nothing
        expected = Transition("stripe", 1, State.CLOSED, START, "nobody", "why") if stale else self.last
        made = self.breaker.mark(suspect, expected=expected, reason="slow", evidence={})
        assert (made is not None) == (not stale and self.state is State.CLOSED)
        if made is not None:
            self.unwritten.append(made)
            self.last = made

    @rule(ahead=st.integers(-2, 3), state=st.sampled_from(State), share=st.floats(0, 1), same_stay=st.booleans())
    def read_from_the_ledger(self, ahead: int, state: State, share: float, same_stay: bool) -> None:
        version = (0 if self.written is None else self.written.version) + ahead
        if version < 1:
            return
        since = self.written.began if same_stay and self.written is not None else None
        transition = Transition(
            "stripe", version, state, self.circuit.wall, "other", "why", incident="inc_1", share=share, since=since
        )
        # One of the version that is known, and another's: the ledger has lost what it held.
        lost = ahead == 0 and self.written is not None and transition.identity != self.written.identity
        assert self.breaker.adopt(transition) == (ahead > 0 or lost)
        if ahead <= 0 and not lost:
            return
        before, goes_on = self.state, _goes_on(self.written, transition)
        self.written = self.last = transition
        self.unwritten = []
        if goes_on and state is before:
            return
        self._enter()
        if state in COUNTING and not goes_on:
            self._forget()

    # ------------------------------------------------------------ the model

    @property
    def state(self) -> State:
        return State.CLOSED if self.last is None else self.last.state

    def _forget(self) -> None:
        self.results: list[tuple[float, bool, bool, bool]] = []
        self.slow: list[bool] = []
        self.run = self.refused = 0

    def _enter(self) -> None:
        self.stay += 1
        self.told = False

    def _in_flight(self) -> list[Call]:
        return [each for each in self.calls if each.stay == self.stay and not each.ended]

    def _ends(self, call: Call) -> bool:
        """Whether this is the answer that counts."""
        counts = call.stay == self.stay and not call.ended and self.state in COUNTING
        call.ended = call.ended or counts
        return counts

    def _count(self, failed: bool, unreachable: bool, slow: bool) -> None:
        self.results.append((self.circuit.now, failed, unreachable, slow))
        self.run = self.run + 1 if failed else 0

    def _window(self) -> list[tuple[float, bool, bool, bool]]:
        if self.settings.window_s is None:
            return self.results[-self.settings.window_calls :]
        oldest = math.floor(self.circuit.now) - math.ceil(self.settings.window_s)
        return [each for each in self.results if math.floor(each[0]) > oldest]

    def _slow_window(self) -> list[bool]:
        return self.slow[-self.settings.slow_window_calls :]

    def _opens(self) -> bool:
        starting = self.state is State.SLOW_START
        window, slow = self._window(), self._slow_window()
        failures = sum(each[1] for each in window)
        minimum = 3 if starting else self.settings.minimum_calls
        most = minimum if self.settings.window_s is not None else self.settings.window_calls
        needed, calls = self.thresholds.failures_needed, len(window)
        if not needed:
            enough = failures >= self.settings.failure_rate * calls
        elif calls <= len(needed):
            enough = failures >= needed[max(calls, 1) - 1]
        else:
            enough = failures * len(needed) >= needed[-1] * calls
        runs = [each for each in (self.settings.consecutive_failures, 2 if starting else None) if each]
        return (
            self.refused >= 3
            or any(self.run >= each for each in runs)
            or (calls >= min(minimum, most) and failures > 0 and enough)
            or (
                len(slow) >= min(minimum, self.settings.slow_window_calls)
                and sum(slow) > 0
                and sum(slow) >= self.settings.slow_rate * len(slow) - 1e-9
            )
        )

    def _check(self, made: Transition | None) -> None:
        """After something counted: does it open, and as what?"""
        opens = self._opens()
        if self.state is State.METRICS_ONLY:
            assert made is None
            self.told = opens
            assert (self.breaker.would_have_opened is not None) == opens
            return
        assert (made is not None) == opens
        if made is None:
            return
        starting = self.last is not None and self.last.state is State.SLOW_START
        wanted = following(
            self.last,
            State.OPEN,
            provider="stripe",
            at=self.circuit.wall,
            actor="me",
            reason=made.reason,
            failed_rounds=self.last.failed_rounds + 1 if starting and self.last is not None else 0,
        )
        assert dataclasses.replace(made, evidence={}) == wanted
        self.unwritten.append(made)
        self.last = made
        self._enter()

    @invariant()
    def the_snapshot_is_the_model(self) -> None:
        seen = self.breaker.snapshot(self.circuit.now)
        last = self.last
        assert (seen.state, seen.last, self.breaker.state) == (self.state, last, self.state)
        assert self.breaker.last is seen.last
        assert seen.state is (State.CLOSED if last is None else last.state)  # what is read without the lock
        assert self.breaker.unwritten() == (self.unwritten[0] if self.unwritten else None)
        assert seen.version == (0 if last is None else last.version)
        assert seen.since == (START if last is None else last.began)
        assert seen.share == (1.0 if last is None else last.share)
        window, slow = self._window(), self._slow_window()
        assert (seen.window.calls, seen.window.failures) == (len(window), sum(each[1] for each in window))
        assert (seen.window.unreachable, seen.window.slow) == (
            sum(each[2] for each in window),
            sum(each[3] for each in window),
        )
        assert (seen.slow.calls, seen.slow.slow) == (len(slow), sum(slow))
        overdue = sum(each.overdue for each in self._in_flight())
        assert seen.slow.in_flight_overdue == (overdue if self.state in COUNTING else 0)
        assert (self.breaker.would_have_opened is not None) == self.told


def _goes_on(last: Transition | None, transition: Transition) -> bool:
    if last is None:
        return False  # save a mark as the first row of all, which nobody writes here
    return transition.state is last.state and transition.since == last.began


TestCircuitModel = CircuitModel.TestCase
TestCircuitModel.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
