"""The sandbox's webhooks against the vendors' contracts: Adyen's published schemas, Stripe's own types."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import jsonschema
import pytest
import stripe

from tests.unit.test_sandbox_client import Shop
from tests.unit.webhook_receiver import ACCOUNT, MANUAL, Receiver, happen, notifying_shop, until

FOLDER = Path(os.environ.get("ROUTER_VENDOR_CONTRACTS") or Path(__file__).parents[3] / "shared" / "contracts")
CONTRACT = FOLDER / "adyen-webhooks-v1.openapi.json"
pytestmark = [
    pytest.mark.vendor_contract,
    pytest.mark.skipif(not CONTRACT.exists(), reason=f"the vendor's contract is absent: {CONTRACT}"),
]
MISHAPS = ("refund_failed", "capture_failed")
DISPUTES = ("dispute_opened", "dispute_won")


@functools.cache
def contract() -> dict[str, Any]:
    """Adyen's webhooks, with the one thing its file says in words only: metadata comes flat, under a prefix."""
    api: dict[str, Any] = json.loads(CONTRACT.read_text())
    extra = api["components"]["schemas"]["AuthorisationNotificationAdditionalData"]
    extra["patternProperties"] = {r"^metadata\.": {"type": "string"}}
    return api


def problems(batch: dict[str, Any]) -> list[str]:
    """What the contract has against a request of one item; formats are checked too."""
    code = batch["notificationItems"][0]["NotificationRequestItem"]["eventCode"]
    body = contract()["webhooks"][f"/{code}"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    whole = {**body, "components": contract()["components"]}
    checker = jsonschema.Draft202012Validator(whole, format_checker=jsonschema.FormatChecker())
    return [f"{code}: {error.message}" for error in checker.iter_errors(batch)]


@pytest.fixture(scope="module")
def told() -> Iterator[tuple[Shop, Receiver]]:
    """A shop, and where its webhooks come in."""
    with notifying_shop() as both:
        yield both


def test_every_adyen_notification_is_as_the_contract_says(told: tuple[Shop, Receiver]) -> None:
    """Each event code that the sandbox knows, with and without success."""
    shop, receiver = told
    money = {**ACCOUNT, "amount": {"value": 500, "currency": "EUR"}, "reference": "op_1"}
    metadata = {"reference": "ORD-1", "payment": "pay_1"}
    psp = shop.pay_adyen("att_1", **MANUAL, metadata=metadata).json()["pspReference"]
    for call in ("captures", "captures", "refunds", "cancels", "reversals", "reversals"):
        shop.adyen(f"/payments/{psp}/{call}", money if call in ("captures", "refunds") else ACCOUNT)
    happen(shop, "adyen", "refund_reversed")
    shop.pay_adyen("att_2", paymentMethod={"type": "scheme", "storedPaymentMethodId": "adyen_sandbox_DECLINED"})
    psp = shop.pay_adyen("att_3", **MANUAL).json()["pspReference"]
    shop.adyen(f"/payments/{psp}/cancels", ACCOUNT)
    shop.pay_adyen("att_4", **MANUAL)
    for reference in ("att_4", "att_5"):
        shop.adyen("/cancels", {**ACCOUNT, "paymentReference": reference})
    shop.pay_adyen("att_5")
    for ends in (DISPUTES, ("dispute_opened", "dispute_lost")):
        shop.pay_adyen("att_6")
        for type in ends:
            happen(shop, "adyen", type)
    psp = shop.pay_adyen("att_7").json()["pspReference"]
    shop.adyen(f"/payments/{psp}/refunds", money)
    for type in MISHAPS:
        happen(shop, "adyen", type)
    shop.pay_adyen("last")
    until(lambda: any(b'"last"' in body for _, body in receiver.of("/adyen")))
    batches = [json.loads(body) for _, body in receiver.of("/adyen")]
    assert [problem for batch in batches for problem in problems(batch)] == []
    seen = {(item["eventCode"], item["success"]) for item in receiver.items(1)}
    assert seen == {
        ("AUTHORISATION", "true"),
        ("AUTHORISATION", "false"),
        ("CAPTURE", "true"),
        ("CAPTURE_FAILED", "true"),
        ("CANCELLATION", "true"),
        ("CANCELLATION", "false"),
        ("CANCEL_OR_REFUND", "true"),
        ("CANCEL_OR_REFUND", "false"),
        ("CHARGEBACK", "true"),
        ("CHARGEBACK_REVERSED", "true"),
        ("NOTIFICATION_OF_CHARGEBACK", "true"),
        ("REFUND", "true"),
        ("REFUND_FAILED", "true"),
        ("REFUNDED_REVERSED", "true"),
        ("SECOND_CHARGEBACK", "true"),
        ("TECHNICAL_CANCEL", "true"),
        ("TECHNICAL_CANCEL", "false"),
    }


def test_every_stripe_event_is_one_that_its_sdk_knows(told: tuple[Shop, Receiver]) -> None:
    """The type is in the SDK's list, and every field of the object is one of its class."""
    shop, receiver = told
    intent = shop.pay_stripe(capture_method="manual").json()["id"]
    shop.stripe("POST", f"/v1/payment_intents/{intent}/capture")
    shop.stripe("POST", "/v1/refunds", {"payment_intent": intent})
    for type in (*MISHAPS, *DISPUTES):
        if type != "capture_failed":
            happen(shop, "stripe", type)
    shop.pay_stripe()
    happen(shop, "stripe", "capture_failed")
    known = set(get_args(get_type_hints(stripe.Event)["type"]))
    events = receiver.events(13)
    assert len(events) == 13
    assert {event["type"] for event in events} <= known
    classes = {
        "payment_intent": stripe.PaymentIntent,
        "charge": stripe.Charge,
        "refund": stripe.Refund,
        "dispute": stripe.Dispute,
    }
    for event in events:
        object = event["data"]["object"]
        assert set(object) <= set(classes[object["object"]].__annotations__), event["type"]
