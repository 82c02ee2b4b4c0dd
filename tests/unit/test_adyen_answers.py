"""What each of Adyen's answers comes to: the table of facts/providers.md, row by row, over a real socket."""

from __future__ import annotations

import json
from typing import Any

import Adyen
import pytest
from structlog.testing import capture_logs

from providers.adyen import AdyenProvider
from providers.contract import DeclineClass, Health, ModificationKind, Money, Outcome, Timeouts
from tests.contract.raw_server import RawServer, always, answer, refused_url, reset_unread

TIMEOUTS = Timeouts(2, 2)
KEY = "AQE-very-secret"
TOKEN = "8415718415172204"
PSP = "NC6HT9CRT65ZGN82"
PARAMS = {
    "merchantAccount": "Shop",
    "amount": {"value": 100, "currency": "EUR"},
    "paymentMethod": {"storedPaymentMethodId": TOKEN},
}


def provider(url: str) -> AdyenProvider:
    """An adapter of that server."""
    return AdyenProvider(
        api_key=KEY, merchant_account="Shop", base_url=url, default_return_url="https://shop.example/"
    )


def raw(body: object) -> bytes:
    """As it goes over the wire."""
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def authorize(status: int, body: object, params: dict[str, Any] | None = None) -> Outcome:
    """One authorize call answered like that; nothing secret in the outcome or the logs."""
    with RawServer(always(answer(status, raw(body)))) as server, capture_logs() as logs:
        outcome = provider(server.url).authorize(params or PARAMS, idempotency_key="att_1", timeouts=TIMEOUTS)
    assert not any(secret in f"{outcome!r}{logs!r}" for secret in (KEY, TOKEN, "4111111111111111"))
    return outcome


def result(code: object, **more: Any) -> dict[str, Any]:
    """A payment's answer."""
    return {"resultCode": code, "pspReference": PSP, **more}


def refused(code: object) -> dict[str, Any]:
    """A refusal."""
    return result("Refused", refusalReasonCode=code, refusalReason="4111111111111111")


def error(code: str) -> dict[str, Any]:
    """An API error."""
    return {"status": 0, "errorCode": code, "message": f"4111111111111111 {KEY}", "errorType": "validation"}


