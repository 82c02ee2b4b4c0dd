"""What another policy would have earned, with 95% intervals: inverse propensity and doubly robust. Pure.

**What is estimated**: the mean, over the payments of the log, of what each may be expected to end in where the policy
asked about draws the first choice, and everything else is as it was: the logged terms, who was eligible, and what
follows where the first choice does not approve. A payment that both policies treat alike stands for itself.

With p and q the probabilities of a first choice by the log and by the policy asked about, w = q/p of the choice that
was made, y its outcome and m what `router.replay.outcomes` predicted before it was known:

- inverse propensity: the mean of w·y;
- self-normalised: among the payments that the policies treat differently, Σ w·y / Σ w;
- doubly robust: the mean of Σ q·m + w·(y − m). Unbiased however wrong m is, since p is known; this is the one to
  believe, and the others are shown beside it.

**Intervals**: the normal one, of a variance that is the larger of the observed and the one that the design implies:
Σ q²/p over *all* that could have been drawn, not only the few that were, times the variance of an approval's draw.
At 2% exploration a payment weighs 150, and the observed variance alone is too small whenever none of those few was
declined. For the same reason two approvals and two declines are added to the effective number of payments that carry
the estimate (Agresti and Coull's interval). As the variance holds what differs between payments too, the
interval is right for "payments like these" and somewhat wide for exactly these.

Probability without support (q > 0 where p = 0) could have ended in anything: the interval is widened by both ends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from router.replay.cases import Case
from router.replay.outcomes import Prediction

Z95 = 1.959964
"""Of the normal distribution."""
MEASURES = ("approval", "cost", "net")
"""Share of payments approved; fees and net value (margin × amount of what is approved − fees) per payment."""


class Estimate(NamedTuple):
    """A mean per payment with its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Measured:
    """One measure: what was earned and what would have been."""

    earned: float
    doubly_robust: Estimate
    inverse_propensity: Estimate
    self_normalised: Estimate
    change: Estimate
    """Doubly robust, against the log's policy on the same payments: narrower than the difference of two intervals."""


@dataclass(frozen=True, slots=True)
class Support:
    """How much the log can tell of the policy asked about."""

    payments: int
    differing: int
    """Payments that the two policies treat differently at all."""
    moved: float
    """Share of the payments that would have had another first choice, in expectation."""
    unsupported: float
    """Share that would have gone where the log never goes."""
    effective: float
    """Effective sample size: payments that, each counting the same, would tell as much."""
    effective_moved: float
    """The same of those that carry what is told of the moved."""
    largest_weight: float
    """Share of one payment in all weights."""


