"""Stripe's webhooks: one signed event a delivery, in the router's words.

Vendor's documentation: https://docs.stripe.com/webhooks/signature, https://docs.stripe.com/api/events/types.
An event shows its object as it was when the event was made: events that come late or out of order tell old news.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from typing import Any

import stripe
import structlog

from providers import currencies, stripe_answers, webhooks
from providers.contract import (
    Ineligible,
    Money,
    Notice,
    NoticeKind,
    OutcomeKind,
    WebhookRefusedError,
)

TOLERANCE_S = 300
"""How old a signature may be, and how far in the future: Stripe's own figure, for clocks and slow ways."""
MAX_HEADER_CHARS = 4096

_EVENT = re.compile(r"evt_[A-Za-z0-9_]{1,190}")
_NAME = re.compile(r"[a-z0-9_.]{1,100}")
_OBJECT = re.compile(r"[a-z]{2,10}_[A-Za-z0-9_]{1,250}")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")

_ATTEMPTS = frozenset(
    f"payment_intent.{what}"
    for what in ("succeeded", "amount_capturable_updated", "payment_failed", "requires_action", "canceled")
)
_REFUNDS = frozenset({"refund.created", "refund.updated", "refund.failed", "charge.refund.updated"})
_CAPTURE_FAILURES = frozenset(
    {"capture_charge_authorization_expired", "capture_unauthorized_payment", "charge_expired_for_capture"}
)
_DISPUTE_ENDS = {"won": "won", "warning_closed": "won", "prevented": "won", "lost": "lost"}

_log = structlog.get_logger(__name__)


class StripeWebhooks:
    """Reads deliveries that are signed with any of these secrets (several while one is rotated)."""

    def __init__(self, secrets: Sequence[str]) -> None:
        if isinstance(secrets, str) or any(not secret.strip() for secret in secrets):
            raise ValueError("Stripe's webhook secrets are a list of whsec_… without an empty one")
        self._secrets = tuple(secrets)

    def read(self, headers: Mapping[str, str], body: bytes, *, now: dt.datetime) -> Sequence[Notice]:
        """The event as a notice. Raises WebhookRefusedError."""
        text = webhooks.text_of(body)
        self._verify(webhooks.header(headers, "Stripe-Signature"), text, now)
        return (_notice(webhooks.json_object(text)),)

    def _verify(self, signature: str | None, text: str, now: dt.datetime) -> None:
        if not self._secrets:
            raise WebhookRefusedError("no webhook secret is set for Stripe")
        if not signature:
            raise WebhookRefusedError("the Stripe-Signature header is missing")
        if len(signature) > MAX_HEADER_CHARS or not signature.isascii():
            raise WebhookRefusedError("the Stripe-Signature header is misshapen")
        times = [item[2:] for item in signature.split(",") if item.startswith("t=")]
        if len(times) != 1 or not _TIMESTAMP.fullmatch(times[0]):
            raise WebhookRefusedError("the Stripe-Signature header is misshapen")
        if not any(_signed(text, signature, secret) for secret in self._secrets):
            raise WebhookRefusedError("the signature is not Stripe's")
        # The SDK would compare with its own clock, and take any time in the future.
        age_s = now.timestamp() - int(times[0])
        if age_s > TOLERANCE_S:
            raise WebhookRefusedError("the signature is too old")
        if age_s < -TOLERANCE_S:
            raise WebhookRefusedError("the signature is from the future")


def _signed(text: str, signature: str, secret: str) -> bool:
    try:
        return bool(stripe.WebhookSignature.verify_header(text, signature, secret, tolerance=None))
    except stripe.SignatureVerificationError:
        return False


