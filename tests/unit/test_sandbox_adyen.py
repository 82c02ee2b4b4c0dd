"""The stand-in Adyen: payments, modifications, test triggers, refusals."""

from __future__ import annotations

import threading
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import Adyen
import pytest
import urllib3

from providers.sandbox.server import Sandbox
from tests.unit.test_sandbox_client import Shop

ACCOUNT = {"merchantAccount": "ShopECOM"}
MANUAL: dict[str, Any] = {"additionalData": {"manualCapture": "true"}}


@pytest.fixture
def shop(sandbox: Sandbox) -> Shop:
    """A merchant of the sandbox."""
    return Shop(sandbox)


def card(**fields: str) -> dict[str, str]:
    """A card as the vendor's own fields on the page encrypt it, in its test notation."""
    return {
        "type": "scheme",
        "encryptedCardNumber": "test_4111111111111111",
        "encryptedExpiryMonth": "test_03",
        "encryptedExpiryYear": "test_2030",
        "encryptedSecurityCode": "test_737",
        **fields,
    }


def euros(cents: int) -> dict[str, Any]:
    """An amount, and whose it is."""
    return {**ACCOUNT, "amount": {"value": cents, "currency": "EUR"}}


# ---------------------------------------------------------------- payments


@pytest.mark.parametrize("prefix", ["", "/v72", "/checkout/v72", "/checkout"])
def test_a_payment_is_authorised_under_every_prefix(shop: Shop, prefix: str) -> None:
    """The test endpoint says /v72, the live one /checkout/v72."""
    body = {
        **euros(1999),
        "reference": "att_1",
        "paymentMethod": card(),
        "returnUrl": "https://shop.example/return",
    }
    answer = shop.adyen("/payments", body, prefix=prefix)
    paid = answer.json()
    assert (answer.status, paid["resultCode"], paid["merchantReference"]) == (200, "Authorised", "att_1")
    assert answer.headers["pspReference"] == paid["pspReference"]
    assert len(paid["pspReference"]) == 16


def test_manual_capture_only_authorizes(shop: Shop) -> None:
    """`manualCapture` is a string; without it the payment is captured at once."""
    shop.pay_adyen(**MANUAL)
    shop.pay_adyen(additionalData={"manualCapture": "false"})
    assert shop.statuses("adyen") == ["authorized", "captured"]


def test_the_books_take_the_reference_from_the_metadata_too(shop: Shop) -> None:
    """`merchantOrderReference` first, else `metadata.reference`."""
    shop.pay_adyen(merchantOrderReference=None, metadata={"reference": "ORD-2"})
    assert shop.books("adyen")[0]["reference"] == "ORD-2"


@pytest.mark.parametrize(
    ("trigger", "number", "result_code", "refusal", "status"),
    [
        ("APPROVED", "1", "Authorised", None, "captured"),
        ("DECLINED", "2", "Refused", "2", "declined"),
        ("REFERRAL", "3", "Refused", "3", "declined"),
        ("ERROR", "4", "Error", "4", "declined"),
        ("BLOCK_CARD", "5", "Refused", "5", "declined"),
        ("CARD_EXPIRED", "6", "Refused", "6", "declined"),
        ("ISSUER_UNAVAILABLE", "9", "Refused", "9", "declined"),
        ("NOT_3D_AUTHENTICATED", "11", "Refused", "11", "declined"),
        ("NOT_ENOUGH_BALANCE", "12", "Refused", "12", "declined"),
        ("PENDING", "13", "Pending", None, None),
        ("ACQUIRER_FRAUD", "14", "Refused", "14", "declined"),
    ],
)
def test_triggers_give_each_result(
    shop: Shop, trigger: str, number: str, result_code: str, refusal: str | None, status: str | None
) -> None:
    """By holder name, by test code (name or number), and by the sandbox's own stored ids."""
    answers = [
        shop.pay_adyen(paymentMethod=card(holderName=trigger)),
        shop.pay_adyen(additionalData={"RequestedTestAcquirerResponseCode": trigger}),
        shop.pay_adyen(additionalData={"RequestedTestAcquirerResponseCode": number}),
        shop.pay_adyen(paymentMethod={"type": "scheme", "storedPaymentMethodId": f"adyen_sandbox_{trigger}"}),
    ]
    for answer in answers:
        paid = answer.json()
        assert (answer.status, paid["resultCode"], paid.get("refusalReasonCode")) == (200, result_code, refusal)
        assert ("refusalReason" in paid) == (refusal is not None)
    assert shop.statuses("adyen") == ([status] * 4 if status else [])


