"""Stripe, through its SDK (API 2026-10-28): PaymentIntents created and confirmed in one call.

What each answer means is settled in facts/providers.md. Vendor's documentation:
https://docs.stripe.com/api/payment_intents, https://docs.stripe.com/error-handling,
https://docs.stripe.com/api/idempotent_requests.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import stripe

from providers import currencies, faults, stripe_account, stripe_answers, stripe_look_up, stripe_render
from providers.contract import (
    AccountStanding,
    ChargeRequest,
    Health,
    Ineligible,
    LookUp,
    LookUpKind,
    ModificationKind,
    ModificationOutcome,
    Money,
    Notice,
    Outcome,
    Params,
    ProbeResult,
    Timeouts,
)
from providers.stripe_faults import code, error_object, fault
from providers.stripe_webhooks import StripeWebhooks
from providers.stripe_wire import StripeWire
from providers.transport import SendFailed, Transport, checked_base_url, sending_within

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


class StripeProvider:
    """The provider called `stripe`. Thread-safe. See `providers.contract.Provider` for what each call means.

    Capture, void and refund are complete when they are answered, except where Stripe says that they are not.
    `webhook_secrets`: a webhook signed with any of them is believed, so that a secret can be rotated.
    """

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str,
        webhook_secrets: Sequence[str] = (),
        pool_size: int = 64,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        # All three are global to the SDK: without the first it writes a file under the home folder; at the levels
        # below WARNING it logs whole requests and answers, tokens and client secrets among them.
        stripe.enable_telemetry = False
        stripe.max_network_retries = 0
        logging.getLogger("stripe").setLevel(logging.WARNING)
        self._transport = Transport(pool_size=pool_size, monotonic=monotonic)
        self._wire = StripeWire(self._transport, api_key=api_key, base_url=checked_base_url(base_url))
        # A restricted key may lack the right to balance transactions, and Stripe then refuses the whole request.
        self._tell_fee = api_key.startswith("sk_")
        self._monotonic = monotonic
        self._readings = stripe_look_up.Readings()
        self._webhooks = StripeWebhooks(webhook_secrets)

    @property
    def name(self) -> str:
        return "stripe"

    def is_reference(self, reference: str) -> bool:
        return stripe_answers.PAYMENT_INTENT.fullmatch(reference) is not None

    # ------------------------------------------------------------ charging

    def check(self, method: str, money: Money) -> None:
        stripe_render.amount_of(method, money)

    def render(self, request: ChargeRequest) -> Params:
        return stripe_render.render(request, tell_fee=self._tell_fee)

    def authorize(self, params: Params, *, idempotency_key: str, timeouts: Timeouts) -> Outcome:
        try:
            intent = self._request("/v1/payment_intents", params, idempotency_key, timeouts)
            return stripe_answers.outcome(intent)
        except stripe.CardError as error:
            return stripe_answers.declined(error_object(error))
        except Exception as error:  # noqa: BLE001 - the contract: no call raises; whatever it is becomes a verdict
            return fault(error).as_outcome()

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
            lambda: {
                "payment_intent": provider_reference,
                "amount": currencies.STRIPE.to_vendor(money),
                # Names this very refund in every webhook about it. (A capture has no object that could carry it.)
                "metadata": {stripe_answers.OPERATION: idempotency_key},
            },
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

    def void_attempt(self, attempt_id: str, *, idempotency_key: str, timeouts: Timeouts) -> ModificationOutcome:
        del attempt_id, idempotency_key, timeouts  # Stripe cancels by its own id only: look up, and void that
        return ModificationOutcome(ModificationKind.REFUSED, Health.IGNORED, "unsupported")

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
        try:
            if provider_reference is not None:
                return stripe_look_up.found(self._retrieve(provider_reference, timeouts), attempt_id)
            return stripe_look_up.search(
                attempt_id,
                lambda params, left: self._request("/v1/payment_intents", params, None, left),
                sent_from=sent_from,
                sent_until=sent_until,
                timeouts=timeouts,
                monotonic=self._monotonic,
                readings=self._readings,
            )
        except stripe.InvalidRequestError as error:
            if error.http_status == 404 and provider_reference is not None and code(error) == "resource_missing":
                return LookUp(LookUpKind.NOT_FOUND)
            return fault(error).as_look_up()
        except Exception as error:  # noqa: BLE001 - the contract: no call raises; whatever it is becomes a verdict
            return fault(error).as_look_up()

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
        # The customer's step ends at Stripe, not with us: the intent knows how, whatever the browser brought back.
        del details, capture, idempotency_key
        try:
            intent = self._retrieve(provider_reference or "", timeouts)
            if attempt_id is not None and stripe_answers.names_another(intent, attempt_id):
                return faults.ANOTHER_ATTEMPT.as_completion()
            return stripe_answers.outcome(intent)
        except Exception as error:  # noqa: BLE001 - the contract: no call raises; whatever it is becomes a verdict
            return fault(error).as_completion()

    def read_webhook(self, headers: Mapping[str, str], body: bytes, *, now: dt.datetime) -> Sequence[Notice]:
        return self._webhooks.read(headers, body, now=now)

    def probe(self, *, timeouts: Timeouts) -> ProbeResult:
        try:
            balance = self._request("/v1/balance", {}, None, timeouts)
            if isinstance(balance, Mapping) and balance.get("object") == "balance":
                return ProbeResult(Health.OK)
            return faults.SENSELESS_ANSWER.as_probe()
        except Exception as error:  # noqa: BLE001 - the contract: no call raises; whatever it is becomes a verdict
            return fault(error).as_probe()

    def account(self, *, timeouts: Timeouts) -> AccountStanding | None:
        try:
            return stripe_account.standing(self._request("/v1/account", {}, None, timeouts))
        except Exception:  # noqa: BLE001 - a restricted key may not ask; whatever else it is, nothing was learned
            return None

    def pool_use(self) -> tuple[int, int]:
        """HTTP connections in use, and how many there may be."""
        return self._transport.use()

    def close(self) -> None:
        self._transport.close()

    # ------------------------------------------------------------ within

    def _request(self, path: str, params: Params, key: str | None, timeouts: Timeouts) -> object:
        """One HTTP request, a POST where there is a key; the answer's JSON.

        Raises SendFailed, a StripeError, or whatever the SDK trips over.
        """
        with sending_within(timeouts):
            # Not client.v1…create(): building its typed objects takes four times as long as all the rest.
            return self._wire.get(path, params) if key is None else self._wire.post(path, params, key)

    def _retrieve(self, provider_reference: str, timeouts: Timeouts) -> object:
        if not stripe_answers.is_intent(provider_reference):
            raise SendFailed(faults.ours("misshapen_reference"))
        params = {"expand": [stripe_render.FEE]} if self._tell_fee else {}
        return self._request(f"/v1/payment_intents/{provider_reference}", params, None, timeouts)

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
            if not stripe_answers.is_intent(provider_reference):
                return faults.ours("misshapen_reference").as_modification()
            return stripe_answers.modified(self._request(path, params(), key, timeouts), meanings)
        except Ineligible:
            return faults.ours("inexpressible_amount").as_modification()
        except stripe.CardError as error:
            return ModificationOutcome(ModificationKind.REFUSED, Health.OK, code(error) or "card_error")
        except stripe.InvalidRequestError as error:
            if code(error) in _STATE_FORBIDS:
                return ModificationOutcome(ModificationKind.REFUSED, Health.OK, code(error))
            return fault(error).as_modification()
        except Exception as error:  # noqa: BLE001 - the contract: no call raises; whatever it is becomes a verdict
            return fault(error).as_modification()
