"""What is rendered, against the vendors' own published contracts (where `../shared/contracts` is present)."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jsonschema
import pytest

from providers.adyen import AdyenProvider
from providers.contract import ChargeRequest, Money
from providers.stripe import StripeProvider

CONTRACTS = Path(__file__).parents[3] / "shared" / "contracts"
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
    spec = importlib.util.spec_from_file_location("stripe_contract", CONTRACTS / "stripe_contract.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    contract = module.Contract(CONTRACTS / "stripe-2026-10-28-request-subset.schema.json")
    stripe = StripeProvider(api_key="sk_test_x", base_url="http://127.0.0.1:1")
    form = urlencode(list(flat(stripe.render(replace(request_, token="pm_card_visa")))))
    _, errors = contract.check_request("post", "/v1/payment_intents", form)
    assert list(errors) == []


def flat(params: Any, within: str = "") -> Any:
    """Stripe's bracketed form."""
    for name, value in params.items():
        full = f"{within}[{name}]" if within else name
        if isinstance(value, dict):
            yield from flat(value, full)
        else:
            yield full, str(value).lower() if isinstance(value, bool) else value
