"""Moving the primary flag after an outage that lasts: when, whether, to whom, and what the record says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flags.contract import PRIMARY_PROVIDER, RoutingFlags, RoutingTuning
from providers.contract import Health
from router.clock import ManualClock
from router.ledger.engine import Database
from router.transitions import State
from tests.fakes.clocks import SteppedClock
from tests.fakes.flags import FakeFlags, FakeFlagWriter
from tests.fakes.flips import NAMES, FlipWorker
from tests.fakes.house import teach
from tests.fakes.ledger import fresh_ledger


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with fresh_ledger(tmp_path) as database:
        yield database


@pytest.fixture
def source() -> FakeFlags:
    return FakeFlags()


@pytest.fixture
def writer() -> FakeFlagWriter:
    return FakeFlagWriter()


@pytest.fixture
def worker(database: Database, source: FakeFlags, writer: FakeFlagWriter) -> FlipWorker:
    return FlipWorker(database, ManualClock(), source, writer)


# ---------------------------------------------------------------- when


def test_the_flag_is_moved_once_when_the_open_time_is_reached_and_not_before(
    worker: FlipWorker, writer: FakeFlagWriter
) -> None:
    """Sixty seconds mean sixty seconds; afterwards nothing more happens in this incident."""
    worker.go(State.OPEN)
    assert worker.run_after(59.9) == 0
    assert worker.run_after(0.1) == 1
    assert writer.values[PRIMARY_PROVIDER] == "third"
    for _ in range(5):
        assert worker.run_after(30) == 0
    assert writer.tries == 1
    assert len(worker.rows()) == 1


@pytest.mark.parametrize("step_s", [-60, 60])
def test_a_step_of_the_wall_clock_neither_flips_nor_keeps_from_it(
    database: Database, source: FakeFlags, writer: FakeFlagWriter, step_s: float
) -> None:
    """Sixty seconds of outage are sixty seconds, whatever a time server does meanwhile."""
    clock = SteppedClock()
    worker = FlipWorker(database, clock, source, writer)
    worker.go(State.OPEN)
    clock.step_wall(step_s)
    assert worker.run_after(1) == 0
    assert worker.run_after(58.9) == 0
    assert worker.run_after(0.1) == 1
    assert worker.rows()[0].evidence["open_seconds"] == pytest.approx(60)


def test_failed_rounds_of_probes_do_not_start_the_count_anew(worker: FlipWorker) -> None:
    """Half-open is not closed: 25 s open, 10 s probing, 25 s open again are a minute."""
    worker.go(State.OPEN)
    worker.go(State.HALF_OPEN, after_s=25)
    worker.go(State.OPEN, after_s=10)
    assert worker.run_after(24.9) == 0
    assert worker.run_after(0.2) == 1


def test_short_closings_are_left_out_of_the_count_but_do_not_start_it_anew(worker: FlipWorker) -> None:
    """A provider that flaps, 20 s down and 20 s up, is flipped away from in its third minute of it."""
    for _ in range(2):
        worker.go(State.OPEN, after_s=20)
        assert worker.run_after() == 0
        worker.go(State.CLOSED, after_s=20)
        assert worker.run_after() == 0
    worker.go(State.OPEN, after_s=20)
    assert worker.run_after(19.9) == 0
    assert worker.run_after(0.2) == 1


def test_a_circuit_that_is_closed_now_is_not_flipped_away_from(worker: FlipWorker) -> None:
    """It was open for long enough, but payments flow again."""
    worker.go(State.OPEN)
    worker.go(State.CLOSED, after_s=300)
    assert worker.run_after() == 0
    assert worker.rows() == []


def test_five_minutes_of_closed_start_the_count_anew(worker: FlipWorker) -> None:
    """Two outages of 40 s in one hour are two incidents, neither long enough."""
    for _ in range(2):
        worker.go(State.OPEN, after_s=300)
        assert worker.run_after(40) == 0
        worker.go(State.CLOSED)
    assert worker.rows() == []


# ---------------------------------------------------------------- whether


def test_a_team_that_switched_flips_off_is_obeyed(
    worker: FlipWorker, source: FakeFlags, writer: FakeFlagWriter
) -> None:
    """And it takes effect in the incident when it is switched on again."""
    source.flags = RoutingFlags(auto_flip_enabled=False)
    worker.go(State.OPEN)
    assert worker.run_after(600) == 0
    assert (worker.rows(), writer.tries) == ([], 0)
    source.flags = RoutingFlags()
    assert worker.run_after() == 1


def test_a_provider_that_is_not_the_primary_is_nobodys_concern(worker: FlipWorker, writer: FakeFlagWriter) -> None:
    """The flag already points elsewhere."""
    writer.values[PRIMARY_PROVIDER] = "adyen"
    worker.go(State.OPEN)
    assert worker.run_after(600) == 0
    assert (worker.rows(), writer.tries) == ([], 0)


def test_without_a_healthy_target_the_flag_stays(worker: FlipWorker, writer: FakeFlagWriter) -> None:
    """Moving it from one broken provider to another helps nobody; once one recovers, it is moved there."""
    for name in NAMES:
        worker.go(State.OPEN, provider=name)
    assert worker.run_after(600) == 0
    assert worker.rows() == []
    worker.go(State.CLOSED, provider="adyen")
    assert worker.run_after() == 1
    assert writer.values[PRIMARY_PROVIDER] == "adyen"


def test_a_flag_that_cannot_be_read_is_not_flipped_yet(worker: FlipWorker, writer: FakeFlagWriter) -> None:
    """Not knowing what it serves, the machine leaves it alone until it does."""
    writer.fault = "the store is away"
    worker.go(State.OPEN)
    assert worker.run_after(60) == 0
    assert worker.rows() == []
    writer.fault = None
    assert worker.run_after() == 1


# ---------------------------------------------------------------- to whom


@pytest.mark.parametrize(
    ("disabled", "broken", "target"),
    [((), (), "third"), (("third",), (), "adyen"), ((), ("third",), "adyen"), (("adyen",), (), "third")],
)
def test_the_target_is_the_most_valuable_provider_that_is_enabled_and_closed(
    worker: FlipWorker,
    source: FakeFlags,
    writer: FakeFlagWriter,
    disabled: tuple[str, ...],
    broken: tuple[str, ...],
    target: str,
) -> None:
    """By fees on a typical payment `third` is the best; a kill switch or a circuit takes it out."""
    source.flags = RoutingFlags(enabled=dict.fromkeys(disabled, False))
    for name in broken:
        worker.go(State.OPEN, provider=name)
    worker.go(State.OPEN)
    assert worker.run_after(60) == 1
    assert writer.values[PRIMARY_PROVIDER] == target


def test_a_target_that_is_only_half_open_is_not_chosen(worker: FlipWorker, writer: FakeFlagWriter) -> None:
    """Its probes are not over."""
    worker.go(State.OPEN, provider="third")
    worker.go(State.HALF_OPEN, provider="third")
    worker.go(State.OPEN)
    worker.run_after(60)
    assert writer.values[PRIMARY_PROVIDER] == "adyen"


def test_of_equally_valuable_targets_the_first_by_name_is_chosen(
    database: Database, source: FakeFlags, writer: FakeFlagWriter
) -> None:
    """Every worker chooses the same."""
    worker = FlipWorker(database, ManualClock(), source, writer, names=("stripe", "zebra", "beta", "gamma"))
    worker.go(State.OPEN)
    worker.run_after(60)
    assert writer.values[PRIMARY_PROVIDER] == "beta"


# ---------------------------------------------------------------- the record


def test_the_record_explains_the_flip(worker: FlipWorker, source: FakeFlags, writer: FakeFlagWriter) -> None:
    """From, to, why, when, the window at the opening, the candidates with their values, and the comment written."""
    source.flags = RoutingFlags(tuning=RoutingTuning(margin=0.2))
    opened_at = worker.clock.now()
    teach(worker.health, Health.UNREACHABLE)
    worker.health.sync_once()
    worker.go(State.HALF_OPEN, after_s=30)
    worker.go(State.OPEN, after_s=0.5)
    worker.run_after(31)
    (flip,) = worker.rows()
    assert (flip.flag, flip.from_value, flip.to_value) == (PRIMARY_PROVIDER, "stripe", "third")
    assert (flip.state, flip.incident) == ("confirmed", "inc_stripe_1")
    assert flip.reason == "circuit of stripe not closed for 62 s: 10 of the last 10 calls failed"
    assert flip.created_at == flip.confirmed_at == worker.clock.now()
    window = flip.evidence["window"]
    assert (window["calls"], window["failures"], window["unreachable"]) == (10, 10, 10)
    assert {**flip.evidence, "window": None} == {
        "open_seconds": 61.5,
        "incident_started_at": opened_at.isoformat(),
        "window": None,
        # 20% of 50.00, less 1% and 2% of it.
        "candidates": [{"provider": "third", "value": 9.5}, {"provider": "adyen", "value": 9.0}],
    }
    ((flag, value, comment),) = writer.writes
    assert (flag, value) == (PRIMARY_PROVIDER, "third")
    assert comment == f"auto-failover: {flip.reason}, incident inc_stripe_1"
