"""Writers that wait for SQLite at the same time share a commit, and each is told the truth about its own rows."""

from __future__ import annotations

import contextlib
import functools
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from router.ledger.engine import Database
from router.ledger.unavailable import CommitUnknownError, LedgerUnavailableError, NotCommittedError


class Rows:
    """A table of numbers, and how many commits wrote it."""

    def __init__(self, path: Path) -> None:
        self.database = Database(f"sqlite:///{path}")
        with self.database.write() as connection:
            connection.exec_driver_sql("CREATE TABLE numbers (number INTEGER PRIMARY KEY)")
        self.commits = 0
        self.fails: Callable[[], None] = lambda: None
        sa.event.listen(self.database.engine, "commit", self._committed)

    def _committed(self, connection: sa.Connection) -> None:
        if connection.get_execution_options().get("ledger_write"):
            self.fails()
            self.commits += 1

    def write(self, number: int, then: Callable[[], None] = lambda: None) -> None:
        with self.database.write() as connection:
            connection.exec_driver_sql("INSERT INTO numbers VALUES (?)", (number,))
            then()

    def numbers(self) -> set[int]:
        with self.database.read() as connection:
            return set(connection.exec_driver_sql("SELECT number FROM numbers").scalars())

    def until_waiting(self, count: int) -> None:
        until = time.monotonic() + 5
        while self.database._writers._waiting < count:
            assert time.monotonic() < until
            time.sleep(0.001)


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rows]:
    # On a busy machine the next writer may take longer than that to wake, and the one before commits alone.
    monkeypatch.setattr("router.ledger.shared_commits.LEFT_ALONE_S", 30.0)
    rows = Rows(tmp_path / "rows.db")
    yield rows
    rows.database.close()


class Told(threading.Thread):
    """A writer in a thread of its own, and what it was told."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__()
        self._work = work
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test looks at it
            self.error = error


def together(rows: Rows, *others: Callable[[], None]) -> list[Told]:
    """A writer of 0, and these, each of which waits for its turn before the first is done."""
    begun, go_on = threading.Event(), threading.Event()

    def first() -> None:
        begun.set()
        go_on.wait(5)

    told = [Told(lambda: rows.write(0, first))]
    begun.wait(5)
    for number, other in enumerate(others, 1):
        told.append(Told(other))
        rows.until_waiting(number)
    go_on.set()
    for each in told:
        each.join(10)
        assert not each.is_alive()
    return told


def refuse() -> None:
    raise KeyError("a refusal of this writer's own")


def test_those_that_wait_share_a_commit(rows: Rows) -> None:
    told = together(rows, *[functools.partial(rows.write, number) for number in range(1, 6)])
    assert [each.error for each in told] == [None] * 6
    assert rows.numbers() == set(range(6))
    assert rows.commits == 1


def test_nobody_is_answered_before_the_commit(rows: Rows) -> None:
    """While the last of them still writes, the first is waiting, and nobody else sees its row."""
    seen: list[object] = []
    told: list[Told] = []

    def look() -> None:
        time.sleep(0.02)
        seen.append(rows.numbers())

    told += together(rows, lambda: rows.write(1, look))
    assert seen == [set()]
    assert rows.numbers() == {0, 1}


def test_one_that_fails_takes_back_its_own_rows_only(rows: Rows) -> None:
    told = together(
        rows, lambda: rows.write(1), lambda: rows.write(2, refuse), lambda: rows.write(3), lambda: rows.write(1)
    )
    kinds = [type(each.error) for each in told]
    assert rows.numbers() == {0, 1, 3}
    assert sum(kind is sa.exc.IntegrityError for kind in kinds) == 1  # of the two that wrote 1
    assert sum(kind is KeyError for kind in kinds) == 1


def test_the_last_that_fails_leaves_the_others_committed(rows: Rows) -> None:
    told = together(rows, lambda: rows.write(1, refuse))
    assert [type(each.error) for each in told] == [type(None), KeyError]
    assert rows.numbers() == {0}


def test_the_first_that_fails_costs_the_next_nothing(rows: Rows) -> None:
    with pytest.raises(KeyError):
        rows.write(0, refuse)
    rows.write(1)
    assert rows.numbers() == {1}


def test_a_commit_that_fails_fails_for_all_who_share_it(rows: Rows) -> None:
    """The refused one too: what it met may have been another's row, which is not there after all."""

    def fail() -> None:
        raise sa.exc.OperationalError("COMMIT", None, OSError("the disk is gone"))

    rows.fails = fail
    told = together(rows, lambda: rows.write(1), lambda: rows.write(2, refuse))
    assert sorted(type(each.error).__name__ for each in told) == [
        "CommitUnknownError",
        "CommitUnknownError",
        "LedgerUnavailableError",
    ]
    assert all(isinstance(each.error, LedgerUnavailableError) for each in told)
    assert issubclass(CommitUnknownError, LedgerUnavailableError)
    assert rows.numbers() == set()
    rows.fails = lambda: None
    rows.write(3)
    assert rows.numbers() == {3}


