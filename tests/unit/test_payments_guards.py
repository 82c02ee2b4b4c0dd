"""The way of a payment past the guards: a circuit that opens meanwhile, a full bulkhead, re-sends that cost."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
from typing import Any

import pytest

from providers.contract import Health, ModificationOutcome, Outcome, OutcomeKind
from router.ledger.engine import Database
from router.ledger.operations import Operation
from router.ledger.records import Attempt
from router.resend_budget import TOKENS
from router.sending import Sender
from router.transitions import State
from tests.fakes.house import TIMES, House, an_order, build_house, move, teach
from tests.fakes.ledger import MoodyLedger
from tests.fakes.providers import CAPTURED, DONE, UNKNOWN, FakeProvider

TIMED_OUT = Outcome(OutcomeKind.UNKNOWN, Health.PROVIDER_ERROR, reason="read_timeout")
OURS = Outcome(OutcomeKind.NOT_EXECUTED, Health.IGNORED, reason="http_400", our_fault=True)


@pytest.fixture
def stripe() -> FakeProvider:
    return FakeProvider("stripe")


@pytest.fixture
def adyen() -> FakeProvider:
    return FakeProvider("adyen")


@pytest.fixture
def house(database: Database, stripe: FakeProvider, adyen: FakeProvider) -> House:
    return build_house(database, [stripe, adyen], ledger=MoodyLedger(database))


def after_the_commit(house: House, monkeypatch: pytest.MonkeyPatch, happens: Any) -> None:
    """Let something happen between the commit of the first attempt and its send."""
    create = house.ledger.create

    def and_then(*args: Any, **named: Any) -> None:
        create(*args, **named)
        happens()

    monkeypatch.setattr(house.ledger, "create", and_then)


def fill(house: House, stack: contextlib.ExitStack, provider: str = "stripe") -> None:
    """Take every place there is at a provider."""
    for _ in range(house.health.bulkhead(provider).permits):
        call = house.health.admit(provider)
        assert call is not None
        stack.enter_context(call)


# ---------------------------------------------------------------- a circuit that opens meanwhile


def test_nothing_is_sent_to_a_circuit_that_opened_after_the_commit(
    house: House, stripe: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt is on record as not executed, and the payment is made elsewhere."""
    after_the_commit(house, monkeypatch, lambda: teach(house.health, Health.UNREACHABLE))
    answer = house.pay()
    assert (answer.payment.status, answer.payment.provider) == ("captured", "adyen")
    assert stripe.calls == []
    first, _ = answer.attempts
    assert (first.provider, first.outcome, first.reason) == ("stripe", "not_executed", "circuit_opened")
    assert house.health.snapshot("stripe").last is not None
    assert house.health.bulkhead("stripe").in_use == 0


def test_an_attempt_that_was_sent_is_not_taken_for_unsent_when_its_resend_is_held_back(
    house: House, stripe: FakeProvider, adyen: FakeProvider
) -> None:
    """The first send is in doubt and opens the circuit: no re-send, no other provider, and the doubt remains."""
    teach(house.health, Health.PROVIDER_ERROR, 9)
    stripe.outcomes.extend([UNKNOWN] * 3)
    answer = house.pay()
    assert (answer.payment.status, len(stripe.calls), len(adyen.calls)) == ("processing", 1, 0)
    assert [(each.outcome, each.sends) for each in answer.attempts] == [("unknown", 1)]
    assert house.health.snapshot("stripe").state is State.OPEN


