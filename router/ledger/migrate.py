"""Brings a ledger's tables to this version's shape; safe to call from every process at once."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from router.ledger.engine import Database, translated

ADVISORY_LOCK = 0x706F696E74  # "point": any number that nothing else in the database locks by


def alembic_config() -> Config:
    """The one migration history, for both databases."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def is_current(database: Database) -> bool:
    """Whether the tables are this version's; changes nothing. Raises LedgerUnavailableError."""
    with database.read() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    return current == ScriptDirectory.from_config(alembic_config()).get_current_head()


def migrate(database: Database) -> None:
    """Create or upgrade the tables. Waits while another process does the same. Raises LedgerUnavailableError."""
    config = alembic_config()
    head = ScriptDirectory.from_config(config).get_current_head()
    with _one_at_a_time(database):
        with database.read() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
        if current == head:
            return
        with database.write() as connection:
            if not database.is_sqlite:
                # A payment's query is cut after seconds; copying a large table is not a payment's query.
                connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


@contextlib.contextmanager
def _one_at_a_time(database: Database) -> Iterator[None]:
    if database.is_sqlite:
        path = Path(database.engine.url.database or "ledger.db")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(path.name + ".migrating").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        return
    with translated(), database.engine.connect() as connection:
        # Another process's migration may take longer than any query of a payment may.
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.execute(sa.select(sa.func.pg_advisory_lock(ADVISORY_LOCK)))
        connection.commit()
        try:
            yield
        finally:
            connection.execute(sa.select(sa.func.pg_advisory_unlock(ADVISORY_LOCK)))
            connection.commit()