@pytest.mark.parametrize("stored", ["8415718415172204", "adyen_sandbox_anything"])
def test_stored_details_are_approved_with_their_shopper(shop: Shop, stored: str) -> None:
    """Sixteen digits that begin with 8, or the sandbox's own."""
    method = {"type": "scheme", "storedPaymentMethodId": stored}
    assert shop.pay_adyen(paymentMethod=method).json()["resultCode"] == "Authorised"
    for shopper in (None, "ab", "x" * 257):
        assert shop.pay_adyen(paymentMethod=method, shopperReference=shopper).status == 422


@pytest.mark.parametrize("stored", ["4111111111111111", "84157184151722041", "adyen_sandbox_", "pm_card_visa"])
def test_unknown_stored_details_are_refused(shop: Shop, stored: str) -> None:
    """422, and no charge."""
    refused = shop.pay_adyen(paymentMethod={"storedPaymentMethodId": stored})
    assert (refused.status, refused.json()["errorCode"]) == (422, "803")
    assert shop.books("adyen") == []


# ---------------------------------------------------------------- 3-D Secure


@pytest.mark.parametrize(
    "how",
    [
        {"paymentMethod": card(holderName="REDIRECT_SHOPPER")},
        {"paymentMethod": {"type": "scheme", "storedPaymentMethodId": "adyen_sandbox_REDIRECT_SHOPPER"}},
        {"authenticationData": {"attemptAuthentication": "always"}},
        {"additionalData": {"executeThreeD": "true"}},
    ],
)
@pytest.mark.parametrize(
    ("passed", "result_code", "status"), [(1, "Authorised", "captured"), (0, "Refused", "declined")]
)
def test_the_customer_is_redirected_and_finishes(
    shop: Shop, how: dict[str, Any], passed: int, result_code: str, status: str
) -> None:
    """Nothing is authorized before `/payments/details`; sent again it answers the same."""
    started = shop.pay_adyen(**how).json()
    assert (started["resultCode"], started["action"]["type"]) == ("RedirectShopper", "redirect")
    page = started["action"]["url"] + ("" if passed else "?result=fail")
    location = shop.pool.request("GET", page, redirect=False).headers["Location"]
    assert location.startswith("https://shop.example/return?")
    assert shop.books("adyen") == []
    details = {"details": {"redirectResult": parse_qs(urlsplit(location).query)["redirectResult"][0]}}
    done = shop.adyen("/payments/details", details).json()
    assert done["resultCode"] == result_code
    assert shop.statuses("adyen") == [status]
    assert shop.adyen("/payments/details", details).json() == done
    assert shop.state("adyen")["authorizations"] == 1


def test_unknown_details_are_refused(shop: Shop) -> None:
    """A result that was never given out, and none at all."""
    assert shop.adyen("/payments/details", {"details": {"redirectResult": "X!success"}}).status == 422
    assert shop.adyen("/payments/details", {}).status == 422
    assert shop.pool.request("GET", f"{shop.sandbox.adyen_url}/sandbox/redirect/none").status == 404


# ---------------------------------------------------------------- modifications


def test_captures_in_parts_up_to_what_was_authorized(shop: Shop) -> None:
    """Every capture is received; the books take only what is possible."""
    psp = shop.pay_adyen(**MANUAL).json()["pspReference"]
    for cents in (1000, 999, 1):
        answer = shop.adyen(f"/payments/{psp}/captures", {**euros(cents), "reference": "cap"})
        received = answer.json()
        assert (answer.status, received["status"], received["paymentPspReference"]) == (201, "received", psp)
        assert received["pspReference"] != psp
        assert (received["reference"], received["amount"]["value"]) == ("cap", cents)
    [row] = shop.books("adyen")
    assert (row["status"], row["amount_captured"]) == ("captured", 1999)


