"""Stripe's charge, refund and dispute objects, as the API and the webhooks show them."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any

from providers.sandbox.ids import stripe_id

if TYPE_CHECKING:
    from providers.sandbox.stripe_intents import Intent


FEE_PERCENT = Decimal("2.75")
FEE_FIXED = 35
"""What this stand-in takes of a capture, in minor units: not quite what a schedule of 2.9% + 0.30 expects."""


def shown(intent: Intent, expand: Iterable[str], *, is_answer: bool) -> dict[str, Any]:
    """The intent with its charge in place of the charge's id, where `expand` asks for that.

    `is_answer`: to the call that authorized it, before an asynchronous capture is done.
    """
    found = intent.as_json()
    for path in expand:
        if intent.latest_charge is not None:
            charge = charge_object(intent)
            if path.endswith("balance_transaction") and not (
                is_answer and intent.capture_method == "automatic_async"
            ):
                charge["balance_transaction"] = balance_transaction_object(intent)
            found["latest_charge"] = charge
    return found


def balance_transaction_object(intent: Intent) -> dict[str, Any] | None:
    """What the capture brought, and what was kept of it; None where nothing is captured."""
    row = intent.charge
    if row is None or row.amount_captured == 0:
        return None
    amount = row.amount_captured
    share = (amount * FEE_PERCENT / 100).quantize(Decimal(1), ROUND_HALF_UP)
    fee = int(share) + FEE_FIXED
    detail = {
        "amount": fee,
        "application": None,
        "currency": intent.currency,
        "description": "fees",
        "type": "stripe_fee",
    }
    return {
        "id": f"txn_{(intent.latest_charge or '').removeprefix('ch_')}",
        "object": "balance_transaction",
        "amount": amount,
        "available_on": int(row.created_at) + 2 * 86_400,
        "balance_type": "payments",
        "created": int(row.created_at),
        "currency": intent.currency,
        "description": intent.description,
        "exchange_rate": None,
        "fee": fee,
        "fee_details": [detail],
        "net": amount - fee,
        "reporting_category": "charge",
        "source": intent.latest_charge,
        "status": "pending",
        "type": "charge",
    }


def charge_object(intent: Intent) -> dict[str, Any]:
    """The intent's latest charge, as it stands."""
    row, error = intent.charge, intent.last_payment_error
    captured = row.amount_captured if row is not None else 0
    refunded = row.amount_refunded if row is not None else 0
    return {
        "id": intent.latest_charge,
        "object": "charge",
        "amount": intent.amount,
        "amount_captured": captured,
        "amount_refunded": refunded,
        "balance_transaction": None,
        "captured": captured > 0,
        "created": int(row.created_at if row is not None else intent.created),
        "currency": intent.currency,
        "customer": intent.customer,
        "description": intent.description,
        "disputed": intent.dispute is not None,
        "failure_code": error.get("code") if error else None,
        "failure_message": error.get("message") if error else None,
        "livemode": False,
        "metadata": intent.metadata,
        "paid": error is None,
        "payment_intent": intent.id,
        "payment_method": intent.payment_method,
        "refunded": captured > 0 and refunded == captured,
        "status": "failed" if error else "succeeded",
    }


def refund_object(
    *,
    amount: int,
    charge: str | None,
    created: int,
    currency: str,
    metadata: dict[str, str],
    payment_intent: str,
    reason: str | None,
) -> dict[str, Any]:
    """A new refund, at once done."""
    return {
        "id": stripe_id("re"),
        "object": "refund",
        "amount": amount,
        "balance_transaction": stripe_id("txn"),
        "charge": charge,
        "created": created,
        "currency": currency,
        "metadata": metadata,
        "payment_intent": payment_intent,
        "reason": reason,
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": "succeeded",
        "transfer_reversal": None,
    }


def dispute_object(intent: Intent, *, amount: int, created: int) -> dict[str, Any]:
    """A new dispute of the intent's charge."""
    return {
        "id": stripe_id("du"),
        "object": "dispute",
        "amount": amount,
        "balance_transactions": [],
        "charge": intent.latest_charge,
        "created": created,
        "currency": intent.currency,
        "enhanced_eligibility_types": [],
        "evidence": {},
        "is_charge_refundable": False,
        "livemode": False,
        "metadata": {},
        "payment_intent": intent.id,
        "reason": "fraudulent",
        "status": "needs_response",
    }
