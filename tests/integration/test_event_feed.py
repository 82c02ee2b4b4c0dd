"""The feed tells every event once, in an order that is kept, however late a commit becomes visible."""

from __future__ import annotations

import datetime as dt
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from router.ledger import event_clock
from router.ledger.engine import Database
from router.ledger.event_feed import START, EventFeed, FeedEvent, Position
from router.ledger.migrate import migrate
from router.ledger.payments import PaymentLedger
from router.ledger.prepared import Prepared
from router.ledger.relays import RelayLedger
from router.ledger.tables import event_clock as clock_table
from router.ledger.tables import payment_events, payments
from router.ledger.webhook_endpoints import EndpointLedger
from router.ledger.webhook_records import Endpoint
from tests.fakes.house import build_house
from tests.fakes.payments import a_payment, passed_on
from tests.fakes.providers import FakeProvider
from tests.integration.postgres import Databases

NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)


@pytest.fixture
def postgres_ledger(postgres: Databases) -> Iterator[Database]:
    """A database of its own, which a test may change the tables of."""
    url = postgres.create()
    database = Database(url, pool_size=12)
    migrate(database)
    yield database
    database.close()
    postgres.drop(url)


def _all(feed: EventFeed, limit: int = 7, start: Position = START) -> list[FeedEvent]:
    """The feed to its end, in small answers."""
    found: list[FeedEvent] = []
    position = start
    while True:
        events, following = feed.after(position, limit)
        assert len(events) <= limit
        found += events
        if not events:
            assert following == position
            return found
        assert following == events[-1].position > position
        position = following


def _written(database: Database) -> set[tuple[str, int]]:
    with database.read() as connection:
        query = sa.select(payment_events.c.payment_id, payment_events.c.version)
        return {(row[0], row[1]) for row in connection.execute(query)}


def test_each_event_has_its_payment_as_it_was_just_then(database: Database) -> None:
    """Not as it is now: the event of the first commit says processing, though the payment has long been captured."""
    house = build_house(database, [FakeProvider("stripe")])
    paid = house.pay().payment
    told = _all(EventFeed(database))
    assert [(each.payment_id, each.version) for each in told] == [(paid.id, 1), (paid.id, 2)]
    assert [each.before.get("status") for each in told] == [None, "processing"]
    assert [each.after["status"] for each in told] == ["processing", "captured"]
    assert [each.after["amount_captured"] for each in told] == [0, 1999]
    assert {each.after["reference"] for each in told} == {paid.reference}
    assert told[1].at == paid.updated_at


def test_no_more_is_told_than_may_be_known(database: Database) -> None:
    """Tokens, the order, flags, leases: nothing of it leaves the feed."""
    build_house(database, [FakeProvider("stripe")]).pay()
    told = _all(EventFeed(database))
    assert "tok_s" not in repr(told)
    assert not {"order", "flags", "decision", "lease_holder"} & {name for each in told for name in each.after}


def test_the_answers_do_not_depend_on_how_many_are_asked_for(database: Database) -> None:
    """Where one answer ends in the middle of a payment, the next goes on with it as it was."""
    house = build_house(database, [FakeProvider("stripe")])
    for _ in range(3):
        house.pay()
    feed = EventFeed(database)
    assert _all(feed, 1) == _all(feed, 4) == _all(feed, 1000)
    assert len(_all(feed, 1)) == 6


def test_who_begins_at_the_head_is_told_what_comes_later(database: Database) -> None:
    """And of an empty ledger the head is the start."""
    feed = EventFeed(database)
    assert feed.head() == START
    house = build_house(database, [FakeProvider("stripe")])
    house.pay()
    head = feed.head()
    assert _all(feed, start=head) == []
    paid = house.pay().payment
    assert [each.payment_id for each in _all(feed, start=head)] == [paid.id] * 2


