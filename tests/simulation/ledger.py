"""The real ledger on a fast disk, with the scheduler between its transactions.

Speed comes from the test alone: the file is in memory, and SQLite is told not to wait for it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from router.ledger.engine import Database, translated
from router.ledger.migrate import migrate
from router.ledger.tables import metadata
from router.ledger.unavailable import CommitUnknownError, LedgerUnavailableError
from tests.simulation.scheduler import Scheduler

_EMPTIED = [table for table in reversed(metadata.sorted_tables) if table.name != "api_keys"]


class SimDatabase(Database):
    """A ledger whose every transaction is a point where the seed decides what happens."""

    def __init__(self, url: str) -> None:
        super().__init__(url, pool_size=1)
        self.scheduler: Scheduler | None = None
        self.fault: Any = None
        """Asked before and after each transaction whether the ledger is away; None: never."""
        event.listen(self.engine, "connect", _hurry)
        self._quick: sa.Connection | None = None
        self._raw: Any = None

    def hurry(self) -> None:
        """From now on everything goes through one connection: no transaction is open while another one begins.

        Neither a pool nor its events then cost anything: measured, 0.34 to 0.26 s of CPU a seed.
        """
        self._raw = sqlite3.connect(
            self.engine.url.database or "", check_same_thread=False, isolation_level=None, cached_statements=512
        )
        _hurry(self._raw, None)
        self._raw.execute("PRAGMA foreign_keys=ON")
        engine = sa.create_engine(
            "sqlite://", creator=lambda: self._raw, poolclass=sa.StaticPool, hide_parameters=True
        )
        self._quick = engine.connect()

    @contextlib.contextmanager
    def _at_once(self, begin: str) -> Iterator[sa.Connection]:
        connection = self._quick
        assert connection is not None
        with translated():
            self._raw.execute(begin)
            try:
                yield connection
            except BaseException:
                connection.rollback()
                self._raw.rollback()
                raise
            connection.commit()
            self._raw.commit()

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        scheduler = self.scheduler
        if scheduler is None:
            with super().write() as connection:
                yield connection
            return
        scheduler.step("before commit")
        self._maybe_away("commit refused")
        scheduler.current.writes += 1
        scheduler.in_transaction = True
        try:
            with self._at_once("BEGIN IMMEDIATE") as connection:
                yield connection
        finally:
            scheduler.in_transaction = False
        scheduler.step("after commit")
        self._maybe_away("commit forgotten")

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        scheduler = self.scheduler
        if scheduler is None:
            with super().read() as connection:
                yield connection
            return
        scheduler.step("before read")
        self._maybe_away("read refused")
        scheduler.in_transaction = True
        try:
            with self._at_once("BEGIN") as connection:
                yield connection
        finally:
            scheduler.in_transaction = False

    @contextlib.contextmanager
    def look(self) -> Iterator[sa.Connection]:
        if self.scheduler is None:
            with super().look() as connection:
                yield connection
            return
        with self.read() as connection:
            yield connection

    def _maybe_away(self, how: str) -> None:
        if self.fault is not None and self.fault(how):
            assert self.scheduler is not None
            self.scheduler.note(how)
            raise (CommitUnknownError if how == "commit forgotten" else LedgerUnavailableError)("simulated")

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """What the ledger holds, read behind everybody's back: no step."""
        cursor = self._raw.execute(query, values)
        names = [each[0] for each in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def empty(self) -> None:
        """Forget the last seed."""
        self._raw.execute("BEGIN IMMEDIATE")
        for table in _EMPTIED:
            self._raw.execute(f"DELETE FROM {table.name}")
        self._raw.execute("COMMIT")

    def close(self) -> None:
        """Let go of the file."""
        if self._quick is not None:
            self._quick.close()
            self._raw.close()
        super().close()


def _hurry(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=MEMORY")
    cursor.execute("PRAGMA synchronous=OFF")
    cursor.execute("PRAGMA locking_mode=EXCLUSIVE")
    cursor.close()


@contextlib.contextmanager
def open_ledger() -> Iterator[SimDatabase]:
    """One ledger for all the seeds of an operating-system process."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory, prefix="simulation-") as folder:
        database = SimDatabase(f"sqlite:///{Path(folder) / 'ledger.db'}")
        migrate(database)
        database.engine.dispose()
        database.hurry()
        try:
            yield database
        finally:
            database.close()
