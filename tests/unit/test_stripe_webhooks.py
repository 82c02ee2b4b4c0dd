"""What is believed of a delivery to `/webhooks/stripe`, and what it then says."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import time
from typing import Any

import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st

from providers.contract import (
    DeclineClass,
    Health,
    Money,
    Notice,
    NoticeKind,
    Outcome,
    OutcomeKind,
    WebhookRefusedError,
)
from providers.stripe import StripeProvider
from providers.webhooks import MAX_BODY_BYTES

SECRET = "whsec_new"
OLD_SECRET = "whsec_old"
NOW = dt.datetime(2026, 11, 21, 2, 3, 4, tzinfo=dt.UTC)
PROVIDER = StripeProvider(api_key="sk_test_1", base_url="http://127.0.0.1:1", webhook_secrets=(SECRET, OLD_SECRET))


def signature(body: bytes, secret: str = SECRET, age_s: int = 0) -> str:
    """The header, by the SDK's own hand."""
    moment = int(NOW.timestamp()) - age_s
    return str(stripe.WebhookSignature.generate_signature_header(body.decode(), secret, timestamp=moment))


def read(body: bytes, header: str | None = None, *, name: str = "Stripe-Signature") -> Notice:
    """The one notice of a delivery."""
    [notice] = PROVIDER.read_webhook({name: signature(body) if header is None else header}, body, now=NOW)
    return notice


def event(type: str, thing: object, **more: object) -> bytes:
    """An event as Stripe sends it."""
    return json.dumps({"id": "evt_1", "object": "event", "type": type, "data": {"object": thing}, **more}).encode()


def intent(status: str, **more: object) -> dict[str, Any]:
    """A PaymentIntent of ours."""
    return {
        "id": "pi_1",
        "object": "payment_intent",
        "amount": 1999,
        "amount_received": 0,
        "currency": "eur",
        "metadata": {"attempt": "att_1", "reference": "ORD-1"},
        "status": status,
        **more,
    }


def refund(status: str, **more: object) -> dict[str, Any]:
    """A refund of ours."""
    return {
        "id": "re_1",
        "object": "refund",
        "amount": 500,
        "currency": "eur",
        "metadata": {"operation": "ref_key"},
        "payment_intent": "pi_1",
        "status": status,
        **more,
    }


BODY = event("payment_intent.succeeded", intent("succeeded", amount_received=1500))


# ---------------------------------------------------------------- what is believed


@pytest.mark.parametrize("name", ["Stripe-Signature", "stripe-signature", "STRIPE-SIGNATURE"])
def test_a_signed_event_is_read_whatever_the_case_of_its_header(name: str) -> None:
    """HTTP does not tell them apart."""
    assert read(BODY, name=name).kind is NoticeKind.ATTEMPT


def test_either_secret_of_a_rotation_is_good() -> None:
    """Alone, and when Stripe signs with both."""
    assert read(BODY, signature(BODY, OLD_SECRET)).id == "evt_1"
    both = f"{signature(BODY, 'whsec_third')},{signature(BODY).split(',')[1]}"
    assert read(BODY, both).id == "evt_1"


@pytest.mark.parametrize("age_s", [300, 0, -300])
def test_a_signature_is_good_for_five_minutes_either_way(age_s: int) -> None:
    """Clocks differ."""
    assert read(BODY, signature(BODY, age_s=age_s)).id == "evt_1"


def test_the_sdk_would_take_a_signature_from_the_future() -> None:
    """Which is why the time is ours to check: an hour from now is no wonder to it."""
    moment = int(time.time()) + 3600
    header = stripe.WebhookSignature.generate_signature_header(BODY.decode(), SECRET, timestamp=moment)
    assert stripe.WebhookSignature.verify_header(BODY, header, SECRET, tolerance=300)