def _notice(event: Mapping[str, Any]) -> Notice:
    match event:
        case {"object": "event", "id": str(id), "type": str(name), "data": {"object": dict(thing)}} if (
            _EVENT.fullmatch(id) and _NAME.fullmatch(name)
        ):
            pass
        case _:
            raise WebhookRefusedError("the body is not an event of Stripe's")
    if name == "payment_intent.payment_failed" and _error_code(thing) in _CAPTURE_FAILURES:
        return _failed_capture(id, name, thing)
    if name in _ATTEMPTS:
        return _attempt(id, name, thing)
    if name in _REFUNDS:
        return _refund(id, name, thing)
    if name == "charge.captured":
        return Notice(
            id,
            NoticeKind.CAPTURED,
            name,
            attempt_id=_attempt_of(thing),
            provider_reference=_intent_of(thing),
            money=_money(thing, "amount_captured"),
        )
    if name.startswith("charge.dispute."):
        return Notice(
            id,
            NoticeKind.DISPUTE,
            name,
            provider_reference=_intent_of(thing),
            modification_reference=_id(thing.get("id")),
            money=_money(thing, "amount"),
            reason=_DISPUTE_ENDS.get(str(thing.get("status")), "opened"),
        )
    return Notice(id, NoticeKind.OTHER, name, provider_reference=_intent_of(thing))


def _attempt(id: str, name: str, intent: Mapping[str, Any]) -> Notice:
    outcome = stripe_answers.outcome(intent)
    if outcome.kind is OutcomeKind.UNKNOWN:
        if outcome.provider_reference is None:
            raise WebhookRefusedError("the event is about no payment intent")
        return Notice(
            id, NoticeKind.OTHER, name, provider_reference=outcome.provider_reference, reason=outcome.reason
        )
    return Notice(
        id,
        NoticeKind.ATTEMPT,
        name,
        attempt_id=_attempt_of(intent),
        provider_reference=str(intent["id"]),
        # What was captured may be less than what was authorized.
        money=_money(intent, "amount_received" if outcome.captured else "amount"),
        outcome=outcome,
    )


def _failed_capture(id: str, name: str, intent: Mapping[str, Any]) -> Notice:
    """A capture that was taken up and failed after all: all of it. How much that was is not said."""
    return Notice(
        id,
        NoticeKind.CAPTURE_FAILED,
        name,
        attempt_id=_attempt_of(intent),
        provider_reference=_intent_of(intent),
        reason=_error_code(intent),
    )


def _error_code(intent: Mapping[str, Any]) -> str | None:
    error = intent.get("last_payment_error")
    return webhooks.word(error.get("code")) if isinstance(error, dict) else None


def _refund(id: str, name: str, refund: Mapping[str, Any]) -> Notice:
    status = refund.get("status")
    if name == "refund.failed" or status in ("failed", "canceled"):
        kind = NoticeKind.REFUND_FAILED
    else:
        kind = NoticeKind.REFUNDED if status == "succeeded" else NoticeKind.OTHER
    return Notice(
        id,
        kind,
        name,
        provider_reference=_intent_of(refund),
        operation_key=webhooks.our_own(stripe_answers.metadata_of(refund, stripe_answers.OPERATION)),
        modification_reference=_id(refund.get("id")),
        money=_money(refund, "amount"),
        reason=webhooks.word(refund.get("failure_reason") or status) if kind is NoticeKind.REFUND_FAILED else None,
    )


def _attempt_of(thing: Mapping[str, Any]) -> str | None:
    return webhooks.our_own(stripe_answers.metadata_of(thing, "attempt"))


def _intent_of(thing: Mapping[str, Any]) -> str | None:
    """The payment's id: the object's own, or what it names, as an id or (expanded) as an object."""
    if stripe_answers.is_intent(thing.get("id")):
        return str(thing["id"])
    named = thing.get("payment_intent")
    named = named.get("id") if isinstance(named, dict) else named
    return str(named) if stripe_answers.is_intent(named) else None


def _id(value: object) -> str | None:
    return value if isinstance(value, str) and _OBJECT.fullmatch(value) else None


def _money(thing: Mapping[str, Any], name: str) -> Money | None:
    amount, currency = thing.get(name), thing.get("currency")
    if isinstance(amount, int) and not isinstance(amount, bool) and amount >= 0 and isinstance(currency, str):
        try:
            return currencies.STRIPE.to_iso(amount, currency.upper())
        except Ineligible:
            pass
    _log.error("webhook_amount_unreadable", provider="stripe")
    return None
