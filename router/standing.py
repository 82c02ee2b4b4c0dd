"""Where a payment stands, from its attempt and its operations. Pure.

How an attempt or an operation stands does not depend on the order in which news of it came: each keeps the highest
of what was ever said of it, and the payment's columns are computed anew from them. So a webhook that is late, doubled
or ahead of our own answer leads to the same payment. One thing is not taken back by later news: a payment that
checkout knows to be closed takes no money, and what is approved after that is undone (`CLOSED`, `comes_too_late`).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from router.ledger.operations import (
    ABANDONED,
    CHECKOUT,
    IN_FORCE,
    RANK,
    UNSEEN,
    UNSETTLED,
    Operation,
    OperationState,
)
from router.ledger.records import Attempt, Payment

OUTCOME_RANK: Mapping[str | None, int] = {
    None: 0,
    "not_executed": 1,
    "unknown": 1,
    "requires_action": 2,
    "canceled": 3,
    "declined": 5,
    "approved": 6,
}
"""An approval overrides an earlier decline. Of what was approved and canceled, whichever was told first, the cancel
stands; a cancel of what was never approved says less than why it was not: see `ends_as`."""
FINAL_NOTHING_RANK = 4
"""Of `not_executed` by the provider's own record: an unknown send, and a step that the customer took, end with it."""


def was_approved(attempt: Attempt) -> bool:
    """Whether its provider has ever said that it is approved."""
    return attempt.was_approved or attempt.outcome == "approved"


def was_canceled(attempt: Attempt) -> bool:
    """Whether its provider has ever said that it is canceled."""
    return attempt.was_canceled or attempt.outcome == "canceled"


def is_news(known: Attempt, told: str, *, final_record: bool = False) -> bool:
    """Whether an outcome told of an attempt says more than what is known of it.

    `final_record`: the provider's own record says so (`Outcome.final_record`).
    """
    if told == "canceled":
        return not was_canceled(known)
    if was_approved(known):
        return False
    return _rank(told, final_record) > _rank(known.outcome, known.final_record)


def ends_as(known: Attempt, told: str) -> str:
    """The outcome of an attempt of which this is told, and is news.

    It is what is told, but where a cancel comes together with something else: what was approved and canceled is
    canceled; what never held anything, and was canceled besides, stays declined or not executed, for that is what
    checkout and the card's tries need.
    """
    if told == "canceled":
        held_nothing = not was_approved(known) and _rank(known.outcome, known.final_record) > OUTCOME_RANK[told]
        return known.outcome if held_nothing and known.outcome is not None else told
    return "canceled" if told == "approved" and was_canceled(known) else told


def _rank(outcome: str | None, final_record: bool) -> int:
    return FINAL_NOTHING_RANK if final_record and outcome == "not_executed" else OUTCOME_RANK[outcome]


def advances(known: str, told: str) -> bool:
    """Whether a state told of an operation says more than what is known of it."""
    return RANK[told] > RANK[known]


