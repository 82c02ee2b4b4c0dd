"""The strategy against the payments held out from it: a difference of means, with its 95% interval. Pure.

Who is held out is drawn evenly, so nothing has to be estimated from propensities. Payments are compared only with
those of the same holdout share: where the share was changed, so had the days.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from router.policy import Lane
from router.replay.estimate import MEASURES, Z95, Estimate
from router.replay.logged import Logged

LEAST_PAYMENTS = 2
"""Of each side, for a variance."""


@dataclass(frozen=True, slots=True)
class Uplift:
    """What the strategy earned more than the primary alone, per payment."""

    strategy: int
    """Payments that the strategy decided."""
    held_out: int
    """Payments kept on the primary."""
    measures: Mapping[str, Estimate]


class _Side:
    __slots__ = ("payments", "squares", "sums")

    def __init__(self) -> None:
        self.payments = 0
        self.sums = [0.0] * len(MEASURES)
        self.squares = [0.0] * len(MEASURES)

    def add(self, outcomes: tuple[float, ...]) -> None:
        self.payments += 1
        for place, y in enumerate(outcomes):
            self.sums[place] += y
            self.squares[place] += y * y

    def mean(self, place: int) -> float:
        return self.sums[place] / self.payments

    def error2(self, place: int) -> float:
        """Of the mean. A rate's with a success and a failure more than were seen (Agresti and Caffo)."""
        if MEASURES[place] == "approval":
            rate = (self.sums[place] + 1) / (self.payments + 2)
            return rate * (1 - rate) / (self.payments + 2)
        spread = self.squares[place] / self.payments - self.mean(place) ** 2
        return max(0.0, spread) / (self.payments - 1)


class Holdout:
    """Adds payments up; a few hundred bytes per currency and share."""

    def __init__(self) -> None:
        self._sides: dict[tuple[str, float], dict[Lane, _Side]] = {}

    def add(self, logged: Logged) -> None:
        """One payment; those of times without a holdout, and those that explored, tell nothing here."""
        share = logged.tuning.holdout
        if share <= 0 or logged.lane is Lane.EXPLORE or logged.first is None:
            return
        sides = self._sides.setdefault((logged.currency, share), {})
        approved = float(logged.approved)
        net = logged.tuning.margin * logged.amount * approved - logged.cost
        sides.setdefault(logged.lane, _Side()).add((approved, logged.cost, net))

    def by_currency(self) -> Mapping[str, Uplift]:
        """Per currency that had both kinds of payments."""
        found = {}
        for currency in sorted({currency for currency, _ in self._sides}):
            uplift = self._uplift([sides for (each, _), sides in self._sides.items() if each == currency], MEASURES)
            if uplift is not None:
                found[currency] = uplift
        return found

    def overall(self) -> Uplift | None:
        """Of the approval rate, over all currencies; each is compared within itself."""
        return self._uplift(list(self._sides.values()), MEASURES[:1])

    def _uplift(self, strata: list[dict[Lane, _Side]], measures: tuple[str, ...]) -> Uplift | None:
        pairs = [
            (sides[Lane.STRATEGY], sides[Lane.HOLDOUT])
            for sides in strata
            if len(sides) == 2 and min(each.payments for each in sides.values()) >= LEAST_PAYMENTS
        ]
        whole = sum(ours.payments + kept.payments for ours, kept in pairs)
        if not pairs:
            return None
        found = {}
        for place, measure in enumerate(measures):
            value = error2 = 0.0
            for ours, kept in pairs:
                weight = (ours.payments + kept.payments) / whole
                value += weight * (ours.mean(place) - kept.mean(place))
                error2 += weight**2 * (ours.error2(place) + kept.error2(place))
            error = Z95 * math.sqrt(error2)
            found[measure] = Estimate(value, value - error, value + error)
        return Uplift(sum(ours.payments for ours, _ in pairs), sum(kept.payments for _, kept in pairs), found)
