"""A new ledger of each kind, for a test or a whole module of them."""

from __future__ import annotations

import contextlib
import functools
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from router.ledger.engine import Database
from router.ledger.migrate import migrate
from router.ledger.tables import metadata
from tests.integration.postgres import Databases

BACKENDS = ("sqlite", "postgres")

Prepare = Callable[[str], object]
"""Fills the empty database of that URL, and has closed its connections when it is done. Called once in a test
process for each kind of database: a copy is sooner made. So it is a function of a module, not of a test."""


def with_tables(url: str) -> None:
    """This version's tables, and no row."""
    database = Database(url, pool_size=1)
    migrate(database)
    database.close()


@contextlib.contextmanager
def ledger_on(
    backend: str, request: pytest.FixtureRequest, folder: Path, *, prepare: Prepare | None = with_tables
) -> Iterator[str]:
    """The URL of a new database, as `prepare` leaves one; None: without a table."""
    if backend == "sqlite":
        path = folder / f"ledger-{uuid.uuid4().hex}.db"
        if prepare is not None:
            path.write_bytes(_file(prepare))
        yield f"sqlite:///{path}"
        return
    server: Databases = request.getfixturevalue("postgres")
    spare = server.spare
    url = spare.pop() if prepare is with_tables and spare else server.create(prepare)
    try:
        yield url
    finally:
        if prepare is with_tables:
            server.throw_out(url)
            _empty(url)
            spare.append(url)
        else:
            server.drop(url)


def _empty(url: str) -> None:
    """Delete every row, and have numbers begin at 1 again: a test cannot tell it from a new one."""
    with Database(url, pool_size=1).write() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())
        connection.exec_driver_sql(
            "SELECT setval(format('%%I.%%I', schemaname, sequencename)::regclass, start_value, false)"
            " FROM pg_sequences WHERE last_value IS NOT NULL"
        )


@functools.cache
def _file(prepare: Prepare) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        prepare(f"sqlite:///{path}")
        assert not path.with_name("ledger.db-wal").exists(), "somebody is still connected: the file is not all of it"
        return path.read_bytes()
