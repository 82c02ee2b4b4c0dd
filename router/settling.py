"""Commits where a payment stands after news of its attempts or operations: one way, whoever brings the news."""

from __future__ import annotations

import datetime as dt
from typing import Any

import structlog

from router import standing
from router.ledger.journal import Journal
from router.ledger.payments import Attempt, NewKey

log = structlog.get_logger("router.settling")

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
"""Between rounds of finding out: doubled each time from the first to the longest."""
NOTHING_TO_VOID = "original_payment_not_found"
"""An attempt's reason, once its provider has said of a void by our own id that there is nothing under it."""
ATTENTION_AFTER = dt.timedelta(hours=1)
"""Doubt that has lasted so long is shown to an operator."""


def chosen(journal: Journal) -> Attempt | None:
    """The attempt that the payment stands on now."""
    return standing.decisive(journal.payment.status, journal.payment.attempt_id, journal.attempts)


def settle(
    journal: Journal,
    *,
    event: str,
    now: dt.datetime,
    tried: bool = False,
    nothing: str = "canceled",
    given_up: bool = False,
    more: dict[str, Any] | None = None,
    key: NewKey | None = None,
) -> bool:
    """Commit what follows from what the journal has learned; whether nothing is left in doubt.

    `tried`: a round of finding out has just been made, so the next one waits longer. `nothing` is the status of a
    payment in doubt of which every attempt proves to have done nothing. `given_up`: checkout expects the payment no
    more, so an approval comes too late. `more` are columns to set besides, `key` is consumed. Raises StaleError,
    KeyTakenError, LedgerUnavailableError, as the journal does.
    """
    payment, attempt = journal.payment, chosen(journal)
    stands: dict[str, Any] = {}
    if given_up and attempt is not None and attempt.outcome == "approved":
        log.error("approved_too_late", payment=payment.id, attempt=attempt.id, provider=attempt.provider)
        stands, attempt = {"status": "canceled", "provider": None, "attempt_id": None, "next_action": None}, None
    elif attempt is not None:
        stands = standing.columns(payment.amount, payment.capture_mode, attempt, journal.attempts, journal.operations)
    elif payment.status in ("processing", "requires_action"):
        # Every attempt is known to have done nothing: there is nothing left that could charge.
        stands = {"status": nothing, "provider": None, "attempt_id": None, "next_action": None}
    elif payment.status in standing.CLOSED:
        # The operations that were under way when it closed still end: no amount may stay on it that nobody took.
        for each in journal.attempts:
            if each.id == payment.attempt_id:
                stands = standing.money_columns(payment.amount, each, journal.operations)
    known = {"attempt_id": payment.attempt_id, "status": payment.status} | stands
    if attempt is None and standing.comes_too_late(journal.attempts, journal.operations):
        known["attempt_id"] = None  # no attempt is the payment's any more: every approval is one to be undone
    if standing.is_resolved(journal.attempts, journal.operations, known):
        settled = {"resolve_at": None, "resolve_tries": 0, "attention": None}
        journal.finish(stands | settled | (more or {}), event=event, key=key)
        return True
    tries = payment.resolve_tries + tried
    wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(max(tries - 1, 0), 10)) if tried else 0.0
    doubt: dict[str, Any] = {"resolve_at": now + dt.timedelta(seconds=wait_s), "resolve_tries": tries}
    if payment.attention is None and now - payment.created_at > ATTENTION_AFTER:
        doubt["attention"] = "in doubt for an hour: ask the provider, then POST /v1/payments/{id}/resolve"
        log.error("needs_attention", payment=payment.id)
    journal.finish(stands | doubt | (more or {}), event=event, key=key)
    return False
