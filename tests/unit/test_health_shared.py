"""What the processes of a fleet see together: counts that add up, one mark of suspicion, thresholds from the past."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Sequence
from typing import cast

import pytest
from structlog.testing import capture_logs

from providers.contract import Health
from router.clock import ManualClock
from router.health import CALM_S, SETTLED_S, STRANGERS_CALM_S, SUSPECT_SHARE, ProviderHealth
from router.histogram import bucket_of
from router.ledger.counts import CountRow, hour_of
from router.ledger.engine import Database
from router.ledger.unavailable import LedgerUnavailableError
from router.transitions import State, Transition, following
from tests.fakes.clocks import SteppedClock
from tests.fakes.counts import MemoryCounts
from tests.fakes.house import BREAKERS, a_health, move, teach
from tests.fakes.ledger import FlakyStore, MemoryStore, circuit_rows

USUAL_CALLS = 20_000


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def counts() -> MemoryCounts:
    return MemoryCounts()


@dataclasses.dataclass(frozen=True, slots=True)
class Fleet:
    """Processes over one ledger."""

    store: MemoryStore
    counts: MemoryCounts
    clock: SteppedClock

    def process(self, actor: str, *, settled: bool = True) -> ProviderHealth:
        """One more, as the composition root starts it; `settled`: its start is a while ago."""
        health = cast(
            "ProviderHealth",
            a_health(("stripe",), store=self.store, counts=self.counts, clock=self.clock, actor=actor),
        )
        health.sync_once()
        health.restore()
        health.watch_once()
        if settled:
            self.clock.advance(SETTLED_S + 0.1)
        return health

    def remember(self, *, hours_ago: int = 1, calls: int = USUAL_CALLS) -> None:
        """A process of an earlier day told of calls that took 0.2 to 0.45 s, one in 200 of which failed."""
        failures = calls // 200
        well = calls - failures
        histogram = {bucket_of(0.2): well // 5, bucket_of(0.45): well // 3}
        histogram[bucket_of(0.3)] = well - sum(histogram.values())
        hour = hour_of(self.clock.now()) - hours_ago
        at = self.clock.now() - dt.timedelta(hours=hours_ago)
        row = CountRow("web:0", "stripe", hour, calls, failures, 0, 0, updated_at=at, histogram=histogram)
        self.counts.rows[row.key] = row

    def rows(self) -> Sequence[Transition]:
        """What was written of the circuit."""
        return [row for _, row in sorted(self.store.rows.items())]

    def run(self, processes: Sequence[ProviderHealth], seconds: int, *, each: Sequence[float] = ()) -> None:
        """Let the loops of these processes work, once a second; the first makes calls of so many seconds each."""
        for _ in range(seconds):
            for latency_s in each:
                call(processes[0], self.clock, latency_s, advance=False)
            self.clock.advance(1)
            for process in processes:
                process.watch_once()
                process.exchange_once()
                process.sync_once()


def call(
    health: ProviderHealth, clock: ManualClock, latency_s: float, times: int = 1, *, advance: bool = True
) -> None:
    """So many calls at once, each of which succeeds after so many seconds."""
    calls = [health.admit("stripe") for _ in range(times)]
    began = clock.monotonic()
    for each in calls:
        assert each is not None
        assert each.begin()
        if not advance:
            # The clock is one for all processes: a call inside a second began in the one before.
            assert each._permit is not None
            each._permit.at = began - latency_s
    if advance:
        clock.advance(latency_s)
    for each in calls:
        assert each is not None
        each.end(Health.OK)
        each.__exit__(None, None, None)


@pytest.fixture
def fleet(store: MemoryStore, counts: MemoryCounts, clock: SteppedClock) -> Fleet:
    return Fleet(store, counts, clock)


# ---------------------------------------------------------------- counts that add up


def test_two_processes_that_saw_half_the_failures_each_open_together(fleet: Fleet) -> None:
    """Five calls are below anybody's minimum; ten are not. The second opens as soon as it hears of the first."""
    first, second = fleet.process("web:1"), fleet.process("web:2")
    for process in (first, second):
        teach(process, Health.UNREACHABLE, 5)
        assert process.watch_once() == 0
    assert first.exchange_once() == 0
    assert second.exchange_once() == 5
    assert not second.is_admitting("stripe")
    second.sync_once()
    first.sync_once()
    assert not first.is_admitting("stripe")
    (opened,) = fleet.rows()
    assert (opened.actor, opened.reason) == ("web:2", "10 of the last 10 calls failed")
    assert opened.evidence["unreachable"] == 10