def test_what_sqlite_takes_back_by_itself_is_known_not_to_be_there(rows: Rows) -> None:
    """A statement that finds no room takes all members' rows with it: nobody's commit has begun, so none is in doubt.

    Before, those that were done were told that theirs might be on the disk.
    """
    with rows.database.write() as connection:
        connection.exec_driver_sql("CREATE TABLE large (data BLOB)")

    def fill() -> None:
        with rows.database.write() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
            try:
                connection.exec_driver_sql("INSERT INTO large VALUES (zeroblob(100000))")
            finally:
                driver = connection.connection.dbapi_connection
                assert driver is not None
                driver.execute("PRAGMA max_page_count = 1000000")
                assert not driver.in_transaction  # else this shows nothing

    told = together(rows, fill)
    assert [type(each.error) for each in told] == [NotCommittedError] * 2
    assert rows.numbers() == set()
    rows.write(7)
    assert rows.numbers() == {7}


def test_a_rollback_that_nobody_noticed_is_no_commit(rows: Rows) -> None:
    """Whoever swallows the error that took its transaction back must not be told that it was written."""

    def swallow() -> None:
        with rows.database.write() as connection:
            connection.exec_driver_sql("INSERT INTO numbers VALUES (1)")
            connection.exec_driver_sql("ROLLBACK")

    for told in (together(rows, swallow), together(rows)):
        assert {type(each.error) for each in told} <= {NotCommittedError, type(None)}
    with pytest.raises(NotCommittedError):
        swallow()
    assert rows.numbers() == {0}


def test_who_is_interrupted_in_a_commit_ends_alone(rows: Rows) -> None:
    """The others are told that their commit is in doubt: the interrupt is not theirs."""
    once = iter([KeyboardInterrupt()])

    def interrupt() -> None:
        for each in once:
            raise each

    rows.fails = interrupt
    told = together(rows, lambda: rows.write(1), lambda: rows.write(2))
    assert sorted(type(each.error).__name__ for each in told) == [
        "CommitUnknownError",
        "CommitUnknownError",
        "KeyboardInterrupt",
    ]
    rows.write(3)
    assert rows.numbers() == {3}


def test_who_is_interrupted_while_it_writes_leaves_the_others_theirs(rows: Rows) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    told = together(rows, lambda: rows.write(1, interrupt), lambda: rows.write(2))
    assert sorted(type(each.error).__name__ for each in told) == ["KeyboardInterrupt", "NoneType", "NoneType"]
    assert rows.numbers() == {0, 2}


