"""Real processes over one ledger share one round of probes."""

from __future__ import annotations

import dataclasses
import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

import pytest

from router.clock import SystemClock
from router.ledger.circuits import CircuitLedger
from router.ledger.engine import Database
from router.ledger.probes import ProbeLedger
from router.transitions import State, following
from tests.fakes.ledger import circuit_rows, fresh_ledger
from tests.fakes.providers import FakeProvider
from tests.fakes.workers import SETTINGS, Worker

ONE_PROBE = dataclasses.replace(
    SETTINGS, open_wait_s=0.5, maximum_wait_s=0.5, wait_jitter=0.0, probes=1, probes_at_once=1, stages=()
)
ENDS_WITHIN_S = 60.0


def _work(url: str, actor: str, ready: Barrier, done: Event) -> None:
    """One worker: looks at its circuits as fast as it can, from the same instant as the other, until told to stop."""
    database = Database(url)
    worker = Worker(database, SystemClock(), FakeProvider("stripe"), actor, settings=ONE_PROBE)  # type: ignore[arg-type]  # any clock
    ready.wait(ENDS_WITHIN_S)
    while not done.is_set():
        worker.run_once()
        time.sleep(0.002)
    database.close()


def _probe_together(folder: Path, database: Database, rounds: int) -> Sequence[str]:
    """Let two processes take that many openings, one after the other; who sent each probe."""
    context = multiprocessing.get_context("spawn")
    ready, done = context.Barrier(3), context.Event()
    url = f"sqlite:///{folder / 'ledger.db'}"
    processes = [context.Process(target=_work, args=(url, f"worker:{n}", ready, done)) for n in (1, 2)]
    for each in processes:
        each.start()
    circuits = CircuitLedger(database)
    try:
        ready.wait(ENDS_WITHIN_S)
        for _ in range(rounds):
            last = next(iter(circuits.latest(["stripe"])), None)
            now = SystemClock().now()
            opened = following(last, State.OPEN, provider="stripe", at=now, actor="test", reason="told to")
            assert circuits.append(opened)
            give_up_at = time.monotonic() + ENDS_WITHIN_S
            while circuits.latest(["stripe"])[0].state is not State.CLOSED:
                assert time.monotonic() < give_up_at, "nobody probed"
                time.sleep(0.01)
    finally:
        done.set()
        for each in processes:
            each.join(ENDS_WITHIN_S)
            if each.is_alive():
                each.kill()
    assert [each.exitcode for each in processes] == [0, 0]
    return [each.actor for each in ProbeLedger(database).history("stripe", limit=1000)]


@pytest.mark.processes
def test_two_processes_with_a_budget_of_one_make_one_probe(tmp_path: Path) -> None:
    """Round after round, both at the instant the wait ends: one probe, one half-open, one close."""
    rounds = 5
    with fresh_ledger(tmp_path) as database:
        actors = _probe_together(tmp_path, database, rounds)
        assert len(actors) == rounds
        assert [row["state"] for row in circuit_rows(database)] == ["open", "half_open", "closed"] * rounds
        assert {row["version"] for row in circuit_rows(database)} == set(range(1, 3 * rounds + 1))
