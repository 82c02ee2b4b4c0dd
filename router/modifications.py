"""Capture, cancel, refund: what checkout asks of a payment that it has. Idempotent by key, refused by state.

Each is committed before its call, under the payment's lease, and sent under a key of its own; one whose answer is
lost is sent again by the resolver until it is known.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import structlog

from providers.contract import OutcomeKind
from router import doubts, standing
from router.clock import Clock
from router.doubts import Doubt
from router.ledger.journal import Journal, Journals
from router.ledger.operations import CHECKOUT, UNSEEN, UNSETTLED, OperationKind, OperationState
from router.ledger.payments import PaymentLedger
from router.ledger.records import Attempt, KeyTakenError, NewKey, Payment, StaleError
from router.ledger.unavailable import LedgerUnavailableError
from router.payments import (
    Answer,
    IdempotencyKeyReusedError,
    PaymentBusyError,
    PaymentRefusedError,
    RequestInProgressError,
)
from router.sending import Sender, is_doubtful_completion, learned, step_of
from router.settling import BY_OPERATOR, settle

log = structlog.get_logger("router.modifications")

Asked = Literal["capture", "cancel", "refund", "complete", "resolve"]
Verdict = Literal["approved", "declined", "canceled", "not_executed"]
"""What a provider's dashboard can say of an attempt in doubt; `not_executed`: it has nothing of it.

Of an approval that is in the way, `approved`: it is still there, so its provider is asked anew to release it or pay
it back; anything else: that is done.
"""


class NoSuchPaymentError(PaymentRefusedError):
    """There is no such payment of this merchant."""


class StateConflictError(PaymentRefusedError):
    """The payment's state does not allow it; the message names the state, and `status` is it."""

    def __init__(self, status: str, why: str, in_doubt: Sequence[Doubt] = ()) -> None:
        super().__init__(f"The payment is {status}: {why}")
        self.status = status
        self.in_doubt = [each.id for each in in_doubt]
        """Ids of what an operator can name."""


class WrongReferenceError(PaymentRefusedError):
    """What an operator gave as a provider's id of a payment cannot be one of that provider's."""


@dataclass(frozen=True, slots=True)
class _Request:
    """One call of checkout's."""

    asked: Asked
    payment_id: str
    what: Any
    """The amount, or whatever else the call carries, as a JSON value."""
    key: str

    def fingerprint(self) -> str:
        """A digest of what is asked: two calls under one key must agree on it."""
        asked = json.dumps([self.asked, self.payment_id, self.what], sort_keys=True)
        return hashlib.sha256(asked.encode()).hexdigest()

    @property
    def new_key(self) -> NewKey:
        """The key that this call consumes."""
        return NewKey(self.key, self.fingerprint())


@dataclass(frozen=True, slots=True)
class _Told:
    """What an operator says of one thing in doubt."""

    verdict: Verdict
    evidence: str
    reference: str | None
    about: str | None
    by: str


