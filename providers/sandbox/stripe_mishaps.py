"""What happens to a Stripe payment afterwards, on purpose: captures and refunds that fail, disputes."""

from __future__ import annotations

from typing import Any

from providers.sandbox.books import Charge, Mishap
from providers.sandbox.stripe_errors import error_object
from providers.sandbox.stripe_intents import Intent, Intents
from providers.sandbox.stripe_objects import dispute_object


def happen(intents: Intents, kind: Mishap, charge: Charge) -> bool:
    """Change intent and books, and tell; False where the charge's state does not allow it."""
    intent = intents.all[charge.id]
    if intent.charge is not charge:
        return False  # a refusal
    match kind:
        case "capture_failed":
            more = _fail_capture(intents, intent, charge)
        case "refund_failed" | "refund_reversed":
            more = _fail_refund(intents, intent, charge, kind)
        case "dispute_opened":
            more = _open_dispute(intents, intent, charge)
        case "dispute_won" | "dispute_lost":
            more = _end_dispute(intents, intent, charge, won=kind == "dispute_won")
    if more is None:
        return False
    intents.books.tell(kind, success=True, charge=charge, subject=intent, **more)
    return True


def _fail_capture(intents: Intents, intent: Intent, charge: Charge) -> dict[str, Any] | None:
    """At Stripe a capture that fails afterwards takes its authorization along: the intent wants another card."""
    amount = charge.amount_captured
    if not intents.books.fail_capture(charge, amount, status="canceled"):
        return None
    message = "The capture was rejected by the card network."
    code = "capture_charge_authorization_expired"
    intent.status = "requires_payment_method"
    intent.last_payment_error = error_object(message, type="card_error", code=code, charge=intent.latest_charge)
    return {"amount": amount, "reason": message}


def _fail_refund(intents: Intents, intent: Intent, charge: Charge, kind: Mishap) -> dict[str, Any] | None:
    refund = next((one for one in reversed(intent.refunds.values()) if one["status"] == "succeeded"), None)
    if refund is None or not intents.books.fail_refund(charge, refund["amount"]):
        return None
    reason = "expired_or_canceled_card" if kind == "refund_failed" else "lost_or_stolen_card"
    refund |= {"status": "failed", "failure_reason": reason, "failure_balance_transaction": None}
    return {"amount": refund["amount"], "modification_id": refund["id"], "reason": reason}


def _open_dispute(intents: Intents, intent: Intent, charge: Charge) -> dict[str, Any] | None:
    if not intents.books.dispute(charge, "opened"):
        return None
    amount = charge.amount_captured - charge.amount_refunded or charge.amount_captured
    intent.dispute = dispute_object(intent, amount=amount, created=int(intents.clock()))
    return {"amount": amount, "modification_id": intent.dispute["id"]}


def _end_dispute(intents: Intents, intent: Intent, charge: Charge, *, won: bool) -> dict[str, Any] | None:
    if intent.dispute is None or not intents.books.dispute(charge, "won" if won else "lost"):
        return None
    intent.dispute["status"] = "won" if won else "lost"
    return {"amount": intent.dispute["amount"], "modification_id": intent.dispute["id"]}
