"""The thread that writes decisions: batches, a ledger that is away, a bound, and the last round."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Sequence
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from router.decision_writing import DecisionWriter
from router.ledger.decisions import DecisionRow
from router.ledger.unavailable import CommitUnknownError, LedgerUnavailableError

ROW = DecisionRow(
    id="dec_0",
    merchant="shop",
    reference="ORD-1",
    amount=1999,
    currency="EUR",
    method="card",
    card_brand=None,
    card_country=None,
    card_funding=None,
    decision="{}",
    created_at=dt.datetime(2026, 11, 21, tzinfo=dt.UTC),
)


def rows(count: int) -> list[DecisionRow]:
    return [replace(ROW, id=f"dec_{number}") for number in range(count)]


class Store:
    """Keeps what is committed; raises `error` first, having committed where its answer is lost."""

    def __init__(self) -> None:
        self.commits: list[list[str]] = []
        self.kept: dict[str, DecisionRow] = {}
        self.error: Exception | None = None
        self.hangs: threading.Event | None = None

    def write(self, written: Sequence[DecisionRow]) -> None:
        if self.hangs is not None:
            self.hangs.wait(10)
        if self.error is None or isinstance(self.error, CommitUnknownError):
            self.commits.append([each.id for each in written])
            self.kept |= {each.id: each for each in written}
        if self.error is not None:
            raise self.error


def test_many_go_in_one_commit_and_in_order() -> None:
    store = Store()
    writer = DecisionWriter(store, batch=4)
    for row in rows(10):
        assert writer.put(row)
    assert writer.run_once() == 10
    assert [len(each) for each in store.commits] == [4, 4, 2]
    assert list(store.kept) == [row.id for row in rows(10)]
    assert writer.run_once() == 0
    assert len(store.commits) == 3


@pytest.mark.parametrize("error", [LedgerUnavailableError("away"), CommitUnknownError("perhaps")])
def test_what_could_not_be_written_waits(error: Exception) -> None:
    store = Store()
    writer = DecisionWriter(store, batch=4)
    for row in rows(6):
        writer.put(row)
    store.error = error
    with pytest.raises(LedgerUnavailableError):
        writer.run_once()
    away = [writer.is_away]
    store.error = None
    assert writer.run_once() == 6
    assert [*away, writer.is_away] == [True, False]
    assert list(store.kept) == [row.id for row in rows(6)]


def test_what_finds_no_room_is_dropped_and_told_once_with_its_number() -> None:
    store = Store()
    writer = DecisionWriter(store, waiting=5)
    with capture_logs() as logs:
        assert [writer.put(row) for row in rows(8)] == [True] * 5 + [False] * 3
        assert writer.dropped == 3
        writer.run_once()
        writer.put(ROW)
        writer.run_once()
    assert [(each["event"], each.get("count")) for each in logs] == [
        ("decisions_dropped", None),
        ("decisions_dropped_until_now", 3),
    ]
    assert len(store.kept) == 5
    assert writer.dropped == 0


def test_rows_that_can_never_be_written_hold_up_nobody() -> None:
    store = Store()
    writer = DecisionWriter(store, batch=2)
    for row in rows(2):
        writer.put(row)
    store.error = RuntimeError("a fault of ours")
    with pytest.raises(RuntimeError):
        writer.run_once()
    store.error = None
    writer.put(replace(ROW, id="dec_next"))
    assert writer.run_once() == 1
    assert list(store.kept) == ["dec_next"]


def test_the_last_round_writes_what_waits() -> None:
    store = Store()
    writer = DecisionWriter(store)
    writer.put(ROW)
    assert writer.flush(5.0)
    assert list(store.kept) == ["dec_0"]


def test_the_last_round_has_a_bound_and_says_what_is_lost() -> None:
    store = Store()
    writer = DecisionWriter(store, batch=1)
    for row in rows(3):
        writer.put(row)
    store.hangs = threading.Event()
    with capture_logs() as logs:
        assert not writer.flush(0.01)
    assert [(each["event"], each["count"]) for each in logs] == [("decisions_lost", 2)]
    store.hangs.set()


def test_a_ledger_that_is_away_ends_the_last_round() -> None:
    store = Store()
    store.error = LedgerUnavailableError("away")
    writer = DecisionWriter(store)
    writer.put(ROW)
    with capture_logs() as logs:
        assert writer.flush(5.0)
    assert [(each["event"], each["count"]) for each in logs] == [("decisions_lost", 1)]
