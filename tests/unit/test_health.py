"""What calls teach of a provider, and how the processes of a fleet agree through the ledger."""

from __future__ import annotations

import threading
from typing import cast

import pytest
from structlog.testing import capture_logs

from providers.contract import Health
from router.accounts import Restriction
from router.clock import ManualClock
from router.fleet import FleetCounts
from router.health import ProviderHealth
from router.ledger.circuits import CircuitLedger
from router.ledger.engine import Database
from router.ledger.unavailable import LedgerUnavailableError
from router.transitions import State, following
from tests.fakes.house import BREAKERS, a_health, move, teach
from tests.fakes.ledger import FlakyStore, circuit_rows


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(database: Database) -> FlakyStore:
    return FlakyStore(database)


def a_process(store: FlakyStore, clock: ManualClock, actor: str = "web:1") -> ProviderHealth:
    return cast("ProviderHealth", a_health(("stripe", "adyen"), store=store, clock=clock, actor=actor))


@pytest.mark.parametrize("signal", [Health.UNREACHABLE, Health.PROVIDER_ERROR])
def test_what_is_the_providers_fault_counts_as_a_failure(
    store: FlakyStore, clock: ManualClock, signal: Health
) -> None:
    """Ten in a row open the circuit, of that provider and no other."""
    health = a_process(store, clock)
    teach(health, signal, 9)
    assert health.is_admitting("stripe")
    teach(health, signal, 1)
    assert not health.is_admitting("stripe")
    assert health.is_admitting("adyen")


def test_an_answer_counts_as_a_success(store: FlakyStore, clock: ManualClock) -> None:
    """A decline is a healthy provider: its signal is OK."""
    health = a_process(store, clock)
    teach(health, Health.OK, 15)
    window = health.snapshot("stripe").window
    assert (window.calls, window.failures) == (15, 0)


@pytest.mark.parametrize("signal", [Health.IGNORED])
def test_what_is_our_own_fault_counts_nowhere(store: FlakyStore, clock: ManualClock, signal: Health) -> None:
    """A hundred rejected requests or refused keys say nothing of the provider."""
    health = a_process(store, clock)
    teach(health, signal, 100)
    assert health.snapshot("stripe").window.calls == 0


def test_every_signal_that_a_provider_can_send_is_understood(store: FlakyStore, clock: ManualClock) -> None:
    """A new signal must be mapped before it is used."""
    for signal in Health:
        teach(a_process(store, clock), signal, 1)


@pytest.mark.parametrize("withheld", [True, False])
@pytest.mark.parametrize("opened_once", [False, True])
def test_a_restricted_account_counts_whatever_the_circuit_has_been_through(
    store: FlakyStore, clock: ManualClock, *, withheld: bool, opened_once: bool
) -> None:
    """The usual case first: the provider is well, and its circuit has never moved."""
    restriction = Restriction("account takes no payments", withheld)
    fleet = FleetCounts(("stripe",), store=None, process="test", clock=clock)
    health = ProviderHealth(
        ("stripe",),
        BREAKERS,
        store=store,
        fleet=fleet,
        at_once=10,
        clock=clock,
        actor="test",
        restricted=lambda _: restriction,
    )
    if opened_once:
        move(health, "stripe", State.OPEN, clock)
        move(health, "stripe", State.CLOSED, clock)
    ready = health.readiness("stripe")
    assert (ready.state, ready.share, ready.why) == (State.CLOSED, 0.0, restriction.why)
    assert ready.withheld == (restriction.why if withheld else None)


# ---------------------------------------------------------------- two processes, one ledger


def test_when_one_process_opens_the_other_follows(database: Database, store: FlakyStore, clock: ManualClock) -> None:
    """The second has made no call at all; after one look at the ledger it lets nothing through either."""
    first, second = a_process(store, clock), a_process(store, clock, "web:2")
    teach(first, Health.UNREACHABLE)
    assert second.admit("stripe") is not None
    assert first.sync_once() == 0
    assert second.sync_once() == 1
    assert second.sync_once() == 0
    assert second.admit("stripe") is None
    assert second.snapshot("stripe").last == first.snapshot("stripe").last
    (row,) = circuit_rows(database)
    assert (row["actor"], row["state"], row["version"]) == ("web:1", "open", 1)
    assert row["reason"] == "10 of the last 10 calls failed"
    evidence = row["evidence"]
    assert (evidence["calls"], evidence["failures"], evidence["unreachable"]) == (10, 10, 10)
    assert (evidence["failure_rate"], evidence["failure_rate_threshold"]) == (1.0, 0.5)


def test_when_both_open_at_once_there_is_one_row_and_both_hold_it(
    database: Database, store: FlakyStore, clock: ManualClock
) -> None:
    """Compare-and-set: the second finds its version taken, and takes over who, when and why as written."""
    first, second = a_process(store, clock), a_process(store, clock, "web:2")
    teach(first, Health.UNREACHABLE)
    clock.advance(0.1)
    teach(second, Health.PROVIDER_ERROR)
    for process in (first, second, first, second):
        process.sync_once()
    assert [row["actor"] for row in circuit_rows(database)] == ["web:1"]
    assert first.snapshot("stripe").last == second.snapshot("stripe").last
    assert not first.is_admitting("stripe")
    assert not second.is_admitting("stripe")


