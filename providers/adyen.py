"""Adyen, through its SDK (Checkout v72): payments with stored cards, and modifications.

What each answer means is settled in facts/providers.md. Vendor's documentation:
https://docs.adyen.com/api-explorer/Checkout/72, https://docs.adyen.com/development-resources/api-idempotency,
https://docs.adyen.com/online-payments/build-your-integration/payment-result-codes.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import Adyen
import structlog

from providers import adyen_account, adyen_answers, adyen_render, currencies, faults
from providers.adyen_webhooks import AdyenWebhooks
from providers.contract import (
    AccountStanding,
    ChargeRequest,
    Health,
    Ineligible,
    LookUp,
    LookUpKind,
    ModificationOutcome,
    Money,
    Notice,
    Outcome,
    Params,
    ProbeResult,
    Timeouts,
)
from providers.faults import Fault, safe_word
from providers.transport import SendFailed, Transport, checked_base_url, sending_within

IDEMPOTENCY_KEY_CHARS = 64
_KEY_IN_PROGRESS_CODE = "704"
_PSP_REFERENCE_AS_SHOWN = re.compile(r"[A-Z0-9]{16}")
"""As Adyen makes them today; what its answers may carry is taken more widely."""
_DETAILS_CHARS = {
    "MD": 20_000,
    "PaReq": 20_000,
    "PaRes": 20_000,
    "payload": 20_000,
    "redirectResult": 20_000,
    "returnUrlQueryString": 20_000,
    "threeDSResult": 50_000,
    "threeds2.challengeResult": 50_000,
    "threeds2.fingerprint": 100_000,
}
"""What 3-D Secure can bring back, and how long each may be, by Checkout v72's schema."""

_log = structlog.get_logger(__name__)


