"""SQLite's writers, one at a time in this process; those that wait at the same time share one commit.

A commit waits for the disk, a millisecond or more, and SQLite makes one at a time. So a writer that is done while
another waits for its turn leaves the transaction open to it, and waits until that one, or the last of a few, has
committed for all. Nobody is answered before what it wrote is on the disk; nobody outside sees it earlier. What one of
them wrote is undone alone when it fails (a savepoint); when the commit fails, it fails for all.

PostgreSQL does the same by itself, and needs none of it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import sqlalchemy as sa

from router.ledger.unavailable import LedgerUnavailableError, NotCommittedError

TOGETHER = 16
"""Writers of one commit: a few milliseconds of work, so that the first does not wait long for the last."""
LEFT_ALONE_S = 0.005
"""After so long without its commit a writer looks whether whoever was to take over has given up waiting."""


class _Shared:
    """One transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        self.transaction = connection.begin()
        self.members = 0
        """Writers that are done."""
        self.ended = threading.Event()
        self.error: Exception | None = None
        """Why it was not committed."""


class SharedCommits:
    """Write transactions of one engine. Thread-safe."""

    def __init__(self, engine: sa.Engine, *, patience_s: float) -> None:
        """`patience_s`: how long a writer waits for its turn: while another process holds the file, each of ours
        would wait for all those before it.
        """
        self._engine = engine
        self._patience_s = patience_s
        self._turn = threading.Lock()
        self._counting = threading.Lock()
        self._waiting = 0
        self._open: _Shared | None = None
        """Left open by a writer that is done, for the next; looked at by whose turn it is."""

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """A turn, with what is written in it committed at the end. Raises what the commit raises, for each of those
        that shared it; NotCommittedError where the transaction was taken back before.
        """
        self._take_turn()
        try:
            shared = self._open or self._begin()
            self._open = None
        except BaseException:
            self._turn.release()
            raise
        try:
            if shared.members:
                shared.connection.exec_driver_sql("SAVEPOINT mine")
            yield shared.connection
            if shared.members:
                shared.connection.exec_driver_sql("RELEASE mine")
            elif not _is_open(shared.connection):
                raise NotCommittedError("taken back by SQLite, and not noticed")
        except Exception:
            self._undo(shared)
            raise
        except BaseException:
            with contextlib.suppress(Exception):  # whatever becomes of the others', this thread is to end
                self._undo(shared)
            raise
        shared.members += 1
        self._commit_or_leave(shared)
        self._wait(shared)

    def _wait(self, shared: _Shared) -> None:
        """Until it is on the disk; raises what kept it from there."""
        while not shared.ended.wait(LEFT_ALONE_S):
            # Who waited may have given up. Whoever has the turn and finds it open takes it over, or ends it.
            if self._turn.acquire(blocking=False):
                try:
                    if self._open is shared:
                        self._open = None
                        self._end(shared)
                finally:
                    self._turn.release()
        if shared.error is not None:
            raise shared.error

    def _take_turn(self) -> None:
        with self._counting:
            self._waiting += 1
        try:
            taken = self._turn.acquire(timeout=self._patience_s)
        finally:
            with self._counting:
                self._waiting -= 1
        if not taken:
            raise LedgerUnavailableError("this process's other commits take too long")

    def _begin(self) -> _Shared:
        connection = self._engine.connect()
        try:
            return _Shared(connection)
        except BaseException:
            connection.close()
            raise

    def _commit_or_leave(self, shared: _Shared) -> None:
        """At the end of a turn."""
        try:
            if self._waiting and shared.members < TOGETHER:
                self._open = shared
            else:
                self._end(shared)
        finally:
            self._turn.release()

    def _undo(self, shared: _Shared) -> None:
        """Take back what the writer whose turn it is has written, and nothing of the others'."""
        if not shared.members:
            try:
                shared.transaction.rollback()
            finally:
                try:
                    shared.connection.close()
                finally:
                    self._turn.release()
            return
        try:
            shared.connection.exec_driver_sql("ROLLBACK TO mine")
            shared.connection.exec_driver_sql("RELEASE mine")
        except BaseException as error:
            # SQLite has taken all of it back by itself, as it does when the disk is full or fails it in a statement
            # (https://sqlite.org/lang_transaction.html#response_to_errors_within_a_transaction): no commit has begun.
            # This writer is told so too: what it met may have been another's row, which is not there after all.
            away = NotCommittedError(type(error).__name__)
            try:
                self._fail(shared, away)
            finally:
                self._turn.release()
            if not isinstance(error, Exception):
                raise
            raise away from None
        self._commit_or_leave(shared)
        # It may have failed because of what the others wrote: nobody is told of that before it is on the disk.
        self._wait(shared)

    def _end(self, shared: _Shared) -> None:
        """Commit for all; what it raises is told to each by its own wait. Raises only what interrupts this thread."""
        try:
            shared.transaction.commit()
        except Exception as error:  # noqa: BLE001 - raised by everyone who shares it
            self._fail(shared, error)
        except BaseException:
            # It may have come before the commit, or after it: the others are told that, and not to end themselves.
            self._fail(shared, LedgerUnavailableError("interrupted in a commit"))
            raise
        else:
            try:
                with contextlib.suppress(Exception):  # it is committed, whatever becomes of the connection
                    shared.connection.close()
            finally:
                shared.ended.set()

    def _fail(self, shared: _Shared, error: Exception) -> None:
        shared.error = error
        try:
            with contextlib.suppress(Exception):
                shared.transaction.rollback()
            with contextlib.suppress(Exception):
                shared.connection.close()
        finally:
            shared.ended.set()


def _is_open(connection: sa.Connection) -> bool:
    """Whether SQLite still has the transaction that was begun."""
    driver = connection.connection.dbapi_connection
    return driver is not None and bool(driver.in_transaction)