class _Sums:
    """One measure's running sums over payments; `plus` names what the design implies."""

    __slots__ = (
        "alike", "alike2", "alike_scale", "change", "change2", "change_implied", "change_plus", "change_scale",
        "earned", "high", "low", "model", "model2", "plus", "robust", "robust2", "scale", "supported",
        "w2_y", "w2_y2", "w_y", "wm", "wm2",
    )  # fmt: skip

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, 0.0)

    def merge(self, other: _Sums) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Tally:
    """Adds payments up, one currency at a time; a few hundred bytes whatever their number."""

    __slots__ = ("alike", "differing", "measures", "moved", "moved2_p", "q2_p", "unsupported", "w", "w2", "w_max")

    def __init__(self) -> None:
        self.alike = self.differing = 0
        self.moved = self.moved2_p = self.unsupported = 0.0
        """Σ (q − p) and Σ (q − p)²/p where q > p, and Σ q where p = 0."""
        self.q2_p = self.w = self.w2 = 0.0
        """Of the differing ones: Σ q²/p, and the sums of the weights and of their squares."""
        self.w_max = 0.0
        self.measures = tuple(_Sums() for _ in MEASURES)

    @property
    def payments(self) -> int:
        """How many were added."""
        return self.alike + self.differing

    def add(self, case: Case, predictions: Sequence[Prediction]) -> None:
        """One payment; `predictions` are its options', made before its outcome was known."""
        approved = float(case.approved)
        outcomes = (approved, case.cost, case.gain * approved - case.cost)
        if case.agrees:
            self.alike += 1
            fee = case.options[case.first].fee if case.first >= 0 else 0.0
            for sums, y, spread in zip(self.measures, outcomes, (1.0, fee, case.gain - fee), strict=True):
                sums.earned += y
                sums.alike += y
                sums.alike2 += y * y
                sums.alike_scale += spread * spread
            return
        self._add_differing(case, predictions, outcomes)

    def _add_differing(self, case: Case, predictions: Sequence[Prediction], outcomes: Sequence[float]) -> None:
        weight = 0.0
        if case.first >= 0:
            first = case.options[case.first]
            weight = first.asked / first.logged
        lost = 1.0 if case.nobody else 0.0
        # Per option: q, q²/p, the weight of its variance in the change, p; without support the latter three are 0.
        rows = []
        for option in case.options:
            p, q = option.logged, option.asked
            ratio = q * q / p if p > 0 else 0.0
            rows.append((q, ratio, ratio - 2 * q + p if p > 0 else 0.0, p))
            if q > p:
                self.moved += q - p
                self.moved2_p += (q - p) ** 2 / p if p > 0 else 0.0
            self.q2_p += ratio
            lost += q if p <= 0 else 0.0
        self.moved += 1.0 if case.nobody else 0.0
        self.unsupported += lost
        self.differing += 1
        self.w += weight
        self.w2 += weight * weight
        self.w_max = max(self.w_max, weight)
        gain = case.gain
        draws = [each.chance * (1 - each.chance) for each in predictions]
        costs = [each.cost for each in predictions]
        fees = [each.fee for each in case.options]
        chances = [each.chance for each in predictions]
        nets = [gain * chance - cost for chance, cost in zip(chances, costs, strict=True)]
        dearest = max(fees) + max(each.attempt for each in case.options)
        for sums, y, means, spreads, ends in (
            (self.measures[0], outcomes[0], chances, [1.0] * len(fees), (0.0, 1.0)),
            (self.measures[1], outcomes[1], costs, fees, (0.0, dearest)),
            (self.measures[2], outcomes[2], nets, [gain - fee for fee in fees], (-dearest, gain)),
        ):
            expected = reached = second = mean = plus = scale = change_plus = change_scale = 0.0
            for (q, ratio, change, p), m, spread, draw in zip(rows, means, spreads, draws, strict=True):
                expected += q * m
                reached += q * m if p > 0 else 0.0
                mean += ratio * m
                second += ratio * m * m
                scale += ratio * spread * spread
                plus += ratio * spread * spread * draw
                change_scale += change * spread * spread
                change_plus += change * spread * spread * draw
            lines = zip(rows, means, strict=True)
            robust = expected + weight * (y - means[case.first])
            sums.earned += y
            sums.robust += robust
            sums.robust2 += robust * robust
            sums.change += robust - y
            sums.change2 += (robust - y) ** 2
            sums.change_implied += sum(p * (expected - m) ** 2 for (_q, _ratio, _change, p), m in lines)
            sums.model += expected
            sums.model2 += expected * expected
            sums.supported += reached
            sums.wm += mean
            sums.wm2 += second
            sums.scale += scale
            sums.plus += plus
            sums.change_scale += change_scale
            sums.change_plus += change_plus
            sums.w_y += weight * y
            sums.w2_y += weight * weight * y
            sums.w2_y2 += (weight * y) ** 2
            if lost:
                # What the predictions put there may be wrong by so much, in either direction.
                sums.low += lost * ends[0] - (expected - reached)
                sums.high += lost * ends[1] - (expected - reached)

    def merge(self, other: Tally) -> None:
        """Add another tally's payments; of money only where both are of one currency."""
        self.alike += other.alike
        self.differing += other.differing
        self.moved += other.moved
        self.moved2_p += other.moved2_p
        self.unsupported += other.unsupported
        self.q2_p += other.q2_p
        self.w += other.w
        self.w2 += other.w2
        self.w_max = max(self.w_max, other.w_max)
        for mine, theirs in zip(self.measures, other.measures, strict=True):
            mine.merge(theirs)

    def support(self) -> Support:
        """How much of this can be told. Needs a payment."""
        n = self.payments
        drawn = (self.alike + self.w) ** 2 / (self.alike + self.w2) if self.alike + self.w2 > 0 else 0.0
        return Support(
            payments=n,
            differing=self.differing,
            moved=self.moved / n,
            unsupported=self.unsupported / n,
            # Never more than the design allows: where no heavy payment was drawn, the drawn weights are all alike.
            effective=min(drawn, n * n / (self.alike + self.q2_p)) if self.alike + self.q2_p > 0 else 0.0,
            # As if the moved payments' outcomes were drawn at p: the variance of a change is Σ (q − p)²/p.
            effective_moved=self.moved**2 / self.moved2_p if self.moved2_p > 0 else 0.0,
            largest_weight=max(self.w_max, 1.0 if self.alike else 0.0) / max(self.alike + self.w, 1e-12),
        )

    def measured(self) -> dict[str, Measured]:
        """By measure. Needs a payment."""
        return {
            name: self._measured(sums, share=name == "approval")
            for name, sums in zip(MEASURES, self.measures, strict=True)
        }

    def _effective_differing(self) -> float:
        return self.differing**2 / self.q2_p if self.q2_p > 0 else 0.0

    def _measured(self, sums: _Sums, *, share: bool) -> Measured:
        n, k = self.payments, self.differing
        heavy = self._effective_differing()

        alike = sums.alike2 + _plus_four(0.0, sums.alike_scale, self.alike)
        draws = _plus_four(sums.plus, sums.scale, heavy)
        ends = (sums.low, sums.high)
        limits = (0.0, 1.0) if share else (-math.inf, math.inf)
        robust = _interval(
            sums.alike + sums.robust, max(alike + sums.robust2, alike + sums.model2 + draws), n, ends, limits
        )
        # Without support inverse propensity has nothing in its sum where the robust one has its prediction.
        missing = sums.model - sums.supported
        bare = (sums.low + missing, sums.high + missing)
        inverse = _interval(
            sums.alike + sums.w_y, max(alike + sums.w2_y2, alike + sums.wm2 + draws), n, bare, limits
        )
        ratio = sums.w_y / self.w if self.w > 0 else 0.0
        drawn = sums.w2_y2 - 2 * ratio * sums.w2_y + ratio * ratio * self.w2
        implied = sums.wm2 - 2 * ratio * sums.wm + ratio * ratio * self.q2_p + draws
        scaled = drawn * (k / self.w) ** 2 if self.w > 0 else 0.0
        normalised = _interval(
            sums.alike + k * ratio, alike + k * ratio * ratio + max(scaled, implied), n, ends, limits
        )
        change_draws = _plus_four(sums.change_plus, sums.change_scale, heavy)
        change = _interval(
            sums.change,
            max(sums.change2, sums.change_implied + change_draws),
            n,
            ends,
            (-1.0, 1.0) if share else (-math.inf, math.inf),
        )
        return Measured(sums.earned / n, robust, inverse, normalised, change)


def _plus_four(draws: float, scale: float, effective: float) -> float:
    """Σ c·m(1−m), as if two approvals and two declines more had been seen among so many: `draws` is that sum without
    them, `scale` is Σ c."""
    return (effective**2 * draws + (2 * effective + 4) * scale) / (effective + 4) ** 2


def _interval(
    total: float, squares: float, payments: int, ends: tuple[float, float], limits: tuple[float, float]
) -> Estimate:
    """Of the mean, from the sum over all payments and the sum of squares; `ends` widen it."""
    mean = total / payments
    error = Z95 * math.sqrt(max(0.0, squares / payments - mean * mean) / payments)
    low = mean - error + ends[0] / payments
    high = mean + error + ends[1] / payments
    return Estimate(mean, max(limits[0], low), min(limits[1], high))