def test_both_open_by_themselves_where_neither_hears_of_the_others_decision(fleet: Fleet) -> None:
    """The exchange alone is enough, and the ledger has one opening."""
    first, second = fleet.process("web:1"), fleet.process("web:2")
    for process in (first, second):
        teach(process, Health.PROVIDER_ERROR, 5)
        process.watch_once()
    for process in (first, second, first):
        process.exchange_once()
    assert not first.is_admitting("stripe")
    assert not second.is_admitting("stripe")
    for process in (first, second):
        process.sync_once()
    assert len(fleet.rows()) == 1
    assert first.snapshot("stripe").last == second.snapshot("stripe").last


def test_successes_of_others_count_as_well(fleet: Fleet) -> None:
    """One process with five bad calls is no outage while another's fifteen went well."""
    first, second = fleet.process("web:1"), fleet.process("web:2")
    teach(first, Health.OK, 15)
    first.watch_once()
    first.exchange_once()
    second.exchange_once()
    teach(second, Health.PROVIDER_ERROR, 9)
    assert second.is_admitting("stripe")
    window = second.snapshot("stripe").window
    assert (window.calls, window.failures) == (20, 9)


@pytest.mark.parametrize("step_s", [0, -60, 60])
def test_counts_of_the_time_before_a_circuit_moved_are_not_held_against_it(fleet: Fleet, step_s: float) -> None:
    """The others' failures reach us when the circuit has just closed; a step of the wall clock changes nothing."""
    first, second = fleet.process("web:1"), fleet.process("web:2")
    teach(first, Health.UNREACHABLE, 9)
    first.watch_once()
    for state in (State.OPEN, State.CLOSED):
        move(second, "stripe", state, fleet.clock)
    first.sync_once()
    first.exchange_once()
    fleet.clock.step_wall(step_s)
    assert second.exchange_once() == 9
    assert second.snapshot("stripe").window.calls == 0
    fleet.clock.advance(SETTLED_S + 0.1)
    teach(first, Health.UNREACHABLE, 4)
    first.watch_once()
    first.exchange_once()
    assert second.exchange_once() == 4
    window = second.snapshot("stripe").window
    assert (window.calls, window.failures) == (4, 4)


@pytest.mark.parametrize("step_s", [-60, 60])
def test_a_step_of_the_wall_clock_hides_no_counts_of_others(fleet: Fleet, step_s: float) -> None:
    """A clock set back by a minute is not a minute without the others' failures."""
    first, second = fleet.process("web:1"), fleet.process("web:2")
    move(second, "stripe", State.OPEN, fleet.clock)
    move(second, "stripe", State.CLOSED, fleet.clock)
    first.sync_once()
    second.watch_once()
    fleet.clock.advance(5)
    fleet.clock.step_wall(step_s)
    teach(first, Health.UNREACHABLE, 5)
    first.watch_once()
    first.exchange_once()
    second.exchange_once()
    assert second.snapshot("stripe").window.failures == 5


def test_counts_do_not_reach_a_circuit_that_is_open(fleet: Fleet) -> None:
    """What was in flight when it opened ends later, elsewhere: its figures stay those that it opened with."""
    first, second = fleet.process("web:1"), fleet.process("web:2")
    teach(second, Health.UNREACHABLE, 10)
    teach(first, Health.OK, 9)
    first.watch_once()
    first.exchange_once()
    fleet.clock.advance(10)
    assert second.exchange_once() == 9
    window = second.snapshot("stripe").window
    assert (window.calls, window.failures) == (10, 10)


def test_with_the_ledger_away_a_process_goes_by_its_own_window(fleet: Fleet) -> None:
    """And what others counted meanwhile is heard when it is back."""
    first, second = fleet.process("web:1"), fleet.process("web:2")
    fleet.counts.away = True
    for process in (first, second):
        teach(process, Health.UNREACHABLE, 5)
        process.watch_once()
        with pytest.raises(LedgerUnavailableError):
            process.exchange_once()
    assert first.is_admitting("stripe")
    fleet.counts.away = False
    first.exchange_once()
    second.exchange_once()
    assert not second.is_admitting("stripe")