FORGED = {
    "no header": ({}, "is missing"),
    "an empty header": ({"Stripe-Signature": ""}, "is missing"),
    "another secret": ({"Stripe-Signature": signature(BODY, "whsec_other")}, "not Stripe's"),
    "another body": ({"Stripe-Signature": signature(BODY + b" ")}, "not Stripe's"),
    "too old": ({"Stripe-Signature": signature(BODY, age_s=301)}, "too old"),
    "from the future": ({"Stripe-Signature": signature(BODY, age_s=-301)}, "from the future"),
    "no time": ({"Stripe-Signature": signature(BODY).split(",")[1]}, "misshapen"),
    "two times": ({"Stripe-Signature": f"t=1,{signature(BODY)}"}, "misshapen"),
    "no number": ({"Stripe-Signature": signature(BODY).replace("t=", "t=x")}, "misshapen"),
    "not ASCII": ({"Stripe-Signature": f"{signature(BODY)},v1=é"}, "misshapen"),
    "too long": ({"Stripe-Signature": signature(BODY) + ",v1=0" * 2000}, "misshapen"),
    "no v1": ({"Stripe-Signature": signature(BODY).replace("v1=", "v0=")}, "not Stripe's"),
    "v1 without a value": ({"Stripe-Signature": f"{signature(BODY).split(',')[0]},v1"}, "not Stripe's"),
}


@pytest.mark.parametrize("how", FORGED)
def test_what_is_not_signed_by_stripe_now_is_refused(how: str) -> None:
    """And the refusal never repeats what was sent."""
    headers, why = FORGED[how]
    with pytest.raises(WebhookRefusedError, match=why):
        PROVIDER.read_webhook(headers, BODY, now=NOW)


def test_without_a_secret_nothing_is_believed() -> None:
    """Not even what is signed with an empty one."""
    provider = StripeProvider(api_key="sk_test_1", base_url="http://127.0.0.1:1")
    with pytest.raises(WebhookRefusedError, match="no webhook secret"):
        provider.read_webhook({"Stripe-Signature": signature(BODY, " ")}, BODY, now=NOW)


@pytest.mark.parametrize("secrets", [("",), ("whsec_1", " "), "whsec_1"])
def test_a_secret_that_is_none_stops_the_start(secrets: Any) -> None:
    """An empty setting must not look like a set one."""
    with pytest.raises(ValueError, match="secrets"):
        StripeProvider(api_key="sk_test_1", base_url="http://127.0.0.1:1", webhook_secrets=secrets)


SENSELESS = {
    "not JSON": b"{",
    "a list": b"[]",
    "not UTF-8": b"\xff",
    "NaN": b'{"amount": NaN}',
    "a name twice": b'{"id": "evt_1", "id": "evt_2"}',
    "too deep": b"[" * 100_000,
    "a huge number": b'{"amount": ' + b"9" * 5000 + b"}",
    "no event": json.dumps({"object": "payment_intent"}).encode(),
    "a strange id": event("payment_intent.succeeded", intent("succeeded"), id="pi_1"),
    "a strange type": event("payment intent", intent("succeeded")),
    "no object": event("payment_intent.succeeded", None),
    "an object without an id": event("payment_intent.succeeded", {"status": "succeeded"}),
}


@pytest.mark.parametrize("what", SENSELESS)
def test_senseless_deliveries_are_refused_even_if_they_are_signed(what: str) -> None:
    """By a WebhookRefusedError, and nothing else."""
    body = SENSELESS[what]
    header = signature(body) if what != "not UTF-8" else signature(b"x")
    with pytest.raises(WebhookRefusedError):
        read(body, header)


def test_a_huge_body_is_not_even_looked_at() -> None:
    """Hashing and parsing it is work that anybody could give us."""
    with pytest.raises(WebhookRefusedError, match="too large"):
        read(b" " * (MAX_BODY_BYTES + 1), "t=1,v1=0")


