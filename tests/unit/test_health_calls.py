"""Leave to call a provider: what each send counts as, what may be sent again, and that a place always comes back."""

from __future__ import annotations

import contextlib
from typing import cast

import pytest

from providers.contract import Health
from router.breaker import BreakerSettings
from router.clock import ManualClock
from router.health import OPERATIONS_WHILE_OPEN, Call, ProviderHealth
from router.resend_budget import RETRY_COST, TIMEOUT_RETRY_COST, TOKENS
from router.transitions import State, following
from tests.fakes.house import BREAKERS, a_health, move, teach
from tests.fakes.ledger import MemoryStore

NOT_ADMITTING = (State.OPEN, State.FORCED_OPEN)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def a_process(clock: ManualClock, *, at_once: int = 1000, settings: BreakerSettings = BREAKERS) -> ProviderHealth:
    store = MemoryStore()
    return cast(
        "ProviderHealth", a_health(("stripe", "adyen"), store=store, clock=clock, at_once=at_once, settings=settings)
    )


@pytest.fixture
def health(clock: ManualClock) -> ProviderHealth:
    return a_process(clock)


def admitted(health: ProviderHealth, provider: str = "stripe") -> Call:
    call = health.admit(provider)
    assert call is not None
    return call


def seen(health: ProviderHealth) -> tuple[int, int]:
    """Calls and failures that this process tells the others, after a look at what has ended."""
    health.watch_once()
    return health.stage_calls("stripe")


def spend(call: Call, reason: str | None) -> int:
    """Re-sends until the budget refuses one."""
    paid = 0
    while call.may_go_again(reason):
        paid += 1
        assert paid <= TOKENS
    return paid


# ---------------------------------------------------------------- begin


def test_nothing_is_sent_when_the_circuit_opened_after_the_leave_was_given(health: ProviderHealth) -> None:
    """Between the decision and the send lies a commit: long enough for ten calls of others to fail."""
    with admitted(health) as call:
        teach(health, Health.UNREACHABLE)
        assert not call.begin()
        call.end(Health.OK)  # nothing began: nothing is learned
    assert health.snapshot("stripe").window.calls == 10
    assert health.bulkhead("stripe").in_use == 0


@pytest.mark.parametrize("state", NOT_ADMITTING)
def test_nothing_is_sent_when_the_circuit_was_moved_meanwhile(
    health: ProviderHealth, clock: ManualClock, state: State
) -> None:
    """By another process, or by an operator."""
    with admitted(health) as call:
        move(health, "stripe", state, clock)
        assert not call.begin()
    assert health.admit("stripe") is None
    assert health.admit("adyen") is not None


# ---------------------------------------------------------------- end


def test_every_send_counts_in_the_circuit_and_only_the_first_for_the_fleet(
    health: ProviderHealth, clock: ManualClock
) -> None:
    """A re-send after a failure fails alike: for the CUSUM, and for the other processes, it is no second sign."""
    seen(health)
    with admitted(health) as call:
        for signal in (Health.PROVIDER_ERROR, Health.PROVIDER_ERROR, Health.OK):
            assert call.begin()
            clock.advance(0.1)
            call.end(signal)
    window = health.snapshot("stripe").window
    assert (window.calls, window.failures) == (3, 2)
    assert seen(health) == (1, 1)


def test_what_says_nothing_of_the_provider_counts_nowhere(health: ProviderHealth, clock: ManualClock) -> None:
    """Not in the circuit, not for the fleet; and a slow one is not slow either, once it has been given back."""
    seen(health)
    for _ in range(100):
        with admitted(health) as call:
            assert call.begin()
            clock.advance(30)
            call.end(Health.IGNORED)
    assert health.watch_once() == 0
    circuit = health.snapshot("stripe")
    assert (circuit.state, circuit.window.calls, circuit.slow.calls) == (State.CLOSED, 0, 0)
    assert seen(health) == (0, 0)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_an_interrupted_send_counts_nothing_and_gives_its_place_back(
    clock: ManualClock, interrupt: type[BaseException]
) -> None:
    """It goes on its way, and the only place is free for the next."""
    health = a_process(clock, at_once=1)
    for _ in range(3):
        with pytest.raises(interrupt), admitted(health) as call:  # noqa: PT012 - the block is what is tested
            assert call.begin()
            raise interrupt
    clock.advance(60)
    assert health.watch_once() == 0, "no call is in flight any more, so none is overdue"
    circuit = health.snapshot("stripe")
    assert (circuit.window.calls, circuit.slow.calls, circuit.slow.in_flight_overdue) == (0, 0, 0)
    assert health.bulkhead("stripe").in_use == 0


