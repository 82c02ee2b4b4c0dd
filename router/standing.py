"""Where a payment stands, from its attempt and its operations. Pure.

Nothing here depends on the order in which news came: each attempt and each operation keeps the highest of what was
ever said of it, and the payment's columns are computed anew from them. So a webhook that is late, doubled or ahead
of our own answer leads to the same payment.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from router.ledger.operations import IN_FORCE, RANK, UNSETTLED, Operation
from router.ledger.payments import Attempt, Payment

OUTCOME_RANK: Mapping[str | None, int] = {
    None: 0,
    "not_executed": 1,
    "unknown": 1,
    "requires_action": 2,
    "declined": 3,
    "approved": 4,
    "canceled": 5,
}
"""A canceled authorization is never approved again; an approval overrides an earlier decline."""


def is_news(known: str | None, told: str) -> bool:
    """Whether an outcome told of an attempt says more than what is known of it."""
    return OUTCOME_RANK[told] > OUTCOME_RANK[known]


def advances(known: str, told: str) -> bool:
    """Whether a state told of an operation says more than what is known of it."""
    return RANK[told] > RANK[known]


def captured(amount: int, attempt: Attempt, operations: Sequence[Operation]) -> int:
    """What is captured of an attempt, in minor units, as far as anybody has said."""
    at_once = amount if attempt.capture in ("done", "pending") else 0
    return at_once + _sum(operations, attempt, "capture", IN_FORCE)


def refunded(attempt: Attempt, operations: Sequence[Operation]) -> int:
    """What is refunded of an attempt."""
    return _sum(operations, attempt, "refund", IN_FORCE)


def promised(kind: str, attempt: Attempt, operations: Sequence[Operation]) -> int:
    """What is captured or refunded, or may yet turn out to be: what a further one must leave room for."""
    return _sum(operations, attempt, kind, (*IN_FORCE, *UNSETTLED))


CLOSED = frozenset({"canceled", "failed"})
"""Checkout was told, or left alone for so long, that this payment takes no money: an approval comes too late."""


def decisive(payment_status: str, chosen_id: str | None, attempts: Sequence[Attempt]) -> Attempt | None:
    """The attempt that the payment stands or falls with; None where no attempt says anything.

    An approval before all (the one already chosen first), then what waits for the customer, then what is in doubt,
    then a decline. A closed payment, or one told to be declined, is not reopened by another attempt's approval.
    """
    if payment_status in CLOSED:
        return None
    order = ("approved", "requires_action", "unknown", None, "declined", "canceled")
    candidates = [each for each in attempts if each.outcome in order]
    if payment_status == "declined":
        candidates = [each for each in candidates if each.id == chosen_id]
    # Of equals the chosen one, and then the latest.
    candidates.sort(key=lambda each: (order.index(each.outcome), each.id != chosen_id, -each.number))
    return candidates[0] if candidates else None


def given_up(payment: Payment, now: dt.datetime, max_age_s: float) -> bool:
    """Whether checkout expects this payment no more: it was never answered, and has not asked for so long."""
    silent_s = (now - payment.contact_at).total_seconds()
    return payment.status == "processing" and not payment.told and silent_s > max_age_s


def orphans(chosen_id: str | None, attempts: Sequence[Attempt], operations: Sequence[Operation]) -> Sequence[Attempt]:
    """Attempts other than the decisive one that hold an authorization, or may: each must be proved void.

    One that waits for the customer is among them: its step may still be taken. One that was captured and has been
    refunded is not: it holds nothing any more.
    """
    held = ("approved", "requires_action", "unknown", None)
    released = {each.attempt_id for each in operations if each.kind in ("void", "refund") and each.state == "done"}
    return [each for each in attempts if each.id != chosen_id and each.outcome in held and each.id not in released]


def comes_too_late(attempts: Sequence[Attempt], operations: Sequence[Operation]) -> bool:
    """Whether a closed payment has an approval that neither a void nor a refund undoes."""
    undone = {each.attempt_id for each in operations if each.kind in ("void", "refund") and each.state in IN_FORCE}
    return any(each.outcome == "approved" and each.id not in undone for each in attempts)


def is_resolved(attempts: Sequence[Attempt], operations: Sequence[Operation], stands: Mapping[str, Any]) -> bool:
    """Whether nothing is left to find out or to do: no attempt or operation in doubt, no orphan, no capture due."""
    return (
        stands.get("status") != "processing"
        and not any(each.state in UNSETTLED for each in operations)
        and not orphans(stands.get("attempt_id"), attempts, operations)
    )


def money_columns(amount: int, attempt: Attempt, operations: Sequence[Operation]) -> dict[str, Any]:
    """What is captured and refunded of an attempt; of a closed payment too, where nothing else changes any more."""
    return {
        "amount_captured": captured(amount, attempt, operations),
        "amount_refunded": refunded(attempt, operations),
        "capture_pending": attempt.capture == "pending"
        or any(
            each.kind == "capture" and each.state == "received" and each.attempt_id == attempt.id
            for each in operations
        ),
    }


def columns(
    amount: int, capture: str, attempt: Attempt, attempts: Sequence[Attempt], operations: Sequence[Operation]
) -> dict[str, Any]:
    """The payment's columns that follow from its decisive attempt; empty where the attempt decides nothing.

    `capture` is what checkout asked for: `automatic` or `manual`.
    """
    own = [each for each in operations if each.attempt_id == attempt.id]
    taken = captured(amount, attempt, own)
    money = money_columns(amount, attempt, own) | {
        "provider": attempt.provider,
        "attempt_id": attempt.id,
        "decline": None,
    }
    voided = any(each.kind == "void" and each.state in IN_FORCE for each in own)
    capture_failed = attempt.capture == "failed" or any(
        each.kind == "capture" and each.state in ("failed", "refused") for each in own
    )
    match attempt.outcome:
        case "approved" if taken:
            return money | {"status": "captured", "next_action": None}
        case "approved" | "requires_action" if voided:
            return money | {"status": "canceled", "next_action": None}
        case "canceled":
            return money | {"status": "canceled", "next_action": None}
        case "approved":
            # While another authorization may exist, or the capture is ours to make, it is not checkout's turn.
            held = bool(orphans(attempt.id, attempts, operations)) or (capture == "automatic" and not capture_failed)
            return money | {"status": "processing" if held else "authorized", "next_action": None}
        case "declined":
            return money | {"status": "declined", "decline": attempt.decline, "next_action": None}
        case "requires_action":
            # What the customer has to do was said with the outcome; it is not among what is folded here.
            return money | {"status": "requires_action"}
        case "unknown" | None:
            return money | {"status": "processing", "next_action": None}
        case _:
            return {}


def _sum(operations: Sequence[Operation], attempt: Attempt, kind: str, states: Sequence[str]) -> int:
    return sum(
        each.amount
        for each in operations
        if each.kind == kind and each.attempt_id == attempt.id and each.state in states
    )
