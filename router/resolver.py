"""Finds out what is not known: attempts without an answer, operations without an answer, payments left behind.

A worker loop. It never guesses. An attempt in doubt is sent again under its own key while checkout still expects the
payment, and looked up where the provider offers that; an operation in doubt likewise. What neither tells, a webhook
does (`router.notices`) or an operator, who is asked after an hour. Of a payment that checkout has given up on nothing
is sent again that could charge: its attempts and its capture are looked up, voided and refunded. Every other
authorization of a payment is proved void before anything is captured, and nothing is captured that may yet be void.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog

from providers.contract import LookUp, LookUpKind, OutcomeKind, Provider
from router import settling, standing
from router.clock import Clock
from router.ledger.journal import Journal, Journals
from router.ledger.operations import IN_FORCE, UNSEEN, UNSETTLED, Operation, OperationKind, OperationState
from router.ledger.payments import PaymentLedger
from router.ledger.records import Attempt, StaleError
from router.ledger.unavailable import LedgerUnavailableError
from router.sending import HELD_BACK, LEAST_TIME_S, Sender, learned, says_more
from router.settling import ATTENTION_AFTER, HELD_DEAD, IN_DOUBT, NOTHING_TO_VOID, settle

log = structlog.get_logger("router.resolver")

KEY_LIVES = dt.timedelta(hours=23)
"""Providers forget idempotency keys after 24 h: a re-send after that would be a new charge."""
ROUND = 100
AT_ONCE = 8
"""Payments resolved at the same time, so that one hanging provider does not hold up the rest."""
HELD_BACK_AT_MOST = dt.timedelta(minutes=10)
"""A payment whose provider's circuit is open has a round all the same after so long: not all of it may be there, and
a person is asked in the end."""
HELD_DEAD_AFTER = dt.timedelta(minutes=15)
"""A given-up attempt that the provider's records do not have so long after its last send is taken to be nothing;
an approval that arrives all the same is voided or refunded, with an alert."""

CAPTURE = "router"
"""Who asked for the capture of an automatic payment that was authorized first."""
ORPHAN = "router: orphan"
"""Who asked to void or refund an approval that is not the payment's."""
UNDONE_AT_MOST = 5
"""Voids or refunds of one orphan that the router asks for by itself: what five do not undo, a person must."""
LOOKED_UP = "looked_up"
"""The reason of what the provider's record of the payment says of an operation."""
NOT_UNDONE = "an authorization that is not the payment's could not be released: ask its provider, then resolve"
KEY_FORGOTTEN = "a capture, void or refund is in doubt, and too old to be sent again: ask the provider, then resolve"


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
        held_back: Callable[[], Collection[str]] = frozenset,
        run_all: Callable[[Callable[[str], bool], list[str]], list[bool]] | None = None,
    ) -> None:
        """`held_back`: the providers that are not to be asked now, as their circuits are open."""
        self._ledger = ledger
        self._journals = journals
        self._sender = sender
        self._providers = providers
        self._settings = settings
        self._clock = clock
        self._held_back = held_back
        self._run_all = run_all or _in_threads

    def run_once(self) -> int:
        """Take up what is due. Answers how many payments are resolved by it."""
        now = self._clock.now()
        # They stay due, so that they are the first thing to be found out once their provider is well.
        waiting, overdue = sorted(self._held_back()), now - HELD_BACK_AT_MOST
        due = list(self._ledger.due_unresolved(now, limit=ROUND, not_at=waiting, overdue=overdue))
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
        given_up = standing.given_up(journal.payment, now, self._settings.resend_max_age_s)
        # From this commit on it is for good: a void of ours must not meet a re-send of ours.
        first_time = given_up and journal.payment.given_up_at is None
        if not given_up:
            for attempt in journal.attempts:
                if self._may_be_sent_again(journal, attempt, now):
                    # As with everything that is sent: that it may have been now is written first.
                    journal.learned(dataclasses.replace(attempt, last_sent_at=now))
        sent_again = {each.id for each in journal.operations if self._may_be_operated_again(journal, each, given_up)}
        for operation in journal.operations:
            if operation.id in sent_again:
                journal.learned(dataclasses.replace(operation, sends=operation.sends + 1))
        # Before the commit: so it lies inside the lease, however long that commit takes.
        deadline = self._clock.monotonic() + self._settings.deadline_s
        journal.claim(given_up_at=now if first_time else None)
        for attempt in list(journal.attempts):
            if not attempt.is_settled:
                self._find_out(journal, attempt, deadline)
            elif standing.is_completing(attempt) and journal.payment.status == "requires_action":
                self._look_for_completion(journal, attempt, deadline)
        for operation in list(journal.operations):
            if operation.state in UNSETTLED:
                self._go_on(journal, operation, deadline, may_be_sent=operation.id in sent_again)
        self._void_orphans(journal, deadline)
        if not given_up:
            self._capture_if_due(journal, deadline)
        end = self._clock.now()
        attention = self._attention(journal, end)
        return settle(journal, event="resolving", now=end, tried=True, given_up=given_up, attention=attention)

    def _attention(self, journal: Journal, now: dt.datetime) -> str | None:
        """Why the machine cannot end this by itself, if so."""
        for each in journal.operations:
            if each.state in UNSETTLED and each.asked_by != UNSEEN and _is_key_forgotten(each, now):
                return KEY_FORGOTTEN
        chosen = settling.chosen(journal)
        payment = journal.payment
        if chosen is not None and chosen.outcome == "approved":
            for each in standing.unseen_voids(chosen, journal.operations):
                if now - each.started_at > ATTENTION_AFTER and payment.attention is None:
                    return IN_DOUBT
        for orphan in standing.orphans(
            payment.amount, chosen.id if chosen else None, journal.attempts, journal.operations
        ):
            tried = [each for each in _of(journal, orphan) if each.asked_by == ORPHAN]
            pending = any(each.state in (*UNSETTLED, "received") for each in tried)
            if len(tried) >= UNDONE_AT_MOST and not pending:
                return NOT_UNDONE
        return None

    # ------------------------------------------------------------ an attempt in doubt

    def _look_for_completion(self, journal: Journal, attempt: Attempt, deadline: float) -> None:
        """The answer to the customer's step was lost. Checkout may send it again; the provider's record may say."""
        found = self._look_up(attempt, deadline)
        if found.kind is LookUpKind.FOUND and found.outcome is not None and says_more(found.outcome):
            journal.learned(learned(attempt, found.outcome, self._clock.now()))

    def _find_out(self, journal: Journal, attempt: Attempt, deadline: float) -> None:
        now = self._clock.now()
        max_age_s = self._settings.resend_max_age_s
        # A payment that became too old in this round is given up in the next one, by a commit of its own.
        expected = _is_expected(journal)
        pending = attempt.provider_reference is not None
        if self._may_be_sent_again(journal, attempt, now):
            attempt, outcome = self._sender.resend(attempt, deadline - self._clock.monotonic())
            journal.learned(attempt)
            if says_more(outcome):
                return
        found = self._look_up(attempt, deadline)
        if found.kind is LookUpKind.FOUND and found.outcome is not None and says_more(found.outcome):
            journal.learned(learned(attempt, found.outcome, now))
            return
        chosen = journal.payment.attempt_id == attempt.id
        if chosen and expected:
            return  # it may still be approved: only a payment given up, or an orphan, is voided
        # Until then it may have been sent again, by a worker that still expected it to be wanted.
        until = journal.payment.contact_at + dt.timedelta(seconds=max_age_s)
        sent_last = max(attempt.last_sent_at or attempt.started_at, min(until, journal.payment.given_up_at or until))
        found_nothing = found.kind is LookUpKind.NOT_FOUND or (
            # Where there is no look-up, the provider has said so of a void.
            found.kind is LookUpKind.UNSUPPORTED and attempt.reason == NOTHING_TO_VOID
        )
        if found_nothing and not expected and not pending and now - sent_last > HELD_DEAD_AFTER:
            log.error("held_dead", payment=journal.payment.id, attempt=attempt.id, provider=attempt.provider)
            journal.learned(dataclasses.replace(attempt, outcome="not_executed", reason=HELD_DEAD, finished_at=now))
        elif found.kind is LookUpKind.UNSUPPORTED:
            self._void_unseen(journal, attempt, deadline)

    def _may_be_sent_again(self, journal: Journal, attempt: Attempt, now: dt.datetime) -> bool:
        in_doubt = not attempt.is_settled and attempt.provider_reference is None
        chosen = settling.chosen(journal)
        if chosen is not None and chosen.id == attempt.id and standing.unseen_voids(attempt, journal.operations):
            return False  # what it would be approved for could be void a moment later
        return in_doubt and _is_expected(journal) and now - attempt.started_at < KEY_LIVES

    def _look_up(self, attempt: Attempt, deadline: float) -> LookUp:
        """How the attempt stands in the provider's own records.

        Around its sends, and not until now: that would be more to read the longer it is waited for.
        """
        # A request that died has left no more than when it began.
        sent_last = attempt.last_sent_at or attempt.started_at + dt.timedelta(seconds=self._settings.deadline_s)
        left_s = deadline - self._clock.monotonic()
        if left_s < LEAST_TIME_S / 2:
            return LookUp(LookUpKind.UNAVAILABLE, reason="no_time_left")
        with self._sender.place(attempt.provider) as free:
            if not free:
                return LookUp(LookUpKind.UNAVAILABLE, reason=HELD_BACK)  # it stays due
            return self._providers[attempt.provider].look_up(
                attempt.id,
                provider_reference=attempt.provider_reference,
                sent_from=attempt.started_at,
                sent_until=sent_last,
                timeouts=self._sender.timeouts(left_s),
            )

    def _void_unseen(self, journal: Journal, attempt: Attempt, deadline: float) -> None:
        """Ask to void by our own id. Only the provider's notification confirms it, so the attempt stays in doubt.

        Each round asks anew, under another key: the void before may have come ahead of the authorization. It is one
        operation all the same, and each asking is committed before it is sent, as everything that is sent is.
        """
        asked = [each for each in _of(journal, attempt) if each.asked_by == UNSEEN]
        if asked:
            operation = dataclasses.replace(
                asked[-1],
                idempotency_key=f"{asked[-1].id}-{asked[-1].sends}",
                state="started",
                reason=None,
                provider_reference=None,
                sends=asked[-1].sends + 1,
                finished_at=None,
            )
            journal.learned(operation)
            journal.claim()
        else:
            operation = self._journals.operation(journal, attempt, "void", journal.payment.amount, asked_by=UNSEEN)
            journal.ask(operation)
        operation = self._sender.operate(operation, attempt, journal.payment.currency, deadline)
        if operation.state == "refused":
            log.warning("void_refused", attempt=attempt.id, reason=operation.reason)
            operation = standing.send_failed(operation, f"refused {operation.sends}", "refused")
        journal.learned(operation)

    # ------------------------------------------------------------ operations

    def _may_be_operated_again(self, journal: Journal, operation: Operation, given_up: bool) -> bool:
        if operation.state not in UNSETTLED or operation.asked_by == UNSEEN:
            return False
        if operation.kind == "capture" and operation.asked_by == CAPTURE:
            # It would take the money of a payment that checkout expects no more, only for it to be paid back.
            chosen = settling.chosen(journal)
            if given_up or chosen is None or chosen.id != operation.attempt_id:
                return False
        return not _is_key_forgotten(operation, self._clock.now())

    def _go_on(self, journal: Journal, operation: Operation, deadline: float, *, may_be_sent: bool) -> None:
        """With an operation in doubt. `may_be_sent`: and this send is counted, and committed."""
        attempt = next(each for each in journal.attempts if each.id == operation.attempt_id)
        if _is_overtaken(journal, attempt, operation):
            now = self._clock.now()
            journal.learned(dataclasses.replace(operation, state="refused", reason="overtaken", finished_at=now))
        elif operation.asked_by == UNSEEN:
            pass  # it is asked anew, as long as it is not known what there is to void
        elif may_be_sent:
            operation = self._sender.operate(operation, attempt, journal.payment.currency, deadline)
            self._note(journal, attempt, operation)
        else:
            self._look_back(journal, attempt, operation, deadline)

    def _look_back(self, journal: Journal, attempt: Attempt, operation: Operation, deadline: float) -> None:
        """What the provider's record says of the payment settles a void or the one capture, without another send.

        Of a refund it says too little: a person has to look (`attention`).
        """
        told = self._look_up(attempt, deadline).outcome
        same = [each for each in _of(journal, attempt) if each.kind == operation.kind and each.state != "refused"]
        if told is None or operation.kind == "refund" or len(same) > 1:
            return
        now = self._clock.now()
        match told.kind:
            case OutcomeKind.CANCELED:
                done = operation.kind == "void"
                attempt = learned(attempt, told, now)
                journal.learned(attempt)
            case OutcomeKind.APPROVED:
                done = operation.kind == "capture" and told.captured
            case _:
                return
        state: OperationState = "done" if done else "refused"
        self._note(journal, attempt, dataclasses.replace(operation, state=state, reason=LOOKED_UP, finished_at=now))

    def _void_orphans(self, journal: Journal, deadline: float) -> None:
        """Release every approval, and every wait for the customer, that the payment does not stand on."""
        chosen, payment = settling.chosen(journal), journal.payment
        for orphan in standing.orphans(
            payment.amount, chosen.id if chosen else None, journal.attempts, journal.operations
        ):
            if orphan.outcome == "approved" and chosen and standing.unseen_voids(chosen, journal.operations):
                continue  # the payment may yet have to stand on this one
            if orphan.outcome in ("approved", "requires_action"):
                self._void_orphan(journal, orphan, deadline)

    def _void_orphan(self, journal: Journal, orphan: Attempt, deadline: float) -> None:
        payment, own = journal.payment, _of(journal, orphan)
        taken = standing.captured(payment.amount, orphan, own)
        kind: OperationKind = "refund" if taken else "void"
        # What somebody else has refunded of it, or is refunding, is not refunded again.
        amount = taken - standing.promised("refund", orphan, own) if taken else payment.amount
        if amount <= 0:
            return
        voids = [each for each in own if each.kind == "void" and each.state in (*UNSETTLED, *IN_FORCE)]
        voids = [each for each in voids if each.asked_by != UNSEEN]
        if kind == "void" and voids:
            self._look_after(journal, orphan, voids, deadline)
            return
        if kind == "void" and not self._is_capture_at_rest(orphan, own, deadline):
            return
        asked = [each for each in own if each.asked_by == ORPHAN]
        if any(each.state in ("refused", "failed") for each in asked):
            # It may be gone already: canceled in the provider's dashboard, or expired.
            found = self._look_up(orphan, deadline).outcome
            if found is not None and standing.is_news(orphan, found.kind.value):
                journal.learned(learned(orphan, found, self._clock.now()))
                return
            captures = [each for each in own if each.kind == "capture" and each.reason == LOOKED_UP]
            if found is not None and found.captured and captures and not taken:
                # It was under way when its record was looked at: what is captured is refunded, in the next round.
                journal.learned(dataclasses.replace(captures[-1], state="done"))
                return
        if len(asked) >= UNDONE_AT_MOST:
            return
        log.error("orphan_approval", payment=payment.id, attempt=orphan.id, action=kind)
        operation = self._journals.operation(journal, orphan, kind, amount, asked_by=ORPHAN)
        journal.ask(operation)
        self._note(journal, orphan, self._sender.operate(operation, orphan, payment.currency, deadline))

    def _look_after(self, journal: Journal, orphan: Attempt, voids: Sequence[Operation], deadline: float) -> None:
        """The news of a void that the provider has received should have come within an hour: it may be lost."""
        now = self._clock.now()
        late = [
            each
            for each in voids
            if each.state == "received" and now - (each.finished_at or each.started_at) > ATTENTION_AFTER
        ]
        found = self._look_up(orphan, deadline).outcome if late else None
        if found is None or not standing.is_news(orphan, found.kind.value):
            return
        journal.learned(learned(orphan, found, now))
        if found.kind is OutcomeKind.CANCELED:
            for each in late:
                journal.learned(dataclasses.replace(each, state="done", reason=LOOKED_UP, finished_at=now))

    def _is_capture_at_rest(self, orphan: Attempt, own: Sequence[Operation], deadline: float) -> bool:
        """Whether a void cannot meet a capture of ours. One that is not sent again was looked up before.

        Where the provider has no record to look at, the void finds out: it is refused if the capture was first.
        """
        captures = [each for each in own if each.kind == "capture" and each.state in UNSETTLED]
        if any(each.asked_by != CAPTURE for each in captures):
            return False
        nowhere = (LookUpKind.UNSUPPORTED, LookUpKind.NOT_FOUND)
        return not captures or self._look_up(orphan, deadline).kind in nowhere

    def _capture_if_due(self, journal: Journal, deadline: float) -> None:
        """The second call of a payment that was authorized first, once no other authorization is left."""
        chosen = settling.chosen(journal)
        if chosen is None or chosen.outcome != "approved" or chosen.capture is not None:
            return
        if journal.payment.capture_mode != "automatic":
            return
        if standing.orphans(journal.payment.amount, chosen.id, journal.attempts, journal.operations):
            return
        if standing.unseen_voids(chosen, journal.operations):
            return
        own = [each for each in _of(journal, chosen) if each.asked_by != UNSEEN]
        if any(each.kind == "capture" or each.state in (*UNSETTLED, *IN_FORCE) for each in own):
            return  # captured, or not any more ours to capture; a void that was refused is no reason to wait
        operation = self._journals.operation(journal, chosen, "capture", journal.payment.amount, asked_by=CAPTURE)
        journal.ask(operation)
        self._note(journal, chosen, self._sender.operate(operation, chosen, journal.payment.currency, deadline))

    def _note(self, journal: Journal, attempt: Attempt, operation: Operation) -> None:
        journal.learned(operation)
        if operation.state == "done" and operation.kind == "void":
            journal.learned(dataclasses.replace(attempt, outcome="canceled", finished_at=self._clock.now()))