def test_an_opening_across_the_end_of_an_incident_names_one_incident_everywhere(
    store: FlakyStore, clock: ManualClock
) -> None:
    """One process opens just before the five minutes are over, one just after: the written incident holds."""
    first, second = a_process(store, clock), a_process(store, clock, "web:2")
    for state in (State.OPEN, State.CLOSED):
        move(first, "stripe", state, clock)
    second.sync_once()
    clock.advance(299.9)
    teach(first, Health.UNREACHABLE)
    clock.advance(0.2)
    teach(second, Health.UNREACHABLE)
    first.sync_once()
    second.sync_once()
    for process in (first, second):
        last = process.snapshot("stripe").last
        assert last is not None
        assert last.incident == "inc_stripe_1"


def test_a_process_that_joins_during_an_outage_follows_before_its_first_payment(
    database: Database, store: FlakyStore, clock: ManualClock
) -> None:
    """It neither calls the broken provider, nor closes its circuit, nor starts its wait anew."""
    first = a_process(store, clock)
    teach(first, Health.UNREACHABLE)
    first.sync_once()
    opened_at = clock.now()
    clock.advance(7)
    joined = a_process(store, clock, "web:2")
    assert joined.sync_once() == 1
    assert joined.admit("stripe") is None
    assert joined.snapshot("stripe").since == opened_at
    assert len(circuit_rows(database)) == 1


def test_a_closing_is_followed_and_the_old_answers_are_forgotten(store: FlakyStore, clock: ManualClock) -> None:
    """Calls that this process made before the outage do not open the circuit again after it."""
    worker, web = a_process(store, clock, "worker:1"), a_process(store, clock)
    hanging = [web.admit("stripe") for _ in range(20)]
    assert all(call is not None and call.begin() for call in hanging)
    for state in (State.OPEN, State.HALF_OPEN, State.CLOSED):
        move(worker, "stripe", state, clock)
        web.sync_once()
    for call in hanging:
        assert call is not None
        call.end(Health.PROVIDER_ERROR)
    assert web.is_admitting("stripe")


# ---------------------------------------------------------------- the ledger is away


def test_with_the_ledger_away_the_decision_is_in_force_here_and_written_later(
    database: Database, store: FlakyStore, clock: ManualClock
) -> None:
    """The local window goes on protecting; when the ledger is back, the opening is on record as of its moment."""
    first, second = a_process(store, clock), a_process(store, clock, "web:2")
    store.away = True
    opened_at = clock.now()
    teach(first, Health.UNREACHABLE)
    for _ in range(3):
        with pytest.raises(LedgerUnavailableError):
            first.sync_once()
        assert first.admit("stripe") is None
    clock.advance(60)
    store.away = False
    first.sync_once()
    second.sync_once()
    assert len(circuit_rows(database)) == 1
    assert second.snapshot("stripe").since == opened_at
    assert second.admit("stripe") is None


def test_a_decision_that_was_overtaken_while_the_ledger_was_away_loses(
    database: Database, store: FlakyStore, clock: ManualClock
) -> None:
    """Another process opened, probed and closed meanwhile; our old opening is not written over that."""
    cut_off, worker = a_process(store, clock), a_process(FlakyStore(database), clock, "worker:1")
    store.away = True
    teach(cut_off, Health.UNREACHABLE)
    with pytest.raises(LedgerUnavailableError):
        cut_off.sync_once()
    for state in (State.OPEN, State.HALF_OPEN, State.CLOSED):
        move(worker, "stripe", state, clock)
    store.away = False
    cut_off.sync_once()
    assert [row["state"] for row in circuit_rows(database)] == ["open", "half_open", "closed"]
    assert cut_off.is_admitting("stripe")


def test_a_proposal_that_another_worker_was_first_with_is_refused(store: FlakyStore, clock: ManualClock) -> None:
    """Two workers that saw the same circuit: one moves it, the other is told so and stays where it was."""
    first, second = a_process(store, clock), a_process(store, clock, "web:2")
    proposals = [
        following(None, State.OPEN, provider="stripe", at=clock.now(), actor=each.actor, reason="why")
        for each in (first, second)
    ]
    assert first.propose(proposals[0])
    assert not second.propose(proposals[1])
    assert second.is_admitting("stripe")


def test_a_circuit_of_a_provider_that_this_build_does_not_know_is_passed_over(
    database: Database, clock: ManualClock, store: FlakyStore
) -> None:
    """A newer version of the router, beside this one, may have a third provider."""
    CircuitLedger(database).append(
        following(None, State.OPEN, provider="third", at=clock.now(), actor="web:9", reason="why")
    )
    assert a_process(store, clock).sync_once() == 0


def test_a_decision_wakes_the_thread_that_writes_it(store: FlakyStore, clock: ManualClock) -> None:
    """Other processes learn of an opening at once, not at the next round."""
    health = a_process(store, clock)
    woken = threading.Event()

    def wait() -> None:
        health.wait_for_news(10)
        woken.set()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    assert not woken.wait(0.05)
    with capture_logs() as logs:
        teach(health, Health.UNREACHABLE)
    assert woken.wait(5)
    assert [(entry["provider"], entry["log_level"]) for entry in logs] == [("stripe", "warning")]
    thread.join(5)
