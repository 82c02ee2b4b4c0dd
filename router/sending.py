"""Sends an attempt: once, or again under the same key while its outcome is unknown and there is time.

An attempt is `not_executed` only if every send of it was. After one unknown send, a later one that is refused,
limited or rejected proves nothing about the first: the attempt stays unknown.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import structlog
import tenacity

from providers.contract import (
    Health,
    ModificationKind,
    ModificationOutcome,
    Money,
    Outcome,
    OutcomeKind,
    Provider,
    Timeouts,
)
from router import echoes, standing
from router.clock import Clock
from router.health import Call
from router.ledger.operations import UNSETTLED, Operation, OperationState
from router.ledger.records import Attempt
from router.ledger.unavailable import LedgerUnavailableError
from router.standing import advances

log = structlog.get_logger("router.sending")

LEAST_TIME_S = 1.0
"""With less than this left, a provider's answer could not come in time: nothing is sent any more."""
NO_TIME_LEFT = "no_time_left"
UNREADABLE = "params_unreadable"
"""Not sent: its parameters are sealed, and this process cannot open them."""
HELD_BACK = "held_back"
"""Not sent: so many calls to a provider whose circuit lets no payment through are under way already."""
BY_OUR_ID = "-by-our-id"
"""What is added to the key of a void that names no id of the provider's."""
SENDS_IN_A_REQUEST = 3
"""The first send and two more: what two do not settle within seconds is the worker's to find out."""
RESEND_WAIT_S = (0.1, 1.5)
"""Least and most of the jittered wait before a re-send: long enough for a dropped connection to be a new one."""


@dataclass(frozen=True, slots=True)
class SendTimes:
    """Bounds of one send, in seconds."""

    connect_s: float
    read_s: float