# ---------------------------------------------------------------- calls that hang


def test_calls_that_hang_open_the_circuit_while_they_are_in_flight_and_the_ledger_is_away(
    database: Database, clock: SteppedClock, counts: MemoryCounts
) -> None:
    """At the slow threshold, long before the read timeout; on record as of that moment when the ledger is back."""
    flaky = FlakyStore(database)
    health = cast("ProviderHealth", a_health(("stripe",), store=flaky, counts=counts, clock=clock))
    flaky.away = counts.away = True
    calls = [health.admit("stripe") for _ in range(BREAKERS.minimum_calls)]
    assert all(each is not None and each.begin() for each in calls)
    clock.advance(BREAKERS.slow_call_s)
    assert health.watch_once() == 0
    assert health.is_admitting("stripe")
    clock.advance(0.1)
    assert health.watch_once() == 1
    assert health.admit("stripe") is None
    opened_at = clock.now()
    assert health.watch_once() == 0
    with pytest.raises(LedgerUnavailableError):
        health.sync_once()
    for each in calls:
        assert each is not None
        each.end(Health.OK)
    assert not health.is_admitting("stripe"), "a late answer closes nothing"
    clock.advance(30)
    flaky.away = False
    health.sync_once()
    (row,) = circuit_rows(database)
    assert (row["state"], row["reason"]) == ("open", "10 of the last 10 calls took longer than 3 s")
    assert row["evidence"]["in_flight_overdue"] == 10
    assert health.snapshot("stripe").since == opened_at


# ---------------------------------------------------------------- suspicion


def suspected(fleet: Fleet) -> ProviderHealth:
    """A process that has just marked the provider, which answers three times slower than usual."""
    fleet.remember()
    first = fleet.process("web:1")
    call(first, fleet.clock, 0.95, 20)
    first.watch_once()
    first.exchange_once()
    first.sync_once()
    return first


def test_a_slower_provider_is_marked_once_and_keeps_half_of_its_payments(fleet: Fleet) -> None:
    """An event and an error in the log (which Sentry gets); the circuit stays closed and its window as it was."""
    with capture_logs() as logs:
        first = suspected(fleet)
    (row,) = fleet.rows()
    assert (row.state, row.suspect, row.actor) == (State.CLOSED, True, "web:1")
    assert row.reason == "suspect: slower than usual (median 0.32 s)"
    assert row.evidence["latency_cusum"] >= row.evidence["latency_alarm"]
    assert row.incident is None
    errors = [(each["event"], each["provider"]) for each in logs if each["log_level"] == "error"]
    assert errors == [("provider_suspect", "stripe")]
    assert first.readiness("stripe").share == SUSPECT_SHARE
    assert first.is_admitting("stripe")
    assert first.snapshot("stripe").window.calls == 20
    for _ in range(5):
        fleet.clock.advance(0.1)
        assert first.watch_once() == 0
    assert len(fleet.rows()) == 1


def test_every_process_follows_the_mark(fleet: Fleet) -> None:
    """One that made no call at all sheds as well, and does not mark again."""
    fleet.remember()
    second = fleet.process("web:2")
    suspected(fleet)
    assert second.sync_once() == 1
    assert second.snapshot("stripe").suspect
    assert second.readiness("stripe").share == SUSPECT_SHARE
    second.exchange_once()
    assert second.watch_once() == 0
    second.sync_once()
    assert len(fleet.rows()) == 1


def test_two_that_suspect_at_once_write_one_row(fleet: Fleet) -> None:
    """The second finds the version taken, and follows."""
    fleet.remember()
    processes = [fleet.process("web:1"), fleet.process("web:2")]
    for process in processes:
        call(process, fleet.clock, 0.95, 20)
    for process in processes:
        process.watch_once()
    for process in (*processes, *processes):
        process.sync_once()
    assert [row.actor for row in fleet.rows()] == ["web:1"]
    assert all(process.snapshot("stripe").suspect for process in processes)


