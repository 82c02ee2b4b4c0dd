"""What happens to an Adyen payment afterwards, on purpose: captures and refunds that fail, disputes."""

from __future__ import annotations

from typing import Any

from providers.sandbox.adyen_payments import Payment, Payments
from providers.sandbox.books import Books, Charge, Mishap
from providers.sandbox.ids import psp_reference


def happen(books: Books, payments: Payments, kind: Mishap, charge: Charge) -> bool:
    """Change the books, and tell; False where the charge's state does not allow it."""
    payment = payments.get(charge.id)
    if payment is None:
        return False
    match kind:
        case "capture_failed":
            more = _fail_capture(books, payment, charge)
        case "refund_failed" | "refund_reversed":
            more = _fail_refund(books, payment, charge)
            if more is not None:
                more["reason"] = "Refund Failed" if kind == "refund_failed" else "Refund returned"
        case "dispute_opened" | "dispute_won" | "dispute_lost":
            more = _dispute(books, payment, charge, kind)
    if more is None:
        return False
    books.tell(kind, success=True, charge=charge, subject=payment, **more)
    return True


def _fail_capture(books: Books, payment: Payment, charge: Charge) -> dict[str, Any] | None:
    """The newest capture, or the automatic one. At Adyen the authorization stays: it may be captured again."""
    capture = payment.last("capture")
    amount = capture.amount if capture is not None else charge.amount_captured
    if not books.fail_capture(charge, amount, status="authorized"):
        return None
    more: dict[str, Any] = {"amount": amount, "reason": "Capture Failed"}
    if capture is None:
        return {**more, "modification_id": psp_reference()}
    payment.modifications.remove(capture)
    return {**more, "modification_id": capture.id, "reference": capture.reference}


def _fail_refund(books: Books, payment: Payment, charge: Charge) -> dict[str, Any] | None:
    refund = payment.last("refund")
    if refund is None or not books.fail_refund(charge, refund.amount):
        return None
    payment.modifications.remove(refund)
    return {"amount": refund.amount, "modification_id": refund.id, "reference": refund.reference}


def _dispute(books: Books, payment: Payment, charge: Charge, kind: Mishap) -> dict[str, Any] | None:
    match kind:
        case "dispute_opened":
            done = books.dispute(charge, "opened")
            payment.dispute_id = psp_reference() if done else payment.dispute_id
        case "dispute_won":
            done = books.dispute(charge, "won")
        case _:
            done = books.dispute(charge, "lost")
    if not done:
        return None
    amount = charge.amount_captured - charge.amount_refunded or charge.amount_captured
    return {"amount": amount, "modification_id": payment.dispute_id, "reason": "Other Fraud-Card Absent Environment"}
