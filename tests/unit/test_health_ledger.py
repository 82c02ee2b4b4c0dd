"""What a process decides while others write: only what follows the ledger's last row is written."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from providers.contract import Health, Timeouts
from router import health as health_module
from router.health import ProviderHealth
from router.ledger.engine import Database
from router.ledger.probes import ProbeLedger
from router.ledger.tables import circuit_transitions
from router.ledger.unavailable import CommitUnknownError, LedgerUnavailableError
from router.overrides import Mode, Overrides
from router.recovery import Recovery
from router.transitions import State, Transition, following
from tests.fakes.clocks import SteppedClock
from tests.fakes.house import a_health, move, teach
from tests.fakes.ledger import FlakyStore, circuit_rows
from tests.fakes.providers import FakeProvider


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def store(database: Database) -> FlakyStore:
    """Through which the process under test reaches the ledger; others have their own."""
    return FlakyStore(database)


@pytest.fixture
def process(store: FlakyStore, clock: SteppedClock) -> ProviderHealth:
    return cast("ProviderHealth", a_health(("stripe",), store=store, clock=clock, actor="web:1"))


@pytest.fixture
def other(database: Database, clock: SteppedClock) -> ProviderHealth:
    """Another process, whose ledger is never away."""
    return cast("ProviderHealth", a_health(("stripe",), store=FlakyStore(database), clock=clock, actor="web:2"))


def mark(
    health: ProviderHealth, suspect: bool, *, expected: Transition | str | None = "its last"
) -> Transition | None:
    """What the early warning does to the circuit."""
    breaker = health._guarded["stripe"].breaker
    last = breaker.snapshot().last if expected == "its last" else cast("Transition | None", expected)
    transition = breaker.mark(suspect, expected=last, reason="slow", evidence={})
    health.moved(transition)
    return transition


def order(database: Database, clock: SteppedClock, mode: Mode) -> Transition:
    """An operator's, from another process."""
    overrides = Overrides(("stripe",), FlakyStore(database), clock=clock)
    return overrides.order("stripe", mode, reason="we know better", by="operator")


def told(database: Database) -> list[tuple[int, str, str]]:
    return [(row["version"], row["state"], row["actor"]) for row in circuit_rows(database)]


# ---------------------------------------------------------------- chains


def test_a_chain_decided_without_the_ledger_falls_as_a_whole_before_an_operators_order(
    database: Database, store: FlakyStore, process: ProviderHealth, other: ProviderHealth, clock: SteppedClock
) -> None:
    """Its second link would follow a row that the process never saw: the bypass stays."""
    store.away = True
    mark(process, True)
    teach(process, Health.PROVIDER_ERROR)
    assert not process.is_admitting("stripe")
    order(database, clock, "bypass")
    store.away = False
    for each in (process, other, process):
        each.sync_once()
    assert told(database) == [(1, "bypass", "operator")]
    assert process.snapshot("stripe").state is other.snapshot("stripe").state is State.BYPASS


def test_a_chain_that_nobody_was_first_with_is_written_in_order(
    database: Database, store: FlakyStore, process: ProviderHealth
) -> None:
    """Every link is on record."""
    store.away = True
    mark(process, True)
    mark(process, False)
    teach(process, Health.PROVIDER_ERROR)
    store.away = False
    process.sync_once()
    assert told(database) == [(1, "closed", "web:1"), (2, "closed", "web:1"), (3, "open", "web:1")]
    assert process.sync_once() == 0


def test_a_delayed_closing_loses_against_a_newer_opening_after_a_cut_off(
    database: Database, store: FlakyStore, process: ProviderHealth, other: ProviderHealth
) -> None:
    """Marked and unmarked while cut off; the fleet opened meanwhile, and stays open."""
    store.away = True
    mark(process, True)
    mark(process, False)
    teach(other, Health.PROVIDER_ERROR)
    other.sync_once()
    store.away = False
    process.sync_once()
    other.sync_once()
    assert told(database) == [(1, "open", "web:2")]
    assert not process.is_admitting("stripe")
    assert not other.is_admitting("stripe")


