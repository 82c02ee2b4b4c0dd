"""Commits where a payment stands after news of its attempts or operations: one way, whoever brings the news."""

from __future__ import annotations

import dataclasses
import datetime as dt
from functools import partial
from typing import Any

import structlog

from router import parked_terms, standing
from router.ledger.journal import Journal
from router.ledger.operations import ABANDONED, CHECKOUT, UNSEEN, UNSETTLED, Operation, OperationState
from router.ledger.records import Attempt, NewKey, Payment, ReferenceInUseError

log = structlog.get_logger("router.settling")

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
"""Between rounds of finding out: doubled each time from the first to the longest."""
PARKED_AGAIN_S = 15.0
"""Least wait of a parked payment whose try came to nothing in the resolver's hands; a recovery wakes it sooner."""
HELD_DEAD = "held_dead"
"""An attempt's reason of which its provider knows nothing, so long after its last send."""
BY_OPERATOR = "operator"
"""The reason of what a person has said; the evidence is in the payment's event, and not for checkout."""
UNPROVED = (HELD_DEAD, BY_OPERATOR)
NOTHING_TO_VOID = "original_payment_not_found"
"""An attempt's reason, once its provider has said of a void by our own id that there is nothing under it."""
ATTENTION_AFTER = dt.timedelta(hours=1)
"""What has not ended for so long is shown to an operator: doubt, or an approval that is not proved undone."""
IN_DOUBT = "not ended for an hour: ask the provider, then POST /v1/payments/{id}/resolve"


def chosen(journal: Journal) -> Attempt | None:
    """The attempt that the payment stands on now."""
    return standing.chosen(journal.payment, journal.attempts, journal.operations)


def settle(
    journal: Journal,
    *,
    event: str,
    now: dt.datetime,
    tried: bool = False,
    nothing: str | None = None,
    given_up: bool = False,
    attention: str | None = None,
    more: dict[str, Any] | None = None,
    key: NewKey | None = None,
) -> bool:
    """Commit what follows from what the journal has learned; whether nothing is left in doubt.

    `tried`: a round of finding out has just been made, so the next one waits longer. `nothing` is the status of a
    payment in doubt of which every attempt proves to have done nothing: `failed`, or `canceled` if it was given up.
    `given_up`: checkout expects the payment no more, so an approval comes too late. `attention`: why a person has to
    look, as long as it is in doubt. `more` are columns to set besides, `key` is consumed. Raises StaleError,
    KeyTakenError, LedgerUnavailableError, as the journal does.
    """
    payment = journal.payment
    given_up = given_up or payment.given_up_at is not None
    _end_voids(journal, now)
    attempt = chosen(journal)
    in_vain = standing.canceled_in_vain(payment, journal.attempts, journal.operations)
    if in_vain is not None and in_vain.outcome == "declined":
        attempt = in_vain
    reopens = payment.status == "declined" and attempt is not None and attempt.outcome == "approved"
    if attempt is not None and given_up and attempt.outcome == "approved":
        stands = _too_late(journal, attempt)
    elif attempt is not None:
        stands = standing.columns(payment.amount, payment.capture_mode, attempt, journal.attempts, journal.operations)
    elif nothing is None and not given_up and _waits_on(journal, now):
        stands = _parked_again(payment, now)
    elif payment.status in ("processing", "requires_action") or in_vain is not None:
        # Every attempt is known to have done nothing: there is nothing left that could charge.
        nothing = nothing or ("canceled" if given_up else "failed")
        stands = {"status": nothing, "provider": None, "attempt_id": None, "next_action": None}
        if nothing == "failed" and payment.tries and payment.expires_at <= now:
            stands["failure"] = "expired"
    else:
        stands = _closed(journal)
    commit = partial(
        _commit, journal, event=event, now=now, tried=tried, attention=attention, more=more or {}, key=key
    )
    try:
        resolved = commit(stands)
    except ReferenceInUseError as used:
        # Checkout was told that it is declined, and has gone on with another payment: this one is not paid besides.
        assert attempt is not None
        log.error("paid_by_another", payment=payment.id, other=used.payment_id)
        return commit(_too_late(journal, attempt))
    if reopens and stands["status"] != "declined":
        log.error("declined_and_then_approved", payment=payment.id, status=stands["status"])
    return resolved


