"""One worker process, as far as flips go."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from flags.contract import FlagSource, FlagWriter
from providers.fees import FeeSchedule
from router.clock import ManualClock, SequentialIds
from router.flipper import Flipper
from router.health import ProviderHealth
from router.ledger.circuits import CircuitLedger
from router.ledger.engine import Database
from router.ledger.flips import Flip, FlipLedger
from router.transitions import State
from tests.fakes.house import a_health, move

NAMES = ("stripe", "adyen", "third")
FEES = {
    "stripe": FeeSchedule(percent=Decimal(3)),
    "adyen": FeeSchedule(percent=Decimal(2)),
    "third": FeeSchedule(percent=Decimal(1)),
}
FLIP_AFTER_S = 60.0


@dataclass
class FlipWorker:
    """One worker process, as far as flips go; several may share a ledger, the flags and their clock."""

    database: Database
    clock: ManualClock
    source: FlagSource
    writer: FlagWriter
    ids: SequentialIds = field(default_factory=SequentialIds)
    names: tuple[str, ...] = NAMES
    health: ProviderHealth = field(init=False)
    flips: FlipLedger = field(init=False)
    flipper: Flipper = field(init=False)

    def __post_init__(self) -> None:
        circuits = CircuitLedger(self.database)
        self.flips = FlipLedger(self.database)
        self.health = a_health(self.names, store=circuits, clock=self.clock, actor="worker")
        self.flipper = Flipper(
            providers=self.names,
            health=self.health,
            circuits=circuits,
            flips=self.flips,
            source=self.source,
            writer=self.writer,
            fees=FEES,
            flip_after_s=FLIP_AFTER_S,
            clock=self.clock,
            ids=self.ids,
        )
        self.health.sync_once()

    def go(self, state: State, *, after_s: float = 0, provider: str = "stripe") -> None:
        """That many seconds later, the circuit changes."""
        self.clock.advance(after_s)
        move(self.health, provider, state, self.clock)

    def run_after(self, seconds: float = 0) -> int:
        """That many seconds later, one round."""
        self.clock.advance(seconds)
        self.health.sync_once()
        return self.flipper.run_once()

    def rows(self) -> list[Flip]:
        """Every flip on record."""
        return list(self.flips.page(limit=50, before=None))
