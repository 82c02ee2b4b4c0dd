"""One worker process, as far as flips go."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from flags.contract import FlagContext, FlagMover, FlagSource
from providers.fees import FeeBook, FeeLine
from router.appraisal import Appraiser
from router.clock import ManualClock, SequentialIds
from router.flip_cases import Cases
from router.flip_rules import ChangesOf, Limits, no_changes
from router.flip_writing import FlipWriting
from router.flipper import Flipper
from router.health import ProviderHealth
from router.ledger.alerts import AlertLedger
from router.ledger.circuits import CircuitLedger
from router.ledger.engine import Database
from router.ledger.flips import Flip, FlipLedger
from router.local_override import LocalOverride
from router.scores import Scores
from router.transitions import State
from tests.fakes.house import a_health, move

NAMES = ("stripe", "adyen", "third")
ANY = (None, None, None, None)
FEES = FeeBook(FeeLine(name, ANY, Decimal(percent)) for name, percent in (("stripe", 3), ("adyen", 2), ("third", 1)))
FLIP_AFTER_S = 60.0
_lives = itertools.count(1)


@dataclass
class FlipWorker:
    """One worker process, as far as flips go; several may share a ledger, the flags and their clock."""

    database: Database
    clock: ManualClock
    source: FlagSource
    mover: FlagMover | None
    ids: SequentialIds = field(default_factory=SequentialIds)
    names: tuple[str, ...] = NAMES
    limits: Limits = field(default_factory=lambda: Limits(cooldown_s=0, per_hour=1000))
    changes: ChangesOf = no_changes
    restore: Literal["manual", "automatic"] = "manual"
    moves_pins: bool = False
    fees: FeeBook = FEES
    health: ProviderHealth = field(init=False)
    flips: FlipLedger = field(init=False)
    alerts: AlertLedger = field(init=False)
    override: LocalOverride = field(init=False)
    flipper: Flipper = field(init=False)
    writing: FlipWriting = field(init=False)

    def __post_init__(self) -> None:
        circuits = CircuitLedger(self.database)
        self.flips = FlipLedger(self.database)
        self.alerts = AlertLedger(self.database)
        self.override = LocalOverride(self.flips.overrides)
        self.health = a_health(self.names, store=circuits, clock=self.clock, actor="worker")
        cases = Cases(
            providers=self.names,
            health=self.health,
            circuits=circuits,
            flips=self.flips,
            alerts=self.alerts,
            source=self.source,
            appraiser=Appraiser(self.names, scores=Scores(self.names), fees=self.fees),
            clock=self.clock,
            ids=self.ids,
            limits=self.limits,
            changes=self.changes,
        )
        self.flipper = Flipper(cases, mover=self.mover, flip_after_s=FLIP_AFTER_S, restore=self.restore)
        self.writing = FlipWriting(
            cases, mover=self.mover, holder=f"worker {next(_lives)}", moves_pins=self.moves_pins
        )
        self.health.sync_once()

    def go(self, state: State, *, after_s: float = 0, provider: str = "stripe") -> None:
        """That many seconds later, the circuit changes."""
        self.clock.advance(after_s)
        move(self.health, provider, state, self.clock)

    def run_after(self, seconds: float = 0) -> int:
        """That many seconds later, one round of each loop; how many flags were moved."""
        self.clock.advance(seconds)
        return self.run_once()

    def run_once(self) -> int:
        """One round of each loop."""
        self.health.sync_once()
        self.flipper.run_once()
        moved = self.writing.run_once()
        self.override.refresh()
        return moved

    def rows(self) -> list[Flip]:
        """Every flip on record, newest first."""
        return list(self.flips.newest(limit=50))

    @property
    def flip(self) -> Flip:
        """The only one."""
        (flip,) = self.rows()
        return flip

    @property
    def primary(self) -> str:
        """Where a payment of this process would go first."""
        flags, _ = self.override.apply(self.source.read(FlagContext()))
        return flags.primary

    @property
    def told(self) -> list[str]:
        """The alerts, oldest first."""
        return [each.kind for each in self.alerts.all()]
