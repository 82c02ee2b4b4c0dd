"""Finding out, with synthetic probes, whether a provider works again, and giving its traffic back in stages."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest

from providers.contract import Health, ProbeResult
from router.ledger.engine import Database
from router.ledger.tables import to_micros
from router.ledger.unavailable import LedgerUnavailableError
from router.transitions import State, Transition
from router.windows import Thresholds
from tests.fakes.clocks import SteppedClock
from tests.fakes.ledger import circuit_rows
from tests.fakes.providers import FakeProvider
from tests.fakes.workers import SETTINGS, Later, Worker

DOWN = ProbeResult(Health.UNREACHABLE, "connection_refused")
OURS = ProbeResult(Health.IGNORED, "pool_exhausted")


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


def in_slow_start(worker: Worker, calls: tuple[int, int] = (0, 0)) -> None:
    """Bring it to the first stage, with that many calls and failures in every stage."""
    worker.circuits.calls["stripe"] = calls
    worker.clock.advance(10)
    worker.run_once()
    assert worker.states() == ["open", "half_open", "slow_start"]


# ---------------------------------------------------------------- open


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


def test_the_wait_grows_with_failed_rounds_up_to_its_cap_and_starts_again_after_closing(worker: Worker) -> None:
    """10 s, then 15 s for as long as it takes; the next outage begins with 10 s."""
    worker.stripe.probes.extend([DOWN] * 4)
    assert worker.waits_until_probed(5) == [10, 15, 15, 15, 15]
    opened = [row for row in circuit_rows(worker.database) if row["state"] == "open"]
    assert [row["failed_rounds"] for row in opened] == [0, 1, 2, 3, 4]
    worker.run_for(40)
    assert worker.states()[-1] == "closed"
    assert circuit_rows(worker.database)[-1]["failed_rounds"] == 0
    worker.circuits.move("stripe", State.OPEN)
    worker.stripe.probes.append(DOWN)
    assert worker.waits_until_probed(1) == [10]


def test_the_wait_has_jitter_that_all_processes_agree_on(
    database: Database, clock: SteppedClock, stripe: FakeProvider
) -> None:
    """Inside 1 ± 10%, not the same from round to round, and the same in another process."""
    settings = dataclasses.replace(SETTINGS, wait_jitter=0.1)
    stripe.probes.extend([DOWN] * 100)
    first = Worker(database, clock, stripe, settings=settings)
    first.circuits.move("stripe", State.OPEN)
    waits = first.waits_until_probed(6, step_s=0.05)
    assert 9 <= waits[0] <= 11.05
    assert all(13.5 <= each <= 16.55 for each in waits[1:])
    assert len({round(each, 1) for each in waits}) > 3
    second = Worker(database, clock, stripe, "worker:2", settings=settings)
    due = settings.wait_s(6, 0)
    clock.advance(due)
    probed = stripe.probed
    for _ in range(80):
        clock.advance(0.05)
        ran = [first.run_once(), second.run_once()]
        if any(ran):
            break
    assert stripe.probed == probed + 1


# ---------------------------------------------------------------- half-open


def test_good_probes_begin_a_slow_start(worker: Worker) -> None:
    """Open, half-open, slow start: each a row with who, why and the figures, and payments are let through again."""
    worker.clock.advance(10)
    worker.run_once()
    rows = circuit_rows(worker.database)
    assert [(row["state"], row["actor"], row["share"], row["failed_rounds"]) for row in rows[1:]] == [
        ("half_open", "worker:1", 1.0, 0),
        ("slow_start", "worker:1", 0.10, 0),
    ]
    assert rows[1]["reason"] == "the wait is over: probing"
    assert rows[2]["reason"] == "5 probes succeeded: 10% of its payments"
    assert rows[2]["evidence"]["succeeded"] == 5
    assert {row["incident"] for row in rows} == {"inc_stripe_1"}
    assert worker.circuits.admits("stripe")


def test_without_stages_good_probes_close(database: Database, clock: SteppedClock, stripe: FakeProvider) -> None:
    """Slow start can be turned off."""
    worker = Worker(database, clock, stripe, settings=dataclasses.replace(SETTINGS, stages=()))
    worker.circuits.move("stripe", State.OPEN)
    clock.advance(10)
    worker.run_once()
    assert worker.states() == ["open", "half_open", "closed"]


def test_payments_are_kept_out_while_probes_are_under_way(worker: Worker) -> None:
    """In half-open only probes call."""
    admitted: list[bool] = []
    worker.stripe.during_probe = lambda: admitted.append(worker.circuits.admits("stripe"))
    worker.clock.advance(10)
    worker.run_once()
    assert admitted == [False] * 5


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
    assert last["evidence"]["failed"] == 1


@pytest.mark.parametrize("health", [each for each in Health if each not in (Health.OK, Health.IGNORED)])
def test_only_a_probe_that_went_well_counts_as_good(worker: Worker, health: Health) -> None:
    """A provider that refuses our key cannot take a payment either."""
    worker.stripe.probes.append(ProbeResult(health))
    worker.clock.advance(10)
    worker.run_once()
    assert worker.states()[-1] == "open"


def test_a_probe_that_says_nothing_of_the_provider_gives_its_place_back(worker: Worker) -> None:
    """Our own fault; a second later its place is used again, and five must still succeed."""
    worker.stripe.probes.extend([OURS, OURS])
    worker.clock.advance(10)
    worker.run_once()
    assert worker.stripe.probed == 1
    worker.run_for(0.75)
    assert worker.stripe.probed == 1
    worker.run_for(0.25)
    assert worker.stripe.probed == 2
    worker.run_for(1)
    assert worker.stripe.probed == 7
    assert worker.states()[-1] == "slow_start"


def test_an_adapter_that_raises_counts_as_our_own_fault(worker: Worker) -> None:
    """Neither healthy nor failed; the next probes go on."""

    def stumble() -> None:
        worker.stripe.during_probe = None
        raise RuntimeError("a fault of ours")

    worker.stripe.during_probe = stumble
    worker.clock.advance(10)
    worker.run_once()
    worker.run_for(1)
    assert worker.states()[-1] == "slow_start"
    assert worker.probes.history("stripe", limit=10)[-1].reason == "raised RuntimeError"


def test_slow_probes_open_it_again_though_they_succeed(worker: Worker) -> None:
    """Two of five took three seconds."""
    worker.stripe.during_probe = lambda: worker.clock.advance(3)
    worker.clock.advance(10)
    worker.run_once()
    assert worker.states()[-1] == "open"
    assert circuit_rows(worker.database)[-1]["reason"] == "2 of 5 probes were slow"


def test_no_more_than_two_probes_are_under_way_at_once(
    database: Database, clock: SteppedClock, stripe: FakeProvider
) -> None:
    """And the loop waits for none of them."""
    later = Later()
    worker = Worker(database, clock, stripe, start=later)
    worker.circuits.move("stripe", State.OPEN)
    clock.advance(10)
    assert [worker.run_once() for _ in range(3)] == [1, 0, 0]
    assert len(later.tasks) == 2
    later.end()
    worker.run_once()
    assert len(later.tasks) == 2
    while later.tasks:
        later.end()
        worker.run_once()
    assert stripe.probed == 5
    assert worker.states()[-1] == "slow_start"


def test_probes_that_hang_hold_nothing_up_and_open_it_again(
    database: Database, clock: SteppedClock, stripe: FakeProvider
) -> None:
    """They count as slow while they hang; when they come back at last, a later round does not mind them."""
    later = Later()
    worker = Worker(database, clock, stripe, start=later)
    worker.circuits.move("stripe", State.OPEN)
    clock.advance(10)
    worker.run_once()
    worker.run_for(3)
    assert worker.states() == ["open", "half_open", "open"]
    worker.run_for(15)
    assert worker.states()[-1] == "half_open"
    assert len(later.tasks) == 4
    stripe.probes.extend([DOWN, DOWN])
    later.end(2)
    worker.run_once()
    assert worker.states()[-1] == "half_open"
    while later.tasks:
        later.end()
        worker.run_once()
    assert worker.states()[-1] == "slow_start"


def test_an_exit_in_a_probe_propagates_and_counts_nothing(worker: Worker) -> None:
    """Its place is given back: the process may be asked to go on."""

    def leave() -> None:
        worker.stripe.during_probe = None
        raise SystemExit

    worker.stripe.during_probe = leave
    worker.clock.advance(10)
    with pytest.raises(SystemExit):
        worker.run_once()
    worker.run_for(1.25)
    assert worker.states() == ["open", "half_open", "slow_start"]


def test_every_probe_is_on_record_before_it_is_sent(worker: Worker) -> None:
    """With how it ended; synthetic, and never a payment."""
    seen: list[int] = []
    worker.stripe.during_probe = lambda: seen.append(len(worker.probes.history("stripe", limit=99)))
    worker.stripe.probes.extend([ProbeResult(Health.OK), DOWN])
    worker.clock.advance(10)
    worker.run_once()
    assert seen == [1, 2]
    rows = [
        (each.version, each.nth, each.actor, each.healthy, each.reason)
        for each in worker.probes.history("stripe", limit=9)
    ]
    assert rows == [(2, 2, "worker:1", False, "connection_refused"), (2, 1, "worker:1", True, None)]


# ---------------------------------------------------------------- slow start


def test_a_stage_lasts_its_time_and_wants_healthy_calls(worker: Worker) -> None:
    """Ten seconds each, then closed; enough real calls spare the probes."""
    in_slow_start(worker, calls=(10, 1))
    began = worker.clock.monotonic()
    worker.run_for(9.75)
    assert worker.circuits.snapshot("stripe").share == 0.10
    worker.run_for(20.25)
    rows = circuit_rows(worker.database)[2:]
    assert [(row["state"], row["share"]) for row in rows] == [
        ("slow_start", 0.10),
        ("slow_start", 0.25),
        ("slow_start", 0.50),
        ("closed", 1.0),
    ]
    assert worker.clock.monotonic() - began == 30
    assert worker.stripe.probed == 5
    assert rows[1]["reason"] == "at 10%, 9 of 10 calls went well: 25% of its payments"
    assert rows[3]["reason"] == "at 50%, 9 of 10 calls went well: closed"
    assert rows[1]["evidence"] == {"calls": 10, "failures": 1, "share": 0.10}


def test_where_traffic_is_thin_one_probe_a_stage_advances_it(worker: Worker) -> None:
    """After a flip the old primary gets little; it must come back all the same."""
    in_slow_start(worker, calls=(4, 0))
    worker.run_for(30)
    assert worker.states()[2:] == ["slow_start"] * 3 + ["closed"]
    assert worker.stripe.probed == 5 + 3
    assert circuit_rows(worker.database)[-1]["reason"] == "at 50%, a probe succeeded: closed"


def test_a_failed_probe_of_a_stage_opens_the_circuit(worker: Worker) -> None:
    """And it counts as a failed round: the next wait is longer."""
    in_slow_start(worker)
    worker.stripe.probes.append(DOWN)
    worker.run_for(10)
    last = circuit_rows(worker.database)[-1]
    assert (last["state"], last["failed_rounds"]) == ("open", 1)
    assert last["reason"] == "in slow start, probe 1 failed: connection_refused"
    assert (last["evidence"]["calls"], last["evidence"]["probes"], last["evidence"]["failed"]) == (0, 1, 1)
    assert worker.waits_until_probed(1) == [15]


def test_failed_rounds_are_not_forgotten_before_it_has_closed(worker: Worker) -> None:
    """Two failed, then it fell back from slow start: three."""
    worker.stripe.probes.extend([DOWN, DOWN])
    worker.waits_until_probed(3)
    worker.stripe.probes.append(DOWN)
    worker.run_for(10)
    assert [(row["state"], row["failed_rounds"]) for row in circuit_rows(worker.database)[-2:]] == [
        ("slow_start", 2),
        ("open", 3),
    ]


def test_a_probe_of_a_stage_that_never_returns_opens_the_circuit(
    database: Database, clock: SteppedClock, stripe: FakeProvider
) -> None:
    """It has a lease as any probe; hanging past the slow threshold is enough."""
    later = Later()
    worker = Worker(database, clock, stripe, start=later)
    for state in (State.OPEN, State.HALF_OPEN):
        worker.circuits.move("stripe", state)
    worker.circuits.move("stripe", State.SLOW_START, share=0.5)
    worker.run_for(10)
    assert len(later.tasks) == 1
    worker.run_for(2.75)
    assert worker.states()[-1] == "slow_start"
    worker.run_for(0.25)
    assert worker.states()[-1] == "open"


def test_a_probe_of_a_stage_that_says_nothing_is_sent_again(worker: Worker) -> None:
    """However long that goes on, it neither advances the stage nor ends it."""
    in_slow_start(worker)
    worker.stripe.probes.extend([OURS] * 60)
    worker.run_for(60)
    assert worker.states()[-1] == "slow_start"
    assert 45 <= worker.stripe.probed - 5 <= 52
    worker.run_for(12)
    assert worker.circuits.snapshot("stripe").share > 0.10


def test_a_stage_that_half_of_all_calls_fail_in_opens_the_circuit(worker: Worker) -> None:
    """Of the fleet's, at once: no process need have seen two failures in a row."""
    in_slow_start(worker)
    worker.circuits.calls["stripe"] = (6, 3)
    worker.run_once()
    last = circuit_rows(worker.database)[-1]
    assert (last["state"], last["reason"]) == ("open", "3 of 6 calls of slow start failed")