def test_a_send_that_ended_is_not_given_back_afterwards(health: ProviderHealth) -> None:
    """The failure stays counted when a commit after it is interrupted."""
    with contextlib.suppress(KeyboardInterrupt), admitted(health) as call:
        assert call.begin()
        call.end(Health.PROVIDER_ERROR)
        raise KeyboardInterrupt
    assert health.snapshot("stripe").window.failures == 1


# ---------------------------------------------------------------- credentials


def test_five_refusals_of_our_credentials_in_a_row_open_the_circuit(health: ProviderHealth) -> None:
    """An incident begins: no payment would pass there. In the window of failures they do not show."""
    teach(health, Health.CREDENTIALS_REFUSED, 4)
    assert health.is_admitting("stripe")
    teach(health, Health.CREDENTIALS_REFUSED, 1)
    circuit = health.snapshot("stripe")
    assert circuit.state is State.OPEN
    assert circuit.last is not None
    assert (circuit.last.reason, circuit.last.incident) == ("credentials refused", "inc_stripe_1")
    assert circuit.last.evidence["credentials_refused"] == 5
    assert circuit.last.evidence["failures"] == 0
    assert health.is_admitting("adyen")


@pytest.mark.parametrize("between", [Health.OK, Health.PROVIDER_ERROR])
def test_refusals_with_something_else_between_open_nothing(health: ProviderHealth, between: Health) -> None:
    """One restricted key among good ones, or a deployment that mends it half-way."""
    for _ in range(2):
        teach(health, Health.CREDENTIALS_REFUSED, 4)
        teach(health, between, 1)
    assert health.is_admitting("stripe")


def test_what_is_ignored_does_not_break_a_run_of_refusals(health: ProviderHealth) -> None:
    """It says nothing of anything."""
    for _ in range(4):
        teach(health, Health.CREDENTIALS_REFUSED, 1)
        teach(health, Health.IGNORED, 1)
    teach(health, Health.CREDENTIALS_REFUSED, 1)
    assert not health.is_admitting("stripe")


def test_refused_credentials_are_not_told_as_calls(health: ProviderHealth) -> None:
    """They are ours: other processes judge by their own."""
    seen(health)
    teach(health, Health.CREDENTIALS_REFUSED, 4)
    assert seen(health) == (0, 0)


# ---------------------------------------------------------------- the bulkhead


def test_a_full_bulkhead_gives_no_leave_at_once(clock: ManualClock) -> None:
    """The next provider has places of its own."""
    health = a_process(clock, at_once=2)
    first, second = admitted(health), admitted(health)
    assert health.readiness("stripe").busy
    assert health.admit("stripe") is None
    assert health.admit("adyen") is not None
    first.__exit__(None, None, None)
    assert not health.readiness("stripe").busy
    assert health.admit("stripe") is not None
    second.__exit__(None, None, None)


def test_a_place_that_was_never_used_for_a_send_comes_back(clock: ManualClock) -> None:
    """The commit before the send failed."""
    health = a_process(clock, at_once=1)
    with pytest.raises(OSError, match="disk"), admitted(health):
        raise OSError("disk")
    assert health.bulkhead("stripe").in_use == 0


def test_a_circuit_that_lets_nothing_through_takes_no_place(clock: ManualClock) -> None:
    """Or it would come back busy."""
    health = a_process(clock, at_once=1)
    move(health, "stripe", State.OPEN, clock)
    for _ in range(5):
        assert health.admit("stripe") is None
    assert health.bulkhead("stripe").in_use == 0


# ---------------------------------------------------------------- re-sends


@pytest.mark.parametrize(
    ("reason", "cost"),
    [("read_timeout", TIMEOUT_RETRY_COST), ("connection_reset", RETRY_COST), (None, RETRY_COST)],
)
def test_a_resend_is_paid_for_and_after_a_timeout_twice(
    health: ProviderHealth, reason: str | None, cost: int
) -> None:
    """From a full budget: a hundred, or fifty."""
    with admitted(health) as call:
        assert spend(call, reason) == TOKENS // cost


def test_an_empty_budget_leaves_first_sends_alone(health: ProviderHealth) -> None:
    """And five of them that go well at once pay for the next re-send."""
    with admitted(health) as call:
        spend(call, None)
        for paid in range(5):
            assert not call.may_go_again(None), paid
            teach(health, Health.OK, 1)
        assert call.may_go_again(None)


def test_a_resend_that_goes_well_earns_nothing(health: ProviderHealth) -> None:
    """Or re-sends would pay for re-sends."""
    with admitted(health) as call:
        spend(call, None)
        for signal in (Health.PROVIDER_ERROR, *[Health.OK] * 9):
            assert call.begin()
            call.end(signal)
        assert not call.may_go_again(None)


