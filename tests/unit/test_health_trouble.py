"""Trouble: it is not learned, whoever begins after it; it is marked once and unmarked once; what hangs is seen."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Sequence

import pytest

from providers.contract import Health
from router.app.core import breaker_settings
from router.breaker import BreakerSettings
from router.health import CALM_S, ENOUGH_TO_CLEAR, SETTLED_S, STRANGERS_CALM_S, Call, ProviderHealth
from router.histogram import bucket_of
from router.ledger.counts import CountRow, hour_of
from router.overrides import Overrides
from router.settings import Settings
from router.slow_start import Step, step
from router.transitions import State, Transition, following
from tests.fakes.clocks import SteppedClock
from tests.fakes.counts import MemoryCounts
from tests.fakes.house import BREAKERS, a_health, move, teach
from tests.fakes.ledger import MemoryStore

READ_TIMEOUT_S = 10.0
SLOWER_S = 0.95
"""Three times the usual."""


class Fleet:
    """Processes over one ledger, and one clock for all."""

    def __init__(self) -> None:
        self.clock, self.store, self.counts = SteppedClock(), MemoryStore(), MemoryCounts()
        self.random = random.Random(1)

    def process(
        self, actor: str, *, settings: BreakerSettings = BREAKERS, at_once: int = 1000, settled: bool = True
    ) -> ProviderHealth:
        """One more, as the composition root starts it."""
        health = a_health(
            ("stripe",),
            store=self.store,
            counts=self.counts,
            clock=self.clock,
            actor=actor,
            settings=settings,
            at_once=at_once,
        )
        assert isinstance(health, ProviderHealth)
        health.sync_once()
        health.restore()
        health.watch_once()
        if settled:
            self.clock.advance(SETTLED_S + 0.1)
        return health

    def remember(self, calls: int = 2000) -> None:
        """A process of three hours ago told of calls that took 0.2 to 0.45 s, one in 200 of which failed."""
        well = calls - calls // 200
        histogram = {bucket_of(0.2): well // 5, bucket_of(0.45): well // 3}
        histogram[bucket_of(0.3)] = well - sum(histogram.values())
        at = self.clock.now() - dt.timedelta(hours=3)
        row = CountRow("w", "stripe", hour_of(at), calls, calls // 200, 0, 0, updated_at=at, histogram=histogram)
        self.counts.rows[row.key] = row

    def share(self, *processes: ProviderHealth) -> None:
        """Their loops work once."""
        for each in processes:
            each.watch_once()
            each.exchange_once()
            each.sync_once()

    def run(self, processes: Sequence[ProviderHealth], seconds: int, latency_s: float, *, rate: int = 5) -> None:
        """Each makes so many calls a second, which succeed after about so many seconds."""
        for _ in range(seconds):
            for each in processes:
                for call in begun(each, rate):
                    took_s = latency_s * self.random.uniform(0.8, 1.2)
                    assert call._permit is not None
                    call._permit.at = self.clock.monotonic() - took_s
                    end(call, Health.OK)
            self.clock.advance(1)
            self.share(*processes)

    def rows(self) -> list[Transition]:
        """What was written of the circuit."""
        return [row for _, row in sorted(self.store.rows.items())]

    def slow_start(self, worker: ProviderHealth, *others: ProviderHealth) -> None:
        """An open circuit's probes went well."""
        self.clock.advance(9.5)
        move(worker, "stripe", State.HALF_OPEN, self.clock)
        last, at = worker.snapshot("stripe").last, self.clock.now()
        stage = following(last, State.SLOW_START, provider="stripe", at=at, actor="w", reason="probes", share=0.1)
        assert worker.propose(stage)
        for other in others:
            other.sync_once()


def begun(health: ProviderHealth, calls: int) -> list[Call]:
    """So many calls that are under way."""
    found = []
    for _ in range(calls):
        call = health.admit("stripe")
        assert call is not None
        assert call.begin()
        found.append(call)
    return found


