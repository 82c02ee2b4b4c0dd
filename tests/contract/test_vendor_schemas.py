"""What is rendered, against the vendors' own published contracts (where `../shared/contracts` is present)."""

from __future__ import annotations

import datetime as dt
import importlib.util
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jsonschema
import pytest
from Adyen.util import generate_notification_sig

from providers.adyen import AdyenProvider
from providers.contract import ChargeRequest, Money, NoticeKind, Timeouts
from providers.stripe import StripeProvider
from tests.contract.raw_server import RawServer, always, answer

CONTRACTS = Path(os.environ.get("ROUTER_VENDOR_CONTRACTS") or Path(__file__).parents[3] / "shared" / "contracts")
pytestmark = [
    pytest.mark.vendor_contract,
    pytest.mark.skipif(not CONTRACTS.is_dir(), reason="the vendors' contracts (../shared/contracts) are not here"),
]
PLAIN = ChargeRequest("att_1", "pay_1", "ORD-1", Money(1999, "EUR"), "automatic", "card", "", customer_id="cus_1")
BROWSER = {
    "user_agent": "Mozilla/5.0",
    "accept_header": "*/*",
    "language": "de",
    "color_depth": 24,
    "java_enabled": False,
    "screen_height": 1,
    "screen_width": 1,
    "time_zone_offset": 0,
}
FULL = replace(
    PLAIN,
    capture="manual",
    initiator="merchant",
    return_url="https://shop.example/return",
    customer_email="a@b.example",
    customer_ip="192.0.2.1",
    customer_country="DE",
    browser=BROWSER,
)
REQUESTS = pytest.mark.parametrize("request_", [PLAIN, FULL], ids=["plain", "full"])


@REQUESTS
def test_adyen_is_sent_what_its_openapi_file_allows(request_: ChargeRequest) -> None:
    """No unknown field, no wrong type, nothing missing."""
    api = json.loads((CONTRACTS / "adyen-checkout-v72.openapi.json").read_text())
    adyen = AdyenProvider(
        api_key="k", merchant_account="Shop", base_url="http://127.0.0.1:1", default_return_url="https://x.example/"
    )
    params = adyen.render(replace(request_, token="8415718415172204"))
    schemas = api["components"]["schemas"]
    # The payment method is one of forty alternatives, told apart by `type`: a card's here.
    body = {**params, "paymentMethod": {}}
    payment = {**schemas["PaymentRequest"], "additionalProperties": False}
    payment["properties"] = {**payment["properties"], "paymentMethod": {}}
    assert problems(body, payment, api) == []
    assert problems(params["paymentMethod"], schemas["CardDetails"], api) == []


def problems(value: object, schema: dict[str, Any], api: dict[str, Any]) -> list[str]:
    """What the schema has against the value."""
    whole = {**schema, "components": api["components"]}
    return [error.message for error in jsonschema.Draft202012Validator(whole).iter_errors(value)]


@REQUESTS
def test_stripe_is_sent_what_its_types_allow(request_: ChargeRequest) -> None:
    """The schema was generated from the SDK's own types."""
    stripe = StripeProvider(api_key="sk_test_x", base_url="http://127.0.0.1:1")
    form = urlencode(list(flat(stripe.render(replace(request_, token="pm_card_visa")))))
    _, errors = stripe_contract().check_request("post", "/v1/payment_intents", form)
    assert list(errors) == []


