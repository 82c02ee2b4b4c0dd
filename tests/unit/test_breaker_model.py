"""The circuit against the simplest model of it, over whatever order of calls and transitions."""

from __future__ import annotations

import datetime as dt

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from router.breaker import Breaker, BreakerSettings, Permit, State, Transition, following

START = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
STATES = st.sampled_from(list(State))


class CircuitModel(RuleBasedStateMachine):
    """A list of results, a state and a version; a permit is worth something until the state is entered anew."""

    @initialize(
        window=st.integers(1, 6),
        minimum=st.integers(1, 8),
        rate=st.sampled_from([0.25, 0.5, 0.75, 1.0]),
    )
    def begin(self, window: int, minimum: int, rate: float) -> None:
        self.settings = BreakerSettings(window_calls=window, minimum_calls=minimum, failure_rate=rate)
        self.breaker = Breaker("stripe", self.settings, now=START)
        self.state = State.CLOSED
        self.last: Transition | None = None
        self.results: list[bool] = []
        self.permits: list[tuple[Permit, bool]] = []
        self.now = START

    @rule(seconds=st.integers(0, 400))
    def wait(self, seconds: int) -> None:
        self.now += dt.timedelta(seconds=seconds)

    @rule()
    def admit(self) -> None:
        permit = self.breaker.admit()
        assert (permit is not None) == (self.state is State.CLOSED)
        if permit is not None:
            self.permits.append((permit, True))

    @rule(which=st.integers(0, 1000), failed=st.booleans())
    def answer(self, which: int, failed: bool) -> None:
        if not self.permits:
            return
        permit, current = self.permits.pop(which % len(self.permits))
        transition = self.breaker.record(permit, failed=failed, now=self.now, actor="me")
        opens = False
        if current and self.state is State.CLOSED:
            self.results = [*self.results, failed][-self.settings.window_calls :]
            enough = len(self.results) >= min(self.settings.minimum_calls, self.settings.window_calls)
            opens = enough and sum(self.results) >= self.settings.failure_rate * len(self.results)
        assert (transition is not None) == opens
        if transition is not None:
            assert transition == following(
                self.last,
                State.OPEN,
                provider="stripe",
                at=self.now,
                actor="me",
                reason=f"{sum(self.results)} of the last {len(self.results)} calls failed",
                evidence=transition.evidence,
            )
            self._entered(transition)

    @rule(ahead=st.integers(-2, 3), state=STATES)
    def read_from_the_ledger(self, ahead: int, state: State) -> None:
        version = (0 if self.last is None else self.last.version) + ahead
        if version < 1:
            return
        transition = Transition("stripe", version, state, self.now, "other", "why", incident="inc_stripe_1")
        newer = self.last is None or ahead > 0 or (ahead == 0 and transition != self.last)
        assert self.breaker.adopt(transition) == newer
        if newer:
            self._entered(transition)

    def _entered(self, transition: Transition) -> None:
        self.state, self.last = transition.state, transition
        self.permits = [(permit, False) for permit, _ in self.permits]
        if self.state is State.CLOSED:
            self.results = []

    @invariant()
    def the_snapshot_is_the_model(self) -> None:
        seen = self.breaker.snapshot()
        assert seen.state is self.state
        assert seen.last == self.last
        assert seen.version == (0 if self.last is None else self.last.version)
        assert seen.since == (START if self.last is None else self.last.at)
        assert (seen.window.calls, seen.window.failures) == (len(self.results), sum(self.results))


TestCircuitModel = CircuitModel.TestCase
TestCircuitModel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
