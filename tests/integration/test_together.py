"""Rows that are written in one commit, of which the first decides: the same on both databases."""

from __future__ import annotations

import selectors
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from router.ledger.engine import Database
from router.ledger.prepared import Prepared
from router.ledger.together import Given, Insert, Step, Together, Update
from router.ledger.unavailable import CommitUnknownError, LedgerUnavailableError
from tests.e2e.house import eventually

SHOWN = sa.MetaData()
HEADS = sa.Table(
    "heads_of_a_test",
    SHOWN,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer),
    sa.Column("order", sa.JSON(none_as_null=True)),
)
LINES = sa.Table(
    "lines_of_a_test",
    SHOWN,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("head", sa.Text, sa.ForeignKey(HEADS.c.id)),
    sa.Column("on", sa.Boolean),
    sa.Column("amount", sa.BigInteger),
    sa.Column("fee", sa.BigInteger),
)


def _taken(given: Given) -> sa.ColumnElement[bool]:
    return sa.exists(sa.select(LINES.c.id).where(LINES.c.id == given("line", LINES.c.id.type)))


def _as_loaded(given: Given) -> sa.ColumnElement[bool]:
    version = HEADS.c.version == given("known", HEADS.c.version.type)
    return sa.and_(HEADS.c.id == given("this", HEADS.c.id.type), version)


NEW_HEAD = Insert(HEADS, ["id", "version", "order"], unless=[_taken])
CHANGED = Update(HEADS, ["version"], where=[_as_loaded], read=[HEADS.c.id, HEADS.c.version])
NEW_LINE = Insert(LINES, ["id", "head", "on", "amount", "fee"])
ENDED = Update(
    LINES,
    ["amount", "fee"],
    where=[lambda given: LINES.c.id == given("this", LINES.c.id.type)],
    only_over={"fee": LINES.c.fee.is_(None)},
)
HEAD = {"id": "h", "version": 1, "order": {"b": [1, "ü"], "a": None}, "line": "1"}


def _line(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "head": "h", "on": True, "amount": 2**60, "fee": None, **more}


@pytest.fixture
def heads(database: Database) -> Iterator[Database]:
    with database.write() as connection:
        SHOWN.drop_all(connection)
        SHOWN.create_all(connection)
    yield database
    with database.write() as connection:
        SHOWN.drop_all(connection)


def _rows(database: Database, table: sa.Table) -> list[dict[str, Any]]:
    with database.read() as connection:
        return [dict(row) for row in connection.execute(table.select().order_by(table.c.id)).mappings()]


def test_all_is_written_and_two_of_a_kind_keep_their_own_values(heads: Database) -> None:
    together = Together(heads)
    assert together.commit([(NEW_HEAD, HEAD), (NEW_LINE, _line("1")), (NEW_LINE, _line("2", on=False, amount=7))])
    assert _rows(heads, HEADS) == [{"id": "h", "version": 1, "order": HEAD["order"]}]
    assert _rows(heads, LINES) == [_line("1"), _line("2", on=False, amount=7)]


def test_a_first_step_that_finds_no_row_has_nothing_written(heads: Database) -> None:
    together = Together(heads)
    assert together.commit([(NEW_HEAD, HEAD), (NEW_LINE, _line("1"))])
    before = _rows(heads, HEADS), _rows(heads, LINES)
    stale = {"this": "h", "known": 9, "version": 10}
    end = (ENDED, {"this": "1", "amount": 1, "fee": 1})
    assert together.commit([(CHANGED, stale), (NEW_LINE, _line("2")), end]) is None
    assert together.commit([(NEW_HEAD, {**HEAD, "id": "other"}), (NEW_LINE, _line("3"))]) is None
    assert (_rows(heads, HEADS), _rows(heads, LINES)) == before
    found = together.commit([(CHANGED, stale | {"known": 1, "version": 2}), (NEW_LINE, _line("2")), end])
    assert found is not None
    assert tuple(found) == ("h", 2)
    assert _rows(heads, LINES) == [_line("1", amount=1, fee=1), _line("2")]


def test_what_is_set_over_nothing_only_stays_once_it_is_set(heads: Database) -> None:
    together = Together(heads)
    together.commit([(NEW_HEAD, HEAD), (NEW_LINE, _line("1"))])
    for version, fee in ((2, 5), (3, 6)):
        change = {"this": "h", "known": version - 1, "version": version}
        together.commit([(CHANGED, change), (ENDED, {"this": "1", "amount": fee, "fee": fee})])
    assert _rows(heads, LINES) == [_line("1", amount=6, fee=5)]


def test_a_conflict_of_one_step_takes_all_back(heads: Database) -> None:
    together = Together(heads)
    with pytest.raises(sa.exc.IntegrityError):
        together.commit([(NEW_HEAD, HEAD), (NEW_LINE, _line("1")), (NEW_LINE, _line("1"))])
    assert (_rows(heads, HEADS), _rows(heads, LINES)) == ([], [])


