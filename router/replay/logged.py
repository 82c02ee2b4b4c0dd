"""One payment of the ledger in the words of a replay: terms, draw, outcome and cost; or why it cannot be used."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flags.contract import RoutingTuning, Strategy
from flags.definitions import TUNING_BOUNDS, tuning_problem
from router.ledger.decision_log import LogEntry, Tried
from router.policy import Lane, Offer
from router.segments import Segment, segment
from router.value import Terms

DISABLED = "disabled by flag"
"""The one obstacle that a replay with other flags can take away, as the policy writes it."""
APPROVED = frozenset({"authorized", "captured"})
OPEN = frozenset({"processing", "requires_action", "parked"})
_SUM_WITHIN = 0.001
"""Propensities are rounded to six digits each; more than this off one, they are not propensities."""


class LeftOut(enum.Enum):
    """Why a payment tells a replay nothing."""

    OPEN = "not final yet"
    NO_PROPENSITIES = "decided before propensities were logged"
    UNREADABLE = "logged decision cannot be read"


@dataclass(frozen=True, slots=True)
class Logged:
    """A payment with the decision by which it was routed and what became of it."""

    currency: str
    amount: float
    """Major units."""
    segment: Segment
    strategy: Strategy
    primary: str
    tuning: RoutingTuning
    offers: Sequence[Offer]
    propensities: Mapping[str, float]
    """Of the eligible."""
    incumbent: str | None
    """The choice before this one."""
    first: str | None
    """Whom the draw put first; None: nobody was eligible."""
    lane: Lane
    approved: bool
    cost: float
    """Fees by the logged terms, major units: the taker's, and one per attempt that was carried out."""


def read(entry: LogEntry) -> Logged | LeftOut:
    """The payment, or why it is left out."""
    if entry.status in OPEN:
        return LeftOut.OPEN
    candidates = entry.decision.get("candidates")
    if not isinstance(candidates, list):
        return LeftOut.UNREADABLE
    if "lane" not in entry.decision or any("propensity" not in each for each in candidates):
        return LeftOut.NO_PROPENSITIES
    try:
        return _read(entry, candidates)
    # Whatever an older or a later version wrote there, one payment must not end the report.
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return LeftOut.UNREADABLE


def _read(entry: LogEntry, candidates: Sequence[Mapping[str, Any]]) -> Logged | LeftOut:
    decision = entry.decision
    strategy = decision["strategy"]
    if strategy not in ("primary-first", "best-value"):
        return LeftOut.UNREADABLE
    offers = [_offer(each, decision["primary"]) for each in candidates]
    propensities = {each["provider"]: float(each["propensity"]) for each in candidates if each["eligible"]}
    first = next(iter(propensities), None)
    if first is not None and (propensities[first] <= 0 or abs(sum(propensities.values()) - 1) > _SUM_WITHIN):
        return LeftOut.UNREADABLE
    approved = entry.status in APPROVED or (
        # Voided after it had been approved: routing did its part.
        entry.status == "canceled" and any(each.id == entry.attempt_id and each.was_approved for each in entry.tried)
    )
    card = entry.order["payment_method"].get("card") or {}
    return Logged(
        currency=entry.currency,
        amount=float(decision["amount"]),
        segment=segment(entry.amount, card.get("brand"), card.get("country"), entry.order["payment_method"]["type"]),
        strategy=strategy,
        primary=str(decision["primary"]),
        tuning=_tuning(entry.flags.get("tuning") or {}),
        offers=offers,
        propensities=propensities,
        incumbent=decision["incumbent"],
        first=first,
        lane=Lane(decision["lane"]),
        approved=approved,
        cost=_cost(entry.tried, entry.provider if approved else None, {each.provider: each.terms for each in offers}),
    )


def _offer(candidate: Mapping[str, Any], primary: str) -> Offer:
    name, obstacle = str(candidate["provider"]), None
    if not candidate["eligible"]:
        # The reasons of one that is not eligible: whether it is the primary, its obstacles, its line of value.
        obstacles = candidate["reasons"][1 if name == primary else 0 : -1]
        obstacle = "; ".join(obstacles) or "not eligible"
    terms = Terms(
        float(candidate["approval"]),
        float(candidate["availability"]),
        float(candidate["fee"]),
        float(candidate["attempt_fee"]),
    )
    return Offer(name, terms, obstacle=obstacle, share=float(candidate["share"]))


def _tuning(told: Mapping[str, Any]) -> RoutingTuning:
    """As it was stored; what is no number within its bounds has its default, as when the flag is read."""
    return RoutingTuning(
        **{key: told[key] for key in TUNING_BOUNDS if key in told and not tuning_problem(key, told[key])}
    )


def _cost(tried: Sequence[Tried], taker: str | None, terms: Mapping[str, Terms]) -> float:
    cost = terms[taker].fee if taker is not None and taker in terms else 0.0
    # What was proved not to have been carried out costs nothing.
    return cost + sum(
        terms[each.provider].attempt for each in tried if each.outcome != "not_executed" and each.provider in terms
    )
