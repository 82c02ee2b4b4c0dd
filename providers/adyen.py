"""Adyen, through its SDK (Checkout v72): payments with stored cards, and modifications.

What each answer means is settled in facts/providers.md. Vendor's documentation:
https://docs.adyen.com/api-explorer/Checkout/72, https://docs.adyen.com/development-resources/api-idempotency,
https://docs.adyen.com/online-payments/build-your-integration/payment-result-codes.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import Adyen
import structlog

from providers import adyen_answers, currencies, faults
from providers.contract import (
    ChargeRequest,
    Health,
    Ineligible,
    ModificationOutcome,
    Money,
    Outcome,
    Params,
    ProbeResult,
    Timeouts,
)
from providers.faults import Fault, safe_word
from providers.transport import SendFailed, Transport, checked_base_url, sending_within

# Limits of Checkout v72's own schema, in characters.
REFERENCE_CHARS = 80
MERCHANT_ORDER_REFERENCE_CHARS = 1000
METADATA_VALUE_CHARS = 80
SHOPPER_REFERENCE_CHARS = range(3, 257)
SHOPPER_EMAIL_CHARS = 256
IDEMPOTENCY_KEY_CHARS = 64
RETURN_URL_CHARS = 8000

_STORED_ID = re.compile(r"[A-Za-z0-9_]{1,64}")
_CARD_NUMBER = re.compile(r"[2-6][0-9]{12,18}")
"""Adyen's numeric stored ids begin with 8: a number that could be a card's is not sent anywhere."""
_KEY_IN_PROGRESS_CODE = "704"

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

_log = structlog.get_logger(__name__)


class AdyenProvider:
    """The provider called `adyen`. Thread-safe. See `providers.contract.Provider` for what each call means.

    Capture, void and refund are only *received* when they are answered; a webhook says how they ended.
    """

    def __init__(
        self,
        *,
        api_key: str,
        merchant_account: str,
        base_url: str,
        default_return_url: str,
        pool_size: int = 64,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        url = _versioned(checked_base_url(base_url))
        self._merchant_account = merchant_account
        self._default_return_url = default_return_url
        self._transport = Transport(pool_size=pool_size, monotonic=monotonic)
        # The SDK rewrites "-live" into "-test" in every URL unless its platform is "live"; and then it wants a
        # prefix, which it uses on its own default URLs only.
        sdk = Adyen.Adyen(
            xapikey=api_key,
            platform="live" if "-live" in url else "test",
            live_endpoint_prefix="unused",
        )
        sdk.client.http_client = _PooledClient(self._transport, url)
        sdk.client.http_init = True
        self._payments = sdk.checkout.payments_api
        self._modifications = sdk.checkout.modifications_api
        self._payments.baseUrl = self._modifications.baseUrl = url

    @property
    def name(self) -> str:
        return "adyen"

    # ------------------------------------------------------------ charging

    def render(self, request: ChargeRequest) -> Params:
        if request.method != "card":
            raise Ineligible("only cards are set up at Adyen")
        if len(request.attempt_id) > REFERENCE_CHARS:
            raise Ineligible(f"the attempt's id is above Adyen's {REFERENCE_CHARS} characters")
        payment_method, shopper_reference = _token(request)
        params: dict[str, Any] = {
            "merchantAccount": self._merchant_account,
            "amount": {"value": currencies.ADYEN.to_vendor(request.money), "currency": request.money.currency},
            # The attempt's id, so that a technical cancel names exactly one attempt.
            "reference": request.attempt_id,
            "paymentMethod": payment_method,
            "shopperReference": shopper_reference,
            "shopperInteraction": "ContAuth",
            "recurringProcessingModel": "UnscheduledCardOnFile" if request.initiator == "merchant" else "CardOnFile",
            "returnUrl": request.return_url or self._default_return_url,
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

    def authorize(self, params: Params, *, idempotency_key: str, timeouts: Timeouts) -> Outcome:
        try:
            automatic = params.get("additionalData", {}).get("manualCapture") != "true"
            answer = self._request(self._payments.payments, params, idempotency_key, timeouts)
            return adyen_answers.outcome(answer, automatic=automatic)
        except Exception as error:  # noqa: BLE001 - the contract: no call raises; whatever it is becomes a verdict
            return _fault(error).as_outcome()

    # ------------------------------------------------------------ what comes after

    def capture(
        self, provider_reference: str, money: Money, *, idempotency_key: str, timeouts: Timeouts
    ) -> ModificationOutcome:
        call = self._modifications.capture_authorised_payment
        return self._modify(call, provider_reference, money, idempotency_key, timeouts)

    def void(self, provider_reference: str, *, idempotency_key: str, timeouts: Timeouts) -> ModificationOutcome:
        call = self._modifications.cancel_authorised_payment_by_psp_reference
        return self._modify(call, provider_reference, None, idempotency_key, timeouts)

    def refund(
        self, provider_reference: str, money: Money, *, idempotency_key: str, timeouts: Timeouts
    ) -> ModificationOutcome:
        call = self._modifications.refund_captured_payment
        return self._modify(call, provider_reference, money, idempotency_key, timeouts)

    def probe(self, *, timeouts: Timeouts) -> ProbeResult:
        try:
            body = {"merchantAccount": self._merchant_account}
            answer = self._request(self._payments.payment_methods, body, None, timeouts)
            if isinstance(answer.get("paymentMethods"), list):
                return ProbeResult(Health.OK)
            return faults.SENSELESS_ANSWER.as_probe()
        except Exception as error:  # noqa: BLE001 - the contract: no call raises; whatever it is becomes a verdict
            return _fault(error).as_probe()

    def close(self) -> None:
        self._transport.close()

    # ------------------------------------------------------------ within

    def _request(
        self, call: Callable[..., Any], body: Params, key: str | None, timeouts: Timeouts, *path: str
    ) -> dict[str, Any]:
        """One HTTP request; the answer's JSON. Raises SendFailed, an AdyenError, or whatever the SDK trips over."""
        if key is not None and len(key) > IDEMPOTENCY_KEY_CHARS:
            raise SendFailed(faults.ours("idempotency_key_too_long"))
        with sending_within(timeouts):
            message: dict[str, Any] = call(dict(body), *path, idempotency_key=key).message
            return message

    def _modify(
        self, call: Callable[..., Any], provider_reference: str, money: Money | None, key: str, timeouts: Timeouts
    ) -> ModificationOutcome:
        try:
            if not adyen_answers.PSP_REFERENCE.fullmatch(provider_reference):
                return faults.ours("misshapen_reference").as_modification()
            body: dict[str, Any] = {"merchantAccount": self._merchant_account}
            if len(key) <= REFERENCE_CHARS:
                body["reference"] = key  # names this very capture or refund in the webhook about it
            if money is not None:
                body["amount"] = {"value": currencies.ADYEN.to_vendor(money), "currency": money.currency}
            return adyen_answers.modified(self._request(call, body, key, timeouts, provider_reference))
        except Ineligible:
            return faults.ours("inexpressible_amount").as_modification()
        except Exception as error:  # noqa: BLE001 - the contract: no call raises; whatever it is becomes a verdict
            return _fault(error).as_modification()