def captured(amount: int, attempt: Attempt, operations: Sequence[Operation]) -> int:
    """What is captured of an attempt, in minor units, as far as anybody has said."""
    at_once = amount if attempt.outcome == "approved" and attempt.capture in ("done", "pending") else 0
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
    then a decline. A closed payment, or one told to be declined, is not reopened by another attempt's approval. A
    parked one goes on whatever is canceled of it: its next try may still be approved.
    """
    if payment_status in CLOSED:
        return None
    order = ("approved", "requires_action", "unknown", None, "declined", "canceled")
    candidates = [each for each in attempts if each.outcome in order]
    if payment_status == "parked":
        candidates = [each for each in candidates if each.outcome != "canceled"]
    if payment_status == "declined":
        candidates = [each for each in candidates if each.id == chosen_id]
    # Of equals the chosen one, and then the latest.
    candidates.sort(key=lambda each: (order.index(each.outcome), each.id != chosen_id, -each.number))
    return candidates[0] if candidates else None


def chosen(payment: Payment, attempts: Sequence[Attempt], operations: Sequence[Operation]) -> Attempt | None:
    """The attempt that a payment stands on now: the one that it is being ended with, else the decisive one."""
    ending = _being_ended(payment, attempts, operations)
    if ending is not None:
        return ending
    return decisive(payment.status, payment.attempt_id, attempts)


def _being_ended(payment: Payment, attempts: Sequence[Attempt], operations: Sequence[Operation]) -> Attempt | None:
    """The attempt that is voided because checkout cancels the payment, or its customer has gone.

    From the asking on: whatever else of the payment is in doubt, or is approved meanwhile, must not take the money of
    somebody who wanted it canceled. A void that is refused ends nothing, unless there was nothing to void any more.
    """
    if payment.status in CLOSED:
        return None
    by_id = {each.id: each for each in attempts}
    for each in operations:
        if each.kind == "void" and each.asked_by in (CHECKOUT, ABANDONED):
            attempt = by_id[each.attempt_id]
            if each.state in (*UNSETTLED, *IN_FORCE) or attempt.outcome in ("declined", "canceled"):
                return attempt
    return None


def canceled_in_vain(
    payment: Payment, attempts: Sequence[Attempt], operations: Sequence[Operation]
) -> Attempt | None:
    """The attempt that closed its payment by being canceled, where it turns out that there was nothing to cancel.

    Then the payment ends as if the decline, or the lack of anything, had been told first. Not where the cancel was
    asked for here: checkout knows of it.
    """
    if payment.status != "canceled":
        return None
    for each in attempts:
        if each.id == payment.attempt_id and each.was_canceled and each.outcome in ("declined", "not_executed"):
            asked = any(
                found.kind == "void"
                and found.attempt_id == each.id
                and found.asked_by != UNSEEN
                and found.state in (*UNSETTLED, *IN_FORCE)
                for found in operations
            )
            return None if asked else each
    return None


def given_up(payment: Payment, now: dt.datetime, max_age_s: float) -> bool:
    """Whether checkout expects this payment no more: it was never answered, and has not asked for so long.

    Once a void may have been sent because of that, for good: that checkout asks again does not call the void back.
    """
    if payment.given_up_at is not None:
        return True
    silent_s = (now - payment.contact_at).total_seconds()
    return payment.status == "processing" and not payment.told and silent_s > max_age_s


def orphans(
    amount: int, chosen_id: str | None, attempts: Sequence[Attempt], operations: Sequence[Operation]
) -> Sequence[Attempt]:
    """Attempts other than the decisive one that hold an authorization, or may: each must be proved void.

    One that waits for the customer is among them: its step may still be taken. One that was captured and has been
    refunded, all of it, is not: it holds nothing any more. `amount` is the payment's.
    """
    held = ("approved", "requires_action", "unknown", None)
    return [
        each
        for each in attempts
        if each.id != chosen_id and each.outcome in held and not is_undone(amount, each, operations)
    ]


def is_undone(amount: int, attempt: Attempt, operations: Sequence[Operation]) -> bool:
    """Whether it is proved that nothing is left of an approval. `amount` is the payment's."""
    return _undone(amount, attempt, operations, ("done",))


def comes_too_late(amount: int, attempts: Sequence[Attempt], operations: Sequence[Operation]) -> bool:
    """Whether a closed payment has an approval that neither a void nor refunds undo."""
    return any(each.outcome == "approved" and not _undone(amount, each, operations, IN_FORCE) for each in attempts)


COMPLETING = "completion_in_doubt:"
"""What an attempt's reason begins with while it is not known whether the customer's step, as it was sent to the
provider, has ended it; a word for that step follows."""


def is_completing(attempt: Attempt) -> bool:
    """Whether the provider may have finished an attempt that waits for its customer, for all that is known."""
    return attempt.outcome == "requires_action" and (attempt.reason or "").startswith(COMPLETING)


def is_resolved(
    amount: int, attempts: Sequence[Attempt], operations: Sequence[Operation], stands: Mapping[str, Any]
) -> bool:
    """Whether nothing is left to find out or to do: no attempt or operation in doubt, no orphan, no capture due."""
    chosen_id = stands.get("attempt_id")
    if stands.get("status") == "requires_action" and any(
        each.id == chosen_id and is_completing(each) for each in attempts
    ):
        return False
    return (
        stands.get("status") != "processing"
        and not any(each.state in UNSETTLED for each in operations)
        and not orphans(amount, chosen_id, attempts, operations)
    )


