"""What Adyen is sent for each payment."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from providers.adyen import AdyenProvider
from providers.contract import ChargeRequest, Ineligible, Money, Timeouts
from providers.transport import Transport

STORED = "8415718415172204"
REQUEST = ChargeRequest(
    attempt_id="att_1",
    payment_id="pay_1",
    reference="ORD-1",
    money=Money(1999, "EUR"),
    capture="automatic",
    method="card",
    token=STORED,
    customer_id="cus_1",
)
BROWSER = {
    "user_agent": "Mozilla/5.0",
    "accept_header": "*/*",
    "language": "de-DE",
    "color_depth": 24,
    "java_enabled": False,
    "screen_height": 900,
    "screen_width": 1440,
    "time_zone_offset": -60,
}
SENT_BROWSER = {
    "userAgent": "Mozilla/5.0",
    "acceptHeader": "*/*",
    "language": "de-DE",
    "colorDepth": 24,
    "javaEnabled": False,
    "screenHeight": 900,
    "screenWidth": 1440,
    "timeZoneOffset": -60,
}


def provider(base_url: str = "http://127.0.0.1:1") -> AdyenProvider:
    """An adapter that is never asked to send anything."""
    return AdyenProvider(
        api_key="AQE-secret",
        merchant_account="ShopECOM",
        base_url=base_url,
        default_return_url="https://shop.example/",
    )


def test_a_plain_payment_names_the_attempt_and_the_order() -> None:
    """Every field, and no other."""
    assert provider().render(REQUEST) == {
        "merchantAccount": "ShopECOM",
        "amount": {"value": 1999, "currency": "EUR"},
        "reference": "att_1",
        "merchantOrderReference": "ORD-1",
        "paymentMethod": {"type": "scheme", "storedPaymentMethodId": STORED},
        "shopperReference": "cus_1",
        "shopperInteraction": "ContAuth",
        "recurringProcessingModel": "CardOnFile",
        "captureDelayHours": 0,
        "returnUrl": "https://shop.example/",
        "metadata": {"reference": "ORD-1", "payment": "pay_1"},
    }


@pytest.mark.parametrize(
    ("change", "sent"),
    [
        ({"initiator": "merchant"}, {"recurringProcessingModel": "UnscheduledCardOnFile"}),
        ({"return_url": "https://shop.example/back"}, {"returnUrl": "https://shop.example/back"}),
        ({"customer_email": "a@b.example"}, {"shopperEmail": "a@b.example"}),
        ({"customer_ip": "192.0.2.1"}, {"shopperIP": "192.0.2.1"}),
        ({"customer_country": "DE"}, {"countryCode": "DE"}),
        ({"browser": BROWSER}, {"browserInfo": SENT_BROWSER}),
        ({"browser": SENT_BROWSER}, {"browserInfo": SENT_BROWSER}),
        ({"money": Money(500, "CLP")}, {"amount": {"value": 50000, "currency": "CLP"}}),
        (
            {"token": {"stored_payment_method_id": "8415", "shopper_reference": "shopper", "holder_name": "A B"}},
            {
                "paymentMethod": {"type": "scheme", "storedPaymentMethodId": "8415", "holderName": "A B"},
                "shopperReference": "shopper",
            },
        ),
    ],
)
def test_what_is_asked_shows_in_what_is_sent(change: dict[str, Any], sent: dict[str, Any]) -> None:
    """And the rest stays as it was."""
    adyen = provider()
    assert adyen.render(replace(REQUEST, **change)) == {**adyen.render(REQUEST), **sent}


def test_a_manual_capture_is_asked_for_by_the_payment_itself() -> None:
    """The account's default is not ours to know."""
    params = provider().render(replace(REQUEST, capture="manual"))
    assert params["additionalData"] == {"manualCapture": "true"}
    assert "captureDelayHours" not in params


@pytest.mark.parametrize(
    "change",
    [
        {"browser": {**BROWSER, "color_depth": "24"}},
        {"browser": {"user_agent": "Mozilla/5.0"}},
        {"browser": {**BROWSER, "screen_width": True}},
        {"customer_email": "a" * 257},
        {"customer_country": "Germany"},
    ],
)
def test_extras_that_adyen_would_refuse_are_left_out(change: dict[str, Any]) -> None:
    """A payment does not fail for what it could do without."""
    assert provider().render(replace(REQUEST, **change)) == provider().render(REQUEST)


