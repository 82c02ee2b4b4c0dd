"""The ledger's connection: one database, SQLite or PostgreSQL, with the guarantees that money needs.

SQLite runs with `synchronous=FULL` (a commit survives a power cut) and `BEGIN IMMEDIATE` behind one lock per
process: measured, that doubles the throughput and cuts the p99 to a seventh against letting writers collide. Writers
that wait at the same time share a commit (`shared_commits`).
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any, Protocol

import sqlalchemy as sa
from psycopg.pq import TransactionStatus
from pydantic_core import PydanticSerializationError, from_json, to_json
from sqlalchemy import event

from providers.sockets import has_something_to_say
from router.ledger.prepared import as_core_says
from router.ledger.sealed import PLAIN
from router.ledger.shared_commits import SharedCommits
from router.ledger.unavailable import CommitUnknownError, LedgerUnavailableError, NotCommittedError

BUSY_TIMEOUT_MS = 5_000
"""How long SQLite waits for another process's commit; a commit takes milliseconds, so this is hundreds of them."""
CACHE_KIB = 512
"""Of pages that a connection keeps: a payment uses a dozen, and the system keeps the file. SQLite's own 2 MiB, times
the connections, are memory that grows for as long as it takes each of them to have read so much."""
KEPT_STATEMENTS = 48
"""Of SQLite's, read and planned, by connection: each is some 20 KB, and to read one again costs as many microseconds.
The driver's own 128 were most of what a worker's memory grew by in an hour."""
KEPT_CONNECTIONS = 12
"""To SQLite, when they are not in use: Python's own lock and SQLite's one writer let hardly more be in use at once.
A further one costs half a millisecond and plans its statements anew; forty that each came to their statements and
pages some day were memory that grew for hours."""
KEPT_BY_A_WORKER = 4
"""Whom nobody waits for: its loops come to as many within a minute, and to more in a burst once in a while."""
OVERFLOW = 10
"""Connections that loops may have beyond what the requests' threads have."""
POSTGRES_CONNECT_TIMEOUT_S = 3
POSTGRES_STATEMENT_TIMEOUT_MS = 5_000
"""No query of a payment takes more than milliseconds; one that does is a fault to answer, not to wait for."""


def written(document: Any) -> str:
    """A document as the ledger keeps it. What has no UTF-8 (a lone surrogate) the standard library says escaped."""
    try:
        return to_json(document).decode()
    except (PydanticSerializationError, ValueError):
        return json.dumps(document)


def read(text: str | bytes) -> Any:
    """A document that the ledger kept, of this version or an earlier one."""
    try:
        return from_json(text)
    except ValueError:
        return json.loads(text)


class Times(Protocol):
    """Who is told how transactions go."""

    def wrote(self, seconds: float, /) -> None:
        """A write was committed, so long after it was wanted."""

    def failed(self, kind: str, /) -> None:
        """A `read`, a `write` or a `commit_unknown`."""


class _Untold:
    def wrote(self, seconds: float, /) -> None: ...

    def failed(self, kind: str, /) -> None: ...


