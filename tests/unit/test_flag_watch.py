"""The loop that writes down changes: nothing lost while the ledger is away, nothing told twice, nothing for ever."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ldclient.versioned_data_kind import FEATURES, SEGMENTS
from structlog.testing import capture_logs

from flags.changes import Definition
from flags.contract import PRIMARY_PROVIDER
from flags.definitions import definitions
from flags.document import new_document
from flags.watching import WatchedStore
from router.clock import ManualClock
from router.flag_watch import AT_ONCE, SETTLE_S, FlagWatch, Round
from router.ledger.flag_values import FlagValueLedger, Heard
from router.ledger.unavailable import LedgerUnavailableError
from tests.fakes.ledger import fresh_ledger

FLAG: dict[str, Any] = new_document(definitions(("stripe", "adyen")).values())["flags"][PRIMARY_PROVIDER]
SOURCE = "launchdarkly:0123"


def primary(version: int, served: int = 0) -> dict[str, Any]:
    return {**copy.deepcopy(FLAG), "version": version, "fallthrough": {"variation": served}}


def full_set(version: int, served: int = 0) -> dict[Any, Any]:
    return {FEATURES: {PRIMARY_PROVIDER: primary(version, served)}, SEGMENTS: {}}


class MoodyFlagLedger(FlagValueLedger):
    """A ledger that fails as told."""

    fault: Exception | None = None
    asked = 0

    def saw(self, source: str, told: Sequence[Definition], *, by: str) -> Heard:
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        return super().saw(source, told, by=by)


class Process:
    """A store, and the loop over it."""

    def __init__(self, ledger: FlagValueLedger, clock: ManualClock, name: str = "web:a:1") -> None:
        self.store = WatchedStore([PRIMARY_PROVIDER], ledger.known(SOURCE), now=clock.now)
        self.watch = FlagWatch(self.store, ledger, source=SOURCE, seen_by=name, clock=clock)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    with fresh_ledger(tmp_path) as database:
        yield MoodyFlagLedger(database)


def versions(ledger: FlagValueLedger) -> list[int]:
    """Of the audit, oldest first."""
    return [each.version for each in reversed(ledger.page(limit=1000))]


def test_each_change_is_written_and_logged_once_by_whoever_was_first(
    ledger: MoodyFlagLedger, clock: ManualClock
) -> None:
    """Two processes hear the same; a round with no news asks nothing of the ledger."""
    one, two = Process(ledger, clock), Process(ledger, clock, "worker:b:2")
    for process in (one, two):
        process.store.init(full_set(1))
        process.store.upsert(FEATURES, primary(2, 1))
    with capture_logs() as logs:
        assert one.watch.run_once() == Round(told=2, written=2)
        assert two.watch.run_once() == Round(told=2, written=0)
    assert [(each["event"], each["key"]) for each in logs] == [("flag_changed", PRIMARY_PROVIDER)] * 2
    assert (logs[1]["old"]["serves"], logs[1]["new"]["serves"]) == ("stripe", "adyen")
    asked = ledger.asked
    assert one.watch.run_once() == Round(0, 0)
    assert ledger.asked == asked


def test_what_happens_while_the_ledger_is_away_is_written_when_it_is_back(
    ledger: MoodyFlagLedger, clock: ManualClock
) -> None:
    """In order, and all of it."""
    process = Process(ledger, clock)
    process.store.init(full_set(1))
    ledger.fault = LedgerUnavailableError("OperationalError")
    for version in range(2, 12):
        process.store.upsert(FEATURES, primary(version, 1 - version % 2))
        with pytest.raises(LedgerUnavailableError):
            process.watch.run_once()
    ledger.fault = None
    assert process.watch.run_once() == Round(told=11, written=11)
    assert versions(ledger) == list(range(1, 12))


def test_many_changes_are_written_in_several_transactions(ledger: MoodyFlagLedger, clock: ManualClock) -> None:
    """None holds the ledger for long."""
    process = Process(ledger, clock)
    for version in range(1, 2 * AT_ONCE + 2):
        process.store.upsert(FEATURES, primary(version, version % 2))
    assert process.watch.run_once().written == 2 * AT_ONCE + 1
    assert ledger.asked == 3


def test_a_fault_of_ours_is_reported_and_does_not_hold_up_what_follows(
    ledger: MoodyFlagLedger, clock: ManualClock
) -> None:
    """Told again, it would fail again, for ever."""
    process = Process(ledger, clock)
    process.store.init(full_set(1))
    ledger.fault = RuntimeError("a value that no column takes")
    with capture_logs() as logs:
        process.watch.run_once()
    assert [each["event"] for each in logs] == ["flag_changes_lost"]
    ledger.fault = None
    process.store.upsert(FEATURES, primary(2, 1))
    assert process.watch.run_once() == Round(told=1, written=1)


def test_a_lagging_edge_is_late_and_no_change(ledger: MoodyFlagLedger, clock: ManualClock) -> None:
    """A reconnect brings an older full set, then the patch: no toggle back and forth in the audit."""
    process = Process(ledger, clock)
    process.store.init(full_set(1))
    process.store.upsert(FEATURES, primary(2, 1))
    process.watch.run_once()
    process.store.init(full_set(1))
    process.watch.run_once()
    clock.advance(2)
    process.store.upsert(FEATURES, primary(2, 1))
    process.watch.run_once()
    clock.advance(SETTLE_S)
    process.watch.run_once()
    assert versions(ledger) == [1, 2]


def test_an_environment_made_anew_is_written_after_it_has_held(ledger: MoodyFlagLedger, clock: ManualClock) -> None:
    """Whatever it holds by then, once, and by one of the processes; later changes at once."""
    before = Process(ledger, clock)
    before.store.init(full_set(9, 1))
    before.watch.run_once()
    clock.advance(60)
    one, two = Process(ledger, clock), Process(ledger, clock)
    for process in (one, two):
        process.store.init(full_set(1))
        process.store.upsert(FEATURES, primary(2, 1))
        process.store.upsert(FEATURES, primary(3, 0))
        assert process.watch.run_once().written == 0
    clock.advance(SETTLE_S - 1)
    assert one.watch.run_once() == Round(0, 0)
    clock.advance(1)
    assert one.watch.run_once() == Round(told=1, written=1)
    assert two.watch.run_once() == Round(told=1, written=0)
    two.store.upsert(FEATURES, primary(4, 1))
    assert two.watch.run_once().written == 1
    assert versions(ledger) == [9, 3, 4]


def test_a_flag_that_is_missing_from_a_full_set_is_deleted_once_that_has_held(
    ledger: MoodyFlagLedger, clock: ManualClock
) -> None:
    """Nobody says in which version it went."""
    process = Process(ledger, clock)
    process.store.init(full_set(4, 1))
    process.watch.run_once()
    clock.advance(10)
    process.store.init({FEATURES: {}, SEGMENTS: {}})
    process.watch.run_once()
    clock.advance(SETTLE_S)
    process.watch.run_once()
    assert ledger.page(limit=1)[0].new is None
    assert ledger.known(SOURCE) == []


def test_what_is_late_for_good_is_not_asked_again(ledger: MoodyFlagLedger, clock: ManualClock) -> None:
    """A process whose stream stands still holds an old version: contested once, settled once, then silence."""
    still, well = Process(ledger, clock), Process(ledger, clock)
    still.store.init(full_set(1))
    clock.advance(1)
    well.store.init(full_set(2, 1))
    well.watch.run_once()
    clock.advance(SETTLE_S)
    still.watch.run_once()
    asked = ledger.asked
    for _ in range(5):
        clock.advance(SETTLE_S)
        still.watch.run_once()
    assert ledger.asked == asked
    assert versions(ledger) == [2]