def test_a_commit_that_becomes_visible_late_is_not_skipped(postgres_ledger: Database) -> None:
    """The first to write is the last to commit: what is after it waits for it, and then comes in order."""
    ledger, feed = PaymentLedger(postgres_ledger), EventFeed(postgres_ledger)
    late, early = a_payment("pay_late"), a_payment("pay_early")
    with postgres_ledger.engine.connect() as slow, slow.begin():
        passed_on(slow, late)  # it has its number, and its id, and is not to be seen
        ledger.create(early, key="early", fingerprint="f", repeat=False, first=None)
        assert _written(postgres_ledger) == {("pay_early", 1)}
        assert _all(feed) == []
        assert feed.head() == START
    assert [each.payment_id for each in _all(feed)] == ["pay_late", "pay_early"]


def test_numbers_are_not_the_order(postgres_ledger: Database) -> None:
    """What may be read first can have the greater number: who went on from that would skip the smaller one."""
    feed, engine = EventFeed(postgres_ledger), postgres_ledger.engine
    begin = sa.text("SELECT pg_current_xact_id()")
    with engine.connect() as first, engine.connect() as still_at_work:
        for connection in (first, still_at_work):
            connection.execute(begin)
        PaymentLedger(postgres_ledger).create(a_payment("pay_2"), key="k", fingerprint="f", repeat=False, first=None)
        passed_on(first, a_payment("pay_1"))
        first.commit()
        (told,) = _all(feed)
        assert (told.payment_id, told.position.number) == ("pay_1", 2)
        still_at_work.rollback()
    (later,) = _all(feed, start=told.position)
    assert (later.payment_id, later.position.number) == ("pay_2", 1)


def test_a_transaction_that_ends_in_nothing_holds_back_nobody_for_good(postgres_ledger: Database) -> None:
    """Rolled back, as after a crash."""
    feed = EventFeed(postgres_ledger)
    with postgres_ledger.engine.connect() as slow:
        transaction = slow.begin()
        passed_on(slow, a_payment("pay_gone"))
        PaymentLedger(postgres_ledger).create(
            a_payment("pay_early"), key="k", fingerprint="f", repeat=False, first=None
        )
        transaction.rollback()
    assert [each.payment_id for each in _all(feed)] == ["pay_early"]


def test_whoever_only_reads_holds_back_nothing(postgres_ledger: Database) -> None:
    """A report or a dump may take hours."""
    with postgres_ledger.read() as connection:
        connection.execute(sa.select(payments.c.id)).all()
        PaymentLedger(postgres_ledger).create(a_payment("pay_1"), key="k", fingerprint="f", repeat=False, first=None)
        assert [each.payment_id for each in _all(EventFeed(postgres_ledger))] == ["pay_1"]


def test_eight_writers_and_a_reader_at_once(database: Database) -> None:
    """The reader, who never looks back, has every event, once, and each payment's in order."""
    writers, payments_each, changes = 8, 6, 4
    feed, ledger = EventFeed(database), PaymentLedger(database)
    done = threading.Event()
    told: list[FeedEvent] = []

    def write(writer: int) -> None:
        for number in range(payments_each):
            payment = a_payment(f"pay_{writer}_{number}")
            ledger.create(payment, key=payment.id, fingerprint="f", repeat=False, first=None)
            for _ in range(changes):
                payment = ledger.change(payment, {"tries": payment.tries + 1}, event="tried", now=NOW)

    def read() -> None:
        position = START
        while True:
            over = done.is_set()
            events, position = feed.after(position, 5)
            told.extend(events)
            if over and not events:
                return

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(writers)]
    reader = threading.Thread(target=read)
    for each in (reader, *threads):
        each.start()
    for each in threads:
        each.join(60)
    done.set()
    reader.join(60)
    assert len(told) == len(_written(database)) == writers * payments_each * (changes + 1)
    versions = defaultdict(list)
    for event in told:
        versions[event.payment_id].append(event.version)
    assert set(map(tuple, versions.values())) == {tuple(range(1, changes + 2))}


