"""The ledgers that tests are given: each as new, whoever had it before."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from router.clock import SystemClock
from router.ledger.engine import Database
from router.ledger.keys import KeyLedger
from router.ledger.tables import metadata
from tests.integration.ledgers import ledger_on


def rows(database: Database) -> int:
    """In all tables."""
    with database.read() as connection:
        return sum(
            connection.scalar(sa.select(sa.func.count()).select_from(each)) or 0 for each in metadata.sorted_tables
        )


def test_a_ledger_that_is_lent_again_is_as_new(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """No row, numbers from 1, and nobody of those before is connected any more."""
    with ledger_on("postgres", request, tmp_path) as url:
        before = Database(url, pool_size=2)
        KeyLedger(before).add("k", merchant="m", scopes=(), label="", now=SystemClock().now())
        with before.write() as connection:
            connection.execute(metadata.tables["heartbeats"].insert(), {"process": "p", "at": 1})
            connection.exec_driver_sql("SELECT nextval(pg_get_serial_sequence('payment_events', 'number'))")
        assert rows(before) == 3  # a key, that it was made, and a heartbeat
        left = before.engine.connect()
        left.exec_driver_sql("SELECT 1")
    with ledger_on("postgres", request, tmp_path) as again:
        assert again == url
        database = Database(again, pool_size=2)
        assert rows(database) == 0
        with database.write() as connection:
            number = connection.exec_driver_sql("SELECT nextval(pg_get_serial_sequence('payment_events', 'number'))")
            assert number.scalar() == 1
        with pytest.raises(sa.exc.OperationalError):
            left.exec_driver_sql("SELECT 1")
        left.invalidate()
        for each in (before, database):
            each.close()
