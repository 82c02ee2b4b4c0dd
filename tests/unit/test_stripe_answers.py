"""What each of Stripe's answers comes to: the table of facts/providers.md, row by row, over a real socket."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
import stripe as sdk
from structlog.testing import capture_logs

from providers.contract import DeclineClass, Health, ModificationKind, Money, Outcome, Timeouts
from providers.stripe import StripeProvider
from providers.stripe_wire import StripeWire
from providers.transport import SendFailed
from tests.contract.raw_server import RawServer, always, answer, refused_url, reset_unread

TIMEOUTS = Timeouts(2, 2)
KEY = "sk_test_very_secret"
TOKEN = "pm_card_visa"
PARAMS = {"amount": 100, "currency": "eur", "payment_method": TOKEN, "metadata": {"attempt": "att_1"}}
CARD_ERROR = {"type": "card_error", "code": "card_declined", "decline_code": "do_not_honor", "message": "No."}


def authorize(status: int, body: object) -> Outcome:
    """One authorize call answered like that; nothing secret in the outcome or the logs."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with RawServer(always(answer(status, raw))) as server, capture_logs() as logs:
        provider = StripeProvider(api_key=KEY, base_url=server.url)
        outcome = provider.authorize(PARAMS, idempotency_key="att_1", timeouts=TIMEOUTS)
    assert not any(secret in f"{outcome!r}{logs!r}" for secret in (KEY, TOKEN, "4242424242424242"))
    return outcome


def intent(status: object, **more: Any) -> dict[str, Any]:
    """A PaymentIntent."""
    return {"id": "pi_1", "object": "payment_intent", "status": status, "client_secret": "pi_1_secret_2", **more}


def error(**fields: Any) -> dict[str, Any]:
    """An error body."""
    return {"error": fields}