def test_refunds_never_exceed_what_was_captured(shop: Shop) -> None:
    """Received all the same: the vendor says no by webhook only."""
    psp = shop.pay_adyen().json()["pspReference"]
    for cents in (1500, 500, 499, 1):
        assert shop.adyen(f"/payments/{psp}/refunds", euros(cents)).status == 201
    [row] = shop.books("adyen")
    assert (row["status"], row["amount_refunded"]) == ("refunded", 1999)


def test_another_currency_moves_nothing(shop: Shop) -> None:
    """A capture in dollars of an authorization in euros."""
    psp = shop.pay_adyen(**MANUAL).json()["pspReference"]
    shop.adyen(f"/payments/{psp}/captures", {**ACCOUNT, "amount": {"value": 1999, "currency": "USD"}})
    assert shop.statuses("adyen") == ["authorized"]


def test_a_cancel_releases_an_authorization_only(shop: Shop) -> None:
    """What was captured stays captured."""
    cases: list[tuple[dict[str, Any], str]] = [(MANUAL, "canceled"), ({}, "captured")]
    for extra, after in cases:
        psp = shop.pay_adyen(**extra).json()["pspReference"]
        assert shop.adyen(f"/payments/{psp}/cancels", ACCOUNT).json()["status"] == "received"
        assert shop.statuses("adyen")[-1] == after


def test_a_reversal_cancels_or_refunds(shop: Shop) -> None:
    """Whichever the state calls for."""
    cases: list[tuple[dict[str, Any], str]] = [(MANUAL, "canceled"), ({}, "refunded")]
    for extra, after in cases:
        psp = shop.pay_adyen(**extra).json()["pspReference"]
        assert shop.adyen(f"/payments/{psp}/reversals", ACCOUNT).json()["status"] == "received"
        assert shop.statuses("adyen")[-1] == after


def test_modifications_of_an_unknown_payment_are_refused(shop: Shop) -> None:
    """422 errorCode 167."""
    for kind in ("captures", "cancels", "refunds", "reversals"):
        refused = shop.adyen(
            f"/payments/NOSUCHPAYMENT000/{kind}", euros(1) if kind in ("captures", "refunds") else ACCOUNT
        )
        assert (refused.status, refused.json()["errorCode"]) == (422, "167")


def test_a_technical_cancel_names_one_attempt(shop: Shop) -> None:
    """By our own reference; other attempts of the same payment are left alone."""
    for attempt in ("att_1", "att_2"):
        shop.pay_adyen(attempt, **MANUAL)
    answer = shop.adyen("/cancels", {**ACCOUNT, "paymentReference": "att_1", "reference": "void_1"})
    received = answer.json()
    assert (answer.status, received["status"], received["paymentReference"]) == (201, "received", "att_1")
    assert received["reference"] == "void_1"
    assert shop.statuses("adyen") == ["canceled", "authorized"]
    assert shop.adyen("/cancels", ACCOUNT).status == 422


@pytest.mark.parametrize("extra", [{}, MANUAL])
def test_a_technical_cancel_overtakes_a_delayed_authorization(shop: Shop, extra: dict[str, Any]) -> None:
    """The authorization that arrives after its cancel is canceled on arrival, and says so."""
    shop.mode("adyen", "slow", latency_ms=250, calls="authorize")
    answers: list[urllib3.BaseHTTPResponse] = []
    thread = threading.Thread(target=lambda: answers.append(shop.pay_adyen("att_1", **extra)))
    thread.start()
    end = time.monotonic() + 2
    while shop.state("adyen")["requests"] < 1 and time.monotonic() < end:
        time.sleep(0.005)
    assert shop.adyen("/cancels", {**ACCOUNT, "paymentReference": "att_1"}).status == 201
    assert shop.books("adyen") == []
    thread.join(2)
    assert answers[0].json()["resultCode"] == "Cancelled"
    assert shop.statuses("adyen") == ["canceled"]
    assert shop.books("adyen")[0]["amount_captured"] == 0


def test_a_technical_cancel_does_not_undo_a_capture(shop: Shop) -> None:
    """As at the vendor: what was captured needs a refund."""
    shop.pay_adyen("att_1")
    shop.adyen("/cancels", {**ACCOUNT, "paymentReference": "att_1"})
    assert shop.statuses("adyen") == ["captured"]