def test_what_fell_because_another_marked_first_is_decided_anew_at_the_next_tick(
    database: Database, store: FlakyStore, process: ProviderHealth, other: ProviderHealth, clock: SteppedClock
) -> None:
    """The failures are still in its window; the opening follows the mark that was written."""
    store.away = True
    mark(process, True)
    teach(process, Health.PROVIDER_ERROR)
    mark(other, True)
    other.sync_once()
    store.away = False
    process.sync_once()
    clock.advance(0.1)
    assert process.watch_once() == 1
    process.sync_once()
    assert told(database) == [(1, "closed", "web:2"), (2, "open", "web:1")]


def test_an_order_given_in_this_process_holds_against_its_own_unwritten_chain(
    database: Database, process: ProviderHealth, clock: SteppedClock
) -> None:
    """With a healthy ledger too: answered 200, in force, and not overwritten by the next round."""
    mark(process, True)
    teach(process, Health.PROVIDER_ERROR)
    process.follow(order(database, clock, "bypass"))
    assert process.snapshot("stripe").state is State.BYPASS
    process.sync_once()
    assert process.snapshot("stripe").state is State.BYPASS
    assert told(database) == [(1, "bypass", "operator")]


def test_a_commit_whose_answer_was_lost_is_known_again_and_the_chain_goes_on(
    database: Database, store: FlakyStore, process: ProviderHealth, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is ours: refusing it would undo our own opening."""
    append = store.append

    def forget(transition: Transition) -> bool:
        append(transition)
        raise CommitUnknownError("OperationalError")

    mark(process, True)
    teach(process, Health.PROVIDER_ERROR)
    monkeypatch.setattr(store, "append", forget)
    with pytest.raises(LedgerUnavailableError):
        process.sync_once()
    monkeypatch.undo()
    for _ in range(2):
        process.sync_once()
    assert told(database) == [(1, "closed", "web:1"), (2, "open", "web:1")]
    assert not process.is_admitting("stripe")


# ---------------------------------------------------------------- rows that the ledger loses


def lose(database: Database, version: int = 1) -> None:
    """As a failover to a copy that lagged behind does: that row and those after it were never there."""
    with database.write() as connection:
        connection.execute(circuit_transitions.delete().where(circuit_transitions.c.version >= version))


def test_a_transition_that_the_ledger_lost_is_written_again_by_who_decided_it(
    database: Database, process: ProviderHealth, other: ProviderHealth, clock: SteppedClock
) -> None:
    """No one notices, and the next transition follows it: else none would ever be written again."""
    for mode in ("metrics_only", "automatic"):
        order(database, clock, mode)
        clock.advance(1)
    for each in (process, other):
        each.sync_once()
    teach(process, Health.PROVIDER_ERROR)
    for each in (process, other):
        each.sync_once()
    before = told(database)
    lose(database, 3)
    for each in (other, process, other):
        each.sync_once()
    assert told(database) == before
    assert process.snapshot("stripe").state is other.snapshot("stripe").state is State.OPEN
    move(other, "stripe", State.HALF_OPEN, clock)
    assert process.sync_once() == 1


@pytest.mark.parametrize("left", [0, 1])
def test_what_the_ledger_lost_and_nobody_can_write_again_is_given_up(
    database: Database, other: ProviderHealth, clock: SteppedClock, left: int
) -> None:
    """Whoever wrote it is gone: after three looks the others are where the ledger is, were it at the beginning."""
    order(database, clock, "bypass")
    clock.advance(1)
    order(database, clock, "forced_open")
    other.sync_once()
    lose(database, left + 1)
    assert [other.sync_once() for _ in range(4)] == [0, 0, 1, 0]
    circuit = other.snapshot("stripe")
    assert (circuit.state, circuit.version) == ((State.BYPASS, 1) if left else (State.CLOSED, 0))
    order(database, clock, "metrics_only")
    assert other.sync_once() == 1
    assert other.snapshot("stripe").state is State.METRICS_ONLY


def test_looks_that_are_not_in_a_row_give_nothing_up(
    database: Database, process: ProviderHealth, other: ProviderHealth
) -> None:
    """Two answers of a copy that lags behind, every now and then, are none that it is lost."""
    mark(process, True)
    teach(process, Health.PROVIDER_ERROR)
    for each in (process, other):
        each.sync_once()
    for _ in range(3):
        lose(database, 2)
        assert [other.sync_once() for _ in range(2)] == [0, 0]
        process.sync_once()
        assert other.sync_once() == 0
    assert other.snapshot("stripe").state is State.OPEN


def test_an_order_that_takes_a_lost_transitions_version_is_followed(
    database: Database, process: ProviderHealth, other: ProviderHealth, clock: SteppedClock
) -> None:
    """Its version is one that every process knows already, and another's."""
    teach(process, Health.PROVIDER_ERROR)
    for each in (process, other):
        each.sync_once()
    lose(database)
    clock.advance(1)
    ordered = order(database, clock, "bypass")
    assert ordered.version == 1
    assert process.follow(ordered)
    assert other.sync_once() == 1
    assert process.snapshot("stripe").last == other.snapshot("stripe").last == ordered


def test_a_read_that_began_before_a_transition_was_known_takes_nothing_back(
    database: Database,
    store: FlakyStore,
    process: ProviderHealth,
    clock: SteppedClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each time the recovery's thread writes while the answer is under way: it is old, and nothing is lost."""
    latest, moves = store.latest, iter([State.OPEN, State.HALF_OPEN, State.OPEN, State.HALF_OPEN])

    def slow(providers: Iterable[str]) -> Sequence[Transition]:
        rows = latest(providers)
        move(process, "stripe", next(moves), clock)
        clock.advance(1)
        return rows

    monkeypatch.setattr(store, "latest", slow)
    for version in (1, 2, 3, 4):
        assert process.sync_once() == 0
        assert process.snapshot("stripe").version == version


# ---------------------------------------------------------------- proposals


def test_a_proposal_upon_an_unwritten_opening_is_refused(
    database: Database, store: FlakyStore, process: ProviderHealth
) -> None:
    """Written, it would leave a gap before it, or follow somebody else's row."""
    store.away = True
    teach(process, Health.PROVIDER_ERROR)
    store.away = False
    last = process.snapshot("stripe").last
    probing = following(last, State.HALF_OPEN, provider="stripe", at=process._clock.now(), actor="w", reason="why")
    assert not process.propose(probing)
    assert told(database) == []
    process.sync_once()
    assert process.propose(probing)


def test_recovery_does_not_undo_an_order_that_came_before_this_processs_own_opening_was_written(
    database: Database, store: FlakyStore, process: ProviderHealth, clock: SteppedClock
) -> None:
    """The recovery thread runs before the one that writes: forced open stays forced open, and is not probed."""
    store.away = True
    teach(process, Health.PROVIDER_ERROR)
    order(database, clock, "forced_open")
    clock.advance(30)
    store.away = False
    recovery = Recovery(
        {"stripe": FakeProvider("stripe")},
        process,
        probes=ProbeLedger(database),
        timeouts=Timeouts(1, 5),
        clock=clock,
        start=lambda task: task(),
    )
    for _ in range(100):
        recovery.run_once()
        process.sync_once()
        clock.advance(0.5)
    assert told(database) == [(1, "forced_open", "operator")]
    assert process.snapshot("stripe").state is State.FORCED_OPEN


# ---------------------------------------------------------------- marks


def test_a_mark_on_what_has_moved_since_it_was_looked_at_is_dropped(
    database: Database, process: ProviderHealth
) -> None:
    """It was closed when the early warning looked; ten calls have opened it meanwhile, and one incident it stays."""
    teach(process, Health.PROVIDER_ERROR)
    assert mark(process, True, expected=None) is None
    assert not process.is_admitting("stripe")
    process.sync_once()
    assert told(database) == [(1, "open", "web:1")]


def test_decisions_are_written_in_the_order_of_their_versions_however_their_news_arrive(
    database: Database, process: ProviderHealth, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that marked is held up before it can say so; the opening's is not."""
    held: list[Transition | None] = []
    moved = process.moved
    monkeypatch.setattr(process, "moved", held.append)
    mark(process, True)
    teach(process, Health.PROVIDER_ERROR)
    for transition in reversed(held):
        moved(transition)
    process.sync_once()
    assert [row[:2] for row in told(database)] == [(1, "closed"), (2, "open")]


# ---------------------------------------------------------------- who is told


class Deaf:
    """A log that cannot be written, as on a full disk."""

    def __getattr__(self, name: str) -> Any:
        def fail(*_words: object, **_about: object) -> None:
            raise ValueError("I/O operation on closed file")

        return fail


def test_a_listener_that_raises_costs_neither_a_transition_nor_an_answer(
    database: Database, process: ProviderHealth, other: ProviderHealth, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened here, written, followed there; no payment hears of the log."""
    monkeypatch.setattr(health_module, "log", Deaf())
    teach(process, Health.PROVIDER_ERROR)
    process.sync_once()
    assert other.sync_once() == 1
    assert told(database) == [(1, "open", "web:1")]
    assert not other.is_admitting("stripe")


@pytest.mark.parametrize("proposed", [False, True])
def test_an_incident_is_told_once_though_the_answer_to_its_commit_was_lost(
    store: FlakyStore,
    process: ProviderHealth,
    other: ProviderHealth,
    clock: SteppedClock,
    monkeypatch: pytest.MonkeyPatch,
    proposed: bool,
) -> None:
    """By whoever wrote it, when the ledger is back; a failed probe's opening after a release is the worker's."""
    append = store.append

    def lose(transition: Transition) -> bool:
        append(transition)
        raise CommitUnknownError("OperationalError")

    with capture_logs() as logs:
        if proposed:
            for state in (State.FORCED_OPEN, State.OPEN, State.HALF_OPEN):
                move(process, "stripe", state, clock)
        else:
            teach(process, Health.PROVIDER_ERROR)
        monkeypatch.setattr(store, "append", lose)
        with contextlib.suppress(LedgerUnavailableError):
            if proposed:
                move(process, "stripe", State.OPEN, clock)
            process.sync_once()
        monkeypatch.undo()
        other.sync_once()
        clock.advance(10)
        move(other, "stripe", State.HALF_OPEN, clock)
        for _ in range(3):
            process.sync_once()
            other.sync_once()
    assert [each["event"] for each in logs].count("circuit_opened") == 1
    assert process.snapshot("stripe").state is State.HALF_OPEN


def test_a_proposal_that_was_not_written_is_not_told(
    store: FlakyStore, process: ProviderHealth, clock: SteppedClock
) -> None:
    """The ledger was away before it could commit."""
    store.away = True
    with capture_logs() as logs:
        with pytest.raises(LedgerUnavailableError):
            move(process, "stripe", State.OPEN, clock)
        store.away = False
        for _ in range(2):
            process.sync_once()
    assert "circuit_opened" not in [each["event"] for each in logs]


def test_a_ledger_that_is_away_is_one_degraded_event_and_its_return_one_restored(
    store: FlakyStore, process: ProviderHealth
) -> None:
    """However many rounds it is away for; and again the next time."""
    with capture_logs() as logs:
        for away in (False, True, True, True, False, False, True, False):
            store.away = away
            if away:
                with pytest.raises(LedgerUnavailableError):
                    process.sync_once()
            else:
                process.sync_once()
    assert [(each["event"], each["log_level"]) for each in logs] == [
        *[("degraded", "error"), ("restored", "warning")] * 2
    ]


def test_what_would_have_opened_is_said_once_and_shown_while_it_stands(
    database: Database, process: ProviderHealth, clock: SteppedClock
) -> None:
    """Metrics-only: a warning for whoever watches, and nothing in the ledger. A relapse is a new one."""

    def said(logs: list[Any]) -> list[Mapping[str, Any]]:
        return [each for each in logs if each["event"] == "would_have_opened"]

    move(process, "stripe", State.METRICS_ONLY, clock)
    with capture_logs() as logs:
        teach(process, Health.PROVIDER_ERROR, 30)
        for _ in range(5):
            clock.advance(0.1)
            process.watch_once()
    (event,) = said(cast("list[Any]", logs))
    assert (event["provider"], event["reason"], event["log_level"]) == (
        *("stripe", "10 of the last 10 calls failed"),
        "warning",
    )
    would_have = process.would_have_opened("stripe")
    assert would_have is not None
    assert would_have.at == clock.now() - dt.timedelta(seconds=0.5)
    with capture_logs() as logs:
        for signal in (Health.OK, Health.PROVIDER_ERROR):
            teach(process, signal, 20)
            process.watch_once()
    assert len(said(cast("list[Any]", logs))) == 1
    process.sync_once()
    assert len(told(database)) == 1


# ---------------------------------------------------------------- a wall clock that steps


def test_an_opening_that_fell_lends_its_age_to_none_of_the_same_version(
    database: Database, store: FlakyStore, process: ProviderHealth, other: ProviderHealth, clock: SteppedClock
) -> None:
    """Cut off, this process opened a minute ago and nobody knew; the fleet opened half a second ago."""
    recovery = Recovery(
        {"stripe": FakeProvider("stripe")},
        process,
        probes=ProbeLedger(database),
        timeouts=Timeouts(1, 5),
        clock=clock,
        start=lambda _task: None,
    )
    store.away = True
    teach(process, Health.UNREACHABLE)
    for _ in range(60):
        process.age_s("stripe")
        clock.advance(1)
        with contextlib.suppress(LedgerUnavailableError):
            recovery.run_once()
    teach(other, Health.PROVIDER_ERROR)
    other.sync_once()
    clock.advance(0.5)
    store.away = False
    process.sync_once()
    assert process.age_s("stripe") == pytest.approx(0.5)
    assert recovery.run_once() == 0
    assert told(database) == [(1, "open", "web:2")]


@pytest.mark.parametrize("step_s", [-60, 60])
def test_an_incidents_open_time_is_not_the_wall_clocks(
    database: Database, process: ProviderHealth, clock: SteppedClock, step_s: float
) -> None:
    """Eleven seconds open are eleven seconds in the row that ends them, and in what the flipper asks."""
    move(process, "stripe", State.OPEN, clock)
    recovery = Recovery(
        {"stripe": FakeProvider("stripe")},
        process,
        probes=ProbeLedger(database),
        timeouts=Timeouts(1, 5),
        clock=clock,
        start=lambda _task: None,
    )
    recovery.run_once()
    clock.step_wall(step_s)
    clock.advance(11)
    assert process.age_s("stripe") == pytest.approx(11)
    recovery.run_once()
    *_, row = circuit_rows(database)
    assert (row["state"], row["open_us"]) == ("half_open", 11_000_000)


@pytest.mark.parametrize("step_s", [-60, 60])
def test_the_time_of_a_slow_start_that_failed_is_not_the_wall_clocks_either(
    database: Database, process: ProviderHealth, other: ProviderHealth, clock: SteppedClock, step_s: float
) -> None:
    """Written by this process's own opening, whoever began the slow start: twelve seconds are twelve."""
    process.sync_once()
    for state, after_s in ((State.OPEN, 0), (State.HALF_OPEN, 0), (State.SLOW_START, 0), (State.SLOW_START, 5)):
        clock.advance(after_s)
        last = other.snapshot("stripe").last
        share = 0.1 if not after_s else 0.25
        moved = following(
            last, state, provider="stripe", at=clock.now(), actor="w", reason="why", share=share, age_s=after_s
        )
        assert other.propose(moved)
        process.sync_once()
    clock.step_wall(step_s)
    clock.advance(7)
    teach(process, Health.PROVIDER_ERROR, 2)
    process.sync_once()
    *_, row = circuit_rows(database)
    assert (row["state"], row["open_us"]) == ("open", 12_000_000)
