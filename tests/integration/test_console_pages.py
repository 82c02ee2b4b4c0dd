"""What the console's pages say, over real payments, and what they cost the ledger."""

from __future__ import annotations

import datetime as dt
import json
import re
from pathlib import Path

import pytest
import sqlalchemy as sa

from providers.sandbox.server import Sandbox
from router.clock import ManualClock, TimeOrderedIds
from router.ledger.console import ConsoleLedger, Wanted
from router.ledger.engine import Database
from router.ledger.flips import Flip, FlipLedger
from router.ledger.tables import attempts, circuit_transitions, operations, payments, to_micros
from router.transitions import State
from tests.integration.console_visitor import visitor
from tests.integration.desk import SECRETS, Desk, letter_box
from tests.integration.shop import Shop, open_shop, order, paying_with
from tests.unit.webhook_receiver import until

pytestmark = pytest.mark.either_database

NO_MONEY = paying_with(stripe="pm_card_visa_chargeDeclinedInsufficientFunds")


def test_lists_are_newest_first_and_each_filter_leaves_what_it_names(shop: Shop) -> None:
    """By status, provider and time, page after page, the same as sorting all of them."""
    bodies = [order(**({} if number % 4 else {"payment_method": NO_MONEY})) for number in range(12)]
    made = [shop.pay(body).json or {} for body in bodies]
    ledger, at = ConsoleLedger(shop.core.database), shop.core.clock.now()
    assert {each["status"] for each in made} == {"captured", "declined"}

    def listed(**wanted: object) -> list[str]:
        found: list[str] = []
        while page := ledger.page(
            Wanted("default", **wanted),  # type: ignore[arg-type]
            limit=5,
            before=found[-1] if found else None,
        ):
            found += [each.id for each in page]
        return found

    def sorted_ids(**same: str) -> list[str]:
        chosen = [each for each in made if all(each[name] == value for name, value in same.items())]
        return sorted((each["id"] for each in chosen), reverse=True)

    assert listed() == sorted_ids()
    assert listed(status="declined") == sorted_ids(status="declined")
    assert listed(provider="stripe", status="captured") == sorted_ids(provider="stripe", status="captured")
    assert listed(provider="adyen") == sorted_ids(provider="adyen")
    middle = dt.datetime.fromisoformat(made[6]["created_at"])
    since = listed(since=middle)
    assert since == [each for each in sorted_ids() if each >= min(since)]
    assert made[6]["id"] in since
    assert made[0]["id"] not in since or made[0]["created_at"] >= made[6]["created_at"]
    assert sorted(since + listed(until=middle), reverse=True) == sorted_ids()
    assert listed(since=at + dt.timedelta(hours=1)) == []
    assert ledger.page(Wanted("another"), limit=5) == []


def test_a_payments_page_tells_its_whole_story(shops) -> None:  # type: ignore[no-untyped-def]
    """Both attempts with their reasons, the decision's sums, the webhook, the metadata; no token, no e-mail."""
    shop: Shop = shops(**SECRETS)
    shop.fault("stripe", "down")
    body = order(metadata={"cart": "77"}, customer={"id": "cus_1", "country": "DE", "email": "ada@shop.example"})
    with letter_box(shop) as box:
        paid = shop.pay(body).json or {}
        box.forward_all()
    Desk(shop).read_notices()
    text = visitor(shop).text(f"/payments/{paid['id']}")

    for word in (
        paid["id"],
        "19.99 EUR",
        "sent to stripe",
        "stripe: not executed",
        "connection_refused",
        "sent to adyen",
        "adyen: approved",
        paid["attempts"][1]["provider_reference"],
        "primary-first",
        "adyen tells: AUTHORISATION",
        "cart 77",
    ):
        assert word in text, word
    assert "ada@shop.example" not in text
    assert "8415718415172204" not in text
    assert text.index("sent to stripe") < text.index("sent to adyen") < text.index("adyen: approved")


