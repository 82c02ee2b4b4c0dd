"""Statements that are worded once write and read what SQLAlchemy's own execution does, on both databases."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
import sqlalchemy as sa

from router.ledger.engine import Database, read, written
from router.ledger.prepared import Prepared, Reading
from router.ledger.unavailable import LedgerUnavailableError

SHOWN = sa.MetaData()
THINGS = sa.Table(
    "things_of_a_test",
    SHOWN,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("order", sa.JSON(none_as_null=True)),
    sa.Column("on", sa.Boolean),
    sa.Column("amount", sa.BigInteger),
)
ROWS: list[dict[str, Any]] = [
    {"id": "a", "order": {"b": [1, 2.5, None, "ü"], "a": {}}, "on": True, "amount": 2**60},
    {"id": "b", "order": None, "on": False, "amount": None},
    {"id": "c", "order": [], "on": None, "amount": 0},
]


@pytest.fixture
def things(database: Database) -> Database:
    with database.write() as connection:
        THINGS.drop(connection, checkfirst=True)
        THINGS.create(connection)
    return database


def _insert(*names: str) -> sa.Insert:
    return THINGS.insert().inline().values({name: sa.bindparam(f"its_{name}") for name in names})


def _given(row: Mapping[str, Any]) -> dict[str, Any]:
    return {f"its_{name}": value for name, value in row.items()}


def test_what_is_written_is_what_core_would_have_written(things: Database) -> None:
    dialect = things.engine.dialect
    insert = Prepared(_insert(*ROWS[0]), dialect)
    one = Prepared(sa.select(THINGS).where(THINGS.c.id == sa.bindparam("this")).limit(1), dialect)
    reading = Reading(list(THINGS.c), dialect)
    with things.write() as connection:
        for row in ROWS:
            insert.run(connection, _given(row))
    with things.read() as connection:
        assert [dict(row) for row in connection.execute(sa.select(THINGS).order_by("id")).mappings()] == ROWS
        for row in ROWS:
            found = one.row(connection, {"this": row["id"]})
            assert found is not None
            assert reading.of(found) == row
            assert type(reading.of(found)["on"]) is type(row["on"])
        assert one.row(connection, {"this": "nothing"}) is None
        assert connection.scalar(sa.select(sa.func.count()).where(THINGS.c.order.is_(None))) == 1
    with things.write() as connection:
        THINGS.drop(connection)


def test_an_error_is_one_of_core_s(things: Database) -> None:
    insert = Prepared(_insert("id"), things.engine.dialect)

    def twice() -> None:
        with things.write() as connection:
            insert.run(connection, _given({"id": "a"}))
            insert.run(connection, _given({"id": "a"}))

    with pytest.raises(sa.exc.IntegrityError):
        twice()
    with things.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(THINGS)) == 0
    with things.write() as connection:
        THINGS.drop(connection)


@pytest.mark.parametrize("ledger_url", ["postgres"], indirect=True)
def test_a_connection_that_the_server_ended_is_seen_before_it_is_used(database: Database) -> None:
    """Without being asked: its end waits on its socket."""
    with database.read() as connection:
        pid = connection.scalar(sa.text("SELECT pg_backend_pid()"))
    other = Database(database.engine.url.render_as_string(hide_password=False), pool_size=1)
    with other.write() as connection:
        connection.execute(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    other.close()
    with database.write() as connection:
        assert connection.scalar(sa.text("SELECT pg_backend_pid()")) != pid


@pytest.mark.parametrize("ledger_url", ["postgres"], indirect=True)
def test_a_connection_that_ends_under_a_statement_leaves_the_pool(database: Database) -> None:
    look = Prepared(sa.select(sa.literal_column("pg_backend_pid()")), database.engine.dialect)
    die = Prepared(
        sa.select(sa.func.pg_terminate_backend(sa.bindparam("pid", type_=sa.Integer))), database.engine.dialect
    )
    seen: list[object] = []

    def end_it() -> None:
        with database.write() as connection:
            row = look.row(connection, {})
            assert row is not None
            seen.append(row)
            die.row(connection, {"pid": row[0]})
            look.row(connection, {})

    with pytest.raises(LedgerUnavailableError):
        end_it()
    with database.write() as connection:
        assert look.row(connection, {}) not in [None, *seen]


@pytest.mark.parametrize(
    "document", [{"é": "ü\u2028", "n": 10**30, "f": 0.1, "l": (1, None, True)}, {"x": "\ud800"}, []]
)
def test_a_document_is_read_as_it_was_written(document: object) -> None:
    """What UTF-8 has no word for too: a vendor's text must not keep an answer from being written down."""
    assert read(written(document)) == json.loads(json.dumps(document))
    assert read(json.dumps(document)) == json.loads(json.dumps(document))


def test_many_rows_are_those_that_core_would_have_written(things: Database) -> None:
    insert = Prepared(_insert(*ROWS[0]), things.engine.dialect)
    with things.write() as connection:
        insert.many(connection, map(_given, ROWS))
    with things.read() as connection:
        assert [dict(row) for row in connection.execute(sa.select(THINGS).order_by("id")).mappings()] == ROWS


def test_a_document_that_is_json_already_is_written_as_it_is(things: Database) -> None:
    insert = Prepared(_insert(*ROWS[0]), things.engine.dialect, as_given=["its_order"])
    with things.write() as connection:
        insert.many(connection, [_given(row | {"order": written(row["order"])}) for row in ROWS if row["order"]])
    with things.read() as connection:
        assert connection.execute(sa.select(THINGS.c.order)).scalar_one() == ROWS[0]["order"]


def test_of_many_rows_one_of_which_is_refused_none_is_written(things: Database) -> None:
    insert = Prepared(_insert(*ROWS[0]), things.engine.dialect)
    with pytest.raises(sa.exc.IntegrityError), things.write() as connection:
        insert.many(connection, map(_given, [*ROWS, ROWS[0]]))
    with things.read() as connection:
        assert connection.execute(sa.select(THINGS)).all() == []
