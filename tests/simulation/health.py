"""The providers' health as a process of the simulation knows it: the router's own, with counts of what was met."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

from router.breaker import BreakerSettings
from router.health import Call, ProviderHealth, Readiness
from router.transitions import ADMITTING
from tests.simulation.ledger import SimDatabase

HELD_BACK = "operations held back"
IN_PART = "payments planned while a provider had a share"
FULL = "payments turned away by a full bulkhead"


class SimHealth(ProviderHealth):
    """Every provider's guards in one process."""

    def __init__(self, *args: Any, operations: int, counts: Counter[str], **named: Any) -> None:
        """`operations`: captures, voids and refunds at once to a provider whose circuit is open."""
        super().__init__(*args, **named)
        self._counts = counts
        for guarded in self._guarded.values():
            guarded.aside.permits = operations

    @property
    def has_news(self) -> bool:
        """Whether a circuit moved here that the ledger does not know of."""
        return any(guarded.breaker.unwritten() for guarded in self._guarded.values())

    def admit(self, provider: str, merchant: str = "", **named: Any) -> Call | None:
        leave = super().admit(provider, merchant, **named)
        if leave is None and self.snapshot(provider).state in ADMITTING:
            self._counts[FULL] += 1
        return leave

    @contextlib.contextmanager
    def operating(self, provider: str) -> Iterator[bool]:
        with super().operating(provider) as taken:
            self._counts[HELD_BACK] += not taken
            yield taken

    @contextlib.contextmanager
    def finding_out(self, provider: str) -> Iterator[bool]:
        with super().finding_out(provider) as taken:
            self._counts[HELD_BACK] += not taken
            yield taken

    def readiness(self, provider: str) -> Readiness:
        ready = super().readiness(provider)
        if ready.share < 1.0:
            self._counts[IN_PART] += 1
        return ready


def count_circuits(database: SimDatabase, counts: Counter[str]) -> None:
    """What the circuits went through in one seed."""
    first = BreakerSettings().stages[0]
    for row in database.rows("SELECT state, share FROM circuit_transitions WHERE state IN ('open', 'slow_start')"):
        if row["state"] == "open":
            counts["circuits opened"] += 1
        else:
            counts["slow starts" if row["share"] <= first else "further stages of slow start"] += 1
    counts["probes"] += database.rows("SELECT count(*) AS n FROM probes")[0]["n"]
