"""Finding out, with synthetic probes, whether a provider works again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from providers.contract import Health, ProbeResult, Timeouts
from router.breaker import BreakerSettings, State
from router.clock import ManualClock
from router.health import ProviderHealth
from router.ledger.engine import Database
from router.ledger.unavailable import LedgerUnavailableError
from router.recovery import Recovery
from tests.fakes.clocks import SteppedClock
from tests.fakes.house import move
from tests.fakes.ledger import FlakyStore, circuit_rows, fresh_ledger
from tests.fakes.providers import FakeProvider
from tests.fakes.threads import together

SETTINGS = BreakerSettings(
    open_wait_s=10.0, wait_multiplier=1.5, maximum_wait_s=15.0, probes=5, round_deadline_s=30.0
)
DOWN = ProbeResult(Health.UNREACHABLE, "connection_refused")


@dataclass
class Worker:
    """One worker process, with its own circuits and its own view of the time that it has seen."""

    database: Database
    clock: ManualClock
    stripe: FakeProvider
    actor: str = "worker:1"
    store: FlakyStore = field(init=False)
    health: ProviderHealth = field(init=False)
    recovery: Recovery = field(init=False)

    def __post_init__(self) -> None:
        self.store = FlakyStore(self.database)
        self.health = ProviderHealth(("stripe",), SETTINGS, store=self.store, clock=self.clock, actor=self.actor)
        self.recovery = Recovery({"stripe": self.stripe}, self.health, timeouts=Timeouts(1, 5), clock=self.clock)
        self.health.sync_once()

    def run_once(self) -> int:
        """A round of the circuits' loop and one of the recovery's."""
        self.health.sync_once()
        return self.recovery.run_once()

    def states(self) -> list[str]:
        """What the ledger says the circuit went through."""
        return [row["state"] for row in circuit_rows(self.database)]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with fresh_ledger(tmp_path) as database:
        yield database


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def stripe() -> FakeProvider:
    return FakeProvider("stripe")


@pytest.fixture
def worker(database: Database, clock: SteppedClock, stripe: FakeProvider) -> Worker:
    """A worker whose circuit of stripe has just opened."""
    worker = Worker(database, clock, stripe)
    move(worker.health, "stripe", State.OPEN, clock)
    return worker


def waits_until_probed(worker: Worker, rounds: int, step_s: float = 0.5) -> list[float]:
    """Seconds of waiting before each of the next rounds of probes."""
    waits = []
    for _ in range(rounds):
        waited, probed = 0.0, worker.stripe.probed
        while worker.stripe.probed == probed:
            worker.clock.advance(step_s)
            waited += step_s
            worker.run_once()
        waits.append(waited)
    return waits


def test_a_closed_circuit_is_not_probed(database: Database, clock: SteppedClock, stripe: FakeProvider) -> None:
    """Nor one that has never had a transition."""
    worker = Worker(database, clock, stripe)
    clock.advance(1000)
    assert worker.run_once() == 0
    assert stripe.probed == 0


def test_the_first_probe_goes_out_when_the_wait_has_fully_elapsed(worker: Worker) -> None:
    """A hundredth of a second early is early."""
    worker.run_once()
    worker.clock.advance(9.99)
    assert worker.run_once() == 0
    assert worker.stripe.probed == 0
    worker.clock.advance(0.011)
    assert worker.run_once() == 2
    assert worker.stripe.probed == 5


def test_five_good_probes_close_the_circuit(worker: Worker) -> None:
    """Open, half-open, closed: each a row with who and why, and payments are let through again."""
    worker.clock.advance(10)
    worker.run_once()
    rows = circuit_rows(worker.database)
    assert [(row["state"], row["actor"], row["failed_rounds"]) for row in rows[1:]] == [
        ("half_open", "worker:1", 0),
        ("closed", "worker:1", 0),
    ]
    assert rows[1]["reason"] == "the wait is over: probing"
    assert rows[2]["reason"] == "5 probes succeeded"
    assert {row["incident"] for row in rows} == {"inc_stripe_1"}
    assert worker.health.admit("stripe") is not None


def test_payments_are_kept_out_while_probes_are_under_way(worker: Worker) -> None:
    """In half-open only the worker calls."""
    admitted: list[object] = []
    worker.stripe.during_probe = lambda: admitted.append(worker.health.admit("stripe"))
    worker.clock.advance(10)
    worker.run_once()
    assert admitted == [None] * 5


@pytest.mark.parametrize("good", [0, 2, 4])
def test_the_first_bad_probe_opens_the_circuit_again(worker: Worker, good: int) -> None:
    """No further probe is sent after it, and the reason names it."""
    worker.stripe.probes.extend([ProbeResult(Health.OK)] * good + [DOWN])
    worker.clock.advance(10)
    assert worker.run_once() == 2
    assert worker.stripe.probed == good + 1
    last = circuit_rows(worker.database)[-1]
    assert (last["state"], last["failed_rounds"]) == ("open", 1)
    assert last["reason"] == f"probe {good + 1} failed: connection_refused"


@pytest.mark.parametrize("health", [each for each in Health if each is not Health.OK])
def test_only_a_probe_that_went_well_counts_as_good(worker: Worker, health: Health) -> None:
    """A provider that refuses our key cannot take a payment either."""
    worker.stripe.probes.append(ProbeResult(health))
    worker.clock.advance(10)
    worker.run_once()
    assert worker.states()[-1] == "open"


def test_the_wait_grows_after_a_failed_round_up_to_its_cap_and_starts_again_after_a_recovery(
    worker: Worker,
) -> None:
    """10 s, then 15 s for as long as it takes; the next outage begins with 10 s."""
    worker.stripe.probes.extend([DOWN] * 4)
    assert waits_until_probed(worker, 5) == [10, 15, 15, 15, 15]
    assert worker.health.is_closed("stripe")
    move(worker.health, "stripe", State.OPEN, worker.clock)
    worker.stripe.probes.append(DOWN)
    assert worker.states()[-1] == "open"
    assert circuit_rows(worker.database)[-2]["failed_rounds"] == 0
    assert waits_until_probed(worker, 1) == [10]


# ---------------------------------------------------------------- several workers


def test_of_two_workers_one_probes(worker: Worker) -> None:
    """The second still believes the circuit open when the first is in the midst of its round: it gets nowhere."""
    second = Worker(worker.database, worker.clock, worker.stripe, "worker:2")
    moved: list[int] = []
    worker.stripe.during_probe = lambda: moved.append(second.recovery.run_once())
    worker.clock.advance(10)
    worker.run_once()
    assert worker.stripe.probed == 5
    assert moved == [0] * 5
    assert second.run_once() == 0
    assert worker.states() == ["open", "half_open", "closed"]


def test_workers_that_come_at_the_same_instant_share_one_round(worker: Worker) -> None:
    """Real threads, over one ledger: five probes in all."""
    workers = [worker, *(Worker(worker.database, worker.clock, worker.stripe, f"worker:{n}") for n in (2, 3, 4))]
    worker.clock.advance(10)
    together([each.recovery.run_once for each in workers])
    assert worker.stripe.probed == 5
    assert worker.states() == ["open", "half_open", "closed"]


def test_a_round_whose_worker_died_is_ended_by_another_after_the_deadline(worker: Worker) -> None:
    """Half-open must not last for ever; the dead worker's round counts as failed."""

    def die() -> None:
        raise SystemExit

    second = Worker(worker.database, worker.clock, worker.stripe, "worker:2")
    worker.stripe.during_probe = die
    worker.clock.advance(10)
    with pytest.raises(SystemExit):
        worker.run_once()
    worker.stripe.during_probe = None
    assert second.run_once() == 0
    worker.clock.advance(29.9)
    assert second.run_once() == 0
    worker.clock.advance(0.2)
    assert second.run_once() == 1
    last = circuit_rows(worker.database)[-1]
    assert (last["state"], last["actor"], last["failed_rounds"]) == ("open", "worker:2", 1)
    assert waits_until_probed(second, 1) == [15]
    assert worker.states()[-1] == "closed"


