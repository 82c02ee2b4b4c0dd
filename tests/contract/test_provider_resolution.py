"""How an attempt of unknown outcome is brought to an end: looked up, voided by our own id, or completed.

The books are the truth again: a look-up that finds what is not there, or a void that leaves money held, is a lie.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import urllib3

from providers import stripe_look_up
from providers.contract import (
    DeclineClass,
    Health,
    LookUp,
    LookUpKind,
    ModificationKind,
    Money,
    Outcome,
    OutcomeKind,
    Timeouts,
)
from providers.sandbox.server import Sandbox
from tests.contract.case import PATIENT, SHORT, Case
from tests.contract.drivers import ADYEN, STRIPE

RETURN_URL = "https://shop.example/return"


@pytest.fixture
def stripe_case(sandbox: Sandbox) -> Case:
    """Stripe, which can be looked up."""
    return Case(STRIPE, STRIPE.connect(sandbox, STRIPE.good_key, 8), sandbox)


@pytest.fixture
def adyen_case(sandbox: Sandbox) -> Case:
    """Adyen, which can void by our reference."""
    return Case(ADYEN, ADYEN.connect(sandbox, ADYEN.good_key, 8), sandbox)


def look_up(
    case: Case,
    attempt: str = "att_1",
    reference: str | None = None,
    *,
    timeouts: Timeouts = PATIENT,
) -> LookUp:
    """Looked for in the instant of the call, or by the provider's id."""
    now = dt.datetime.now(dt.UTC)
    return case.provider.look_up(
        attempt, provider_reference=reference, sent_from=now, sent_until=now, timeouts=timeouts
    )


def complete(case: Case, reference: str | None, details: dict[str, Any], **more: Any) -> Outcome:
    """After the customer's step, with the attempt's id."""
    given: dict[str, Any] = {"capture": "automatic", "timeouts": PATIENT, "attempt_id": "att_1", **more}
    return case.provider.complete(reference, details, idempotency_key="att_1-complete", **given)


def ways_of_asking(case: Case, reference: str) -> dict[str, Callable[[], LookUp]]:
    """By the provider's id, and among what was made at that time."""
    return {"by id": lambda: look_up(case, reference=reference), "by time": lambda: look_up(case)}


# ---------------------------------------------------------------- look-up


@pytest.mark.parametrize("mode", ["lose_reply", "hang"])
def test_a_charge_whose_answer_was_lost_is_found(stripe_case: Case, mode: str) -> None:
    """One charge in the books, and the look-up names it."""
    stripe_case.break_it(mode, calls="authorize")
    assert stripe_case.charge(SHORT).kind is OutcomeKind.UNKNOWN
    found = look_up(stripe_case)
    assert found.kind is LookUpKind.FOUND
    assert found.outcome == Outcome(
        OutcomeKind.APPROVED, Health.OK, provider_reference=stripe_case.only_charge()["id"], captured=True
    )


def test_an_acquirers_fault_whose_answer_was_lost_is_found_as_nothing_charged(stripe_case: Case) -> None:
    """The intent itself says that it holds nothing."""
    stripe_case.break_it("lose_reply", calls="authorize")
    assert stripe_case.charge(SHORT, token=stripe_case.driver.acquirer_fault).kind is OutcomeKind.UNKNOWN
    found = look_up(stripe_case).outcome
    assert found is not None
    assert (found.kind, found.reason, found.final_record) == (OutcomeKind.NOT_EXECUTED, "acquirer_error", True)
    assert stripe_case.books() == []


@pytest.mark.parametrize("way", ["the answer", "by id", "by time"])
@pytest.mark.parametrize(
    ("brand", "code", "decline_class", "cascade", "advice"),
    [
        ("visa", "01", DeclineClass.SOFT, True, "try_again_later"),
        ("visa", "03", DeclineClass.SOFT, True, "try_again_later"),
        ("mastercard", "01", DeclineClass.INVALID, False, "01"),
        ("mastercard", "03", DeclineClass.HARD, False, "03"),
        ("mastercard", "24", DeclineClass.SOFT, False, "24"),
    ],
)
def test_a_networks_advice_is_read_by_the_cards_brand_wherever_stripe_tells_it(
    stripe_case: Case, way: str, brand: str, code: str, decline_class: DeclineClass, cascade: bool, advice: str
) -> None:
    """Mastercard's numbers are no advice for a Visa card."""
    outcome = stripe_case.charge(token=f"pm_sandbox_{brand}_advice_{code}")
    if way != "the answer":
        found = ways_of_asking(stripe_case, str(outcome.provider_reference))[way]().outcome
        assert found is not None
        outcome = found
    assert outcome.decline is not None
    assert (outcome.decline.decline_class, outcome.decline.cascade, outcome.decline.advice) == (
        decline_class,
        cascade,
        advice,
    )


