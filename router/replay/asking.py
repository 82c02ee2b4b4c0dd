"""The policy asked about, applied to payments as they were logged. Pure.

What is not asked for stays as it was for each payment: its strategy, primary and tuning, and who was enabled. The
policy keeps choices of its own, per primary, segment and who is barred, as a router does (`router.choices`). It
begins with the log's where the primary is the same; after that the log's incumbents are not its.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flags.contract import RoutingFlags, RoutingTuning, Strategy
from router import policy
from router.choices import Barred
from router.policy import Offer, Standing
from router.replay.cases import Case, Option
from router.replay.logged import DISABLED, Logged
from router.segments import Segment

PASSING = ("circuit ", "too many calls")
"""How the policy's words begin for what keeps a provider from a payment now, and from no payment for good."""
DIGITS = 6
"""Of a propensity, as the log keeps it."""
FLAGS_KEPT = 1_000
"""Combinations of flags met in one log; a handful is usual."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked about; None: as it was."""

    strategy: Strategy | None = None
    primary: str | None = None
    enabled: frozenset[str] | None = None
    """The providers that may take payments; those not named are switched off."""
    tuning: RoutingTuning | None = None


class Redecider:
    """Decides each payment of a log anew; feed it in the order of time."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._choices: dict[tuple[str, Segment, Barred], str | None] = {}
        self._flags: dict[tuple[Strategy, str, RoutingTuning], RoutingFlags] = {}

    def case(self, logged: Logged) -> Case:
        """The payment with the probabilities of each first choice, the log's and the asked policy's."""
        flags = self._flags_for(logged)
        offers = self._offers(logged.offers)
        kind = (flags.primary, logged.segment, frozenset(each.provider for each in offers if _is_barred(each)))
        begins_with = logged.incumbent if flags.primary == logged.primary else None
        incumbent = self._choices.get(kind, begins_with)
        decision = policy.decide(offers, flags, logged.amount, incumbent=incumbent)
        if flags.strategy == "best-value":
            self._choices[kind] = decision.choice or incumbent
        options: list[Option] = []
        first, nobody = -1, bool(logged.propensities)
        for each in decision.candidates:
            name, terms = each.offer.provider, each.offer.terms
            p = logged.propensities.get(name, 0.0)
            nobody = nobody and each.standing is not Standing.ELIGIBLE
            q = round(each.propensity, DIGITS)
            if p > 0 or q > 0:
                if name == logged.first:
                    first = len(options)
                expected = terms.approval * terms.availability
                options.append(Option(name, p, q, expected, terms.fee, terms.attempt))
        return Case(
            options=options,
            first=first,
            approved=logged.approved,
            cost=logged.cost,
            gain=flags.tuning.margin * logged.amount,
            amount=logged.amount,
            currency=logged.currency,
            segment=logged.segment,
            nobody=nobody,
        )

    def _flags_for(self, logged: Logged) -> RoutingFlags:
        key = (
            self._asked.strategy or logged.strategy,
            self._asked.primary or logged.primary,
            self._asked.tuning or logged.tuning,
        )
        flags = self._flags.get(key)
        if flags is None:
            if len(self._flags) >= FLAGS_KEPT:
                self._flags.clear()
            flags = self._flags[key] = RoutingFlags(primary=key[1], strategy=key[0], tuning=key[2])
        return flags

    def _offers(self, offers: Sequence[Offer]) -> Sequence[Offer]:
        enabled = self._asked.enabled
        return offers if enabled is None else [_switched(each, on=each.provider in enabled) for each in offers]


def _is_barred(offer: Offer) -> bool:
    """Whether the payment could not have gone to it, however well it was."""
    return any(not each.startswith(PASSING) for each in (offer.obstacle or "").split("; ") if each)


def _switched(offer: Offer, *, on: bool) -> Offer:
    if not on:
        return offer._replace(obstacle=DISABLED)
    return offer._replace(obstacle=None) if offer.obstacle == DISABLED else offer