def test_the_probe_lists_payment_methods(shop: Shop) -> None:
    """And moves no money."""
    assert shop.probe("adyen").json()["paymentMethods"][0]["type"] == "scheme"
    assert shop.adyen("/paymentMethods", {}).status == 422


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("api_key", [None, "", "invalid_1", "revoked_1"])
def test_calls_without_a_good_key_are_refused(shop: Shop, api_key: str | None) -> None:
    """401 in the vendor's shape."""
    refused = shop.adyen("/paymentMethods", ACCOUNT, api_key=api_key)
    assert (refused.status, refused.json()["errorCode"], refused.json()["errorType"]) == (401, "000", "security")


@pytest.mark.parametrize("account", ["UnknownECOM", "forbidden"])
def test_a_wrong_account_is_forbidden(shop: Shop, account: str) -> None:
    """403 errorCode 901."""
    refused = shop.pay_adyen(merchantAccount=account)
    assert (refused.status, refused.json()["errorCode"]) == (403, "901")


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"merchantAccount": None}, 422, "702"),
        ({"amount": None}, 422, "100"),
        ({"amount": {"currency": "EUR"}}, 422, "100"),
        ({"amount": {"value": -1, "currency": "EUR"}}, 422, "137"),
        ({"amount": {"value": 19.99, "currency": "EUR"}}, 400, "702"),
        ({"amount": {"value": True, "currency": "EUR"}}, 400, "702"),
        ({"amount": {"value": 1999, "currency": "eur"}}, 422, "138"),
        ({"amount": {"value": 1999}}, 422, "138"),
        ({"reference": None}, 422, "130"),
        ({"reference": "r" * 81}, 422, "702"),
        ({"reference": 5}, 400, "702"),
        ({"returnUrl": None}, 422, "14_030"),
        ({"paymentMethod": None}, 422, "14_002"),
        ({"paymentMethod": {"type": "scheme"}}, 422, "14_004"),
        ({"additionalData": {"manualCapture": True}}, 400, "702"),
        ({"metadata": {"cart": 77}}, 400, "702"),
        ({"colour": "red"}, 400, "702"),
    ],
)
def test_a_wrong_field_is_refused(shop: Shop, fields: dict[str, Any], status: int, code: str) -> None:
    """In the vendor's shape, with nothing in the books."""
    refused = shop.pay_adyen(**fields)
    body = refused.json()
    assert (refused.status, body["status"], body["errorCode"]) == (status, status, code)
    assert set(body) == {"status", "errorCode", "message", "errorType", "pspReference"}
    assert shop.books("adyen") == []


def test_a_raw_card_number_is_refused_without_an_echo(shop: Shop) -> None:
    """As an account without that permission is refused."""
    refused = shop.pay_adyen(paymentMethod={"type": "scheme", "number": "4111111111111111"})
    assert refused.status == 403
    assert b"4111" not in refused.data


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"'])
def test_a_body_that_is_no_object_is_refused(shop: Shop, body: bytes) -> None:
    """400 errorCode 702."""
    refused = shop.adyen("/payments", body)
    assert (refused.status, refused.json()["errorCode"]) == (400, "702")


def test_unknown_routes_are_not_found(shop: Shop) -> None:
    """404, as JSON."""
    assert shop.adyen("/sessions", ACCOUNT).status == 404


# ---------------------------------------------------------------- through the vendor's SDK


def test_the_sdk_raises_its_own_errors(shop: Shop) -> None:
    """Every refusal is the class that the SDK's users expect."""
    client = Adyen.Adyen(xapikey="test_key", platform="test")
    api = client.checkout.payments_api
    api.baseUrl = f"{shop.sandbox.adyen_url}/v72"
    assert api.payment_methods(ACCOUNT).message["paymentMethods"]
    with pytest.raises(Adyen.exceptions.AdyenAPIUnprocessableEntity) as unprocessable:
        api.payment_methods({})
    assert unprocessable.value.error_code == "702"
    with pytest.raises(Adyen.exceptions.AdyenAPIInvalidPermission):
        api.payment_methods({"merchantAccount": "unknown"})
    for mode, status in (("rate_limited", 429), ("errors", 503)):
        shop.mode("adyen", mode)
        with pytest.raises(Adyen.exceptions.AdyenAPIResponseError) as failed:
            api.payment_methods(ACCOUNT)
        assert failed.value.status_code == status
    shop.mode("adyen", "garbage")
    assert api.payment_methods(ACCOUNT).message == {}