def test_probes_are_slow_by_the_providers_own_threshold(worker: Worker) -> None:
    """3.4 s are slow by the settings, and usual for this one: it would never close again."""
    worker.circuits.retune("stripe", Thresholds(5.0, ()))
    worker.stripe.during_probe = lambda: worker.clock.advance(3.4)
    worker.clock.advance(10)
    worker.run_once()
    assert worker.states() == ["open", "half_open", "slow_start"]


def test_probes_that_are_slow_for_a_fast_provider_open_the_circuit(worker: Worker) -> None:
    """1.2 s are well by the settings."""
    worker.circuits.retune("stripe", Thresholds(1.0, ()))
    worker.stripe.during_probe = lambda: worker.clock.advance(1.2)
    worker.clock.advance(10)
    worker.run_once()
    assert worker.states() == ["open", "half_open", "open"]


def test_a_stage_falls_back_at_the_limit_that_fits_the_provider(worker: Worker) -> None:
    """A quarter of its calls, where the settings say half."""
    worker.circuits.retune("stripe", Thresholds(3.0, (1, 1, 1, 1, 1)))
    in_slow_start(worker)
    worker.circuits.calls["stripe"] = (10, 2)
    worker.run_once()
    assert worker.states()[-1] == "open"


def test_a_provider_that_recovered_is_closed_within_a_minute_after_a_long_outage_too(worker: Worker) -> None:
    """With the usual settings, jitter and no traffic; in slow start within 20 s."""
    worker.stripe.probes.extend([DOWN] * 40)
    worker.run_for(600)
    worker.stripe.probes.clear()
    worker.run_for(20)
    assert worker.states()[-1] == "slow_start"
    worker.run_for(40)
    assert worker.states()[-1] == "closed"


