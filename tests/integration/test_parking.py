"""Parking over both databases and the HTTP interface: turns among ten thousand, dead letters, what the pages say."""

from __future__ import annotations

import datetime as dt
import threading
import time
from typing import Any

import pytest
import sqlalchemy as sa

from flags.contract import MAINTENANCE_NOTICE, provider_enabled_key
from router.api.parked import DeadLetterList, DeadLetterView
from router.api.status import StatusView
from router.api.views import PaymentView
from router.audit import verify
from router.ledger import parked as module
from router.ledger.engine import Database
from router.ledger.parked import ParkedLedger
from router.ledger.tables import payments
from router.ledger.unavailable import LedgerUnavailableError
from router.transitions import State
from tests.fakes.house import build_house, move, parked_loop
from tests.fakes.providers import FakeProvider
from tests.fakes.threads import together
from tests.integration.conftest import OpenShop
from tests.integration.shop import Shop

LARGE, SMALL = 10_000, 10
AT_US = 1_795_219_200_000_000
"""Where `ManualClock` begins."""
NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)


def _parked(database: Database, merchant: str, count: int) -> None:
    """So many parked payments of one merchant, due since the year began."""
    row = {
        "merchant": merchant,
        "holds_reference": True,
        "status": "parked",
        "amount": 1999,
        "currency": "EUR",
        "amount_captured": 0,
        "amount_refunded": 0,
        "capture_pending": False,
        "flags": {},
        "decision": {},
        "version": 1,
        "tries": 1,
        "next_try_at": AT_US - 1_000_000,
        "expires_at": AT_US + 10**12,
        "created_at": AT_US - 10_000_000,
        "updated_at": AT_US - 10_000_000,
    }
    order = {"amount": 1999, "currency": "EUR", "payment_method": {"type": "card", "tokens": {"stripe": "tok"}}}
    rows = [
        {
            **row,
            "id": f"pay_{merchant}_{number:06}",
            "reference": f"{merchant}-{number}",
            "order": {**order, "reference": f"{merchant}-{number}"},
        }
        for number in range(count)
    ]
    with database.write() as connection:
        connection.execute(payments.insert(), rows)


