"""One payment as the estimators see it: what was done, what would have been, and how likely each was. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

SAME = 2e-6
"""Two probabilities that differ by less are the same: the log keeps six digits."""


class Option(NamedTuple):
    """One provider that could have been the first choice."""

    provider: str
    logged: float
    """The probability with which the log's policy put it first."""
    asked: float
    """The probability with which the policy asked about would have."""
    expected: float
    """Chance of an approval at this provider by the logged terms: approval × availability."""
    fee: float
    """Of an approval, major units."""
    attempt: float
    """Of a try, major units."""


class Case(NamedTuple):
    """One payment with its final outcome."""

    options: Sequence[Option]
    first: int
    """Which option the log's draw put first; -1: nobody could take it."""
    approved: bool
    """In the end, failover and cascade included."""
    cost: float
    """What that cost in fees, major units."""
    gain: float
    """What an approval is worth before fees, major units: the asked policy's margin × amount."""
    amount: float
    """Major units."""
    currency: str
    segment: Hashable
    nobody: bool = False
    """The policy asked about could not have tried anybody, where the log's did: what then, nobody knows."""

    @property
    def agrees(self) -> bool:
        """Whether both policies treat this payment alike, so that what it earned is what it would have."""
        return not self.nobody and all(abs(each.asked - each.logged) < SAME for each in self.options)
