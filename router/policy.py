"""Which providers may take a payment, and in which order. Pure: facts in, decision out.

A provider is left out for good (`never`: it cannot take this payment) or for now (`not_now`: disabled or its
circuit is open). The flag's primary leads while it is eligible; the rest follow by value. One that is recovering or
suspect keeps its place for a share of the payments only; for the others it stands behind the rest, as their last
resort, so the only eligible provider is never withheld.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from flags.contract import RoutingFlags
from providers.contract import Params
from router.transitions import ADMITTING, State
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
    share: float = 1.0
    """Of the payments for which it keeps its place, 0 to 1; less than all while it recovers or is suspect."""
    held_back: str | None = None
    """Why the share is less than all."""
    busy: bool = False
    """As many calls as it may have are under way to it already."""


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


def decide(
    offers: Iterable[Offer], flags: RoutingFlags, *, draw: float = 0.0, overridden: str | None = None
) -> Decision:
    """Order the providers for one payment. `draw` is this payment's number in [0, 1), drawn evenly.

    `overridden`: why the primary is not the flag's own.
    """
    judged = [(_judge(offer, flags, overridden), offer.share) for offer in offers]
    ordered = _ordered(judged, flags, draw)
    first = _first_by_chance(judged, flags)
    # The probability with which each would have been first stands beside it: reports weigh by it what was chosen.
    candidates = [
        dataclasses.replace(each, propensity=first[each.provider]) if first.get(each.provider) else each
        for each in ordered
    ]
    return Decision(flags.strategy, flags.primary, candidates)


def _ordered(judged: Sequence[tuple[Candidate, float]], flags: RoutingFlags, draw: float) -> Sequence[Candidate]:
    primary_leads = flags.strategy == "primary-first"

    def rank(each: tuple[Candidate, float]) -> tuple[bool, bool, bool, Decimal, str]:
        candidate, share = each
        leads = primary_leads and candidate.provider == flags.primary
        # The name last, so that equal values are ordered the same in every process.
        return (
            candidate.standing is not Standing.ELIGIBLE,
            draw >= share,
            not leads,
            -candidate.value,
            candidate.provider,
        )

    return [candidate for candidate, _ in sorted(judged, key=rank)]


def _first_by_chance(judged: Sequence[tuple[Candidate, float]], flags: RoutingFlags) -> Mapping[str, float]:
    """With which probability each provider is the first choice, over all draws: the order changes only at a share."""
    bounds = sorted({0.0, 1.0, *(min(1.0, max(0.0, share)) for _, share in judged)})
    chances: dict[str, float] = {}
    for low, high in itertools.pairwise(bounds):
        ordered = _ordered(judged, flags, low)
        if ordered and ordered[0].standing is Standing.ELIGIBLE:
            name = ordered[0].provider
            chances[name] = round(chances.get(name, 0.0) + high - low, 6)
    return chances


def _judge(offer: Offer, flags: RoutingFlags, overridden: str | None) -> Candidate:
    standing = Standing.ELIGIBLE
    reasons: list[str] = []
    if offer.provider == flags.primary:
        reasons.append(overridden or "primary")
    if not flags.is_enabled(offer.provider):
        standing = Standing.NOT_NOW
        reasons.append("disabled by flag")
    if offer.circuit not in ADMITTING:
        standing = Standing.NOT_NOW
        reasons.append(f"circuit {offer.circuit.value}")
    elif offer.busy:
        standing = Standing.NOT_NOW
        reasons.append("too many calls under way")
    if offer.params is None:
        standing = Standing.NEVER
        reasons.append(offer.obstacle or "cannot take this payment")
    if standing is Standing.ELIGIBLE and offer.held_back is not None:
        reasons.append(offer.held_back)
    reasons.append(offer.value.reason)
    return Candidate(offer.provider, standing, offer.value.value, offer.value.cost, reasons)


def refusals(decision: Decision) -> Mapping[str, str]:
    """Each provider's reason for not being able to take the payment, for a problem document."""
    return {
        each.provider: "; ".join(reason for reason in each.reasons[:-1] if not reason.startswith("primary"))
        for each in decision.candidates
    }
