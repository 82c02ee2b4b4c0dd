"""What a test of decisions may look at behind the application: its signer, its writer, and what it was taught."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any

from router.decision_ids import Carried, DecisionIds
from router.decision_writing import DecisionWriter
from router.decisions import Decisions, ScoreTeacher
from router.ledger.decisions import DecisionLedger
from router.segments import Segment, segment
from tests.integration.shop import Shop


@dataclass(frozen=True, slots=True)
class Teacher:
    """Passes on what is taught, and remembers it."""

    inner: ScoreTeacher
    answers: list[tuple[str, bool]] = field(default_factory=list)
    calls: list[tuple[str, bool]] = field(default_factory=list)
    """Provider, and whether the call failed."""

    def hear_reported(
        self, provider: str, segment: Segment, *, approved: bool | None, failed: bool, at: float
    ) -> None:
        self.calls.append((provider, failed))
        if approved is not None:
            self.answers.append((provider, approved))
        self.inner.hear_reported(provider, segment, approved=approved, failed=failed, at=at)

    def hear_answer(self, provider: str, segment: Segment, approved: bool, at: float) -> None:
        self.answers.append((provider, approved))
        self.inner.hear_answer(provider, segment, approved, at)


@dataclass(frozen=True, slots=True)
class Desk:
    """Behind one application."""

    shop: Shop
    service: Decisions
    writer: DecisionWriter
    teacher: Teacher
    ledger: DecisionLedger

    @property
    def signer(self) -> DecisionIds:
        """The application's own."""
        return self.service.signer

    def written(self) -> list[dict[str, Any]]:
        """The decisions' rows; those that were not written yet are."""
        self.writer.run_once()
        return self.shop.rows("SELECT * FROM decisions ORDER BY created_at, id")

    def availability(self, provider: str) -> float:
        """As this process knows it now."""
        return self.shop.core.scores.availability(provider, self.shop.core.clock.now().timestamp())

    def signed(self, at: dt.datetime) -> str:
        """The id of a decision that was made at that moment for the usual merchant."""
        key = self.shop.core.ids.new("dec")
        return self.signer.sign(Carried(key, at, segment(1999, "visa", "DE", "card"), ("stripe",), 1.0), "default")


def desk(shop: Shop) -> Desk:
    """The same for one application every time."""
    found = shop.app.extensions.get("desk")
    if found is None:
        service, writer = shop.app.extensions["pointsman_decisions"]
        service.scores = Teacher(service.scores)
        found = Desk(shop, service, writer, service.scores, DecisionLedger(shop.core.database))
        shop.app.extensions["desk"] = found
    return found
