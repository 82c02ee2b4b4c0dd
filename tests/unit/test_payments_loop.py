"""The way of a payment over providers that answer as told: for every combination, the invariants of design §3."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flags.contract import RoutingFlags
from providers.contract import Decline, DeclineClass, Health, Outcome, OutcomeKind
from router.clock import SequentialIds
from router.ledger.engine import Database
from router.ledger.records import Attempt, Payment
from router.payments import NoEligibleProviderError, ProvidersUnavailableError
from router.sending import SENDS_IN_A_REQUEST
from router.transitions import State
from tests.fakes.house import House, an_order, build_house, move
from tests.fakes.providers import (
    ACTION,
    AUTHORIZED,
    CAPTURED,
    REFUSED,
    REJECTED,
    UNKNOWN,
    Call,
    FakeProvider,
    declined,
)

KEY_REFUSED = Outcome(OutcomeKind.NOT_EXECUTED, Health.CREDENTIALS_REFUSED, "credentials_refused", our_fault=True)
ORDER_OF_TRIAL = ("stripe", "adyen", "third")
"""The primary, then by name: without fees all are worth the same."""


def house_of(database: Database, *scripts: Sequence[Outcome] | Outcome, flags: RoutingFlags | None = None) -> House:
    """A process with a provider for each script, in the order in which they are tried."""
    named = zip(ORDER_OF_TRIAL, scripts, strict=False)
    providers = [FakeProvider(name, [each] if isinstance(each, Outcome) else each) for name, each in named]
    return build_house(database, providers, flags=flags, ids=_IDS)


def sends_of(outcome: Outcome) -> int:
    """How often an attempt is sent whose every send comes to this."""
    lost = outcome.kind is OutcomeKind.UNKNOWN and outcome.provider_reference is None
    return SENDS_IN_A_REQUEST if lost else 1


def called(house: House) -> dict[str, int]:
    """How often each provider was called."""
    return {name: len(provider.calls) for name, provider in house.providers.items()}


# ---------------------------------------------------------------- one rule at a time


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (CAPTURED, "captured"),
        (AUTHORIZED, "authorized"),
        (UNKNOWN, "processing"),
        (ACTION, "requires_action"),
        (declined(DeclineClass.HARD), "declined"),
        (declined(DeclineClass.FRAUD), "declined"),
        (declined(DeclineClass.AUTHENTICATION), "declined"),
        (declined(DeclineClass.INVALID), "declined"),
        (declined(cascade=False), "declined"),
    ],
)
def test_an_outcome_that_is_final_or_doubtful_is_the_end(database: Database, outcome: Outcome, status: str) -> None:
    """No other provider is called after it, whatever it was; only a doubt is sent again, to the same one."""
    house = house_of(database, [outcome] * SENDS_IN_A_REQUEST, CAPTURED)
    answer = house.pay(an_order(capture="manual" if outcome is AUTHORIZED else "automatic"))
    assert (answer.payment.status, answer.payment.provider) == (status, "stripe")
    assert called(house) == {"stripe": sends_of(outcome), "adyen": 0}


@pytest.mark.parametrize("first", [REFUSED, REJECTED, declined()])
def test_what_is_proved_not_to_have_charged_may_be_tried_elsewhere(database: Database, first: Outcome) -> None:
    """A refused connection, a rejected request, a soft decline: the next provider captures."""
    house = house_of(database, first, CAPTURED, CAPTURED)
    answer = house.pay()
    assert (answer.payment.status, answer.payment.provider) == ("captured", "adyen")
    assert [attempt.outcome for attempt in answer.attempts] == [first.kind.value, "approved"]
    assert called(house) == {"stripe": 1, "adyen": 1, "third": 0}


def test_a_team_that_switched_cascading_off_keeps_its_soft_declines(database: Database) -> None:
    """The decline is the answer; a refused connection still fails over."""
    flags = RoutingFlags(cascade_on_soft_decline=False)
    assert house_of(database, declined(), CAPTURED, flags=flags).pay().payment.status == "declined"
    assert house_of(database, REFUSED, CAPTURED, flags=flags).pay().payment.status == "captured"


def test_a_decline_stands_when_nobody_after_it_answered(database: Database) -> None:
    """The card was declined, then the second provider was unreachable: that is a decline, not an outage."""
    answer = house_of(database, declined(), REFUSED).pay()
    assert (answer.payment.status, answer.payment.provider) == ("declined", "stripe")
    assert answer.payment.decline is not None
    assert answer.payment.decline["code"] == "do_not_honor"


def test_a_soft_decline_is_forgotten_when_the_next_provider_approves(database: Database) -> None:
    """Checkout is told of the approval only; the decline stays with its attempt."""
    answer = house_of(database, declined(), CAPTURED).pay()
    assert answer.payment.decline is None
    assert answer.attempts[0].decline is not None


def test_an_unknown_after_a_refusal_is_processing_at_the_provider_that_may_have_acted(database: Database) -> None:
    """The third is not called: the second could have charged."""
    house = house_of(database, REFUSED, [UNKNOWN] * SENDS_IN_A_REQUEST, CAPTURED)
    answer = house.pay()
    assert (answer.payment.status, answer.payment.provider) == ("processing", "adyen")
    assert called(house)["third"] == 0


def test_a_capture_that_was_only_received_is_captured_and_pending(database: Database) -> None:
    """A webhook will confirm it."""
    received = Outcome(OutcomeKind.APPROVED, Health.OK, provider_reference="r", capture_pending=True)
    payment = house_of(database, received).pay().payment
    assert (payment.status, payment.capture_pending, payment.amount_captured) == ("captured", True, 1999)


def test_a_payment_that_every_provider_rejects_has_failed(database: Database) -> None:
    """Sending it again would change nothing, so it does not park."""
    answer = house_of(database, REJECTED, REJECTED).pay()
    assert (answer.payment.status, answer.payment.provider) == ("failed", None)
    assert answer.payment.next_try_at is None


@pytest.mark.parametrize("also", ["circuit", "flag"])
def test_a_payment_that_one_rejects_parks_while_another_is_only_unavailable(database: Database, also: str) -> None:
    """The provider that is down or switched off for now might well take it."""
    house = house_of(database, CAPTURED, REJECTED)
    if also == "circuit":
        move(house.health, "stripe", State.OPEN, house.clock)
    else:
        house.flags.flags = RoutingFlags(enabled={"stripe": False})
    assert house.pay().payment.status == "parked"


@pytest.mark.parametrize("other", [KEY_REFUSED, REJECTED], ids=["everywhere", "beside a rejection"])
def test_a_key_that_is_refused_is_no_rejection_of_the_payment(database: Database, other: Outcome) -> None:
    """A 401 or 403 at every provider: a person puts the keys right, and the accepted payment is taken then."""
    house = house_of(database, [KEY_REFUSED, CAPTURED], other)
    payment = house.pay().payment
    assert (payment.status, payment.next_try_at is not None) == ("parked", True)
    house.clock.advance(16)
    answer = house.payments.retry_parked(payment.id)
    assert answer is not None
    assert answer.payment.status == "captured"


def test_an_open_or_disabled_provider_gets_no_call(database: Database) -> None:
    """The flag is advice, the breaker is law: the primary's circuit is open, the second is switched off."""
    house = house_of(database, CAPTURED, CAPTURED, CAPTURED, flags=RoutingFlags(enabled={"adyen": False}))
    move(house.health, "stripe", State.OPEN, house.clock)
    assert house.pay().payment.provider == "third"
    assert called(house) == {"stripe": 0, "adyen": 0, "third": 1}