def test_the_store_pays_and_a_button_breaks_a_provider(sandbox: Sandbox, tmp_path: Path, ledger_url: str) -> None:
    """An order leads to its payment's page; a broken Stripe to the other provider; mended, all is well."""
    control = int(sandbox.control_url.rpartition(":")[2])
    with open_shop(ledger_url, sandbox, tmp_path, console_sandbox=True, sandbox_control_port=control) as shop:
        person = visitor(shop)
        person.get("/sandbox")
        answer = person.send("/sandbox/order", {"goods": "book", "card": "no-money"})
        told = person.text(answer.headers["Location"].removeprefix("/console"))
        assert "14.50 GBP" in told
        assert "insufficient funds" in told
        assert person.send("/sandbox/stripe", {"mode": "down"}).status_code == 303
        assert shop.control("GET", "/control/stripe")["mode"] == "down"
        answer = person.send("/sandbox/order", {"goods": "coffee", "card": "visa"})
        assert "adyen: approved" in person.text(answer.headers["Location"].removeprefix("/console"))
        assert person.send("/sandbox/stripe", {"mode": "nonsense"}).status_code == 422
        assert person.send("/sandbox/stripe", {"mode": "ok"}).status_code == 303


def flip(shop: Shop, number: int) -> Flip:
    """A flip that was written, of an incident that need not exist."""
    now = shop.core.clock.now()
    evidence = {"open_seconds": 61.5, "window": {"calls": 20, "failures": 10}}
    made = Flip(
        id=f"flip_{number}",
        flag="payments-primary-provider",
        from_value="stripe",
        to_value="adyen",
        state="confirmed",
        incident=f"inc_stripe_{number}",
        reason="circuit of stripe not closed for 60 s",
        evidence=evidence,
        created_at=now,
        confirmed_at=now,
        requested_at=now,
    )
    assert FlipLedger(shop.core.database).claim(made)
    return made


def test_a_flip_is_restored_only_with_a_reason_and_the_box_ticked(shop: Shop) -> None:
    """The ledger then says who asked, and why; a second time is refused with the reason."""
    made, person = flip(shop, 1), visitor(shop)
    told = person.text(f"/flips/{made.id}")
    assert "61.5" in told
    assert "failures: 10" in told
    for form in (
        {},
        {"reason": "", "confirmed": "yes"},
        {"reason": "mended"},
        {"reason": "a\x00b", "confirmed": "yes"},
    ):
        assert person.send(f"/flips/{made.id}/restore", form).status_code == 422
    before = FlipLedger(shop.core.database).get(made.id)
    assert before is not None
    assert before.restore_at is None

    answer = person.send(f"/flips/{made.id}/restore", {"reason": "mended", "confirmed": "yes"})
    assert answer.status_code == 303
    found = FlipLedger(shop.core.database).get(made.id)
    assert found is not None
    assert (found.restore_by, found.restore_reason) == ("operator: bootstrap key of default", "mended")
    again = person.send(f"/flips/{made.id}/restore", {"reason": "mended", "confirmed": "yes"})
    assert (again.status_code, "asked for already" in again.text) == (409, True)
    assert "bootstrap key of default: mended" in person.text(f"/flips/{made.id}")


def test_flags_show_what_is_read_and_where_a_value_is_wrong(shops) -> None:  # type: ignore[no-untyped-def]
    """A value that may not be is named with its default beside it; the others are as they are."""
    shop: Shop = shops(flags={"payments-routing-strategy": "best-value"})
    path = shop.core.settings.flags_path
    document = json.loads(path.read_text())
    flag = document["flags"]["payments-primary-provider"]
    flag["variations"].append("paypal")
    flag["fallthrough"] = {"variation": len(flag["variations"]) - 1}
    path.write_text(json.dumps(document))
    person = visitor(shop)
    until(lambda: "paypal" in person.text("/flags"))
    told = person.text("/flags")

    assert 'Wrong value: "paypal" is not one of stripe, adyen. The default is used' in told
    assert told.count("Wrong value") == 1
    assert "best-value" in told