class Database:
    """Opens read and write transactions. Thread-safe; made after a fork, not before."""

    def __init__(
        self, url: str, *, pool_size: int = 40, kept: int = KEPT_CONNECTIONS, times: Times | None = None
    ) -> None:
        """`pool_size`: threads of requests that use it. `kept`: connections to SQLite that are kept for them."""
        self._times: Times = times or _Untold()
        parsed = sa.make_url(url)
        self.seals = PLAIN
        """What tokens and secrets are sealed and opened with; set before the first query, where there are keys."""
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self.engine = (
            _sqlite_engine(parsed, pool_size, kept) if self.is_sqlite else _postgres_engine(parsed, pool_size)
        )
        self.most_connections = pool_size + OVERFLOW
        self._writer = self.engine.execution_options(ledger_write=True)
        self._writers = SharedCommits(self._writer, patience_s=BUSY_TIMEOUT_MS / 1000)
        self._alone = self.engine.execution_options(ledger_alone=True)
        # SQLite's snapshot lasts as long as the transaction; PostgreSQL must be asked for one.
        self._reader = (
            self.engine if self.is_sqlite else self.engine.execution_options(isolation_level="REPEATABLE READ")
        )

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that commits at the end. Raises LedgerUnavailableError; integrity errors pass.

        A CommitUnknownError where it is the commit itself that failed.
        """
        committing, begun = False, time.perf_counter()
        try:
            with translated(), self._transaction() as connection:
                yield connection
                committing = True
            self._times.wrote(time.perf_counter() - begun)
        except LedgerUnavailableError as error:
            unknown = committing and not isinstance(error, NotCommittedError) and not _is_refusal(error.__context__)
            self._times.failed("commit_unknown" if unknown else "write")
            if unknown:
                raise CommitUnknownError(str(error)) from None
            raise

    @contextlib.contextmanager
    def write_at_once(self) -> Iterator[sa.Connection]:
        """For one statement that is a transaction of its own, on PostgreSQL. Raises as `write`."""
        sent, begun = False, time.perf_counter()
        try:
            with translated(), self._alone.connect() as connection:
                _transact(connection, alone=True)
                sent = True
                yield connection
            self._times.wrote(time.perf_counter() - begun)
        except LedgerUnavailableError as error:
            unknown = sent and not _is_answer(error.__context__)
            self._times.failed("commit_unknown" if unknown else "write")
            if unknown:
                raise CommitUnknownError(str(error)) from None
            raise

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        if self.is_sqlite:
            with self._writers.transaction() as connection:
                yield connection
        else:
            with self._writer.connect() as connection, connection.begin():
                yield connection

    @contextlib.contextmanager
    def look(self) -> Iterator[sa.Connection]:
        """For one query, which needs no transaction to be of one moment. Raises LedgerUnavailableError."""
        with translated(), self._alone.connect() as connection:
            if not self.is_sqlite:
                _transact(connection, alone=True)
            yield connection

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A read of one moment. Raises LedgerUnavailableError."""
        try:
            with translated(), self._reader.connect() as connection, connection.begin():
                yield connection
        except LedgerUnavailableError:
            self._times.failed("read")
            raise

    def close(self) -> None:
        """Close pooled connections."""
        self.engine.dispose()


def _is_refusal(error: BaseException | None) -> bool:
    """Whether a commit that failed so has written nothing, for sure.

    SQLite rolls back a commit that has no room, and a busy one has not begun (https://sqlite.org/rescode.html).
    """
    orig = error.orig if isinstance(error, sa.exc.DBAPIError) else None
    return getattr(orig, "sqlite_errorname", None) in ("SQLITE_FULL", "SQLITE_BUSY")


