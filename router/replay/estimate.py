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
from router.replay.sums import Line, Seen, Sums

Z95 = 1.959964
"""Of the normal distribution."""
_ANY = (-math.inf, math.inf)
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
    """Share in all weights of one payment that is treated differently."""


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
        self.measures = tuple(Sums() for _ in MEASURES)

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
                sums.add_alike(y, spread)
            return
        lines, lost = self._weigh(case)
        weight = 0.0
        if case.first >= 0:
            first = case.options[case.first]
            weight = first.asked / first.logged
        self.w += weight
        self.w2 += weight * weight
        self.w_max = max(self.w_max, weight)
        gain = case.gain
        fees = [each.fee for each in case.options]
        chances = [each.chance for each in predictions]
        costs = [each.cost for each in predictions]
        nets = [gain * chance - cost for chance, cost in zip(chances, costs, strict=True)]
        draws = [chance * (1 - chance) for chance in chances]
        # Each can have been tried before one approves.
        dearest = max(fees) + sum(each.attempt for each in case.options)
        approval, cost, net = self.measures
        for sums, y, means, spreads, ends in (
            (approval, outcomes[0], chances, [1.0] * len(fees), (0.0, 1.0)),
            (cost, outcomes[1], costs, fees, (0.0, dearest)),
            (net, outcomes[2], nets, [gain - fee for fee in fees], (-dearest, gain)),
        ):
            sums.add_differing(lines, Seen(y, weight, case.first, means, spreads, draws, lost, ends))

    def _weigh(self, case: Case) -> tuple[Sequence[Line], float]:
        """A differing payment's options, and the probability that has no support."""
        lines = []
        lost = 1.0 if case.nobody else 0.0
        self.moved += lost
        for option in case.options:
            p, q = option.logged, option.asked
            supported = p > 0
            ratio = q * q / p if supported else 0.0
            change = (q - p) ** 2 / p if supported else 0.0
            lines.append(Line(q, p, ratio, change))
            self.q2_p += ratio
            if q > p:
                self.moved += q - p
                self.moved2_p += change
            if not supported:
                lost += q
        self.unsupported += lost
        self.differing += 1
        return lines, lost

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
            largest_weight=self.w_max / (self.alike + self.w) if self.w > 0 else 0.0,
        )

    def measured(self) -> dict[str, Measured]:
        """By measure. Needs a payment."""
        return {
            name: self._measured(sums, share=name == "approval")
            for name, sums in zip(MEASURES, self.measures, strict=True)
        }

    def _measured(self, sums: Sums, *, share: bool) -> Measured:
        n, k, limits = self.payments, self.differing, (0.0, 1.0) if share else _ANY
        heavy = k * k / self.q2_p if self.q2_p > 0 else 0.0
        draws = _plus_four(sums.draws, sums.scale, heavy)
        # Each sum of squares twice: as it was observed, and as the design implies it; the larger counts.
        alike2 = sums.alike2 + _plus_four(0.0, sums.alike_scale, self.alike)
        robust2 = alike2 + max(sums.robust2, sums.predicted2 + draws)
        weighted2 = alike2 + max(sums.weighted2, sums.ratio_mean2 + draws)
        ratio = sums.weighted / self.w if self.w > 0 else 0.0
        observed = sums.weighted2 - 2 * ratio * sums.weight2_y + ratio * ratio * self.w2
        implied = sums.ratio_mean2 - 2 * ratio * sums.ratio_mean + ratio * ratio * self.q2_p + draws
        scaled = observed * (k / self.w) ** 2 if self.w > 0 else 0.0
        change_draws = _plus_four(sums.change_draws, sums.change_scale, heavy)
        ends = (sums.low, sums.high)
        # Without support the weighted sums have nothing where the robust one has its prediction.
        bare = (sums.low + sums.predicted_blind, sums.high + sums.predicted_blind)
        return Measured(
            earned=sums.earned / n,
            doubly_robust=_interval(sums.alike + sums.robust, robust2, n, ends, limits),
            inverse_propensity=_interval(sums.alike + sums.weighted, weighted2, n, bare, limits),
            self_normalised=_interval(
                sums.alike + k * ratio, alike2 + k * ratio * ratio + max(scaled, implied), n, ends, limits
            ),
            change=_interval(
                sums.change,
                max(sums.change2, sums.change_implied + change_draws),
                n,
                ends,
                (-1.0, 1.0) if share else _ANY,
            ),
        )


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
