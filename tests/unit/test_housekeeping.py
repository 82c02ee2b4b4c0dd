"""What the worker ends, forgets and warns of by itself, and what it leaves alone."""

from __future__ import annotations

import datetime as dt

import pytest

from flags.contract import RoutingFlags
from providers.contract import (
    Health,
    LookUp,
    LookUpKind,
    ModificationKind,
    ModificationOutcome,
    Notice,
    NoticeKind,
    Outcome,
    OutcomeKind,
)
from router.housekeeping import LIMBO, Done
from router.ledger.engine import Database
from router.ledger.records import StaleError
from router.resolver import NOT_UNDONE
from tests.fakes.home import HOUR_S, Home
from tests.fakes.house import an_order
from tests.fakes.providers import ACTION, AUTHORIZED, CAPTURED, UNKNOWN

DAY_S = 86_400.0
NOWHERE = Outcome(OutcomeKind.REQUIRES_ACTION, Health.OK, next_action={"type": "redirect", "url": "u"})
"""A customer sent away, and no id of the provider's yet: Adyen's redirects."""
FOUND_WAITING = LookUp(LookUpKind.FOUND, ACTION)


# ---------------------------------------------------------------- customers who did not come back


@pytest.mark.parametrize("found", [FOUND_WAITING, LookUp(LookUpKind.UNSUPPORTED), LookUp(LookUpKind.NOT_FOUND)])
def test_a_payment_that_its_customer_abandoned_is_canceled_at_the_provider(home: Home, found: LookUp) -> None:
    """Not before its time; then its authorization is released, its reference is free, and nothing is left to do."""
    payment = home.awaiting()
    home.stripe.look_ups.append(found)
    home.clock.advance(HOUR_S - 1)
    assert home.housekeeping.run_once() == Done()
    home.clock.advance(1)
    assert home.housekeeping.run_once() == Done(canceled=1)
    ended, attempts, operations = home.now(payment)
    assert (ended.status, ended.next_action, ended.resolve_at) == ("canceled", None, None)
    assert not ended.holds_reference
    assert [each.outcome for each in attempts] == ["canceled"]
    assert [(each.kind, each.state, each.asked_by) for each in operations] == [("void", "done", "router: abandoned")]
    assert home.stripe.voided == ["ref_1"]
    assert home.housekeeping.run_once() == Done()


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (CAPTURED, "captured"),
        (Outcome(OutcomeKind.DECLINED, Health.OK), "declined"),
        (Outcome(OutcomeKind.CANCELED, Health.OK, provider_reference="ref_1"), "canceled"),
    ],
)
def test_what_was_completed_meanwhile_is_not_canceled(home: Home, found: Outcome, status: str) -> None:
    """The provider's own record says so, and no webhook has come: nothing is voided."""
    payment = home.awaiting()
    home.stripe.look_ups.append(LookUp(LookUpKind.FOUND, found))
    home.clock.advance(HOUR_S)
    assert home.housekeeping.run_once() == Done(canceled=1)
    assert home.status(payment) == status
    assert home.stripe.voided == []


@pytest.mark.parametrize(
    "found", [LookUp(LookUpKind.UNAVAILABLE), LookUp(LookUpKind.FOUND, Outcome(OutcomeKind.UNKNOWN, Health.OK))]
)
def test_a_provider_that_cannot_say_is_asked_again_a_minute_later(home: Home, found: LookUp) -> None:
    """The payment goes on waiting meanwhile, and may be completed."""
    payment = home.awaiting()
    home.stripe.look_ups.extend([found, FOUND_WAITING])
    home.clock.advance(HOUR_S)
    assert home.housekeeping.run_once() == Done()
    assert home.status(payment) == "requires_action"
    home.clock.advance(59)
    assert home.housekeeping.run_once() == Done()
    assert len(home.stripe.looked_up) == 1
    home.clock.advance(1)
    assert home.housekeeping.run_once() == Done(canceled=1)
    assert home.status(payment) == "canceled"


