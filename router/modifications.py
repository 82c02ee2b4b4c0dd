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
from router import settling, standing
from router.clock import Clock
from router.ledger.journal import Journal, Journals
from router.ledger.operations import UNSETTLED, OperationKind, OperationState
from router.ledger.payments import PaymentLedger
from router.ledger.records import Attempt, KeyTakenError, NewKey, Payment, StaleError
from router.ledger.unavailable import LedgerUnavailableError
from router.payments import Answer, IdempotencyKeyReusedError, PaymentRefusedError, RequestInProgressError
from router.sending import Sender, learned
from router.settling import settle

log = structlog.get_logger("router.modifications")

Asked = Literal["capture", "cancel", "refund", "complete", "resolve"]
Verdict = Literal["approved", "declined", "canceled", "not_executed"]
"""What a provider's dashboard can say of an attempt in doubt; `not_executed`: it has nothing of it."""


class NoSuchPaymentError(PaymentRefusedError):
    """There is no such payment of this merchant."""


class StateConflictError(PaymentRefusedError):
    """The payment's state does not allow it; the message names the state, and `status` is it."""

    def __init__(self, status: str, why: str) -> None:
        super().__init__(f"The payment is {status}: {why}")
        self.status = status


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
        return self._do(merchant, request, lambda journal: self._operate(journal, request, "capture"))

    def cancel(self, merchant: str, payment_id: str, *, key: str) -> Answer:
        """Release a payment of which nothing is captured. Raises as `capture`."""
        request = _Request("cancel", payment_id, None, key)
        return self._do(merchant, request, lambda journal: self._operate(journal, request, "void"))

    def refund(self, merchant: str, payment_id: str, amount: int | None, *, key: str) -> Answer:
        """Pay a captured payment back, or part of it. Raises as `capture`."""
        request = _Request("refund", payment_id, amount, key)
        return self._do(merchant, request, lambda journal: self._operate(journal, request, "refund"))

    def complete(self, merchant: str, payment_id: str, details: Mapping[str, str], *, key: str) -> Answer:
        """Finish after the customer's 3-D Secure step, at the same provider always. Raises as `capture`."""
        request = _Request("complete", payment_id, dict(details), key)
        return self._do(merchant, request, lambda journal: self._complete(journal, details, request))

    def resolve(
        self, merchant: str, payment_id: str, verdict: Verdict, evidence: str, reference: str | None, *, key: str
    ) -> Answer:
        """An operator says what the provider's dashboard says of the attempt in doubt. Raises as `capture`."""
        request = _Request("resolve", payment_id, [verdict, evidence, reference], key)
        return self._do(
            merchant, request, lambda journal: self._resolve(journal, verdict, evidence, reference, request)
        )

    # ------------------------------------------------------------ within

    def _do(self, merchant: str, request: _Request, act: Callable[[Journal], None]) -> Answer:
        replay = self._replay(merchant, request)
        if replay is not None:
            return replay
        loaded = self._ledger.load(request.payment_id)
        if loaded is None or loaded[0].merchant != merchant:
            raise NoSuchPaymentError
        if loaded[0].in_progress(self._clock.now()):
            raise RequestInProgressError
        journal = self._journals.open(*loaded)
        try:
            act(journal)
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
            raise RequestInProgressError from None
        return Answer(journal.payment, journal.attempts)

    def _operate(self, journal: Journal, request: _Request, kind: OperationKind) -> None:
        if kind == "void" and journal.payment.status == "parked":
            journal.finish({"status": "canceled", "next_try_at": None}, event="canceled", key=request.new_key)
            return
        attempt = self._attempt(journal)
        amount = _allowed(journal, attempt, request)
        operation = self._journals.operation(journal, attempt, kind, amount, asked_by="checkout")
        journal.ask(operation, request.new_key)
        deadline = self._clock.monotonic() + self._deadline_s
        operation = self._sender.operate(operation, attempt, journal.payment.currency, deadline)
        journal.learned(operation)
        self._settle(journal, f"{kind}_{operation.state}")

    def _complete(self, journal: Journal, details: Mapping[str, str], request: _Request) -> None:
        attempt = self._attempt(journal)
        if journal.payment.status != "requires_action":
            raise StateConflictError(journal.payment.status, "no step of the customer's is awaited.")
        journal.claim(request.new_key)
        outcome = self._sender.complete(attempt, details, self._clock.monotonic() + self._deadline_s)
        # Of a payment that waited for its customer, "not executed" is said by the provider, and final.
        final = (OutcomeKind.NOT_EXECUTED, OutcomeKind.REQUIRES_ACTION)  # the latter: one more step
        if standing.is_news(attempt.outcome, outcome.kind.value) or outcome.kind in final:
            journal.learned(learned(attempt, outcome, self._clock.now()))
        self._settle(journal, f"completed_{outcome.kind.value}", nothing="failed")

    def _settle(self, journal: Journal, event: str, **more: Any) -> None:
        """Commit what a provider has answered. A ledger that is away cannot undo it: the resolver asks again."""
        now = self._clock.now()
        try:
            settle(journal, event=event, now=now, **more)
        except LedgerUnavailableError:
            log.exception("answer_not_written", payment=journal.payment.id)
            journal.payment = dataclasses.replace(journal.payment, resolve_at=now)

    def _resolve(
        self, journal: Journal, verdict: Verdict, evidence: str, reference: str | None, request: _Request
    ) -> None:
        doubtful = _in_doubt(journal)
        if not doubtful:
            self._resolve_operation(journal, verdict, evidence, request)
            return
        attempt, now = doubtful[-1], self._clock.now()
        reference = reference or attempt.provider_reference
        if verdict == "approved" and reference is None:
            raise StateConflictError(journal.payment.status, "an approval needs the provider's reference.")
        log.warning("resolved_by_operator", payment=journal.payment.id, attempt=attempt.id, outcome=verdict)
        told = dataclasses.replace(
            attempt,
            outcome=verdict,
            reason=f"operator: {evidence}",
            provider_reference=reference,
            capture="done" if verdict == "approved" and attempt.at_once else attempt.capture,
            finished_at=now,
        )
        journal.learned(told)
        settle(journal, event="resolved_by_operator", now=now, nothing="failed", key=request.new_key)

    def _resolve_operation(self, journal: Journal, verdict: Verdict, evidence: str, request: _Request) -> None:
        """The same of a capture, void or refund: `not_executed` and `declined` say that it was not done."""
        doubtful = [each for each in journal.operations if each.state in UNSETTLED]
        if not doubtful:
            raise StateConflictError(journal.payment.status, "nothing of it is in doubt.")
        operation, now = doubtful[-1], self._clock.now()
        # A void is done when its payment is canceled; a canceled capture or refund took nothing.
        done = verdict == "approved" or (verdict == "canceled" and operation.kind == "void")
        log.warning("resolved_by_operator", payment=journal.payment.id, operation=operation.id, outcome=verdict)
        state: OperationState = "done" if done else "refused"
        journal.learned(dataclasses.replace(operation, state=state, reason=f"operator: {evidence}", finished_at=now))
        if done and operation.kind == "void":
            attempt = next(each for each in journal.attempts if each.id == operation.attempt_id)
            journal.learned(dataclasses.replace(attempt, outcome="canceled", finished_at=now))
        settle(journal, event="resolved_by_operator", now=now, key=request.new_key)

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


def _in_doubt(journal: Journal) -> Sequence[Attempt]:
    """Attempts whose outcome a person may say: unknown ones, else one that waits for a customer who will not come,
    because the payment stands on another.
    """
    chosen = settling.chosen(journal)
    others = standing.orphans(
        journal.payment.amount, chosen.id if chosen else None, journal.attempts, journal.operations
    )
    return [each for each in journal.attempts if not each.is_settled] or [
        each for each in others if each.outcome == "requires_action"
    ]


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
