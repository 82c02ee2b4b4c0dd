"""Applies the providers' notices to the attempts and operations that they are about. A worker loop.

In any order, late, doubled or before our own answer: each attempt and operation keeps the highest of what was ever
said of it (`router.standing`), and the payment follows from them.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Sequence
from typing import Any

import structlog

from providers.contract import Health, Notice, NoticeKind, Outcome, OutcomeKind
from router import disputes, standing
from router.clock import Clock
from router.ledger.inbox import Inbox, Stored
from router.ledger.journal import Journal, Journals
from router.ledger.operations import UNSEEN, Operation, OperationKind, OperationState
from router.ledger.payments import PaymentLedger
from router.ledger.records import Attempt, StaleError
from router.ledger.unavailable import LedgerUnavailableError
from router.sending import learned
from router.settling import NOTHING_TO_VOID, settle

log = structlog.get_logger("router.notices")

ROUND = 200
AGAIN_AFTER_S = 1.0
"""Until a notice is tried again whose payment is being worked on."""
LONGEST_WAIT_S = 300.0
"""Between the tries of one that nothing here is known of: doubled from the first wait on. Most are foreign, and cost
little; one that was ahead is due as soon as its attempt is known."""
WOKEN_EVERY = dt.timedelta(seconds=5)
UNMATCHED_AFTER = dt.timedelta(days=3)
"""A notice can be ahead of our own record for as long as the attempt that it is about is in doubt."""

_OPERATIONS: dict[NoticeKind, tuple[OperationKind, OperationState]] = {
    NoticeKind.CAPTURED: ("capture", "done"),
    NoticeKind.CAPTURE_FAILED: ("capture", "failed"),
    NoticeKind.VOID_FAILED: ("void", "failed"),
    NoticeKind.REFUNDED: ("refund", "done"),
    NoticeKind.REFUND_FAILED: ("refund", "failed"),
}
_PROVE_APPROVAL = frozenset(
    {NoticeKind.CAPTURED, NoticeKind.CAPTURE_FAILED, NoticeKind.REFUNDED, NoticeKind.REFUND_FAILED}
)
_IN_DOUBT = (None, "unknown", "not_executed", "requires_action")
_ALARMING = frozenset(
    {NoticeKind.CAPTURE_FAILED, NoticeKind.REFUND_FAILED, NoticeKind.VOID_FAILED, NoticeKind.DISPUTE}
)


class Notices:
    """A worker loop; any number may run: each change is a compare-and-set on the payment."""

    def __init__(
        self,
        *,
        inbox: Inbox,
        ledger: PaymentLedger,
        journals: Journals,
        clock: Clock,
        resend_max_age_s: float = 900.0,
    ) -> None:
        self._resend_max_age_s = resend_max_age_s
        self._inbox = inbox
        self._ledger = ledger
        self._journals = journals
        self._clock = clock
        self._woken_at: dt.datetime | None = None

    def run_once(self) -> int:
        """Apply what waits. Answers how many notices were applied."""
        now = self._clock.now()
        if self._woken_at is None or now - self._woken_at >= WOKEN_EVERY:
            self._woken_at = now
            self._inbox.wake(now)
        return sum(self._one(stored) for stored in self._inbox.due(now, limit=ROUND))

    def _one(self, stored: Stored) -> int:
        try:
            result = self.apply(stored.provider, stored.notice)
        except StaleError:
            result = None  # somebody changed the payment at this moment
        except LedgerUnavailableError:
            raise
        except Exception:
            # One notice that cannot be applied must not hold up those behind it.
            log.exception("notice_failed", provider=stored.provider, name=stored.notice.name)
            result = None
        now = self._clock.now()
        if result is not None:
            about = None if result == "ignored" else self._find(stored.provider, stored.notice)
            whose = None if about is None else about[0]
            self._inbox.applied(stored.number, result, now=now, payment_id=whose)
            return 1
        wait_s = AGAIN_AFTER_S
        if self._find(stored.provider, stored.notice) is None:
            if now - stored.received_at > UNMATCHED_AFTER:
                log.error("notice_unmatched", provider=stored.provider, name=stored.notice.name)
                self._inbox.applied(stored.number, "unmatched", now=now)
                return 1
            wait_s = min(LONGEST_WAIT_S, AGAIN_AFTER_S * 2 ** min(stored.tries, 10))
        self._inbox.later(stored, now + dt.timedelta(seconds=wait_s))
        return 0

    def _find(self, provider: str, notice: Notice) -> tuple[str, str] | None:
        """The payment and the attempt that it is about."""
        # What a modification carries of ours is its own key, or the attempt's id: that of a capture at once, and of
        # what a person does in the dashboard.
        ours = [each for each in (notice.attempt_id, notice.operation_key) if each is not None]
        return self._ledger.find_attempt(provider, ours=ours, provider_reference=notice.provider_reference)

    def apply(self, provider: str, notice: Notice) -> str | None:
        """Apply one notice; what came of it, or None where it has to wait. Raises StaleError."""
        if notice.kind is NoticeKind.OTHER:
            return "ignored"
        found = self._find(provider, notice)
        loaded = None if found is None else self._ledger.load(found[0])
        now = self._clock.now()
        if found is None or loaded is None or loaded[0].in_progress(now):
            return None  # ahead of our own record, or of the request that is working on it
        journal = self._journals.open(*loaded)
        attempt = next(each for each in journal.attempts if each.id == found[1])
        more = self._learn(journal, attempt, notice)
        if more is None:
            return "nothing new"
        if notice.kind in _ALARMING:
            log.error("alarm", payment=journal.payment.id, notice=notice.name, reason=notice.reason)
        given_up = standing.given_up(journal.payment, now, self._resend_max_age_s)
        settle(journal, event=notice.name, now=now, given_up=given_up, more=more)
        return "applied"

    def _learn(self, journal: Journal, attempt: Attempt, notice: Notice) -> dict[str, Any] | None:
        """Put the notice's news into the journal; columns to set besides, or None where nothing is new."""
        now = self._clock.now()
        if notice.kind is NoticeKind.DISPUTE:
            of = notice.modification_reference or ""
            found = disputes.told(journal.payment.dispute, of, notice.reason, notice.name, now)
            return None if found is None else {"dispute": found}
        if notice.kind is NoticeKind.ATTEMPT:
            return None if notice.outcome is None else self._learn_outcome(journal, attempt, notice.outcome)
        approved = attempt
        if notice.kind in _PROVE_APPROVAL and attempt.outcome in _IN_DOUBT:
            # Only what was approved is captured or refunded: this is ahead of the news of the approval.
            reference = notice.provider_reference
            approved = learned(attempt, Outcome(OutcomeKind.APPROVED, Health.OK, provider_reference=reference), now)
            journal.learned(approved)
        more = self._learn_of_operation(journal, approved, notice)
        return {} if more is None and approved is not attempt else more

    def _learn_outcome(self, journal: Journal, attempt: Attempt, outcome: Outcome) -> dict[str, Any] | None:
        now = self._clock.now()
        news = standing.is_news(attempt, outcome.kind.value, final_record=outcome.final_record)
        if news:
            journal.learned(learned(attempt, outcome, now))
        if outcome.kind is OutcomeKind.CANCELED:
            for each in journal.operations:
                if each.kind == "void" and each.attempt_id == attempt.id and each.state != "done":
                    journal.learned(dataclasses.replace(each, state="done", finished_at=now))
                    news = True
        return {} if news else None

    def _learn_of_operation(self, journal: Journal, attempt: Attempt, notice: Notice) -> dict[str, Any] | None:
        now = self._clock.now()
        kind, state = _OPERATIONS[notice.kind]
        if kind == "void" and attempt.outcome == "canceled":
            return None  # an authorization that is released stays so, whatever is told of one of its voids
        news = False
        if kind == "void" and attempt.outcome in (None, "unknown") and notice.reason == NOTHING_TO_VOID:
            news = attempt.reason != NOTHING_TO_VOID
            journal.learned(dataclasses.replace(attempt, outcome="unknown", reason=NOTHING_TO_VOID))
        operation = _operation(journal.operations, attempt, kind, notice)
        if operation is not None and operation.asked_by == UNSEEN and state == "failed":
            which = notice.modification_reference or notice.operation_key
            if which is None or which in operation.failures or not operation.may_come:
                return {} if news else None  # it does not say which of the sends: they stay open, for a person
            failed = standing.send_failed(operation, which, state)
            journal.learned(dataclasses.replace(failed, finished_at=None if failed.may_come else now))
            return {}
        if operation is not None:
            if standing.advances(operation.state, state):
                journal.learned(dataclasses.replace(operation, state=state, finished_at=now))
                news = True
            return {} if news else None
        if kind == "void":
            return {} if news else None
        return self._without_operation(journal, attempt, notice)

    def _without_operation(self, journal: Journal, attempt: Attempt, notice: Notice) -> dict[str, Any] | None:
        """News of something that checkout did not ask for here: the capture at once, or a hand in the dashboard."""
        if notice.kind is NoticeKind.CAPTURED and attempt.capture == "pending":
            journal.learned(dataclasses.replace(attempt, capture="done"))
            return {}
        if notice.kind is NoticeKind.CAPTURE_FAILED and attempt.at_once and attempt.capture != "failed":
            journal.learned(dataclasses.replace(attempt, capture="failed"))
            return {}
        kind, state = _OPERATIONS[notice.kind]
        if kind == "capture" and attempt.at_once:
            return None
        # A failure too: it may come ahead of what it undoes.
        amount = journal.payment.amount if notice.money is None else notice.money.amount
        found = self._journals.operation(journal, attempt, kind, amount, asked_by="the provider's own record")
        found = dataclasses.replace(found, state=state, finished_at=found.started_at)
        journal.found(dataclasses.replace(found, provider_reference=notice.modification_reference))
        return {}