class Sender:
    """Calls providers. Holds no transaction; writes nothing: what it answers is the caller's to write."""

    def __init__(
        self,
        providers: Mapping[str, Provider],
        times: SendTimes,
        *,
        clock: Clock,
        random: Callable[[], float],
        operating: Callable[[str], AbstractContextManager[bool]] = lambda _provider: nullcontext(True),
        params_of: Callable[[Attempt], Mapping[str, Any]] = lambda attempt: attempt.params,
    ) -> None:
        """`operating` says, and holds for as long, whether a call about an existing attempt may be made now.

        `params_of` opens the parameters of an attempt that comes from the ledger. Raises LedgerUnavailableError.
        """
        self._params_of = params_of
        self._providers = providers
        self._operating = operating
        self._times = times
        self._clock = clock
        self._random = random

    def authorize(self, attempt: Attempt, deadline: float, call: Call) -> tuple[Attempt, Outcome]:
        """Send a new attempt, and again while it is unknown, until the deadline (of the monotonic clock).

        `call` is the leave to call its provider: each send is counted there, and it says whether one more may go.
        """
        begun = self._clock.monotonic()
        sends = 0

        def once() -> Outcome:
            nonlocal sends
            left_s = deadline - self._clock.monotonic()
            if left_s < LEAST_TIME_S / 2:
                # The commit before took so long (a slow disk, a paused process) that nobody may be waiting.
                return Outcome(OutcomeKind.NOT_EXECUTED, Health.IGNORED, reason="no_time_left")
            if not call.begin():
                return Outcome(OutcomeKind.NOT_EXECUTED, Health.IGNORED, reason="circuit_opened")
            sends += 1
            outcome = self._send(attempt, left_s)
            call.end(outcome.health)
            return outcome

        first = once()
        outcome = first
        if is_doubtful(first) and call.may_go_again(first.reason):
            again = tenacity.Retrying(
                retry=tenacity.retry_if_result(lambda each: not says_more(each)),
                stop=lambda state: (
                    state.attempt_number >= SENDS_IN_A_REQUEST - 1 or not call.may_go_again(_reason(state))
                ),
                wait=lambda _state: self._jitter_s(),
                sleep=lambda seconds: self._pause(seconds, deadline),
                retry_error_callback=lambda _state: first,
            )
            self._pause(self._jitter_s(), deadline)
            later = again(once)
            outcome = later if says_more(later) else first
        return self._ended(attempt, outcome, begun, sends), outcome

    def resend(self, attempt: Attempt, seconds_left: float) -> tuple[Attempt, Outcome]:
        """One more send of an attempt whose outcome is not known, with the same key and parameters.

        With no time left, held back, or with parameters that cannot be read, nothing is sent, and the attempt stays
        as it is.
        """
        if _is_too_late(seconds_left):
            return attempt, Outcome(OutcomeKind.NOT_EXECUTED, Health.IGNORED, reason=NO_TIME_LEFT)
        try:
            opened = dataclasses.replace(attempt, params=self._params_of(attempt))
        except LedgerUnavailableError as error:
            # Its key is not here, or they were changed: others may be able to, or this process later.
            log.error("params_unreadable", provider=attempt.provider, attempt=attempt.id, cause=str(error))
            return attempt, Outcome(OutcomeKind.NOT_EXECUTED, Health.IGNORED, reason=UNREADABLE)
        begun = self._clock.monotonic()
        with self._operating(attempt.provider) as free:
            if not free:
                return attempt, Outcome(OutcomeKind.NOT_EXECUTED, Health.IGNORED, reason=HELD_BACK)
            outcome = self._send(opened, seconds_left)
        known = says_more(outcome)
        # A provider that has taken it up, and does not know yet, is looked up by its id from now on.
        reference = outcome.provider_reference or attempt.provider_reference
        pending = dataclasses.replace(attempt, outcome="unknown", provider_reference=reference)
        ended = self._ended(attempt, outcome, begun, 0) if known else pending
        return dataclasses.replace(ended, sends=attempt.sends + 1, last_sent_at=self._clock.now()), outcome

    def operate(self, operation: Operation, attempt: Attempt, currency: str, deadline: float) -> Operation:
        """One send of a capture, void or refund of this attempt; answers the operation as it stands then.

        This send is counted in its `sends` already, and committed so; if it is held back, the count is taken back.
        With no time left nothing is sent: the process may have been paused past its lease, and somebody else have
        settled the operation since.
        """
        held_back = dataclasses.replace(operation, sends=operation.sends - 1)
        if _is_too_late(deadline - self._clock.monotonic()):
            return held_back
        with self._operating(operation.provider) as free:
            if not free:
                return held_back  # the resolver sends it when the provider is better, or less busy
            told = self._operated(operation, attempt, currency, deadline)
        if told.our_fault:
            log.error("rejected_by_provider", provider=operation.provider, operation=operation.id, reason=told.reason)
        # What checkout asked for may be answered "refused"; what the router needs done is sent until it is done.
        state = _state(told, mistake_ends_it=operation.sends == 1 and operation.asked_by == "checkout")
        sent = dataclasses.replace(
            operation, provider_reference=told.provider_reference or operation.provider_reference
        )
        if state != operation.state and not advances(operation.state, state):
            return sent  # a late answer takes nothing back
        ended_at = None if state in UNSETTLED else operation.finished_at or self._clock.now()
        return dataclasses.replace(sent, state=state, reason=told.reason, finished_at=ended_at)

    def _operated(
        self, operation: Operation, attempt: Attempt, currency: str, deadline: float
    ) -> ModificationOutcome:
        provider = self._providers[operation.provider]
        timeouts = self.timeouts(deadline - self._clock.monotonic())
        key, reference = operation.idempotency_key, attempt.provider_reference or ""
        money = Money(operation.amount, currency)
        try:
            match operation.kind:
                case "capture":
                    return provider.capture(reference, money, idempotency_key=key, timeouts=timeouts)
                case "refund":
                    return provider.refund(reference, money, idempotency_key=key, timeouts=timeouts)
                case "void" if not reference:
                    # A payment that waits for the customer may have no id of the provider's yet. Once it has, its
                    # void is another call: under the same key it would be answered as this one was.
                    return provider.void_attempt(attempt.id, idempotency_key=f"{key}{BY_OUR_ID}", timeouts=timeouts)
                case "void":
                    return provider.void(reference, idempotency_key=key, timeouts=timeouts)
        except Exception:
            # An adapter that raises, against its contract, may have acted before it did.
            log.exception("adapter_failed", provider=operation.provider, operation=operation.id)
            return ModificationOutcome(ModificationKind.UNKNOWN, Health.IGNORED, "adapter_failed")

    def complete(self, attempt: Attempt, details: Mapping[str, str], deadline: float) -> Outcome:
        """Send what the customer's browser brought back, and again while the answer is lost, until the deadline.

        The same details go under the same key each time, in whatever request.
        """
        outcome = self._complete_once(attempt, details, deadline)
        for _ in range(SENDS_IN_A_REQUEST - 1):
            left_s = deadline - self._clock.monotonic()
            if outcome.our_fault or not is_doubtful(outcome) or _is_too_late(left_s):
                break
            self._pause(self._jitter_s(), deadline)
            later = self._complete_once(attempt, details, deadline)
            # A re-send that is turned away proves nothing about the one before.
            outcome = later if later.kind is not OutcomeKind.UNKNOWN else outcome
        return outcome

    def _complete_once(self, attempt: Attempt, details: Mapping[str, str], deadline: float) -> Outcome:
        left_s = deadline - self._clock.monotonic()
        if _is_too_late(left_s):
            return Outcome(OutcomeKind.UNKNOWN, Health.IGNORED, reason=NO_TIME_LEFT)
        with self._operating(attempt.provider) as free:
            if not free:
                # As if the answer were lost: it is sent again here, by checkout, or found by the resolver.
                return Outcome(OutcomeKind.UNKNOWN, Health.IGNORED, reason=HELD_BACK)
            try:
                return self._providers[attempt.provider].complete(
                    attempt.provider_reference,
                    details,
                    capture="automatic" if attempt.at_once else "manual",
                    # Without it a customer could finish an expensive payment with a cheap one's details.
                    attempt_id=attempt.id,
                    idempotency_key=f"{attempt.id}-{step_of(details)}",
                    timeouts=self.timeouts(left_s),
                )
            except Exception:
                log.exception("adapter_failed", provider=attempt.provider, attempt=attempt.id)
                return Outcome(OutcomeKind.UNKNOWN, Health.IGNORED, reason="adapter_failed")

    def place(self, provider: str) -> AbstractContextManager[bool]:
        """Whether a call about an existing attempt may be made now, and its place for as long (design §3.6)."""
        return self._operating(provider)

    def is_reference(self, provider: str, reference: str) -> bool:
        """Whether that can be the provider's id of a payment."""
        return self._providers[provider].is_reference(reference)

    def timeouts(self, seconds_left: float) -> Timeouts:
        """Bounds of a send that must be over in that many seconds."""
        connect_s = min(self._times.connect_s, seconds_left / 2)
        return Timeouts(connect_s, min(self._times.read_s, seconds_left - connect_s))

    def _send(self, attempt: Attempt, seconds_left: float) -> Outcome:
        try:
            outcome = self._providers[attempt.provider].authorize(
                attempt.params, idempotency_key=attempt.idempotency_key, timeouts=self.timeouts(seconds_left)
            )
        except Exception:
            # An adapter that raises, against its contract, may have charged before it did.
            log.exception("adapter_failed", provider=attempt.provider, attempt=attempt.id)
            return Outcome(OutcomeKind.UNKNOWN, Health.IGNORED, reason="adapter_failed")
        if outcome.our_fault:
            log.error("rejected_by_provider", provider=attempt.provider, attempt=attempt.id, reason=outcome.reason)
        if outcome.decline is not None and not outcome.decline.known:
            log.error("unknown_decline_code", provider=attempt.provider, code=outcome.decline.code)
        return outcome

    def _jitter_s(self) -> float:
        least, most = RESEND_WAIT_S
        return least + (most - least) * self._random()

    def _pause(self, seconds: float, deadline: float) -> None:
        self._clock.sleep(max(0.0, min(seconds, deadline - self._clock.monotonic())))

    def _ended(self, attempt: Attempt, outcome: Outcome, begun: float, sends: int) -> Attempt:
        latency_us = round((self._clock.monotonic() - begun) * 1e6)
        now = self._clock.now()
        ended = dataclasses.replace(
            learned(attempt, outcome, now), last_sent_at=now if sends else attempt.last_sent_at
        )
        return dataclasses.replace(ended, latency_us=latency_us, sends=max(1, sends))