# ---------------------------------------------------------------- overrides


@pytest.mark.parametrize(
    ("mode", "then"),
    [
        (State.FORCED_OPEN, State.OPEN),
        (State.BYPASS, State.CLOSED),
        (State.METRICS_ONLY, State.CLOSED),
    ],
)
def test_an_override_ends_by_itself_at_its_time(worker: Worker, mode: State, then: State) -> None:
    """And not before."""
    worker.circuits.move("stripe", mode, until=worker.clock.now() + dt.timedelta(minutes=30))
    worker.run_for(1799, step_s=1)
    assert worker.states()[-1] == mode
    worker.run_for(1, step_s=1)
    row = circuit_rows(worker.database)[-1]
    assert (row["state"], row["failed_rounds"]) == (then, 0)
    assert row["reason"] == f"the override ({mode.value}) is over"


@pytest.mark.parametrize("mode", [State.FORCED_OPEN, State.BYPASS, State.METRICS_ONLY])
def test_an_override_without_an_end_ignores_time(worker: Worker, mode: State) -> None:
    """Forced open is not probed either, for a week."""
    worker.circuits.move("stripe", mode)
    worker.run_for(7 * 86_400, step_s=3600)
    assert worker.states()[-1] == mode
    assert worker.stripe.probed == 0


