"""READ FIRST: one payment, from checkout's request to its outcome.

    checkout ──▶ create ──▶ has this key made a payment already?          _replay
                        ──▶ flags, circuits, fees ──▶ decision            planning, policy
                        ──▶ for each provider, in the decision's order:   _pay
                              does its circuit let us through?            health.admit
                              COMMIT "attempt started"                    journal.start
                              call the provider, once                     provider.authorize
                              learn what that says of the provider        health.learn
                              may another provider be tried?              _may_try_another
                        ──▶ COMMIT where the payment stands               _finish

The one rule that everything here serves: another provider is tried only when it is *proved* that those before it
did not charge, or when an issuer's soft decline allows it. Whatever is doubtful ends as `processing`.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from flags.contract import RoutingFlags
from providers.contract import DeclineClass, Health, Outcome, OutcomeKind, Provider, Timeouts
from router import policy
from router.clock import Clock, Ids
from router.health import ProviderHealth
from router.ledger.journal import Journal, NewKey
from router.ledger.payments import Attempt, KeyTakenError, Payment, PaymentLedger, StaleError
from router.ledger.unavailable import LedgerUnavailableError
from router.order import Order
from router.planning import Plan, Planner

log = structlog.get_logger("router.payments")

PARKED_FOR = dt.timedelta(hours=24)
"""How long a parked payment is tried where checkout does not say."""
LEASE_MARGIN_S = 15.0
"""A request holds its payment for its deadline and this much more: for its last commit, tried again."""
LEAST_TIME_FOR_AN_ATTEMPT_S = 1.0
"""With less than this left, a provider's answer could not come in time: no further attempt is started."""

# ---------------------------------------------------------------- refusals: nothing was charged, no key consumed


class PaymentRefusedError(Exception):
    """Root of the reasons for not taking a payment."""


class IdempotencyKeyReusedError(PaymentRefusedError):
    """This idempotency key made a payment from another body."""


class RequestInProgressError(PaymentRefusedError):
    """The first request with this idempotency key is still being worked on."""


class NoEligibleProviderError(PaymentRefusedError):
    """No provider could ever take this payment; `reasons` says why, provider by provider."""

    def __init__(self, decision: policy.Decision) -> None:
        super().__init__("no provider could ever take this payment")
        self.reasons = policy.refusals(decision)


class AlreadyExpiredError(PaymentRefusedError):
    """`expires_at` is not in the future."""


class ProvidersUnavailableError(PaymentRefusedError):
    """Every provider is unavailable now, and checkout asked not to park."""


# ---------------------------------------------------------------- the service


