"""Stripe, through its SDK (API 2026-10-28): PaymentIntents created and confirmed in one call.

What each answer means is settled in facts/providers.md. Vendor's documentation:
https://docs.stripe.com/api/payment_intents, https://docs.stripe.com/error-handling,
https://docs.stripe.com/api/idempotent_requests.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import stripe
import structlog

from providers import currencies, faults, stripe_answers
from providers.contract import (
    ChargeRequest,
    Health,
    Ineligible,
    ModificationKind,
    ModificationOutcome,
    Money,
    Outcome,
    Params,
    ProbeResult,
    Timeouts,
)
from providers.faults import Fault, safe_word
from providers.transport import SendFailed, Transport, checked_base_url, sending_within

METADATA_VALUE_CHARS = 500
"""Stripe's limit for one metadata value."""
_PAYMENT_METHOD = re.compile(r"(pm|card|src)_[A-Za-z0-9_]{1,250}")
_CUSTOMER = re.compile(r"cus_[A-Za-z0-9_]{1,250}")

_STATE_FORBIDS = frozenset(
    {
        "payment_intent_unexpected_state",
        "intent_invalid_state",
        "status_transition_invalid",
        "charge_already_captured",
        "charge_already_refunded",
        "charge_disputed",
        "charge_exceeds_source_limit",
        "charge_expired_for_capture",
        "charge_not_refundable",
        "capture_charge_authorization_expired",
        "capture_unauthorized_payment",
        "refund_disputed_payment",
        "amount_too_large",
    }
)
"""Codes of a 400 about the payment's state (captured, canceled, refunded, expired), not about our request."""

_log = structlog.get_logger(__name__)


