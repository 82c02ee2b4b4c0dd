"""Must-show 6: detection and decision never wait for the database. Not timed: it is shown that nobody asks it.

While another process holds SQLite's lock, the threads that share circuits and counts hang in it, and the guarded
calls of the others go on, open the circuit by themselves, and are told when the lock is free.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from providers.contract import Health
from router.breaker import BreakerSettings
from router.clock import ManualClock
from router.fleet import FleetCounts
from router.health import ProviderHealth
from router.ledger.circuits import CircuitLedger
from router.ledger.counts import CountLedger
from router.ledger.engine import Database
from router.transitions import State
from tests.fakes.ledger import circuit_rows, empty_ledger

ENDS_WITHIN_S = 30.0


class WatchedDatabase(Database):
    """Remembers which threads asked for a transaction, and who is in one now."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.asked: set[threading.Thread] = set()
        self.writing = threading.Event()
        """Somebody has asked for a write that has not ended."""

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        self.asked.add(threading.current_thread())
        self.writing.set()
        try:
            with super().write() as connection:
                yield connection
        finally:
            self.writing.clear()

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        self.asked.add(threading.current_thread())
        with super().read() as connection:
            yield connection


@pytest.fixture
def database(tmp_path: Path) -> Iterator[WatchedDatabase]:
    path = tmp_path / "ledger.db"
    path.write_bytes(empty_ledger())
    database = WatchedDatabase(f"sqlite:///{path}")
    yield database
    database.close()


@contextlib.contextmanager
def held(database: Database) -> Iterator[None]:
    """Another process is in the midst of a commit that takes long."""
    holder = sa.create_engine(database.engine.url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    with holder.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            connection.exec_driver_sql("ROLLBACK")


def started(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def guarded_call(health: ProviderHealth, signal: Health) -> bool:
    """One call as a payment makes it; whether there was leave for it."""
    call = health.admit("stripe")
    if call is None:
        return False
    with call:
        assert call.begin()
        health.readiness("stripe")
        call.end(signal)
        call.may_go_again("read_timeout")
    return True


def test_guarded_calls_ask_no_database_while_the_threads_that_share_hang_in_it(database: WatchedDatabase) -> None:
    """Calls are counted, and the circuit opens, by threads that never asked for a transaction."""
    clock = ManualClock()
    circuits, counts = CircuitLedger(database), CountLedger(database)
    fleet = FleetCounts(["stripe"], store=counts, process="web:1", clock=clock)
    health = ProviderHealth(
        ["stripe"], BreakerSettings(), store=circuits, fleet=fleet, at_once=100, clock=clock, actor="web:1"
    )
    health.sync_once()
    health.restore()
    assert guarded_call(health, Health.OK)
    health.watch_once()
    database.asked.clear()
    guarding: set[threading.Thread] = set()
    both_well, opened = threading.Barrier(2), threading.Event()

    def pay() -> None:
        guarding.add(threading.current_thread())
        for _ in range(500):
            assert guarded_call(health, Health.OK)
        both_well.wait(ENDS_WITHIN_S)
        while guarded_call(health, Health.UNREACHABLE):
            pass

    def watch() -> None:
        guarding.add(threading.current_thread())
        while not opened.is_set():
            health.watch_once()

    with held(database):
        telling = started(health.exchange_once)
        assert database.writing.wait(ENDS_WITHIN_S)
        payers = [started(pay) for _ in range(2)]
        watcher = started(watch)
        for payer in payers:
            payer.join(ENDS_WITHIN_S)
            assert not payer.is_alive()
        opened.set()
        watcher.join(ENDS_WITHIN_S)
        assert not watcher.is_alive()
        sharing = started(health.sync_once)
        assert health.snapshot("stripe").state is State.OPEN
        assert not guarded_call(health, Health.OK)
        guarding.add(threading.current_thread())
        # All of this happened while the thread that tells was still in its write, and nothing had been written.
        assert telling.is_alive()
        assert database.writing.is_set()
        assert guarding.isdisjoint(database.asked)
        assert telling in database.asked
    for thread in (telling, sharing):
        thread.join(ENDS_WITHIN_S)
        assert not thread.is_alive()
    health.sync_once()
    health.exchange_once()
    (row,) = circuit_rows(database)
    assert (row["state"], row["actor"]) == ("open", "web:1")
    told = sum(row.calls for row in counts.hours(["stripe"], from_hour=0))
    assert told == fleet.totals("stripe")[0] > 100


def test_what_a_decision_reads_of_a_provider_asks_no_database(database: WatchedDatabase) -> None:
    """Readiness, thresholds, figures: all that planning and the page of providers look at."""
    clock = ManualClock()
    fleet = FleetCounts(["stripe"], store=CountLedger(database), process="web:1", clock=clock)
    health = ProviderHealth(
        ["stripe"],
        BreakerSettings(),
        store=CircuitLedger(database),
        fleet=fleet,
        at_once=9,
        clock=clock,
        actor="web:1",
    )
    database.asked.clear()
    with held(database):
        health.readiness("stripe")
        health.snapshot("stripe")
        health.tuning("stripe")
        health.is_well("stripe")
        health.stage_calls("stripe")
        with health.operating("stripe") as free:
            assert free
        for _ in range(20):
            guarded_call(health, Health.PROVIDER_ERROR)
        assert health.watch_once() == 0
        assert not health.is_admitting("stripe")
    assert database.asked == set()
