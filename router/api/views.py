"""The HTTP contract's shapes: what a payment and a decision look like to a client (design §6)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field

from router.api.answers import encoded
from router.decisions import Decided
from router.doubts import Doubt
from router.ledger.decisions import Told
from router.ledger.records import Attempt, Payment
from router.ledger.sealed import UnreadableError
from router.payments import Answer
from router.sealing import is_sealed

PaymentStatus = Literal[
    "processing", "requires_action", "authorized", "captured", "declined", "parked", "failed", "canceled"
]


class DeclineView(BaseModel):
    """Why the issuer, or the provider for it, said no."""

    decline_class: Literal["soft", "hard", "fraud", "authentication", "invalid"] = Field(alias="class")
    code: str
    message: str
    network_code: str | None
    advice: str | None


class AttemptView(BaseModel):
    """One try at one provider; `outcome` null: sent, and no answer known yet."""

    id: str
    provider: str
    outcome: Literal["approved", "declined", "requires_action", "not_executed", "unknown", "canceled"] | None
    provider_reference: str | None
    latency_ms: int | None
    reason: str | None


class CandidateView(BaseModel):
    """One provider in the decision. Money is in major units of the payment's currency.

    What a payment of an earlier version does not say is null.
    """

    provider: str
    eligible: bool
    value: float = Field(description="availability × approval × (margin × amount − fee) − attempt_fee")
    approval: float | None = Field(description="expected share of the issuer's approvals, 0 to 1")
    availability: float | None = Field(description="expected share of calls that the provider answers, 0 to 1")
    cost: float = Field(description="fee + attempt_fee")
    fee: float | None = Field(default=None, description="what an approval costs, by the schedule and settlements")
    fee_learned: float | None = Field(default=None, description="how much of the fee settlements taught; absent: 0")
    attempt_fee: float | None = Field(default=None, description="what trying costs")
    share: float | None = Field(default=None, description="of the payments that it may lead, while it recovers")
    propensity: float = Field(description="the probability with which it was put first")
    reasons: list[str] = Field(description="why it stands where it stands; the last recomputes to its value")


class DecisionView(BaseModel):
    """Why these providers, in this order."""

    strategy: str
    primary: str
    lane: str | None = Field(
        default=None, description="by what the first was chosen: `strategy`, `explore` or `holdout`"
    )
    choice: str | None = Field(default=None, description="whom the strategy puts first, before any draw")
    incumbent: str | None = Field(default=None, description="the choice for payments of this kind before it")
    margin: float | None = None
    amount: float | None = Field(default=None, description="major units")
    candidates: list[CandidateView]
    trace: str | None = Field(
        default=None, description="where traces are on, the W3C traceparent of the request that the payment came by"
    )


class DecidedView(DecisionView):
    """A decision that checkout asked for; with it, all that a payment's decision shows."""

    id: str
    """Signed; names the decision when an outcome is told."""
    order: list[str]
    """The eligible providers, first choice first; empty: all are unavailable now, and `reasons` say why."""
    expires_at: str
    """Until then outcomes are taken."""
    degraded: bool
    """The ledger is away: a card's earlier tries were not looked at, or the decision may not be kept."""


class ReportedDeclineView(BaseModel):
    """What a decline's code means."""

    decline_class: Literal["soft", "hard", "fraud", "authentication", "invalid"] = Field(alias="class")
    code: str


class OutcomeView(BaseModel):
    """An outcome as it was taken."""

    decision: str
    provider: str
    outcome: str
    latency_ms: int
    decline: ReportedDeclineView | None
    finishes: bool
    """There is nothing more to tell of the decision."""
    told_at: str


class DisputeView(BaseModel):
    """The latest that the provider has told of a dispute or chargeback; `notice` is the vendor's own word."""

    reason: str | None = Field(description="`opened`, `won` or `lost`")
    notice: str
    at: str


class PaymentView(BaseModel):
    """A payment as it stands. Amounts are integer minor units by ISO 4217."""

    id: str
    status: PaymentStatus
    reference: str
    amount: int
    currency: str
    amount_captured: int
    amount_refunded: int
    capture_pending: bool
    provider: str | None
    decline: DeclineView | None
    next_action: dict[str, Any] | None
    dispute: DisputeView | None
    attempts: list[AttemptView]
    decision: DecisionView
    metadata: dict[str, str]
    retry_at: str | None = Field(description="of one that is `parked`: when it is tried next, at the latest")
    failure: Literal["expired", "rejected", "unavailable"] | None = Field(
        description="of one that is `failed`: it waited until `expires_at`; every provider rejected what it was "
        "sent; nobody could take it and it was not to wait. Null: what was unknown of it came to nothing"
    )
    created_at: str