def _is_too_late(seconds_left: float) -> bool:
    """A deadline lies inside the lease: before it, nobody else works on the payment. After it nothing is sent."""
    return seconds_left < LEAST_TIME_S / 2


def _state(told: ModificationOutcome, *, mistake_ends_it: bool) -> OperationState:
    match told.kind:
        case ModificationKind.DONE:
            return "done"
        case ModificationKind.RECEIVED:
            return "received"
        case ModificationKind.REFUSED:
            return "refused"
        # Rejected as our mistake at the first send: it never happened, and a second would be rejected as well.
        case ModificationKind.NOT_EXECUTED if told.our_fault and mistake_ends_it:
            return "refused"
        case _:
            return "unknown"


def _reason(state: tenacity.RetryCallState) -> str | None:
    return None if state.outcome is None else state.outcome.result().reason


def step_of(details: Mapping[str, str]) -> str:
    """A word for one step of the customer's: there may be several, and the same details are a re-send."""
    return hashlib.sha256(json.dumps(dict(details), sort_keys=True).encode()).hexdigest()[:16]


def is_doubtful_completion(outcome: Outcome) -> bool:
    """Whether the provider may have finished the payment, or could not be asked: not where it refused the details."""
    refused = outcome.our_fault and outcome.health is not Health.CREDENTIALS_REFUSED
    return outcome.kind is OutcomeKind.UNKNOWN and not refused


