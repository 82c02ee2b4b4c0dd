"""The rollup is what the raw rows say: after late changes, late commits, kills, and with several workers."""

from __future__ import annotations

import datetime as dt
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from router.clock import ManualClock
from router.ledger.engine import Database
from router.ledger.migrate import migrate
from router.ledger.operations import Operation
from router.ledger.payments import PaymentLedger
from router.ledger.records import Attempt, Payment
from router.ledger.rollup_rows import raw_payments
from router.ledger.rollups import Rollups, mark
from router.ledger.tables import attempts, payments, report_cells, report_facts
from router.report_measures import DIMENSIONS, NAMES
from router.reports.facts import facts
from router.reports.query import QueryError, query
from router.reports.report import report
from router.reports.rollup import Rollup
from tests.fakes.payments import a_payment, passed_on
from tests.integration.postgres import Databases

NOW = dt.datetime(2026, 11, 21, 12, 34, 56, tzinfo=dt.UTC)
CARDS: tuple[dict[str, str], ...] = ({"brand": "visa", "country": "DE"}, {"brand": "mc"}, {})


@pytest.fixture
def postgres_ledger(postgres: Databases) -> Iterator[Database]:
    """A PostgreSQL of its own, where transactions commit late."""
    url = postgres.create()
    database = Database(url, pool_size=8)
    migrate(database)
    yield database
    database.close()
    postgres.drop(url)


def rollup(database: Database, **more: Any) -> Rollup:
    return Rollup(Rollups(database), ManualClock(NOW), **more)


def create(database: Database, number: int, chance: random.Random) -> Payment:
    """A payment of the last two days, with its first attempt started."""
    at = NOW - dt.timedelta(seconds=chance.randrange(172_800))
    order = {"payment_method": {"card": chance.choice(CARDS)}}
    payment = a_payment(
        f"pay_{number:04}",
        created_at=at,
        updated_at=at,
        order=order,
        amount=chance.randrange(1, 9_999),
        currency=chance.choice(("EUR", "JPY")),
        provider="stripe",
        attempt_id=f"att_{number:04}",
    )
    first = Attempt(f"att_{number:04}", payment.id, 1, "stripe", f"att_{number:04}", {}, at)
    PaymentLedger(database).create(payment, key=payment.id, fingerprint="f", repeat=False, first=first)
    return payment