def test_references_too_long_are_left_out_and_not_cut() -> None:
    """A shortened one would name another order."""
    params = provider().render(replace(REQUEST, reference="R" * 81))
    assert params["metadata"] == {"payment": "pay_1"}
    assert params["merchantOrderReference"] == "R" * 81
    assert "merchantOrderReference" not in provider().render(replace(REQUEST, reference="R" * 1001))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"method": "ideal"}, "only cards"),
        ({"token": ""}, "not a stored"),
        ({"token": "4111111111111111"}, "not a stored"),
        ({"token": "8415/../x"}, "not a stored"),
        ({"token": {"shopper_reference": "cus_1"}}, "not a stored"),
        ({"token": {"stored_payment_method_id": STORED, "shopper_reference": "cus_1", "x": "y"}}, "not a stored"),
        ({"token": {"stored_payment_method_id": STORED}}, "shopper"),
        ({"token": {"stored_payment_method_id": STORED, "shopper_reference": "ab"}}, "shopper"),
        ({"customer_id": None}, "shopper"),
        ({"customer_id": "ab"}, "shopper"),
        ({"customer_id": "c" * 257}, "shopper"),
        ({"money": Money(501, "IDR")}, "exactly"),
        ({"money": Money(100, "ZZZ")}, "ISO 4217"),
        ({"attempt_id": "a" * 81}, "attempt"),
        ({"return_url": "https://shop.example/" + "r" * 8000}, "return URL"),
    ],
)
def test_what_adyen_cannot_take_is_refused_with_a_reason_and_without_the_token(
    change: dict[str, Any], reason: str
) -> None:
    """The reason is for people; the token is for nobody."""
    with pytest.raises(Ineligible, match=reason) as caught:
        provider().render(replace(REQUEST, **change))
    assert "4111" not in str(caught.value)
    assert STORED not in str(caught.value)


def test_rendering_is_pure_and_plain_json() -> None:
    """It is stored before the call and sent again after a crash."""
    adyen = provider()
    params = adyen.render(replace(REQUEST, browser=BROWSER))
    assert json.loads(json.dumps(params)) == params == adyen.render(replace(REQUEST, browser=BROWSER))


def test_the_key_shows_nowhere() -> None:
    """Not in the adapter's own text, nor in what is stored."""
    adyen = provider()
    assert "secret" not in repr(adyen)
    assert "secret" not in repr(adyen.render(REQUEST))
    assert adyen.name == "adyen"


@pytest.mark.parametrize(
    ("given", "called"),
    [
        ("http://127.0.0.1:1", "http://127.0.0.1:1/v72/payments"),
        ("http://127.0.0.1:1/v72/", "http://127.0.0.1:1/v72/payments"),
        ("https://checkout-test.adyen.com", "https://checkout-test.adyen.com/v72/payments"),
        (
            "https://1797a841fbb37ca7-Shop-checkout-live.adyenpayments.com/checkout",
            "https://1797a841fbb37ca7-Shop-checkout-live.adyenpayments.com/checkout/v72/payments",
        ),
    ],
)
def test_the_base_url_is_used_as_it_is_given(given: str, called: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK would turn a live URL into a test one, and the other way round."""
    urls: list[str] = []

    def note(self: Transport, method: str, url: str, *rest: object) -> object:
        urls.append(url)
        raise ConnectionError

    monkeypatch.setattr(Transport, "send", note)
    adyen = provider(given)
    adyen.authorize(adyen.render(REQUEST), idempotency_key="k", timeouts=Timeouts(1, 1))
    assert urls == [called]


def test_a_url_that_the_sdk_would_rewrite_is_called_by_nobody() -> None:
    """A host with both words in it defeats the SDK's replacing: nothing is sent, and it is our fault."""
    adyen = provider("http://my-test.example-live.invalid")
    outcome = adyen.authorize(adyen.render(REQUEST), idempotency_key="k", timeouts=Timeouts(1, 1))
    assert (outcome.kind, outcome.reason, outcome.our_fault) == ("not_executed", "url_rewritten", True)


@pytest.mark.parametrize("url", ["https://checkout-test.adyen.com/v71", "checkout-test.adyen.com"])
def test_a_wrong_base_url_stops_the_start(url: str) -> None:
    """Not the first payment."""
    with pytest.raises(ValueError, match="base URL"):
        provider(url)
