"""What Stripe is sent for each payment."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from providers.contract import ChargeRequest, Ineligible, Money
from providers.stripe import StripeProvider

REQUEST = ChargeRequest(
    attempt_id="att_1",
    payment_id="pay_1",
    reference="ORD-1",
    money=Money(1999, "EUR"),
    capture="automatic",
    method="card",
    token="pm_card_visa",
)


@pytest.fixture
def stripe() -> StripeProvider:
    """An adapter that is never asked to send anything."""
    return StripeProvider(api_key="sk_test_secret", base_url="http://127.0.0.1:1/")


def test_a_plain_payment_is_created_and_confirmed_in_one_call(stripe: StripeProvider) -> None:
    """Every parameter, and no other."""
    assert stripe.render(REQUEST) == {
        "amount": 1999,
        "currency": "eur",
        "payment_method": "pm_card_visa",
        "confirm": True,
        "capture_method": "automatic",
        "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
        "metadata": {"reference": "ORD-1", "attempt": "att_1", "payment": "pay_1"},
        "expand": ["latest_charge.balance_transaction"],
    }


def test_the_fee_is_asked_for_where_it_can_be_told_and_cannot_cost_the_call() -> None:
    """An authorization has none yet; a restricted key may lack the right to it, and all would be refused."""
    stripe = StripeProvider(api_key="sk_test_secret", base_url="http://127.0.0.1:1/")
    restricted = StripeProvider(api_key="rk_test_secret", base_url="http://127.0.0.1:1/")
    asks = [
        "expand" in provider.render(replace(REQUEST, capture=capture))
        for provider in (stripe, restricted)
        for capture in ("automatic", "manual")
    ]
    assert asks == [True, False, False, False]


@pytest.mark.parametrize(
    ("change", "sent"),
    [
        ({"initiator": "merchant"}, {"off_session": True}),
        (
            {"return_url": "https://shop.example/return"},
            {
                "return_url": "https://shop.example/return",
                "automatic_payment_methods": {"enabled": True, "allow_redirects": "always"},
            },
        ),
        (
            {"token": {"payment_method": "pm_1", "customer": "cus_1"}},
            {"payment_method": "pm_1", "customer": "cus_1"},
        ),
        ({"token": {"payment_method": "pm_1"}}, {"payment_method": "pm_1"}),
        ({"money": Money(500, "ISK")}, {"amount": 50000, "currency": "isk"}),
    ],
)
def test_what_is_asked_shows_in_what_is_sent(
    stripe: StripeProvider, change: dict[str, Any], sent: dict[str, Any]
) -> None:
    """And the rest stays as it was."""
    assert stripe.render(replace(REQUEST, **change)) == {**stripe.render(REQUEST), **sent}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"method": "sepa_debit"}, "only cards"),
        ({"token": ""}, "not a payment method"),
        ({"token": "4242424242424242"}, "not a payment method"),
        ({"token": "tok_visa"}, "not a payment method"),
        ({"token": "pm_1/../../refunds"}, "not a payment method"),
        ({"token": {}}, "not a payment method"),
        ({"token": {"customer": "cus_1"}}, "not a payment method"),
        ({"token": {"payment_method": "pm_1", "card": "x"}}, "not a payment method"),
        ({"token": {"payment_method": "pm_1", "customer": "4242424242424242"}}, "customer"),
        ({"money": Money(1234, "KWD")}, "exactly"),
        ({"money": Money(10**8, "EUR")}, "8 digits"),
        ({"money": Money(0, "EUR")}, "not positive"),
        ({"money": Money(100, "ZZZ")}, "ISO 4217"),
    ],
)
def test_what_stripe_cannot_take_is_refused_with_a_reason_and_without_the_token(
    stripe: StripeProvider, change: dict[str, Any], reason: str
) -> None:
    """The reason is for people; the token is for nobody."""
    with pytest.raises(Ineligible, match=reason) as caught:
        stripe.render(replace(REQUEST, **change))
    assert "4242" not in str(caught.value)
    assert "4242" not in caught.value.reason


def test_an_authorization_alone_is_captured_later(stripe: StripeProvider) -> None:
    """Asked for so, and nothing else is different but what an authorization does not have."""
    sent = {**stripe.render(REQUEST), "capture_method": "manual"}
    del sent["expand"]
    assert stripe.render(replace(REQUEST, capture="manual")) == sent


def test_rendering_is_pure_and_plain_json(stripe: StripeProvider) -> None:
    """It is stored before the call and sent again after a crash."""
    params = stripe.render(REQUEST)
    assert json.loads(json.dumps(params)) == params == stripe.render(REQUEST)


def test_a_reference_too_long_for_metadata_is_left_out_and_not_cut(stripe: StripeProvider) -> None:
    """A shortened one would name another order."""
    params = stripe.render(replace(REQUEST, reference="R" * 501))
    assert params["metadata"] == {"attempt": "att_1", "payment": "pay_1"}


def test_the_key_shows_nowhere(stripe: StripeProvider) -> None:
    """Not in the adapter's own text, nor in what is stored."""
    assert "secret" not in repr(stripe)
    assert "secret" not in repr(stripe.render(REQUEST))
    assert stripe.name == "stripe"


def test_a_wrong_base_url_stops_the_start() -> None:
    """Not the first payment."""
    with pytest.raises(ValueError, match="base URL"):
        StripeProvider(api_key="sk_test_x", base_url="api.stripe.com")
