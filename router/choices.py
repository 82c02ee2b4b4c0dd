"""The present choice for each kind of payment: whom `best-value` leaves only for an advantage.

Each process keeps its own, in memory: where two differ the providers are nearly alike, and after a restart the flag's
primary is the choice again until another is ahead of it by the advantage.
"""

from __future__ import annotations

from router.policy import Decision
from router.segments import Segment

Barred = frozenset[str]
"""Providers that a payment could not have gone to: they cannot take it, or are switched off for it."""
NOBODY: Barred = frozenset()
REMEMBERED = 10_000
"""Kinds of payments; 60 to a few hundred are usual."""


class Choices:
    """By segment, by the flag's primary, and by who is barred. Thread-safe.

    A team that changes the primary asks anew who should lead. Of a merchant that may not use a provider, or a payment
    without a token for it, the choice was not free: what it chose says nothing to those who have them all.
    """

    def __init__(self) -> None:
        self._choices: dict[tuple[str, Segment, Barred], str] = {}

    def of(self, primary: str, segment: Segment, barred: Barred = NOBODY) -> str | None:
        """The last choice; None: there has been none."""
        return self._choices.get((primary, segment, barred))

    def made(self, decision: Decision, segment: Segment, barred: Barred = NOBODY) -> None:
        """Remember what a decision chose."""
        if decision.strategy != "best-value" or decision.choice is None or decision.choice == decision.incumbent:
            return
        if len(self._choices) >= REMEMBERED:
            self._choices.clear()
        self._choices[decision.primary, segment, barred] = decision.choice