LOUD = ("unknown", Health.PROVIDER_ERROR, "unrecognised_status", False)
SENSELESS = ("unknown", Health.PROVIDER_ERROR, "senseless_answer", False)
ACQUIRER = ("not_executed", Health.PROVIDER_ERROR, "acquirer_error", False)
KEY_IN_PROGRESS = ("unknown", Health.IGNORED, "idempotency_key_in_progress", False)
CREDENTIALS = ("not_executed", Health.CREDENTIALS_REFUSED, "credentials_refused", True)
ANSWERS: dict[str, tuple[int, object, tuple[str, Health, str | None, bool]]] = {
    # what it is: status, body, then kind, health, reason, our fault
    "authorised": (200, result("Authorised"), ("approved", Health.OK, None, False)),
    "authorised without a reference": (200, {"resultCode": "Authorised"}, SENSELESS),
    "refused": (200, refused("2"), ("declined", Health.OK, "generic_decline", False)),
    "refused with a number for a code": (200, refused(6), ("declined", Health.OK, "expired_card", False)),
    "refused without a code": (200, result("Refused"), ("declined", Health.OK, "refusal_unknown", False)),
    "acquirer error": (200, refused("4"), ACQUIRER),
    "not submitted": (200, refused("21"), ACQUIRER),
    "error": (200, result("Error", refusalReasonCode="4"), ACQUIRER),
    "cancelled": (200, result("Cancelled"), ("declined", Health.OK, "shopper_cancelled", False)),
    "cancelled as a refusal": (200, refused("16"), ("declined", Health.OK, "shopper_cancelled", False)),
    "pending": (200, result("Pending"), ("unknown", Health.OK, "pending", False)),
    "received": (200, result("Received"), ("unknown", Health.OK, "pending", False)),
    "part of it": (200, result("PartiallyAuthorised"), ("unknown", Health.OK, "partially_authorised", False)),
    "a voucher": (200, result("PresentToShopper"), LOUD),
    "a new result": (200, result("Levitating"), LOUD),
    "a number for a result": (200, result(4111111111111111), LOUD),
    "no result": (200, {"pspReference": PSP}, SENSELESS),
    "HTML with 200": (200, b"<html>", SENSELESS),
    "half a JSON": (200, b'{"resultCode": "Author', SENSELESS),
    "not even text": (200, b"\xff\xfe\xfa", SENSELESS),
    "an empty 200": (200, b"", SENSELESS),
    "a list, which breaks the SDK": (200, [1], SENSELESS),
    "a null": (200, b"null", SENSELESS),
    "a redirect": (302, b"", ("unknown", Health.PROVIDER_ERROR, "http_302", False)),
    "our parameters": (400, error("702"), ("not_executed", Health.IGNORED, "http_400", True)),
    "no such thing": (404, error("100"), ("not_executed", Health.IGNORED, "http_404", True)),
    "our parameters, validated": (422, error("130"), ("not_executed", Health.IGNORED, "http_422", True)),
    "this key is at work or done": (422, error("704"), KEY_IN_PROGRESS),
    "a conflict": (409, error("704"), KEY_IN_PROGRESS),
    "a revoked key": (401, error("000"), CREDENTIALS),
    "a wrong account": (403, error("901"), CREDENTIALS),
    "rate limited": (429, error("x"), ("not_executed", Health.PROVIDER_ERROR, "rate_limited", False)),
    "a 500": (500, error("905"), ("unknown", Health.PROVIDER_ERROR, "http_500", False)),
    "a 503 in HTML": (503, b"<html>", ("unknown", Health.PROVIDER_ERROR, "http_503", False)),
    "a status that no table names": (418, {}, ("unknown", Health.PROVIDER_ERROR, "http_418", False)),
    "a list for an error, which breaks the SDK": (400, [{"errorCode": "1"}], SENSELESS),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_each_answer_is_classified_as_the_facts_say(case: str) -> None:
    """What is proved, what it says of the provider, and whose fault it is."""
    status, body, expected = ANSWERS[case]
    outcome = authorize(status, body)
    assert (str(outcome.kind), outcome.health, outcome.reason, outcome.our_fault) == expected


@pytest.mark.parametrize("case", ["acquirer error", "not submitted", "error"])
def test_an_acquirers_fault_is_a_final_record_of_the_payment_that_it_names(case: str) -> None:
    """Final by the vendor's schema; without the payment's own reference it is the verdict on that send alone."""
    status, body, _ = ANSWERS[case]
    assert isinstance(body, dict)
    outcome = authorize(status, body)
    assert (str(outcome.kind), outcome.provider_reference, outcome.final_record) == ("not_executed", PSP, True)
    nameless = {name: each for name, each in body.items() if name != "pspReference"}
    assert not authorize(status, nameless).final_record


def test_a_final_record_that_names_no_attempt_is_not_believed_of_a_completion() -> None:
    """A customer may bring back another payment's details: what ends an attempt must name it."""
    for more, reason in (({}, "another_attempts_result"), ({"merchantReference": "att_1"}, "acquirer_error")):
        with RawServer(always(answer(200, raw(result("Error", **more))))) as server:
            outcome = provider(server.url).complete(
                None,
                {"redirectResult": "x"},
                capture="automatic",
                idempotency_key="k",
                timeouts=TIMEOUTS,
                attempt_id="att_1",
            )
        assert (outcome.reason, outcome.final_record) == (reason, bool(more))


FINAL = ("acquirer error", "not submitted", "error")


@pytest.mark.parametrize("case", [each for each in ANSWERS if each not in FINAL])
def test_nothing_else_is_a_final_record(case: str) -> None:
    """An API error says nothing of an earlier send."""
    assert not authorize(*ANSWERS[case][:2]).final_record


def test_an_approval_says_whether_the_money_was_taken() -> None:
    """By how the payment was asked for: Adyen's answer is the same."""
    manual = {**PARAMS, "additionalData": {"manualCapture": "true"}}
    assert authorize(200, result("Authorised")).captured
    assert not authorize(200, result("Authorised"), manual).captured
    assert authorize(200, result("Authorised"), manual).provider_reference == PSP


def test_a_customer_who_turned_back_is_not_sent_to_another_provider() -> None:
    """Nobody refused anything."""
    decline = authorize(200, result("Cancelled")).decline
    assert decline is not None
    assert (decline.decline_class, decline.cascade) == (DeclineClass.AUTHENTICATION, False)


def test_a_decline_carries_the_networks_words_where_the_account_has_them() -> None:
    """Advice beats the code."""
    more = {"refusalReasonRaw": "05 : Do not honor", "merchantAdviceCode": "03 : Do not try again"}
    decline = authorize(200, {**refused("2"), "additionalData": more}).decline
    assert decline is not None
    assert (decline.decline_class, decline.network_code, decline.advice) == (DeclineClass.HARD, "05", "03")


@pytest.mark.parametrize("code", ["RedirectShopper", "IdentifyShopper", "ChallengeShopper"])
def test_what_the_customer_must_do_is_passed_on(code: str) -> None:
    """A plain redirect as one; everything else for Adyen's own script."""
    redirect = {"type": "redirect", "method": "GET", "url": "https://bank.example"}
    outcome = authorize(200, result(code, action=redirect))
    assert (str(outcome.kind), outcome.next_action) == (
        "requires_action",
        {"type": "redirect", "url": "https://bank.example"},
    )
    for action in ({"type": "threeDS2", "token": "t"}, {**redirect, "method": "POST"}):
        outcome = authorize(200, result(code, action=action))
        assert outcome.next_action == {"type": "sdk", "provider": "adyen", "action": action}


@pytest.mark.parametrize("body", [result("Levitating"), result("PartiallyAuthorised"), refused("99")])
def test_what_we_do_not_know_or_cannot_decide_is_logged_loudly(body: dict[str, Any]) -> None:
    """One error, with the vendor's word."""
    with RawServer(always(answer(200, raw(body)))) as server, capture_logs() as logs:
        provider(server.url).authorize(PARAMS, idempotency_key="k", timeouts=TIMEOUTS)
    assert [entry["log_level"] for entry in logs] == ["error"]


RECEIVED = {"status": "received", "pspReference": "MOD1", "paymentPspReference": PSP}
MODIFICATIONS: dict[str, tuple[int, object, tuple[str, Health, str | None]]] = {
    "received": (201, RECEIVED, ("received", Health.OK, None)),
    "a new status": (201, {"status": "levitating"}, ("unknown", Health.PROVIDER_ERROR, "senseless_answer")),
    "HTML": (200, b"<html>", ("unknown", Health.PROVIDER_ERROR, "senseless_answer")),
    "our parameters": (422, error("167"), ("not_executed", Health.IGNORED, "http_422")),
    "this key is at work": (422, error("704"), ("unknown", Health.IGNORED, "idempotency_key_in_progress")),
    "rate limited": (429, error("x"), ("not_executed", Health.PROVIDER_ERROR, "rate_limited")),
    "revoked": (401, error("000"), ("not_executed", Health.CREDENTIALS_REFUSED, "credentials_refused")),
    "a 500": (500, error("905"), ("unknown", Health.PROVIDER_ERROR, "http_500")),
}


@pytest.mark.parametrize("call", ["capture", "void", "refund"])
@pytest.mark.parametrize("case", MODIFICATIONS)
def test_each_answer_to_a_modification_is_classified(case: str, call: str) -> None:
    """Received at best: how it ended is a webhook's to say."""
    status, body, expected = MODIFICATIONS[case]
    money = () if call == "void" else (Money(100, "EUR"),)
    with RawServer(always(answer(status, raw(body)))) as server:
        outcome = getattr(provider(server.url), call)(PSP, *money, idempotency_key="k", timeouts=TIMEOUTS)
    assert (str(outcome.kind), outcome.health, outcome.reason) == expected
    assert outcome.provider_reference == ("MOD1" if case == "received" else None)


def test_a_modification_names_the_payment_the_amount_and_itself() -> None:
    """Our key is its reference, so that the webhook about it can be told from another's."""
    seen: list[bytes] = []
    with RawServer(always(answer(201, raw(RECEIVED)), seen)) as server:
        provider(server.url).refund(PSP, Money(500, "CLP"), idempotency_key="ref_1", timeouts=TIMEOUTS)
    head, _, body = seen[0].partition(b"\r\n\r\n")
    assert head.startswith(f"POST /v72/payments/{PSP}/refunds HTTP/1.1".encode())
    assert b"Idempotency-Key: ref_1" in head
    assert json.loads(body) == {
        "merchantAccount": "Shop",
        "reference": "ref_1",
        "amount": {"value": 50000, "currency": "CLP"},
    }


def test_what_makes_no_sense_is_not_sent() -> None:
    """A misshapen reference, a key too long for Adyen, or an amount that it cannot express."""
    adyen = provider(refused_url())
    for outcome in (
        adyen.void("8415/../x", idempotency_key="k", timeouts=TIMEOUTS),
        adyen.void(PSP, idempotency_key="k" * 65, timeouts=TIMEOUTS),
        adyen.refund(PSP, Money(1, "IDR"), idempotency_key="k", timeouts=TIMEOUTS),
    ):
        assert (outcome.kind, outcome.our_fault) == (ModificationKind.NOT_EXECUTED, True)


@pytest.mark.parametrize(
    ("status", "body", "health"),
    [
        (200, {"paymentMethods": []}, Health.OK),
        (200, {}, Health.PROVIDER_ERROR),
        (200, b"<html>", Health.PROVIDER_ERROR),
        (503, {}, Health.PROVIDER_ERROR),
        (403, error("901"), Health.CREDENTIALS_REFUSED),
    ],
)
def test_a_probe_is_healthy_only_if_it_gets_what_it_asked_for(status: int, body: object, health: Health) -> None:
    """A maintenance page is no answer."""
    with RawServer(always(answer(status, raw(body)))) as server:
        found = provider(server.url).probe(timeouts=TIMEOUTS)
    assert (found.health, found.healthy) == (health, health is Health.OK)


def test_what_goes_over_the_wire_is_the_stored_parameters_with_the_key() -> None:
    """Twice over one connection, and the parameters are not touched."""
    seen: list[bytes] = []
    before = json.dumps(PARAMS)
    with RawServer(always(answer(200, raw(result("Authorised"))), seen)) as server:
        adyen = provider(server.url)
        for _ in range(2):
            adyen.authorize(PARAMS, idempotency_key="att_1", timeouts=TIMEOUTS)
        assert server.accepted == 1
    assert len(seen) == 2
    for request in seen:
        head, _, body = request.partition(b"\r\n\r\n")
        assert b"Idempotency-Key: att_1" in head
        assert f"x-api-key: {KEY}".encode() in head
        assert json.loads(body) == PARAMS
    assert json.dumps(PARAMS) == before


def test_a_resend_within_an_except_block_is_judged_by_itself() -> None:
    """The first send was refused; the second was cut after Adyen may have acted."""
    with RawServer(reset_unread) as server:
        try:
            raise ConnectionRefusedError
        except ConnectionRefusedError:
            first = provider(refused_url()).authorize(PARAMS, idempotency_key="k", timeouts=TIMEOUTS)
            second = provider(server.url).authorize(PARAMS, idempotency_key="k", timeouts=TIMEOUTS)
    assert (str(first.kind), str(second.kind)) == ("not_executed", "unknown")


def test_no_call_raises_whatever_happens_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even a bug of the SDK's is an outcome, and unknown; an order to stop passes through."""

    def bug(*args: object, **kwargs: object) -> object:
        raise RecursionError

    def stop(*args: object, **kwargs: object) -> object:
        raise SystemExit

    adyen = provider(refused_url())
    monkeypatch.setattr(Adyen.AdyenClient, "call_adyen_api", bug)
    outcome = adyen.authorize(PARAMS, idempotency_key="k", timeouts=TIMEOUTS)
    assert (str(outcome.kind), outcome.health) == ("unknown", Health.PROVIDER_ERROR)
    assert str(adyen.void(PSP, idempotency_key="k", timeouts=TIMEOUTS).kind) == "unknown"
    assert not adyen.probe(timeouts=TIMEOUTS).healthy
    monkeypatch.setattr(Adyen.AdyenClient, "call_adyen_api", stop)
    with pytest.raises(SystemExit):
        adyen.authorize(PARAMS, idempotency_key="k", timeouts=TIMEOUTS)