def test_an_override_in_the_midst_of_a_round_ends_the_round(
    database: Database, clock: SteppedClock, stripe: FakeProvider
) -> None:
    """The verdict of its probes has an old version, and is not even written."""
    later = Later()
    worker = Worker(database, clock, stripe, start=later)
    worker.circuits.move("stripe", State.OPEN)
    clock.advance(10)
    worker.run_once()
    worker.circuits.move("stripe", State.FORCED_OPEN)
    later.end(2)
    worker.run_for(60)
    assert worker.states() == ["open", "half_open", "forced_open"]
    assert stripe.probed == 2


@pytest.mark.parametrize("healthy", [True, False])
def test_a_provider_that_was_kept_shut_is_probed_at_once_before_it_gets_a_payment(
    database: Database, clock: SteppedClock, stripe: FakeProvider, healthy: bool
) -> None:
    """Nobody knows how it is; the wait of an open circuit is not for one that never failed, and no incident is."""
    worker = Worker(database, clock, stripe)
    worker.circuits.move("stripe", State.FORCED_OPEN, until=clock.now() + dt.timedelta(minutes=1))
    stripe.probes.extend([] if healthy else [DOWN])
    worker.run_for(60.5, step_s=0.5)
    rows = circuit_rows(database)
    end = ("slow_start", None) if healthy else ("open", "inc_stripe_4")
    assert [(row["state"], row["incident"]) for row in rows] == [
        ("forced_open", None),
        ("open", None),
        ("half_open", None),
        end,
    ]
    assert stripe.probed >= 1


