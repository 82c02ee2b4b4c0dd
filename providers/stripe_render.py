"""A payment in Stripe's own terms: what `POST /v1/payment_intents` is sent. Pure.

Vendor's documentation: https://docs.stripe.com/api/payment_intents/create.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from providers import currencies
from providers.contract import ChargeRequest, Ineligible, Money, Params

METADATA_VALUE_CHARS = 500
"""Stripe's limit for one metadata value."""
_PAYMENT_METHOD = re.compile(r"(pm|card|src)_[A-Za-z0-9_]{1,250}")
_CUSTOMER = re.compile(r"cus_[A-Za-z0-9_]{1,250}")


FEE = "latest_charge.balance_transaction"
"""What is expanded so that an answer tells its fee (https://docs.stripe.com/expand).

`capture_method=automatic` captures within the call, so its balance transaction is made by then and is only shown; of
an asynchronous capture it would still be null (https://docs.stripe.com/payments/payment-intents/asynchronous-capture).
"""


def render(request: ChargeRequest, *, tell_fee: bool = False) -> Params:
    """The form of `POST /v1/payment_intents`. Raises Ineligible where the payment cannot be expressed.

    `tell_fee`: the answer to a payment that is captured at once is to say what it costs. It is a parameter like any
    other, so it is written down and sent again with them: a re-send under the same key must not differ.
    """
    params: dict[str, Any] = {
        "amount": amount_of(request.method, request.money),
        "currency": request.money.currency.lower(),
        "capture_method": request.capture,
        "confirm": True,
        **_token(request.token),
        "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
        "metadata": {
            name: value
            for name, value in (
                ("reference", request.reference),
                ("attempt", request.attempt_id),
                ("payment", request.payment_id),
            )
            if len(value) <= METADATA_VALUE_CHARS  # a shortened reference would name another order
        },
    }
    if request.return_url is not None:
        params["automatic_payment_methods"] = {"enabled": True, "allow_redirects": "always"}
        params["return_url"] = request.return_url
    if request.initiator == "merchant":
        params["off_session"] = True
    if tell_fee and request.capture == "automatic":
        params["expand"] = [FEE]
    return params


def amount_of(method: str, money: Money) -> int:
    """The amount in Stripe's own units. Raises Ineligible where Stripe takes no such payment, whatever its token."""
    if method != "card":
        raise Ineligible("only cards are set up at Stripe")
    return currencies.STRIPE.to_vendor(money)


def _token(token: str | Mapping[str, str]) -> dict[str, str]:
    """The payment method, and the customer it belongs to where one is given. Never says what it was, if misshapen."""
    given = {"payment_method": token} if isinstance(token, str) else dict(token)
    if not given.keys() <= {"payment_method", "customer"} or not _is(_PAYMENT_METHOD, given.get("payment_method")):
        raise Ineligible("the Stripe token is not a payment method's id (pm_…)")
    if "customer" in given and not _is(_CUSTOMER, given["customer"]):
        raise Ineligible("the Stripe token's customer is not a customer's id (cus_…)")
    return given


def _is(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
