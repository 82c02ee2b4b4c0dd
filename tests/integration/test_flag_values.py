"""Known flags and their audit, on both databases: one row a change, whoever and however many tell it."""

from __future__ import annotations

import copy
import datetime as dt
import itertools
import multiprocessing
import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from flags.changes import Definition
from flags.contract import PRIMARY_PROVIDER
from flags.definitions import definitions
from flags.document import new_document
from router.ledger.engine import Database
from router.ledger.flag_values import FlagValueLedger
from router.ledger.migrate import migrate

FLAG: dict[str, Any] = new_document(definitions(("stripe", "adyen")).values())["flags"][PRIMARY_PROVIDER]
START = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
SOURCE = "launchdarkly:0123"


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[FlagValueLedger]:
    database = Database(ledger_url, pool_size=8)
    migrate(database)
    yield FlagValueLedger(database)
    database.close()


def primary(version: int, served: int = 0, *, at_s: float = 0, settled: bool = False) -> Definition:
    """The primary flag in that version, serving stripe (0) or adyen (1)."""
    data = {**copy.deepcopy(FLAG), "version": version, "fallthrough": {"variation": served}}
    return Definition("flag", PRIMARY_PROVIDER, version, data, START + dt.timedelta(seconds=at_s), settled)


def served(ledger: FlagValueLedger, source: str = SOURCE) -> Any:
    """The version known last and the index it serves."""
    [known] = ledger.known(source)
    assert known.data is not None
    return known.version, known.data["fallthrough"]["variation"]


def audit(ledger: FlagValueLedger) -> list[tuple[Any, Any, int]]:
    """What was served before and after each change, and its version; oldest first."""
    return [
        (each.old and each.old["serves"], each.new and each.new["serves"], each.version)
        for each in reversed(ledger.page(limit=1000))
    ]


def test_changes_are_written_with_what_was_and_what_is(ledger: FlagValueLedger) -> None:
    """In the order told, with who saw them; the newest first when read."""
    assert ledger.known(SOURCE) == []
    heard = ledger.saw(SOURCE, [primary(1), primary(2, 1, at_s=5), primary(3, 0, at_s=9)], by="web:a:1")
    assert [each.version for each in heard.written] == [1, 2, 3]
    assert audit(ledger) == [(None, "stripe", 1), ("stripe", "adyen", 2), ("adyen", "stripe", 3)]
    assert served(ledger) == (3, 0)
    newest = ledger.changes(PRIMARY_PROVIDER, START + dt.timedelta(seconds=5))
    assert [(each.version, each.seen_by, each.at) for each in newest] == [
        (3, "web:a:1", START + dt.timedelta(seconds=9)),
        (2, "web:a:1", START + dt.timedelta(seconds=5)),
    ]
    assert newest[0].old == {"on": True, "serves": "adyen", "off": "stripe", "rules": 0, "targets": 0}


def test_what_is_known_changes_nothing_nor_does_what_is_late(ledger: FlagValueLedger) -> None:
    """Told again by the next process, or by one that lags; a lag is contested, and of no consequence."""
    ledger.saw(SOURCE, [primary(1), primary(2, 1)], by="a")
    again = ledger.saw(SOURCE, [primary(1), primary(2, 1)], by="b")
    assert (again.written, again.contested) == ([], frozenset())
    late = ledger.saw(SOURCE, [primary(1)], by="c")
    assert (late.written, late.contested) == ([], frozenset({("flag", PRIMARY_PROVIDER)}))
    assert served(ledger) == (2, 1)


def test_a_higher_version_of_the_same_is_no_change(ledger: FlagValueLedger) -> None:
    """Until a process tells what it was in between, by which its payments went: there and back, once."""
    ledger.saw(SOURCE, [primary(1)], by="a")
    assert ledger.saw(SOURCE, [primary(3)], by="b").written == []
    told = [primary(2, 1, at_s=5), primary(3, at_s=6)]
    assert [each.version for each in ledger.saw(SOURCE, told, by="a").written] == [2, 3]
    assert ledger.saw(SOURCE, told, by="c").written == []
    assert audit(ledger) == [(None, "stripe", 1), ("stripe", "adyen", 2), ("adyen", "stripe", 3)]
    assert served(ledger) == (3, 0)
    ledger.saw(SOURCE, [primary(4, 1)], by="c")
    assert audit(ledger)[3:] == [("stripe", "adyen", 4)]
    assert served(ledger) == (4, 1)


def test_an_environment_made_anew_is_believed_once_it_has_settled(ledger: FlagValueLedger) -> None:
    """Its versions start again: contested at first, then written, and from there on as usual."""
    ledger.saw(SOURCE, [primary(7, 1, at_s=0)], by="a")
    assert ledger.saw(SOURCE, [primary(1, at_s=60)], by="a").contested
    assert [each.version for each in ledger.saw(SOURCE, [primary(1, at_s=60, settled=True)], by="a").written] == [1]
    assert ledger.saw(SOURCE, [primary(1, at_s=61, settled=True)], by="b").written == []
    assert [each.version for each in ledger.saw(SOURCE, [primary(2, 1, at_s=90)], by="b").written] == [2]
    assert audit(ledger) == [(None, "adyen", 7), ("adyen", "stripe", 1), ("stripe", "adyen", 2)]