# ---------------------------------------------------------------- the ledger away


def test_with_the_ledger_away_nobody_probes(worker: Worker) -> None:
    """The round must be claimed first; when the ledger is back, it is due at once."""
    worker.clock.advance(10)
    worker.circuits.store.away = True
    with pytest.raises(LedgerUnavailableError):
        worker.recovery.run_once()
    assert worker.stripe.probed == 0
    worker.circuits.store.away = False
    worker.run_once()
    assert worker.states() == ["open", "half_open", "slow_start"]


def test_a_verdict_that_could_not_be_written_is_written_when_the_ledger_is_back(worker: Worker) -> None:
    """Within the round's deadline."""

    def cut_off() -> None:
        worker.circuits.store.away = worker.stripe.probed == 5

    worker.stripe.during_probe = cut_off
    worker.clock.advance(10)
    with pytest.raises(LedgerUnavailableError):
        worker.run_once()
    worker.stripe.during_probe = None
    worker.circuits.store.away = False
    worker.clock.advance(20)
    worker.run_once()
    assert worker.states() == ["open", "half_open", "slow_start"]
    assert worker.stripe.probed == 5


def test_a_verdict_older_than_the_deadline_is_not_written(worker: Worker) -> None:
    """The ledger was away for a minute: what the probes said then says nothing of now."""

    def cut_off() -> None:
        worker.circuits.store.away = worker.stripe.probed == 5

    worker.stripe.during_probe = cut_off
    worker.clock.advance(10)
    with pytest.raises(LedgerUnavailableError):
        worker.run_once()
    worker.stripe.during_probe = None
    worker.circuits.store.away = False
    worker.clock.advance(60)
    worker.run_once()
    assert worker.states() == ["open", "half_open", "open"]
    assert worker.waits_until_probed(1) == [15]