def test_now_tells_the_circuits_the_figures_and_the_primary(shop: Shop) -> None:
    """Ten payments at Stripe, then an outage: shares, approval, the open circuit and its reason."""
    for _ in range(8):
        assert shop.pay().status_code == 201
    assert (shop.pay(payment_method=NO_MONEY).json or {})["status"] == "declined"
    shop.fault("stripe", "down")
    for _ in range(12):
        assert (shop.pay().json or {})["provider"] == "adyen"
    told = visitor(shop).text("/now/live")

    assert "stripe open" in told
    assert "adyen closed" in told
    assert "Primary flag stripe" in told
    assert "calls failed" in told
    assert "88.9%" in told, "eight of nine issuers' answers at Stripe"
    page = visitor(shop).get("/now/live").text
    assert 'class="k-failed"' in page
    assert 'class="s-open"' in page


def outage(shop: Shop, *, minutes: int, ends_ago: int) -> str:
    """An outage of Stripe's circuit, a round of probes every 15 seconds; the incident's id."""
    now = shop.core.clock.now()
    began = now - dt.timedelta(minutes=minutes + ends_ago)
    states = [(began, State.OPEN, 0)]
    for number in range(1, 4 * minutes):
        at = began + number * dt.timedelta(seconds=15)
        states += [(at, State.HALF_OPEN, number - 1), (at + dt.timedelta(seconds=1), State.OPEN, number)]
    ended = now - dt.timedelta(minutes=ends_ago)
    states += [(ended, State.HALF_OPEN, 9), (ended + dt.timedelta(seconds=5), State.SLOW_START, 9)]
    states += [(ended + dt.timedelta(seconds=30), State.CLOSED, 0)]
    table = circuit_transitions
    with shop.core.database.write() as connection:
        first = 1 + (connection.scalar(sa.select(sa.func.max(table.c.version))) or 0)
        incident = f"inc_stripe_{first}"
        rows: list[dict[str, object]] = [
            {
                "provider": "stripe",
                "version": first + number,
                "state": state.value,
                "failed_rounds": rounds,
                "actor": "worker:1",
                "reason": f"why {number}",
                "evidence": {},
                "incident": incident,
                "open_us": 0,
                "share": 1.0,
                "suspect": False,
                "at": to_micros(at),
            }
            for number, (at, state, rounds) in enumerate(states)
        ]
        connection.execute(table.insert(), rows)
    return incident


def test_a_long_outage_is_drawn_open_from_its_first_minute(shop: Shop) -> None:
    """Of 100 minutes with four rounds of probes each: six hours show them all, and so does the page."""
    incident = outage(shop, minutes=100, ends_ago=30)
    person = visitor(shop)
    lane = person.get("/now/live?window=6h").text.partition('aria-label="stripe: circuit')[2].partition("</svg>")[0]
    drawn = re.findall(r'class="s-([a-z-]+)" x="([0-9.]+)" width="([0-9.]+)"', lane)
    until_open = sum(float(width) for kind, _, width in drawn if kind == "closed" and float(width) > 20)
    # Buckets of three minutes: closed for 230 minutes, open for 100, closed for 30.
    assert until_open == pytest.approx(230 / 3, abs=2)
    assert sum(float(width) for kind, _, width in drawn if kind == "open") == pytest.approx(100 / 3, abs=3)
    told = person.text(f"/incidents/{incident}")
    assert "399 rounds of probes that failed" in told
    assert "why 0" in told
    assert "closed why" in told


def test_an_old_incidents_page_tells_what_its_circuit_did(shop: Shop) -> None:
    """Though the circuit made hundreds of moves since, in another one."""
    old = outage(shop, minutes=2, ends_ago=300)
    outage(shop, minutes=60, ends_ago=10)
    told = visitor(shop).text(f"/incidents/{old}")
    assert "open why 0" in told
    assert "slow start 100% why" in told
    assert "7 rounds of probes that failed" in told


def test_a_story_of_several_days_says_which(shop: Shop) -> None:
    """A refund of the next day stands with its date; what came within the payment's own day, with its time."""
    paid = shop.pay().json or {}
    shop.send("POST", f"/v1/payments/{paid['id']}/refunds", key="r", json={"amount": 500})
    day = 24 * 3600 * 1_000_000
    with shop.core.database.write() as connection:
        connection.execute(operations.update().values(started_at=operations.c.started_at + day))
    begun = dt.datetime.fromisoformat(paid["created_at"])
    told = visitor(shop).text(f"/payments/{paid['id']}")
    assert f"{begun + dt.timedelta(days=1):%Y-%m-%d}" in told.partition("What happened")[2]
    assert f"{begun:%Y-%m-%d}" not in told.partition("What happened")[2].partition("refund at")[0]


