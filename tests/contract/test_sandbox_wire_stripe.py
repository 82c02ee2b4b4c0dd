"""The stand-in Stripe against the vendor's contract: what the real SDK sends, and what it makes of the answers."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import stripe

from providers.sandbox.server import Sandbox

FOLDER = Path(os.environ.get("ROUTER_VENDOR_CONTRACTS") or Path(__file__).parents[3] / "shared" / "contracts")
CHECKER = FOLDER / "stripe_contract.py"
pytestmark = [
    pytest.mark.vendor_contract,
    pytest.mark.skipif(not CHECKER.exists(), reason=f"the vendor's contract is absent: {CHECKER}"),
]


@functools.cache
def contract() -> Any:
    """The checker of Stripe's requests, loaded from where it lies: it is not part of this project."""
    spec = importlib.util.spec_from_file_location("stripe_contract", CHECKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Contract(str(FOLDER / "stripe-2026-10-28-request-subset.schema.json"))


class CheckingClient(stripe.RequestsClient):
    """The SDK's own HTTP client, which checks the form of every POST before it goes out."""

    checked = 0

    def request(
        self, method: str, url: str, headers: Mapping[str, str] | None, post_data: Any = None, **more: Any
    ) -> tuple[Any, int, Any]:
        """Send as the SDK does, after the check."""
        if method == "post":
            _, faults = contract().check_request("post", urlsplit(url).path, post_data or "")
            assert faults == []
            self.checked += 1
        return super().request(method, url, headers, post_data, **more)


@pytest.fixture
def http() -> CheckingClient:
    """The checking HTTP client."""
    return CheckingClient(timeout=5)


@pytest.fixture
def sdk(sandbox: Sandbox, http: CheckingClient, monkeypatch: pytest.MonkeyPatch) -> stripe.StripeClient:
    """The real SDK, pointed at the sandbox."""
    monkeypatch.setattr(stripe, "enable_telemetry", False)
    return stripe.StripeClient(
        "sk_test_1", base_addresses={"api": sandbox.stripe_url}, http_client=http, max_network_retries=0
    )


def check_fields(found: Any, kind: type) -> None:
    """Fail on a field that the SDK's type of the object does not know."""
    names = set(found.to_dict()) if hasattr(found, "to_dict") else set(found)
    assert names - set(kind.__annotations__) == set()


def charge(**more: Any) -> Any:
    """What an adapter asks for."""
    return {
        "amount": 1999,
        "currency": "eur",
        "confirm": True,
        "payment_method": "pm_card_visa",
        "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
        "metadata": {"reference": "ORD-1", "attempt": "att_1"},
        **more,
    }


def test_the_check_finds_what_it_must() -> None:
    """A parameter that is gone, and one of the wrong type, are faults; so is a field that the type does not know."""
    for form in ("amount=1&currency=eur&payment_method_types[]=card", "amount=one&currency=eur", "currency=eur"):
        assert contract().check_request("post", "/v1/payment_intents", form)[1]
    with pytest.raises(AssertionError):
        check_fields({"id": "pi_1", "colour": "red"}, stripe.PaymentIntent)


def test_the_whole_life_of_a_payment_through_the_sdk(sdk: stripe.StripeClient, http: CheckingClient) -> None:
    """Authorize, read, list, capture, refund: every request is valid, every answer becomes the SDK's object."""
    intents = sdk.v1.payment_intents
    held = intents.create(charge(capture_method="manual"), {"idempotency_key": "k1"})
    assert isinstance(held, stripe.PaymentIntent)
    assert (held.status, held.amount_capturable, held.metadata["attempt"]) == ("requires_capture", 1999, "att_1")
    check_fields(held, stripe.PaymentIntent)
    replayed = intents.create(charge(capture_method="manual"), {"idempotency_key": "k1"})
    assert replayed.id == held.id
    assert replayed.last_response is not None
    assert replayed.last_response.headers["Idempotent-Replayed"] == "true"
    assert intents.retrieve(held.id).to_dict() == held.to_dict()
    listed = intents.list({"created": {"gte": held.created, "lte": held.created + 5}, "limit": 5})
    assert [one.id for one in listed.data] == [held.id]
    assert set(listed.to_dict()) == {"object", "data", "has_more", "url"}
    captured = intents.capture(held.id, {"amount_to_capture": 1500})
    assert (captured.status, captured.amount_received) == ("succeeded", 1500)
    refund = sdk.v1.refunds.create({"payment_intent": held.id, "amount": 500, "metadata": {"attempt": "att_1"}})
    assert isinstance(refund, stripe.Refund)
    assert (refund.amount, refund.status, refund.payment_intent) == (500, "succeeded", held.id)
    check_fields(refund, stripe.Refund)
    assert http.checked == 4


def test_creating_confirming_and_canceling_through_the_sdk(sdk: stripe.StripeClient) -> None:
    """The two-step way, and the way out."""
    intents = sdk.v1.payment_intents
    created = intents.create(
        {"amount": 1999, "currency": "eur", "payment_method": "pm_card_visa", "capture_method": "manual"}
    )
    confirmed = intents.confirm(created.id, {"return_url": "https://shop.example/return"})
    assert confirmed.status == "requires_capture"
    canceled = intents.cancel(created.id, {"cancellation_reason": "abandoned"})
    assert (canceled.status, canceled.cancellation_reason) == ("canceled", "abandoned")
    check_fields(canceled, stripe.PaymentIntent)


def test_the_options_that_an_adapter_uses_are_valid(sdk: stripe.StripeClient) -> None:
    """Redirects with a return URL, and merchant-initiated payments."""
    intents = sdk.v1.payment_intents
    redirected = intents.create(
        charge(
            payment_method="pm_card_threeDSecure2Required",
            automatic_payment_methods={"enabled": True},
            return_url="https://shop.example/return",
        )
    )
    assert redirected.next_action is not None
    assert redirected.next_action.redirect_to_url is not None
    assert redirected.next_action.redirect_to_url.return_url == "https://shop.example/return"
    check_fields(redirected.next_action, stripe.PaymentIntent.NextAction)
    stored = intents.create(charge(customer="cus_1", off_session=True, description="ORD-1"))
    assert stored.status == "succeeded"
    with pytest.raises(stripe.CardError):
        intents.create(charge(payment_method="pm_card_authenticationRequired", error_on_requires_action=True))


def test_a_decline_becomes_the_sdks_card_error(sdk: stripe.StripeClient) -> None:
    """With every detail that a classification reads."""
    with pytest.raises(stripe.CardError) as declined:
        sdk.v1.payment_intents.create(charge(payment_method="pm_card_visa_chargeDeclinedInsufficientFunds"))
    error = declined.value.error
    assert error is not None
    assert (error.code, error.decline_code) == ("card_declined", "insufficient_funds")
    assert (error.network_decline_code, error.advice_code) == ("51", "try_again_later")
    assert error.payment_intent is not None
    assert error.payment_intent.status == "requires_payment_method"
    check_fields(error, stripe.ErrorObject)
    check_fields(error.payment_intent, stripe.PaymentIntent)


def test_refusals_become_the_sdks_errors(sdk: stripe.StripeClient, sandbox: Sandbox) -> None:
    """Other parameters under a key, something missing, no credentials."""
    intents = sdk.v1.payment_intents
    intents.create(charge(), {"idempotency_key": "k1"})
    with pytest.raises(stripe.IdempotencyError):
        intents.create(charge(amount=2000), {"idempotency_key": "k1"})
    with pytest.raises(stripe.InvalidRequestError) as missing:
        intents.retrieve("pi_none")
    assert (missing.value.http_status, missing.value.code) == (404, "resource_missing")
    assert missing.value.request_id is not None
    stranger = stripe.StripeClient("sk_live_1", base_addresses={"api": sandbox.stripe_url}, max_network_retries=0)
    with pytest.raises(stripe.AuthenticationError):
        stranger.v1.balance.retrieve()


def test_the_probe_becomes_the_sdks_balance(sdk: stripe.StripeClient) -> None:
    """A call that moves no money."""
    balance = sdk.v1.balance.retrieve()
    assert isinstance(balance, stripe.Balance)
    check_fields(balance, stripe.Balance)


def test_what_was_kept_of_a_capture_is_the_sdks_object(sdk: stripe.StripeClient) -> None:
    """As an adapter asks for it; every field is one that the SDK's type knows, and the answer is the contract's."""
    paid = sdk.v1.payment_intents.create(
        charge(capture_method="automatic", expand=["latest_charge.balance_transaction"])
    )
    kept = paid.latest_charge
    assert isinstance(kept, stripe.Charge)
    assert isinstance(kept.balance_transaction, stripe.BalanceTransaction)
    assert (kept.balance_transaction.fee, kept.balance_transaction.currency) == (90, "eur")
    check_fields(kept.balance_transaction, stripe.BalanceTransaction)
    assert paid.last_response is not None
    assert contract().check_response("post", "/v1/payment_intents", paid.last_response.data) in ([], None, ())
