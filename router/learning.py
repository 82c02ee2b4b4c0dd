"""What scores learn of a payment's commits: once an attempt, when its issuer's answer is on record.

Whatever the way by which an answer comes (the request, the resolver, a webhook, the customer's 3-D Secure step, an
operator who read it at the provider), it is written by the payment's journal, and counts when it is written first.
What becomes of the attempt afterwards (a void, an approval after a decline) changes nothing.

**What is no answer of an issuer.** Declines for invalid data: what the customer mistyped or we sent wrong is as wrong
at every provider. The customer's own turning back, or failing the 3-D Secure step. Our own excess of retries. But
`authentication_required` is one: this issuer said no to the payment as this provider had sent it, and how often that
happens is the provider's doing, as are its own checks against fraud. After a step it is the failed step again: Adyen
answers both with the same word (refusal 11), and Stripe with another, so it counts at neither. An issuer that the
provider could not reach is the provider's route to it, too.

**A card that was declined already.** Only the first answer of a payment counts. Those who are asked after a decline
get the cards that another issuer's system has just refused, and would look far worse than they are: under
`primary-first` these are all that the second provider ever gets. After a failover, where no issuer answered before,
the answer counts like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from router.clock import Clock
from router.ledger.records import Attempt, Payment
from router.scores import Scores
from router.segments import Segment, segment

NO_ANSWER_CLASSES = frozenset({"invalid"})
NO_ANSWER_CODES = frozenset({"shopper_cancelled", "payment_intent_authentication_failure", "excessive_retries"})


class Lessons:
    """Teaches the scores of this process what its journals commit."""

    def __init__(self, scores: Scores, clock: Clock) -> None:
        self._scores = scores
        self._clock = clock

    def heard(self, payment: Payment, before: Sequence[Attempt], after: Sequence[Attempt]) -> None:
        """Learn what a commit of this payment has written: its attempts as they were on record, and as they are."""
        known = {each.id: issuer_said(each) for each in before}
        stepping = {each.id for each in before if each.outcome == "requires_action"}
        for attempt in after:
            said = issuer_said(attempt)
            if said is None or known.get(attempt.id) is not None or _was_declined_before(attempt, after):
                continue
            if attempt.id in stepping and not said and _is_authentication(attempt.decline):
                continue  # the customer failed the step, or the bank did not know them; Adyen has no word for which
            at = self._clock.now().timestamp()
            self._scores.hear_answer(attempt.provider, segment_of(payment.order, payment.amount), said, at)


def issuer_said(attempt: Attempt) -> bool | None:
    """Whether the issuer approved; None: it has not answered, as far as is known."""
    if attempt.was_approved or attempt.outcome == "approved":
        return True
    if attempt.outcome != "declined":
        return None
    return False if is_answer(attempt.decline) else None


def is_answer(decline: Mapping[str, Any] | None) -> bool:
    """Whether a decline, as the ledger keeps it, says something of how this provider's payments are approved."""
    if decline is None:
        return True
    return decline.get("class") not in NO_ANSWER_CLASSES and decline.get("code") not in NO_ANSWER_CODES


def _is_authentication(decline: Mapping[str, Any] | None) -> bool:
    return decline is not None and decline.get("class") == "authentication"


def segment_of(order: Mapping[str, Any], amount: int) -> Segment:
    """The segment of a payment, from the order as the ledger keeps it."""
    method = order.get("payment_method") or {}
    card = method.get("card") or {}
    return segment(amount, card.get("brand"), card.get("country"), method.get("type"))


def _was_declined_before(attempt: Attempt, attempts: Sequence[Attempt]) -> bool:
    return any(each.number < attempt.number and issuer_said(each) is False for each in attempts)
