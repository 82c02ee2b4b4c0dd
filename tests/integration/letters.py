"""Webhooks signed by hand, as the vendors' own SDKs sign them: for what the stand-ins never send."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Mapping
from typing import Any

import stripe
from Adyen.util import generate_notification_sig

from providers.sandbox.server import SANDBOX_ADYEN_HMAC_KEY, SANDBOX_STRIPE_WEBHOOK_SECRET
from router.settings import Settings
from tests.integration.desk import Letter

ACCOUNT = Settings().adyen_merchant_account
_numbers = itertools.count(1)


def stripe_headers(body: bytes, *, secret: str = SANDBOX_STRIPE_WEBHOOK_SECRET, age_s: int = 0) -> dict[str, str]:
    """The headers of a delivery that was signed so long ago (or, negative, will be)."""
    moment = int(time.time()) - age_s
    signature = stripe.WebhookSignature.generate_signature_header(body.decode(), secret, timestamp=moment)
    return {"Stripe-Signature": str(signature), "Content-Type": "application/json"}


def stripe_letter(type: str, thing: Mapping[str, Any], **signing: Any) -> Letter:
    """An event of its own about that object."""
    event = {"id": f"evt_hand_{next(_numbers)}", "object": "event", "type": type, "data": {"object": dict(thing)}}
    body = json.dumps(event).encode()
    return "stripe", stripe_headers(body, **signing), body


def intent(reference: str | None, attempt_id: str | None, status: str, **more: Any) -> dict[str, Any]:
    """A PaymentIntent over 19.99 EUR."""
    received = 1999 if status == "succeeded" else 0
    return {
        "id": reference or f"pi_hand{next(_numbers)}",
        "object": "payment_intent",
        "amount": 1999,
        "amount_received": received,
        "currency": "eur",
        "metadata": {"attempt": attempt_id} if attempt_id else {},
        "status": status,
        **more,
    }


def refund(reference: str, amount: int, status: str, **more: Any) -> dict[str, Any]:
    """A refund of that payment that somebody else made: it names no operation of ours."""
    return {
        "id": f"re_hand{next(_numbers)}",
        "object": "refund",
        "amount": amount,
        "currency": "eur",
        "metadata": {},
        "payment_intent": reference,
        "status": status,
        **more,
    }


def dispute(reference: str, status: str) -> dict[str, Any]:
    """A dispute of that payment, in that status."""
    about = {"id": "du_hand", "object": "dispute", "amount": 1999, "currency": "eur"}
    return {**about, "payment_intent": reference, "status": status}


def item(event: str, *, key: str = SANDBOX_ADYEN_HMAC_KEY, **change: Any) -> dict[str, Any]:
    """An item about 19.99 EUR; fields that are None are left out."""
    found: dict[str, Any] = {
        "amount": {"currency": "EUR", "value": 1999},
        "eventCode": event,
        "eventDate": "2026-11-21T03:03:04+01:00",
        "merchantAccountCode": ACCOUNT,
        "merchantReference": "by-hand",
        "pspReference": f"HAND{next(_numbers):012}",
        "reason": "",
        "success": "true",
        **change,
    }
    found = {name: value for name, value in found.items() if value is not None}
    signature = generate_notification_sig(found, key).decode()
    return {"NotificationRequestItem": {**found, "additionalData": {"hmacSignature": signature}}}


def adyen_letter(*items: object) -> Letter:
    """A batch of items."""
    body = json.dumps({"live": "false", "notificationItems": items}).encode()
    return "adyen", {"Content-Type": "application/json"}, body


def approval(provider: str, attempt_id: str, reference: str, *, captured: bool = True) -> Letter:
    """What that provider tells of an approved attempt."""
    if provider == "stripe":
        status = "succeeded" if captured else "requires_capture"
        type = "succeeded" if captured else "amount_capturable_updated"
        return stripe_letter(f"payment_intent.{type}", intent(reference, attempt_id, status))
    return adyen_letter(item("AUTHORISATION", merchantReference=attempt_id, pspReference=reference))


def elsewhere(provider: str) -> Letter:
    """An approval of somebody else's payment under the same account."""
    number = next(_numbers)
    if provider == "stripe":
        return approval(provider, f"theirs-{number}", f"pi_theirs{number}")
    return approval(provider, f"theirs-{number}", f"THEIRS{number:010}")