def test_a_next_page_keeps_the_search_and_nothing_else_of_the_address(shop: Shop) -> None:
    """Words that mean something to who makes addresses (`_scheme`, `endpoint`) change no link, and break no page."""
    for _ in range(51):
        shop.pay()
    strange = "endpoint=x&_external=1&_scheme=javascript&_anchor=%0aalert(1)&_method=POST"
    page = visitor(shop).get("/payments?status=captured&provider=stripe&" + strange)
    assert page.status_code == 200
    (link,) = re.findall(r'rel="next" href="([^"]*)"', page.text)
    assert re.fullmatch(r"/console/payments\?cursor=pay_\w+&amp;status=captured&amp;provider=stripe", link), link


def test_without_the_ledger_the_circuits_are_still_shown(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """To whoever was seen before; a page that needs the ledger says so with 503."""
    person = visitor(shop)
    person.get("/now")

    def away(*_: object) -> None:
        raise sa.exc.OperationalError("", None, Exception())

    sa.event.listen(shop.core.database.engine, "begin", away)
    try:
        told = person.text("/now")
        assert "stripe closed" in told
        assert "The ledger is away" in told
        answer = person.get("/payments")
        assert (answer.status_code, answer.content_type) == (503, "text/html; charset=utf-8")
    finally:
        sa.event.remove(shop.core.database.engine, "begin", away)


@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
def test_no_query_of_a_page_reads_a_whole_table(database: Database) -> None:
    """Each step of each plan goes by an index (SQLite's EXPLAIN QUERY PLAN): a million payments cost no more."""
    ledger, now = ConsoleLedger(database), dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
    asked: list[tuple[str, object]] = []
    one = TimeOrderedIds(ManualClock(now)).new("pay")
    with database.write() as connection:
        row = {
            "id": one,
            "merchant": "default",
            "reference": "r",
            "holds_reference": True,
            "status": "captured",
            "amount": 1,
            "currency": "EUR",
            "amount_captured": 1,
            "amount_refunded": 0,
            "capture_pending": False,
            "provider": "stripe",
            "order": {},
            "flags": {},
            "decision": {},
            "version": 1,
            "tries": 1,
            "expires_at": 1,
            "created_at": to_micros(now),
            "updated_at": 1,
        }
        connection.execute(payments.insert(), row)
        tried = {"id": "att_1", "payment_id": one, "number": 1, "provider": "stripe", "idempotency_key": "k"}
        connection.execute(attempts.insert(), tried | {"params": {}, "started_at": to_micros(now)})

    def note(_c: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        if statement.startswith("SELECT"):
            asked.append((statement, parameters))

    sa.event.listen(database.engine, "before_cursor_execute", note)
    ledger.counts(now - dt.timedelta(hours=1), now, width=dt.timedelta(seconds=30))
    ledger.latencies(now)
    ledger.parked()
    for wanted in (Wanted("default"), Wanted("default", "captured", "stripe", now, now + dt.timedelta(hours=1))):
        assert ledger.page(wanted, limit=50, before="pay_zzz")
    assert ledger.named("default", "r", limit=50)
    assert ledger.named("default", "nothing", limit=50) == []
    ledger.events(one)
    ledger.letters(one)
    sa.event.remove(database.engine, "before_cursor_execute", note)

    with database.read() as connection:
        for statement, parameters in asked:
            plan = connection.exec_driver_sql("EXPLAIN QUERY PLAN " + statement, parameters)  # type: ignore[arg-type]
            for step in plan:
                # A scan of an index that holds little: what is parked, or a subquery's few rows.
                allowed = "ix_payments_parked" in step.detail or "anon_1" in step.detail
                assert allowed or not step.detail.startswith("SCAN"), (statement, step.detail)
                # Nor one of all payments of a merchant, of which there may be one.
                assert not step.detail.endswith("(merchant=?)"), (statement, step.detail)
    assert len(asked) > 20