class Modifications:
    """Changes payments that exist. Thread-safe; holds no transaction while a provider is called."""

    def __init__(
        self, *, ledger: PaymentLedger, journals: Journals, sender: Sender, deadline_s: float, clock: Clock
    ) -> None:
        self._ledger = ledger
        self._journals = journals
        self._sender = sender
        self._deadline_s = deadline_s
        self._clock = clock

    def capture(self, merchant: str, payment_id: str, amount: int | None, *, key: str) -> Answer:
        """Take an authorized payment's money, or part of it, once.

        Raises a PaymentRefusedError or LedgerUnavailableError; then nothing was sent.
        """
        request = _Request("capture", payment_id, amount, key)
        return self._do(
            merchant, request, lambda journal, deadline: self._operate(journal, deadline, request, "capture")
        )

    def cancel(self, merchant: str, payment_id: str, *, key: str) -> Answer:
        """Release a payment of which nothing is captured. Raises as `capture`."""
        request = _Request("cancel", payment_id, None, key)
        return self._do(
            merchant, request, lambda journal, deadline: self._operate(journal, deadline, request, "void")
        )

    def refund(self, merchant: str, payment_id: str, amount: int | None, *, key: str) -> Answer:
        """Pay a captured payment back, or part of it. Raises as `capture`."""
        request = _Request("refund", payment_id, amount, key)
        return self._do(
            merchant, request, lambda journal, deadline: self._operate(journal, deadline, request, "refund")
        )

    def complete(self, merchant: str, payment_id: str, details: Mapping[str, str], *, key: str) -> Answer:
        """Finish after the customer's 3-D Secure step, at the same provider always. Raises as `capture`.

        While it is in doubt whether the provider has done so, the same call sends the same details again.
        """
        request = _Request("complete", payment_id, dict(details), key)
        return self._do(
            merchant,
            request,
            lambda journal, deadline: self._complete(journal, deadline, details, request),
            is_open=lambda answer: _is_in_doubt(answer, step_of(details)),
        )

    def resolve(
        self,
        merchant: str,
        payment_id: str,
        verdict: Verdict,
        evidence: str,
        reference: str | None,
        *,
        key: str,
        about: str | None = None,
        by: str = "",
    ) -> Answer:
        """An operator says what the provider's dashboard says of what is in doubt. Raises as `capture`.

        `about`: the attempt or operation that it is said of; needed where more than one is in doubt.
        `by`: who says it.
        """
        said = [verdict, evidence, reference] if about is None else [verdict, evidence, reference, about]
        request = _Request("resolve", payment_id, said, key)
        told = _Told(verdict, evidence, reference, about, by)
        return self._do(merchant, request, lambda journal, _deadline: self._resolve(journal, told, request))

    # ------------------------------------------------------------ within

    def _do(
        self,
        merchant: str,
        request: _Request,
        act: Callable[[Journal, float], None],
        *,
        is_open: Callable[[Answer], bool] = lambda _answer: False,
    ) -> Answer:
        """`is_open`: whether a call that was answered before has to be made again."""
        # From before the first commit on, so that it lies inside the lease: a process that is paused after a commit,
        # until somebody else has taken the payment over, finds no time left when it wakes, and sends nothing.
        deadline = self._clock.monotonic() + self._deadline_s
        replay = self._replay(merchant, request)
        if replay is not None and not is_open(replay):
            return replay
        loaded = self._ledger.load(request.payment_id)
        if loaded is None or loaded[0].merchant != merchant:
            raise NoSuchPaymentError
        if loaded[0].in_progress(self._clock.now()):
            raise PaymentBusyError
        journal = self._journals.open(*loaded)
        try:
            act(journal, deadline)
        except (KeyTakenError, StateConflictError) as refusal:
            # The same call, sent twice in the same instant: the other one does it, or has just done it.
            replay = self._replay(merchant, request)
            if replay is not None:
                return replay
            if isinstance(refusal, StateConflictError):
                raise
            raise RequestInProgressError from None
        except StaleError:
            # The resolver, a webhook or another call came in between.
            raise PaymentBusyError from None
        return Answer(journal.payment, journal.attempts)

    def _operate(self, journal: Journal, deadline: float, request: _Request, kind: OperationKind) -> None:
        if kind == "void" and journal.payment.status == "parked":
            journal.finish({"status": "canceled", "next_try_at": None}, event="canceled", key=request.new_key)
            return
        attempt = self._attempt(journal)
        amount = _allowed(journal, attempt, request)
        operation = self._journals.operation(journal, attempt, kind, amount, asked_by=CHECKOUT)
        journal.ask(operation, request.new_key)
        operation = self._sender.operate(operation, attempt, journal.payment.currency, deadline)
        journal.learned(operation)
        self._settle(journal, f"{kind}_{operation.state}")

    def _complete(self, journal: Journal, deadline: float, details: Mapping[str, str], request: _Request) -> None:
        attempt = self._attempt(journal)
        if journal.payment.status != "requires_action":
            raise StateConflictError(journal.payment.status, "no step of the customer's is awaited.")
        # Written before it is sent, as everything is: a process that dies now leaves a doubt, and not a customer who
        # is asked to pay again.
        journal.learned(dataclasses.replace(attempt, reason=standing.COMPLETING + step_of(details)))
        known = self._ledger.find_key(journal.payment.merchant, request.key)
        # The customer has just been at checkout: it expects the payment.
        journal.claim(request.new_key if known is None else None, contact_at=self._clock.now())
        outcome = self._sender.complete(attempt, details, deadline)
        if outcome.kind is not OutcomeKind.UNKNOWN:
            # Of a payment that waited for its customer, "not executed" is said by the provider, and final.
            journal.learned(learned(attempt, outcome, self._clock.now()))
        elif not is_doubtful_completion(outcome):
            journal.learned(attempt)  # refused: it stands as it stood
        self._settle(journal, f"completed_{outcome.kind.value}", nothing="failed")

    def _settle(self, journal: Journal, event: str, **more: Any) -> None:
        """Commit what a provider has answered. A ledger that is away cannot undo it: the resolver asks again."""
        now = self._clock.now()
        try:
            settle(journal, event=event, now=now, **more)
        except LedgerUnavailableError:
            log.exception("answer_not_written", payment=journal.payment.id)
            journal.payment = dataclasses.replace(journal.payment, resolve_at=now)

    def _resolve(self, journal: Journal, told: _Told, request: _Request) -> None:
        doubt, now = self._doubt(journal, told.about), self._clock.now()
        subject = {"attempt" if doubt.operation is None else "operation": doubt.id}
        if doubt.operation is None:
            self._resolve_attempt(journal, doubt.attempt, told)
        else:
            # `not_executed` and `declined` say that it was not done. A void is done when its payment is canceled; a
            # canceled capture or refund took nothing.
            operation = doubt.operation
            if operation.asked_by == UNSEEN and told.verdict == "approved":
                # Of a void by our own id: does it stand, or was it released? A wrong guess leaves it held for nobody.
                raise StateConflictError(
                    journal.payment.status,
                    "say `canceled` if its authorization was released, `not_executed` if it stands.",
                    [doubt],
                )
            done = told.verdict == "approved" or (told.verdict == "canceled" and operation.kind == "void")
            state: OperationState = "done" if done else "refused"
            journal.learned(dataclasses.replace(operation, state=state, reason=BY_OPERATOR, finished_at=now))
            if done and operation.kind == "void":
                journal.learned(dataclasses.replace(doubt.attempt, outcome="canceled", finished_at=now))
        log.warning("resolved_by_operator", payment=journal.payment.id, outcome=told.verdict, **subject)
        journal.noted({**subject, "outcome": told.verdict, "evidence": told.evidence, "by": told.by})
        settle(journal, event="resolved_by_operator", now=now, key=request.new_key)

    def _doubt(self, journal: Journal, about: str | None) -> Doubt:
        """What a verdict is about."""
        status = journal.payment.status
        found = doubts.of_payment(journal.payment, journal.attempts, journal.operations)
        if about is not None:
            for each in found:
                if each.id == about:
                    return each
            raise StateConflictError(status, "that is not in doubt.", found)
        if not found:
            raise StateConflictError(status, "nothing of it is in doubt.")
        if len(found) > 1:
            raise StateConflictError(status, "more than one thing is in doubt: name the one that is meant.", found)
        return found[0]

    def _resolve_orphan(self, journal: Journal, orphan: Attempt, told: _Told) -> None:
        """An approval that is not the payment's: it was released or paid back, or the provider is asked anew."""
        asked = doubts.undoing(orphan, journal.operations)
        received = [each for each in asked if each.state == "received"]
        now, gone = self._clock.now(), told.verdict != "approved"
        if not gone and not received:
            raise StateConflictError(journal.payment.status, "that it is approved is known; was it released?")
        for each in received:
            state: OperationState = "done" if gone else "refused"
            journal.learned(dataclasses.replace(each, state=state, reason=BY_OPERATOR, finished_at=now))
        amount = journal.payment.amount
        taken = standing.captured(amount, orphan, journal.operations)
        paid_back = taken and standing.is_undone(amount, orphan, journal.operations)
        if gone and not paid_back:
            outcome = told.verdict
            journal.learned(dataclasses.replace(orphan, outcome=outcome, reason=BY_OPERATOR, finished_at=now))

    def _resolve_attempt(self, journal: Journal, attempt: Attempt, told: _Told) -> None:
        if told.reference is not None and not self._sender.is_reference(attempt.provider, told.reference):
            raise WrongReferenceError
        reference = told.reference or attempt.provider_reference
        if attempt.outcome == "approved":
            self._resolve_orphan(journal, attempt, told)
            return
        if told.verdict == "approved" and reference is None:
            raise StateConflictError(journal.payment.status, "an approval needs the provider's reference.")
        journal.learned(
            dataclasses.replace(
                attempt,
                outcome=told.verdict,
                reason=BY_OPERATOR,
                provider_reference=reference,
                capture="done" if told.verdict == "approved" and attempt.at_once else attempt.capture,
                finished_at=self._clock.now(),
            )
        )

    def _attempt(self, journal: Journal) -> Attempt:
        chosen = next((each for each in journal.attempts if each.id == journal.payment.attempt_id), None)
        if chosen is None:
            raise StateConflictError(journal.payment.status, "no provider holds it.")
        return chosen

    def _replay(self, merchant: str, request: _Request) -> Answer | None:
        known = self._ledger.find_key(merchant, request.key)
        if known is None:
            return None
        if known[0] != request.fingerprint():
            raise IdempotencyKeyReusedError
        found = self._ledger.get(known[1])
        if found is None or found[0].in_progress(self._clock.now()):
            raise RequestInProgressError
        return Answer(*found, replayed=True)