def test_ten_of_one_merchant_do_not_wait_for_ten_thousand_of_another(database: Database) -> None:
    """Tried within the first twenty-odd, though everything of the other's has waited as long; a claim is quick."""
    house = build_house(database, [FakeProvider("stripe"), FakeProvider("adyen")])
    _parked(database, "large", LARGE)
    _parked(database, "small", SMALL)
    loop, took = parked_loop(house), []
    tried = house.providers["stripe"].calls
    for _ in range(200):
        begun = time.thread_time()
        loop.run_once()
        took.append(time.thread_time() - begun)
        house.clock.advance(0.2)
        if sum("small" in each.payment_id for each in tried) == SMALL:
            break
    owners = [each.payment_id.split("_")[1] for each in tried]
    assert owners.count("small") == SMALL
    assert owners.index("small") <= 1
    assert len(owners) <= 2 * SMALL + 2
    # No claim reads ten thousand rows: that takes a hundred times as long as one by the index.
    assert sorted(took)[len(took) // 2] < 0.1


def test_two_workers_never_claim_the_same_payment(database: Database) -> None:
    """On threads of their own, at one instant, again and again; every payment is claimed once."""
    _parked(database, "m", 60)
    ledger = ParkedLedger(database)
    claimed: list[str] = []

    def claim(number: int) -> None:
        for step in range(40):
            now = NOW + dt.timedelta(seconds=step)
            until = now + dt.timedelta(days=1)
            claimed.extend(ledger.claim(now, until=until, limit=5, good=5, bad=0, most_per_s=50.0).ids)

    together([lambda: claim(1), lambda: claim(2)])
    assert len(claimed) == len(set(claimed)) == 60


def test_a_payment_that_a_request_is_changing_is_passed_over(database: Database) -> None:
    """PostgreSQL: a cancel holds its row, and the worker takes the next one instead of waiting."""
    if database.is_sqlite:
        pytest.skip("SQLite has one writer: there is nothing to pass over")
    _parked(database, "m", 2)
    first = "pay_m_000000"
    with database.write() as connection:
        connection.execute(sa.select(payments.c.id).where(payments.c.id == first).with_for_update())
        claimed = ParkedLedger(database).claim(
            NOW, until=NOW + dt.timedelta(days=1), limit=1, good=0, bad=0, most_per_s=50.0
        )
        assert claimed.ids == ["pay_m_000001"]


def test_a_worker_that_is_stopped_in_the_middle_of_a_claim_does_not_stop_the_others(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL: it holds the rate's row, and the database takes it away; its own claim comes to nothing."""
    if database.is_sqlite:
        pytest.skip("a stopped writer holds SQLite's file; other commits wait for it as well")
    monkeypatch.setattr(module, "STOPPED_FOR_MS", 100)
    _parked(database, "m", 2)
    ledger, due = ParkedLedger(database), module._due
    inside, go_on = threading.Event(), threading.Event()
    stopped: list[object] = []

    def stops(*args: Any) -> list[str]:
        if threading.current_thread().name == "stopped":
            inside.set()
            assert go_on.wait(20)
        return due(*args)

    def claim() -> list[str]:
        until = NOW + dt.timedelta(days=1)
        return list(ledger.claim(NOW, until=until, limit=1, good=0, bad=0, most_per_s=50.0).ids)

    def be_stopped() -> None:
        try:
            stopped.append(claim())
        except LedgerUnavailableError as error:
            stopped.append(error)

    monkeypatch.setattr(module, "_due", stops)
    worker = threading.Thread(target=be_stopped, name="stopped", daemon=True)
    worker.start()
    assert inside.wait(20)
    assert claim() == ["pay_m_000000"]
    go_on.set()
    worker.join(20)
    assert isinstance(stopped[0], LedgerUnavailableError)


# ---------------------------------------------------------------- over HTTP


def _all(shop: Shop, mode: str) -> None:
    for provider in ("stripe", "adyen"):
        shop.fault(provider, mode)


def test_a_dead_letter_is_listed_redriven_and_paid(shops: OpenShop) -> None:
    """By the operator's key of its merchant; checkout sees it parked all the while."""
    shop = shops(parked_retry_seconds=0.01)
    _all(shop, "down")
    body = shop.pay().json or {}
    ledger, now = ParkedLedger(shop.core.database), shop.core.clock.now()
    assert ledger.failed(body["id"], cause="KeyError", now=now, again_at=now, at_most=1, alert_id="alert_1")
    seen = shop.read(body["id"])
    PaymentView.model_validate(seen, extra="forbid")
    assert (seen["status"], seen["retry_at"]) == ("parked", None)
    listed = shop.send("GET", "/v1/dead-letters").json or {}
    DeadLetterList.model_validate(listed, extra="forbid")
    assert [(each["id"], each["cause"], each["faults"]) for each in listed["payments"]] == [
        (body["id"], "KeyError", 1)
    ]
    other = shop.add_key("other", merchant="other", scopes=("operate",))
    assert (shop.send("GET", "/v1/dead-letters", api_key=other).json or {})["payments"] == []
    path = f"/v1/dead-letters/{body['id']}/redrive"
    assert shop.send("POST", path, api_key=other, json={}).status_code == 404
    checkout = shop.add_key("checkout", merchant="default")
    assert shop.send("POST", path, api_key=checkout, json={}).status_code == 403
    answer = shop.send("POST", path)
    assert answer.status_code == 200
    DeadLetterView.model_validate(answer.json, extra="forbid")
    assert shop.send("POST", path, json={}).status_code == 409
    _all(shop, "ok")
    worker = shop.parked()
    for _ in range(100):
        worker.run_once()
        if shop.read(body["id"])["status"] == "captured":
            break
        shop.core.clock.sleep(0.02)
    assert len(shop.charged(body["reference"])) == 1
    assert [each for progress in verify(shop.core.database) for each in progress.differences] == []


def test_the_readiness_page_tells_how_much_is_parked_and_since_when(shop: Shop) -> None:
    empty = (shop.send("GET", "/readyz", api_key=None).json or {})["parked"]
    assert empty == {"depth": 0, "dead": 0, "oldest_seconds": None}
    _all(shop, "down")
    first = shop.pay().json or {}
    shop.pay()
    ledger, now = ParkedLedger(shop.core.database), shop.core.clock.now()
    ledger.failed(first["id"], cause="KeyError", now=now, again_at=now, at_most=1, alert_id="alert_1")
    answer = shop.send("GET", "/readyz", api_key=None)
    told = (answer.json or {})["parked"]
    assert (answer.status_code, told["depth"], told["dead"]) == (200, 2, 1)
    assert 0 <= told["oldest_seconds"] < 60


def _status(shop: Shop, **headers: str) -> Any:
    return shop.send("GET", "/v1/status", api_key=None, headers=headers)


@pytest.mark.parametrize(
    ("circuits", "flags", "status"),
    [
        ({}, {}, "available"),
        ({"adyen": State.OPEN}, {}, "degraded"),
        ({"stripe": State.SLOW_START}, {}, "degraded"),
        ({"stripe": State.OPEN, "adyen": State.OPEN}, {}, "parking"),
        ({"stripe": State.OPEN}, {provider_enabled_key("adyen"): False}, "parking"),
        # Out on purpose is no trouble.
        ({"adyen": State.OPEN}, {provider_enabled_key("adyen"): False}, "available"),
        ({}, {MAINTENANCE_NOTICE: "Back at ten."}, "maintenance"),
        ({"stripe": State.OPEN, "adyen": State.OPEN}, {MAINTENANCE_NOTICE: "Back at ten."}, "maintenance"),
    ],
)
def test_the_status_page_says_whether_payments_go_through(
    shops: OpenShop, circuits: dict[str, State], flags: dict[str, Any], status: str
) -> None:
    """Without a key, for a few seconds, and with what the team has to say."""
    shop = shops(flags=flags)
    for name, state in circuits.items():
        move(shop.core.health, name, state, shop.core.clock)  # type: ignore[arg-type] # any clock will do
    answer = _status(shop)
    StatusView.model_validate(answer.json, extra="forbid")
    assert answer.json == {"status": status, "notice": flags.get(MAINTENANCE_NOTICE)}
    assert answer.headers["Cache-Control"] == "public, max-age=3"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    again = _status(shop, **{"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert _status(shop, **{"If-None-Match": '"another"'}).status_code == 200


def test_the_status_page_asks_the_ledger_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what customers see while the ledger is away."""

    def away(*_args: Any) -> None:
        raise AssertionError("the ledger was asked")

    monkeypatch.setattr(Database, "read", away)
    monkeypatch.setattr(Database, "write", away)
    assert _status(shop).status_code == 200


def test_a_payment_in_session_is_refused_at_once_and_its_merchants_word_holds_for_the_others(shops: OpenShop) -> None:
    """3-D Secure needs its customer; `fail` by a setting needs no field; checkout's word wins over both."""
    shop = shops(merchant_when_unavailable='{"strict": "fail"}')
    strict = shop.add_key("strict", merchant="strict")
    _all(shop, "down")
    browser = {"user_agent": "Mozilla/5.0"}
    assert shop.pay(browser=browser).status_code == 503
    assert shop.pay(browser=browser, when_unavailable="park").status_code == 202
    assert shop.pay(api_key=strict).status_code == 503
    assert shop.pay(api_key=strict, when_unavailable="park").status_code == 202
    assert shop.pay().status_code == 202