def test_of_many_that_change_the_same_row_at_once_one_does(heads: Database) -> None:
    """The condition is judged by the row as the one before left it, and the other steps by the first."""
    together, found = Together(heads), []
    together.commit([(NEW_HEAD, HEAD)])
    begin = threading.Barrier(6)

    def change(name: str) -> None:
        begin.wait()
        steps: list[Step] = [(CHANGED, {"this": "h", "known": 1, "version": 2}), (NEW_LINE, _line(name))]
        found.append((together.commit(steps), name))

    threads = [threading.Thread(target=change, args=(f"{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    winners = [name for row, name in found if row is not None]
    assert (len(found), len(winners)) == (6, 1)
    assert [row["id"] for row in _rows(heads, LINES)] == winners


@pytest.mark.parametrize("ledger_url", ["postgres"], indirect=True)
def test_a_row_that_is_changed_while_it_is_waited_for_is_changed_and_so_are_the_others(heads: Database) -> None:
    """Its version stays, as with a look of checkout's or a settled fee: PostgreSQL judges the condition again."""
    together = Together(heads)
    together.commit([(NEW_HEAD, HEAD), (NEW_LINE, _line("1"))])
    steps: list[Step] = [
        (CHANGED, {"this": "h", "known": 1, "version": 2}),
        (ENDED, {"this": "1", "amount": 9, "fee": 9}),
        (NEW_LINE, _line("2")),
    ]
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(together.commit(steps)))
    with heads.write() as connection:
        connection.execute(HEADS.update().values(order={"by": "another"}))
        connection.execute(LINES.update().values(fee=4))
        thread.start()
        waiting = sa.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        eventually(lambda: _scalar(heads, waiting) == 1, 10)
    thread.join(30)
    assert [tuple(row) for row in found] == [("h", 2)]
    assert _rows(heads, HEADS)[0]["order"] == {"by": "another"}
    assert _rows(heads, LINES) == [_line("1", amount=9, fee=4), _line("2")]


def _scalar(database: Database, query: sa.TextClause) -> Any:
    with database.read() as connection:
        return connection.scalar(query)


@pytest.mark.parametrize("ledger_url", ["postgres"], indirect=True)
@pytest.mark.parametrize(
    ("ended_by", "unknown"), [("pg_cancel_backend", False), ("pg_terminate_backend", True)], ids=["no", "gone"]
)
def test_postgresql_s_no_is_no_and_its_silence_is_not(database: Database, ended_by: str, unknown: bool) -> None:
    """A statement of its own is committed as it ends: who lost its connection does not know whether it did."""
    end = Prepared(
        sa.select(getattr(sa.func, ended_by)(sa.func.pg_backend_pid()), sa.func.pg_sleep(5)), _dialect(database)
    )
    with pytest.raises(LedgerUnavailableError) as caught, database.write_at_once() as connection:
        end.row(connection, {})
    assert isinstance(caught.value, CommitUnknownError) is unknown
    with database.write_at_once() as connection:
        assert connection.scalar(sa.text("SELECT 1")) == 1


class Pooler:
    """Stands between one client and the server; once `dies`, it takes the server's next answer for itself."""

    def __init__(self, server: sa.URL, last_words: bytes) -> None:
        self.dies = False
        self._server, self._last_words = server, last_words
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = server.set(host="127.0.0.1", port=self._listening.getsockname()[1], query={"sslmode": "disable"})
        threading.Thread(target=self._pass_on, daemon=True).start()

    def _pass_on(self) -> None:
        client, _ = self._listening.accept()
        host, port = f"{self._server.query.get('host', self._server.host)}", self._server.port or 5432
        server = socket.socket(socket.AF_UNIX if host.startswith("/") else socket.AF_INET)
        server.connect(f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port))
        # Not `select`: it takes no descriptor beyond the thousandth, which a process of many tests has.
        with self._listening, client, server, selectors.DefaultSelector() as ready:
            ready.register(client, selectors.EVENT_READ, client)
            ready.register(server, selectors.EVENT_READ, server)
            while True:
                for key, _ in ready.select():
                    each: socket.socket = key.data
                    data = each.recv(65536)
                    if not data:
                        return
                    if each is server and self.dies:
                        client.sendall(b"E" + struct.pack("!i", len(self._last_words) + 4) + self._last_words)
                        client.sendall(b"Z\0\0\0\5I")
                        client.recv(1)  # its end is not seen yet
                        return
                    (server if each is client else client).sendall(data)


@pytest.mark.parametrize("ledger_url", ["postgres"], indirect=True)
@pytest.mark.parametrize("severity", [b"SFATAL\0VFATAL\0", b"SFATAL\0"], ids=["the server's", "a pooler's"])
def test_last_words_are_no_answer_to_the_statement(heads: Database, severity: bytes) -> None:
    """The server has done it, and whoever stands between says that the connection is lost, before it ends it."""
    pooler = Pooler(heads.engine.url, severity + b"C08P01\0Mserver conn crashed?\0\0")
    database = Database(pooler.url.render_as_string(hide_password=False))
    with database.look() as connection:
        connection.scalar(sa.text("SELECT 1"))
    pooler.dies = True
    with pytest.raises(CommitUnknownError):
        Together(database).commit([(NEW_HEAD, HEAD)])
    database.close()
    assert [row["id"] for row in _rows(heads, HEADS)] == ["h"]


@pytest.mark.parametrize("ledger_url", ["postgres"], indirect=True)
def test_what_could_not_be_sent_is_not_there(database: Database) -> None:
    """The server is not reached: no commit is in doubt."""
    nowhere = Database(database.engine.url.set(host="127.0.0.1", port=1).render_as_string(hide_password=False))
    with pytest.raises(LedgerUnavailableError) as caught, nowhere.write_at_once():
        raise AssertionError("there is no connection")
    assert not isinstance(caught.value, CommitUnknownError)


def _dialect(database: Database) -> sa.Dialect:
    return database.engine.dialect
