"""What Stripe charged, from its answer into the ledger, and beside the estimate."""

from __future__ import annotations

import dataclasses
import datetime as dt
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
import urllib3

from providers.contract import Health, Money, Notice, NoticeKind, Outcome, OutcomeKind, Params
from router.cli import main
from router.fee_difference import differences
from router.ledger import actual_fees
from router.ledger.actual_fees import ActualFees
from router.ledger.inbox import Inbox
from router.ledger.tables import attempts, webhooks
from tests.integration.conftest import OpenShop
from tests.integration.shop import Shop, Spy

DAY = dt.timedelta(days=1)


def kept(shop: Shop) -> list[tuple[int | None, str | None]]:
    """What each attempt keeps, the oldest first."""
    rows = shop.rows("SELECT fee_actual, fee_currency FROM attempts ORDER BY started_at, number")
    return [(row["fee_actual"], row["fee_currency"]) for row in rows]


def test_the_fee_of_a_capture_is_kept_with_no_further_call(shop: Shop) -> None:
    """2.75% and 0.35 of 19.99; an authorization, a decline and a provider that does not tell keep none."""
    assert shop.pay().status_code == 201
    assert shop.control("GET", "/control/stripe")["requests"] == 1
    assert shop.pay(capture="manual").status_code == 201
    declined = shop.pay(payment_method={"type": "card", "tokens": {"stripe": "pm_card_chargeDeclinedExpiredCard"}})
    assert (declined.json or {})["status"] == "declined"
    assert shop.pay(payment_method={"type": "card", "tokens": {"adyen": "8415718415172204"}}).status_code == 201
    assert kept(shop) == [(90, "EUR"), (None, None), (None, None), (None, None)]


def test_the_fee_of_a_payment_that_waited_for_its_customer_is_kept(shop: Shop) -> None:
    """The answer to `complete` tells it."""
    tokens = {"stripe": "pm_card_authenticationRequired"}
    payment = shop.pay(payment_method={"type": "card", "tokens": tokens}).json or {}
    assert (payment["status"], kept(shop)) == ("requires_action", [(None, None)])
    urllib3.request("GET", f"{payment['next_action']['url']}?result=success", redirect=False)
    done = shop.send("POST", f"/v1/payments/{payment['id']}/complete", key="done", json={}).json or {}
    assert (done["status"], kept(shop)) == ("captured", [(90, "EUR")])


def test_a_payment_written_down_without_asking_is_sent_again_without_asking(
    shops: OpenShop, sandbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under its key Stripe wants the parameters of the first send: those in the ledger, whatever is rendered now."""
    shop = shops()
    seen: list[Params] = []
    spy = Spy(shop.core.providers["stripe"], before=[lambda _key, params: seen.append(params)])
    shop.fault("stripe", "lose_reply")
    monkeypatch.setitem(shop.core.providers, "stripe", spy)
    shop.pay()
    assert len(seen) > 1
    assert all(params == seen[0] for params in seen)
    found = shop.rows("SELECT id, payment_id FROM attempts WHERE provider = 'stripe'")[0]
    attempts = (shop.core.ledger.get(found["payment_id"]) or (None, []))[1]
    assert seen[0] == shop.core.ledger.params_of(next(each for each in attempts if each.id == found["id"]))


def test_estimates_are_compared_with_what_was_charged(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Over the days asked for, page by page; the difference is what the stand-in takes more than the default says."""
    for _ in range(5):
        assert shop.pay().status_code == 201
    monkeypatch.setattr(actual_fees, "PAGE", 2)
    ledger, now = ActualFees(shop.core.database), shop.core.clock.now()
    (found,) = differences(ledger.between(now - DAY, now + DAY))
    assert (found.provider, found.currency, found.payments) == ("stripe", "EUR", 5)
    assert (found.estimated, found.actual, found.difference) == (Decimal("4.3985"), Decimal("4.5"), Decimal("0.1015"))
    moments = sorted(row["started_at"] for row in shop.rows("SELECT started_at FROM attempts"))
    third = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=moments[2])
    assert len(list(ledger.between(third, now + DAY))) == 3
    assert len(list(ledger.between(now - DAY, third))) == 2
    monkeypatch.setenv("ROUTER_DATABASE_URL", shop.url)
    days = [f"{moment:%Y-%m-%d}" for moment in (now - DAY, now + 2 * DAY)]
    assert main(["fees", "difference", "--from", days[0], "--to", days[1]]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()][1:] == [
        ["stripe", "EUR", "5", "4.3985", "4.5000", "0.1015", "10.16", "0", "0"]
    ]


def test_attempts_of_one_moment_are_each_counted_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page may end between them."""
    for _ in range(4):
        assert shop.pay().status_code == 201
    now = shop.core.clock.now()
    with shop.core.database.write() as connection:
        connection.execute(sa.update(attempts).values(started_at=1))
    monkeypatch.setattr(actual_fees, "PAGE", 1)
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    assert len(list(ActualFees(shop.core.database).between(moment, now))) == 4


def test_a_fee_that_a_notice_tells_is_stored_with_it(shop: Shop) -> None:
    """And a notice that an earlier version stored, which knew of no fees, is read as before."""
    inbox, now = Inbox(shop.core.database), shop.core.clock.now()
    outcome = Outcome(OutcomeKind.APPROVED, Health.OK, provider_reference="pi_1", captured=True, fee=Money(90, "EUR"))
    notices = [Notice(name, NoticeKind.ATTEMPT, "n", outcome=outcome) for name in ("evt_1", "evt_2")]
    assert inbox.store("stripe", notices, now=now) == 2
    with shop.core.database.write() as connection:
        older = dataclasses.asdict(notices[1])
        del older["outcome"]["fee"]
        connection.execute(webhooks.update().where(webhooks.c.notice_id == "evt_2").values(notice=older))
    told = {each.notice.id: each.notice.outcome for each in inbox.due(now, limit=9)}
    assert told == {"evt_1": outcome, "evt_2": dataclasses.replace(outcome, fee=None)}