def test_a_request_that_was_dropped_is_not_found(stripe_case: Case) -> None:
    """Stripe has nothing of it, among others that it has."""
    stripe_case.charge(attempt_id="att_0")
    stripe_case.break_it("drop_request", calls="authorize")
    assert stripe_case.charge(SHORT).kind is OutcomeKind.UNKNOWN
    assert look_up(stripe_case) == LookUp(LookUpKind.NOT_FOUND)


def test_an_id_that_stripe_does_not_have_is_not_found(stripe_case: Case) -> None:
    """The vendor says `resource_missing`."""
    assert look_up(stripe_case, reference="pi_none").kind is LookUpKind.NOT_FOUND


@pytest.mark.parametrize("way", ["by id", "by time"])
def test_a_look_up_tells_how_the_attempt_stands_now(stripe_case: Case, way: str) -> None:
    """Held, captured, canceled, declined or waiting for the customer."""

    def stands(reference: str) -> OutcomeKind:
        found = ways_of_asking(stripe_case, reference)[way]()
        assert found.outcome is not None
        assert found.outcome.provider_reference == reference
        stripe_case.sandbox.reset()
        return found.outcome.kind

    held = stripe_case.charge(capture="manual").provider_reference
    assert held is not None
    found = ways_of_asking(stripe_case, held)[way]().outcome
    assert found is not None
    assert (found.kind, found.captured) == (OutcomeKind.APPROVED, False)
    stripe_case.provider.void(held, idempotency_key="void_1", timeouts=PATIENT)
    assert stands(held) is OutcomeKind.CANCELED
    declined = stripe_case.charge(token="pm_card_visa_chargeDeclinedLostCard")
    assert stands(str(declined.provider_reference)) is OutcomeKind.DECLINED
    waiting = stripe_case.charge(token=stripe_case.driver.requires_action, return_url=RETURN_URL)
    assert stands(str(waiting.provider_reference)) is OutcomeKind.REQUIRES_ACTION


def test_a_refunded_payment_is_found_as_it_was_captured(stripe_case: Case) -> None:
    """A refund is an operation of its own, and changes nothing of how the attempt ended."""
    reference = stripe_case.charge().provider_reference
    assert reference is not None
    refund = stripe_case.provider.refund(reference, Money(1999, "EUR"), idempotency_key="ref_1", timeouts=PATIENT)
    assert refund.kind is ModificationKind.DONE
    found = look_up(stripe_case).outcome
    assert found is not None
    assert (found.kind, found.captured) == (OutcomeKind.APPROVED, True)


def test_a_look_up_by_the_id_of_another_attempt_is_not_believed(stripe_case: Case) -> None:
    """Records mixed up: for a person to see, not to act on."""
    reference = stripe_case.charge(attempt_id="att_other").provider_reference
    assert look_up(stripe_case, reference=reference) == LookUp(
        LookUpKind.UNAVAILABLE, reason="another_attempts_result"
    )


