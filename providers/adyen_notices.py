"""What an item of Adyen's webhooks says, in the router's words: the one place for its event codes.

Vendor's documentation: https://docs.adyen.com/development-resources/webhooks/webhook-types and
https://docs.adyen.com/risk-management/disputes-api/dispute-notifications.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from providers import adyen_answers, currencies, declines, webhooks
from providers.contract import (
    Health,
    Ineligible,
    Money,
    Notice,
    NoticeKind,
    Outcome,
    OutcomeKind,
    WebhookRefusedError,
)

NOTICE_ID_CHARS = 200

_CAPTURE_FAILED = (NoticeKind.CAPTURE_FAILED, NoticeKind.CAPTURE_FAILED)
_REFUND_FAILED = (NoticeKind.REFUND_FAILED, NoticeKind.REFUND_FAILED)
_MODIFICATIONS = {
    "CAPTURE": (NoticeKind.CAPTURED, NoticeKind.CAPTURE_FAILED),
    "CAPTURE_FAILED": _CAPTURE_FAILED,
    "REFUND": (NoticeKind.REFUNDED, NoticeKind.REFUND_FAILED),
    "REFUND_FAILED": _REFUND_FAILED,
    "REFUNDED_REVERSED": _REFUND_FAILED,
}
"""What each means with success, and without."""
_DISPUTES = {
    "REQUEST_FOR_INFORMATION": "opened",
    "NOTIFICATION_OF_CHARGEBACK": "opened",
    "CHARGEBACK": "opened",
    "PREARBITRATION_OPEN": "opened",
    "PREARBITRATION_ACCEPTED": "opened",  # documented without saying by whom: recorded, and no verdict
    "PREARBITRATION_DECLINED": "opened",
    "SCHEME_ARBITRATION": "opened",
    "CHARGEBACK_REVERSED": "won",
    "ISSUER_RESPONSE_TIMEFRAME_EXPIRED": "won",
    "PREARBITRATION_WON": "won",
    "PREARBITRATION_ISSUER_WITHDRAWN": "won",
    "SCHEME_ARBITRATION_WON": "won",
    "DISPUTE_DEFENSE_PERIOD_ENDED": "lost",
    "SECOND_CHARGEBACK": "lost",
    "PREARBITRATION_LOST": "lost",
    "SCHEME_ARBITRATION_LOST": "lost",
}

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Item:
    """One notification item, parsed, and its signature verified. The last three are not signed."""

    event: str
    success: bool
    psp: str
    original: str | None
    merchant_reference: str
    value: int | None
    currency: str
    reason: object
    additional_data: Mapping[str, Any]
    payment_method: object = None
    """The card's brand in Adyen's words."""


def notice(item: Item) -> Notice:
    """The item in the router's words."""
    match item.event:
        case "AUTHORISATION":
            return _authorisation(item)
        case "TECHNICAL_CANCEL":
            return _canceled(item, technical=True)
        case "CANCELLATION":
            return _canceled(item)
        case "CANCEL_OR_REFUND":
            return _canceled_or_refunded(item)
        case event if event in _MODIFICATIONS:
            return _modification(item, *_MODIFICATIONS[event])
        case event if event in _DISPUTES:
            return _dispute(item, _DISPUTES[event])
        case event:
            return Notice(
                _id(item), NoticeKind.OTHER, event, provider_reference=_reference(item.original or item.psp)
            )


def _authorisation(item: Item) -> Notice:
    reference = _reference(item.psp)
    if reference is None:
        raise WebhookRefusedError("an authorisation has no reference")
    if item.success:
        # Whether it is captured too is not said here: that follows from how the payment was sent.
        outcome = Outcome(OutcomeKind.APPROVED, Health.OK, provider_reference=reference)
    else:
        reason = item.reason.strip().lower() if isinstance(item.reason, str) else ""
        outcome = adyen_answers.refused(
            declines.ADYEN_REASONS.get(reason),
            item.additional_data,
            reference,
            payment_method=item.payment_method,
        )
    return Notice(
        _id(item),
        NoticeKind.ATTEMPT,
        item.event,
        attempt_id=webhooks.our_own(item.merchant_reference),
        provider_reference=reference,
        money=_money(item),
        outcome=outcome,
        reason=outcome.reason,
    )


def _canceled(item: Item, *, technical: bool = False) -> Notice:
    """A cancel, by the payment's own id or (technical) by our attempt's: then that is the reference it carries."""
    ours = webhooks.our_own(item.merchant_reference)
    payment = _reference(item.original)
    return Notice(
        _id(item),
        NoticeKind.ATTEMPT if item.success else NoticeKind.VOID_FAILED,
        item.event,
        attempt_id=ours if technical else None,
        provider_reference=payment,
        operation_key=None if technical else ours,
        modification_reference=_reference(item.psp),
        money=_money(item),
        outcome=Outcome(OutcomeKind.CANCELED, Health.OK, provider_reference=payment) if item.success else None,
        reason=None if item.success else webhooks.word(item.reason),
    )


def _canceled_or_refunded(item: Item) -> Notice:
    """Which of the two it was is told beside the signature: a person asked for it, the router never does."""
    match item.additional_data.get("modification.action"):
        case "cancel":
            return _canceled(item)
        case "refund":
            return _modification(item, *_MODIFICATIONS["REFUND"])
        case _:
            _log.error("modification_of_unknown_action", provider="adyen")
            return _modification(item, NoticeKind.OTHER, NoticeKind.OTHER)


def _modification(item: Item, success: NoticeKind, failure: NoticeKind) -> Notice:
    kind = success if item.success else failure
    failed = kind in (NoticeKind.CAPTURE_FAILED, NoticeKind.REFUND_FAILED)
    return Notice(
        _id(item),
        kind,
        item.event,
        provider_reference=_reference(item.original),
        operation_key=webhooks.our_own(item.merchant_reference),
        modification_reference=_reference(item.psp),
        money=_money(item),
        reason=webhooks.word(item.reason) if failed else None,
    )


def _dispute(item: Item, stage: str) -> Notice:
    return Notice(
        _id(item),
        NoticeKind.DISPUTE,
        item.event,
        attempt_id=webhooks.our_own(item.merchant_reference),
        provider_reference=_reference(item.original),
        modification_reference=_reference(item.psp),
        money=_money(item),
        reason=stage,
    )


def _id(item: Item) -> str:
    """What Adyen's documentation tells duplicates by (event, pspReference, success), and the payment it is about."""
    parts = f"{item.event}:{item.psp}:{item.original or '-'}:{'true' if item.success else 'false'}"
    if len(parts) <= NOTICE_ID_CHARS and parts.isascii():
        return parts
    return f"{item.event}:{hashlib.sha256(parts.encode()).hexdigest()}"


def _reference(value: str | None) -> str | None:
    return value if value and adyen_answers.PSP_REFERENCE.fullmatch(value) else None


def _money(item: Item) -> Money | None:
    if item.value is not None and item.value >= 0:
        try:
            return currencies.ADYEN.to_iso(item.value, item.currency)
        except Ineligible:
            pass
    _log.error("webhook_amount_unreadable", provider="adyen")
    return None
