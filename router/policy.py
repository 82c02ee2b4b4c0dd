"""Which providers may take a payment, and in which order. Pure: facts in, decision out.

A provider is left out for good (`never`: it cannot take this payment) or for now (`not_now`: disabled or its
circuit is open). The flag's primary leads while it is eligible; the rest follow by value.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from flags.contract import RoutingFlags
from providers.contract import Params
from router.breaker import State
from router.value import Value


class Standing(enum.Enum):
    """Whether a provider may be tried."""

    ELIGIBLE = "eligible"
    NOT_NOW = "not_now"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Offer:
    """What is known of one provider for one payment, before deciding."""

    provider: str
    params: Params | None
    """The rendered vendor parameters; None where the provider can never take the payment."""
    obstacle: str | None
    """Why there are no parameters."""
    circuit: State
    value: Value


@dataclass(frozen=True, slots=True)
class Candidate:
    """One provider in a decision, chosen or not, with its reasons."""

    provider: str
    standing: Standing
    value: Decimal
    cost: Decimal
    reasons: Sequence[str]
    propensity: float = 0.0
    """The probability with which this candidate was put first."""

    def to_json(self) -> dict[str, Any]:
        """As the HTTP contract shows it; what is not measured yet is null."""
        return {
            "provider": self.provider,
            "eligible": self.standing is Standing.ELIGIBLE,
            "value": float(round(self.value, 4)),
            "approval": None,
            "availability": None,
            "cost": float(round(self.cost, 4)),
            "propensity": self.propensity,
            "reasons": list(self.reasons),
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """Candidates in the order in which they are tried; those not eligible stand last."""

    strategy: str
    primary: str
    candidates: Sequence[Candidate]

    @property
    def order(self) -> Sequence[str]:
        """Names of the eligible providers, first choice first."""
        return [each.provider for each in self.candidates if each.standing is Standing.ELIGIBLE]

    @property
    def possible(self) -> bool:
        """Whether any provider could take this payment, now or later."""
        return any(each.standing is not Standing.NEVER for each in self.candidates)

    def to_json(self) -> dict[str, Any]:
        """As the HTTP contract shows it."""
        return {
            "strategy": self.strategy,
            "primary": self.primary,
            "candidates": [each.to_json() for each in self.candidates],
        }


def decide(offers: Iterable[Offer], flags: RoutingFlags) -> Decision:
    """Order the providers for one payment."""
    judged = [_judge(offer, flags) for offer in offers]
    primary_leads = flags.strategy == "primary-first"

    def rank(candidate: Candidate) -> tuple[bool, bool, Decimal, str]:
        leads = primary_leads and candidate.provider == flags.primary
        # The name last, so that equal values are ordered the same in every process.
        return (candidate.standing is not Standing.ELIGIBLE, not leads, -candidate.value, candidate.provider)

    ordered = sorted(judged, key=rank)
    if ordered and ordered[0].standing is Standing.ELIGIBLE:
        # Nothing is drawn by chance yet: the first choice was certain.
        first = ordered[0]
        ordered[0] = Candidate(first.provider, first.standing, first.value, first.cost, first.reasons, 1.0)
    return Decision(flags.strategy, flags.primary, ordered)


def _judge(offer: Offer, flags: RoutingFlags) -> Candidate:
    standing = Standing.ELIGIBLE
    reasons: list[str] = []
    if offer.provider == flags.primary:
        reasons.append("primary")
    if not flags.is_enabled(offer.provider):
        standing = Standing.NOT_NOW
        reasons.append("disabled by flag")
    if offer.circuit is not State.CLOSED:
        standing = Standing.NOT_NOW
        reasons.append(f"circuit {offer.circuit.value}")
    if offer.params is None:
        standing = Standing.NEVER
        reasons.append(offer.obstacle or "cannot take this payment")
    reasons.append(offer.value.reason)
    return Candidate(offer.provider, standing, offer.value.value, offer.value.cost, reasons)


def refusals(decision: Decision) -> Mapping[str, str]:
    """Each provider's reason for not being able to take the payment, for a problem document."""
    return {
        each.provider: "; ".join(reason for reason in each.reasons[:-1] if reason != "primary")
        for each in decision.candidates
    }