def _is_answer(error: BaseException | None) -> bool:
    """Whether PostgreSQL itself said no, on a connection that lives on: then it has taken the statement back.

    (Psycopg may drop an old prepared statement afterwards, within the same call: with libpq 17 or later by a message
    of the protocol, which is not refused. With an older one it is a statement, and its error would be taken for this
    one's: the wheel brings its own libpq.)
    """
    if not isinstance(error, sa.exc.DBAPIError) or error.connection_invalidated:
        return False
    return getattr(error.orig, "sqlstate", None) is not None


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Say of whatever the database raises, integrity errors aside, that the ledger is unavailable."""
    try:
        yield
    except (sa.exc.IntegrityError, sa.exc.DataError, sa.exc.ProgrammingError, sa.exc.NotSupportedError):
        raise  # a conflict to be handled, or a fault of ours: neither goes away by waiting
    # DBAPIError: the database said no or is gone. TimeoutError: every pooled connection is busy.
    except (sa.exc.DBAPIError, sa.exc.TimeoutError) as error:
        raise LedgerUnavailableError(_in_words(error)) from None


def _in_words(error: sa.exc.DBAPIError | sa.exc.TimeoutError) -> str:
    """The driver's class and the database's own code: a full disk from a refused connection. Its message may quote
    parameters, so it is not repeated.
    """
    orig = error.orig if isinstance(error, sa.exc.DBAPIError) else None
    code = getattr(orig, "sqlite_errorname", None) or getattr(orig, "sqlstate", None)
    name = type(error if orig is None else orig).__name__
    return name if code is None else f"{name} ({code})"


def _sqlite_engine(url: sa.URL, pool_size: int, kept: int) -> sa.Engine:
    engine = sa.create_engine(
        url,
        pool_size=min(pool_size, kept),
        max_overflow=max(0, pool_size - kept) + OVERFLOW,
        pool_timeout=5,
        pool_use_lifo=True,  # the same few while it is quiet: each has caches of its own
        hide_parameters=True,
        json_serializer=written,
        json_deserializer=read,
        connect_args={
            "check_same_thread": False,
            "timeout": BUSY_TIMEOUT_MS / 1000,
            "cached_statements": KEPT_STATEMENTS,
        },
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        # The driver must not open transactions by itself: BEGIN below says which kind.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        options = connection.get_execution_options()
        if options.get("ledger_alone"):
            return  # one query is of one moment by itself
        # To the driver itself, as prepared statements go: by way of Core it costs a tenth of the transaction.
        driver: Any = connection.connection.dbapi_connection
        text = "BEGIN IMMEDIATE" if options.get("ledger_write", False) else "BEGIN"
        try:
            driver.execute(text)
        except engine.dialect.loaded_dbapi.Error as error:
            raise as_core_says(connection, text, error, driver, None) from error

    return engine


def _postgres_engine(url: sa.URL, pool_size: int) -> sa.Engine:
    engine = sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=OVERFLOW,
        pool_timeout=5,
        pool_use_lifo=True,  # the same few while it is quiet: each has caches of its own
        pool_reset_on_return=None,
        hide_parameters=True,
        json_serializer=written,
        json_deserializer=read,
        connect_args={
            "connect_timeout": POSTGRES_CONNECT_TIMEOUT_S,
            "options": f"-c statement_timeout={POSTGRES_STATEMENT_TIMEOUT_MS}",
        },
    )

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        _transact(connection, alone=bool(connection.get_execution_options().get("ledger_alone")))

    @event.listens_for(engine, "reset")
    def _reset(connection: Any, _record: Any, state: Any) -> None:
        if not state.terminate_only and connection.info.transaction_status != TransactionStatus.IDLE:
            connection.rollback()

    @event.listens_for(engine, "checkin")
    def _given_back(_connection: Any, record: Any) -> None:
        record.info[_USED_AT] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _look(connection: Any, record: Any, _proxy: Any) -> None:
        # A restarted server leaves dead connections in the pool: a write must not be the one to find out. A server
        # that ends a connection says so on its socket; only after a rest can it have gone without a word.
        used_at = record.info.get(_USED_AT)
        if used_at is None:
            return  # made this moment; asked now, a server that goes again would look like a fault of ours
        if time.monotonic() - used_at < ASKED_AFTER_S and not _has_something_to_say(connection):
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error:
            raise sa.exc.InvalidatePoolError from None

    return engine


def _transact(connection: sa.Connection, *, alone: bool) -> None:
    """Have psycopg begin transactions, or leave each statement to be its own.

    Said when it changes, and left so when the connection goes back: a payment's are nearly all alone, and
    SQLAlchemy's own way, by the isolation level, says it twice for each. (An engine's `AUTOCOMMIT` option is
    overridden by it.)
    """
    driver: Any = connection.connection.dbapi_connection
    if driver.autocommit != alone:
        driver.autocommit = alone


_USED_AT = "used_at"
ASKED_AFTER_S = 1.0
"""A connection that was used within the last second is looked at and not asked: asking costs a tenth of a payment's
processor time, three times a payment."""


def _has_something_to_say(connection: Any) -> bool:
    """Whether bytes wait to be read, or the end: a well connection between two transactions is silent."""
    try:
        return has_something_to_say(connection.fileno())
    except Exception:  # noqa: BLE001 - one that is closed here has no file: asking it will tell
        return True
