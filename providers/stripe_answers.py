"""What Stripe's JSON says, in the router's words: the one exhaustive place for its statuses.

Settled in facts/providers.md. Vendor's documentation: https://docs.stripe.com/payments/paymentintents/lifecycle,
https://docs.stripe.com/api/refunds/object.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import structlog

from providers import currencies, declines, faults
from providers.contract import (
    Health,
    Ineligible,
    ModificationKind,
    ModificationOutcome,
    Money,
    Outcome,
    OutcomeKind,
)
from providers.faults import safe_word

OPERATION = "operation"
"""The metadata that names a refund by our idempotency key of it."""

_MOST_FEE = 10**12
"""Stripe's greatest amount: more would be no fee, and might not fit where it is kept."""

PAYMENT_INTENT = re.compile(r"pi_[A-Za-z0-9_]{1,250}")

_HOLDS_NOTHING = frozenset({"requires_payment_method", "canceled"})
"""The statuses in which an intent neither holds nor takes money, nor will without a further confirm."""

_log = structlog.get_logger(__name__)


def outcome(intent: object) -> Outcome:
    """What a PaymentIntent came to, by its status. An unknown status is loud, and unknown."""
    if not isinstance(intent, Mapping) or not is_intent(intent.get("id")):
        return faults.SENSELESS_ANSWER.as_outcome()
    reference = str(intent["id"])
    match intent.get("status"):
        case "succeeded":
            return Outcome(
                OutcomeKind.APPROVED, Health.OK, provider_reference=reference, captured=True, fee=fee_of(intent)
            )
        case "requires_capture":
            return Outcome(OutcomeKind.APPROVED, Health.OK, provider_reference=reference)
        case "requires_action":
            return Outcome(
                OutcomeKind.REQUIRES_ACTION, Health.OK, provider_reference=reference, next_action=_next_action(intent)
            )
        case "canceled":
            return Outcome(OutcomeKind.CANCELED, Health.OK, provider_reference=reference)
        case "requires_confirmation":  # created, and not yet (or never) confirmed: no issuer was asked
            return Outcome(OutcomeKind.UNKNOWN, Health.OK, "requires_confirmation", provider_reference=reference)
        case "processing":
            return Outcome(OutcomeKind.UNKNOWN, Health.OK, "pending", provider_reference=reference)
        case "requires_payment_method" if isinstance(intent.get("last_payment_error"), Mapping):
            return declined({**intent["last_payment_error"], "payment_intent": intent})
        case status:
            _log.error("unrecognised_vendor_status", provider="stripe", status=safe_word(status))
            return Outcome(
                OutcomeKind.UNKNOWN, Health.PROVIDER_ERROR, "unrecognised_status", provider_reference=reference
            )


def fee_of(intent: Mapping[str, Any]) -> Money | None:
    """What Stripe charged for an intent's latest charge, where the answer shows its balance transaction.

    `fee` is "in cents" of the balance's `currency`, which is the merchant's own and not always the payment's
    (https://docs.stripe.com/api/balance_transactions/object). Whatever else is there instead says nothing: a fee is
    for reports, and must never cost an answer.
    """
    match intent:
        case {"latest_charge": {"balance_transaction": {"fee": int(fee), "currency": str(currency)}}}:
            if isinstance(fee, bool) or not 0 <= fee <= _MOST_FEE:
                return None
            try:
                return currencies.STRIPE.to_iso(fee, currency.upper())
            except Ineligible:
                return None
    return None


def metadata_of(thing: object, name: str) -> str | None:
    """What the metadata of an intent, charge or refund says under that name."""
    metadata = thing.get("metadata") if isinstance(thing, Mapping) else None
    value = metadata.get(name) if isinstance(metadata, Mapping) else None
    return value if isinstance(value, str) and value else None


def names_another(intent: object, attempt_id: str) -> bool:
    """Whether an intent says that it was made for another attempt. Loud: our records have them mixed up."""
    named = metadata_of(intent, "attempt")
    if named is None or named == attempt_id:
        return False
    _log.error("another_attempts_intent", provider="stripe", attempt=attempt_id)
    return True


def _next_action(intent: Mapping[str, Any]) -> Mapping[str, Any]:
    action = intent.get("next_action")
    if isinstance(action, Mapping) and action.get("type") == "redirect_to_url":
        redirect = action.get("redirect_to_url")
        if isinstance(redirect, Mapping) and isinstance(redirect.get("url"), str):
            return {"type": "redirect", "url": redirect["url"]}
    return {"type": "sdk", "provider": "stripe", "client_secret": intent.get("client_secret")}


def declined(error: Mapping[str, Any]) -> Outcome:
    """What a 402's error object says. (The intent that it names stays open at Stripe, with no money in it.)"""
    intent = error.get("payment_intent")
    reference = intent.get("id") if isinstance(intent, Mapping) else None
    reference = str(reference) if is_intent(reference) else None
    decline = declines.of_stripe(error)
    if decline.code in declines.STRIPE_ACQUIRER_FAULTS:
        return _acquirer_fault(intent, reference)
    if not decline.known:
        _log.error("unrecognised_decline_code", provider="stripe", code=decline.code)
    return Outcome(OutcomeKind.DECLINED, Health.OK, decline.code, provider_reference=reference, decline=decline)


def _acquirer_fault(intent: object, reference: str | None) -> Outcome:
    """Stripe answered that no issuer took it, as far as the intent in the answer bears that out.

    An intent that wants a payment method has let go of the one it was given, and holds and takes no money (Stripe's
    lifecycle of intents). Only a confirm with another payment method could charge it later, by our key or by its
    client secret. We confirm once, with the create; and the secret is handed to a browser for a 3-D Secure step
    only, which is no answer of this kind. The same of one that is canceled. Any other status contradicts the error:
    unknown, and to be looked up by its id. An answer that names no intent is the verdict on its own send, no record.
    """
    fault = faults.ACQUIRER_FAULT
    if not isinstance(intent, Mapping) or reference is None:
        return fault.as_outcome()
    status = intent.get("status")
    if status in _HOLDS_NOTHING:
        return replace(fault.as_outcome(), provider_reference=reference, final_record=True)
    _log.error("error_contradicts_intent", provider="stripe", status=safe_word(status))
    return Outcome(OutcomeKind.UNKNOWN, fault.health, "error_contradicts_intent", provider_reference=reference)


def modified(result: object, meanings: Mapping[str, ModificationKind]) -> ModificationOutcome:
    """What a capture, void or refund came to, by the meanings of its object's status. Any other status is loud."""
    if not isinstance(result, Mapping):
        return faults.SENSELESS_ANSWER.as_modification()
    # A refund has an id of its own; a capture or a cancel answers with the payment's.
    reference = str(result["id"]) if result.get("object") == "refund" and isinstance(result.get("id"), str) else None
    status = result.get("status")
    kind = meanings.get(status) if isinstance(status, str) else None
    if kind is None:
        _log.error("unrecognised_vendor_status", provider="stripe", status=safe_word(status))
        return ModificationOutcome(
            ModificationKind.UNKNOWN, Health.PROVIDER_ERROR, "unrecognised_status", provider_reference=reference
        )
    reason = safe_word(status) if kind is ModificationKind.REFUSED else None
    return ModificationOutcome(kind, Health.OK, reason, provider_reference=reference)


def is_intent(value: object) -> bool:
    """Whether this is the shape of a PaymentIntent's id."""
    return isinstance(value, str) and PAYMENT_INTENT.fullmatch(value) is not None