def test_a_round_that_took_too_long_cannot_close_what_another_worker_opened_again(worker: Worker) -> None:
    """The late verdict has an old version, and loses."""
    second = Worker(worker.database, worker.clock, worker.stripe, "worker:2")

    def dawdle() -> None:
        second.run_once()
        worker.clock.advance(8)

    worker.stripe.during_probe = dawdle
    worker.clock.advance(10)
    worker.run_once()
    assert worker.states() == ["open", "half_open", "open"]
    worker.health.sync_once()
    assert not worker.health.is_closed("stripe")


def test_with_the_ledger_away_nobody_probes(worker: Worker) -> None:
    """The round must be claimed first; when the ledger is back, it is due at once."""
    worker.clock.advance(10)
    worker.store.away = True
    with pytest.raises(LedgerUnavailableError):
        worker.recovery.run_once()
    assert worker.stripe.probed == 0
    worker.store.away = False
    worker.run_once()
    assert worker.states() == ["open", "half_open", "closed"]


def test_a_verdict_that_could_not_be_written_leaves_the_round_to_its_deadline(worker: Worker) -> None:
    """The ledger went away during the probes: the circuit stays half-open, then opens, then recovers."""

    def cut_off() -> None:
        worker.store.away = worker.stripe.probed == 5

    worker.stripe.during_probe = cut_off
    worker.clock.advance(10)
    with pytest.raises(LedgerUnavailableError):
        worker.run_once()
    worker.stripe.during_probe = None
    worker.store.away = False
    worker.run_once()
    assert worker.states() == ["open", "half_open"]
    worker.clock.advance(30)
    worker.run_once()
    assert worker.states() == ["open", "half_open", "open"]
    assert waits_until_probed(worker, 1) == [15]
    assert worker.states()[-1] == "closed"


# ---------------------------------------------------------------- clocks and restarts


@pytest.mark.parametrize("step", [-60, 60])
def test_a_step_of_the_wall_clock_changes_nothing_of_a_wait_under_way(
    worker: Worker, clock: SteppedClock, step: float
) -> None:
    """A wait that this worker has seen begin is measured by the clock that cannot step."""
    worker.run_once()
    clock.advance(4)
    clock.step_wall(step)
    worker.run_once()
    clock.advance(5.9)
    worker.run_once()
    assert worker.stripe.probed == 0
    clock.advance(0.2)
    worker.run_once()
    assert worker.stripe.probed == 5


def test_a_worker_that_was_started_again_goes_on_with_the_wait(
    worker: Worker, database: Database, clock: SteppedClock, stripe: FakeProvider
) -> None:
    """Six of ten seconds have passed: four remain, not ten."""
    clock.advance(6)
    restarted = Worker(database, clock, stripe, "worker:2")
    assert waits_until_probed(restarted, 1) == [4]


def test_a_worker_whose_wall_clock_is_behind_the_record_waits_no_longer_than_the_wait(
    worker: Worker, database: Database, clock: SteppedClock, stripe: FakeProvider
) -> None:
    """An opening that seems to lie in the future counts as just now."""
    clock.step_wall(-3600)
    started = Worker(database, clock, stripe, "worker:2")
    started.run_once()
    assert waits_until_probed(started, 1) == [10]