@given(body=st.binary(max_size=300), header=st.none() | st.text(max_size=100))
def test_arbitrary_deliveries_raise_nothing_but_a_refusal(body: bytes, header: str | None) -> None:
    """Anybody can send us anything."""
    with pytest.raises(WebhookRefusedError):
        PROVIDER.read_webhook({} if header is None else {"Stripe-Signature": header}, body, now=NOW)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["pi_1", "eur", "succeeded"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = (
    "id amount amount_received amount_captured currency metadata status payment_intent last_payment_error next_action"
    " failure_reason"
)


@given(
    type=st.sampled_from(
        [
            "payment_intent.succeeded",
            "payment_intent.payment_failed",
            "payment_intent.requires_action",
            "payment_intent.canceled",
            "charge.captured",
            "refund.updated",
            "charge.dispute.closed",
            "invoice.paid",
        ]
    ),
    thing=st.dictionaries(st.sampled_from(FIELDS.split()), JSON, max_size=8),
)
def test_arbitrary_signed_objects_raise_nothing_but_a_refusal(type: str, thing: object) -> None:
    """A vendor's bug must not become ours."""
    body = event(type, thing)
    with contextlib.suppress(WebhookRefusedError):
        assert read(body).name == type


# ---------------------------------------------------------------- what it says


def attempt(name: str, outcome: Outcome, amount: int = 1999) -> Notice:
    """A notice of how our attempt stands."""
    return Notice(
        "evt_1",
        NoticeKind.ATTEMPT,
        name,
        attempt_id="att_1",
        provider_reference="pi_1",
        money=Money(amount, "EUR"),
        outcome=outcome,
    )


def approved(**more: Any) -> Outcome:
    """The money is held, or taken."""
    return Outcome(OutcomeKind.APPROVED, Health.OK, provider_reference="pi_1", **more)


def test_a_success_is_captured_with_what_was_received() -> None:
    """Less than was authorized, after a capture of a part."""
    assert read(BODY) == attempt("payment_intent.succeeded", approved(captured=True), 1500)


def test_an_authorization_waits_to_be_captured() -> None:
    """Approved, not captured."""
    name = "payment_intent.amount_capturable_updated"
    assert read(event(name, intent("requires_capture"))) == attempt(name, approved())


def test_a_canceled_intent_is_a_confirmed_void() -> None:
    """Under the provider's own id."""
    name = "payment_intent.canceled"
    canceled = Outcome(OutcomeKind.CANCELED, Health.OK, provider_reference="pi_1")
    assert read(event(name, intent("canceled"))) == attempt(name, canceled)


def test_a_failed_payment_is_the_same_decline_as_the_answers() -> None:
    """One mapping for both."""
    error = {"type": "card_error", "code": "card_declined", "decline_code": "lost_card"}
    notice = read(event("payment_intent.payment_failed", intent("requires_payment_method", last_payment_error=error)))
    assert notice.outcome is not None
    assert notice.outcome.decline is not None
    assert (notice.kind, notice.outcome.kind) == (NoticeKind.ATTEMPT, OutcomeKind.DECLINED)
    assert (notice.outcome.decline.code, notice.outcome.decline.decline_class) == ("lost_card", DeclineClass.HARD)


def test_a_challenge_names_where_the_customer_must_go() -> None:
    """As the answer does."""
    action = {"type": "redirect_to_url", "redirect_to_url": {"url": "https://bank.example"}}
    notice = read(event("payment_intent.requires_action", intent("requires_action", next_action=action)))
    assert notice.outcome is not None
    assert notice.outcome.kind is OutcomeKind.REQUIRES_ACTION
    assert notice.outcome.next_action == {"type": "redirect", "url": "https://bank.example"}


def test_an_event_that_shows_no_end_moves_nothing() -> None:
    """Its object is still being worked on, or has a status that nobody knows."""
    for status in ("processing", "levitating"):
        notice = read(event("payment_intent.succeeded", intent(status)))
        assert (notice.kind, notice.outcome, notice.provider_reference) == (NoticeKind.OTHER, None, "pi_1")


def test_a_capture_that_failed_after_all_is_not_a_decline() -> None:
    """The payment was approved and captured once; what is left of it is nothing."""
    error = {"type": "card_error", "code": "capture_charge_authorization_expired"}
    name = "payment_intent.payment_failed"
    assert read(event(name, intent("requires_payment_method", last_payment_error=error))) == Notice(
        "evt_1",
        NoticeKind.CAPTURE_FAILED,
        name,
        attempt_id="att_1",
        provider_reference="pi_1",
        reason="capture_charge_authorization_expired",
    )


def test_a_captured_charge_names_its_payment_and_attempt() -> None:
    """Its metadata is the intent's."""
    charge = {
        "id": "ch_1",
        "object": "charge",
        "amount": 1999,
        "amount_captured": 500,
        "currency": "eur",
        "metadata": {"attempt": "att_1"},
        "payment_intent": "pi_1",
    }
    assert read(event("charge.captured", charge)) == Notice(
        "evt_1",
        NoticeKind.CAPTURED,
        "charge.captured",
        attempt_id="att_1",
        provider_reference="pi_1",
        money=Money(500, "EUR"),
    )
    expanded = {**charge, "payment_intent": {"id": "pi_1", "object": "payment_intent"}}
    assert read(event("charge.captured", expanded)).provider_reference == "pi_1"


@pytest.mark.parametrize(
    ("name", "thing", "kind", "reason"),
    [
        ("refund.created", refund("succeeded"), NoticeKind.REFUNDED, None),
        ("refund.updated", refund("succeeded"), NoticeKind.REFUNDED, None),
        ("refund.created", refund("pending"), NoticeKind.OTHER, None),
        ("refund.updated", refund("canceled"), NoticeKind.REFUND_FAILED, "canceled"),
        (
            "refund.updated",
            refund("failed", failure_reason="lost_or_stolen_card"),
            NoticeKind.REFUND_FAILED,
            "lost_or_stolen_card",
        ),
        ("refund.failed", refund("failed"), NoticeKind.REFUND_FAILED, "failed"),
    ],
)
def test_a_refund_names_our_operation(name: str, thing: object, kind: NoticeKind, reason: str | None) -> None:
    """By the key that its metadata carries."""
    assert read(event(name, thing)) == Notice(
        "evt_1",
        kind,
        name,
        provider_reference="pi_1",
        operation_key="ref_key",
        modification_reference="re_1",
        money=Money(500, "EUR"),
        reason=reason,
    )


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("charge.dispute.created", "needs_response", "opened"),
        ("charge.dispute.updated", "under_review", "opened"),
        ("charge.dispute.closed", "won", "won"),
        ("charge.dispute.closed", "warning_closed", "won"),
        ("charge.dispute.closed", "lost", "lost"),
        ("charge.dispute.funds_reinstated", "won", "won"),
    ],
)
def test_a_dispute_says_how_it_stands(name: str, status: str, reason: str) -> None:
    """Recorded, with what is disputed."""
    dispute = {
        "id": "du_1",
        "object": "dispute",
        "amount": 700,
        "currency": "eur",
        "payment_intent": "pi_1",
        "status": status,
    }
    notice = read(event(name, dispute))
    assert (notice.kind, notice.reason, notice.money) == (NoticeKind.DISPUTE, reason, Money(700, "EUR"))
    assert (notice.provider_reference, notice.modification_reference) == ("pi_1", "du_1")