def end(call: Call, signal: Health) -> None:
    call.end(signal)
    call.__exit__(None, None, None)


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


# ---------------------------------------------------------------- what is learned


def test_a_process_that_begins_after_trouble_knows_what_was_normal_before_it(fleet: Fleet) -> None:
    """Half an hour three times slower, and failing: more calls than the ledger has good ones."""
    fleet.remember()
    old = fleet.process("old")
    usual = old.tuning("stripe")
    for _ in range(60):
        fleet.run([old], 10, SLOWER_S)
        if not old.is_admitting("stripe"):
            move(old, "stripe", State.CLOSED, fleet.clock)
        teach(old, Health.PROVIDER_ERROR, 2)
        fleet.share(old)
    assert sum(row.calls for row in fleet.counts.rows.values()) > 5000
    new = fleet.process("new")
    fleet.clock.advance(61)
    new.watch_once()
    learned = new.tuning("stripe")
    assert "p99 of 1,9" in learned["slow_call_s"] or "p99 of 2,0" in learned["slow_call_s"]
    assert "0.5% of 2,0" in learned["failure_rate"]
    assert "0.5% of 2,0" in usual["failure_rate"]


def test_calls_in_bypass_count_nowhere(fleet: Fleet) -> None:
    """Neither here nor for other processes, nor for those that begin later."""
    health = fleet.process("web:1")
    move(health, "stripe", State.BYPASS, fleet.clock)
    fleet.run([health], 100, SLOWER_S)
    teach(health, Health.PROVIDER_ERROR, 50)
    fleet.share(health)
    assert not fleet.counts.rows
    assert health.stage_calls("stripe") == (0, 0)


@pytest.mark.parametrize(("signal", "normal"), [(Health.OK, True), (Health.PROVIDER_ERROR, False)])
def test_calls_in_metrics_only_are_told_and_are_normal_unless_they_would_have_opened(
    fleet: Fleet, signal: Health, normal: bool
) -> None:
    """An override that lasts for days must neither make trouble normal nor forget what is."""
    fleet.remember()
    health = fleet.process("web:1")
    move(health, "stripe", State.METRICS_ONLY, fleet.clock)
    teach(health, signal, 30)
    fleet.share(health)
    (row,) = [row for row in fleet.counts.rows.values() if row.process == "web:1"]
    assert (row.calls, row.normal) == (30, normal)


@pytest.mark.parametrize(
    ("state", "normal"), [(State.CLOSED, True), (State.SLOW_START, False), (State.METRICS_ONLY, True)]
)
def test_calls_are_learned_only_while_the_circuit_is_closed_or_watched(
    fleet: Fleet, state: State, normal: bool
) -> None:
    """A provider that recovers answers as it does then, and few: that must not become what is usual."""
    fleet.remember()
    health = fleet.process("web:1")
    if state is State.SLOW_START:
        move(health, "stripe", State.OPEN, fleet.clock)
        fleet.slow_start(health)
    elif state is not State.CLOSED:
        move(health, "stripe", state, fleet.clock)
    known = health._guarded["stripe"].warning._known
    teach(health, Health.OK, 3)
    fleet.share(health)
    (row,) = [row for row in fleet.counts.rows.values() if row.process == "web:1"]
    assert (row.calls, row.normal) == (3, normal)
    assert health._guarded["stripe"].warning._known == known + 3 * normal


def test_calls_of_before_a_reset_are_not_learned_after_it(fleet: Fleet) -> None:
    """They ended in the state that was forgotten; told they are, as none of the usual ones."""
    fleet.remember()
    health = fleet.process("web:1")
    known = health._guarded["stripe"].warning._known
    teach(health, Health.OK, 3)
    health.follow(
        Overrides(("stripe",), fleet.store, clock=fleet.clock).order("stripe", "reset", reason="r", by="me")
    )
    fleet.share(health)
    (row,) = [row for row in fleet.counts.rows.values() if row.process == "web:1"]
    assert (row.version, row.calls, row.normal) == (0, 3, False)
    assert health._guarded["stripe"].warning._known == known