def in_doubt_since(
    amount: int, chosen_id: str | None, attempts: Sequence[Attempt], operations: Sequence[Operation]
) -> dt.datetime | None:
    """Since when the oldest thing is open that has to end before the payment is resolved; None where nothing is."""
    open_attempts = [each for each in attempts if not each.is_settled]
    held = [each for each in orphans(amount, chosen_id, attempts, operations) if each.is_settled]
    held += [each for each in attempts if each.id == chosen_id and is_completing(each)]
    return min(
        [each.started_at for each in open_attempts]
        # What was approved late is an orphan since then.
        + [each.finished_at or each.started_at for each in held]
        + [each.started_at for each in operations if each.state in UNSETTLED],
        default=None,
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
    voided = _voided(attempt, own, IN_FORCE)
    capture_failed = attempt.capture == "failed" or any(
        each.kind == "capture" and each.state in ("failed", "refused") for each in own
    )
    match attempt.outcome:
        case "approved" if taken:
            return money | {"status": "captured", "next_action": None}
        case "approved" | "requires_action" if voided:
            return money | {"status": "canceled", "next_action": None}
        case "declined" if any(
            each.kind == "void" and each.state == "done" and each.asked_by != UNSEEN for each in own
        ):
            return money | {"status": "canceled", "next_action": None}  # as it was asked for here
        case "canceled":
            return money | {"status": "canceled", "next_action": None}
        case "approved":
            # While another authorization may exist, this one may yet be void, or the capture is ours to make, it is
            # not checkout's turn.
            held = (
                bool(orphans(amount, attempt.id, attempts, operations))
                or bool(unseen_voids(attempt, own))
                or (capture == "automatic" and not capture_failed)
            )
            return money | {"status": "processing" if held else "authorized", "next_action": None}
        case "declined":
            return money | {"status": "declined", "decline": attempt.decline, "next_action": None}
        case "requires_action":
            return money | {"status": "requires_action", "next_action": attempt.next_action}
        case "unknown" | None:
            return money | {"status": "processing", "next_action": None}
        case _:
            return {}


def unseen_voids(attempt: Attempt, operations: Sequence[Operation]) -> list[Operation]:
    """Voids by our own id that may yet take an attempt's authorization away: nobody has said how they ended."""
    return [
        each for each in operations if each.attempt_id == attempt.id and each.asked_by == UNSEEN and each.may_come
    ]


def send_failed(operation: Operation, which: str, state: OperationState) -> Operation:
    """A void by our own id, of which one send is known to have come to nothing; `which` names that send.

    It ends, in `state`, when all of its sends have: any other may have met the authorization.
    """
    failures = tuple(sorted({*operation.failures, which}))
    failed = dataclasses.replace(operation, failures=failures)
    if failed.sends > len(failures):
        return failed if failed.state in UNSETTLED else dataclasses.replace(failed, state="received")
    return dataclasses.replace(failed, state=state)


def _voided(attempt: Attempt, operations: Sequence[Operation], states: Sequence[str]) -> bool:
    voids = [each for each in operations if each.kind == "void" and each.attempt_id == attempt.id]
    return any(each.state in states and (each.state == "done" or each.asked_by != UNSEEN) for each in voids)


def _undone(amount: int, attempt: Attempt, operations: Sequence[Operation], states: Sequence[str]) -> bool:
    """Whether nothing is left of an approval: it was voided, or all that was captured of it was paid back.

    What is captured cannot be voided any more: there a void has to be done to be believed.
    """
    taken = captured(amount, attempt, operations)
    if _voided(attempt, operations, ("done",) if taken else states):
        return True
    return 0 < taken <= _sum(operations, attempt, "refund", states)


def _sum(operations: Sequence[Operation], attempt: Attempt, kind: str, states: Sequence[str]) -> int:
    return sum(
        each.amount
        for each in operations
        if each.kind == kind and each.attempt_id == attempt.id and each.state in states
    )
