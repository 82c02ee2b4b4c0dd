"""A provider whose circuit is open gets few calls about existing attempts; next to none that can wait: §3.6."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack

import pytest

from providers.contract import Health, OutcomeKind
from router.clock import ManualClock
from router.health import OPERATIONS_WHILE_OPEN
from router.ledger.records import Payment
from router.resolver import HELD_BACK_AT_MOST
from router.sending import HELD_BACK, Sender
from router.transitions import State
from tests.fakes.home import HOUR_S, Home
from tests.fakes.house import TIMES, move
from tests.fakes.providers import CAPTURED, UNKNOWN, FakeProvider
from tests.unit.test_sending import ATTEMPT


def asked(provider: FakeProvider) -> int:
    """Calls of any kind."""
    return len(provider.calls) + len(provider.looked_up)


@pytest.fixture
def doubtful(home: Home) -> Payment:
    """A payment whose answers were all lost, at a provider whose circuit has opened since."""
    home.stripe.outcomes.extend([UNKNOWN] * 3)
    payment = home.house.pay().payment
    assert payment.status == "processing"
    move(home.house.health, "stripe", State.OPEN, home.clock)
    return payment


@pytest.mark.parametrize("state", [State.OPEN, State.HALF_OPEN])
def test_what_is_in_doubt_waits_for_the_probes(home: Home, doubtful: Payment, state: State) -> None:
    """Nothing is asked, and nothing is written; once the circuit lets payments through it is found out at once."""
    if state is State.HALF_OPEN:
        move(home.house.health, "stripe", state, home.clock)
    before, version = asked(home.stripe), home.now(doubtful)[0].version
    for _ in range(9):
        home.clock.advance(61)
        assert home.resolver.run_once() == 0
    assert (asked(home.stripe), home.now(doubtful)[0].version) == (before, version)
    move(home.house.health, "stripe", State.CLOSED, home.clock)
    home.stripe.outcomes.append(CAPTURED)
    assert home.resolver.run_once() == 1
    assert home.status(doubtful) == "captured"


def test_what_waits_for_ten_minutes_has_a_round_and_the_provider_one_call_a_minute(
    home: Home, doubtful: Payment
) -> None:
    """The probes may fail for a reason of their own. And as one of many it would be asked about after an hour."""
    others = [an_attempt_in_doubt(home) for _ in range(3)]
    before = asked(home.stripe)
    home.clock.advance(HELD_BACK_AT_MOST.total_seconds() + 2)
    for _ in range(5):
        home.resolver.run_once()
    assert asked(home.stripe) == before, "the first call is a minute after it was wanted"
    home.clock.advance(HELD_BACK_AT_MOST.total_seconds() + 62)
    home.stripe.outcomes.append(CAPTURED)
    assert home.resolver.run_once() == 1
    assert asked(home.stripe) == before + 1
    assert sorted(home.status(each) for each in (doubtful, *others)) == ["captured"] + ["processing"] * 3


def an_attempt_in_doubt(home: Home) -> Payment:
    """One more, from before the circuit opened."""
    move(home.house.health, "stripe", State.CLOSED, home.clock)
    home.stripe.outcomes.extend([UNKNOWN] * 3)
    payment = home.house.pay().payment
    move(home.house.health, "stripe", State.OPEN, home.clock)
    assert payment.status == "processing"
    return payment


def test_payments_elsewhere_go_on(home: Home, doubtful: Payment) -> None:
    """One provider's outage holds up nothing at another."""
    home.adyen.outcomes.extend([UNKNOWN] * 3)
    other = home.house.pay().payment
    assert (other.status, other.provider) == ("processing", "adyen")
    home.adyen.outcomes.append(CAPTURED)
    home.clock.advance(61)
    assert home.resolver.run_once() == 1
    assert (home.status(other), home.status(doubtful)) == ("captured", "processing")


def test_a_circuit_that_an_operator_forced_open_is_no_reason_to_wait(home: Home, doubtful: Payment) -> None:
    """No probes will say when it is well, and it may be: only a few calls at once."""
    move(home.house.health, "stripe", State.FORCED_OPEN, home.clock)
    home.clock.advance(61)
    with ExitStack() as under_way:
        for _ in range(OPERATIONS_WHILE_OPEN):
            assert under_way.enter_context(home.house.health.operating("stripe"))
        before = asked(home.stripe)
        assert home.resolver.run_once() == 0
        assert asked(home.stripe) == before
    home.stripe.outcomes.append(CAPTURED)
    home.clock.advance(61)
    assert home.resolver.run_once() == 1
    assert home.status(doubtful) == "captured"


def test_an_abandoned_payment_is_looked_up_when_the_circuit_has_closed(home: Home) -> None:
    """It stays as it is, and is looked at again."""
    payment = home.awaiting()
    before = asked(home.stripe)
    move(home.house.health, "stripe", State.OPEN, home.clock)
    home.clock.advance(HOUR_S)
    assert home.housekeeping.run_once().canceled == 0
    assert (asked(home.stripe), home.status(payment)) == (before, "requires_action")
    move(home.house.health, "stripe", State.CLOSED, home.clock)
    home.clock.advance(61)
    assert home.housekeeping.run_once().canceled == 1


def test_a_customers_step_that_is_held_back_is_in_doubt_and_tried_again() -> None:
    """Here for a moment, and by checkout or the resolver after that; nothing was sent, and nothing is refused."""
    provider, clock, places = FakeProvider("stripe"), ManualClock(), [False, False, True]

    @contextlib.contextmanager
    def operating(_provider: str) -> Iterator[bool]:
        yield places.pop(0)

    def closed(_provider: str) -> AbstractContextManager[bool]:
        return contextlib.nullcontext(False)

    sender = Sender({"stripe": provider}, TIMES, clock=clock, random=lambda: 0.5, operating=operating)
    assert sender.complete(ATTEMPT, {"a": "b"}, clock.monotonic() + 20).kind is OutcomeKind.APPROVED
    sender = Sender({"stripe": provider}, TIMES, clock=clock, random=lambda: 0.5, operating=closed)
    told = sender.complete(ATTEMPT, {"a": "b"}, clock.monotonic() + 20)
    assert (told.kind, told.health, told.reason, told.our_fault) == (
        OutcomeKind.UNKNOWN,
        Health.IGNORED,
        HELD_BACK,
        False,
    )
