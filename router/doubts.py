"""What of a payment is in doubt, as a person is asked about it: each thing under an id of its own. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from router import standing
from router.ledger.operations import UNSEEN, UNSETTLED, Operation
from router.ledger.records import Attempt, Payment


@dataclass(frozen=True, slots=True)
class Doubt:
    """One thing that a person can answer from the provider's dashboard."""

    attempt: Attempt
    operation: Operation | None = None
    """What was to be done to the attempt; None: how the attempt itself ended."""

    @property
    def id(self) -> str:
        """The attempt's or the operation's."""
        return self.attempt.id if self.operation is None else self.operation.id

    @property
    def state(self) -> str:
        """How it stands, for all that is known."""
        return (self.attempt.outcome or "started") if self.operation is None else self.operation.state

    @property
    def reason(self) -> str | None:
        """The last word on it."""
        return self.attempt.reason if self.operation is None else self.operation.reason

    @property
    def since(self) -> dt.datetime:
        """Since when it is open."""
        if self.operation is not None:
            return self.operation.started_at
        # What is settled, and in the way all the same, is so since it was.
        return (
            self.attempt.finished_at
            if self.attempt.is_settled and self.attempt.finished_at
            else self.attempt.started_at
        )


def of_payment(payment: Payment, attempts: Sequence[Attempt], operations: Sequence[Operation]) -> list[Doubt]:
    """Attempts and operations without an answer, and approvals in the way that are not proved undone.

    Those once the provider has refused, or the payment needs a person: until then the machine may do it.
    """
    chosen = standing.chosen(payment, attempts, operations)
    chosen_id = None if chosen is None else chosen.id
    orphans = {each.id for each in standing.orphans(payment.amount, chosen_id, attempts, operations)}
    found = [
        Doubt(each)
        for each in attempts
        if not each.is_settled
        or (each.id == chosen_id and standing.is_completing(each))
        or (each.id in orphans and (each.outcome == "requires_action" or _is_stuck(payment, each, operations)))
    ]
    by_id = {each.id: each for each in attempts}
    # A void of what is itself in doubt is the machine's own way of finding out; of an approval it is in the way.
    pending = [each for each in operations if each.state in UNSETTLED and each.asked_by != UNSEEN]
    if chosen is not None and chosen.outcome == "approved":
        pending += standing.unseen_voids(chosen, operations)
    return found + [Doubt(by_id[each.attempt_id], each) for each in pending]


def undoing(orphan: Attempt, operations: Sequence[Operation]) -> list[Operation]:
    """What its provider has been asked to do to an approval that is not the payment's."""
    return [
        each
        for each in operations
        if each.attempt_id == orphan.id and each.kind in ("void", "refund") and each.asked_by != UNSEEN
    ]


def _is_stuck(payment: Payment, orphan: Attempt, operations: Sequence[Operation]) -> bool:
    """Whether the provider refused to undo an approval that is not the payment's, or has not said for so long.

    Not while one of its voids or refunds is in doubt: then that is what is asked.
    """
    states = {each.state for each in undoing(orphan, operations)}
    if not states.isdisjoint(UNSETTLED):
        return False
    refused = "received" not in states and not states.isdisjoint(("refused", "failed"))
    return refused or payment.attention is not None
