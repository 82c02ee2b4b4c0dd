"""Several processes recover one circuit: one probes, a late verdict loses, and a wait is measured by one clock."""

from __future__ import annotations

import dataclasses
import datetime as dt
import threading
import time

import pytest

from providers.contract import Health, ProbeResult
from router.ledger.engine import Database
from router.ledger.tables import circuit_transitions
from router.transitions import State, following
from tests.fakes.clocks import SteppedClock
from tests.fakes.ledger import circuit_rows
from tests.fakes.providers import FakeProvider
from tests.fakes.threads import eager, together
from tests.fakes.workers import SETTINGS, Later, Worker

DOWN = ProbeResult(Health.UNREACHABLE, "connection_refused")


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
    worker.circuits.move("stripe", State.OPEN)
    return worker


# ---------------------------------------------------------------- one round for all


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
    assert worker.states() == ["open", "half_open", "slow_start"]


def test_workers_that_come_at_the_same_instant_share_one_round(worker: Worker) -> None:
    """Real threads, over one ledger: five probes in all."""
    workers = [worker, *(Worker(worker.database, worker.clock, worker.stripe, f"worker:{n}") for n in (2, 3, 4))]
    worker.clock.advance(10)
    together([each.recovery.run_once for each in workers])
    assert worker.stripe.probed == 5
    assert worker.states() == ["open", "half_open", "slow_start"]


def test_32_threads_at_the_instant_the_wait_ends_make_exactly_the_permitted_number(worker: Worker) -> None:
    """Thirty-two workers, each with its view of the one ledger: five probes, and one round."""
    crowd = [Worker(worker.database, worker.clock, worker.stripe, f"worker:{n}") for n in range(32)]
    at_once: list[int] = []
    counting = threading.Lock()
    under_way = [0]

    def during() -> None:
        with counting:
            under_way[0] += 1
            at_once.append(under_way[0])
        time.sleep(0.002)  # real threads meet in it
        with counting:
            under_way[0] -= 1

    worker.stripe.during_probe = during
    worker.clock.advance(9.99)
    together([each.recovery.run_once for each in crowd])
    assert worker.stripe.probed == 0
    worker.clock.advance(0.01)
    with eager():
        together([each.recovery.run_once for each in crowd])
    assert worker.stripe.probed == SETTINGS.probes == len(worker.probes.history("stripe", limit=99))
    assert len({probe.actor for probe in worker.probes.history("stripe", limit=99)}) == 1
    assert max(at_once) <= SETTINGS.probes_at_once
    assert worker.states() == ["open", "half_open", "slow_start"]


def test_a_stage_with_thin_traffic_is_probed_once_by_all_workers(worker: Worker) -> None:
    """Four workers see the same stage end: whoever has its probe on record sends it."""
    workers = [worker, *(Worker(worker.database, worker.clock, worker.stripe, f"worker:{n}") for n in (2, 3, 4))]
    worker.clock.advance(10)
    for each in workers:
        each.run_once()
    for _ in range(3):
        worker.clock.advance(10)
        for each in workers:
            each.circuits.sync()
        together([each.recovery.run_once for each in workers])
    assert worker.states() == ["open", "half_open"] + ["slow_start"] * 3 + ["closed"]
    assert worker.stripe.probed == 5 + 3


def test_a_stage_whose_prober_died_is_probed_by_another_after_the_lease(
    database: Database, clock: SteppedClock, stripe: FakeProvider
) -> None:
    """The probe is on record and never comes back: ten seconds later another worker sends one."""
    first, second = Worker(database, clock, stripe, start=Later()), Worker(database, clock, stripe, "worker:2")
    for state in (State.OPEN, State.HALF_OPEN):
        first.circuits.move("stripe", state)
    first.circuits.move("stripe", State.SLOW_START, share=0.5)
    second.run_once()
    clock.advance(10)
    first.run_once()
    second.run_once()
    second.run_for(9.75)
    assert second.states()[-1] == "slow_start"
    second.run_for(0.25)
    assert second.states()[-1] == "closed"
    assert [(each.nth, each.healthy) for each in second.probes.history("stripe", limit=9)] == [(2, True), (1, None)]