ANSWERS: dict[str, tuple[int, object, str, Health, str | None, bool]] = {
    # what it is: status, body, then kind, health, reason, our fault
    "captured": (200, intent("succeeded"), "approved", Health.OK, None, False),
    "authorized": (200, intent("requires_capture"), "approved", Health.OK, None, False),
    "canceled": (200, intent("canceled"), "canceled", Health.OK, None, False),
    "never confirmed": (200, intent("requires_confirmation"), "unknown", Health.OK, "requires_confirmation", False),
    "processing is not final": (200, intent("processing"), "unknown", Health.OK, "pending", False),
    "a new status": (200, intent("levitating"), "unknown", Health.PROVIDER_ERROR, "unrecognised_status", False),
    "no status": (200, {"id": "pi_1"}, "unknown", Health.PROVIDER_ERROR, "unrecognised_status", False),
    "another object": (200, {"object": "list"}, "unknown", Health.PROVIDER_ERROR, "senseless_answer", False),
    "a list": (200, [], "unknown", Health.PROVIDER_ERROR, "senseless_answer", False),
    "HTML with 200": (200, b"<html>", "unknown", Health.PROVIDER_ERROR, "senseless_answer", False),
    "half a JSON": (200, b'{"id": "pi_1", "sta', "unknown", Health.PROVIDER_ERROR, "senseless_answer", False),
    "not even text": (200, b"\xff\xfe", "unknown", Health.PROVIDER_ERROR, "senseless_answer", False),
    "an empty 200": (200, b"", "unknown", Health.PROVIDER_ERROR, "senseless_answer", False),
    "a redirect": (302, b"", "unknown", Health.PROVIDER_ERROR, "http_302", False),
    "a redirect with JSON": (307, {}, "unknown", Health.PROVIDER_ERROR, "http_307", False),
    "declined": (402, error(**CARD_ERROR), "declined", Health.OK, "do_not_honor", False),
    "a 402 without an error": (402, b"<html>", "unknown", Health.PROVIDER_ERROR, "http_402", False),
    "an acquirer's fault": (
        402,
        error(type="card_error", code="card_declined", decline_code="api_error"),
        "not_executed",
        Health.PROVIDER_ERROR,
        "acquirer_error",
        False,
    ),
    "rate limited": (
        429,
        error(type="x", code="rate_limit"),
        "not_executed",
        Health.PROVIDER_ERROR,
        "rate_limited",
        False,
    ),
    "rate limited as of old": (
        400,
        error(code="rate_limit"),
        "not_executed",
        Health.PROVIDER_ERROR,
        "rate_limited",
        False,
    ),
    "lock timeout": (429, error(code="lock_timeout"), "not_executed", Health.PROVIDER_ERROR, "rate_limited", False),
    "rate limited in HTML": (429, b"<html>", "not_executed", Health.PROVIDER_ERROR, "rate_limited", False),
    "our parameters": (
        400,
        error(type="invalid_request_error", code="parameter_unknown", param="x", message="4242424242424242"),
        "not_executed",
        Health.IGNORED,
        "http_400",
        True,
    ),
    "no such token": (
        404,
        error(code="resource_missing", message=TOKEN),
        "not_executed",
        Health.IGNORED,
        "http_404",
        True,
    ),
    "a revoked key": (
        401,
        error(message=KEY),
        "not_executed",
        Health.CREDENTIALS_REFUSED,
        "credentials_refused",
        True,
    ),
    "a wrong account": (
        403,
        error(message="no"),
        "not_executed",
        Health.CREDENTIALS_REFUSED,
        "credentials_refused",
        True,
    ),
    "key used otherwise": (
        400,
        error(type="idempotency_error", message="Keys for idempotent requests…"),
        "unknown",
        Health.IGNORED,
        "idempotency_key_reused",
        True,
    ),
    "key in use": (
        409,
        error(type="idempotency_error", code="idempotency_key_in_use"),
        "unknown",
        Health.IGNORED,
        "idempotency_key_in_progress",
        False,
    ),
    "a 500": (500, error(type="api_error", message="oops"), "unknown", Health.PROVIDER_ERROR, "http_500", False),
    "a 503 in HTML": (503, b"<html>", "unknown", Health.PROVIDER_ERROR, "http_503", False),
    "a status that no table names": (
        418,
        error(message="teapot"),
        "unknown",
        Health.PROVIDER_ERROR,
        "http_418",
        False,
    ),
    "a null error, which breaks the SDK": (
        400,
        {"error": None},
        "unknown",
        Health.PROVIDER_ERROR,
        "senseless_answer",
        False,
    ),
    "a word for an error, which breaks the SDK": (
        400,
        {"error": "sorry"},
        "unknown",
        Health.PROVIDER_ERROR,
        "senseless_answer",
        False,
    ),
    "a list for an error": (500, [1], "unknown", Health.PROVIDER_ERROR, "http_500", False),
    "an error that is a list": (402, {"error": ["x"]}, "unknown", Health.PROVIDER_ERROR, "senseless_answer", False),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_each_answer_is_classified_as_the_facts_say(case: str) -> None:
    """What is proved, what it says of the provider, and whose fault it is."""
    status, body, *rest = ANSWERS[case]
    outcome = authorize(status, body)
    assert [str(outcome.kind), outcome.health, outcome.reason, outcome.our_fault] == rest


def test_an_approval_says_whether_the_money_was_taken() -> None:
    """An automatic capture is complete; a manual one waits."""
    assert authorize(200, intent("succeeded")).captured
    assert not authorize(200, intent("requires_capture")).captured
    assert authorize(200, intent("requires_capture")).provider_reference == "pi_1"


def test_a_decline_carries_the_networks_words_and_the_intent() -> None:
    """Everything that a later try depends on."""
    more = {
        "network_decline_code": "05",
        "network_advice_code": "03",
        "payment_intent": intent("x"),
        "payment_method": {"id": "pm_1", "type": "card", "card": {"brand": "mastercard"}},
    }
    outcome = authorize(402, error(**CARD_ERROR, **more))
    assert outcome.decline is not None
    assert (outcome.decline.decline_class, outcome.decline.network_code, outcome.decline.advice) == (
        DeclineClass.HARD,
        "05",
        "03",
    )
    assert outcome.provider_reference == "pi_1"


def test_a_decline_found_on_the_intent_itself_is_a_decline() -> None:
    """A re-send can be answered with the intent instead of the error."""
    outcome = authorize(200, intent("requires_payment_method", last_payment_error=CARD_ERROR))
    assert (str(outcome.kind), outcome.reason, outcome.provider_reference) == ("declined", "do_not_honor", "pi_1")


API_ERROR = {"type": "card_error", "code": "card_declined", "decline_code": "api_error"}


@pytest.mark.parametrize("status", ["requires_payment_method", "canceled"])
def test_an_acquirers_fault_with_an_intent_that_holds_nothing_is_a_final_record(status: str) -> None:
    """In the error, and on the intent itself where that is what a key is answered with."""
    outcome = authorize(402, error(**API_ERROR, payment_intent=intent(status)))
    assert (str(outcome.kind), outcome.provider_reference, outcome.final_record) == ("not_executed", "pi_1", True)


@pytest.mark.parametrize("told", [API_ERROR, {"type": "api_error", "message": "An error occurred."}])
def test_an_acquirers_fault_is_read_on_the_intent_itself(told: dict[str, Any]) -> None:
    """As a look-up or an event shows it."""
    outcome = authorize(200, intent("requires_payment_method", last_payment_error=told))
    assert (str(outcome.kind), outcome.reason, outcome.final_record) == ("not_executed", "acquirer_error", True)


@pytest.mark.parametrize(
    "more", [{}, {"payment_intent": None}, {"payment_intent": {"id": "x", "status": "canceled"}}]
)
def test_an_acquirers_fault_without_an_intent_is_no_record(more: dict[str, Any]) -> None:
    """The verdict on that send alone."""
    outcome = authorize(402, error(**API_ERROR, **more))
    assert (str(outcome.kind), outcome.final_record) == ("not_executed", False)


@pytest.mark.parametrize(
    "status", ["succeeded", "requires_capture", "processing", "requires_confirmation", "requires_action", None, 7]
)
def test_an_acquirers_fault_that_its_intent_contradicts_is_unknown(status: object) -> None:
    """It may hold the money: to be looked up by its id, and never failed over."""
    outcome = authorize(402, error(**API_ERROR, payment_intent=intent(status)))
    assert (str(outcome.kind), outcome.reason, outcome.provider_reference, outcome.final_record) == (
        "unknown",
        "error_contradicts_intent",
        "pi_1",
        False,
    )


@pytest.mark.parametrize("case", ["rate limited", "our parameters", "a revoked key", "key used otherwise", "a 500"])
def test_a_refused_send_is_no_record_of_the_payment(case: str) -> None:
    """What an earlier send did still stands."""
    assert not authorize(*ANSWERS[case][:2]).final_record


@pytest.mark.parametrize(
    ("next_action", "expected"),
    [
        (
            {"type": "redirect_to_url", "redirect_to_url": {"url": "https://bank.example"}},
            {"type": "redirect", "url": "https://bank.example"},
        ),
        ({"type": "use_stripe_sdk"}, {"type": "sdk", "provider": "stripe", "client_secret": "pi_1_secret_2"}),
    ],
)
def test_what_the_customer_must_do_is_passed_on(next_action: dict[str, Any], expected: dict[str, Any]) -> None:
    """By redirect, or in Stripe's own script."""
    outcome = authorize(200, intent("requires_action", next_action=next_action))
    assert (str(outcome.kind), outcome.next_action) == ("requires_action", expected)


@pytest.mark.parametrize("code", [4242424242424242, "4242424242424242", "brand_new"])
def test_a_status_or_code_that_we_do_not_know_is_logged_loudly(code: object) -> None:
    """By its word only, and never a long number."""
    for status, body in ((200, intent(code)), (402, error(type="card_error", decline_code=code))):
        raw = json.dumps(body).encode()
        with RawServer(always(answer(status, raw))) as server, capture_logs() as logs:
            provider = StripeProvider(api_key=KEY, base_url=server.url)
            provider.authorize(PARAMS, idempotency_key="k", timeouts=TIMEOUTS)
        assert [entry["log_level"] for entry in logs] == ["error"]
        assert "4242" not in repr(logs)


MODIFICATIONS: dict[str, tuple[str, int, object, str, Health, str | None]] = {
    "captured": ("capture", 200, intent("succeeded"), "done", Health.OK, None),
    "capture on its way": ("capture", 200, intent("processing"), "received", Health.OK, None),
    "capture, strange": ("capture", 200, intent("canceled"), "unknown", Health.PROVIDER_ERROR, "unrecognised_status"),
    "voided": ("void", 200, intent("canceled"), "done", Health.OK, None),
    "void, strange": ("void", 200, intent("succeeded"), "unknown", Health.PROVIDER_ERROR, "unrecognised_status"),
    "refunded": ("refund", 200, {"id": "re_1", "object": "refund", "status": "succeeded"}, "done", Health.OK, None),
    "refund pending": ("refund", 200, {"id": "re_1", "status": "pending"}, "received", Health.OK, None),
    "refund failed": ("refund", 200, {"id": "re_1", "status": "failed"}, "refused", Health.OK, "failed"),
    "refund, a list": ("refund", 200, [], "unknown", Health.PROVIDER_ERROR, "senseless_answer"),
    "captured before": (
        "capture",
        400,
        error(type="invalid_request_error", code="payment_intent_unexpected_state"),
        "refused",
        Health.OK,
        "payment_intent_unexpected_state",
    ),
    "refunded before": (
        "refund",
        400,
        error(code="charge_already_refunded"),
        "refused",
        Health.OK,
        "charge_already_refunded",
    ),
    "too much": ("refund", 400, error(code="amount_too_large"), "refused", Health.OK, "amount_too_large"),
    "capture declined": ("capture", 402, error(**CARD_ERROR), "refused", Health.OK, "card_declined"),
    "our parameters": ("void", 400, error(code="parameter_unknown"), "not_executed", Health.IGNORED, "http_400"),
    "key used otherwise": (
        "refund",
        400,
        error(type="idempotency_error"),
        "unknown",
        Health.IGNORED,
        "idempotency_key_reused",
    ),
    "rate limited": ("refund", 429, error(code="rate_limit"), "not_executed", Health.PROVIDER_ERROR, "rate_limited"),
    "revoked": ("void", 401, error(), "not_executed", Health.CREDENTIALS_REFUSED, "credentials_refused"),
    "a 500": ("capture", 500, error(), "unknown", Health.PROVIDER_ERROR, "http_500"),
    "HTML": ("capture", 200, b"<html>", "unknown", Health.PROVIDER_ERROR, "senseless_answer"),
}


@pytest.mark.parametrize("case", MODIFICATIONS)
def test_each_answer_to_a_modification_is_classified(case: str) -> None:
    """Refused by the payment's state, our fault, or not known."""
    call, status, body, *rest = MODIFICATIONS[case]
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    money = () if call == "void" else (Money(100, "EUR"),)
    with RawServer(always(answer(status, raw))) as server:
        provider = StripeProvider(api_key=KEY, base_url=server.url)
        outcome = getattr(provider, call)("pi_1", *money, idempotency_key="k", timeouts=TIMEOUTS)
    assert [str(outcome.kind), outcome.health, outcome.reason] == rest


def test_what_makes_no_sense_is_not_sent() -> None:
    """A reference of another provider's, or an amount that Stripe cannot express."""
    provider = StripeProvider(api_key=KEY, base_url=refused_url())
    for outcome in (
        provider.void("pi_1/../pi_2", idempotency_key="k", timeouts=TIMEOUTS),
        provider.refund("NC6HT9CRT65ZGN82", Money(1, "EUR"), idempotency_key="k", timeouts=TIMEOUTS),
        provider.capture("pi_1", Money(1001, "KWD"), idempotency_key="k", timeouts=TIMEOUTS),
    ):
        assert (outcome.kind, outcome.our_fault) == (ModificationKind.NOT_EXECUTED, True)


@pytest.mark.parametrize(
    ("status", "body", "health"),
    [
        (200, {"object": "balance"}, Health.OK),
        (200, {"object": "charge"}, Health.PROVIDER_ERROR),
        (200, b"<html>", Health.PROVIDER_ERROR),
        (503, {}, Health.PROVIDER_ERROR),
        (401, {"error": {}}, Health.CREDENTIALS_REFUSED),
    ],
)
def test_a_probe_is_healthy_only_if_it_gets_what_it_asked_for(status: int, body: object, health: Health) -> None:
    """A maintenance page is no answer."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with RawServer(always(answer(status, raw))) as server:
        result = StripeProvider(api_key=KEY, base_url=server.url).probe(timeouts=TIMEOUTS)
    assert (result.health, result.healthy) == (health, health is Health.OK)


def test_what_goes_over_the_wire_is_one_request_with_the_key_and_no_telemetry() -> None:
    """Twice in a row, because the SDK would report the first call's timing with the second."""
    seen: list[bytes] = []
    reply = answer(200, json.dumps(intent("succeeded")).encode(), "Request-Id: req_1")
    with RawServer(always(reply, seen)) as server:
        provider = StripeProvider(api_key=KEY, base_url=server.url)
        for _ in range(2):
            provider.authorize(PARAMS, idempotency_key="att_1", timeouts=TIMEOUTS)
        assert server.accepted == 1
    assert len(seen) == 2
    assert all(b"Idempotency-Key: att_1\r\n" in request for request in seen)
    assert all(b"elemetry" not in request for request in seen)
    assert seen[1].endswith(b"amount=100&currency=eur&payment_method=pm_card_visa&metadata[attempt]=att_1")


def test_a_resend_within_an_except_block_is_judged_by_itself() -> None:
    """The first send was refused; the second was cut after Stripe may have acted."""
    untouched = StripeProvider(api_key=KEY, base_url=refused_url())
    with RawServer(reset_unread) as server:
        provider = StripeProvider(api_key=KEY, base_url=server.url)
        try:
            raise ConnectionRefusedError
        except ConnectionRefusedError:
            first = untouched.authorize(PARAMS, idempotency_key="k", timeouts=TIMEOUTS)
            second = provider.authorize(PARAMS, idempotency_key="k", timeouts=TIMEOUTS)
    assert (str(first.kind), str(second.kind)) == ("not_executed", "unknown")


def test_no_call_raises_whatever_happens_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even a bug of the SDK's is an outcome, and unknown."""

    def bug(*args: object, **kwargs: object) -> object:
        raise RecursionError

    provider = StripeProvider(api_key=KEY, base_url=refused_url())
    monkeypatch.setattr(sdk.StripeClient, "raw_request", bug)
    monkeypatch.setattr(StripeWire, "post", bug)
    outcome = provider.authorize(PARAMS, idempotency_key="k", timeouts=TIMEOUTS)
    assert (str(outcome.kind), outcome.health) == ("unknown", Health.PROVIDER_ERROR)
    assert str(provider.void("pi_1", idempotency_key="k", timeouts=TIMEOUTS).kind) == "unknown"
    assert not provider.probe(timeouts=TIMEOUTS).healthy


def test_an_order_to_stop_passes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """KeyboardInterrupt and SystemExit are not the provider's."""

    def stop(*args: object, **kwargs: object) -> object:
        raise KeyboardInterrupt

    provider = StripeProvider(api_key=KEY, base_url=refused_url())
    monkeypatch.setattr(StripeWire, "post", stop)
    with pytest.raises(KeyboardInterrupt):
        provider.authorize(PARAMS, idempotency_key="k", timeouts=TIMEOUTS)


def test_the_sdk_logs_neither_tokens_nor_answers(caplog: pytest.LogCaptureFixture) -> None:
    """Not even where everything else logs at DEBUG."""
    with (
        caplog.at_level(logging.DEBUG),
        RawServer(always(answer(200, json.dumps(intent("succeeded")).encode()))) as server,
    ):
        provider = StripeProvider(api_key=KEY, base_url=server.url)
        provider.authorize(PARAMS, idempotency_key="k", timeouts=TIMEOUTS)
    assert not any(secret in caplog.text for secret in (KEY, TOKEN, "pi_1_secret_2"))


def test_a_failed_send_tells_only_its_word() -> None:
    """No address, no path, no key in the exception's text."""
    with pytest.raises(SendFailed) as caught:
        StripeProvider(api_key=KEY, base_url=refused_url())._request("/v1/balance", {}, None, TIMEOUTS)
    assert str(caught.value) == "connection_refused"


# ---------------------------------------------------------------- what it costs


@pytest.mark.parametrize(
    ("transaction", "fee"),
    [
        ({"fee": 90, "currency": "eur"}, Money(90, "EUR")),
        ({"fee": 0, "currency": "eur"}, Money(0, "EUR")),
        ({"fee": 1500, "currency": "isk"}, Money(15, "ISK")),
        ({"fee": 1550, "currency": "isk"}, None),
        ({"fee": 90, "currency": "xxx"}, None),
        ({"fee": -1, "currency": "eur"}, None),
        ({"fee": 10**13, "currency": "eur"}, None),
        ({"fee": True, "currency": "eur"}, None),
        ({"fee": "90", "currency": "eur"}, None),
        ({"fee": 90.0, "currency": "eur"}, None),
        ({"fee": 90}, None),
        ({"fee": 90, "currency": None}, None),
        ("txn_1", None),
        (None, None),
    ],
)
def test_a_fee_is_kept_where_it_is_told_and_never_costs_an_answer(transaction: object, fee: Money | None) -> None:
    """In the currency of the balance; what cannot be read is as good as not told."""
    outcome = authorize(200, intent("succeeded", latest_charge={"id": "ch_1", "balance_transaction": transaction}))
    assert outcome == Outcome(outcome.kind, Health.OK, provider_reference="pi_1", captured=True, fee=fee)
    assert outcome.kind == "approved"


@pytest.mark.parametrize("charge", ["ch_1", None, {}, {"id": "ch_1"}, ["ch_1"], 1])
def test_an_answer_that_is_not_expanded_tells_no_fee(charge: object) -> None:
    """As that of an attempt that was written down before fees were asked for."""
    outcome = authorize(200, intent("succeeded", latest_charge=charge))
    assert (outcome.kind, outcome.captured, outcome.fee) == ("approved", True, None)
