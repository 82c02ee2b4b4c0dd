"""Stripe's webhook events: which ones a change sends, their payload (a snapshot), their signature."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Sequence
from typing import Any, get_args

from providers.sandbox.books import Event, Mishap
from providers.sandbox.ids import stripe_id
from providers.sandbox.stripe_intents import Intent
from providers.sandbox.stripe_objects import charge_object

API_VERSION = "2026-10-28.endive"
_BY_ITSELF = frozenset(get_args(Mishap))


class StripeEvents:
    """What Stripe sends; `clock` gives Unix seconds."""

    def __init__(self, secret: str, clock: Callable[[], float]) -> None:
        self._secret = secret.encode()
        self._clock = clock

    max_batch = 1

    def compose(self, event: Event) -> list[bytes]:
        """The payloads of an event, in their order."""
        return [self._payload(event, type, object) for type, object in _told(event)]

    def request(self, notices: Sequence[bytes]) -> tuple[bytes, dict[str, str]]:
        """Body and headers of one request, signed as of now: a retry is signed anew, as Stripe does."""
        [payload] = notices
        moment = str(int(self._clock()))
        signature = hmac.new(self._secret, moment.encode() + b"." + payload, hashlib.sha256).hexdigest()
        return payload, {"Stripe-Signature": f"t={moment},v1={signature}", "User-Agent": "Stripe/1.0 (sandbox)"}

    def _payload(self, event: Event, type: str, object: dict[str, Any]) -> bytes:
        caused = event.kind not in _BY_ITSELF
        envelope = {
            "id": stripe_id("evt"),
            "object": "event",
            "api_version": API_VERSION,
            "created": int(self._clock()),
            "data": {"object": object},
            "livemode": False,
            "pending_webhooks": 1,
            "request": {"id": stripe_id("req") if caused else None, "idempotency_key": event.idempotency_key},
            "type": type,
        }
        return json.dumps(envelope, separators=(",", ":")).encode()


def _told(event: Event) -> list[tuple[str, dict[str, Any]]]:
    """Event types and their objects. Nothing here is ever `processing`: cards answer at once."""
    intent: Intent = event.subject
    match event.kind:
        case "authorization" if not event.success:
            return [("payment_intent.payment_failed", intent.as_json())]
        case "authorization" if intent.status == "requires_capture":
            return [("payment_intent.amount_capturable_updated", intent.as_json())]
        case "authorization":
            return [("payment_intent.succeeded", intent.as_json())]
        case "requires_action":
            return [("payment_intent.requires_action", intent.as_json())]
        case "capture":
            return [("charge.captured", charge_object(intent)), ("payment_intent.succeeded", intent.as_json())]
        case "capture_failed":
            return [("charge.failed", charge_object(intent)), ("payment_intent.payment_failed", intent.as_json())]
        case "cancellation":
            return [("payment_intent.canceled", intent.as_json())]
        case "refund":
            refund = intent.refunds[str(event.modification_id)]
            return [
                ("refund.created", refund),
                ("charge.refunded", charge_object(intent)),
                ("refund.updated", {**refund, "destination_details": {"type": "card", "card": {"type": "refund"}}}),
            ]
        case "refund_failed" | "refund_reversed":
            refund = intent.refunds[str(event.modification_id)]
            return [("refund.updated", refund), ("refund.failed", refund)]
        case "dispute_opened":
            return [("charge.dispute.created", intent.dispute or {})]
        case "dispute_won" | "dispute_lost":
            return [("charge.dispute.closed", intent.dispute or {})]
        case "technical_cancel" | "reversal":
            return []  # Adyen's