def is_doubtful(outcome: Outcome) -> bool:
    """Whether a re-send could tell more: the send was lost, not merely pending at the provider."""
    return outcome.kind is OutcomeKind.UNKNOWN and outcome.provider_reference is None


def says_more(outcome: Outcome) -> bool:
    """Whether a re-send's outcome settles what an unknown send left open: by a result, not by a refused send."""
    if outcome.kind is OutcomeKind.NOT_EXECUTED:
        return outcome.final_record
    return outcome.kind is not OutcomeKind.UNKNOWN


def learned(attempt: Attempt, outcome: Outcome, now: dt.datetime) -> Attempt:
    """The attempt with this outcome written on it, or kept beside one that says more (`standing.ends_as`)."""
    capture = attempt.capture
    if outcome.kind is OutcomeKind.APPROVED and attempt.at_once and capture is None:
        # A webhook tells of the approval alone; that it was captured with it, we know from how it was sent.
        capture = "pending" if outcome.capture_pending else "done"
    told = outcome.kind.value
    ended = standing.ends_as(attempt, told)
    heard = dataclasses.replace(
        attempt,
        provider_reference=outcome.provider_reference or attempt.provider_reference,
        capture=capture,
        was_approved=standing.was_approved(attempt) or told == "approved",
        was_canceled=standing.was_canceled(attempt) or told == "canceled",
        # An answer that does not say what it costs takes nothing back.
        fee_actual=attempt.fee_actual if outcome.fee is None else outcome.fee.amount,
        fee_currency=attempt.fee_currency if outcome.fee is None else outcome.fee.currency,
    )
    if ended == attempt.outcome != told:
        return heard
    return dataclasses.replace(
        heard,
        outcome=ended,
        final_record=outcome.final_record and ended == "not_executed",
        reason=outcome.reason,
        health=outcome.health.value,
        decline=decline_json(outcome),
        # Where it still waits, what was said before holds until something else is said.
        next_action=(outcome.next_action and echoes.of_action(outcome.next_action))
        or (attempt.next_action if outcome.kind is OutcomeKind.REQUIRES_ACTION else None),
        finished_at=now,
    )


def decline_json(outcome: Outcome) -> dict[str, Any] | None:
    """A decline as it is kept and shown."""
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