@dataclass(frozen=True, slots=True)
class PaymentSettings:
    """Bounds of one request, in seconds."""

    deadline_s: float
    connect_timeout_s: float
    read_timeout_s: float
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
        providers: Mapping[str, Provider],
        health: ProviderHealth,
        settings: PaymentSettings,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._ledger = ledger
        self._planner = planner
        self._providers = providers
        self._health = health
        self._settings = settings
        self._clock = clock
        self._ids = ids

    # ------------------------------------------------------------ a new payment

    def create(self, order: Order, *, merchant: str, key: str) -> Answer:
        """Take a payment.

        Raises a PaymentRefusedError, ReferenceInUseError or LedgerUnavailableError; then nothing was charged.
        """
        fingerprint = order.fingerprint()
        replay = self._replay(merchant, key, fingerprint)
        if replay is not None:
            return replay
        if order.expires_at is not None and order.expires_at <= self._clock.now():
            raise AlreadyExpiredError
        deadline = self._clock.monotonic() + self._settings.deadline_s
        payment_id = self._ids.new("pay")
        plan = self._planner.plan(payment_id, merchant, order)
        if not plan.decision.possible:
            raise NoEligibleProviderError(plan.decision)
        payment = _new_payment(payment_id, merchant, order, plan, self._clock.now())
        journal = self._journal(payment, new=NewKey(key, fingerprint, order.allow_repeat_reference))
        try:
            return self._pay(journal, order, plan, deadline)
        except KeyTakenError:
            # Another request with this key came between our look and our first commit; ours has sent nothing.
            replay = self._replay(merchant, key, fingerprint)
            if replay is None:
                raise RequestInProgressError from None
            return replay

    def _replay(self, merchant: str, key: str, fingerprint: str) -> Answer | None:
        """The payment that this key made, as it now stands; None when the key is new."""
        known = self._ledger.find_key(merchant, key)
        if known is None:
            return None
        known_fingerprint, payment_id = known
        if known_fingerprint != fingerprint:
            raise IdempotencyKeyReusedError
        found = self._ledger.get(payment_id)
        # Once parked, its first request is over: a worker that tries it now is no reason to keep checkout waiting.
        if found is None or (found[0].in_progress(self._clock.now()) and found[0].tries == 0):
            raise RequestInProgressError
        return Answer(*found, replayed=True)

    # ------------------------------------------------------------ a parked payment, tried again by the worker

    def retry_parked(self, payment_id: str) -> Answer | None:
        """Try a parked payment once more, or end it when its time is over. None: it is not parked any more."""
        found = self._ledger.get(payment_id)
        if found is None or found[0].status != "parked":
            return None
        payment, attempts = found
        deadline = self._clock.monotonic() + self._settings.deadline_s
        journal = self._journal(payment, attempts)
        if payment.expires_at <= self._clock.now():
            try:
                journal.finish({"status": "failed", "next_try_at": None}, event="expired")
            except StaleError:
                return None  # another worker was first
            return Answer(journal.payment, journal.attempts)
        order = Order.model_validate(payment.order)
        plan = self._planner.plan(payment.id, payment.merchant, order)
        if not plan.decision.order:
            # Nobody can take it now: no transition, so no event; a day of waiting must not fill the ledger.
            self._ledger.postpone(payment, self._next_try())
            return Answer(payment, attempts)
        return self._pay(journal, order, plan, deadline)

    # ------------------------------------------------------------ the loop

    def _pay(self, journal: Journal, order: Order, plan: Plan, deadline: float) -> Answer:
        """Try providers in order until an outcome is final or doubtful, or there is none left to try."""
        tried: list[tuple[Attempt, Outcome]] = []
        try:
            for provider in plan.decision.order:
                if deadline - self._clock.monotonic() < LEAST_TIME_FOR_AN_ATTEMPT_S:
                    break
                permit = self._health.admit(provider)
                if permit is None:
                    continue  # its circuit opened since the decision
                attempt = self._new_attempt(journal, provider, plan)
                journal.start(attempt)
                attempt, outcome = self._authorize(attempt, deadline)
                self._health.learn(permit, outcome.health)
                journal.ended(attempt)
                tried.append((attempt, outcome))
                if not _may_try_another(outcome, plan.flags):
                    break
            self._finish(journal, order, plan, tried)
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

    def _authorize(self, attempt: Attempt, deadline: float) -> tuple[Attempt, Outcome]:
        """One call, bounded by what is left of the request's time."""
        sent_at = self._clock.monotonic()
        left_s = deadline - sent_at
        if left_s < LEAST_TIME_FOR_AN_ATTEMPT_S / 2:
            # The commit took so long (a slow disk, a paused process) that nobody may be waiting any more.
            outcome = Outcome(OutcomeKind.NOT_EXECUTED, Health.IGNORED, reason="no_time_left")
        else:
            connect_s = min(self._settings.connect_timeout_s, left_s / 2)
            timeouts = Timeouts(connect_s, min(self._settings.read_timeout_s, left_s - connect_s))
            outcome = self._send(attempt, timeouts)
        ended = dataclasses.replace(
            attempt,
            outcome=outcome.kind.value,
            reason=outcome.reason,
            health=outcome.health.value,
            provider_reference=outcome.provider_reference,
            decline=_decline(outcome),
            latency_us=round((self._clock.monotonic() - sent_at) * 1e6),
            finished_at=self._clock.now(),
        )
        if outcome.our_fault:
            log.error("rejected_by_provider", provider=attempt.provider, attempt=attempt.id, reason=outcome.reason)
        if outcome.decline is not None and not outcome.decline.known:
            log.error("unknown_decline_code", provider=attempt.provider, code=outcome.decline.code)
        return ended, outcome

    def _send(self, attempt: Attempt, timeouts: Timeouts) -> Outcome:
        try:
            return self._providers[attempt.provider].authorize(
                attempt.params, idempotency_key=attempt.idempotency_key, timeouts=timeouts
            )
        except Exception:
            # An adapter that raises, against its contract, may have charged before it did.
            log.exception("adapter_failed", provider=attempt.provider, attempt=attempt.id)
            return Outcome(OutcomeKind.UNKNOWN, Health.IGNORED, reason="adapter_failed")

    def _finish(self, journal: Journal, order: Order, plan: Plan, tried: Sequence[tuple[Attempt, Outcome]]) -> None:
        """Commit where the payment stands after this round."""
        decisive = _decisive(tried)
        # A new payment has this plan on record already.
        decided = {} if journal.payment.tries == 0 else _on_record(plan)
        rejected = tried and len(tried) == len(plan.params) and all(outcome.our_fault for _, outcome in tried)
        if decisive is not None:
            attempt, outcome = decisive
            changes = _standing_after(outcome, order) | decided | {"provider": attempt.provider, "next_try_at": None}
            journal.finish(changes, event=str(changes["status"]))
        elif rejected:
            # Every provider rejected what we sent; sending it again would change nothing. One that could take the
            # payment and was not asked (its circuit is open, it is switched off, no time was left) is not among them.
            journal.finish({"status": "failed", "provider": None, "next_try_at": None} | decided, event="rejected")
        elif order.when_unavailable == "fail":
            # Nobody took it, and checkout does not want to wait: its key stays free, the attempts stay on record.
            if journal.attempts:
                gone = {"status": "failed", "provider": None}
                journal.finish(gone | decided, event="unavailable", release_key=True)
            raise ProvidersUnavailableError
        else:
            again = self._next_try()
            parked = {"status": "parked", "provider": None, "next_try_at": again, "tries": journal.payment.tries + 1}
            journal.finish(parked | decided, event="parked")

    def _next_try(self) -> dt.datetime:
        return self._clock.now() + dt.timedelta(seconds=self._settings.parked_retry_s)

    def _new_attempt(self, journal: Journal, provider: str, plan: Plan) -> Attempt:
        attempt_id = plan.attempt_ids[provider]
        return Attempt(
            id=attempt_id,
            payment_id=journal.payment.id,
            number=len(journal.attempts) + 1,
            provider=provider,
            idempotency_key=attempt_id,
            params=plan.params[provider],
            started_at=self._clock.now(),
        )

    def _journal(self, payment: Payment, attempts: Sequence[Attempt] = (), *, new: NewKey | None = None) -> Journal:
        return Journal(
            self._ledger,
            payment,
            attempts,
            new=new,
            lease_holder=self._ids.new("lease"),
            lease_s=self._settings.deadline_s + LEASE_MARGIN_S,
            clock=self._clock,
        )

    # ------------------------------------------------------------ reading

    def get(self, merchant: str, payment_id: str) -> Answer | None:
        """A merchant's payment; None where there is none, or it is another merchant's."""
        found = self._ledger.get(payment_id)
        return Answer(*found) if found is not None and found[0].merchant == merchant else None

    def by_reference(
        self, merchant: str, reference: str, *, limit: int, before: str | None
    ) -> tuple[Sequence[Answer], str | None]:
        """A merchant's payments with this reference, newest first, and the cursor of the next page."""
        ids = self._ledger.ids_by_reference(merchant, reference, limit=limit + 1, before=before)
        answers = [answer for answer in (self.get(merchant, each) for each in ids[:limit]) if answer is not None]
        return answers, ids[limit - 1] if len(ids) > limit else None


