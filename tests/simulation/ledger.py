"""The real ledger on a fast disk, with the scheduler between its transactions.

Speed comes from the test alone: the file is in memory, and SQLite is told not to wait for it.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from router.ledger.engine import Database
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
            with super().write() as connection:
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
            with super().read() as connection:
                yield connection
        finally:
            scheduler.in_transaction = False

    def _maybe_away(self, how: str) -> None:
        if self.fault is not None and self.fault(how):
            assert self.scheduler is not None
            self.scheduler.note(how)
            raise (CommitUnknownError if how == "commit forgotten" else LedgerUnavailableError)("simulated")

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """What the ledger holds, read behind everybody's back: no step."""
        raw = self.engine.raw_connection()
        try:
            cursor = raw.cursor()
            cursor.execute(query, values)
            names = [each[0] for each in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        finally:
            raw.close()

    def empty(self) -> None:
        """Forget the last seed."""
        raw = self.engine.raw_connection()
        try:
            cursor = raw.cursor()
            cursor.execute("BEGIN IMMEDIATE")
            for table in _EMPTIED:
                cursor.execute(f"DELETE FROM {table.name}")
            cursor.execute("COMMIT")
        finally:
            raw.close()


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
        try:
            yield database
        finally:
            database.close()
