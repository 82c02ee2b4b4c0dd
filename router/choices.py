"""The present choice for each kind of payment: whom `best-value` leaves only for an advantage.

Each process keeps its own, in memory: where two differ the providers are nearly alike, and after a restart the flag's
primary is the choice again until another is ahead of it by the advantage.
"""

from __future__ import annotations

from router.policy import Decision
from router.segments import Segment

REMEMBERED = 10_000
"""Kinds of payments; 60 to a few hundred are usual."""


class Choices:
    """By segment, and by the flag's primary: a team that changes it asks anew who should lead. Thread-safe."""

    def __init__(self) -> None:
        self._choices: dict[tuple[str, Segment], str] = {}

    def of(self, primary: str, segment: Segment) -> str | None:
        """The last choice; None: there has been none."""
        return self._choices.get((primary, segment))

    def made(self, decision: Decision, segment: Segment) -> None:
        """Remember what a decision chose."""
        if decision.strategy != "best-value" or decision.choice is None or decision.choice == decision.incumbent:
            return
        if len(self._choices) >= REMEMBERED:
            self._choices.clear()
        self._choices[decision.primary, segment] = decision.choice