def test_a_circuit_that_opened_since_the_decision_is_respected(database: Database) -> None:
    """The second provider broke while the first was being asked."""
    house = house_of(database, REFUSED, CAPTURED, CAPTURED)
    house.providers["stripe"].during = lambda _call: move(house.health, "adyen", State.OPEN, house.clock)
    assert house.pay().payment.provider == "third"
    assert called(house)["adyen"] == 0


def test_with_every_circuit_open_a_payment_parks_and_is_called_for_nobody(database: Database) -> None:
    """Accepted, with an id, to be tried again after the parked retry's time."""
    house = house_of(database, CAPTURED, CAPTURED)
    for name in house.providers:
        move(house.health, name, State.OPEN, house.clock)
    answer = house.pay()
    assert (answer.payment.status, list(answer.attempts)) == ("parked", [])
    assert answer.payment.next_try_at is not None
    assert (answer.payment.next_try_at - house.clock.now()).total_seconds() == 15
    assert not answer.payment.in_progress(house.clock.now())
    assert called(house) == {"stripe": 0, "adyen": 0}


def test_checkout_that_does_not_want_to_wait_is_refused_and_nothing_is_created(database: Database) -> None:
    """With `fail` and no attempt there is no payment, and the key is free."""
    house = house_of(database, CAPTURED)
    move(house.health, "stripe", State.OPEN, house.clock)
    with pytest.raises(ProvidersUnavailableError):
        house.pay(an_order(when_unavailable="fail"), key="once")
    assert house.ledger.find_key("m", "once") is None


