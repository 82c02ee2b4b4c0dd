"""Finds out what is not known: attempts without an answer, operations without an answer, payments left behind.

A worker loop. It never guesses. An attempt in doubt is sent again under its own key while checkout still expects the
payment, looked up where the provider offers that, told by a webhook, or put before an operator. A payment that
checkout has given up on is looked up or voided, not charged an hour later. Every other authorization of a payment is
proved void before anything is captured.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog

from providers.contract import LookUpKind, ModificationKind, Provider
from router import settling, standing
from router.clock import Clock
from router.ledger.journal import Journal, Journals
from router.ledger.operations import IN_FORCE, UNSETTLED, Operation, OperationKind
from router.ledger.payments import Attempt, PaymentLedger, StaleError
from router.ledger.unavailable import LedgerUnavailableError
from router.sending import Sender, learned, says_more
from router.settling import NOTHING_TO_VOID, settle

log = structlog.get_logger("router.resolver")

KEY_LIVES = dt.timedelta(hours=23)
"""Providers forget idempotency keys after 24 h: a re-send after that would be a new charge."""
ROUND = 100
AT_ONCE = 8
"""Payments resolved at the same time, so that one hanging provider does not hold up the rest."""
HELD_DEAD_AFTER = dt.timedelta(minutes=15)
"""A given-up attempt that the provider's records do not have so long after its last send is taken to be nothing;
an approval that arrives all the same is voided or refunded, with an alert."""

UNDONE_AT_MOST = 5
"""Voids or refunds of one attempt that the router asks for by itself: what five do not undo, a person must."""


@dataclass(frozen=True, slots=True)
class ResolverSettings:
    """Bounds, in seconds."""

    deadline_s: float
    """For all the calls of one payment's round."""
    resend_max_age_s: float
    """Since checkout's last contact; a re-send is a command, so not after checkout has given up."""