class AdyenProvider:
    """The provider called `adyen`. Thread-safe. See `providers.contract.Provider` for what each call means.

    Capture, void and refund are only *received* when they are answered; a webhook says how they ended.
    `hmac_keys`: a webhook signed with any of them is believed, so that a key can be rotated. `management_url`: of the
    Management API, version included; None where our key has no role there, and the account is not looked at.
    """

    def __init__(
        self,
        *,
        api_key: str,
        merchant_account: str,
        base_url: str,
        default_return_url: str,
        management_url: str | None = None,
        hmac_keys: Sequence[str] = (),
        pool_size: int = 64,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        url = _versioned(checked_base_url(base_url))
        self._merchant_account = merchant_account
        self._default_return_url = default_return_url
        self._webhooks = AdyenWebhooks(hmac_keys, merchant_account)
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
        self._accounts = None
        if management_url is not None:
            manager = Adyen.Adyen(
                xapikey=api_key,
                platform="live" if "-live" in management_url else "test",
                live_endpoint_prefix="unused",
            )
            management_url = checked_base_url(management_url)
            manager.client.http_client = _PooledClient(self._transport, management_url)
            manager.client.http_init = True
            self._accounts = manager.management.account_merchant_level_api
            self._accounts.baseUrl = management_url

    @property
    def name(self) -> str:
        return "adyen"

    def is_reference(self, reference: str) -> bool:
        return _PSP_REFERENCE_AS_SHOWN.fullmatch(reference) is not None

    # ------------------------------------------------------------ charging

    def check(self, method: str, money: Money) -> None:
        adyen_render.amount_of(method, money)

    def render(self, request: ChargeRequest) -> Params:
        return adyen_render.render(
            request, merchant_account=self._merchant_account, default_return_url=self._default_return_url
        )

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

    def void_attempt(self, attempt_id: str, *, idempotency_key: str, timeouts: Timeouts) -> ModificationOutcome:
        # The technical cancel, by the reference that `render` gave the payment. It can overtake the payment itself.
        try:
            if not 0 < len(attempt_id) <= adyen_render.REFERENCE_CHARS:
                return faults.ours("misshapen_attempt_id").as_modification()
            # The same reference for the cancel: its webhook carries one of the two, and must name the attempt.
            body = {**self._modification(attempt_id), "paymentReference": attempt_id}
            call = self._modifications.cancel_authorised_payment
            return adyen_answers.modified(self._request(call, body, idempotency_key, timeouts))
        except Exception as error:  # noqa: BLE001 - the contract: no call raises; whatever it is becomes a verdict
            return _fault(error).as_modification()

    def refund(
        self, provider_reference: str, money: Money, *, idempotency_key: str, timeouts: Timeouts
    ) -> ModificationOutcome:
        call = self._modifications.refund_captured_payment
        return self._modify(call, provider_reference, money, idempotency_key, timeouts)

    # ------------------------------------------------------------ how an attempt stands

    def look_up(
        self,
        attempt_id: str,
        *,
        provider_reference: str | None,
        sent_from: dt.datetime,
        sent_until: dt.datetime,
        timeouts: Timeouts,
    ) -> LookUp:
        del attempt_id, provider_reference, sent_from, sent_until, timeouts
        return LookUp(LookUpKind.UNSUPPORTED, reason="no_look_up_at_adyen")

    def complete(
        self,
        provider_reference: str | None,
        details: Mapping[str, Any],
        *,
        capture: Literal["automatic", "manual"],
        idempotency_key: str,
        timeouts: Timeouts,
        attempt_id: str | None = None,
    ) -> Outcome:
        del provider_reference  # a redirect has none yet; the details themselves name the payment
        try:
            if not _are_details(details):
                return faults.ours("details_refused").as_completion()
            body = {"details": dict(details)}
            answer = self._request(self._payments.payments_details, body, idempotency_key, timeouts)
            outcome = adyen_answers.outcome(answer, automatic=capture == "automatic")
            if attempt_id is not None and adyen_answers.names_another(answer, attempt_id, outcome):
                return faults.ANOTHER_ATTEMPT.as_completion()
            return outcome
        except Exception as error:  # noqa: BLE001 - the contract: no call raises; whatever it is becomes a verdict
            return _fault(error).as_completion()

    def read_webhook(self, headers: Mapping[str, str], body: bytes, *, now: dt.datetime) -> Sequence[Notice]:
        del headers, now  # the signature is in the body, and knows no time
        return self._webhooks.read(body)

    def probe(self, *, timeouts: Timeouts) -> ProbeResult:
        try:
            body = {"merchantAccount": self._merchant_account}
            answer = self._request(self._payments.payment_methods, body, None, timeouts)
            if isinstance(answer.get("paymentMethods"), list):
                return ProbeResult(Health.OK)
            return faults.SENSELESS_ANSWER.as_probe()
        except Exception as error:  # noqa: BLE001 - the contract: no call raises; whatever it is becomes a verdict
            return _fault(error).as_probe()

    def account(self, *, timeouts: Timeouts) -> AccountStanding | None:
        if self._accounts is None:
            return None
        try:
            with sending_within(timeouts):
                return adyen_account.standing(self._accounts.get_merchant_account(self._merchant_account).message)
        except Exception:  # noqa: BLE001 - the key may have no such role; whatever else it is, nothing was learned
            return None

    def pool_use(self) -> tuple[int, int]:
        """HTTP connections in use, and how many there may be."""
        return self._transport.use()

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

    def _modification(self, reference: str) -> dict[str, Any]:
        # The reference names this very capture, cancel or refund in the webhook about it.
        return {"merchantAccount": self._merchant_account, "reference": reference}

    def _modify(
        self, call: Callable[..., Any], provider_reference: str, money: Money | None, key: str, timeouts: Timeouts
    ) -> ModificationOutcome:
        try:
            if not adyen_answers.PSP_REFERENCE.fullmatch(provider_reference):
                return faults.ours("misshapen_reference").as_modification()
            body = self._modification(key)  # a key is shorter than a reference may be, or is refused when it is sent
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


def _are_details(details: Mapping[str, Any]) -> bool:
    return bool(details) and all(
        isinstance(value, str) and 0 < len(value) <= _DETAILS_CHARS.get(name, 0) for name, value in details.items()
    )


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
