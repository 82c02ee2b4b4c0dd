"""Running sums of one measure, from which `router.replay.estimate` makes estimates and their intervals. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple


class Line(NamedTuple):
    """One option of a payment that the policies treat differently, whatever is measured."""

    asked: float
    logged: float
    ratio: float
    """q²/p, of which a weighted outcome's variance is made; 0 without support."""
    change: float
    """(q − p)²/p, the same of a change."""


class Seen(NamedTuple):
    """What one measure made of such a payment."""

    outcome: float
    weight: float
    """q/p of the choice that was made."""
    first: int
    means: Sequence[float]
    """Per option, what was predicted."""
    spreads: Sequence[float]
    """Per option, how much more is measured of an approval than of a decline."""
    draws: Sequence[float]
    """Per option, the variance of being approved or not."""
    lost: float
    """Probability without support."""
    ends: tuple[float, float]
    """The least and the most that it could have been there."""


@dataclass(slots=True)
class Sums:
    """One measure's running sums over payments."""

    earned: float = 0.0
    alike: float = 0.0
    """Of outcomes where the policies agree; with its squares, and the scale of their variance."""
    alike2: float = 0.0
    alike_scale: float = 0.0
    weighted: float = 0.0
    """Of w·y where they do not; of its squares, of w²·y, and of what the design implies of all these."""
    weighted2: float = 0.0
    weight2_y: float = 0.0
    ratio_mean: float = 0.0
    ratio_mean2: float = 0.0
    robust: float = 0.0
    """Of the doubly robust scores; of their squares, and of the predictions in them."""
    robust2: float = 0.0
    predicted: float = 0.0
    predicted2: float = 0.0
    predicted_blind: float = 0.0
    """The part of it without support."""
    draws: float = 0.0
    """Of q²/p times the variance of what is drawn after the choice; and of what scales it."""
    scale: float = 0.0
    change: float = 0.0
    """Of scores less outcomes; the same of them."""
    change2: float = 0.0
    change_implied: float = 0.0
    change_draws: float = 0.0
    change_scale: float = 0.0
    low: float = 0.0
    """By how much what has no support may be less, and more, than was predicted."""
    high: float = 0.0

    def merge(self, other: Sums) -> None:
        """Add another's."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    def add_alike(self, outcome: float, spread: float) -> None:
        """A payment that both policies treat alike."""
        self.earned += outcome
        self.alike += outcome
        self.alike2 += outcome * outcome
        self.alike_scale += spread * spread

    def add_differing(self, lines: Sequence[Line], seen: Seen) -> None:
        """One that they do not."""
        y, weight, first, means, spreads, draws, lost, ends = seen
        expected = blind = 0.0
        for (q, p, ratio, change), mean, spread, draw in zip(lines, means, spreads, draws, strict=True):
            expected += q * mean
            if p <= 0:
                blind += q * mean
                continue
            scale = spread * spread
            self.ratio_mean += ratio * mean
            self.ratio_mean2 += ratio * mean * mean
            self.scale += ratio * scale
            self.draws += ratio * scale * draw
            self.change_scale += change * scale
            self.change_draws += change * scale * draw
        for line, mean in zip(lines, means, strict=True):
            self.change_implied += line[1] * (expected - mean) ** 2
        robust = expected + (weight * (y - means[first]) if first >= 0 else 0.0)
        weighted, change = weight * y, robust - y
        self.earned += y
        self.weighted += weighted
        self.weighted2 += weighted * weighted
        self.weight2_y += weight * weighted
        self.robust += robust
        self.robust2 += robust * robust
        self.predicted += expected
        self.predicted2 += expected * expected
        self.predicted_blind += blind
        self.change += change
        self.change2 += change * change
        if lost > 0:
            self.low += lost * ends[0] - blind
            self.high += lost * ends[1] - blind