def _answer_not_written(journal: Journal) -> Answer:
    """A provider has answered and the ledger is away. It says "started", and so do we: the payment is being
    processed until someone asks that provider again under the same key.
    """
    log.exception("answer_not_written", payment=journal.payment.id)
    return Answer(dataclasses.replace(journal.payment, status="processing"), journal.attempts)


# ---------------------------------------------------------------- the rules, each in one place


def _may_try_another(outcome: Outcome, flags: RoutingFlags) -> bool:
    """Whether another provider may be tried after this outcome. `unknown` never may: it could have charged."""
    if outcome.kind is OutcomeKind.NOT_EXECUTED:
        return True
    return (
        outcome.kind is OutcomeKind.DECLINED
        and outcome.decline is not None
        and outcome.decline.decline_class is DeclineClass.SOFT
        and outcome.decline.cascade
        and flags.cascade_on_soft_decline
    )


def _decisive(tried: Sequence[tuple[Attempt, Outcome]]) -> tuple[Attempt, Outcome] | None:
    """What the payment's status follows from: the last outcome, or else the last decline. None: nobody took it."""
    for attempt, outcome in reversed(tried):
        if outcome.kind is not OutcomeKind.NOT_EXECUTED:
            return attempt, outcome
    return None


def _standing_after(outcome: Outcome, order: Order) -> dict[str, Any]:
    """The payment's columns that follow from its decisive outcome."""
    match outcome.kind:
        case OutcomeKind.APPROVED if outcome.captured or outcome.capture_pending:
            captured = {"amount_captured": order.amount, "capture_pending": outcome.capture_pending}
            return {"status": "captured", "decline": None, "next_action": None, **captured}
        case OutcomeKind.APPROVED:
            return {"status": "authorized", "decline": None, "next_action": None}
        case OutcomeKind.DECLINED:
            return {"status": "declined", "decline": _decline(outcome), "next_action": None}
        case OutcomeKind.REQUIRES_ACTION:
            return {"status": "requires_action", "decline": None, "next_action": outcome.next_action}
        case _:
            return {"status": "processing", "decline": None, "next_action": None}


def _on_record(plan: Plan) -> dict[str, Any]:
    """The columns that say by which flags and by which decision a payment was routed."""
    return {"flags": dataclasses.asdict(plan.flags), "decision": plan.decision.to_json()}


def _decline(outcome: Outcome) -> dict[str, Any] | None:
    decline = outcome.decline
    if decline is None:
        return None
    return {
        "class": decline.decline_class.value,
        "code": decline.code,
        "message": decline.message,
        "network_code": decline.network_code,
        "advice": decline.advice,
    }


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
        version=1,
        holds_reference=not order.allow_repeat_reference,
    )
