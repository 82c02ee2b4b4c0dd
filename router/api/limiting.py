"""A caller's limits at the gate: 429 with `Retry-After`, saying which limit; an answer once more goes beyond it."""

from __future__ import annotations

from flask import g, request

from router.api.problems import ProblemError
from router.ledger.keys import Caller
from router.limits.guard import Guard, Kind, Limit, Refusal

MAKES = frozenset({"payments.create_payment", "decisions.decide"})
"""Views that make something."""
ANSWERED_AGAIN = "payments.create_payment"
"""The view that answers a payment that was made before."""
DETAILS: dict[Limit, str] = {
    "rate": "This key's rate is used up. Nothing was done.",
    "quota": "The merchant's quota of payments is used up; it follows its own past volume. Nothing was charged.",
    "share": "The merchant has as many payments under way as its share allows. Nothing was charged.",
}


def refused(refusal: Refusal) -> ProblemError:
    """429, with when to come again and which limit it was."""
    retry = {"Retry-After": str(refusal.retry_after_s)}
    return ProblemError(429, "rate-limited", DETAILS[refusal.limit], headers=retry, limit=refusal.limit)


def check_rate(guard: Guard, caller: Caller) -> None:
    """Raises a 429 problem beyond the key's rate.

    Not for a payment while the key may still ask for answers once more: then `g.refusal` says that its view may only
    answer what was made before, for an indexed look.
    """
    endpoint = request.endpoint or ""
    kind: Kind = "read" if request.method in {"GET", "HEAD"} else "make" if endpoint in MAKES else "change"
    refusal = guard.request(caller.key_id, kind)
    if refusal is None:
        return
    if endpoint == ANSWERED_AGAIN and guard.request(caller.key_id, "again") is None:
        g.refusal = refusal
        return
    guard.tell(refusal.limit)
    raise refused(refusal)


def payment_refusal(guard: Guard | None, caller: Caller) -> Refusal | None:
    """Why this caller's request may make no payment now; None: it may, and it counts against its merchant's quota."""
    if guard is None:
        return None
    refusal: Refusal | None = g.pop("refusal", None)
    return refusal or guard.payment(caller.merchant)