class Resolver:
    """A worker loop; any number may run."""

    def __init__(
        self,
        *,
        ledger: PaymentLedger,
        journals: Journals,
        sender: Sender,
        providers: Mapping[str, Provider],
        settings: ResolverSettings,
        clock: Clock,
        run_all: Callable[[Callable[[str], bool], list[str]], list[bool]] | None = None,
    ) -> None:
        self._ledger = ledger
        self._journals = journals
        self._sender = sender
        self._providers = providers
        self._settings = settings
        self._clock = clock
        self._run_all = run_all or _in_threads

    def run_once(self) -> int:
        """Take up what is due. Answers how many payments are resolved by it."""
        due = list(self._ledger.due_unresolved(self._clock.now(), limit=ROUND))
        return sum(self._run_all(self._guarded, due)) if due else 0

    def _guarded(self, payment_id: str) -> bool:
        try:
            return self.resolve(payment_id)
        except (StaleError, LedgerUnavailableError):
            return False  # somebody else took it up, or nobody can now: it stays due
        except Exception:
            log.exception("not_resolved", payment=payment_id)
            return False

    def resolve(self, payment_id: str) -> bool:
        """One round for one payment; whether nothing is left in doubt. Raises StaleError, LedgerUnavailableError."""
        loaded = self._ledger.load(payment_id)
        now = self._clock.now()
        if loaded is None or loaded[0].in_progress(now):
            return False
        journal = self._journals.open(*loaded)
        journal.claim()
        deadline = self._clock.monotonic() + self._settings.deadline_s
        for attempt in list(journal.attempts):
            if not attempt.is_settled:
                self._find_out(journal, attempt, deadline)
        for operation in list(journal.operations):
            if operation.state in UNSETTLED:
                self._send_again(journal, operation, deadline)
        self._void_orphans(journal, deadline)
        given_up = standing.given_up(journal.payment, now, self._settings.resend_max_age_s)
        if not given_up:
            self._capture_if_due(journal, deadline)
        return settle(journal, event="resolving", now=self._clock.now(), tried=True, given_up=given_up)

    # ------------------------------------------------------------ an attempt in doubt

    def _find_out(self, journal: Journal, attempt: Attempt, deadline: float) -> None:
        now = self._clock.now()
        provider = self._providers[attempt.provider]
        max_age_s = self._settings.resend_max_age_s
        expected = journal.payment.status == "processing" and not standing.given_up(journal.payment, now, max_age_s)
        pending = attempt.provider_reference is not None
        if expected and not pending and now - attempt.started_at < KEY_LIVES:
            attempt, outcome = self._sender.resend(attempt, deadline - self._clock.monotonic())
            journal.learned(attempt)
            if says_more(outcome):
                return
        found = provider.look_up(
            attempt.id,
            provider_reference=attempt.provider_reference,
            sent_from=attempt.started_at,
            sent_until=now,
            timeouts=self._sender.timeouts(max(1.0, deadline - self._clock.monotonic())),
        )
        if found.kind is LookUpKind.FOUND and found.outcome is not None and says_more(found.outcome):
            journal.learned(learned(attempt, found.outcome, now))
            return
        chosen = journal.payment.attempt_id == attempt.id
        if chosen and expected:
            return  # it may still be approved: only a payment given up, or an orphan, is voided
        # Until then it may have been sent again, by a request that was still expected.
        sent_last = max(attempt.started_at, journal.payment.contact_at + dt.timedelta(seconds=max_age_s))
        found_nothing = found.kind is LookUpKind.NOT_FOUND or (
            # Where there is no look-up, the provider has said so of a void.
            found.kind is LookUpKind.UNSUPPORTED and attempt.reason == NOTHING_TO_VOID
        )
        if found_nothing and not expected and not pending and now - sent_last > HELD_DEAD_AFTER:
            log.error("held_dead", payment=journal.payment.id, attempt=attempt.id, provider=attempt.provider)
            journal.learned(dataclasses.replace(attempt, outcome="not_executed", reason="held_dead", finished_at=now))
        elif found.kind is LookUpKind.UNSUPPORTED:
            self._void_unseen(attempt, provider, deadline, number=journal.payment.resolve_tries)

    def _void_unseen(self, attempt: Attempt, provider: Provider, deadline: float, *, number: int) -> None:
        """Ask to void by our own id; only the provider's notification confirms it, so nothing is learned here.

        Each round asks anew: the void before may have come ahead of the authorization.
        """
        asked = provider.void_attempt(
            attempt.id,
            idempotency_key=f"{attempt.id}-void-{number}",
            timeouts=self._sender.timeouts(max(1.0, deadline - self._clock.monotonic())),
        )
        if asked.kind is ModificationKind.REFUSED:
            log.warning("void_refused", attempt=attempt.id, reason=asked.reason)

    # ------------------------------------------------------------ operations

    def _send_again(self, journal: Journal, operation: Operation, deadline: float) -> None:
        attempt = next(each for each in journal.attempts if each.id == operation.attempt_id)
        if self._clock.now() - operation.started_at > KEY_LIVES:
            return  # the provider no longer knows the key: a person has to look (`attention`)
        operation = self._sender.operate(operation, attempt, journal.payment.currency, deadline, again=True)
        self._note(journal, attempt, operation)

    def _void_orphans(self, journal: Journal, deadline: float) -> None:
        """Release every approval, and every wait for the customer, that the payment does not stand on."""
        chosen = settling.chosen(journal)
        for orphan in standing.orphans(chosen.id if chosen else None, journal.attempts, journal.operations):
            if orphan.outcome not in ("approved", "requires_action"):
                continue
            taken = standing.captured(journal.payment.amount, orphan, journal.operations)
            kind: OperationKind = "refund" if taken else "void"
            asked = [each for each in _of(journal, orphan) if each.kind == kind]
            if any(each.state in (*UNSETTLED, *IN_FORCE) for each in asked) or len(asked) >= UNDONE_AT_MOST:
                continue
            log.error("orphan_approval", payment=journal.payment.id, attempt=orphan.id, action=kind)
            amount = taken or journal.payment.amount
            operation = self._journals.operation(journal, orphan, kind, amount, asked_by="router: orphan")
            journal.ask(operation)
            self._note(journal, orphan, self._sender.operate(operation, orphan, journal.payment.currency, deadline))

    def _capture_if_due(self, journal: Journal, deadline: float) -> None:
        """The second call of a payment that was authorized first, once no other authorization is left."""
        chosen = settling.chosen(journal)
        if chosen is None or chosen.outcome != "approved" or chosen.capture is not None:
            return
        if journal.payment.capture_mode != "automatic":
            return
        if standing.orphans(chosen.id, journal.attempts, journal.operations):
            return
        if any(each.kind == "capture" or each.state in (*UNSETTLED, *IN_FORCE) for each in _of(journal, chosen)):
            return  # captured, or not any more ours to capture; a void that was refused is no reason to wait
        operation = self._journals.operation(journal, chosen, "capture", journal.payment.amount, asked_by="router")
        journal.ask(operation)
        self._note(journal, chosen, self._sender.operate(operation, chosen, journal.payment.currency, deadline))

    def _note(self, journal: Journal, attempt: Attempt, operation: Operation) -> None:
        journal.learned(operation)
        if operation.state == "done" and operation.kind == "void":
            journal.learned(dataclasses.replace(attempt, outcome="canceled", finished_at=self._clock.now()))


def _of(journal: Journal, attempt: Attempt) -> list[Operation]:
    return [each for each in journal.operations if each.attempt_id == attempt.id]


def _in_threads(task: Callable[[str], bool], payment_ids: list[str]) -> list[bool]:
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="resolver") as pool:
        return list(pool.map(task, payment_ids))
