"""READ FIRST: one payment, from checkout's request to its outcome.

    checkout ──▶ create ──▶ flags, circuits, fees ──▶ decision            planning, policy
                        ──▶ for each provider, in the decision's order:   _pay
                              do its circuit and its bulkhead let us?     health.admit
                              COMMIT "attempt started"; the first one     journal.start
                                asks: has this key made one already?      _replay
                              call the provider; learn how it is          sender.authorize, health.Call
                              may another provider be tried?              _may_try_another
                        ──▶ COMMIT where the payment stands               _finish

The one rule that everything here serves: another provider is tried only when it is *proved* that those before it
did not charge, or when an issuer's soft decline allows it. Whatever is doubtful ends as `processing`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from providers.contract import DeclineClass, Health, Outcome, OutcomeKind
from router import parked_terms, policy, standing
from router.clock import Clock, Ids
from router.health import ProviderHealth
from router.ledger.journal import Journal, Journals
from router.ledger.payments import PaymentLedger
from router.ledger.records import Attempt, KeyTakenError, NewKey, Payment, StaleError
from router.ledger.unavailable import LedgerUnavailableError
from router.order import Order
from router.parked_terms import WhenUnavailable
from router.planning import Plan, Planner
from router.sending import LEAST_TIME_S, Sender

log = structlog.get_logger("router.payments")

PARKED_FOR = dt.timedelta(hours=24)
"""How long a parked payment is tried where checkout does not say."""
CONTACT_NOTED_S = 60.0
"""Checkout asking again for a payment in doubt is written at most this often."""

# ---------------------------------------------------------------- refusals: nothing was charged, no key consumed


class PaymentRefusedError(Exception):
    """Root of the reasons for not taking a payment."""


class IdempotencyKeyReusedError(PaymentRefusedError):
    """This idempotency key made a payment from another body."""


class RequestInProgressError(PaymentRefusedError):
    """The first request with this idempotency key is still being worked on."""


class PaymentBusyError(RequestInProgressError):
    """Somebody else works on this payment at this moment: another request, or a worker."""


class NoEligibleProviderError(PaymentRefusedError):
    """No provider could ever take this payment; `reasons` says why, provider by provider."""

    def __init__(self, decision: policy.Decision) -> None:
        super().__init__("no provider could ever take this payment")
        self.reasons = policy.refusals(decision)


class AlreadyExpiredError(PaymentRefusedError):
    """`expires_at` is not in the future."""


class ProvidersUnavailableError(PaymentRefusedError):
    """Every provider is unavailable now, and the payment is not to be parked."""


class MerchantShareError(PaymentRefusedError):
    """The merchant has as many payments under way as it may beside others, at every provider that could take it."""


# ---------------------------------------------------------------- the service


@dataclass(frozen=True, slots=True)
class PaymentSettings:
    """Bounds of one request, in seconds."""

    deadline_s: float
    parked_retry_s: float


@dataclass(frozen=True, slots=True)
class Answer:
    """A payment as checkout is told of it."""

    payment: Payment
    attempts: Sequence[Attempt]
    replayed: bool = False


class Payments:
    """Routes, charges and fails over. Thread-safe; holds no transaction while a provider is called."""

    def __init__(
        self,
        *,
        ledger: PaymentLedger,
        planner: Planner,
        sender: Sender,
        health: ProviderHealth,
        journals: Journals,
        settings: PaymentSettings,
        clock: Clock,
        ids: Ids,
        when_unavailable: Callable[[str], WhenUnavailable] = lambda _merchant: "park",
        random: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """`when_unavailable`: what a merchant wants where its checkout does not say."""
        self._when_unavailable = when_unavailable
        self._random = random
        self._ledger = ledger
        self._planner = planner
        self._sender = sender
        self._health = health
        self._journals = journals
        self._settings = settings
        self._clock = clock
        self._ids = ids

    # ------------------------------------------------------------ a new payment

    def create(self, order: Order, *, merchant: str, key: str) -> Answer:
        """Take a payment.

        Raises a PaymentRefusedError, ReferenceInUseError or LedgerUnavailableError; then nothing was charged, and
        nothing will be. Except for its kind CommitUnknownError: the payment may be on record, and then the worker
        carries it out.
        """
        new = NewKey(key, order.fingerprint())
        try:
            return self._take(order, merchant, new)
        except (PaymentRefusedError, KeyTakenError) as refusal:
            # The commit that takes the payment looks at the key, and nothing before it. What refuses a new payment
            # does not refuse the one that this key has made: whoever lost an answer learns it all the same. (So one
            # asked for again is planned again, for nothing.)
            replay = self._replay(merchant, new.key, new.fingerprint)
            if replay is not None:
                return replay
            if isinstance(refusal, KeyTakenError):
                raise RequestInProgressError from None
            raise

    def _take(self, order: Order, merchant: str, new: NewKey) -> Answer:
        """A new payment. Raises KeyTakenError where the key has made one; ours has sent nothing then."""
        if order.expires_at is not None and order.expires_at <= self._clock.now():
            raise AlreadyExpiredError
        deadline = self._clock.monotonic() + self._settings.deadline_s
        payment_id = self._ids.new("pay")
        plan = self._planner.plan(payment_id, merchant, order, self._clock.now())
        if not plan.decision.possible:
            raise NoEligibleProviderError(plan.decision)
        payment = _new_payment(payment_id, merchant, order, plan, self._clock.now())
        journal = self._journals.new(payment, new, repeat=order.allow_repeat_reference)
        may_wait = parked_terms.may_wait(order, self._when_unavailable(merchant))
        return self._pay(journal, order, plan, deadline, may_wait=may_wait)

    def replay(self, order: Order, *, merchant: str, key: str) -> Answer | None:
        """The payment that this key made, as it now stands, and nothing else: None when the key is new.

        For a caller beyond its limits: whoever lost an answer learns it all the same. Raises as `create` does.
        """
        return self._replay(merchant, key, order.fingerprint())

    def _replay(self, merchant: str, key: str, fingerprint: str) -> Answer | None:
        """The payment that this key made, as it now stands; None when the key is new."""
        known = self._ledger.find_key(merchant, key)
        if known is None:
            return None
        known_fingerprint, payment_id = known
        if known_fingerprint != fingerprint:
            raise IdempotencyKeyReusedError
        found = self._ledger.get(payment_id)
        # Once it was answered, its first request is over: that a worker is at it now is no reason to keep checkout
        # waiting.
        if found is None or (found[0].in_progress(self._clock.now()) and not (found[0].told or found[0].tries)):
            raise RequestInProgressError
        self._note_contact(found[0])
        return Answer(*found, replayed=True)

    # ------------------------------------------------------------ a parked payment, tried again by the worker

    def retry_parked(self, payment_id: str) -> Answer | None:
        """Try a parked payment once more, or end it when its time is over. None: it is not parked any more.

        Raises what an error of ours raises: then it is as it was, or `processing` and the resolver's.
        """
        found = self._ledger.get(payment_id)
        if found is None or found[0].status != "parked":
            return None
        payment, attempts = found
        deadline = self._clock.monotonic() + self._settings.deadline_s
        journal = self._journals.open(payment, attempts)
        if payment.expires_at <= self._clock.now():
            try:
                journal.finish({"status": "failed", "failure": "expired"}, event="expired")
            except StaleError:
                return None  # another worker was first
            return Answer(journal.payment, journal.attempts)
        order = Order.model_validate(self._ledger.order_of(payment))
        looked_at = self._clock.now()
        plan = self._planner.plan(payment.id, payment.merchant, order, looked_at)
        if not plan.decision.order:
            # Nobody can take it now: no transition, so no event; a day of waiting must not fill the ledger.
            self._ledger.postpone(payment, self._next_try(payment), now=looked_at)
            return Answer(payment, attempts)
        # It was accepted, whatever its merchant wants by now.
        return self._pay(journal, order, plan, deadline, may_wait=True)

    # ------------------------------------------------------------ the loop

    def _pay(self, journal: Journal, order: Order, plan: Plan, deadline: float, *, may_wait: bool) -> Answer:
        """Try providers in order until an outcome is final or doubtful, or there is none left to try."""
        tried: list[Outcome] = []
        over_share: list[str] = []
        try:
            for provider in plan.decision.order:
                if deadline - self._clock.monotonic() < LEAST_TIME_S:
                    break
                call = self._health.admit(provider, journal.payment.merchant, over_share=over_share)
                if call is None:
                    continue  # its circuit opened since the decision, or too many calls are under way to it
                with call:
                    attempt = self._new_attempt(journal, provider, plan)
                    journal.start(attempt)
                    attempt, outcome = self._sender.authorize(attempt, deadline, call)
                journal.learned(attempt)
                tried.append(outcome)
                if not _may_try_another(outcome, plan) or plan.is_spent(journal.attempts, self._clock.now()):
                    break
            if over_share and not journal.attempts and not journal.payment.tries:
                # Nothing is written yet. To park its flood would only have the workers, and their places, flooded.
                raise MerchantShareError
            self._finish(journal, order, plan, tried, deadline, may_wait=may_wait)
        except StaleError:
            # This process was held up past its lease and another took the payment over: the ledger knows more.
            try:
                found = self._ledger.get(journal.payment.id)
            except LedgerUnavailableError:
                if not tried:
                    raise
                return _answer_not_written(journal)
            return Answer(*found) if found is not None else Answer(journal.payment, journal.attempts)
        except LedgerUnavailableError:
            if not tried:
                raise
            return _answer_not_written(journal)
        return Answer(journal.payment, journal.attempts)

    def _finish(
        self,
        journal: Journal,
        order: Order,
        plan: Plan,
        tried: Sequence[Outcome],
        deadline: float,
        *,
        may_wait: bool,
    ) -> None:
        """Commit where the payment stands after this round."""
        attempt = standing.decisive("processing", journal.payment.attempt_id, journal.attempts)
        # A new payment has this plan on record already.
        decided = {} if journal.payment.tries == 0 else _on_record(plan)
        nobody: dict[str, Any] = {"provider": None, "attempt_id": None, "next_try_at": None}
        rejected = tried and len(tried) == len(plan.params) and all(_is_rejected(outcome) for outcome in tried)
        if attempt is not None:
            if attempt.outcome == "approved" and order.capture == "automatic" and not plan.at_once:
                self._capture_now(journal, attempt, deadline)
            stands = standing.columns(order.amount, order.capture, attempt, journal.attempts, journal.operations)
            # The answer follows this commit: checkout is told, and expects the payment from now on.
            told: dict[str, Any] = {"told": True, "next_try_at": None, "resolve_at": None}
            if not standing.is_resolved(order.amount, journal.attempts, journal.operations, stands):
                told["resolve_at"] = self._clock.now()
            journal.finish(stands | decided | told, event=str(stands["status"]))
        elif rejected:
            # Every provider rejected what we sent; sending it again would change nothing. One that could take the
            # payment and was not asked (its circuit is open, it is switched off, no time was left) is not among them.
            journal.finish(nobody | {"status": "failed", "failure": "rejected"} | decided, event="rejected")
        elif not may_wait:
            # Nobody took it, and it is not to wait: its key stays free, the attempts stay on record.
            if journal.attempts:
                failed = {"status": "failed", "failure": "unavailable"}
                journal.finish(nobody | failed | decided, event="unavailable", release_key=True)
            raise ProvidersUnavailableError
        else:
            tries, again_at = journal.payment.tries + 1, self._next_try(journal.payment)
            parked = {"status": "parked", "next_try_at": again_at, "tries": tries, "claimed_until": None, "faults": 0}
            journal.finish(nobody | parked | {"told": True} | decided, event="parked")

    def _capture_now(self, journal: Journal, attempt: Attempt, deadline: float) -> None:
        """The second call of a payment that was authorized first, unless another authorization may exist."""
        others = standing.orphans(journal.payment.amount, attempt.id, journal.attempts, journal.operations)
        if others or deadline - self._clock.monotonic() < LEAST_TIME_S:
            return  # the resolver proves the others void, and captures then
        operation = self._journals.operation(journal, attempt, "capture", journal.payment.amount, asked_by="router")
        journal.ask(operation)
        journal.learned(self._sender.operate(operation, attempt, journal.payment.currency, deadline))

    def _next_try(self, payment: Payment) -> dt.datetime:
        first_s = self._settings.parked_retry_s
        return parked_terms.next_try(self._clock.now(), payment.created_at, first_s, self._random())

    def _new_attempt(self, journal: Journal, provider: str, plan: Plan) -> Attempt:
        attempt_id = plan.attempt_ids[provider]
        return Attempt(
            id=attempt_id,
            payment_id=journal.payment.id,
            number=len(journal.attempts) + 1,
            provider=provider,
            idempotency_key=attempt_id,
            params=plan.params[provider],
            at_once=plan.at_once,
            card=plan.card,
            started_at=self._clock.now(),
        )

    # ------------------------------------------------------------ reading

    def get(self, merchant: str, payment_id: str, *, by_checkout: bool = True) -> Answer | None:
        """A merchant's payment; None where there is none, or it is another merchant's.

        An operator who looks at it is no sign that checkout still expects it.
        """
        found = self._ledger.get(payment_id)
        if found is None or found[0].merchant != merchant:
            return None
        if by_checkout:
            self._note_contact(found[0])
        return Answer(*found)

    def _note_contact(self, payment: Payment) -> None:
        """While checkout asks for a payment that is not final it still expects it, and it may be sent again."""
        now = self._clock.now()
        open_ = payment.status in ("processing", "requires_action")
        if open_ and (now - payment.contact_at).total_seconds() > CONTACT_NOTED_S:
            with contextlib.suppress(LedgerUnavailableError):  # a full disk is no reason not to answer a read
                self._ledger.touch(payment.id, now)

    def by_reference(
        self, merchant: str, reference: str, *, limit: int, before: str | None
    ) -> tuple[Sequence[Answer], str | None]:
        """A merchant's payments with this reference, newest first, and the cursor of the next page."""
        ids = self._ledger.ids_by_reference(merchant, reference, limit=limit + 1, before=before)
        answers = [answer for answer in (self.get(merchant, each) for each in ids[:limit]) if answer is not None]
        return answers, ids[limit - 1] if len(ids) > limit else None