def test_who_is_interrupted_after_the_commit_leaves_nobody_waiting(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the connection is given back: what is committed is committed."""
    once = iter([KeyboardInterrupt()])
    close = sa.Connection.close

    def interrupted(connection: sa.Connection) -> None:
        close(connection)
        for each in once:
            raise each

    monkeypatch.setattr(sa.Connection, "close", interrupted)
    told = together(rows, lambda: rows.write(1), lambda: rows.write(2))
    assert sorted(type(each.error).__name__ for each in told) == ["KeyboardInterrupt", "NoneType", "NoneType"]
    assert rows.numbers() == {0, 1, 2}


def test_one_whose_follower_gives_up_commits_by_itself(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody was counted as waiting, and never comes."""
    monkeypatch.setattr("router.ledger.shared_commits.LEFT_ALONE_S", 0.005)
    monkeypatch.setattr(rows.database._writers, "_waiting", 1)
    rows.write(1)
    assert rows.numbers() == {1}
    rows.write(2)
    assert rows.numbers() == {1, 2}


def test_a_storm_of_writers_loses_nothing(rows: Rows) -> None:
    def many(base: int) -> None:
        for number in range(base, base + 50):
            rows.write(number)

    told = [Told(functools.partial(many, base)) for base in range(0, 800, 100)]
    for each in told:
        each.join(60)
    assert [each.error for each in told] == [None] * 8
    assert rows.numbers() == {base + number for base in range(0, 800, 100) for number in range(50)}
    assert rows.commits < 400


class OwnError(Exception):
    """A writer's own refusal."""


def trouble(connection: sa.Connection, kind: int, number: int) -> None:
    """What happens to one writer in the middle of its transaction; most of the time nothing."""
    again = sa.text("INSERT INTO numbers VALUES (:number)"), {"number": number}
    if kind == 0:
        driver = connection.connection.dbapi_connection
        assert driver is not None
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        try:
            connection.exec_driver_sql("INSERT INTO large VALUES (zeroblob(100000))")
        finally:
            driver.execute("PRAGMA max_page_count = 1000000")
    elif kind == 1:
        raise OwnError
    elif kind == 2:
        connection.execute(*again)
    elif kind == 3:
        with contextlib.suppress(sa.exc.IntegrityError), connection.begin_nested():
            connection.execute(*again)


def test_in_a_storm_of_faults_each_is_told_the_truth(rows: Rows) -> None:
    """Full disks, refusals and commits that fail, in eight threads: what was answered is there, whole; what was
    refused is not, whoever shared its transaction.
    """
    with rows.database.write() as connection:
        connection.exec_driver_sql("CREATE TABLE halves (number INTEGER PRIMARY KEY)")
        connection.exec_driver_sql("CREATE TABLE large (data BLOB)")
    commits = random.Random(1)

    def fail() -> None:
        if commits.random() < 0.1:
            raise sa.exc.OperationalError("COMMIT", None, OSError("the disk is gone"))

    rows.fails = fail
    told: dict[int, str] = {}

    def write(number: int, kind: int) -> str:
        try:
            with rows.database.write() as connection:
                connection.exec_driver_sql("INSERT INTO numbers VALUES (?)", (number,))
                trouble(connection, kind, number)
                connection.exec_driver_sql("INSERT INTO halves VALUES (?)", (number,))
        except CommitUnknownError:
            return "in doubt"
        except (LedgerUnavailableError, OwnError, sa.exc.IntegrityError):
            return "refused"
        return "written"

    def many(base: int) -> None:
        kinds = random.Random(base)
        for number in range(base, base + 60):
            told[number] = write(number, kinds.randrange(30))

    threads = [Told(functools.partial(many, base)) for base in range(0, 800, 100)]
    for each in threads:
        each.join(60)
        assert not each.is_alive()
    assert [each.error for each in threads] == [None] * 8
    with rows.database.read() as connection:
        halves = set(connection.exec_driver_sql("SELECT number FROM halves").scalars())
    assert rows.numbers() == halves
    assert {number for number, word in told.items() if word == "written"} <= halves
    assert not {number for number, word in told.items() if word == "refused"} & halves
    assert set(told.values()) == {"written", "refused", "in doubt"}


WRITERS = """
import itertools, os, sys, threading
from router.ledger.engine import Database

database = Database(f"sqlite:///{sys.argv[1]}")

def write(base):
    for number in itertools.count(base):
        refused = number % 7 == 3
        try:
            with database.write() as connection:
                connection.exec_driver_sql("INSERT INTO numbers VALUES (?)", (number,))
                connection.exec_driver_sql("INSERT INTO halves VALUES (?)", (number,))
                if refused:
                    raise KeyError
        except KeyError:
            continue
        os.write(1, b"%d\\n" % number)

for thread in range(12):
    threading.Thread(target=write, args=(thread * 1_000_000,)).start()
"""


@pytest.mark.parametrize("answers", [1, 60, 400])
def test_what_was_answered_is_there_after_a_kill_and_nothing_is_half_there(
    rows: Rows, tmp_path: Path, answers: int
) -> None:
    """Twelve threads share commits until their process is killed; each number that was answered is on the disk."""
    with rows.database.write() as connection:
        connection.exec_driver_sql("CREATE TABLE halves (number INTEGER PRIMARY KEY)")
    command = [sys.executable, "-c", WRITERS, str(tmp_path / "rows.db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        told = [process.stdout.readline() for _ in range(answers)]
        process.kill()
        told += process.stdout.read().splitlines()
    answered = {int(each) for each in told}
    assert len(answered) >= answers
    with rows.database.read() as connection:
        halves = set(connection.exec_driver_sql("SELECT number FROM halves").scalars())
    assert rows.numbers() == halves
    assert answered <= halves
    # Of each thread at most the one whose answer the kill cut off.
    assert len(halves - answered) <= 12
    assert not any(number % 7 == 3 for number in halves)