def test_checkout_that_does_not_want_to_wait_may_use_its_key_again_after_a_refused_attempt(
    database: Database,
) -> None:
    """The attempt stays on record with a failed payment; key and reference are free, and the next try captures."""
    house = house_of(database, [REFUSED, CAPTURED])
    order = an_order(when_unavailable="fail")
    with pytest.raises(ProvidersUnavailableError):
        house.pay(order, key="once")
    (first,) = house.ledger.ids_by_reference("m", order.reference, limit=9, before=None)
    found = house.ledger.get(first)
    assert found is not None
    assert (found[0].status, found[1][0].reason) == ("failed", "connection_refused")
    answer = house.pay(order, key="once")
    assert (answer.payment.status, answer.payment.id != first) == ("captured", True)


def test_a_payment_that_nobody_could_ever_take_is_refused_with_each_reason(database: Database) -> None:
    """Nothing is created, nobody is called, and no key is consumed."""
    house = build_house(database, [FakeProvider("stripe", ineligible="the amount is too small"), FakeProvider("new")])
    with pytest.raises(NoEligibleProviderError) as refusal:
        house.pay(key="once")
    assert refusal.value.reasons == {"stripe": "the amount is too small", "new": "no token for this provider"}
    assert house.ledger.find_key("m", "once") is None


# ---------------------------------------------------------------- every combination

KINDS = st.sampled_from(list(OutcomeKind))
DECLINES = st.builds(Decline, st.sampled_from(list(DeclineClass)), st.just("code"), st.just("said"), st.booleans())


@st.composite
def outcomes(draw: st.DrawFn) -> Outcome:
    """Any outcome that an adapter can answer."""
    kind = draw(KINDS)
    return Outcome(
        kind,
        draw(st.sampled_from(list(Health))),
        reason=draw(st.none() | st.just("reason")),
        provider_reference=None if kind is OutcomeKind.NOT_EXECUTED else "ref",
        captured=kind is OutcomeKind.APPROVED and draw(st.booleans()),
        capture_pending=kind is OutcomeKind.APPROVED and draw(st.booleans()),
        decline=draw(DECLINES) if kind is OutcomeKind.DECLINED else None,
        next_action={"type": "redirect", "url": "u"} if kind is OutcomeKind.REQUIRES_ACTION else None,
        our_fault=kind is OutcomeKind.NOT_EXECUTED and draw(st.booleans()),
    )


def may_go_on(outcome: Outcome, *, cascade: bool) -> bool:
    """The rule, said once more in the test's own words."""
    if outcome.kind is OutcomeKind.DECLINED and outcome.decline is not None:
        return cascade and outcome.decline.cascade and outcome.decline.decline_class is DeclineClass.SOFT
    return outcome.kind is OutcomeKind.NOT_EXECUTED


def expected_status(told: Sequence[Outcome], *, all_tried: bool, capture: str) -> str:
    """Where a payment stands after these outcomes, with `park`."""
    decisive = [each for each in told if each.kind is not OutcomeKind.NOT_EXECUTED]
    if not decisive:
        # A credential that is refused may be believed again.
        rejected = all(each.our_fault and each.health is not Health.CREDENTIALS_REFUSED for each in told)
        return "failed" if all_tried and rejected else "parked"
    last = decisive[-1]
    if last.kind is OutcomeKind.CANCELED:
        # The issuer's word, where there is one, says more than that nothing came of the last try.
        last = next((each for each in reversed(decisive) if each.kind is OutcomeKind.DECLINED), last)
    if last.kind is OutcomeKind.APPROVED:
        return "captured" if capture == "automatic" else "authorized"
    by_kind = {
        OutcomeKind.DECLINED: "declined",
        OutcomeKind.REQUIRES_ACTION: "requires_action",
        OutcomeKind.UNKNOWN: "processing",
        OutcomeKind.CANCELED: "canceled",
    }
    return by_kind[last.kind]