def test_each_provider_has_a_budget_of_its_own(health: ProviderHealth) -> None:
    """A lame one does not take the other's re-sends."""
    with admitted(health) as stripe, admitted(health, "adyen") as adyen:
        spend(stripe, "read_timeout")
        assert adyen.may_go_again("read_timeout")


@pytest.mark.parametrize("state", NOT_ADMITTING)
def test_nothing_goes_again_to_a_circuit_that_lets_nothing_through(
    health: ProviderHealth, clock: ManualClock, state: State
) -> None:
    """And nothing is paid for that."""
    with admitted(health) as call:
        move(health, "stripe", state, clock)
        assert not call.may_go_again(None)
        move(health, "stripe", State.CLOSED, clock)
        assert spend(call, None) == TOKENS // RETRY_COST


# ---------------------------------------------------------------- captures, voids and refunds


@pytest.mark.parametrize("state", [State.OPEN, State.HALF_OPEN, State.FORCED_OPEN])
def test_a_few_operations_pass_while_no_payment_may(health: ProviderHealth, clock: ManualClock, state: State) -> None:
    """A void must get through to a provider that limps; a hundred threads must not hang there."""
    if state is State.HALF_OPEN:
        move(health, "stripe", State.OPEN, clock)
    move(health, "stripe", state, clock)
    with contextlib.ExitStack() as under_way:
        taken = [under_way.enter_context(health.operating("stripe")) for _ in range(OPERATIONS_WHILE_OPEN + 2)]
        assert taken == [True] * OPERATIONS_WHILE_OPEN + [False] * 2
    with health.operating("stripe") as free:
        assert free, "all places have come back"


def test_operations_at_an_admitting_provider_have_no_limit(health: ProviderHealth) -> None:
    """Each belongs to a payment that was let through."""
    with contextlib.ExitStack() as under_way:
        assert all(under_way.enter_context(health.operating("stripe")) for _ in range(OPERATIONS_WHILE_OPEN * 3))


def test_an_operation_that_raises_gives_its_place_back(health: ProviderHealth, clock: ManualClock) -> None:
    """Interrupts too."""
    move(health, "stripe", State.OPEN, clock)
    for _ in range(OPERATIONS_WHILE_OPEN + 1):
        with pytest.raises(KeyboardInterrupt), health.operating("stripe") as free:  # noqa: PT012 - likewise
            assert free
            raise KeyboardInterrupt


# ---------------------------------------------------------------- what the decision is told


def test_a_closed_circuit_is_ready_for_all_payments(health: ProviderHealth) -> None:
    """With nothing to say."""
    readiness = health.readiness("stripe")
    assert (readiness.state, readiness.share, readiness.why, readiness.busy) == (State.CLOSED, 1.0, None, False)
    assert health.is_well("stripe")


def test_slow_start_and_suspicion_hold_payments_back_and_say_why(health: ProviderHealth, clock: ManualClock) -> None:
    """The decision shows it to whoever asks."""

    def moved(state: State, *, share: float = 1.0, suspect: bool = False) -> None:
        last = health.snapshot("stripe").last
        told = following(
            last, state, provider="stripe", at=clock.now(), actor="test", reason="why", share=share, suspect=suspect
        )
        assert health.propose(told)

    moved(State.CLOSED, suspect=True)
    suspect = health.readiness("stripe")
    assert (suspect.share, suspect.why) == (0.5, "suspect: 50% of its payments")
    assert health.is_admitting("stripe")
    assert not health.is_well("stripe")
    moved(State.SLOW_START, share=0.25)
    starting = health.readiness("stripe")
    assert (starting.state, starting.share, starting.why) == (
        *(State.SLOW_START, 0.25),
        "slow start: 25% of its payments",
    )
    assert health.is_admitting("stripe")
    assert not health.is_well("stripe")


@pytest.mark.parametrize("state", [State.BYPASS, State.METRICS_ONLY])
def test_an_overridden_circuit_takes_every_payment(health: ProviderHealth, clock: ManualClock, state: State) -> None:
    """Failures open nothing: the operator has said so. Yet none is moved to where failures would have opened it."""
    move(health, "stripe", state, clock)
    assert health.is_well("stripe")
    teach(health, Health.PROVIDER_ERROR, 50)
    assert health.readiness("stripe").share == 1.0
    assert health.is_well("stripe") is (state is State.BYPASS)
    assert health.snapshot("stripe").window.calls == (0 if state is State.BYPASS else 20)