def _operation(
    operations: Sequence[Operation], attempt: Attempt, kind: OperationKind, notice: Notice
) -> Operation | None:
    """The operation that a notice is about: by our key, by the provider's id, or the only one it can be."""
    own = [each for each in operations if each.kind == kind and each.attempt_id == attempt.id]
    for each in own:
        if notice.operation_key is not None and each.idempotency_key == notice.operation_key:
            return each
        if notice.modification_reference is not None and each.provider_reference == notice.modification_reference:
            return each
    if notice.operation_key is not None:
        return None
    # One that names none is about the one that is alive; else it is late news of one that came to nothing.
    unnamed = [
        each
        for each in own
        # A void by our own id has had an id of the provider's for each of its sends.
        if (each.provider_reference is None or each.asked_by == UNSEEN) and _may_be_nameless(each, attempt, notice)
    ]
    alive = [each for each in unnamed if each.state not in ("refused", "failed")]
    failed = [each for each in unnamed if each.state == "failed"]
    # That something was done can be late news of one that has failed since; of one in doubt a re-send tells as well.
    done = _OPERATIONS[notice.kind][1] == "done"
    for found in (failed, alive, unnamed) if done else (alive, failed, unnamed):
        if len(found) == 1:
            return found[0]
    return None


def _may_be_nameless(operation: Operation, attempt: Attempt, notice: Notice) -> bool:
    """Whether news of this operation can be without our key: if not, it is of what a person did in the dashboard."""
    match operation.kind:
        case "refund":
            return False  # every provider carries along whose refund it is
        case "capture":
            return notice.money is None or notice.money.amount == operation.amount
        case "void":
            # What names the attempt, and no key, is the cancel by our own id: that was sent where there was no other.
            by_our_id = operation.asked_by == UNSEEN or attempt.provider_reference is None
            return by_our_id and notice.attempt_id is not None