def stripe_contract() -> Any:
    """The checker of Stripe's requests, loaded from where it lies: it is not part of this project."""
    spec = importlib.util.spec_from_file_location("stripe_contract", CONTRACTS / "stripe_contract.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Contract(CONTRACTS / "stripe-2026-10-28-request-subset.schema.json")


def flat(params: Any, within: str = "") -> Any:
    """Stripe's bracketed form."""
    for name, value in params.items():
        full = f"{within}[{name}]" if within else name
        if isinstance(value, dict):
            yield from flat(value, full)
        elif isinstance(value, list):
            yield from flat({str(place): each for place, each in enumerate(value)}, full)
        else:
            yield full, str(value).lower() if isinstance(value, bool) else value


def sent_by(call: Any, reply: bytes, connect: Any) -> bytes:
    """The body of the one request that the call makes."""
    seen: list[bytes] = []
    with RawServer(always(answer(200, reply), seen)) as server:
        provider = connect(server.url)
        call(provider)
        provider.close()
    [request] = seen
    return request.partition(b"\r\n\r\n")[2]


ADYEN_CALLS: dict[str, Any] = {
    "StandalonePaymentCancelRequest": lambda adyen: adyen.void_attempt(
        "att_1", idempotency_key="k", timeouts=Timeouts(1, 2)
    ),
    "PaymentDetailsRequest": lambda adyen: adyen.complete(
        None, {"redirectResult": "x"}, capture="automatic", idempotency_key="k", timeouts=Timeouts(1, 2)
    ),
}


@pytest.mark.parametrize("schema", ADYEN_CALLS)
def test_a_technical_cancel_and_a_completion_are_what_adyen_allows(schema: str) -> None:
    """No unknown field, no wrong type, nothing missing."""
    api = json.loads((CONTRACTS / "adyen-checkout-v72.openapi.json").read_text())
    body = sent_by(
        ADYEN_CALLS[schema],
        b"{}",
        lambda url: AdyenProvider(
            api_key="k", merchant_account="Shop", base_url=url, default_return_url="https://x.example/"
        ),
    )
    whole = {**api["components"]["schemas"][schema], "additionalProperties": False}
    assert problems(json.loads(body), whole, api) == []


def test_a_refund_is_what_stripes_types_allow() -> None:
    """Its metadata, which names our operation, among it."""
    body = sent_by(
        lambda stripe: stripe.refund("pi_1", Money(500, "EUR"), idempotency_key="k", timeouts=Timeouts(1, 2)),
        b"{}",
        lambda url: StripeProvider(api_key="sk_test_x", base_url=url),
    )
    _, errors = stripe_contract().check_request("post", "/v1/refunds", body.decode())
    assert list(errors) == []


MOVE_NOTHING = {
    "AUTHORISATION_ADJUSTMENT",
    "AUTORESCUE",
    "CANCEL_AUTORESCUE",
    "EXPIRE",
    "INFORMATION_SUPPLIED",
    "ISSUER_COMMENTS",
    "MANUAL_REVIEW_ACCEPT",
    "MANUAL_REVIEW_REJECT",
    "NOTIFICATION_OF_FRAUD",
    "OFFER_CLOSED",
    "ORDER_CLOSED",
    "ORDER_OPENED",
    "PAIDOUT_REVERSED",
    "PAYOUT_DECLINE",
    "PAYOUT_EXPIRE",
    "PAYOUT_THIRDPARTY",
    "POSTPONED_REFUND",
    "RECURRING_CONTRACT",
    "REFUND_WITH_DATA",
    "REPORT_AVAILABLE",
    "VOID_PENDING_REFUND",
}
"""Risk reviews, payouts, reports, comments, and what this router never asks for."""


def test_every_example_of_adyens_webhooks_is_read() -> None:
    """As its OpenAPI file gives them, signed: nothing that Adyen documents is refused, or unknown to our table."""
    api = json.loads((CONTRACTS / "adyen-webhooks-v1.openapi.json").read_text())
    key = "00" * 32
    adyen = AdyenProvider(
        api_key="k",
        merchant_account="YOUR_MERCHANT_ACCOUNT",
        base_url="http://127.0.0.1:1",
        default_return_url="https://x.example/",
        hmac_keys=(key,),
    )
    told: dict[str, set[NoticeKind]] = {}
    for path, calls in api["webhooks"].items():
        for example in calls["post"]["requestBody"]["content"]["application/json"].get("examples", {}).values():
            delivery = api["components"]["examples"][example["$ref"].rsplit("/", 1)[-1]]["value"]
            if "notificationItems" not in delivery:
                continue  # of bank accounts, in another form, at an address of its own
            for wrapped in delivery["notificationItems"]:
                item = wrapped["NotificationRequestItem"]
                item["merchantAccountCode"] = "YOUR_MERCHANT_ACCOUNT"  # some name another one
                signature = generate_notification_sig(item, key).decode()
                item["additionalData"] = {**item.get("additionalData", {}), "hmacSignature": signature}
            notices = adyen.read_webhook({}, json.dumps(delivery).encode(), now=dt.datetime.now(dt.UTC))
            told.setdefault(path.strip("/"), set()).update(notice.kind for notice in notices)
    assert len(told) >= 39
    assert {name for name, kinds in told.items() if kinds == {NoticeKind.OTHER}} == MOVE_NOTHING
