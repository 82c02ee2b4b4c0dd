"""What the sandbox's webhooks say, in each vendor's words, signed; and what goes wrong on purpose."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3

from tests.unit.test_sandbox_client import PROVIDERS, Shop
from tests.unit.webhook_receiver import ACCOUNT, MANUAL, Receiver, attempts, happen, notifying_shop


@pytest.fixture(scope="module")
def told() -> Iterator[tuple[Shop, Receiver]]:
    """One sandbox and one endpoint for all tests here."""
    with notifying_shop() as both:
        yield both


@pytest.fixture
def shop(told: tuple[Shop, Receiver]) -> Shop:
    """A merchant of that sandbox, all well."""
    shop, receiver = told
    receiver.slow.set()
    shop.sandbox.reset()
    receiver.clear()
    return shop


@pytest.fixture
def receiver(told: tuple[Shop, Receiver]) -> Receiver:
    """The endpoint, with nothing received."""
    return told[1]


# ---------------------------------------------------------------- Stripe's words


def test_a_stripe_event_is_a_signed_snapshot(shop: Shop, receiver: Receiver) -> None:
    """Every field of an event; the intent carries its metadata, the request its idempotency key."""
    intent = shop.pay_stripe("att_1", key="key_1", metadata__payment="pay_1").json()
    [event] = receiver.events(1)
    assert event.pop("id").startswith("evt_")
    assert event["request"].pop("id").startswith("req_")
    assert abs(event.pop("created") - time.time()) < 5
    assert event == {
        "object": "event",
        "api_version": "2026-10-28.endive",
        "data": {"object": intent},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"idempotency_key": "key_1"},
        "type": "payment_intent.succeeded",
    }
    assert intent["metadata"] == {"reference": "ORD-1", "attempt": "att_1", "payment": "pay_1"}


def test_stripe_tells_the_whole_life_of_a_payment(shop: Shop, receiver: Receiver) -> None:
    """Authorization, capture, refund; each in the state of its moment."""
    intent = shop.pay_stripe(capture_method="manual").json()["id"]
    shop.stripe("POST", f"/v1/payment_intents/{intent}/capture", {"amount_to_capture": "1500"}, key="cap_1")
    shop.stripe("POST", "/v1/refunds", {"payment_intent": intent, "amount": "500"}, key="ref_1")
    told = [
        (event["type"], event["data"]["object"], event["request"]["idempotency_key"]) for event in receiver.events(6)
    ]
    assert [(type, key) for type, _, key in told] == [
        ("payment_intent.amount_capturable_updated", None),
        ("charge.captured", "cap_1"),
        ("payment_intent.succeeded", "cap_1"),
        ("refund.created", "ref_1"),
        ("charge.refunded", "ref_1"),
        ("refund.updated", "ref_1"),
    ]
    objects = [object for _, object, _ in told]
    assert (objects[0]["status"], objects[0]["amount_capturable"]) == ("requires_capture", 1999)
    assert (objects[1]["payment_intent"], objects[1]["amount_captured"]) == (intent, 1500)
    assert (objects[2]["status"], objects[2]["amount_received"]) == ("succeeded", 1500)
    assert (objects[3]["payment_intent"], objects[3]["amount"], objects[3]["status"]) == (intent, 500, "succeeded")
    assert (objects[4]["amount_refunded"], objects[4]["refunded"]) == (500, False)


def test_stripe_tells_of_declines_three_d_secure_and_cancels(shop: Shop, receiver: Receiver) -> None:
    """Also of what never came to a charge."""
    shop.pay_stripe("att_1", payment_method="pm_card_visa_chargeDeclined")
    passes = shop.pay_stripe("att_2", payment_method="pm_card_authenticationRequired").json()["id"]
    page = f"{shop.sandbox.stripe_url}/sandbox/authenticate/"
    shop.pool.request("GET", page + passes)
    fails = shop.pay_stripe("att_3", payment_method="pm_card_authenticationRequired").json()["id"]
    shop.pool.request("GET", f"{page}{fails}?result=fail")
    shop.stripe("POST", f"/v1/payment_intents/{fails}/cancel")
    told = [(event["type"], event["data"]["object"]["metadata"]["attempt"]) for event in receiver.events(6)]
    assert told == [
        ("payment_intent.payment_failed", "att_1"),
        ("payment_intent.requires_action", "att_2"),
        ("payment_intent.succeeded", "att_2"),
        ("payment_intent.requires_action", "att_3"),
        ("payment_intent.payment_failed", "att_3"),
        ("payment_intent.canceled", "att_3"),
    ]
    assert receiver.events(6)[0]["data"]["object"]["last_payment_error"]["decline_code"] == "generic_decline"


# ---------------------------------------------------------------- Adyen's words


def test_an_adyen_authorisation_carries_what_a_merchant_needs(shop: Shop, receiver: Receiver) -> None:
    """Every field of an item."""
    metadata = {"reference": "ORD-1", "payment": "pay_1"}
    psp = shop.pay_adyen("att_1", metadata=metadata).json()["pspReference"]
    [item] = receiver.items(1)
    extra = item.pop("additionalData")
    assert item.pop("eventDate").endswith("+00:00")
    assert item == {
        "amount": {"value": 1999, "currency": "EUR"},
        "eventCode": "AUTHORISATION",
        "merchantAccountCode": "ShopECOM",
        "merchantReference": "att_1",
        "operations": ["CANCEL", "CAPTURE", "REFUND"],
        "paymentMethod": "visa",
        "pspReference": psp,
        "reason": f"{psp[:6]}:1111:03/2030",
        "success": "true",
    }
    assert extra["merchantOrderReference"] == "ORD-1"
    assert (extra["metadata.reference"], extra["metadata.payment"]) == ("ORD-1", "pay_1")


def test_adyen_tells_the_whole_life_of_a_payment(shop: Shop, receiver: Receiver) -> None:
    """A modification names its payment, and itself by its own reference where it has one; what fails says why."""
    psp = shop.pay_adyen("att_1", **MANUAL).json()["pspReference"]
    money = {**ACCOUNT, "amount": {"value": 1999, "currency": "EUR"}}
    changes = [
        shop.adyen(f"/payments/{psp}/captures", {**money, "reference": "cap_1"}),
        shop.adyen(f"/payments/{psp}/captures", money),
        shop.adyen(f"/payments/{psp}/cancels", {**ACCOUNT, "reference": "void_1"}),
        shop.adyen(f"/payments/{psp}/refunds", {**ACCOUNT, "amount": {"value": 500, "currency": "EUR"}}),
        shop.adyen(f"/payments/{psp}/reversals", ACCOUNT),
    ]
    items = receiver.items(6)[1:]
    assert [(item["eventCode"], item["success"], item["merchantReference"]) for item in items] == [
        ("CAPTURE", "true", "cap_1"),
        ("CAPTURE", "false", "att_1"),
        ("CANCELLATION", "false", "void_1"),
        ("REFUND", "true", "att_1"),
        ("CANCEL_OR_REFUND", "true", "att_1"),
    ]
    assert [item["pspReference"] for item in items] == [change.json()["pspReference"] for change in changes]
    assert {item["originalReference"] for item in items} == {psp}
    assert [bool(item["reason"]) for item in items] == [False, True, True, False, False]
    assert [item["amount"]["value"] for item in items] == [1999, 1999, 1999, 500, 1499]
    assert items[-1]["additionalData"]["modification.action"] == "refund"


def test_adyen_tells_refusals_once_the_issuer_answered(shop: Shop, receiver: Receiver) -> None:
    """Not of a pending payment, nor of a customer who is away."""
    for trigger in ("DECLINED", "PENDING", "REDIRECT_SHOPPER"):
        shop.pay_adyen(trigger, paymentMethod={"type": "scheme", "storedPaymentMethodId": f"adyen_sandbox_{trigger}"})
    shop.pay_adyen("last")
    first, last = receiver.items(2)
    assert (first["merchantReference"], first["success"], first["reason"]) == ("DECLINED", "false", "Refused")
    assert (last["merchantReference"], len(receiver.items(2))) == ("last", 2)


def test_a_technical_cancel_tells_what_it_found(shop: Shop, receiver: Receiver) -> None:
    """Nothing yet: not done. On the late arrival of its payment: done, under its own reference again."""
    cancel = {**ACCOUNT, "paymentReference": "att_1", "reference": "void_1"}
    psp = shop.adyen("/cancels", cancel).json()["pspReference"]
    late = shop.pay_adyen("att_1").json()["pspReference"]
    shop.pay_adyen("att_2", **MANUAL)
    shop.adyen("/cancels", {**ACCOUNT, "paymentReference": "att_2"})
    shop.adyen("/cancels", {**ACCOUNT, "paymentReference": "att_2"})
    items = receiver.items(6)
    facts = ("eventCode", "success", "merchantReference")
    assert [tuple(item[name] for name in facts) for item in items] == [
        ("TECHNICAL_CANCEL", "false", "void_1"),
        ("AUTHORISATION", "false", "att_1"),
        ("TECHNICAL_CANCEL", "true", "void_1"),
        ("AUTHORISATION", "true", "att_2"),
        ("TECHNICAL_CANCEL", "true", "att_2"),
        ("TECHNICAL_CANCEL", "false", "att_2"),
    ]
    assert "originalReference" not in items[0]
    assert items[0]["reason"] == "Original payment not found"
    assert (items[2]["originalReference"], items[2]["pspReference"]) == (late, psp)


# ---------------------------------------------------------------- things that go wrong


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("mode", ["hang", "lose_reply", "errors"])
def test_a_payment_whose_answer_never_came_is_told_all_the_same(
    shop: Shop, receiver: Receiver, provider: str, mode: str
) -> None:
    """The webhook is how the merchant learns of it."""
    shop.mode(provider, mode, calls="authorize", acts=mode == "errors")
    with contextlib.suppress(urllib3.exceptions.HTTPError):  # hung, or cut
        assert shop.charge(provider, "att_1", timeout=0.05).status == 503
    assert attempts(receiver, provider, 1) == ["att_1"]


def test_a_failed_capture_lowers_the_books_and_is_told(shop: Shop, receiver: Receiver) -> None:
    """At Adyen the authorization stays and the capture is named; at Stripe the payment wants another card."""
    psp = shop.pay_adyen(**MANUAL).json()["pspReference"]
    body = {**ACCOUNT, "amount": {"value": 1999, "currency": "EUR"}, "reference": "cap_1"}
    capture = shop.adyen(f"/payments/{psp}/captures", body).json()["pspReference"]
    row = happen(shop, "adyen", "capture_failed")
    assert (row["status"], row["amount_captured"]) == ("authorized", 0)
    item = receiver.items(3)[-1]
    assert (item["eventCode"], item["success"], item["pspReference"]) == ("CAPTURE_FAILED", "true", capture)
    assert (item["merchantReference"], item["originalReference"]) == ("cap_1", psp)
    shop.pay_stripe()
    row = happen(shop, "stripe", "capture_failed")
    assert (row["status"], row["amount_captured"]) == ("canceled", 0)
    events = receiver.events(3)[1:]
    assert [event["type"] for event in events] == ["charge.failed", "payment_intent.payment_failed"]
    intent = events[1]["data"]["object"]
    assert (intent["status"], intent["amount_received"]) == ("requires_payment_method", 0)
    for provider in PROVIDERS:
        assert happen(shop, provider, "capture_failed", 409)["error"]["field"] == "type"


@pytest.mark.parametrize("type", ["refund_failed", "refund_reversed"])
def test_a_refund_that_comes_back_lowers_the_books_and_is_told(shop: Shop, receiver: Receiver, type: str) -> None:
    """The newest refund, under its own id."""
    psp = shop.pay_adyen().json()["pspReference"]
    body = {**ACCOUNT, "amount": {"value": 1999, "currency": "EUR"}, "reference": "ref_1"}
    refund = shop.adyen(f"/payments/{psp}/refunds", body).json()["pspReference"]
    intent = shop.pay_stripe().json()["id"]
    re = shop.stripe("POST", "/v1/refunds", {"payment_intent": intent}).json()["id"]
    for provider in PROVIDERS:
        row = happen(shop, provider, type)
        assert (row["status"], row["amount_refunded"]) == ("captured", 0)
        happen(shop, provider, type, 409)
    item = receiver.items(3)[-1]
    code = "REFUND_FAILED" if type == "refund_failed" else "REFUNDED_REVERSED"
    assert (item["eventCode"], item["pspReference"], item["merchantReference"]) == (code, refund, "ref_1")
    events = receiver.events(6)[4:]
    assert [event["type"] for event in events] == ["refund.updated", "refund.failed"]
    assert (events[1]["data"]["object"]["id"], events[1]["data"]["object"]["status"]) == (re, "failed")
    assert events[1]["request"] == {"id": None, "idempotency_key": None}


@pytest.mark.parametrize("end", ["won", "lost"])
def test_a_dispute_is_opened_and_ends(shop: Shop, receiver: Receiver, end: str) -> None:
    """Shown in the books, told in the vendor's words, one at a time."""
    for provider in PROVIDERS:
        shop.charge(provider)
        assert "dispute" not in shop.books(provider)[0]
        happen(shop, provider, f"dispute_{end}", 409)
        assert happen(shop, provider, "dispute_opened")["dispute"] == "opened"
        happen(shop, provider, "dispute_opened", 409)
        assert happen(shop, provider, f"dispute_{end}")["dispute"] == end
    events = receiver.events(3)[1:]
    assert [event["type"] for event in events] == ["charge.dispute.created", "charge.dispute.closed"]
    assert [event["data"]["object"]["status"] for event in events] == ["needs_response", end]
    codes = [item["eventCode"] for item in receiver.items(4)[1:]]
    last = "CHARGEBACK_REVERSED" if end == "won" else "SECOND_CHARGEBACK"
    assert codes == ["NOTIFICATION_OF_CHARGEBACK", "CHARGEBACK", last]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"type": "capture_failed"}, "charge"),
        ({"charge": "pi_1", "type": "capture_failed"}, "charge"),
        ({"charge": 1, "type": "capture_failed"}, "charge"),
        ({"charge": "pi_1", "type": "lost"}, "type"),
        ({"charge": "pi_1"}, "type"),
        ({"charge": "pi_1", "type": "capture_failed", "amount": 1}, "amount"),
    ],
)
def test_wrong_events_are_refused_by_field(shop: Shop, body: Any, field: str) -> None:
    """Unknown charges, unknown types, unknown fields."""
    answer = shop.control("POST", "/control/stripe/events", body)
    assert (answer.status, answer.json()["error"]["field"]) == (422, field)