def test_a_circuit_that_opened_begins_with_no_suspicion_when_it_recovers(fleet: Fleet) -> None:
    """The detectors saw what opened it; what they make of slow start begins anew."""
    fleet.remember()
    health = fleet.process("web:1")
    fleet.run([health], 60, SLOWER_S)
    warning = health._guarded["stripe"].warning
    assert warning.suspect
    move(health, "stripe", State.OPEN, fleet.clock)
    health._guarded["stripe"].mark = None  # as where it opened before the mark
    fleet.share(health)
    assert (warning.suspect, warning.reason) == (False, "")


def test_what_others_tell_just_after_the_start_does_not_count_and_later_does(fleet: Fleet) -> None:
    """One that could not read the past would take an outage that is over for one of now: it only listens first."""
    other = fleet.process("web:2")
    teach(other, Health.PROVIDER_ERROR, 4)
    other.watch_once()
    other.exchange_once()
    joined = a_health(("stripe",), store=fleet.store, counts=fleet.counts, clock=fleet.clock, actor="web:1")
    fleet.clock.advance(SETTLED_S)
    assert joined.exchange_once() == 4
    assert joined.snapshot("stripe").window.calls == 0
    fleet.clock.advance(0.1)
    teach(other, Health.OK, 5)
    other.watch_once()
    other.exchange_once()
    assert joined.exchange_once() == 5
    assert joined.snapshot("stripe").window.calls == 5
    assert 1 <= SETTLED_S <= 5


# ---------------------------------------------------------------- marks


def test_a_brownout_has_one_mark_and_one_end_whoever_begins_in_its_midst(fleet: Fleet) -> None:
    """Two processes begin during it: one hears the other's slow calls, and learns none of them for normal."""
    fleet.remember()
    old = fleet.process("old")
    fleet.run([old], 600, SLOWER_S)
    assert [row.suspect for row in fleet.rows()] == [True]
    second = fleet.process("second", settled=False)
    fleet.run([old, second], 300, SLOWER_S)
    third = fleet.process("third", settled=False)
    fleet.run([old, second, third], 300, SLOWER_S)
    assert [row.suspect for row in fleet.rows()] == [True]
    fleet.run([old, second, third], 180, 0.3)
    assert [row.suspect for row in fleet.rows()] == [True, False]


