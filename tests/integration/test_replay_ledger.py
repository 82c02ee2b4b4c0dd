"""`pointsman replay` over a ledger of each kind: what a period holds, and a router's own payments told by it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from router.cli import main
from router.clock import ManualClock, TimeOrderedIds
from router.ledger.decision_log import DecisionLog, LogEntry, Tried
from router.ledger.engine import Database
from router.ledger.migrate import migrate
from router.ledger.payments import PaymentLedger
from router.ledger.records import Attempt, Payment
from tests.integration.conftest import OpenShop

START = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
SECOND = dt.timedelta(seconds=1)


@pytest.fixture
def database(ledger_url: str) -> Iterator[Database]:
    database = Database(ledger_url, pool_size=2)
    migrate(database)
    yield database
    database.close()


def add(database: Database, clock: ManualClock, **changed: Any) -> Payment:
    """A payment of this moment with one approved attempt."""
    ids, now = TimeOrderedIds(clock), clock.now()
    usual: dict[str, Any] = {
        "merchant": "shop",
        "status": "captured",
        "currency": "EUR",
        "order": {"reference": "ORD"},
        "flags": {"round": 1},
        "decision": {"round": 1},
        "created_at": now,
    }
    payment = Payment(
        id=ids.new("pay"),
        reference=ids.new("ORD"),
        amount=1999,
        updated_at=now,
        expires_at=now,
        version=1,
        **(usual | changed),
    )
    attempt = Attempt(ids.new("att"), payment.id, 1, "stripe", "key", {}, now, outcome="approved", was_approved=True)
    key = ids.new("key")
    PaymentLedger(database).create(payment, key=key, fingerprint="same", repeat=False, first=attempt)
    return payment


def ids_of(entries: Iterator[LogEntry] | Sequence[LogEntry]) -> list[str]:
    return [each.payment_id for each in entries]


def test_a_period_is_half_open_and_read_in_the_order_of_time(database: Database) -> None:
    """Batch by batch; its first moment is in it, its last is not; by merchant and by currency."""
    clock, made = ManualClock(START), []
    for number in range(9):
        made.append(add(database, clock, currency=("EUR", "JPY")[number % 2], merchant=("a", "b")[number > 4]))
        clock.advance(1)
    log = DecisionLog(database, batch=2)
    wanted = [each.id for each in made]
    assert ids_of(log.between(START, START + 9 * SECOND)) == wanted
    assert ids_of(log.between(START + 2 * SECOND, START + 6 * SECOND)) == wanted[2:6]
    assert ids_of(log.between(START, START + 9 * SECOND, merchant="b")) == wanted[5:]
    assert ids_of(log.between(START, START + 9 * SECOND, currency="JPY", merchant="a")) == wanted[1:5:2]
    assert ids_of(log.between(START - 9 * SECOND, START)) == []
    entry = next(log.between(START, START + SECOND))
    assert (entry.status, entry.amount, entry.currency, entry.created_at) == ("captured", 1999, "EUR", START)
    assert [each[1:] for each in entry.tried] == [Tried("", "stripe", "approved", True)[1:]]


def test_an_id_of_another_moment_than_its_payments_is_found(database: Database) -> None:
    """A process was paused between the two: what counts is when the payment was created."""
    clock = ManualClock(START)
    paused = add(database, clock, created_at=START + 600 * SECOND)
    log = DecisionLog(database)
    assert ids_of(log.between(START, START + 600 * SECOND)) == []
    assert ids_of(log.between(START + 600 * SECOND, START + 601 * SECOND)) == [paused.id]


def test_a_parked_payment_has_the_decision_of_its_first_round(database: Database) -> None:
    """Its row has that of the round which took it, and its first choice was the first round's."""
    clock = ManualClock(START)
    payment = add(database, clock, status="parked", tries=1)
    later = {"status": "captured", "flags": {"round": 2}, "decision": {"round": 2}}
    PaymentLedger(database).change(payment, later, event="captured", now=START + SECOND)
    (entry,) = DecisionLog(database).between(START, START + SECOND)
    assert (entry.status, entry.flags, entry.decision) == ("captured", {"round": 1}, {"round": 1})


@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)  # the queries are tested above, on both
def test_a_routers_own_payments_through_another_policy(
    shops: OpenShop, ledger_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paid with the primary, one declined: as it was, it is the truth; with another primary, nobody can tell."""
    shop = shops(flags={"payments-primary-provider": "stripe"})
    monkeypatch.setenv("ROUTER_DATABASE_URL", ledger_url)
    before = dt.datetime.now(dt.UTC) - SECOND
    for _ in range(3):
        assert shop.pay().status_code == 201
    assert shop.pay(currency="USD").status_code == 201
    tokens = {"stripe": "pm_card_chargeDeclinedExpiredCard", "adyen": "8415718415172204"}
    declined = shop.pay(payment_method={"type": "card", "tokens": tokens}).json or {}
    assert declined["status"] == "declined"
    rows = shop.counts()
    period = ["--from", before.isoformat(), "--to", (before + 600 * SECOND).isoformat()]
    assert main(["replay", *period, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["payments"], found["can_tell"]) == ({"read": 5, "used": 5, "left_out": {}}, True)
    assert (found["from"], found["time_zone"]) == (before.isoformat(), "UTC")
    assert list(found["currencies"]) == ["EUR", "USD"]
    assert found["overall"]["estimates"]["approval"]["doubly_robust"]["value"] == 0.8
    assert set(found["overall"]["earned"]) == {"approval"}
    euros = found["currencies"]["EUR"]
    assert (euros["payments"], euros["earned"]["approval"], euros["without_support"]) == (4, 0.75, 0)
    assert euros["estimates"]["cost"]["change"]["value"] == 0
    assert main(["replay", *period, "--primary", "adyen", "--currency", "EUR"]) == 0
    text = capsys.readouterr().out
    assert "4 payments, 4 of them used" in text
    assert "cannot tell: 100.00% of the payments would have gone first where the log never does" in text
    assert main(["replay", *period, "--merchant", "nobody"]) == 0
    assert "cannot tell: no payment of the period can be used" in capsys.readouterr().out
    assert shop.counts() == rows