def test_a_void_that_is_refused_because_the_customer_finished_is_looked_up_again(home: Home) -> None:
    """Completed between our look and our cancel: the payment ends captured."""
    payment = home.awaiting()
    home.stripe.look_ups.extend([FOUND_WAITING, LookUp(LookUpKind.FOUND, CAPTURED)])
    home.stripe.answer = ModificationOutcome(ModificationKind.REFUSED, Health.OK, "payment_intent_unexpected_state")
    home.clock.advance(HOUR_S)
    assert home.housekeeping.run_once() == Done()
    assert home.status(payment) == "requires_action"
    home.clock.advance(60)
    assert home.housekeeping.run_once() == Done(canceled=1)
    assert home.status(payment) == "captured"


def test_a_void_whose_answer_is_lost_is_the_resolvers_to_send_again(home: Home) -> None:
    """Under the same key, until it is known; then the payment is canceled."""
    payment = home.awaiting()
    home.stripe.look_ups.append(FOUND_WAITING)
    home.stripe.answer = ModificationOutcome(ModificationKind.UNKNOWN, Health.PROVIDER_ERROR)
    home.clock.advance(HOUR_S)
    assert home.housekeeping.run_once() == Done()
    assert home.now(payment)[0].resolve_at is not None
    home.stripe.answer = ModificationOutcome(ModificationKind.DONE, Health.OK)
    assert home.resolver.run_once() == 1
    ended, _, operations = home.now(payment)
    assert (ended.status, len(operations)) == ("canceled", 1)


def test_a_redirect_without_an_id_is_voided_by_ours(home: Home) -> None:
    """Adyen has no look-up, and names a payment only when the customer comes back."""
    payment = home.awaiting(NOWHERE)
    home.stripe.look_ups.append(LookUp(LookUpKind.UNSUPPORTED))
    home.stripe.answer = ModificationOutcome(ModificationKind.RECEIVED, Health.OK)
    home.clock.advance(HOUR_S)
    assert home.housekeeping.run_once() == Done(canceled=1)
    ended, attempts, operations = home.now(payment)
    assert (ended.status, attempts[0].outcome) == ("canceled", "requires_action")
    assert [(each.kind, each.state) for each in operations] == [("void", "received")]
    assert home.stripe.voided == [attempts[0].id]


@pytest.mark.parametrize("outcome", [ACTION, NOWHERE])
def test_an_approval_after_the_end_is_refunded_by_itself(home: Home, outcome: Outcome) -> None:
    """The cancel was only received, came too late, and the customer was charged: never silently."""
    payment = home.awaiting(outcome)
    home.stripe.look_ups.append(LookUp(LookUpKind.UNSUPPORTED))
    home.stripe.answer = ModificationOutcome(ModificationKind.RECEIVED, Health.OK)
    home.clock.advance(HOUR_S)
    home.housekeeping.run_once()
    assert home.status(payment) == "canceled"
    (attempt,) = home.now(payment)[1]
    for number, kind in enumerate((NoticeKind.VOID_FAILED, NoticeKind.ATTEMPT)):
        told = CAPTURED if kind is NoticeKind.ATTEMPT else None
        home.inbox.store(
            "stripe",
            [Notice(f"n{number}", kind, kind.value, attempt_id=attempt.id, outcome=told)],
            now=home.clock.now(),
        )
    home.notices.run_once()
    assert home.now(payment)[0].resolve_at is not None
    home.resolver.run_once()
    ended, _, operations = home.now(payment)
    assert ("refund", "done") in [(each.kind, each.state) for each in operations]
    assert (ended.status, ended.resolve_at) == ("canceled", None)


def test_a_customer_is_not_waited_for_longer_because_another_attempt_is_in_doubt(database: Database) -> None:
    """The resolver looks for that one every minute; the customer's time began when the step was asked for."""
    home = Home(database, RoutingFlags(unknown_outcome_policy="void-and-fail-over"))
    home.stripe.outcomes.extend([UNKNOWN] * 1000)
    home.stripe.look_ups.extend([LookUp(LookUpKind.UNAVAILABLE)] * 1000)
    home.adyen.outcomes.append(ACTION)
    home.adyen.look_ups.append(FOUND_WAITING)
    payment = home.house.pay().payment
    assert payment.status == "requires_action"
    canceled = []
    for minute in range(1, 63):
        home.clock.advance(60)
        home.resolver.run_once()
        if home.housekeeping.run_once().canceled:
            canceled.append(minute)
    assert canceled == [60]
    assert home.adyen.voided == ["ref_1"]
    assert [each.outcome for each in home.now(payment)[1]] == ["unknown", "canceled"]


