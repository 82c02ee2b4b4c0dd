"""A worker process that recovers circuits, with its own view of the time that it has seen."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from providers.contract import Timeouts
from router.breaker import BreakerSettings
from router.clock import ManualClock
from router.ledger.engine import Database
from router.ledger.probes import ProbeLedger
from router.recovery import Recovery
from tests.fakes.circuits import Circuits
from tests.fakes.ledger import circuit_rows
from tests.fakes.providers import FakeProvider

SETTINGS = BreakerSettings(
    open_wait_s=10.0,
    wait_multiplier=1.5,
    maximum_wait_s=15.0,
    wait_jitter=0.0,
    probes=5,
    probes_at_once=2,
    probe_lease_s=10.0,
    round_deadline_s=30.0,
    stages=(0.10, 0.25, 0.50),
    stage_s=10.0,
    stage_calls=5,
)


def at_once(task: Callable[[], None]) -> None:
    """Runs a probe where it is sent: a whole round takes one look."""
    task()


@dataclass
class Later:
    """Holds probes back, as if they were under way, until they are let end."""

    tasks: deque[Callable[[], None]] = field(default_factory=deque)

    def __call__(self, task: Callable[[], None]) -> None:
        self.tasks.append(task)

    def end(self, number: int = 1) -> None:
        """Let the first so many end."""
        for _ in range(number):
            self.tasks.popleft()()


@dataclass
class Worker:
    """Its circuits and its recovery, of stripe only."""

    database: Database
    clock: ManualClock
    stripe: FakeProvider
    actor: str = "worker:1"
    settings: BreakerSettings = SETTINGS
    patience: float = 1.0
    start: Callable[[Callable[[], None]], None] = at_once
    circuits: Circuits = field(init=False)
    recovery: Recovery = field(init=False)
    probes: ProbeLedger = field(init=False)

    def __post_init__(self) -> None:
        self.circuits = Circuits(("stripe",), self.settings, self.database, clock=self.clock, actor=self.actor)
        self.probes = ProbeLedger(self.database)
        self.recovery = Recovery(
            {"stripe": self.stripe},
            self.circuits,
            probes=self.probes,
            timeouts=Timeouts(1, 5),
            clock=self.clock,
            patience=self.patience,
            start=self.start,
        )
        self.circuits.sync()

    def run_once(self) -> int:
        """A round of the circuits' loop and one of the recovery's."""
        self.circuits.sync()
        return self.recovery.run_once()

    def run_for(self, seconds: float, step_s: float = 0.25) -> None:
        """Look again and again for so long."""
        for _ in range(round(seconds / step_s)):
            self.clock.advance(step_s)
            self.run_once()

    def states(self) -> list[str]:
        """What the ledger says the circuit went through."""
        return [row["state"] for row in circuit_rows(self.database)]

    def waits_until_probed(self, rounds: int, step_s: float = 0.5) -> list[float]:
        """Seconds of waiting before each of the next rounds of probes."""
        waits = []
        for _ in range(rounds):
            waited, probed = 0.0, self.stripe.probed
            while self.stripe.probed == probed:
                self.clock.advance(step_s)
                waited += step_s
                self.run_once()
            waits.append(waited)
        return waits