def _answer_not_written(journal: Journal) -> Answer:
    """A provider has answered and the ledger is away. It says "started", and so do we: the payment is being
    processed until the resolver asks that provider again under the same key.

    That checkout was told so is not on record. With the ledger away for longer than checkout is waited for, the
    payment counts as given up: it ends `canceled`, and what was approved is undone. That errs on the safe side: what
    nobody could ask about for so long may have been paid otherwise.
    """
    log.exception("answer_not_written", payment=journal.payment.id)
    return Answer(dataclasses.replace(journal.payment, status="processing"), journal.on_record)


# ---------------------------------------------------------------- the rules, each in one place


def _is_rejected(outcome: Outcome) -> bool:
    """Whether a provider will never take what it was sent. Not where it refused our key: that can be put right."""
    return outcome.our_fault and outcome.health is not Health.CREDENTIALS_REFUSED


def _may_try_another(outcome: Outcome, plan: Plan) -> bool:
    """Whether another provider may be tried after this outcome.

    After `unknown` never, for it could have charged; save under the policy that authorizes only, and captures
    nothing before every other authorization is proved void.
    """
    if outcome.kind is OutcomeKind.NOT_EXECUTED:
        return True
    if outcome.kind is OutcomeKind.UNKNOWN:
        return plan.may_void
    return (
        outcome.kind is OutcomeKind.DECLINED
        and outcome.decline is not None
        and outcome.decline.decline_class is DeclineClass.SOFT
        and outcome.decline.cascade
        and plan.flags.cascade_on_soft_decline
    )


def _on_record(plan: Plan) -> dict[str, Any]:
    """The columns that say by which flags and by which decision a payment was routed."""
    return {"flags": plan.flags.to_json(), "decision": plan.decision.to_json()}


def _new_payment(payment_id: str, merchant: str, order: Order, plan: Plan, now: dt.datetime) -> Payment:
    return Payment(
        id=payment_id,
        merchant=merchant,
        reference=order.reference,
        status="processing",
        amount=order.amount,
        currency=order.currency,
        order=order.model_dump(mode="json", exclude_none=True),
        **_on_record(plan),
        created_at=now,
        updated_at=now,
        expires_at=order.expires_at or now + PARKED_FOR,
        contact_at=now,
        version=1,
        holds_reference=not order.allow_repeat_reference,
    )