def test_a_payment_that_is_worked_on_is_left_alone(home: Home) -> None:
    """The customer is back: `complete` holds the lease, and the compare-and-set keeps us out."""
    payment = home.awaiting()
    home.clock.advance(HOUR_S)
    found = home.ledger.load(payment.id)
    assert found is not None
    journal = home.journals.open(*found)
    journal.claim()
    assert home.housekeeping.run_once() == Done()
    assert home.stripe.looked_up == []
    journal.finish({}, event="let_go")
    home.clock.advance(HOUR_S)
    assert home.housekeeping.run_once() == Done(canceled=1)


def test_a_customer_who_comes_back_at_the_same_moment_wins(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list was read, then the payment changed: our first commit is refused, and nothing is sent."""
    payment = home.awaiting()
    home.clock.advance(HOUR_S)
    stale = home.ledger.load(payment.id)
    assert stale is not None
    home.ledger.change(stale[0], {}, event="touched", now=home.clock.now())
    monkeypatch.setattr(home.ledger, "load", lambda _id: stale)
    with pytest.raises(StaleError):
        home.housekeeping._end_abandoned(payment.id)
    assert home.stripe.looked_up == home.stripe.voided == []


def test_a_customer_who_came_back_before_we_looked_is_left_alone(home: Home) -> None:
    """The list was read before `complete` took the lease: what is loaded says whose it is, and is not taken over."""
    payment = home.awaiting(NOWHERE)
    found = home.ledger.load(payment.id)
    assert found is not None
    home.clock.advance(HOUR_S)
    journal = home.journals.open(*found)
    journal.claim()
    with pytest.raises(StaleError):
        home.housekeeping._end_abandoned(payment.id)
    assert home.stripe.looked_up == home.stripe.voided == []
    journal.finish({}, event="let_go")


def test_a_lease_that_runs_is_nobody_elses(home: Home) -> None:
    """Whatever the others have loaded; its own journal goes on, even past the lease, until somebody takes it over."""
    payment = home.awaiting()
    held = home.journals.open(*home.now(payment))
    held.claim()
    taken = home.ledger.load(payment.id)
    assert taken is not None
    with pytest.raises(StaleError):
        home.journals.open(*taken).claim()
    with pytest.raises(StaleError):
        home.journals.open(*taken).finish({"status": "canceled"}, event="canceled")
    with pytest.raises(StaleError):
        home.ledger.change(taken[0], {"attention": LIMBO}, event="attention", now=home.clock.now())
    held.claim()
    home.clock.advance(HOUR_S)
    held.claim()
    home.clock.advance(HOUR_S)
    taken = home.ledger.load(payment.id)
    assert taken is not None
    heir = home.journals.open(*taken)
    heir.claim()
    with pytest.raises(StaleError):
        held.finish({}, event="too late")
    heir.finish({}, event="let_go")


def test_an_abandoned_customer_does_not_wait_for_another_providers_void(database: Database) -> None:
    """The first provider is away, and its void stays in doubt; the customer at the second one is ended anyway."""
    home = Home(database, RoutingFlags(unknown_outcome_policy="void-and-fail-over"))
    home.stripe.outcomes.extend([UNKNOWN] * 1000)
    home.stripe.look_ups.extend([LookUp(LookUpKind.UNSUPPORTED)] * 1000)
    home.stripe.answer = ModificationOutcome(ModificationKind.UNKNOWN, Health.PROVIDER_ERROR)
    home.adyen.outcomes.append(ACTION)
    home.adyen.look_ups.append(FOUND_WAITING)
    payment = home.house.pay().payment
    home.clock.advance(HOUR_S)
    home.resolver.run_once()
    assert [each.state for each in home.now(payment)[2]] == ["unknown"]
    assert home.housekeeping.run_once() == Done(canceled=1)
    assert home.adyen.voided == ["ref_1"]
    assert [each.outcome for each in home.now(payment)[1]] == ["unknown", "canceled"]


# ---------------------------------------------------------------- authorizations that are about to expire


def test_an_authorization_that_waits_for_another_to_be_void_is_put_before_an_operator(database: Database) -> None:
    """A day before it expires, once; the orphan at the first provider is still in doubt."""
    home = Home(database, RoutingFlags(unknown_outcome_policy="void-and-fail-over"))
    home.stripe.outcomes.extend([UNKNOWN] * 3)
    home.adyen.outcomes.append(AUTHORIZED)
    payment = home.house.pay().payment
    assert payment.status == "processing"
    home.clock.advance(4 * DAY_S - 60)
    assert home.housekeeping.run_once() == Done()
    home.clock.advance(60)
    assert home.housekeeping.run_once() == Done(warned=1)
    assert home.now(payment)[0].attention == LIMBO
    assert home.housekeeping.run_once() == Done()


def test_what_a_person_is_asked_about_already_is_not_overwritten(database: Database) -> None:
    """Else resolver and housekeeping would take turns, each minute, with an event and an alarm each."""
    home = Home(database, RoutingFlags(unknown_outcome_policy="void-and-fail-over"))
    home.stripe.outcomes.extend([UNKNOWN] * 3 + [AUTHORIZED])
    home.adyen.outcomes.append(AUTHORIZED)
    home.stripe.answer = ModificationOutcome(ModificationKind.REFUSED, Health.OK)
    payment = home.house.pay().payment
    for _ in range(10):
        home.clock.advance(61)
        home.resolver.run_once()
    assert home.now(payment)[0].attention == NOT_UNDONE
    home.clock.advance(4 * DAY_S)
    for _ in range(2):
        assert home.housekeeping.run_once() == Done()
        assert home.now(payment)[0].attention == NOT_UNDONE


# ---------------------------------------------------------------- what is forgotten


def test_keys_are_forgotten_after_thirty_days_save_those_of_open_payments(home: Home) -> None:
    """A replay within thirty days answers; an open payment's key lives on, however old."""
    home.house.pay(key="paid")
    home.house.pay(an_order(capture="manual"), key="in doubt")
    home.stripe.outcomes.append(AUTHORIZED)
    home.house.pay(an_order(capture="manual"), key="authorized")
    doubtful = home.ledger.get(home.ledger.find_key("m", "in doubt")[1])  # type: ignore[index] # it was just consumed
    assert doubtful is not None
    soon = home.clock.now() + dt.timedelta(days=400)
    home.ledger.change(doubtful[0], {"status": "captured", "resolve_at": soon}, event="told so", now=home.clock.now())
    home.clock.advance(30 * DAY_S)
    assert home.housekeeping.run_once().keys == 0
    home.clock.advance(0.001)
    assert home.housekeeping.run_once().keys == 1
    assert home.ledger.find_key("m", "paid") is None
    assert home.ledger.find_key("m", "in doubt") is not None
    assert home.ledger.find_key("m", "authorized") is not None


def test_what_is_forgotten_is_forgotten_in_batches(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round is bounded, a stop is never far away, and the next round goes on."""
    monkeypatch.setattr("router.housekeeping.BATCH", 2)
    monkeypatch.setattr("router.housekeeping.BATCHES", 2)
    for _ in range(5):
        home.house.pay()
    home.clock.advance(31 * DAY_S)
    home.stopping = True
    assert home.housekeeping.run_once().keys == 0
    home.stopping = False
    assert [home.housekeeping.run_once().keys for _ in range(3)] == [4, 1, 0]


def test_applied_notices_are_forgotten_and_waiting_ones_are_not(home: Home, database: Database) -> None:
    """Thirty days after they were applied, not after they came."""
    home.inbox.store("stripe", [Notice(f"n{n}", NoticeKind.OTHER, "other") for n in range(3)], now=home.clock.now())
    first, second, third = home.inbox.due(home.clock.now(), limit=10)
    home.inbox.applied(first.number, "ignored", now=home.clock.now())
    home.clock.advance(DAY_S)
    home.inbox.applied(second.number, "ignored", now=home.clock.now())
    home.clock.advance(29 * DAY_S + 1)
    assert home.housekeeping.run_once().webhooks == 1
    home.clock.advance(DAY_S)
    assert home.housekeeping.run_once().webhooks == 1
    assert [each.number for each in home.inbox.due(home.clock.now(), limit=10)] == [third.number]