def test_an_attempt_is_found_pages_away(stripe_case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Newest first, so that the first of seven is on the fourth page of two, after the page that was too little."""
    monkeypatch.setattr(stripe_look_up, "PAGE_SIZE", 2)
    for number in range(7):
        stripe_case.charge(attempt_id=f"att_{number}")
    before = stripe_case.requests()
    found = look_up(stripe_case, "att_0")
    assert found.kind is LookUpKind.FOUND
    assert stripe_case.requests() == before + 1 + 4
    assert look_up(stripe_case, "att_none").kind is LookUpKind.NOT_FOUND
    monkeypatch.setattr(stripe_look_up, "MAX_PAGES", 3)
    assert look_up(stripe_case, "att_0") == LookUp(LookUpKind.UNAVAILABLE, reason="window_too_busy")


def test_a_busy_window_is_read_in_several_calls(stripe_case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stripe's own cursors and bounds carry on where the call before ended, once the window is past."""
    monkeypatch.setattr(stripe_look_up, "PAGE_SIZE", 2)
    monkeypatch.setattr(stripe_look_up, "MAX_PAGES", 2)
    clock = itertools.count(0.0, 0.001)
    past = iter((0.0, stripe_look_up.PAST_S, *[stripe_look_up.PAST_S] * 20))
    offset = [0.0]
    monkeypatch.setattr(stripe_case.provider, "_monotonic", lambda: next(clock) + offset[0])
    for number in range(9):
        stripe_case.charge(attempt_id=f"att_{number}")
    now = dt.datetime.now(dt.UTC)

    def ask(attempt: str) -> LookUp:
        offset[0] += next(past)
        return stripe_case.provider.look_up(
            attempt, provider_reference=None, sent_from=now, sent_until=now, timeouts=PATIENT
        )

    before = stripe_case.requests()
    answers = [ask("att_0") for _ in range(4)]
    assert [each.kind for each in answers] == [LookUpKind.UNAVAILABLE] * 3 + [LookUpKind.FOUND]
    assert answers[-1].outcome is not None
    assert answers[-1].outcome.provider_reference == stripe_case.books()[0]["id"]
    assert stripe_case.requests() - before <= 2 * len(answers)


def test_what_was_made_outside_the_window_is_not_found(stripe_case: Case) -> None:
    """A few seconds either side are taken in, for the clocks; an hour is not."""
    stripe_case.charge()
    an_hour_ago = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    seconds_ago = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=3)

    def at(moment: dt.datetime) -> LookUpKind:
        return stripe_case.provider.look_up(
            "att_1", provider_reference=None, sent_from=moment, sent_until=moment, timeouts=PATIENT
        ).kind

    assert at(seconds_ago) is LookUpKind.FOUND
    assert at(an_hour_ago) is LookUpKind.NOT_FOUND


@pytest.mark.parametrize("reference", [None, "pi_1", "not an id", ""])
@pytest.mark.parametrize(
    "mode", ["down", "errors", "rate_limited", "hang", "lose_reply", "drop_request", "garbage", "slow"]
)
def test_a_look_up_in_every_fault_is_unavailable(stripe_case: Case, mode: str, reference: str | None) -> None:
    """It tells nothing, and it never raises."""
    stripe_case.break_it(mode, **({"latency_ms": 5000} if mode == "slow" else {}))
    found = look_up(stripe_case, reference=reference, timeouts=SHORT)
    assert found.kind is LookUpKind.UNAVAILABLE
    assert found.reason


def test_a_look_up_with_a_revoked_key_is_unavailable(sandbox: Sandbox) -> None:
    """Not "not found": nobody looked."""
    case = Case(STRIPE, STRIPE.connect(sandbox, STRIPE.revoked_key, 1), sandbox)
    assert look_up(case) == LookUp(LookUpKind.UNAVAILABLE, reason="credentials_refused")


def test_adyen_cannot_be_looked_up(adyen_case: Case) -> None:
    """With or without its own id, and without asking."""
    adyen_case.charge()
    before = adyen_case.requests()
    assert look_up(adyen_case).kind is LookUpKind.UNSUPPORTED
    assert look_up(adyen_case, reference="NC6HT9CRT65ZGN82").kind is LookUpKind.UNSUPPORTED
    assert adyen_case.requests() == before


# ---------------------------------------------------------------- void by our own id


def test_an_unknown_attempt_is_voided_by_our_own_id(adyen_case: Case) -> None:
    """The authorization whose answer was lost is released, and no other."""
    adyen_case.charge(attempt_id="att_0", capture="manual")
    adyen_case.break_it("lose_reply", calls="authorize")
    assert adyen_case.charge(SHORT, capture="manual").kind is OutcomeKind.UNKNOWN
    outcome = adyen_case.provider.void_attempt("att_1", idempotency_key="att_1-void", timeouts=PATIENT)
    assert (outcome.kind, outcome.health) == (ModificationKind.RECEIVED, Health.OK)
    assert outcome.provider_reference
    assert {charge["attempt"]: charge["status"] for charge in adyen_case.books()} == {
        "att_0": "authorized",
        "att_1": "canceled",
    }


def test_a_technical_cancel_of_nothing_is_received_too(adyen_case: Case) -> None:
    """It may have overtaken the authorization, so that it proves nothing by itself."""
    outcome = adyen_case.provider.void_attempt("att_none", idempotency_key="k_1", timeouts=PATIENT)
    assert outcome.kind is ModificationKind.RECEIVED


