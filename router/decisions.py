"""Decisions for a checkout that calls providers by itself: the same choice as for a payment, the same learning.

    decide   the planner's decision of an order; nothing is charged, nothing is committed: the id carries what the
             outcome needs, and the row is written in a moment by `router.decision_writing`
    tell     how a call at one of the eligible providers ended: one row, one commit; who wrote it learns from it

A checkout may fail over by itself: it tells one outcome for each provider that it called, whichever it was, as they
come. Only `requires_action` can be followed by another of the same provider, once: what the issuer answered after the
customer's step, `approved` or `declined`; it takes the first one's place. The decision is *finished* by an approval,
or by a decline after which no provider can approve (hard, fraud, invalid data); a soft decline, a missing
authentication, `requires_action`, `not_executed` and `unknown` leave it open.

What is told teaches scores, and may help to mark a provider as suspect (`router.reported`); it moves no circuit. A
process that dies between the commit and the learning has learned nothing: at most once, never twice.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from pydantic import Field

from providers import reported
from providers.contract import Decline
from router.appraisal import segment_of
from router.clock import Clock, Ids
from router.decision_ids import Carried, DecisionIds
from router.decision_writing import DecisionWriter
from router.health import ProviderHealth
from router.learning import is_answer
from router.ledger.decisions import DecisionLedger, DecisionRow, Told
from router.ledger.engine import written
from router.order import Order, PaymentMethod, ProviderName, Token
from router.payments import AlreadyExpiredError, NoEligibleProviderError
from router.planning import Planner
from router.segments import Segment

OutcomeWord = Literal["approved", "declined", "requires_action", "not_executed", "unknown"]
LONGEST_MS = 600_000
BLIND_S = 5.0
"""After the ledger did not answer it is not asked for a card's tries for so long: each time can take seconds."""


class OpenMethod(PaymentMethod):
    """A payment method whose tokens may be left out: then any provider may have it on file."""

    tokens: dict[ProviderName, Token] = Field(default_factory=dict, max_length=8)


class DecisionOrder(Order):
    """The body of `POST /v1/decisions`: a payment's, whose tokens may be left out."""

    payment_method: OpenMethod


class ScoreTeacher(Protocol):
    """What learns of outcomes: `router.scores`."""

    def hear_reported(
        self, provider: str, segment: Segment, *, approved: bool | None, failed: bool, at: float
    ) -> None:
        """One call, and perhaps an answer."""

    def hear_answer(self, provider: str, segment: Segment, approved: bool, at: float) -> None:
        """One issuer's answer."""


# ---------------------------------------------------------------- refusals


class NoSuchDecisionError(Exception):
    """This id is none that was made for this merchant."""


class DecisionExpiredError(Exception):
    """The decision is too old for an outcome."""


class NotACandidateError(Exception):
    """The provider was not among the decision's eligible ones."""


class OutcomeAlreadyToldError(Exception):
    """Another outcome of this decision's provider was told before."""


class DecisionFinishedError(Exception):
    """An outcome that was told before has finished the decision."""


# ---------------------------------------------------------------- the service


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision as checkout is told of it."""

    id: str
    decision: str
    """As the HTTP contract shows it: a JSON object, written once, to be answered and to be kept."""
    order: tuple[str, ...]
    """The eligible providers, first choice first; empty: all are unavailable now."""
    expires_at: dt.datetime
    degraded: bool
    """The ledger is away: the card's earlier tries were not looked at, or decisions are not being written."""