def test_a_web_process_probes_only_if_no_worker_has_for_two_waits(worker: Worker) -> None:
    """Beside a worker it never does; without one, at twenty seconds."""
    web = Worker(worker.database, worker.clock, worker.stripe, "web:1", patience=2.0)
    worker.stripe.probes.append(DOWN)
    for _ in range(100):
        worker.run_for(0.25)
        web.run_once()
    assert {row["actor"] for row in circuit_rows(worker.database)[1:]} == {"worker:1"}
    alone = Worker(worker.database, worker.clock, worker.stripe, "web:2", patience=2.0)
    alone.run_for(60)
    alone.circuits.move("stripe", State.OPEN)
    assert alone.waits_until_probed(1) == [20]


# ---------------------------------------------------------------- workers that die or dawdle


def test_a_round_whose_worker_died_is_ended_by_another_after_the_deadline(
    database: Database, clock: SteppedClock, stripe: FakeProvider
) -> None:
    """Half-open must not last for ever; the dead worker's round counts as failed."""
    dead = Worker(database, clock, stripe, start=Later())
    second = Worker(database, clock, stripe, "worker:2")
    dead.circuits.move("stripe", State.OPEN)
    clock.advance(10)
    dead.run_once()
    assert second.run_once() == 0
    clock.advance(29.9)
    assert second.run_once() == 0
    clock.advance(0.2)
    assert second.run_once() == 1
    last = circuit_rows(database)[-1]
    assert (last["state"], last["actor"], last["failed_rounds"]) == ("open", "worker:2", 1)
    assert last["reason"] == "the round of probes was not finished"
    assert second.waits_until_probed(1) == [15]
    assert second.states()[-1] == "slow_start"


def test_a_delayed_close_loses_against_a_newer_open(
    database: Database, clock: SteppedClock, stripe: FakeProvider
) -> None:
    """A worker was stopped in the midst of its round; what it learned then has an old version."""
    later = Later()
    settings = dataclasses.replace(SETTINGS, stages=())
    stopped = Worker(database, clock, stripe, start=later, settings=settings)
    second = Worker(database, clock, stripe, "worker:2", settings=settings)
    stopped.circuits.move("stripe", State.OPEN)
    clock.advance(10)
    stopped.run_once()
    second.run_once()
    clock.advance(30)
    assert second.run_once() == 1
    later.end(2)
    # It goes on without having followed the ledger; its clock says that not a second has passed.
    close = following(
        stopped.circuits.snapshot("stripe").last,
        State.CLOSED,
        provider="stripe",
        at=clock.now(),
        actor="worker:1",
        reason="5 probes succeeded",
    )
    assert not stopped.circuits.propose(close)
    assert stopped.recovery.run_once() == 0
    assert stopped.states() == ["open", "half_open", "open"]
    stopped.circuits.sync()
    assert stopped.circuits.snapshot("stripe").state is State.OPEN


def test_results_of_an_earlier_round_do_not_spoil_the_next(
    database: Database, clock: SteppedClock, stripe: FakeProvider
) -> None:
    """Two probes of the first round come back, failed, during the second."""
    later = Later()
    worker = Worker(database, clock, stripe, start=later, settings=dataclasses.replace(SETTINGS, slow_rate=1.5))
    worker.circuits.move("stripe", State.OPEN)
    worker.run_for(10)
    worker.run_for(10)
    assert worker.states()[-1] == "open"
    worker.run_for(15)
    assert worker.states()[-1] == "half_open"
    stripe.probes.extend([DOWN, DOWN])
    later.end(2)
    worker.run_once()
    assert worker.states()[-1] == "half_open"
    while later.tasks:
        later.end()
        worker.run_once()
    assert worker.states()[-1] == "slow_start"
    late = [each for each in worker.probes.history("stripe", limit=99) if each.version == 2]
    assert [each.healthy for each in late] == [False, False]


def test_a_round_that_the_ledger_lost_is_not_gone_on_with_under_anothers_of_its_version(
    database: Database, clock: SteppedClock, stripe: FakeProvider
) -> None:
    """Its transition was not on the copy that took over, and another worker has a round now: one budget."""
    later = Later()
    worker = Worker(database, clock, stripe, start=later)
    second = Worker(database, clock, stripe, "worker:2", start=Later())
    worker.circuits.move("stripe", State.OPEN)
    second.run_once()
    clock.advance(10)
    worker.run_once()
    with database.write() as connection:
        connection.execute(circuit_transitions.delete().where(circuit_transitions.c.version == 2))
    second.run_once()
    later.end(2)
    worker.run_once()
    assert [row["actor"] for row in circuit_rows(database)] == ["test", "worker:2"]
    assert not later.tasks