@pytest.mark.parametrize("attempt", ["", "a" * 81])
def test_an_id_that_adyen_cannot_have_is_not_sent(adyen_case: Case, attempt: str) -> None:
    """Our own fault, and nothing was done."""
    before = adyen_case.requests()
    outcome = adyen_case.provider.void_attempt(attempt, idempotency_key="k_1", timeouts=PATIENT)
    assert (outcome.kind, outcome.our_fault) == (ModificationKind.NOT_EXECUTED, True)
    assert adyen_case.requests() == before


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("down", ModificationKind.NOT_EXECUTED),
        ("rate_limited", ModificationKind.NOT_EXECUTED),
        ("errors", ModificationKind.UNKNOWN),
        ("hang", ModificationKind.UNKNOWN),
        ("lose_reply", ModificationKind.UNKNOWN),
        ("garbage", ModificationKind.UNKNOWN),
    ],
)
def test_a_technical_cancel_in_every_fault(adyen_case: Case, mode: str, kind: ModificationKind) -> None:
    """Classified as every other send."""
    adyen_case.break_it(mode)
    assert adyen_case.provider.void_attempt("att_1", idempotency_key="k_1", timeouts=SHORT).kind is kind


def test_stripe_has_no_void_by_our_own_id(stripe_case: Case) -> None:
    """It says so, without asking."""
    before = stripe_case.requests()
    outcome = stripe_case.provider.void_attempt("att_1", idempotency_key="k_1", timeouts=PATIENT)
    assert (outcome.kind, outcome.reason) == (ModificationKind.REFUSED, "unsupported")
    assert stripe_case.requests() == before


# ---------------------------------------------------------------- 3-D Secure


def authenticate(outcome: Outcome, result: str) -> dict[str, str]:
    """What the customer's browser brings back from the issuer's page."""
    assert outcome.next_action is not None
    page = urllib3.request("GET", f"{outcome.next_action['url']}?result={result}", redirect=False)
    assert page.status == 302, page.data
    return dict(parse_qsl(urlsplit(page.headers["Location"]).query))


def challenged(case: Case, **change: Any) -> Outcome:
    """A payment that waits for its customer."""
    outcome = case.charge(token=case.driver.requires_action, return_url=RETURN_URL, **change)
    assert outcome.kind is OutcomeKind.REQUIRES_ACTION
    return outcome


def details_for(case: Case, brought: dict[str, str]) -> dict[str, Any]:
    """What checkout passes on: Stripe's intent knows it all by itself."""
    return {} if case.driver is STRIPE else brought


@pytest.mark.parametrize("capture", ["automatic", "manual"])
def test_a_customer_who_passes_3d_secure_has_paid(case: Case, capture: str) -> None:
    """Captured or only held, as it was asked for; the books agree, and a second completion says the same."""
    waiting = challenged(case, capture=capture)
    details = details_for(case, authenticate(waiting, "success"))
    outcome = complete(case, waiting.provider_reference, details, capture=capture)
    charge = case.only_charge()
    assert (outcome.kind, outcome.captured) == (OutcomeKind.APPROVED, capture == "automatic")
    assert outcome.provider_reference == charge["id"]
    assert charge["status"] == ("captured" if capture == "automatic" else "authorized")
    assert complete(case, waiting.provider_reference, details, capture=capture) == outcome


def test_a_customer_who_fails_3d_secure_is_declined(case: Case) -> None:
    """By authentication: no other provider is asked for the same."""
    waiting = challenged(case)
    outcome = complete(case, waiting.provider_reference, details_for(case, authenticate(waiting, "fail")))
    assert outcome.kind is OutcomeKind.DECLINED
    assert outcome.decline is not None
    assert (outcome.decline.decline_class, outcome.decline.cascade) == (DeclineClass.AUTHENTICATION, False)
    assert outcome.decline.known
    assert case.books() == []


def test_a_customer_who_has_not_been_there_still_requires_action(stripe_case: Case) -> None:
    """The intent says so."""
    waiting = challenged(stripe_case)
    outcome = complete(stripe_case, waiting.provider_reference, {})
    assert (outcome.kind, outcome.next_action) == (OutcomeKind.REQUIRES_ACTION, waiting.next_action)


