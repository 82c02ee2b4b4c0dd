"""Adyen's webhooks: a batch of items, each with a signature of its own, and each of them verified.

Vendor's documentation: https://docs.adyen.com/development-resources/webhooks/secure-webhooks/verify-hmac-signatures.
The SDK's helper looks at the first item only. The signature covers eight fields and no time: whoever has an item can
send it again for ever, so what it says must be applied once, by its id.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Any

from providers import webhooks
from providers.adyen_notices import Item, notice
from providers.contract import Notice, WebhookRefusedError

_KEY = re.compile(r"(?:[0-9A-Fa-f]{2}){16,64}")
_NO_COLON = re.compile(r"[^:\x00-\x1f]{0,1000}")
_CURRENCY = re.compile(r"(?:[A-Z]{3})?")
_EVENT = re.compile(r"[A-Z0-9_]{1,64}")


class AdyenWebhooks:
    """Reads deliveries to this merchant account that are signed with any of these keys (several during rotation)."""

    def __init__(self, hmac_keys: Sequence[str], merchant_account: str) -> None:
        if isinstance(hmac_keys, str) or not all(_KEY.fullmatch(key) for key in hmac_keys):
            raise ValueError("Adyen's HMAC keys are a list of hexadecimal numbers of 16 to 64 bytes")
        self._keys = tuple(bytes.fromhex(key) for key in hmac_keys)
        self._merchant_account = merchant_account

    def read(self, body: bytes) -> Sequence[Notice]:
        """Every item as a notice, in their order. Raises WebhookRefusedError where any is not to be believed."""
        delivery = webhooks.json_object(webhooks.text_of(body))
        if not self._keys:
            raise WebhookRefusedError("no HMAC key is set for Adyen")
        match delivery:
            case {"notificationItems": [_, *_] as items}:
                verified = [self._item(wrapped) for wrapped in items]
            case _:
                raise WebhookRefusedError("the body is not a notification of Adyen's")
        return tuple([notice(item) for item in verified])

    def _item(self, wrapped: object) -> Item:
        match wrapped:
            case {"NotificationRequestItem": {"additionalData": {"hmacSignature": str(signature)} as extra} as found}:
                item, account = _parsed(found, extra)
            case {"NotificationRequestItem": dict()}:
                raise WebhookRefusedError("an item has no signature")
            case _:
                raise WebhookRefusedError("an item is misshapen")
        if not self._signed(_signing_string(item, account), signature):
            raise WebhookRefusedError("an item's signature is not Adyen's")
        if account != self._merchant_account:
            raise WebhookRefusedError("an item is for another merchant account")
        return item

    def _signed(self, text: str, signature: str) -> bool:
        try:
            content, given = text.encode(), signature.encode("ascii")
        except UnicodeEncodeError:
            return False
        expected = [base64.b64encode(hmac.digest(key, content, hashlib.sha256)) for key in self._keys]
        return any([hmac.compare_digest(one, given) for one in expected])  # noqa: C419 - each is compared, in constant time


def _signing_string(item: Item, account: str) -> str:
    """The eight fields that are signed. Only the merchant's reference may hold a colon: it reads in one way only."""
    return ":".join(
        (
            item.psp,
            item.original or "",
            account,
            item.merchant_reference,
            "" if item.value is None else str(item.value),
            item.currency,
            item.event,
            "true" if item.success else "false",
        )
    )


def _parsed(found: Mapping[str, Any], additional_data: Mapping[str, Any]) -> tuple[Item, str]:
    amount = found.get("amount")
    amount = amount if isinstance(amount, Mapping) else {}
    value, success, reference = amount.get("value"), found.get("success"), _text(found.get("merchantReference"))
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 10**18):
        raise WebhookRefusedError("an item's amount is misshapen")
    if success not in ("true", "false") or len(reference) > 1000:
        raise WebhookRefusedError("an item is misshapen")
    item = Item(
        event=_text(found.get("eventCode"), _EVENT),
        success=success == "true",
        psp=_text(found.get("pspReference"), _NO_COLON),
        original=_text(found.get("originalReference"), _NO_COLON) or None,
        merchant_reference=reference,
        value=value,
        currency=_text(amount.get("currency"), _CURRENCY),
        reason=found.get("reason"),
        additional_data=additional_data,
        payment_method=found.get("paymentMethod"),
    )
    return item, _text(found.get("merchantAccountCode"), _NO_COLON)


def _text(value: object, shape: re.Pattern[str] | None = None) -> str:
    """A field's text, empty where it is absent, as the signature has it."""
    text = "" if value is None else value
    if not isinstance(text, str) or (shape is not None and not shape.fullmatch(text)):
        raise WebhookRefusedError("an item is misshapen")
    return text