class _PooledClient:
    """The SDK's HTTP client, over our pool: it asks for no more than these two attributes."""

    user_agent = "pointsman adyen-python-api-library"

    def __init__(self, transport: Transport, base_url: str) -> None:
        self._transport = transport
        self._base_url = base_url

    def request(
        self, method: str, url: str, *, json: object, xapikey: str, headers: Mapping[str, str]
    ) -> tuple[bytes, object, int, Mapping[str, str]]:
        if not url.startswith(self._base_url):  # the SDK rewrites URLs as it sees fit: never to another server
            raise SendFailed(faults.ours("url_rewritten"))
        body = _json(json)
        answer = self._transport.send(
            method, url, {**headers, "x-api-key": xapikey, "Content-Type": "application/json"}, body
        )
        return answer.body, None, answer.status, answer.headers


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _versioned(url: str) -> str:
    version = re.search(r"/v(\d+)$", url)
    if version and version.group(1) != "72":
        raise ValueError("this SDK speaks Checkout v72: the base URL ends in /v72, or in no version")
    return url if version else f"{url}/v72"


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


def _fault(error: Exception) -> Fault:
    """Everything else that can come out of a call: the transport's verdict, Adyen's errors, the SDK's own bugs.

    Adyen's exception classes follow no rule (404 and 500 share one): its status and error code decide.
    """
    match error:
        case SendFailed():
            return error.fault
        case Adyen.AdyenError():
            if error.status_code == 422:
                if str(error.error_code) == _KEY_IN_PROGRESS_CODE:
                    return faults.KEY_IN_PROGRESS
                fault = faults.ours("http_422")
            else:
                fault = faults.of_status(error.status_code)
            if fault.our_fault:
                _log.error(
                    "provider_rejected_our_request",
                    provider="adyen",
                    status=error.status_code,
                    code=safe_word(error.error_code),
                )
            return fault
        case _:
            _log.error("sdk_failed", provider="adyen", error=type(error).__name__)
            return faults.SENSELESS_ANSWER
