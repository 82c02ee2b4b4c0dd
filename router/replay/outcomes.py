"""What a first choice may be expected to end in, learned from the payments before it. Pure.

It starts from the logged terms (approval × availability) and learns how far the final outcomes are off them: per
provider, and per provider and segment, shrunk towards the provider's. Each prediction is made before its payment is
learned, so the doubly robust estimate stays unbiased however wrong the predictions are (they are fixed when the draw
is made), in one pass and in little memory: what cross-fitting does with two.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from router.replay.cases import Case, Option

PROVIDER_WEIGHT = 20.0
"""Payments that the logged terms count for, against a provider's own."""
SEGMENT_WEIGHT = 40.0
"""Payments that a provider's offset counts for, against a segment's own."""
LEAST_CHANCE = 0.01
"""Nothing is certain: a chance stays so far from 0 and 1."""


class Prediction(NamedTuple):
    """Of one payment whose first choice is one provider."""

    chance: float
    """Of being approved in the end."""
    cost: float
    """Expected, major units."""


class _Offset:
    """How far outcomes were off: sums over payments."""

    __slots__ = ("approval", "cost", "payments")

    def __init__(self) -> None:
        self.payments = 0
        self.approval = 0.0
        self.cost = 0.0
        """As shares of the amounts, which makes small and large payments comparable."""


class Outcomes:
    """Learns in the log's order."""

    def __init__(self) -> None:
        self._providers: dict[str, _Offset] = {}
        self._cells: dict[tuple[str, Hashable], _Offset] = {}

    def predict(self, case: Case, option: Option) -> Prediction:
        """Before the payment is learned."""
        wide = self._providers.get(option.provider)
        if wide is None:
            approval = cost = 0.0
        else:
            weight = wide.payments + PROVIDER_WEIGHT
            approval, cost = wide.approval / weight, wide.cost / weight
            cell = self._cells.get((option.provider, case.segment))
            if cell is not None:
                weight = cell.payments + SEGMENT_WEIGHT
                approval = (cell.approval + SEGMENT_WEIGHT * approval) / weight
                cost = (cell.cost + SEGMENT_WEIGHT * cost) / weight
        chance = min(1 - LEAST_CHANCE, max(LEAST_CHANCE, option.expected + approval))
        return Prediction(chance, option.expected * option.fee + option.attempt + cost * case.amount)

    def learn(self, case: Case) -> None:
        """What the payment's first choice ended in."""
        if case.first < 0:
            return
        option = case.options[case.first]
        approval = case.approved - option.expected
        cost = 0.0
        if case.amount > 0:
            cost = (case.cost - option.expected * option.fee - option.attempt) / case.amount
        key = (option.provider, case.segment)
        wide = self._providers.get(option.provider)
        if wide is None:
            wide = self._providers[option.provider] = _Offset()
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = _Offset()
        for each in (wide, cell):
            each.payments += 1
            each.approval += approval
            each.cost += cost