class PaymentList(BaseModel):
    """A page of payments; `next` is the cursor of the following page."""

    payments: list[PaymentView]
    next: str | None


class DoubtView(BaseModel):
    """One thing that only a person can say: `POST /v1/payments/{id}/resolve` names it by this id."""

    attempt: str | None
    operation: str | None
    kind: Literal["authorization", "capture", "void", "refund"]
    provider: str
    provider_reference: str | None
    state: str
    reason: str | None
    since: str


class AttentionView(BaseModel):
    """A payment that needs a person, and why."""

    id: str
    status: PaymentStatus
    reference: str
    amount: int
    currency: str
    attention: str
    in_doubt: list[DoubtView]
    created_at: str


class AttentionList(BaseModel):
    """A page of the operator's queue, the oldest first; `next` is the cursor of the following page."""

    payments: list[AttentionView]
    next: str | None


def moment(value: dt.datetime) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    return value.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def payment_json(answer: Answer) -> dict[str, Any]:
    """A payment as PaymentView describes it; a test holds the two together."""
    payment = answer.payment
    return {
        "id": payment.id,
        "status": payment.status,
        "reference": payment.reference,
        "amount": payment.amount,
        "currency": payment.currency,
        "amount_captured": payment.amount_captured,
        "amount_refunded": payment.amount_refunded,
        "capture_pending": payment.capture_pending,
        "provider": payment.provider,
        "decline": payment.decline,
        "next_action": _readable(payment.next_action),
        "dispute": None if payment.dispute is None else _dispute_json(payment.dispute),
        "attempts": [_attempt_json(each) for each in answer.attempts],
        "decision": payment.decision,
        "metadata": payment.order.get("metadata", {}),
        "retry_at": moment(payment.next_try_at) if payment.status == "parked" and payment.next_try_at else None,
        "failure": payment.failure,
        "created_at": moment(payment.created_at),
    }


def _readable(action: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """What the customer is to do. Raises UnreadableError: that there is nothing would be a lie."""
    if is_sealed(action):
        raise UnreadableError("what the customer is to do is sealed, and cannot be opened here now")
    return action


def decided_body(decided: Decided) -> bytes:
    """A decision as DecidedView describes it, in JSON: what is kept of it goes on from what only the answer says."""
    head = {
        "id": decided.id,
        "order": decided.order,
        "expires_at": moment(decided.expires_at),
        "degraded": decided.degraded,
    }
    return encoded(head)[:-1] + b"," + decided.decision[1:].encode() + b"\n"


def outcome_json(decision_id: str, told: Told) -> dict[str, Any]:
    """An outcome as OutcomeView describes it."""
    return {
        "decision": decision_id,
        "provider": told.provider,
        "outcome": told.outcome,
        "latency_ms": told.latency_ms,
        "decline": None if told.decline is None else dict(told.decline),
        "finishes": told.finishes,
        "told_at": moment(told.told_at),
    }


def attention_json(payment: Payment, found: Sequence[Doubt]) -> dict[str, Any]:
    """A payment as AttentionView describes it."""
    return {
        "id": payment.id,
        "status": payment.status,
        "reference": payment.reference,
        "amount": payment.amount,
        "currency": payment.currency,
        "attention": payment.attention,
        "in_doubt": [_doubt_json(each) for each in found],
        "created_at": moment(payment.created_at),
    }


def _doubt_json(doubt: Doubt) -> dict[str, Any]:
    attempt, operation = doubt.attempt, doubt.operation
    return {
        "attempt": attempt.id if operation is None else None,
        "operation": None if operation is None else operation.id,
        "kind": "authorization" if operation is None else operation.kind,
        "provider": attempt.provider,
        "provider_reference": attempt.provider_reference,
        "state": doubt.state,
        "reason": doubt.reason,
        "since": moment(doubt.since),
    }


def _dispute_json(dispute: Mapping[str, Any]) -> dict[str, Any]:
    at = moment(dt.datetime.fromisoformat(dispute["at"]))
    return {"reason": dispute["reason"], "notice": dispute["notice"], "at": at}


def _attempt_json(attempt: Attempt) -> dict[str, Any]:
    return {
        "id": attempt.id,
        "provider": attempt.provider,
        "outcome": attempt.outcome,
        "provider_reference": attempt.provider_reference,
        "latency_ms": None if attempt.latency_us is None else round(attempt.latency_us / 1000),
        "reason": attempt.reason,
    }