# ---------------------------------------------------------------- joining, clocks and restarts


def test_a_process_that_joins_while_the_circuit_is_open_neither_closes_it_nor_restarts_its_wait(
    worker: Worker, database: Database, clock: SteppedClock, stripe: FakeProvider
) -> None:
    """Six of ten seconds have passed: four remain, for it as for the others, and no payment passes."""
    clock.advance(6)
    joined = Worker(database, clock, stripe, "worker:2")
    joined.run_once()
    assert not joined.circuits.admits("stripe")
    assert joined.states() == ["open"]
    assert joined.waits_until_probed(1) == [4]


def test_a_process_that_joins_while_probes_are_under_way_leaves_them_alone(
    database: Database, clock: SteppedClock, stripe: FakeProvider
) -> None:
    """It has no budget of its own."""
    first = Worker(database, clock, stripe, start=Later())
    first.circuits.move("stripe", State.OPEN)
    clock.advance(10)
    first.run_once()
    joined = Worker(database, clock, stripe, "worker:2")
    joined.run_for(2)
    assert joined.states() == ["open", "half_open"]
    assert stripe.probed == 0


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


@pytest.mark.parametrize("step", [-60, 60])
def test_a_step_just_before_another_process_sees_the_opening_changes_nothing_either(
    database: Database, clock: SteppedClock, stripe: FakeProvider, step: float
) -> None:
    """It looked a fifth of a second ago and saw another state: the circuit cannot have been open for a minute."""
    first, second = Worker(database, clock, stripe), Worker(database, clock, stripe, "worker:2")
    second.run_once()
    first.circuits.move("stripe", State.OPEN)
    clock.advance(0.2)
    clock.step_wall(step)
    second.run_once()
    clock.advance(9.75)
    assert second.run_once() == 0
    clock.advance(0.25)
    assert second.run_once() == 2


@pytest.mark.parametrize("step", [-60, 60])
def test_a_step_of_the_wall_clock_changes_nothing_of_a_round_or_a_stage(
    database: Database, clock: SteppedClock, stripe: FakeProvider, step: float
) -> None:
    """Neither the deadline of a round whose worker is gone, nor the time of a stage."""
    first = Worker(database, clock, stripe, start=Later())
    second = Worker(database, clock, stripe, "worker:2")
    first.circuits.move("stripe", State.OPEN)
    second.run_for(9.75)
    clock.advance(0.25)
    first.run_once()
    second.run_once()
    clock.step_wall(step)
    second.run_for(29.75)
    assert second.states()[-1] == "half_open"
    second.run_for(0.25)
    assert second.states()[-1] == "open"
    second.run_for(15)
    assert second.states()[-1] == "slow_start"
    clock.step_wall(-step)
    second.run_for(9.75)
    assert second.circuits.snapshot("stripe").share == 0.10
    second.run_for(0.25)
    assert second.circuits.snapshot("stripe").share == 0.25


def test_a_worker_whose_wall_clock_is_behind_the_record_waits_no_longer_than_the_wait(
    worker: Worker, database: Database, clock: SteppedClock, stripe: FakeProvider
) -> None:
    """An opening that seems to lie in the future counts as just now."""
    clock.step_wall(-3600)
    started = Worker(database, clock, stripe, "worker:2")
    started.run_once()
    assert started.waits_until_probed(1) == [10]


@pytest.mark.parametrize(("mode", "then"), [(State.FORCED_OPEN, State.OPEN), (State.METRICS_ONLY, State.CLOSED)])
def test_a_web_process_leaves_a_worker_one_wait_to_end_an_override(
    database: Database, clock: SteppedClock, stripe: FakeProvider, mode: State, then: State
) -> None:
    """Alone it ends it ten seconds late; a worker does so at its time."""
    web = Worker(database, clock, stripe, "web:1", patience=2.0)
    web.circuits.move("stripe", mode, until=clock.now() + dt.timedelta(minutes=1))
    web.run_for(60 + 9.75)
    assert web.states() == [mode]
    web.run_for(0.25)
    assert web.states() == [mode, then]
