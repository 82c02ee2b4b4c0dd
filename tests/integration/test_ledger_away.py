"""The ledger cannot be written: before a provider is called nothing is charged, after it nothing is forgotten."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from providers.contract import Outcome, OutcomeKind
from router.ledger import engine, journal
from tests.integration.conftest import OpenShop
from tests.integration.postgres import Databases
from tests.integration.shop import Spy, order

Outage = Callable[[], contextlib.AbstractContextManager[None]]
BUSY_MS = 40
"""How long SQLite waits for a lock here, instead of seconds."""
PATIENCE_S = 0.6
"""For how long a commit is tried again here, instead of five seconds."""


@pytest.fixture
def outage(ledger_url: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Outage:
    """A real one: another process holds SQLite's write lock; PostgreSQL throws everybody out and lets nobody in."""
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_MS", BUSY_MS)
    monkeypatch.setattr(journal, "COMMIT_PATIENCE_S", PATIENCE_S)

    @contextlib.contextmanager
    def sqlite() -> Iterator[None]:
        holder = sa.create_engine(ledger_url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        with holder.connect() as connection:
            connection.exec_driver_sql("BEGIN EXCLUSIVE")
            try:
                yield
            finally:
                connection.exec_driver_sql("ROLLBACK")

    @contextlib.contextmanager
    def postgres() -> Iterator[None]:
        server = request.getfixturevalue("postgres")
        server.take_away(ledger_url)
        try:
            yield
        finally:
            server.give_back(ledger_url)

    return sqlite if ledger_url.startswith("sqlite") else postgres


def test_nothing_is_charged_when_the_first_commit_fails(shops: OpenShop, outage: Outage) -> None:
    """503 ledger-unavailable with Retry-After; no provider hears of it, and the same request works afterwards."""
    shop = shops()
    body = order()
    with outage():
        began = time.monotonic()
        answer = shop.pay(body, key="k")
        assert time.monotonic() - began < 2
    assert (answer.status_code, answer.content_type) == (503, "application/problem+json")
    assert (answer.json or {})["type"].endswith(":ledger-unavailable")
    assert int(answer.headers["Retry-After"]) >= 1
    assert [state["requests"] for state in shop.control("GET", "/control").values()] == [0, 0]
    assert shop.counts()["payments"] == 0
    assert shop.pay(body, key="k").status_code == 201
    assert len(shop.charged(body["reference"])) == 1


@pytest.mark.parametrize("ledger_url", ["postgres"], indirect=True)
def test_connections_that_were_ended_just_after_their_last_use_cost_no_payment(
    shops: OpenShop, postgres: Databases, ledger_url: str
) -> None:
    """By a pooler, a proxy or a person."""
    shop = shops()
    for _ in range(3):
        shop.pay(order())
        postgres.throw_out(ledger_url)
        body = order()
        answer = shop.pay(body)
        assert answer.status_code == 201, answer.text
        assert len(shop.charged(body["reference"])) == 1


@pytest.mark.parametrize("ledger_url", ["postgres"], indirect=True)
def test_a_first_commit_that_is_lost_from_sight_is_looked_for_and_made_again(
    shops: OpenShop, postgres: Databases, ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection ends between the look at it and the statement: 201, and one charge."""
    shop = shops()
    write = shop.core.database.write_at_once
    ends = [True]

    @contextlib.contextmanager
    def write_and_end() -> Iterator[sa.Connection]:
        with write() as connection:
            if ends:
                ends.pop()
                postgres.throw_out(ledger_url)
            yield connection

    monkeypatch.setattr(shop.core.database, "write_at_once", write_and_end)
    body = order()
    answer = shop.pay(body)
    assert answer.status_code == 201, answer.text
    assert not ends
    assert len(shop.charged(body["reference"])) == 1
    assert shop.counts()["payments"] == 1


@pytest.mark.parametrize("mode", ["ok", "decline", "lose_reply"])
def test_an_answer_that_cannot_be_written_is_processing(shops: OpenShop, outage: Outage, mode: str) -> None:
    """The ledger goes away while the provider works: 202 processing, the attempt on record as started, one charge."""
    found: list[Spy] = []
    shop = shops(spies={"stripe": found})
    shop.fault("stripe", mode)
    body = order()
    with contextlib.ExitStack() as until_answered:

        def break_off(_key: str, outcome: Outcome) -> None:
            assert outcome.kind is not OutcomeKind.NOT_EXECUTED
            found[0].after.clear()  # a re-send finds it away already
            until_answered.enter_context(outage())

        found[0].after.append(break_off)
        answer = shop.pay(body, key="k")
    assert answer.status_code == 202, answer.text
    told = answer.json or {}
    assert (told["status"], told["amount_captured"]) == ("processing", 0)
    written = shop.read(told["id"])
    assert (written["status"], written["provider"]) == ("processing", "stripe")
    assert [(each["provider"], each["outcome"]) for each in written["attempts"]] == [("stripe", None)]
    assert told["attempts"] == written["attempts"], "what is told is what the ledger holds"
    assert len(shop.charged(body["reference"])) == (mode != "decline")
    assert shop.charges("adyen") == []
    # Nobody pays it a second time meanwhile: not under its key, nor under another for the same order.
    assert shop.pay(body, key="k").status_code == 409
    assert shop.pay(body, key="other").status_code == 409


def test_a_failover_does_not_begin_when_it_cannot_be_written(shops: OpenShop, outage: Outage) -> None:
    """The first provider refused for certain, but the second attempt cannot be written: it is not sent."""
    found: list[Spy] = []
    shop = shops(spies={"stripe": found})
    shop.fault("stripe", "down")
    with contextlib.ExitStack() as until_answered:
        found[0].after.append(lambda *_: until_answered.enter_context(outage()))
        answer = shop.pay()
    assert (answer.status_code, (answer.json or {})["status"]) == (202, "processing")
    assert shop.charges("adyen") == []


def test_a_short_absence_after_the_charge_is_waited_out(
    shops: OpenShop, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that fails once is tried again: the customer gets the outcome."""
    found: list[Spy] = []
    shop = shops(spies={"stripe": found})
    until_waited_for = contextlib.ExitStack()
    found[0].after.append(lambda *_: until_waited_for.enter_context(outage()))
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        until_waited_for.close()

    monkeypatch.setattr(shop.core.clock, "sleep", wait)
    answer = shop.pay()
    assert len(waits) == 1
    assert (answer.status_code, (answer.json or {})["status"]) == (201, "captured")
    assert shop.read((answer.json or {})["id"]) == answer.json


def test_reading_says_that_the_ledger_is_away(shops: OpenShop, outage: Outage, ledger_url: str) -> None:
    """A 503 problem, not a 500; SQLite still reads while another process writes."""
    shop = shops()
    payment = shop.pay().json or {}
    with outage():
        answer = shop.send("GET", f"/v1/payments/{payment['id']}")
        if ledger_url.startswith("sqlite"):
            assert answer.json == payment
        else:
            assert (answer.status_code, answer.content_type) == (503, "application/problem+json")
    assert shop.read(payment["id"]) == payment


def test_readiness_follows_the_ledger(shops: OpenShop, outage: Outage) -> None:
    """503 with the cause while it cannot be written, though the process lives."""
    shop = shops()
    with outage():
        away = shop.send("GET", "/readyz", api_key=None)
        assert (away.status_code, (away.json or {})["ready"]) == (503, False)
        assert "cannot be written" in (away.json or {})["ledger"]
        assert shop.send("GET", "/healthz", api_key=None).json == {"status": "ok"}


def test_open_circuits_are_no_reason_to_be_taken_out_of_service(shops: OpenShop) -> None:
    """They are in the body of /readyz; the process goes on taking payments."""
    shop = shops(breaker_minimum_calls=1)
    for provider in ("stripe", "adyen"):
        shop.fault(provider, "down")
    shop.pay()
    ready = shop.send("GET", "/readyz", api_key=None)
    assert (ready.status_code, (ready.json or {})["ready"]) == (200, True)
    assert (ready.json or {})["circuits"] == {"stripe": "open", "adyen": "open"}


def test_requests_that_wait_for_a_locked_ledger_do_not_wait_for_each_other(shops: OpenShop, outage: Outage) -> None:
    """Many at once take hardly longer than one: their waits do not add up."""
    requests = 16
    shop = shops(web_threads=requests)
    with outage(), ThreadPoolExecutor(requests) as pool:
        began = time.monotonic()
        answers = list(pool.map(lambda _: shop.pay(), range(requests)))
        took_s = time.monotonic() - began
    assert {each.status_code for each in answers} == {503}
    assert took_s < requests * BUSY_MS / 1000 * 0.6
