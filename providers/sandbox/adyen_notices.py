"""Adyen's webhook notifications: which ones a change sends, what is in them, their HMAC."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from providers.sandbox.adyen_payments import Payment, TechnicalCancel
from providers.sandbox.books import Event, EventKind
from providers.sandbox.webhook_settings import MAX_BATCH

_CODES: dict[EventKind, tuple[str, ...]] = {
    "authorization": ("AUTHORISATION",),
    "requires_action": (),  # Adyen tells nothing while the customer is away
    "capture": ("CAPTURE",),
    "capture_failed": ("CAPTURE_FAILED",),
    "cancellation": ("CANCELLATION",),
    "technical_cancel": ("TECHNICAL_CANCEL",),
    "reversal": ("CANCEL_OR_REFUND",),
    "refund": ("REFUND",),
    "refund_failed": ("REFUND_FAILED",),
    "refund_reversed": ("REFUNDED_REVERSED",),
    "dispute_opened": ("NOTIFICATION_OF_CHARGEBACK", "CHARGEBACK"),  # the money is taken when it opens
    "dispute_won": ("CHARGEBACK_REVERSED",),
    "dispute_lost": ("SECOND_CHARGEBACK",),
}
_DISPUTE_STATUS = {
    "NOTIFICATION_OF_CHARGEBACK": "Undefended",
    "CHARGEBACK": "Undefended",
    "CHARGEBACK_REVERSED": "Won",
    "SECOND_CHARGEBACK": "Lost",
}
_WITH_ORDER_REFERENCE = ("AUTHORISATION", "CAPTURE", "CANCELLATION", "CANCEL_OR_REFUND", "REFUND")


class AdyenNotices:
    """What Adyen sends; `hmac_key` is hexadecimal, `clock` gives Unix seconds."""

    max_batch = MAX_BATCH

    def __init__(self, hmac_key: str, clock: Callable[[], float]) -> None:
        self._key = bytes.fromhex(hmac_key)
        self._clock = clock

    def compose(self, event: Event) -> list[bytes]:
        """The notification items of an event, in their order; signed here, once, as Adyen does."""
        items = [self._item(event, code) for code in _CODES[event.kind]]
        return [json.dumps({"NotificationRequestItem": item}, separators=(",", ":")).encode() for item in items]

    def request(self, notices: Sequence[bytes]) -> tuple[bytes, dict[str, str]]:
        """Body and headers of one request."""
        body = b'{"live":"false","notificationItems":[' + b",".join(notices) + b"]}"
        return body, {"User-Agent": "Adyen HttpClient 1.0 (sandbox)"}

    def _item(self, event: Event, code: str) -> dict[str, Any]:
        subject: Payment | TechnicalCancel = event.subject
        charge = event.charge
        if isinstance(subject, TechnicalCancel):
            reference = subject.payment_reference
            original = charge.id if charge is not None else None
            # A cancel that found nothing has no amount, but the field is required.
            amount = {"value": charge.amount if charge else 0, "currency": charge.currency if charge else "EUR"}
        else:
            reference = subject.reference
            original = subject.psp
            amount = dict(subject.body["amount"])
        if event.amount is not None:
            amount["value"] = event.amount
        moment = datetime.fromtimestamp(self._clock(), UTC)
        item: dict[str, Any] = {
            "amount": amount,
            "eventCode": code,
            "eventDate": moment.isoformat(timespec="seconds"),
            "merchantAccountCode": subject.merchant_account,
            "merchantReference": event.reference or reference,
            "paymentMethod": "visa",
            "pspReference": event.modification_id or original,
            "reason": event.reason,
            "success": "true" if event.success else "false",
        }
        if code == "AUTHORISATION":
            if event.success and isinstance(subject, Payment):
                item["operations"] = ["CANCEL", "CAPTURE", "REFUND"]
                item["reason"] = f"{subject.psp[:6]}:1111:03/2030"
        elif original is not None:
            item["originalReference"] = original
        extra = {"paymentMethodVariant": "visa", **_extra(event, code)}
        item["additionalData"] = {**extra, "hmacSignature": self._sign(item)}
        return item

    def _sign(self, item: dict[str, Any]) -> str:
        """As documented for webhooks, and as the SDKs verify: joined by colons, nothing escaped."""
        amount = item["amount"]
        signed = (
            item["pspReference"],
            item.get("originalReference", ""),
            item["merchantAccountCode"],
            item["merchantReference"],
            str(amount["value"]),
            amount["currency"],
            item["eventCode"],
            item["success"],
        )
        digest = hmac.new(self._key, ":".join(signed).encode(), hashlib.sha256).digest()
        return base64.b64encode(digest).decode()


def _extra(event: Event, code: str) -> dict[str, str]:
    """What the real one carries in `additionalData`, as far as a merchant needs it."""
    extra: dict[str, str] = {}
    payment = event.subject
    if not isinstance(payment, Payment):
        return extra
    order = payment.body.get("merchantOrderReference")
    if order and code in _WITH_ORDER_REFERENCE:
        extra["merchantOrderReference"] = order
    if code == "AUTHORISATION":
        extra |= payment.answer.get("additionalData", {})
        extra |= {f"metadata.{name}": value for name, value in (payment.body.get("metadata") or {}).items()}
    elif code == "CANCEL_OR_REFUND":
        extra["modification.action"] = "refund" if event.amount is not None else "cancel"
    elif code in _DISPUTE_STATUS:
        extra |= {"chargebackReasonCode": "10.4", "chargebackSchemeCode": "visa"}
        extra["disputeStatus"] = _DISPUTE_STATUS[code]
    return extra