def _is_expected(journal: Journal) -> bool:
    return journal.payment.status == "processing" and journal.payment.given_up_at is None


def _of(journal: Journal, attempt: Attempt) -> list[Operation]:
    return [each for each in journal.operations if each.attempt_id == attempt.id]


def _is_key_forgotten(operation: Operation, now: dt.datetime) -> bool:
    """Whether another send could do it a second time. Under a key that was never used it cannot."""
    return operation.sends > 0 and now - operation.started_at > KEY_LIVES


def _is_overtaken(journal: Journal, attempt: Attempt, operation: Operation) -> bool:
    """Whether what is known of the attempt says how an operation on it ends."""
    if operation.asked_by == UNSEEN:
        # What the payment stands on is not captured before it is known how the void ended.
        chosen = settling.chosen(journal)
        may_matter = attempt.outcome == "approved" and chosen is not None and chosen.id == attempt.id
        return attempt.is_settled and not (may_matter and operation.may_come)
    if operation.kind == "void":
        return standing.captured(journal.payment.amount, attempt, _of(journal, attempt)) > 0
    return operation.kind == "capture" and attempt.outcome == "canceled"


def _in_threads(task: Callable[[str], bool], payment_ids: list[str]) -> list[bool]:
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="resolver") as pool:
        return list(pool.map(task, payment_ids))