class StripeProvider:
    """The provider called `stripe`. Thread-safe. See `providers.contract.Provider` for what each call means.

    Capture, void and refund are complete when they are answered, except where Stripe says that they are not.
    """

    def __init__(
        self, *, api_key: str, base_url: str, pool_size: int = 64, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        # All three are global to the SDK: without the first it writes a file under the home folder; at the levels
        # below WARNING it logs whole requests and answers, tokens and client secrets among them.
        stripe.enable_telemetry = False
        stripe.max_network_retries = 0
        logging.getLogger("stripe").setLevel(logging.WARNING)
        self._transport = Transport(pool_size=pool_size, monotonic=monotonic)
        self._client = stripe.StripeClient(
            api_key,
            base_addresses={"api": checked_base_url(base_url)},
            http_client=_PooledClient(self._transport),
            max_network_retries=0,
        )

    @property
    def name(self) -> str:
        return "stripe"

    # ------------------------------------------------------------ charging

    def render(self, request: ChargeRequest) -> Params:
        if request.method != "card":
            raise Ineligible("only cards are set up at Stripe")
        params: dict[str, Any] = {
            "amount": currencies.STRIPE.to_vendor(request.money),
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
        return params

    def authorize(self, params: Params, *, idempotency_key: str, timeouts: Timeouts) -> Outcome:
        try:
            intent = self._request("post", "/v1/payment_intents", params, idempotency_key, timeouts)
            return stripe_answers.outcome(intent)
        except stripe.CardError as error:
            return stripe_answers.declined(_error_object(error))
        except Exception as error:  # noqa: BLE001 - the contract: no call raises; whatever it is becomes a verdict
            return _fault(error).as_outcome()

    # ------------------------------------------------------------ what comes after

    def capture(
        self, provider_reference: str, money: Money, *, idempotency_key: str, timeouts: Timeouts
    ) -> ModificationOutcome:
        return self._modify(
            provider_reference,
            lambda: {"amount_to_capture": currencies.STRIPE.to_vendor(money)},
            f"/v1/payment_intents/{provider_reference}/capture",
            {"succeeded": ModificationKind.DONE, "processing": ModificationKind.RECEIVED},
            key=idempotency_key,
            timeouts=timeouts,
        )

    def void(self, provider_reference: str, *, idempotency_key: str, timeouts: Timeouts) -> ModificationOutcome:
        return self._modify(
            provider_reference,
            dict,
            f"/v1/payment_intents/{provider_reference}/cancel",
            {"canceled": ModificationKind.DONE},
            key=idempotency_key,
            timeouts=timeouts,
        )

    def refund(
        self, provider_reference: str, money: Money, *, idempotency_key: str, timeouts: Timeouts
    ) -> ModificationOutcome:
        return self._modify(
            provider_reference,
            lambda: {"payment_intent": provider_reference, "amount": currencies.STRIPE.to_vendor(money)},
            "/v1/refunds",
            {
                "succeeded": ModificationKind.DONE,
                "pending": ModificationKind.RECEIVED,
                "requires_action": ModificationKind.RECEIVED,
                "failed": ModificationKind.REFUSED,
                "canceled": ModificationKind.REFUSED,
            },
            key=idempotency_key,
            timeouts=timeouts,
        )

    def probe(self, *, timeouts: Timeouts) -> ProbeResult:
        try:
            balance = self._request("get", "/v1/balance", {}, None, timeouts)
            if isinstance(balance, Mapping) and balance.get("object") == "balance":
                return ProbeResult(Health.OK)
            return faults.SENSELESS_ANSWER.as_probe()
        except Exception as error:  # noqa: BLE001 - the contract: no call raises; whatever it is becomes a verdict
            return _fault(error).as_probe()

    def close(self) -> None:
        self._transport.close()

    # ------------------------------------------------------------ within

    def _request(self, method: str, path: str, params: Params, key: str | None, timeouts: Timeouts) -> object:
        """One HTTP request; the answer's JSON. Raises SendFailed, a StripeError, or whatever the SDK trips over."""
        options = {} if key is None else {"idempotency_key": key}
        with sending_within(timeouts):
            # Not client.v1…create(): building its typed objects takes four times as long as all the rest.
            return self._client.raw_request(method, path, **params, **options).data

    def _modify(
        self,
        provider_reference: str,
        params: Callable[[], Params],
        path: str,
        meanings: Mapping[str, ModificationKind],
        *,
        key: str,
        timeouts: Timeouts,
    ) -> ModificationOutcome:
        try:
            if not stripe_answers.PAYMENT_INTENT.fullmatch(provider_reference):
                return faults.ours("misshapen_reference").as_modification()
            return stripe_answers.modified(self._request("post", path, params(), key, timeouts), meanings)
        except Ineligible:
            return faults.ours("inexpressible_amount").as_modification()
        except stripe.CardError as error:
            return ModificationOutcome(ModificationKind.REFUSED, Health.OK, _code(error) or "card_error")
        except stripe.InvalidRequestError as error:
            if _code(error) in _STATE_FORBIDS:
                return ModificationOutcome(ModificationKind.REFUSED, Health.OK, _code(error))
            return _fault(error).as_modification()
        except Exception as error:  # noqa: BLE001 - the contract: no call raises; whatever it is becomes a verdict
            return _fault(error).as_modification()


class _PooledClient(stripe.HTTPClient):
    """The SDK's HTTP client, over our pool. A SendFailed leaves the SDK as it is: it catches its own errors only."""

    name = "urllib3"

    def __init__(self, transport: Transport) -> None:
        super().__init__()
        self._transport = transport

    def request(  # type: ignore[override]  # the SDK says str for the body and handles bytes, as its own clients send
        self, method: str, url: str, headers: Mapping[str, str] | None, post_data: Any = None, **_: Any
    ) -> tuple[bytes, int, Mapping[str, str]]:
        answer = self._transport.send(method.upper(), url, headers or {}, post_data)
        return answer.body, answer.status, answer.headers

    def close(self) -> None:
        self._transport.close()


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


def _fault(error: Exception) -> Fault:
    """Everything else that can come out of a call: the transport's verdict, Stripe's errors, the SDK's own bugs."""
    match error:
        case SendFailed():
            return error.fault
        case stripe.IdempotencyError():
            return faults.KEY_REUSED
        case stripe.RateLimitError():
            return faults.RATE_LIMITED
        case stripe.StripeError():
            fault = faults.of_status(error.http_status)
            if fault.our_fault:
                # `param` names a field of ours, never what was in it.
                _log.error(
                    "provider_rejected_our_request",
                    provider="stripe",
                    status=error.http_status,
                    code=_code(error),
                    param=safe_word(_error_object(error).get("param")),
                )
            return fault
        case _:
            _log.error("sdk_failed", provider="stripe", error=type(error).__name__)
            return faults.SENSELESS_ANSWER


def _error_object(error: stripe.StripeError) -> Mapping[str, Any]:
    """The error's JSON as a plain mapping; empty where the answer had none. (`e.error` and `e.code` can be None.)"""
    body = error.json_body
    found = body.get("error") if isinstance(body, dict) else None
    return found if isinstance(found, dict) else {}


def _code(error: stripe.StripeError) -> str | None:
    code = _error_object(error).get("code")
    return safe_word(code) if code else None