@pytest.mark.parametrize(
    ("type", "thing"),
    [
        ("invoice.paid", {"id": "in_1"}),
        ("payment_intent.processing", intent("processing")),
        ("charge.refunded", {"id": "ch_1", "payment_intent": "pi_1", "amount_refunded": 500}),
    ],
)
def test_anything_else_moves_nothing(type: str, thing: dict[str, Any]) -> None:
    """`charge.refunded` says the sum of what the refunds' own events say one by one."""
    assert read(event(type, thing)).kind is NoticeKind.OTHER


@pytest.mark.parametrize(
    ("amount", "currency", "money"),
    [(50000, "isk", Money(500, "ISK")), (5, "mga", Money(500, "MGA")), (50001, "isk", None), (1, "xxx", None)],
)
def test_money_comes_back_in_iso_units(amount: int, currency: str, money: Money | None) -> None:
    """And where it cannot, none is made up."""
    thing = intent("requires_capture", amount=amount, currency=currency)
    assert read(event("payment_intent.amount_capturable_updated", thing)).money == money


@pytest.mark.parametrize("metadata", [None, [], {}, {"attempt": 1}, {"attempt": "x" * 256}, {"attempt": "a b"}])
def test_an_attempt_that_is_not_ours_is_not_named(metadata: object) -> None:
    """The intent of another system in the same account."""
    notice = read(event("payment_intent.succeeded", intent("succeeded", metadata=metadata)))
    assert (notice.attempt_id, notice.provider_reference) == (None, "pi_1")