def test_a_process_whose_stream_stands_still_does_not_bring_back_what_is_old(ledger: FlagValueLedger) -> None:
    """Its full set came before what is known was told: settled or not, it is late."""
    ledger.saw(SOURCE, [primary(7, 1, at_s=100)], by="a")
    late = ledger.saw(SOURCE, [primary(6, at_s=50, settled=True)], by="b")
    assert (late.written, served(ledger)) == ([], (7, 1))


def test_a_file_that_processes_count_differently_is_written_once_an_edit(ledger: FlagValueLedger) -> None:
    """By hand, with no version raised: each process counts its own, and what was seen last is what there is."""
    ledger.saw(SOURCE, [primary(4, 0, at_s=0, settled=True)], by="old")
    ledger.saw(SOURCE, [primary(1, 0, at_s=1, settled=True)], by="young")
    for number in range(1, 6):
        at_s, index = 10.0 * number, number % 2
        for by, count in random.sample([("old", 4 + number), ("young", 1 + number)], k=2):
            ledger.saw(SOURCE, [primary(count, index, at_s=at_s + (by == "old") * 0.05, settled=True)], by=by)
    assert [each[:2] for each in audit(ledger)] == [
        (None, "stripe"),
        *itertools.islice(itertools.cycle([("stripe", "adyen"), ("adyen", "stripe")]), 5),
    ]


def test_a_deletion_is_a_change_and_so_is_the_return(ledger: FlagValueLedger) -> None:
    """What was deleted is not known; a flag that nobody knew cannot be deleted."""
    gone = Definition("flag", PRIMARY_PROVIDER, 3, None, START)
    assert ledger.saw(SOURCE, [gone], by="a").written == []
    ledger.saw(SOURCE, [primary(2), gone, gone], by="a")
    assert ledger.known(SOURCE) == []
    ledger.saw(SOURCE, [primary(4)], by="a")
    assert audit(ledger) == [(None, "stripe", 2), ("stripe", None, 3), (None, "stripe", 4)]


def test_environments_are_apart_and_so_are_a_flag_and_a_segment_of_one_key(ledger: FlagValueLedger) -> None:
    """A staging key in the same ledger changes nothing for production."""
    segment = Definition("segment", PRIMARY_PROVIDER, 9, {"key": PRIMARY_PROVIDER, "version": 9}, START)
    ledger.saw(SOURCE, [primary(5), segment], by="a")
    ledger.saw("file:/flags.json", [primary(1, 1)], by="a")
    assert {each.version for each in ledger.known(SOURCE)} == {5, 9}
    assert served(ledger, "file:/flags.json") == (1, 1)


def test_pages_go_back_in_time_and_may_be_of_one_flag(ledger: FlagValueLedger) -> None:
    """By the number of the oldest that was seen."""
    other = Definition("flag", "other", 1, {**FLAG, "key": "other"}, START)
    ledger.saw(SOURCE, [primary(1), other, *(primary(n, n % 2) for n in range(2, 10))], by="a")
    first = ledger.page(limit=4)
    assert [each.version for each in first] == [9, 8, 7, 6]
    assert [each.version for each in ledger.page(limit=2, before=first[-1].number)] == [5, 4]
    assert [each.version for each in ledger.page(limit=9, key="other")] == [1]


def test_what_no_database_takes_is_left_out_and_the_rest_is_kept(ledger: FlagValueLedger) -> None:
    """A file written by hand may hold NaN, or a version of forty digits."""
    nan = Definition("flag", "nan", 1, {**FLAG, "variations": [float("nan")]}, START)
    ledger.saw(SOURCE, [nan, Definition("flag", "a\x00b", 1, dict(FLAG), START), primary(10**40)], by="a")
    assert served(ledger) == (2**63 - 1, 0)


def test_threads_that_tell_the_same_at_once_write_each_change_once(ledger: FlagValueLedger) -> None:
    """Flags that nobody knew before, from eight threads: no row twice, none missing."""
    barrier = threading.Barrier(8)
    heard: list[int] = []

    def tell(number: int) -> None:
        barrier.wait()
        for version in range(1, 11):
            told = [
                Definition(
                    "flag", f"flag-{each}", version, {**FLAG, "version": version, "on": bool(version % 2)}, START
                )
                for each in range(3)
            ]
            heard.append(len(ledger.saw(SOURCE, told, by=str(number)).written))

    threads = [threading.Thread(target=tell, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(heard) == 30
    rows = ledger.page(limit=100)
    assert sorted((each.key, each.version) for each in rows) == [
        (f"flag-{each}", version) for each in range(3) for version in range(1, 11)
    ]


def _tell(url: str, number: int, seed: int) -> None:
    """A process of its own, that hears every change a little later or sooner than the others."""
    database = Database(url, pool_size=2)
    ledger = FlagValueLedger(database)
    chance = random.Random(f"{seed}-{number}")
    versions = list(range(1, 41))
    while versions:
        some = [versions.pop(0) for _ in range(min(len(versions), chance.randint(1, 6)))]
        ledger.saw(SOURCE, [primary(version, version % 2, at_s=version) for version in some], by=f"web:{number}")
    database.close()


def test_three_processes_write_each_change_once_and_in_order(ledger: FlagValueLedger, ledger_url: str) -> None:
    """Forty toggles, heard by all three: the audit is one chain, each change from what the one before left."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_tell, args=(ledger_url, number, 1)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    chain = audit(ledger)
    assert [version for *_, version in chain] == list(range(1, 41))
    assert all(before[1] == after[0] for before, after in itertools.pairwise(chain))
    assert served(ledger) == (40, 0)