def _is_in_doubt(answer: Answer, step: str) -> bool:
    """Whether the provider may have taken that step of the customer's, for all that is known."""
    payment = answer.payment
    return payment.status == "requires_action" and any(
        each.id == payment.attempt_id and standing.is_completing(each) and each.reason == standing.COMPLETING + step
        for each in answer.attempts
    )


def _allowed(journal: Journal, attempt: Attempt, request: _Request) -> int:
    """The amount to send. Raises StateConflictError where the state, or what is left, does not allow it."""
    payment, operations = journal.payment, journal.operations
    pending = [each for each in operations if each.state in UNSETTLED and each.attempt_id == attempt.id]
    match request.asked:
        case "capture":
            if payment.status != "authorized" or any(each.kind == "void" for each in pending):
                raise StateConflictError(payment.status, "only an authorized payment can be captured.")
            if standing.promised("capture", attempt, operations):
                raise StateConflictError(payment.status, "it is being captured.")
            return _within(payment, request, payment.amount, "authorized")
        case "cancel":
            if payment.status not in ("authorized", "requires_action") or pending:
                raise StateConflictError(payment.status, "only an authorization can be canceled.")
            return payment.amount
        case "refund":
            if payment.status != "captured":
                raise StateConflictError(payment.status, "only a captured payment can be refunded.")
            left = payment.amount_captured - standing.promised("refund", attempt, operations)
            return _within(payment, request, left, "captured and not refunded")
        case _:
            raise AssertionError(request.asked)


def _within(payment: Payment, request: _Request, left: int, what: str) -> int:
    amount = left if request.what is None else request.what
    if not 0 < amount <= left:
        raise StateConflictError(payment.status, f"more is asked than is {what}.")
    return amount
