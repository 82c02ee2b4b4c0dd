"""An operator's orders: what each does to a circuit, whose word wins, and who and why on record."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest

from providers.contract import Health
from router.clock import ManualClock
from router.health import ProviderHealth
from router.ledger.unavailable import LedgerUnavailableError
from router.overrides import (
    MODES,
    AlreadyAutomaticError,
    AutomaticHasNoEndError,
    EndsInThePastError,
    Mode,
    Overrides,
    UnknownProviderError,
)
from router.transitions import OVERRIDES, State, Transition, following
from tests.fakes.house import a_health, move, teach
from tests.fakes.ledger import MemoryStore

BY = "operator: ann of shop"
ORDERS: list[Mode] = ["forced_open", "bypass", "metrics_only"]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def overrides(store: MemoryStore, clock: ManualClock) -> Overrides:
    return Overrides(("stripe", "adyen"), store, clock=clock)


@pytest.fixture
def health(store: MemoryStore, clock: ManualClock) -> ProviderHealth:
    """A process that follows."""
    process: ProviderHealth = a_health(("stripe", "adyen"), store=store, clock=clock)
    return process


def in_state(state: State, health: ProviderHealth, overrides: Overrides, clock: ManualClock) -> None:
    """Bring stripe's circuit there."""
    if state in OVERRIDES:
        health.follow(overrides.order("stripe", state.value, reason="earlier", by=BY))  # type: ignore[arg-type]  # is one
        return
    for step in (State.OPEN, State.HALF_OPEN, State.SLOW_START, State.CLOSED):
        move(health, "stripe", step, clock)
        if step is state:
            return


@pytest.mark.parametrize("mode", ORDERS)
@pytest.mark.parametrize("before", list(State))
def test_an_order_holds_whatever_the_circuit_was(
    overrides: Overrides, health: ProviderHealth, clock: ManualClock, mode: Mode, before: State
) -> None:
    """A transition like any other, with who and why and from when."""
    in_state(before, health, overrides, clock)
    clock.advance(7)
    until = clock.now() + dt.timedelta(hours=1)
    ordered = overrides.order("stripe", mode, reason="a migration", by=BY, until=until)
    assert (ordered.state, ordered.reason, ordered.actor) == (MODES[mode], "a migration", BY)
    assert (ordered.at, ordered.until) == (clock.now(), until)
    health.sync_once()
    circuit = health.snapshot("stripe")
    assert (circuit.state, circuit.until, circuit.last) == (MODES[mode], until, ordered)
    assert health.snapshot("adyen").state is State.CLOSED


def test_forced_open_lets_nothing_through_however_long(
    overrides: Overrides, health: ProviderHealth, clock: ManualClock
) -> None:
    """Time alone ends nothing that has no end."""
    health.follow(overrides.order("stripe", "forced_open", reason="fraud", by=BY))
    clock.advance(7 * 86400)
    health.sync_once()
    assert health.admit("stripe") is None
    assert health.snapshot("stripe").until is None


@pytest.mark.parametrize("mode", ["bypass", "metrics_only"])
def test_bypass_and_metrics_only_admit_whatever_fails(
    overrides: Overrides, health: ProviderHealth, mode: Mode
) -> None:
    """Also after a release and an order anew."""
    health.follow(overrides.order("stripe", mode, reason="false alarm", by=BY))
    teach(health, Health.UNREACHABLE, 100)
    assert health.is_admitting("stripe")


# ---------------------------------------------------------------- back to automatic


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (State.FORCED_OPEN, State.OPEN),
        (State.BYPASS, State.CLOSED),
        (State.METRICS_ONLY, State.CLOSED),
    ],
)
def test_what_was_shut_is_probed_first_and_the_rest_comes_back_at_once(
    overrides: Overrides, health: ProviderHealth, clock: ManualClock, before: State, after: State
) -> None:
    """Nobody knows whether a provider that was sent nothing is well."""
    in_state(before, health, overrides, clock)
    released = overrides.order("stripe", "automatic", reason="over", by=BY)
    assert (released.state, released.actor, released.until, released.incident) == (after, BY, None, None)
    assert released.is_released is (after is State.OPEN)
    health.sync_once()
    assert health.is_admitting("stripe") is (after is State.CLOSED)