class Watch:
    """Looks, from inside every provider's call, at what the ledger holds at that moment."""

    def __init__(self, database: Database, house: House) -> None:
        self._database = database
        self._house = house
        self.calls: list[Call] = []
        self.seen: list[tuple[Payment, Sequence[Attempt]]] = []
        for provider in house.providers.values():
            provider.during = self

    def __call__(self, call: Call) -> None:
        pool = self._database.engine.pool
        assert pool.checkedout() == 0, "a transaction is open while a provider is called"  # type: ignore[attr-defined] # QueuePool's
        found = self._house.ledger.get(call.payment_id)
        assert found is not None, "the payment is not in the ledger"
        payment, attempts = found
        latest = attempts[-1]
        assert (latest.provider, latest.outcome, latest.finished_at) == (call.provider, None, None)
        assert (latest.idempotency_key, latest.params) == (call.idempotency_key, call.params)
        assert all(each.outcome is not None for each in attempts[:-1])
        assert [each.number for each in attempts] == list(range(1, len(attempts) + 1))
        assert payment.status == "processing"
        assert payment.in_progress(self._house.clock.now())
        self.calls.append(call)


@example(scripts=[CAPTURED, CAPTURED], cascade=True, unavailable="park", capture="automatic", shut=set())
@example(scripts=[UNKNOWN, CAPTURED], cascade=True, unavailable="park", capture="automatic", shut=set())
@example(
    scripts=[declined(), REFUSED, UNKNOWN], cascade=True, unavailable="fail", capture="automatic", shut={"third"}
)
@example(scripts=[REJECTED, REJECTED], cascade=True, unavailable="fail", capture="automatic", shut=set())
@given(
    scripts=st.lists(outcomes(), min_size=2, max_size=3),
    cascade=st.booleans(),
    unavailable=st.sampled_from(["park", "fail"]),
    capture=st.sampled_from(["automatic", "manual"]),
    shut=st.sets(st.sampled_from(ORDER_OF_TRIAL), max_size=2),
)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_providers_answer_the_invariants_hold(
    database: Database, scripts: list[Outcome], cascade: bool, unavailable: str, capture: str, shut: set[str]
) -> None:
    """Written before called, one attempt a provider, none after what may have charged, the status that follows."""
    named = dict(zip(ORDER_OF_TRIAL, scripts, strict=False))
    house = build_house(
        database,
        [FakeProvider(name, [outcome] * SENDS_IN_A_REQUEST) for name, outcome in named.items()],
        flags=RoutingFlags(cascade_on_soft_decline=cascade),
        ids=_IDS,
    )
    shut &= named.keys()
    for name in shut:
        move(house.health, name, State.OPEN, house.clock)
    open_names = [name for name in named if name not in shut]
    going_on = [may_go_on(named[name], cascade=cascade) for name in open_names]
    tried = open_names[: 1 + len(list(itertools.takewhile(bool, going_on)))]
    told = [named[name] for name in tried]
    watch = Watch(database, house)
    order, key = an_order(when_unavailable=unavailable, capture=capture), f"key-{next(_NUMBERS)}"

    status = expected_status(told, all_tried=not shut, capture=capture)
    placed = any(each.kind is not OutcomeKind.NOT_EXECUTED for each in told)
    if unavailable == "fail" and not placed and status != "failed":
        with pytest.raises(ProvidersUnavailableError):
            house.pay(order, key=key)
        assert house.ledger.find_key("m", key) is None
        status = "failed"
    else:
        house.pay(order, key=key)

    sends = [name for name in tried for _ in range(sends_of(named[name]))]
    assert [call.provider for call in watch.calls] == sends
    assert house.health.learned == [(name, named[name].health) for name in sends]
    ids = house.ledger.ids_by_reference("m", order.reference, limit=9, before=None)
    assert len(ids) == (0 if unavailable == "fail" and not tried else 1)
    for payment_id in ids:
        found = house.ledger.get(payment_id)
        assert found is not None
        payment, attempts = found
        assert payment.status == status
        assert [(each.provider, each.outcome) for each in attempts] == [
            (name, named[name].kind.value) for name in tried
        ]
        keys = {call.provider: call.idempotency_key for call in watch.calls}
        assert [each.idempotency_key for each in attempts] == [keys[name] for name in tried]
        assert [each.sends for each in attempts] == [sends_of(named[name]) for name in tried]
        assert sum(each.outcome == "approved" for each in attempts) <= 1
        assert payment.amount_captured == (payment.amount if status == "captured" else 0)
        assert (payment.lease_holder, payment.lease_until) == (None, None)
        assert (payment.decline is not None) == (status == "declined")
        assert (payment.next_action is not None) == (status == "requires_action")


_IDS = SequentialIds()
_NUMBERS = itertools.count()