def test_who_has_not_seen_the_trouble_takes_a_mark_away_after_enough_calls(fleet: Fleet) -> None:
    """The process that set it is gone; one that begins is calm for thirty seconds because it has heard nothing."""
    fleet.remember()
    assert fleet.store.append(
        following(
            None, State.CLOSED, provider="stripe", at=fleet.clock.now(), actor="gone", reason="slow", suspect=True
        )
    )
    joined = fleet.process("joined", settled=False)
    fleet.run([joined], ENOUGH_TO_CLEAR // 5 - 5, 0.3)
    assert len(fleet.rows()) == 1
    assert CALM_S < ENOUGH_TO_CLEAR // 5 - 5 < STRANGERS_CALM_S
    fleet.run([joined], 10, 0.3)
    assert [row.suspect for row in fleet.rows()] == [True, False]


def test_a_mark_taken_away_by_another_is_set_again_only_upon_new_evidence(fleet: Fleet) -> None:
    """Or two processes whose past differs would set it and take it away for ever."""
    fleet.remember()
    first, second = fleet.process("first"), fleet.process("second")
    fleet.run([first], 60, SLOWER_S)
    second.sync_once()
    last = second.snapshot("stripe").last
    assert last is not None
    assert last.suspect
    assert second.propose(
        following(last, State.CLOSED, provider="stripe", at=fleet.clock.now(), actor="second", reason="calm")
    )
    first.sync_once()
    for _ in range(50):
        fleet.clock.advance(1)
        fleet.share(first)
    assert [row.suspect for row in fleet.rows()] == [True, False]
    fleet.run([first], 20, SLOWER_S)
    assert [row.suspect for row in fleet.rows()] == [True, False, True]


def test_an_hour_of_suspicion_is_an_hour_of_the_mark_and_not_of_the_process(fleet: Fleet) -> None:
    """One that began in its midst learns anew when the others do, or it would set the mark again after them."""
    fleet.remember()
    old = fleet.process("old")
    fleet.run([old], 120, SLOWER_S)
    fleet.clock.advance(3500)
    joined = fleet.process("joined")
    before = joined.tuning("stripe")
    fleet.run([joined], 60, SLOWER_S)
    joined.watch_once()
    assert joined.tuning("stripe") != before


# ---------------------------------------------------------------- late answers


@pytest.mark.parametrize("signal", [Health.PROVIDER_ERROR, Health.OK])
def test_answers_to_calls_from_before_the_opening_neither_end_nor_advance_a_slow_start(
    fleet: Fleet, signal: Health
) -> None:
    """Their read timeouts come when the provider has recovered, and reach the worker and every process."""
    first, worker = fleet.process("first"), fleet.process("worker")
    late = begun(first, 6)
    teach(first, Health.PROVIDER_ERROR, 10)
    fleet.share(first, worker)
    fleet.slow_start(worker, first)
    assert worker.stage_calls("stripe") == (0, 0)
    for _ in range(5):
        fleet.clock.advance(1)
        fleet.share(first, worker)
    for call in late:
        end(call, signal)
    fleet.share(first, worker)
    assert worker.snapshot("stripe").state is first.snapshot("stripe").state is State.SLOW_START
    assert worker.snapshot("stripe").window.calls == 0
    calls, failures = worker.stage_calls("stripe")
    assert (calls, failures) == (0, 0)
    assert step(worker.settings, age_s=5, calls=calls, failures=failures) is Step.WAIT


def test_what_is_told_late_of_the_time_before_belongs_to_that_time(fleet: Fleet) -> None:
    """A process could not reach the counts for a while: its failures of before the opening come in the slow start."""
    first, worker = fleet.process("first"), fleet.process("worker")
    teach(first, Health.PROVIDER_ERROR, 9)
    first.watch_once()
    move(worker, "stripe", State.OPEN, fleet.clock)
    fleet.slow_start(worker, first)
    fleet.clock.advance(SETTLED_S + 3)
    worker.watch_once()
    first.exchange_once()
    assert worker.exchange_once() == 9
    assert worker.snapshot("stripe").state is State.SLOW_START
    assert worker.snapshot("stripe").window.calls == 0
    assert worker.stage_calls("stripe") == (0, 0)
    teach(first, Health.PROVIDER_ERROR, 1)
    fleet.share(first, worker)
    assert worker.snapshot("stripe").window.failures == 1, "those of the present state count at once"
    assert worker.stage_calls("stripe") == (1, 1)


# ---------------------------------------------------------------- hangs


@pytest.mark.parametrize("web_threads", [4, 8, 16, 64])
def test_a_hang_opens_the_circuit_within_four_seconds_however_few_places_there_are(
    fleet: Fleet, web_threads: int
) -> None:
    """Fifty payments a second, each of which hangs until the read timeout; the settings are those of `router.app`."""
    settings = Settings(web_threads=web_threads)
    health = fleet.process("web:1", settings=breaker_settings(settings), at_once=settings.calls_at_once)
    for _ in range(20):
        teach(health, Health.OK, min(5, settings.calls_at_once))
    began, hanging = fleet.clock.monotonic(), list[tuple[float, Call]]()
    while health.is_admitting("stripe"):
        now = fleet.clock.monotonic()
        assert now - began < 4.0
        for at, call in [each for each in hanging if now - each[0] >= READ_TIMEOUT_S]:
            end(call, Health.PROVIDER_ERROR)
            hanging.remove((at, call))
        for _ in range(5):
            admitted = health.admit("stripe")
            if admitted is not None:
                assert admitted.begin()
                hanging.append((now, admitted))
        fleet.clock.advance(0.1)
        fleet.share(health)
    reason = fleet.rows()[-1].reason
    assert "hang at once" in reason or "longer than 3 s" in reason


def test_calls_that_hang_in_several_processes_count_together_while_they_hang(fleet: Fleet) -> None:
    """Nine in each are nobody's minimum, eighteen are."""
    both = [fleet.process("web:1"), fleet.process("web:2")]
    for each in both:
        begun(each, 9)
    fleet.clock.advance(BREAKERS.slow_call_s)
    fleet.share(*both)
    assert all(each.is_admitting("stripe") for each in both)
    fleet.clock.advance(0.1)
    fleet.share(*both, *both)
    assert not any(each.is_admitting("stripe") for each in both)
    (opened,) = fleet.rows()
    assert opened.evidence["in_flight_overdue"] == 9
    assert opened.evidence["slow"] == 18


@pytest.mark.parametrize("signal", [Health.OK, Health.PROVIDER_ERROR])
def test_calls_that_hung_count_as_slow_once_and_as_failed_when_they_end(fleet: Fleet, signal: Health) -> None:
    """Told twice, they are one slow call each, and no healthy one beside it."""
    first, second = fleet.process("web:1"), fleet.process("web:2")
    hanging = begun(first, 3)
    fleet.clock.advance(BREAKERS.slow_call_s + 0.1)
    fleet.share(first, second)
    circuit = second.snapshot("stripe")
    assert (circuit.slow.calls, circuit.slow.slow, circuit.window.calls) == (3, 3, 0)
    for call in hanging:
        end(call, signal)
    fleet.share(first, second)
    for circuit in (first.snapshot("stripe"), second.snapshot("stripe")):
        assert (circuit.slow.calls, circuit.slow.slow) == (3, 3)
        assert (circuit.window.calls, circuit.window.failures) == (3, 3 if signal is Health.PROVIDER_ERROR else 0)
    assert first.stage_calls("stripe") == second.stage_calls("stripe")


# ---------------------------------------------------------------- refused credentials


def test_refusals_of_our_credentials_count_together(fleet: Fleet) -> None:
    """Two processes that are refused thrice each, and nothing else between."""
    first, second = fleet.process("web:1"), fleet.process("web:2")
    for each in (first, second):
        teach(each, Health.CREDENTIALS_REFUSED, 3)
    fleet.share(first, second)
    assert not second.is_admitting("stripe")
    (opened,) = fleet.rows()
    assert (opened.reason, opened.evidence["credentials_refused"]) == ("credentials refused", 6)
    assert second.stage_calls("stripe") == (0, 0), "they are no calls"


def test_a_call_that_was_answered_anywhere_ends_the_run_of_refusals(fleet: Fleet) -> None:
    """Whoever's it is: then the credentials are good, or one process alone has the wrong ones."""
    first, second = fleet.process("web:1"), fleet.process("web:2")
    teach(second, Health.CREDENTIALS_REFUSED, 3)
    teach(first, Health.OK, 1)
    fleet.share(first, second, first)
    teach(first, Health.OK, 1)
    fleet.share(first, second)
    for _ in range(3):
        teach(first, Health.CREDENTIALS_REFUSED, 4)
        fleet.share(first, second)
        teach(first, Health.OK, 1)
        fleet.share(first, second)
        assert second.is_admitting("stripe")
    teach(second, Health.CREDENTIALS_REFUSED, 2)
    assert not second.is_admitting("stripe"), "its own run is as it was: its key alone may be wrong"


def test_settings_name_half_of_the_places_and_at_least_three() -> None:
    """Of calls that hang at one moment."""

    def hanging_at_once(places: int) -> int | None:
        return breaker_settings(Settings(provider_calls_at_once=places)).hanging_at_once

    assert [hanging_at_once(places) for places in (1, 6, 7, 12, 24)] == [3, 3, 4, 6, 12]
    assert BREAKERS.hanging_at_once is None
