"""The tables that the migrations make are those of `tables.py`, however many processes make them at once."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from router.ledger import engine
from router.ledger.engine import Database
from router.ledger.migrate import ADVISORY_LOCK, alembic_config, migrate
from router.ledger.tables import metadata
from router.ledger.unavailable import LedgerUnavailableError
from tests.integration.postgres import Databases

MIGRATE = """
import sys
from router.ledger.engine import Database
from router.ledger.migrate import migrate
migrate(Database(sys.argv[1], pool_size=2))
"""


@pytest.fixture
def database(bare_url: str) -> Iterator[Database]:
    database = Database(bare_url, pool_size=4)
    yield database
    database.close()


def _revision(database: Database) -> str | None:
    with database.read() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def test_the_migrations_make_exactly_the_tables_that_the_queries_use(database: Database) -> None:
    """Columns, types, nullability, indexes and unique constraints: nothing is left to migrate."""
    migrate(database)
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        found = sa.inspect(connection)
        for table in metadata.tables.values():
            assert found.get_pk_constraint(table.name)["constrained_columns"] == [c.name for c in table.primary_key]
            foreign = {each["referred_table"] for each in found.get_foreign_keys(table.name)}
            assert foreign == {key.column.table.name for key in table.foreign_keys}


def test_a_reference_is_held_once_by_the_database_itself(database: Database) -> None:
    """The partial unique index is there and is partial, on both databases."""
    migrate(database)
    with database.read() as connection:
        indexes = {each["name"]: each for each in sa.inspect(connection).get_indexes("payments")}
    held = indexes["uq_payments_held_reference"]
    assert held["unique"]
    assert [str(value) for name, value in held["dialect_options"].items() if name.endswith("_where")] == [
        "holds_reference"
    ]


def test_migrating_twice_changes_nothing(database: Database) -> None:
    """The head is the head, and what is in the tables stays."""
    migrate(database)
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    assert _revision(database) == head
    with database.write() as connection:
        connection.execute(metadata.tables["heartbeats"].insert(), {"process": "kept", "at": 1})
    migrate(database)
    assert _revision(database) == head
    with database.read() as connection:
        assert connection.scalar(sa.select(metadata.tables["heartbeats"].c.process)) == "kept"


def test_several_threads_may_migrate_at_once(bare_url: str) -> None:
    """Each with a database of its own, as web and worker in one process would."""
    opened = [Database(bare_url, pool_size=2) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(migrate, opened)) == [None] * 4
    assert _revision(opened[0]) is not None
    for each in opened:
        each.close()


def test_several_processes_may_migrate_at_once(database: Database, bare_url: str) -> None:
    """As `make run` starts them."""
    command = [sys.executable, "-c", MIGRATE, bare_url]
    started = [subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE) for _ in range(3)]
    for each in started:
        _, errors = each.communicate(timeout=30)
        assert each.returncode == 0, errors.decode()
    assert _revision(database) is not None


def test_a_long_migration_elsewhere_is_waited_for(postgres: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than a query may take: the wait for another process's migration is not a query of a payment."""
    monkeypatch.setattr(engine, "POSTGRES_STATEMENT_TIMEOUT_MS", 50)
    url = postgres.create()
    database = Database(url, pool_size=2)
    holder = sa.create_engine(database.engine.url, poolclass=sa.NullPool)
    with holder.connect() as connection, ThreadPoolExecutor(1) as pool:
        connection.execute(sa.select(sa.func.pg_advisory_lock(ADVISORY_LOCK)))
        waiting = pool.submit(migrate, database)
        time.sleep(0.2)
        assert not waiting.done()
        connection.execute(sa.select(sa.func.pg_advisory_unlock(ADVISORY_LOCK)))
        waiting.result(10)
    assert _revision(database) is not None
    database.close()
    postgres.drop(url)


def test_a_ledger_that_is_not_there_is_said_to_be_unavailable(postgres: Databases, tmp_path: Path) -> None:
    """One error for whoever starts the service, not the driver's."""
    nowhere = postgres.admin_url.set(database="no_such_database").render_as_string(hide_password=False)
    for url in (nowhere, "postgresql://nobody@/nothing?host=/nonexistent"):
        with pytest.raises(LedgerUnavailableError):
            migrate(Database(url))
    broken = tmp_path / "ledger.db"
    broken.write_bytes(b"this is not a database" * 100)
    with pytest.raises(LedgerUnavailableError):
        migrate(Database(f"sqlite:///{broken}"))


def test_reads_see_one_moment(database: Database, bare_url: str) -> None:
    """Between two queries of one read another process commits: the read does not see half of it."""
    migrate(database)
    table = metadata.tables["heartbeats"]
    other = Database(bare_url, pool_size=1)

    def commit() -> None:
        with other.write() as connection:
            connection.execute(table.insert(), {"process": "other", "at": 1})

    with database.read() as connection:
        count = sa.select(sa.func.count()).select_from(table)
        before = connection.scalar(count)
        thread = threading.Thread(target=commit)
        thread.start()
        thread.join(5)
        assert connection.scalar(count) == before == 0
    with database.read() as connection:
        assert connection.scalar(count) == 1
    other.close()