def test_the_mark_is_taken_away_once_after_thirty_calm_seconds(fleet: Fleet) -> None:
    """Of all processes together: good calls that one makes calm the other too."""
    fleet.remember()
    second = fleet.process("web:2")
    first = suspected(fleet)
    both = [first, second]
    fleet.run(both, 20, each=[0.3] * 10)
    assert len(fleet.rows()) == 1, "calm, but not for long enough"
    fleet.run(both, round(CALM_S), each=[0.3] * 10)
    _, unmarked = fleet.rows()
    assert (unmarked.state, unmarked.suspect) == (State.CLOSED, False)
    assert unmarked.reason == "not suspect any more: calm for 30 s"
    assert first.readiness("stripe").share == second.readiness("stripe").share == 1.0
    fleet.run(both, 60, each=[0.3] * 10)
    assert len(fleet.rows()) == 2


def test_a_relapse_within_the_thirty_seconds_begins_them_anew(fleet: Fleet) -> None:
    """A provider that is slow every twenty seconds stays suspect."""
    first = suspected(fleet)
    for _ in range(4):
        fleet.run([first], 20, each=[0.3] * 10)
        call(first, fleet.clock, 0.95, 20)
    assert len(fleet.rows()) == 1


def test_a_process_that_has_just_begun_does_not_take_the_mark_away(fleet: Fleet) -> None:
    """It knows the past, and nothing of the trouble yet: by the time it may speak, it has heard the others."""
    first = suspected(fleet)
    joined = fleet.process("web:3", settled=False)
    assert joined.snapshot("stripe").suspect
    fleet.run([first, joined], 90, each=[0.95] * 5)
    assert len(fleet.rows()) == 1


def test_a_process_that_knows_too_little_leaves_the_mark_to_those_that_can_judge(fleet: Fleet) -> None:
    """It hears of the slow calls, but not what is usual. If nobody can judge any more, it ends all the same."""
    assert fleet.store.append(
        following(
            None, State.CLOSED, provider="stripe", at=fleet.clock.now(), actor="web:0", reason="slow", suspect=True
        )
    )
    stranger = fleet.process("web:3")
    fleet.run([stranger], round(STRANGERS_CALM_S) - 5, each=[0.3])
    assert len(fleet.rows()) == 1
    fleet.run([stranger], 10)
    assert [row.suspect for row in fleet.rows()] == [True, False]


def test_an_open_circuit_is_neither_marked_nor_suspect_when_it_closes(fleet: Fleet) -> None:
    """What was seen before it closed says nothing of after."""
    first = suspected(fleet)
    for state in (State.OPEN, State.HALF_OPEN, State.SLOW_START):
        move(first, "stripe", state, fleet.clock)
        assert not first.snapshot("stripe").suspect
        fleet.run([first], 2)
    move(first, "stripe", State.CLOSED, fleet.clock)
    fleet.run([first], 5)
    assert [row.suspect for row in fleet.rows()] == [True, False, False, False, False]
    assert first.readiness("stripe").share == 1.0


def test_a_process_that_knows_nothing_of_a_provider_does_not_suspect_it(fleet: Fleet) -> None:
    """Its first calls are slow and some fail: so they may always be."""
    first = fleet.process("web:1")
    for _ in range(5):
        call(first, fleet.clock, 2.0, 10)
        teach(first, Health.PROVIDER_ERROR, 2)
        first.watch_once()
    assert fleet.rows() == []


# ---------------------------------------------------------------- the past


def test_a_process_that_begins_has_thresholds_from_the_past(fleet: Fleet) -> None:
    """20,000 calls of an hour ago: a few failures of twenty are no chance, and slow is on its way to the p99."""
    fleet.remember()
    health = cast(
        "ProviderHealth", a_health(("stripe",), store=fleet.store, counts=fleet.counts, clock=fleet.clock, actor="w")
    )
    assert health.restore() == USUAL_CALLS
    health.watch_once()
    assert health.snapshot("stripe").window.slow_call_s == pytest.approx(2.4)
    reasons = health.tuning("stripe")
    assert "p99 of 19,900 calls is 0.4" in reasons["slow_call_s"]
    assert "clamped to 1.0 s" in reasons["slow_call_s"]
    assert reasons["failure_rate"].startswith("0.5% of 20,000 calls fail when all is well; 5 of 20")
    teach(health, Health.OK, 15)
    teach(health, Health.PROVIDER_ERROR, 5)
    assert not health.is_admitting("stripe")
    assert health.snapshot("stripe").window.failure_rate_threshold == 0.25