@pytest.mark.parametrize("before", [State.CLOSED, State.OPEN, State.HALF_OPEN, State.SLOW_START])
def test_what_is_automatic_cannot_be_released(
    overrides: Overrides, health: ProviderHealth, store: MemoryStore, clock: ManualClock, before: State
) -> None:
    """An open circuit is not closed by a word: the operator has bypass for that."""
    in_state(before, health, overrides, clock)
    rows = dict(store.rows)
    with pytest.raises(AlreadyAutomaticError):
        overrides.order("stripe", "automatic", reason="please", by=BY)
    with pytest.raises(AlreadyAutomaticError):
        overrides.order("adyen", "automatic", reason="please", by=BY)
    assert store.rows == rows


# ---------------------------------------------------------------- what is refused, and what changes nothing


def test_an_unknown_provider_is_refused(overrides: Overrides, store: MemoryStore) -> None:
    """Or a typing error would be on record, and the provider that was meant open."""
    with pytest.raises(UnknownProviderError):
        overrides.order("strip", "forced_open", reason="why", by=BY)
    assert store.rows == {}


@pytest.mark.parametrize("seconds", [0, -1, -86400])
def test_an_end_that_is_not_in_the_future_is_refused(
    overrides: Overrides, store: MemoryStore, clock: ManualClock, seconds: float
) -> None:
    """This very instant too."""
    with pytest.raises(EndsInThePastError):
        overrides.order("stripe", "bypass", reason="why", by=BY, until=clock.now() + dt.timedelta(seconds=seconds))
    assert store.rows == {}


def test_automatic_has_no_end(overrides: Overrides, clock: ManualClock) -> None:
    """Whoever gives one means something else, and must hear it."""
    overrides.order("stripe", "forced_open", reason="why", by=BY)
    with pytest.raises(AutomaticHasNoEndError):
        overrides.order("stripe", "automatic", reason="why", by=BY, until=clock.now() + dt.timedelta(hours=1))


@pytest.mark.parametrize("mode", ORDERS)
def test_the_same_order_again_changes_nothing(
    overrides: Overrides, store: MemoryStore, clock: ManualClock, mode: Mode
) -> None:
    """A request that was sent twice: one row, and the same answer."""
    until = clock.now() + dt.timedelta(hours=1)
    first = overrides.order("stripe", mode, reason="why", by=BY, until=until)
    clock.advance(5)
    assert overrides.order("stripe", mode, reason="why", by=BY, until=until) == first
    assert list(store.rows.values()) == [first]


def test_another_end_or_reason_is_a_new_order_in_the_same_state(
    overrides: Overrides, store: MemoryStore, clock: ManualClock
) -> None:
    """On record with its author; the state began when it began."""
    first = overrides.order("stripe", "forced_open", reason="why", by=BY)
    clock.advance(60)
    until = clock.now() + dt.timedelta(hours=1)
    second = overrides.order("stripe", "forced_open", reason="until the morning", by="operator: bob", until=until)
    assert (second.version, second.began, second.actor, second.until) == (2, first.at, "operator: bob", until)
    assert len(store.rows) == 2


def test_with_the_ledger_away_nothing_is_ordered(
    store: MemoryStore, clock: ManualClock, health: ProviderHealth
) -> None:
    """The operator hears so, rather than that it holds."""

    class Away(MemoryStore):
        def append(self, transition: Transition) -> bool:
            raise LedgerUnavailableError("OperationalError")

    with pytest.raises(LedgerUnavailableError):
        Overrides(("stripe",), Away(), clock=clock).order("stripe", "forced_open", reason="why", by=BY)
    assert health.is_admitting("stripe")


# ---------------------------------------------------------------- against the machine


@dataclasses.dataclass
class Busy(MemoryStore):
    """The circuit moves by itself between an order's look and its writing, so many times."""

    moves: int
    clock: ManualClock

    def __post_init__(self) -> None:
        super().__init__()

    def append(self, transition: Transition) -> bool:
        if self.moves:
            self.moves -= 1
            last = next(iter(self.latest([transition.provider])), None)
            state = State.CLOSED if last is not None and last.state is State.OPEN else State.OPEN
            moved = following(last, state, provider="stripe", at=self.clock.now(), actor="web:1", reason="by itself")
            assert super().append(moved)
        return super().append(transition)


def test_an_order_wins_against_the_machines_own_transitions(clock: ManualClock) -> None:
    """The circuit opened, and closed, in the same instant: the order follows on that."""
    store = Busy(2, clock)
    ordered = Overrides(("stripe",), store, clock=clock).order("stripe", "bypass", reason="why", by=BY)
    assert [row.state for row in store.rows.values()] == [State.OPEN, State.CLOSED, State.BYPASS]
    assert ordered.version == 3