def _waits_on(journal: Journal, now: dt.datetime) -> bool:
    """Whether it was accepted, parked, and is to be parked again: its try came to nothing by its provider's record.

    Only what is proved may be tried once more: not what was held dead, nor what a person has said. Not where checkout
    asked to cancel it meanwhile, or anything of it is under way.
    """
    payment = journal.payment
    return (
        payment.status == "processing"
        and payment.tries > 0
        and now < payment.expires_at
        and not any(each.state in UNSETTLED or each.asked_by in (CHECKOUT, ABANDONED) for each in journal.operations)
        and all(
            each.outcome == "not_executed" and (each.final_record or each.reason not in UNPROVED)
            for each in journal.attempts
        )
        and any(each.id == payment.attempt_id and each.final_record for each in journal.attempts)
    )


def _parked_again(payment: Payment, now: dt.datetime) -> dict[str, Any]:
    """The columns of a payment whose order was accepted: it waits for its next try, as after one that was refused."""
    return {
        "status": "parked",
        "provider": None,
        "attempt_id": None,
        "next_action": None,
        "next_try_at": parked_terms.next_try(now, payment.created_at, PARKED_AGAIN_S, random=0.0),
        "tries": payment.tries + 1,
        "claimed_until": None,
        "faults": 0,
    }


def _end_voids(journal: Journal, now: dt.datetime) -> None:
    """A void of what is known to be canceled is done; one of what was declined had nothing to void.

    Whoever told it of the attempt (a person, the customer's late step), the provider may never speak of the void.
    """
    by_id = {each.id: each for each in journal.attempts}
    for each in list(journal.operations):
        state = _void_ends_as(journal, each, by_id[each.attempt_id])
        if each.kind == "void" and state is not None and each.state in (*UNSETTLED, "received"):
            journal.learned(dataclasses.replace(each, state=state, finished_at=now))


def _void_ends_as(journal: Journal, void: Operation, attempt: Attempt) -> OperationState | None:
    """What is known of a void by what is known of its attempt; None: nothing."""
    if attempt.outcome == "canceled":
        return "done"
    if attempt.outcome == "declined":
        return "refused"
    # Of one by our own id not each send is spoken of: it came too late, or there was nothing.
    too_late = standing.captured(journal.payment.amount, attempt, journal.operations) > 0
    if void.asked_by == UNSEEN and (too_late or attempt.outcome == "not_executed"):
        return "refused"
    return None


def _too_late(journal: Journal, attempt: Attempt) -> dict[str, Any]:
    """The columns of a payment that checkout expects no more, now that it is approved: the approval is an orphan."""
    log.error("approved_too_late", payment=journal.payment.id, attempt=attempt.id, provider=attempt.provider)
    gone: dict[str, Any] = {"provider": None, "attempt_id": None, "next_action": None}
    # What was told to be declined stays so.
    return gone if journal.payment.status == "declined" else gone | {"status": "canceled"}


def _closed(journal: Journal) -> dict[str, Any]:
    """The operations that were under way when it closed still end: no amount may stay on it that nobody took."""
    payment = journal.payment
    stands: dict[str, Any] = {}
    if payment.status in standing.CLOSED:
        for each in journal.attempts:
            if each.id == payment.attempt_id:
                stands = standing.money_columns(payment.amount, each, journal.operations)
    return stands


def _commit(
    journal: Journal,
    stands: dict[str, Any],
    *,
    event: str,
    now: dt.datetime,
    tried: bool,
    attention: str | None,
    more: dict[str, Any],
    key: NewKey | None,
) -> bool:
    payment = journal.payment
    known = {"attempt_id": payment.attempt_id, "status": payment.status} | stands
    closed = known["status"] in standing.CLOSED
    if closed and standing.comes_too_late(payment.amount, journal.attempts, journal.operations):
        known["attempt_id"] = None  # no attempt is the payment's any more: every approval is one to be undone
    if standing.is_resolved(payment.amount, journal.attempts, journal.operations, known):
        settled = {"resolve_at": None, "resolve_tries": 0, "attention": None}
        journal.finish(stands | settled | more, event=event, key=key)
        return True
    tries = payment.resolve_tries + tried
    wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(max(tries - 1, 0), 10)) if tried else 0.0
    changes: dict[str, Any] = {"resolve_at": now + dt.timedelta(seconds=wait_s), "resolve_tries": tries}
    since = standing.in_doubt_since(payment.amount, known["attempt_id"], journal.attempts, journal.operations)
    if attention is None and payment.attention is None and since is not None and now - since > ATTENTION_AFTER:
        attention = IN_DOUBT
    if attention is not None and attention != payment.attention:
        changes["attention"] = attention
        log.error("needs_attention", payment=payment.id, why=attention)
    journal.finish(stands | changes | more, event=event, key=key)
    return False