def test_details_of_another_payment_are_not_believed(adyen_case: Case) -> None:
    """A customer pays for a pencil, and brings its details back for a car."""
    pencil = challenged(adyen_case, attempt_id="att_pencil")
    paid = authenticate(pencil, "success")
    challenged(adyen_case, attempt_id="att_car")
    outcome = complete(adyen_case, None, paid, attempt_id="att_car")
    assert (outcome.kind, outcome.reason, outcome.our_fault) == (
        OutcomeKind.UNKNOWN,
        "another_attempts_result",
        True,
    )
    assert [charge["attempt"] for charge in adyen_case.books()] == ["att_pencil"]


def test_details_of_another_payment_that_its_acquirer_refused_are_not_believed_either(adyen_case: Case) -> None:
    """Else a customer could end the doubt of a payment that may be charged with another's failure."""
    pencil = challenged(adyen_case, attempt_id="att_pencil")
    adyen_case.break_it("decline", decline_code="4")
    brought = authenticate(pencil, "success")
    own = complete(adyen_case, None, brought, attempt_id="att_pencil")
    assert (own.kind, own.final_record) == (OutcomeKind.NOT_EXECUTED, True)
    outcome = complete(adyen_case, None, brought, attempt_id="att_car")
    assert (outcome.kind, outcome.reason, outcome.final_record) == (
        OutcomeKind.UNKNOWN,
        "another_attempts_result",
        False,
    )


def test_an_intent_of_another_attempt_is_not_believed(stripe_case: Case) -> None:
    """Whatever id was given."""
    reference = stripe_case.charge(attempt_id="att_other").provider_reference
    assert complete(stripe_case, reference, {}).reason == "another_attempts_result"


NO_DETAILS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "an unknown name": {"redirectResult": "x", "amount": "1"},
    "another type": {"redirectResult": {"a": 1}},
    "empty": {"redirectResult": ""},
    "too long": {"redirectResult": "x" * 20_001},
}


@pytest.mark.parametrize("what", NO_DETAILS)
def test_details_that_3d_secure_never_brings_are_not_sent(adyen_case: Case, what: str) -> None:
    """Our own fault; and UNKNOWN, since an earlier completion may have ended the attempt."""
    before = adyen_case.requests()
    outcome = complete(adyen_case, None, NO_DETAILS[what])
    assert (outcome.kind, outcome.reason, outcome.our_fault) == (OutcomeKind.UNKNOWN, "details_refused", True)
    assert adyen_case.requests() == before


def test_details_that_adyen_does_not_know_are_our_fault(adyen_case: Case) -> None:
    """Adyen refuses them, which proves nothing of the attempt."""
    outcome = complete(adyen_case, None, {"redirectResult": "made up"})
    assert (outcome.kind, outcome.our_fault) == (OutcomeKind.UNKNOWN, True)


@pytest.mark.parametrize("reference", [None, "", "not an id"])
def test_an_intent_that_cannot_be_is_not_asked_for(stripe_case: Case, reference: str | None) -> None:
    """Nothing is known of the attempt."""
    outcome = complete(stripe_case, reference, {})
    assert (outcome.kind, outcome.reason) == (OutcomeKind.UNKNOWN, "misshapen_reference")


@pytest.mark.parametrize("mode", ["down", "errors", "rate_limited", "hang", "lose_reply", "drop_request", "garbage"])
def test_a_completion_in_every_fault_is_unknown(case: Case, mode: str) -> None:
    """Never `not_executed`, not even of a refused connection: an earlier completion may have come through."""
    waiting = challenged(case)
    details = details_for(case, authenticate(waiting, "success"))
    case.break_it(mode)
    outcome = complete(case, waiting.provider_reference, details, timeouts=SHORT)
    assert outcome.kind is OutcomeKind.UNKNOWN
    assert not outcome.our_fault
    case.break_it("ok")
    again = complete(case, waiting.provider_reference, details)
    assert (again.kind, again.provider_reference) == (OutcomeKind.APPROVED, case.only_charge()["id"])


def test_the_look_up_budget_covers_all_pages_together(stripe_case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten slow pages must not take ten timeouts."""
    monkeypatch.setattr(stripe_look_up, "PAGE_SIZE", 1)
    for number in range(3):
        stripe_case.charge(attempt_id=f"att_{number}")
    ticks = itertools.count(0.0, 3.0)  # three seconds a page; PATIENT allows five in all
    monkeypatch.setattr(stripe_case.provider, "_monotonic", lambda: next(ticks))
    assert look_up(stripe_case, "att_0") == LookUp(LookUpKind.UNAVAILABLE, reason="look_up_timeout")