def change(database: Database, payment_id: str, chance: random.Random) -> None:
    """Anything that happens to a payment: an answer, a refund, a dispute, a cancel."""
    ledger = PaymentLedger(database)
    found = ledger.get(payment_id)
    assert found is not None
    payment, (attempt, *_) = found
    when = payment.updated_at + dt.timedelta(hours=chance.randrange(1, 40))
    told: dict[str, Any] = chance.choice(
        (
            {"status": "captured", "amount_captured": payment.amount},
            {"status": "captured", "amount_captured": payment.amount, "amount_refunded": payment.amount // 3},
            {"status": "declined", "decline": {"class": chance.choice(("soft", "hard"))}},
            {"dispute": {"each": {"a": {"reason": chance.choice(("opened", "lost"))}}}},
            {"status": "canceled", "provider": None},
            {"tries": payment.tries + 1},
        )
    )
    outcome = {"captured": "approved", "declined": "declined"}.get(str(told.get("status")), attempt.outcome)
    learned = Attempt(
        **{
            **{name: getattr(attempt, name) for name in Attempt.__slots__},
            "outcome": outcome,
            "was_approved": attempt.was_approved or outcome == "approved",
            "latency_us": chance.randrange(10_000_000),
            "fee_actual": chance.choice((None, chance.randrange(100))),
            "fee_currency": "EUR",
            "finished_at": when,
        }
    )
    ledger.change(payment, told, event="changed", now=when, finished=[learned])


def wrong(database: Database) -> list[str]:
    """Facts that are not their payment's, and cells that are not the sum of their facts: counted here, in dicts."""
    found = []
    with database.read() as connection:
        ids = connection.scalars(sa.select(payments.c.id)).all()
        wanted: dict[Any, tuple[int, ...]] = {
            (each.id, *key): tuple(sums)
            for each in raw_payments(connection, ids)
            for key, sums in facts(each).items()
        }
        kept: dict[Any, tuple[int, ...]] = {
            (row["payment_id"], row["minute"], tuple(row[each] for each in DIMENSIONS)): tuple(row[n] for n in NAMES)
            for row in connection.execute(report_facts.select()).mappings()
        }
        found += [f"fact {key}" for key in wanted.keys() | kept.keys() if wanted.get(key) != kept.get(key)]
        sums: dict[tuple[Any, ...], tuple[int, ...]] = {}
        for (_, minute, dimensions), values in wanted.items():
            narrow = (*dimensions[:3], "", "", "")
            for cell in (
                (0, minute // 60 * 60, *narrow),
                (1, minute // 1440 * 1440, *narrow),
                (2, minute // 1440 * 1440, *dimensions),
            ):
                sums[cell] = tuple(map(int.__add__, sums.get(cell, (0,) * len(NAMES)), values))
        cells = {tuple(row[:8]): tuple(row[8:]) for row in connection.execute(report_cells.select())}
        for cell in sums.keys() | cells.keys():
            if sums.get(cell, (0,) * len(NAMES)) != cells.get(cell, (0,) * len(NAMES)):
                found.append(f"cell {cell}")
    return found


def test_whatever_happens_to_payments_the_rollup_follows(database: Database) -> None:
    """Created, answered, refunded and disputed hours later, in batches of any size: exact after every round."""
    chance, keeper = random.Random(7), rollup(database, batch=7)
    for number in range(20):
        create(database, number, chance)
    assert keeper.run_once().caught_up
    assert wrong(database) == []
    for _ in range(3):
        for _ in range(15):
            change(database, f"pay_{chance.randrange(20):04}", chance)
        create(database, 100 + chance.randrange(10**6), chance)
        done = keeper.run_once()
        assert (done.caught_up, done.events) == (True, 16)
        assert wrong(database) == []
    assert keeper.run_once().payments == 0


def test_two_workers_a_rebuild_and_two_writers_at_once(database: Database) -> None:
    """Each change is added once, whoever was first; nobody fails, and no payment is held up by a rebuild."""
    rollup(database).run_once()
    over, failed = threading.Event(), list[BaseException]()

    def run_once() -> None:
        rollup(database, batch=3).run_once(rounds=2)

    def rebuild() -> None:
        list(rollup(database, batch=3).rebuild())

    def keep(work: Callable[[], None]) -> None:
        try:
            while not over.is_set():
                work()
        except BaseException as error:  # noqa: BLE001 - told by the test
            failed.append(error)

    def write(writer: int) -> None:
        chance = random.Random(writer)
        for number in range(writer * 100, writer * 100 + 8):
            create(database, number, chance)
            for _ in range(2):
                change(database, f"pay_{number:04}", chance)

    keepers = [threading.Thread(target=keep, args=(work,)) for work in (run_once, run_once, rebuild)]
    writers = [threading.Thread(target=write, args=(number,)) for number in (1, 2)]
    for each in (*keepers, *writers):
        each.start()
    for each in writers:
        each.join(60)
    over.set()
    for each in keepers:
        each.join(60)
    assert failed == []
    assert rollup(database).run_once().caught_up
    assert wrong(database) == []
    with database.read() as connection:
        assert connection.scalar(sa.select(sa.func.count(sa.distinct(report_facts.c.payment_id)))) == 16


def test_a_kill_at_any_statement_leaves_all_or_nothing(database: Database) -> None:
    """The commit dies at its first, second, … statement; the next worker goes on, and nothing is added twice."""
    chance = random.Random(3)
    for number in range(4):
        create(database, number, chance)
    rollup(database).run_once()
    killed_at, left = 0, 0

    def count(*_args: Any) -> None:
        nonlocal left
        if _args[2].startswith(("UPDATE report", "INSERT INTO report", "DELETE FROM report")):
            left -= 1
            if left == 0:
                raise KeyboardInterrupt

    sa.event.listen(database.engine, "before_cursor_execute", count)
    while True:
        for number in range(4):
            change(database, f"pay_{number:04}", chance)
        killed_at += 1
        left = killed_at
        try:
            rollup(database, batch=4).run_once(rounds=1)
        except KeyboardInterrupt:
            left = 0
            rollup(database).run_once()
            assert wrong(database) == []
            continue
        break
    assert killed_at > 3


def test_a_commit_that_comes_late_is_not_left_out(postgres_ledger: Database) -> None:
    """Its event has a number that the rollup has passed."""
    chance = random.Random(1)
    rollup(postgres_ledger).run_once()
    with postgres_ledger.engine.connect() as slow, slow.begin():
        passed_on(slow, a_payment("pay_slow", created_at=NOW, updated_at=NOW))
        create(postgres_ledger, 1, chance)
        rollup(postgres_ledger).run_once()
    rollup(postgres_ledger).run_once()
    assert wrong(postgres_ledger) == []
    with postgres_ledger.read() as connection:
        assert set(connection.scalars(sa.select(report_facts.c.payment_id))) == {"pay_slow", "pay_0001"}


def test_a_payment_that_began_before_the_rollup_is_swept_while_others_come(database: Database) -> None:
    """Old ones by the sweep, new ones by the feed, though the feed always has something."""
    chance, keeper = random.Random(5), rollup(database, batch=4)
    for number in range(10):
        create(database, number, chance)
    keeper.run_once(rounds=2)
    with Rollups(database).moment() as moment:
        assert moment.standing().building
    for number in range(10, 16):
        create(database, number, chance)
        keeper.run_once(rounds=1)
    with Rollups(database).moment() as moment:
        assert not moment.standing().building
    keeper.run_once()
    assert wrong(database) == []
    with Rollups(database).moment() as moment:
        assert moment.standing().complete


def test_what_is_changed_without_an_event_is_marked(database: Database) -> None:
    """A reconciliation writes what a provider charged; the mark is in its transaction, and is answered once."""
    chance = random.Random(2)
    create(database, 1, chance)
    change(database, "pay_0001", chance)
    rollup(database).run_once()
    with database.write() as connection:
        connection.execute(attempts.update().values(fee_actual=123_456, fee_currency="EUR"))
        mark(connection, ["pay_0001"])
    assert wrong(database) != []
    with Rollups(database).moment() as moment:
        assert not moment.standing().complete
    rollup(database).run_once()
    assert wrong(database) == []
    with Rollups(database).moment() as moment:
        assert moment.standing().complete
    assert rollup(database).run_once().payments == 0


def test_a_report_says_since_when_it_is_behind(database: Database) -> None:
    """The moment of the oldest change that is not in it."""
    chance = random.Random(4)
    rollup(database).run_once()
    payment = create(database, 1, chance)
    with Rollups(database).moment() as moment:
        assert moment.standing().behind_since == payment.created_at
    rollup(database).run_once()
    with Rollups(database).moment() as moment:
        assert moment.standing().behind_since is None


def test_a_rebuild_puts_right_what_is_wrong(database: Database) -> None:
    """A fact and two cells that somebody changed, one that should not be, and one that is gone."""
    chance = random.Random(6)
    for number in range(6):
        create(database, number, chance)
    rollup(database).run_once()
    assert list(rollup(database).rebuild())[-1] == ("cells", 0)
    with database.write() as connection:
        connection.execute(report_facts.update().where(report_facts.c.payment_id == "pay_0001").values(payments=9))
        connection.execute(report_cells.update().where(report_cells.c.level == 0).values(amount=1))
        connection.execute(report_cells.delete().where(report_cells.c.level == 2))
        row = dict.fromkeys(NAMES, 1) | dict.fromkeys(DIMENSIONS, "x")
        connection.execute(report_cells.insert(), row | {"level": 1, "minute": 0})
    assert wrong(database) != []
    assert list(rollup(database).rebuild())[-1][1] > 3
    assert wrong(database) == []


def test_a_period_before_what_is_kept_is_refused(database: Database) -> None:
    """By name, and a period after it is told."""
    chance = random.Random(8)
    create(database, 1, chance)
    kept_from = NOW - dt.timedelta(days=3)
    list(rollup(database).rebuild(kept_from=kept_from))
    early = query("2026-11-01", "2026-11-22", now=NOW)
    with Rollups(database).moment() as sources:
        with pytest.raises(QueryError, match=r"^from: .*keep payments from 2026-11-18T12:34"):
            report(early, sources)
        assert report(query("2026-11-19", "2026-11-22", now=NOW), sources).rows
    old = a_payment("pay_old", created_at=kept_from - dt.timedelta(days=1))
    PaymentLedger(database).create(old, key="old", fingerprint="f", repeat=False, first=None)
    rollup(database).run_once()
    with database.read() as connection:
        assert set(connection.scalars(sa.select(report_facts.c.payment_id))) == {"pay_0001"}


def test_a_refund_of_an_old_payment_is_in_the_period_in_which_it_is_made(database: Database) -> None:
    """Though the payment itself is of before what is kept: its money of then is not in it, its money of now is."""
    kept_from = NOW - dt.timedelta(days=3)
    old = a_payment(
        "pay_old", created_at=kept_from - dt.timedelta(days=9), provider="stripe", attempt_id="att_old", amount=2000
    )
    at = old.created_at
    first = Attempt("att_old", old.id, 1, "stripe", "att_old", {}, at, outcome="approved", finished_at=at)
    ledger = PaymentLedger(database)
    ledger.create(old, key="old", fingerprint="f", repeat=False, first=first)
    list(rollup(database).rebuild(kept_from=kept_from))
    found = ledger.get("pay_old")
    assert found is not None
    refund = Operation(
        *("op_1", "pay_old", "att_old", "refund", 300, "stripe", "op_1", "done", "checkout", NOW), finished_at=NOW
    )
    told = {"status": "captured", "amount_captured": 2000, "amount_refunded": 300}
    ledger.change(found[0], told, event="refunded", now=NOW, asked=refund)
    assert rollup(database).run_once().caught_up
    with Rollups(database).moment() as sources:
        (row,) = report(query("2026-11-19", "2026-11-22", now=NOW), sources).records()
    assert {name: row[name] for name in ("payments", "captured_in_period", "refunded_in_period")} == {
        "payments": 0,
        "captured_in_period": 0,
        "refunded_in_period": 300,
    }