def test_a_circuit_that_never_stands_still_is_an_error(clock: ManualClock) -> None:
    """Not an endless loop in a request."""
    with pytest.raises(RuntimeError, match="moves all the time"):
        Overrides(("stripe",), Busy(99, clock), clock=clock).order("stripe", "bypass", reason="w", by=BY)


# ---------------------------------------------------------------- reset


@pytest.mark.parametrize("before", list(State))
def test_a_reset_closes_the_circuit_and_forgets_what_was_counted_in_every_process(
    overrides: Overrides, health: ProviderHealth, store: MemoryStore, clock: ManualClock, before: State
) -> None:
    """From any state, closed too: empty windows, no failed rounds, calls in flight that no longer count."""
    other: ProviderHealth = a_health(("stripe",), store=store, clock=clock, actor="web:2")
    in_state(before, health, overrides, clock)
    other.sync_once()
    late = health.admit("stripe")
    for process in (health, other):
        if before is State.CLOSED:
            teach(process, Health.PROVIDER_ERROR, 9)
    if late is not None:
        late.begin()
    clock.advance(7)
    reset = overrides.order("stripe", "reset", reason="a new contract", by=BY)
    assert (reset.state, reset.failed_rounds, reset.suspect, reset.share) == (State.CLOSED, 0, False, 1.0)
    assert (reset.actor, reset.reason, reset.began) == (BY, "a new contract", clock.now())
    if late is not None:
        for process in (health, other):
            assert process.sync_once() == 1
        late.end(Health.PROVIDER_ERROR)
    for process in (health, other):
        process.sync_once()
        circuit = process.snapshot("stripe")
        assert (circuit.last, circuit.window.calls, circuit.slow.calls) == (reset, 0, 0)
        assert process.is_well("stripe")
        teach(process, Health.PROVIDER_ERROR, 9)
        assert process.is_admitting("stripe")


def test_the_first_row_of_a_circuit_may_be_a_reset(
    overrides: Overrides, health: ProviderHealth, clock: ManualClock
) -> None:
    """It never left closed, and nine calls failed."""
    teach(health, Health.PROVIDER_ERROR, 9)
    health.follow(overrides.order("stripe", "reset", reason="why", by=BY))
    assert health.snapshot("stripe").window.calls == 0


def test_the_same_reset_again_forgets_again(
    overrides: Overrides, health: ProviderHealth, store: MemoryStore, clock: ManualClock
) -> None:
    """What was counted since the first is another matter."""
    for _ in range(2):
        health.follow(overrides.order("stripe", "reset", reason="why", by=BY))
        assert health.snapshot("stripe").window.calls == 0
        teach(health, Health.PROVIDER_ERROR, 9)
    assert len(store.rows) == 2


def test_a_mark_of_the_same_moment_does_not_undo_a_reset(
    overrides: Overrides, health: ProviderHealth, clock: ManualClock
) -> None:
    """A mark goes on with what is counted; a reset begins anew, though both are closed before and after."""
    health.follow(overrides.order("stripe", "reset", reason="first", by=BY))
    teach(health, Health.PROVIDER_ERROR, 5)
    clock.advance(1)
    last = health.snapshot("stripe").last
    mark = following(
        last, State.CLOSED, provider="stripe", at=clock.now(), actor="web:1", reason="slow", suspect=True
    )
    assert health.propose(mark)
    assert health.snapshot("stripe").window.calls == 5
    health.follow(overrides.order("stripe", "reset", reason="second", by=BY))
    assert (health.snapshot("stripe").window.calls, health.snapshot("stripe").suspect) == (0, False)


def test_a_reset_forgets_failed_rounds_and_the_next_wait_is_the_first(
    overrides: Overrides, health: ProviderHealth, clock: ManualClock
) -> None:
    """A long outage is over by a person's word: what comes next is another."""
    opened = following(
        None, State.OPEN, provider="stripe", at=clock.now(), actor="web:1", reason="r", failed_rounds=7
    )
    assert health.propose(opened)
    reset = overrides.order("stripe", "reset", reason="a new contract", by=BY)
    assert reset.failed_rounds == 0
    health.follow(reset)
    teach(health, Health.PROVIDER_ERROR)
    assert (health.snapshot("stripe").state, health.snapshot("stripe").failed_rounds) == (State.OPEN, 0)


def test_a_reset_has_no_end(overrides: Overrides, store: MemoryStore, clock: ManualClock) -> None:
    """It is over as soon as it is done."""
    with pytest.raises(AutomaticHasNoEndError):
        overrides.order("stripe", "reset", reason="why", by=BY, until=clock.now() + dt.timedelta(hours=1))
    assert store.rows == {}