def test_only_the_last_day_is_past_enough(fleet: Fleet) -> None:
    """A provider of the week before may be another one."""
    fleet.remember(hours_ago=24, calls=1000)
    fleet.remember(hours_ago=23, calls=500)
    health = cast(
        "ProviderHealth", a_health(("stripe",), store=fleet.store, counts=fleet.counts, clock=fleet.clock, actor="w")
    )
    assert health.restore() == 500


def test_without_a_past_the_settings_hold_and_say_so(fleet: Fleet) -> None:
    """Nothing is made up."""
    health = fleet.process("web:1")
    circuit = health.snapshot("stripe")
    assert (circuit.window.slow_call_s, circuit.window.failure_rate_threshold) == (3.0, 0.5)
    assert all("too few to learn from" in reason for reason in health.tuning("stripe").values())


def test_the_past_opens_nothing(fleet: Fleet) -> None:
    """An outage earlier in this hour is over: a process that begins does not count its failures as of now."""
    first = fleet.process("web:1")
    teach(first, Health.UNREACHABLE, 10)
    first.watch_once()
    first.exchange_once()
    fleet.clock.advance(600)
    joined = fleet.process("web:2")
    assert joined.exchange_once() == 0
    assert joined.is_admitting("stripe")


# ---------------------------------------------------------------- stages of slow start


def test_a_stage_counts_the_calls_of_all_processes_since_it_began(fleet: Fleet) -> None:
    """And the next stage begins at nothing."""
    worker, web = fleet.process("worker:1"), fleet.process("web:1")
    teach(web, Health.OK, 7)
    for state in (State.OPEN, State.HALF_OPEN):
        move(worker, "stripe", state, fleet.clock)
    web.watch_once()
    web.exchange_once()
    worker.exchange_once()
    at = fleet.clock.now()
    last = worker.snapshot("stripe").last
    first_stage = following(
        last, State.SLOW_START, provider="stripe", at=at, actor="worker:1", reason="probes", share=0.1
    )
    assert worker.propose(first_stage)
    web.sync_once()
    assert worker.stage_calls("stripe") == (0, 0)
    teach(web, Health.OK, 3)
    teach(web, Health.PROVIDER_ERROR, 1)
    teach(worker, Health.OK, 1)
    for process in (web, worker):
        process.watch_once()
        process.exchange_once()
    assert worker.stage_calls("stripe") == (5, 1)
    assert worker.stage_calls("stripe") == (5, 1)
    second_stage = following(
        first_stage, State.SLOW_START, provider="stripe", at=at, actor="worker:1", reason="well", share=0.25
    )
    assert worker.propose(second_stage)
    assert worker.stage_calls("stripe") == (0, 0)


def test_an_hour_of_the_past_is_forgotten_a_day_after_it_was(fleet: Fleet) -> None:
    """Not a day after the process began."""
    fleet.remember(hours_ago=22)
    health = fleet.process("web:1")
    fleet.clock.advance(3 * 3600)
    fleet.run([health], 3, each=[0.3])
    fleet.clock.advance(60)
    assert health.tuning("stripe")["failure_rate"].startswith("3 calls are too few")


def test_everything_that_was_decided_while_the_ledger_was_away_is_written(
    database: Database, clock: SteppedClock
) -> None:
    """Two providers at once, each with its row."""
    flaky = FlakyStore(database)
    health = cast("ProviderHealth", a_health(("stripe", "adyen"), store=flaky, clock=clock))
    flaky.away = True
    for provider in ("stripe", "adyen"):
        teach(health, Health.UNREACHABLE, provider=provider)
        with pytest.raises(LedgerUnavailableError):
            health.sync_once()
    flaky.away = False
    health.sync_once()
    assert [len(circuit_rows(database, provider)) for provider in ("stripe", "adyen")] == [1, 1]