class Decisions:
    """Thread-safe. Deciding needs the ledger for nothing but the earlier tries of a card that is known again."""

    def __init__(
        self,
        *,
        planner: Planner,
        health: ProviderHealth,
        scores: ScoreTeacher,
        ledger: DecisionLedger,
        writer: DecisionWriter,
        signer: DecisionIds,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._planner = planner
        self._health = health
        self.scores = scores
        self._ledger = ledger
        self._writer = writer
        self.signer = signer
        self._clock = clock
        self._ids = ids
        self._blind_until = float("-inf")

    def decide(self, order: Order, *, merchant: str) -> Decided:
        """Decide, and charge nothing. Raises NoEligibleProviderError, AlreadyExpiredError."""
        now = self._clock.now()
        if order.expires_at is not None and order.expires_at <= now:
            raise AlreadyExpiredError
        key = self._ids.new("dec")
        sees = self._clock.monotonic() >= self._blind_until
        decision, blind = self._planner.consider(key, merchant, order, now, ask_ledger=sees)
        if blind and sees:
            self._blind_until = self._clock.monotonic() + BLIND_S
        if not decision.possible:
            raise NoEligibleProviderError(decision)
        eligible = tuple(decision.order)
        first = decision.candidates[0].propensity if eligible else 0.0
        carried = Carried(key, now, segment_of(order), eligible, first)
        shown = written(decision.to_json())
        kept = self._writer.put(_row(key, merchant, order, shown, now))
        degraded = blind or not kept or self._writer.is_away
        return Decided(self.signer.sign(carried, merchant), shown, eligible, carried.expires_at, degraded)

    def tell(
        self,
        decision_id: str,
        *,
        merchant: str,
        provider: str,
        outcome: OutcomeWord,
        latency_ms: int,
        decline_code: str | None,
    ) -> tuple[Told, bool]:
        """Take an outcome and learn from it, once. Answers it, and whether it had been told before.

        Raises one of the refusals above, or LedgerUnavailableError: then it may be told again.
        """
        now = self._clock.now()
        carried = self.signer.read(decision_id, merchant)
        if carried is None:
            raise NoSuchDecisionError
        if provider not in carried.order:
            raise NotACandidateError
        decline = reported.decline(provider, decline_code) if outcome == "declined" else None
        news = Told(
            decision_id=carried.key,
            provider=provider,
            merchant=merchant,
            outcome=outcome,
            latency_ms=latency_ms,
            decline_code=decline_code,
            decline=None if decline is None else {"class": decline.decline_class.value, "code": decline.code},
            finishes=outcome == "approved" or (decline is not None and reported.ends_it(decline)),
            decided_at=carried.at,
            told_at=now,
        )
        if now >= carried.expires_at:
            # Told in time and asked again: its answer may have been lost on the way.
            return self._again(news, self._ledger.told(carried.key), DecisionExpiredError), True
        written, before = self._ledger.tell(news)
        if not written:
            return self._again(news, before, DecisionFinishedError), True
        self._learn(carried, news, decline, before)
        return news, False

    def _again(self, news: Told, known: Iterable[Told], otherwise: type[Exception]) -> Told:
        """What was told of this provider before, where it is the same, or has followed on it."""
        for each in known:
            if each.provider == news.provider:
                if each.says_the_same(news) or each.follows(news):
                    return each
                if news.follows(each):
                    break  # but for what `otherwise` says, it would have been taken
                raise OutcomeAlreadyToldError
        raise otherwise

    def _learn(self, carried: Carried, told: Told, decline: Decline | None, before: Iterable[Told]) -> None:
        if told.provider not in self._planner.names:
            return  # one that this build has no adapter for any more
        failed = told.outcome in ("not_executed", "unknown") or (told.outcome == "declined" and decline is None)
        approved = _issuer_said(told)
        if any(_issuer_said(each) is False for each in before):
            approved = None  # a card that was declined already says less of whom it comes to next (`router.learning`)
        # The call that began the customer's step was counted then; one that ended it and failed is another.
        call = failed or not any(each.provider == told.provider for each in before)
        lesson = self._health.hear_reported(told.provider, told.merchant, failed=failed, approved=approved, call=call)
        at = told.told_at.timestamp()
        if lesson.call:
            answer = approved if lesson.answer else None
            self.scores.hear_reported(told.provider, carried.segment, approved=answer, failed=failed, at=at)
        elif lesson.answer and approved is not None:
            self.scores.hear_answer(told.provider, carried.segment, approved, at)


def _issuer_said(told: Told) -> bool | None:
    """Whether the issuer approved; None: it did not answer, as far as is told."""
    if told.outcome == "approved":
        return True
    return False if told.outcome == "declined" and told.decline is not None and is_answer(told.decline) else None


def _row(key: str, merchant: str, order: Order, shown: str, now: dt.datetime) -> DecisionRow:
    card = order.payment_method.card
    return DecisionRow(
        id=key,
        merchant=merchant,
        reference=order.reference,
        amount=order.amount,
        currency=order.currency,
        method=order.payment_method.type,
        card_brand=None if card is None else card.brand,
        card_country=None if card is None else card.country,
        card_funding=None if card is None else card.funding,
        decision=shown,
        created_at=now,
    )