def test_a_circuit_that_opens_while_a_resend_waits_stops_it(
    house: House, stripe: FakeProvider, adyen: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two sends others fail."""
    stripe.outcomes.extend([UNKNOWN] * 3)
    monkeypatch.setattr(house.clock, "sleep", lambda _seconds: move(house.health, "stripe", State.OPEN, house.clock))
    answer = house.pay()
    assert (answer.payment.status, len(stripe.calls), len(adyen.calls)) == ("processing", 1, 0)
    assert [(each.outcome, each.reason) for each in answer.attempts] == [("unknown", "http_503")]


def test_every_send_of_an_attempt_counts_in_the_circuit(house: House, stripe: FakeProvider) -> None:
    """Three sends, of which two failed; the fleet hears of the first alone."""
    house.health.stage_calls("stripe")
    stripe.outcomes.extend([UNKNOWN, UNKNOWN, CAPTURED])
    assert house.pay().payment.status == "captured"
    window = house.health.snapshot("stripe").window
    assert (window.calls, window.failures) == (3, 2)
    house.health.watch_once()
    assert house.health.stage_calls("stripe") == (1, 1)


def test_our_own_faults_count_nowhere(house: House, stripe: FakeProvider) -> None:
    """Thirty rejected requests leave the provider in use."""
    stripe.outcomes.extend([OURS] * 30)
    for _ in range(30):
        house.pay()
    assert house.health.snapshot("stripe").window.calls == 0
    assert house.health.is_well("stripe")


# ---------------------------------------------------------------- re-sends cost


@pytest.mark.parametrize(("outcome", "resends"), [(UNKNOWN, TOKENS // 5), (TIMED_OUT, TOKENS // 10)])
def test_an_empty_budget_ends_resends_and_no_first_send(
    house: House, stripe: FakeProvider, outcome: Outcome, resends: int
) -> None:
    """In an outage the load on the provider is hardly more than its payments; a timeout's re-send costs double."""
    move(house.health, "stripe", State.BYPASS, house.clock)  # or the circuit would end them first
    payments = resends
    stripe.outcomes.extend([outcome] * 3 * payments)
    for _ in range(payments):
        house.pay()
    assert len(stripe.calls) == payments + resends


# ---------------------------------------------------------------- a full bulkhead


def test_a_provider_whose_places_are_all_taken_is_passed_over(house: House, stripe: FakeProvider) -> None:
    """The decision says so."""
    with contextlib.ExitStack() as stack:
        fill(house, stack)
        answer = house.pay()
    assert (answer.payment.status, answer.payment.provider) == ("captured", "adyen")
    assert stripe.calls == []
    (candidate,) = [each for each in answer.payment.decision["candidates"] if each["provider"] == "stripe"]
    assert not candidate["eligible"]
    assert "too many calls under way" in candidate["reasons"]
    assert house.pay().payment.provider == "stripe", "all places have come back"


def test_a_place_that_is_taken_between_the_decision_and_the_call_is_missed_without_waiting(
    house: House, stripe: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next provider of the decision is tried."""
    admit = house.health.admit
    monkeypatch.setattr(
        house.health, "admit", lambda name, *args, **named: None if name == "stripe" else admit(name, *args, **named)
    )
    answer = house.pay()
    assert (answer.payment.status, answer.payment.provider) == ("captured", "adyen")
    assert [each.provider for each in answer.attempts] == ["adyen"]
    assert stripe.calls == []


def test_with_every_place_taken_everywhere_a_payment_is_parked(house: House) -> None:
    """As when every circuit is open; and it is paid when there is room."""
    with contextlib.ExitStack() as stack:
        for provider in ("stripe", "adyen"):
            fill(house, stack, provider)
        answer = house.pay(an_order(when_unavailable="park"))
        assert (answer.payment.status, list(answer.attempts)) == ("parked", [])
    house.clock.advance(15)
    paid = house.payments.retry_parked(answer.payment.id)
    assert paid is not None
    assert paid.payment.status == "captured"


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_payment_gives_its_place_back(
    house: House, stripe: FakeProvider, interrupt: type[BaseException]
) -> None:
    """It goes on its way, and counts nowhere."""

    def stop(_call: object) -> None:
        raise interrupt

    stripe.during = stop
    with pytest.raises(interrupt):
        house.pay()
    assert house.health.bulkhead("stripe").in_use == 0
    assert house.health.snapshot("stripe").window.calls == 0
    house.clock.advance(60)
    assert house.health.watch_once() == 0


# ---------------------------------------------------------------- captures, voids and refunds


def test_an_operation_for_which_there_is_no_room_is_not_sent_and_says_so(
    house: House, stripe: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The resolver sends it later, for the first time."""
    now = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
    operation = Operation("op_1", "pay_1", "att_1", "void", 1999, "stripe", "op_1", "started", "checkout", now)
    attempt = Attempt("att_1", "pay_1", 1, "stripe", "att_1", {}, started_at=now, provider_reference="ref_1")
    sent: list[str] = []

    def void(*_args: Any, **_named: Any) -> ModificationOutcome:
        sent.append("void")
        return DONE

    monkeypatch.setattr(stripe, "void", void)
    sender = Sender(
        {"stripe": stripe}, TIMES, clock=house.clock, random=lambda: 0.5, operating=house.health.operating
    )
    move(house.health, "stripe", State.OPEN, house.clock)
    with contextlib.ExitStack() as under_way:
        while under_way.enter_context(house.health.operating("stripe")):
            pass
        assert sender.operate(operation, attempt, "EUR", 20.0) == dataclasses.replace(operation, sends=0)
        assert sent == []
    done = sender.operate(operation, attempt, "EUR", 20.0)
    assert (done.state, sent) == ("done", ["void"])
