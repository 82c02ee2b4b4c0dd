"""A payment in Adyen's own terms (Checkout v72): what `/payments` is sent. Pure.

Vendor's documentation: https://docs.adyen.com/api-explorer/Checkout/72/post/payments.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from providers import currencies
from providers.contract import ChargeRequest, Ineligible, Money, Params

# Limits of Checkout v72's own schema, in characters.
REFERENCE_CHARS = 80
MERCHANT_ORDER_REFERENCE_CHARS = 1000
METADATA_VALUE_CHARS = 80
SHOPPER_REFERENCE_CHARS = range(3, 257)
SHOPPER_EMAIL_CHARS = 256
RETURN_URL_CHARS = 8000

_STORED_ID = re.compile(r"[A-Za-z0-9_]{1,64}")
_CARD_NUMBER = re.compile(r"[2-6][0-9]{12,18}")
"""Adyen's numeric stored ids begin with 8: a number that could be a card's is not sent anywhere."""

_BROWSER_FIELDS = {
    "acceptHeader": ("accept_header", str),
    "colorDepth": ("color_depth", int),
    "javaEnabled": ("java_enabled", bool),
    "language": ("language", str),
    "screenHeight": ("screen_height", int),
    "screenWidth": ("screen_width", int),
    "timeZoneOffset": ("time_zone_offset", int),
    "userAgent": ("user_agent", str),
}
"""Adyen's browserInfo, whole or not at all, from the same fields in our spelling or in Adyen's."""


def render(request: ChargeRequest, *, merchant_account: str, default_return_url: str) -> Params:
    """The body of `/payments`. Raises Ineligible where the payment cannot be expressed."""
    amount = amount_of(request.method, request.money)
    if len(request.attempt_id) > REFERENCE_CHARS:
        raise Ineligible(f"the attempt's id is above Adyen's {REFERENCE_CHARS} characters")
    payment_method, shopper_reference = _token(request)
    params: dict[str, Any] = {
        "merchantAccount": merchant_account,
        "amount": {"value": amount, "currency": request.money.currency},
        # The attempt's id, so that a technical cancel names exactly one attempt.
        "reference": request.attempt_id,
        "paymentMethod": payment_method,
        "shopperReference": shopper_reference,
        "shopperInteraction": "ContAuth",
        "recurringProcessingModel": "UnscheduledCardOnFile" if request.initiator == "merchant" else "CardOnFile",
        "returnUrl": request.return_url or default_return_url,
        "metadata": {
            name: value
            for name, value in (("reference", request.reference), ("payment", request.payment_id))
            if len(value) <= METADATA_VALUE_CHARS  # a shortened reference would name another order
        },
    }
    if len(params["returnUrl"]) > RETURN_URL_CHARS:
        raise Ineligible(f"the return URL is above Adyen's {RETURN_URL_CHARS} characters")
    if len(request.reference) <= MERCHANT_ORDER_REFERENCE_CHARS:
        params["merchantOrderReference"] = request.reference
    if request.capture == "manual":
        params["additionalData"] = {"manualCapture": "true"}
    else:
        params["captureDelayHours"] = 0
    if request.customer_email and len(request.customer_email) <= SHOPPER_EMAIL_CHARS:
        params["shopperEmail"] = request.customer_email
    if request.customer_ip:
        params["shopperIP"] = request.customer_ip
    if request.customer_country and re.fullmatch("[A-Z]{2}", request.customer_country):
        params["countryCode"] = request.customer_country
    if browser := _browser(request.browser or {}):
        params["browserInfo"] = browser
    return params


def amount_of(method: str, money: Money) -> int:
    """The amount in Adyen's own units. Raises Ineligible where Adyen takes no such payment, whatever its token."""
    if method != "card":
        raise Ineligible("only cards are set up at Adyen")
    return currencies.ADYEN.to_vendor(money)


def _token(request: ChargeRequest) -> tuple[dict[str, str], str]:
    """The stored card and whose it is. Never says what it was, if misshapen."""
    token: Mapping[str, str | None]
    if isinstance(request.token, str):
        token = {"stored_payment_method_id": request.token, "shopper_reference": request.customer_id}
    else:
        token = request.token
    stored_id, shopper = token.get("stored_payment_method_id"), token.get("shopper_reference")
    known = {"stored_payment_method_id", "shopper_reference", "holder_name"}
    if (
        not token.keys() <= known
        or not isinstance(stored_id, str)
        or not _STORED_ID.fullmatch(stored_id)
        or _CARD_NUMBER.fullmatch(stored_id)
    ):
        raise Ineligible("the Adyen token is not a stored payment method's id")
    if not isinstance(shopper, str) or len(shopper) not in SHOPPER_REFERENCE_CHARS:
        raise Ineligible("the Adyen token needs the shopper's reference it was stored under (3 to 256 characters)")
    method = {"type": "scheme", "storedPaymentMethodId": stored_id}
    if isinstance(holder := token.get("holder_name"), str) and holder:
        method["holderName"] = holder
    return method, shopper


def _browser(given: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for theirs, (ours, kind) in _BROWSER_FIELDS.items():
        value = given.get(ours, given.get(theirs))
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            return {}
        found[theirs] = value
    return found