def test_the_payments_row_is_the_first_that_a_transaction_writes(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On this rests the order of one payment: a transaction's id is from its first write, which must be that one.

    On PostgreSQL it is one statement, whose id is from after its snapshot; its other parts hang on that one.
    """
    written: list[list[str]] = []

    def begin(_connection: sa.Connection) -> None:
        written.append([])

    def note(statement: str) -> None:
        if statement.startswith("WITH first AS"):
            _, first, *others = statement.split(" AS \n(")
            assert all("FROM first" in each for each in others)
            written.append([" ".join(first.split()[:3]), *others])
        elif not statement.startswith(("SELECT", "PRAGMA", "BEGIN")):
            written[-1].append(" ".join(statement.split()[:3]))

    prepared = Prepared._execute

    def execute(statement: Prepared, connection: sa.Connection, values: Any) -> Any:
        note(statement._sql)
        return prepared(statement, connection, values)

    sa.event.listen(database.engine, "begin", begin)
    sa.event.listen(database.engine, "before_cursor_execute", lambda *args: note(args[2].lstrip()))
    monkeypatch.setattr(Prepared, "_execute", execute)
    house = build_house(database, [FakeProvider("stripe")])
    house.pay()
    transactions = [each for each in written if any("payment_events" in statement for statement in each)]
    assert len(transactions) == 2
    assert [each[0] for each in transactions] == ["INSERT INTO payments", "UPDATE payments SET"]


def test_the_read_uses_the_index(postgres_ledger: Database) -> None:
    """However many events there are, an answer costs its own."""
    feed = EventFeed(postgres_ledger)
    with postgres_ledger.read() as connection:
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        connection.exec_driver_sql("SET LOCAL enable_sort = off")
        query = feed.readable(connection, Position(5, 5)).limit(10)
        text = query.compile(connection, compile_kwargs={"literal_binds": True})
        plan = "\n".join(connection.scalars(sa.text(f"EXPLAIN {text}")).all())
    assert "Index Scan using ix_payment_events_xact_number" in plan
    assert "Sort" not in plan
    assert "Index Cond: ((ROW(xact, number) > ROW(" in plan


def test_on_sqlite_it_uses_the_numbers(tmp_path: Path) -> None:
    """Its index would be read from the beginning each time: the first part of it is the same in every row."""
    database = Database(f"sqlite:///{tmp_path / 'ledger.db'}", pool_size=1)
    migrate(database)
    with database.read() as connection:
        query = EventFeed(database).readable(connection, Position(0, 5)).limit(10)
        text = query.compile(connection, compile_kwargs={"literal_binds": True})
        plan = [row[3] for row in connection.execute(sa.text(f"EXPLAIN QUERY PLAN {text}"))]
    assert plan == ["SEARCH payment_events USING INTEGER PRIMARY KEY (rowid>?)"]
    database.close()


def test_events_from_before_the_column_come_first_in_the_order_of_their_numbers(database: Database) -> None:
    """The migration gives them all one id, which is below every other."""
    ledger = PaymentLedger(database)
    ids = ["pay_b", "pay_a", "pay_c"]
    for each in ids:
        ledger.create(a_payment(each), key=each, fingerprint="f", repeat=False, first=None)
    with database.write() as connection:
        connection.execute(payment_events.update().where(payment_events.c.payment_id != "pay_c").values(xact=0))
    assert [each.payment_id for each in _all(EventFeed(database), 2)] == ids


# ---------------------------------------------------------------- a ledger that moves to another server


def _moved(database: Database, *, ahead: int) -> None:
    """Make of its events what a dump brings along from a server that was so many transactions ahead."""
    with database.write() as connection:
        connection.execute(payment_events.update().values(xact=payment_events.c.xact + ahead))
        connection.execute(clock_table.update().values(origin="another server"))


def test_events_of_a_restored_ledger_come_before_all_that_are_written_after_it(postgres_ledger: Database) -> None:
    """Though the new server's ids are lower: a relay's position from before does not hide them."""
    event_clock.settle(postgres_ledger)
    ledger, feed = PaymentLedger(postgres_ledger), EventFeed(postgres_ledger)
    ledger.create(a_payment("pay_old"), key="old", fingerprint="f", repeat=False, first=None)
    _moved(postgres_ledger, ahead=1_000_000)
    event_clock.settle(postgres_ledger)
    (old,) = _all(feed)
    ledger.create(a_payment("pay_new"), key="new", fingerprint="f", repeat=False, first=None)
    assert [each.payment_id for each in _all(feed, start=old.position)] == ["pay_new"]


def test_a_position_from_the_future_lifts_the_clock_too(postgres_ledger: Database) -> None:
    """The events that it has passed may be gone."""
    event_clock.settle(postgres_ledger)
    feed, relays = EventFeed(postgres_ledger), RelayLedger(postgres_ledger)
    far = Position(1_000_000, 1)
    relays.take("kafka", "me", now=NOW, until=NOW, start=far)
    event_clock.settle(postgres_ledger)
    PaymentLedger(postgres_ledger).create(a_payment("pay_1"), key="k", fingerprint="f", repeat=False, first=None)
    assert [each.payment_id for each in _all(feed, start=far)] == ["pay_1"]


def test_a_webhook_endpoints_position_from_the_future_lifts_the_clock_too(postgres_ledger: Database) -> None:
    """It is a place in the feed as a relay's is."""
    event_clock.settle(postgres_ledger)
    far = Position(1_000_000, 1)
    endpoint = Endpoint("whe_1", "shop", "https://one.example/", (), "", "enabled", NOW, NOW)
    EndpointLedger(postgres_ledger).add(endpoint, "secret", begins=far)
    event_clock.settle(postgres_ledger)
    PaymentLedger(postgres_ledger).create(a_payment("pay_1"), key="k", fingerprint="f", repeat=False, first=None)
    assert [each.payment_id for each in _all(EventFeed(postgres_ledger), start=far)] == ["pay_1"]


def test_a_ledger_that_stays_is_left_alone(postgres_ledger: Database) -> None:
    """Every start looks; none but the one after a move changes anything."""
    event_clock.settle(postgres_ledger)
    for each in range(2):
        PaymentLedger(postgres_ledger).create(
            a_payment(f"pay_{each}"), key=f"{each}", fingerprint="f", repeat=False, first=None
        )
        event_clock.settle(postgres_ledger)
    with postgres_ledger.read() as connection:
        base, ids = (
            connection.scalar(sa.select(clock_table.c.base)),
            connection.scalars(sa.select(payment_events.c.xact)).all(),
        )
        now = connection.scalar(sa.text("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"))
    assert base == 0
    assert now is not None
    assert max(ids) < now


def test_a_writer_that_is_under_way_is_waited_for(postgres_ledger: Database) -> None:
    """Its event has the old id, which new ones are lifted above though nobody could see it before."""
    event_clock.settle(postgres_ledger)
    _moved_now = threading.Event()

    def settle() -> None:
        event_clock.settle(postgres_ledger)
        _moved_now.set()

    with postgres_ledger.write() as connection:
        connection.execute(clock_table.update().values(origin="another server"))
    with postgres_ledger.engine.connect() as slow, slow.begin():
        passed_on(slow, a_payment("pay_slow"))
        slow.execute(payment_events.update().values(xact=5_000_000))  # as where ids had been lifted before
        thread = threading.Thread(target=settle)
        thread.start()
        assert not _moved_now.wait(0.2)
    thread.join(10)
    PaymentLedger(postgres_ledger).create(a_payment("pay_new"), key="k", fingerprint="f", repeat=False, first=None)
    assert [each.payment_id for each in _all(EventFeed(postgres_ledger))] == ["pay_slow", "pay_new"]