def test_a_claim_whose_answer_was_lost_is_still_this_workers_round(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row was written and the ledger went away before it said so: nobody else may probe, so this worker does."""
    append = worker.circuits.store.append

    def lose(transition: object) -> bool:
        append(transition)  # type: ignore[arg-type]  # as it came
        raise LedgerUnavailableError("OperationalError")

    monkeypatch.setattr(worker.circuits.store, "append", lose)
    worker.clock.advance(10)
    with pytest.raises(LedgerUnavailableError):
        worker.run_once()
    monkeypatch.undo()
    worker.run_once()
    assert worker.states() == ["open", "half_open", "slow_start"]
    assert worker.stripe.probed == 5


def test_a_claim_that_was_not_written_gives_no_right_to_another_workers_round(
    worker: Worker, database: Database, clock: SteppedClock
) -> None:
    """The ledger was away for this worker, and another one probes: there is one budget."""
    clock.advance(10)
    worker.circuits.store.away = True
    with pytest.raises(LedgerUnavailableError):
        worker.recovery.run_once()
    clock.advance(0.1)
    Worker(database, clock, worker.stripe, "worker:2").circuits.move("stripe", State.HALF_OPEN)
    worker.circuits.store.away = False
    worker.run_once()
    assert worker.stripe.probed == 0
    assert worker.states() == ["open", "half_open"]


def test_a_claim_whose_answer_was_lost_is_known_again_however_long_the_ledger_is_away(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look claims the round again; were it with another claim, the round that is written would have no owner."""
    append = worker.circuits.store.append

    def lose(transition: Transition) -> bool:
        append(transition)
        raise LedgerUnavailableError("OperationalError")

    monkeypatch.setattr(worker.circuits.store, "append", lose)
    worker.clock.advance(10)
    with pytest.raises(LedgerUnavailableError):
        worker.recovery.run_once()
    monkeypatch.undo()
    worker.circuits.store.away = True
    for _ in range(20):
        worker.clock.advance(0.25)
        with pytest.raises(LedgerUnavailableError):
            worker.recovery.run_once()
    worker.circuits.store.away = False
    assert worker.recovery.run_once() == 0  # it is written already
    worker.run_once()
    assert worker.states() == ["open", "half_open", "slow_start"]
    assert worker.stripe.probed == 5


def test_a_claim_older_than_a_rounds_deadline_is_made_anew(worker: Worker) -> None:
    """Written with the moment of the first try, its round would be late before it began."""
    worker.clock.advance(10)
    worker.circuits.store.away = True
    for after_s in (0, 3600):
        worker.clock.advance(after_s)
        with pytest.raises(LedgerUnavailableError):
            worker.recovery.run_once()
    worker.circuits.store.away = False
    worker.run_once()
    assert worker.states() == ["open", "half_open", "slow_start"]
    assert circuit_rows(worker.database)[1]["at"] == to_micros(worker.clock.now())


@pytest.mark.parametrize("healthy", [True, False])
def test_a_stages_verdict_that_could_not_be_written_for_an_hour_is_asked_for_anew(
    worker: Worker, healthy: bool
) -> None:
    """What the probe said then says nothing of now, be it good or bad; one as old as a lease is still written."""
    in_slow_start(worker)
    for away_s, probed in ((9.5, 1), (3600.0, 2)):
        share, before = worker.circuits.snapshot("stripe").share, worker.stripe.probed
        good_or_bad = [] if healthy or probed == 1 else [DOWN]
        worker.stripe.probes.extend(good_or_bad)
        worker.stripe.during_probe = lambda: setattr(worker.circuits.store, "away", True)
        worker.clock.advance(10)
        with pytest.raises(LedgerUnavailableError):
            worker.run_once()
        worker.stripe.during_probe = None
        worker.clock.advance(away_s)
        worker.circuits.store.away = False
        worker.run_once()
        assert worker.circuits.snapshot("stripe").share > share
        assert worker.stripe.probed - before == probed
    nth = [each.nth for each in worker.probes.history("stripe", limit=2)]
    assert nth == [2, 1]
