"""The worker's housekeeping over the real SDKs, on both databases."""

from __future__ import annotations

import datetime as dt

import pytest
import sqlalchemy as sa

from providers.contract import OutcomeKind, Timeouts
from router.app.loops import build_housekeeping
from router.audit import verify
from router.housekeeping import Done, Housekeeping
from router.ledger.alerts import Alert, AlertLedger
from router.ledger.counts import CountLedger, CountRow, hour_of
from router.ledger.probes import Probe, ProbeLedger
from router.ledger.tables import idempotency_keys, webhooks
from tests.integration.conftest import OpenShop
from tests.integration.shop import Shop, paying_with

THREE_D_SECURE = paying_with(stripe="pm_card_threeDSecure2Required")
SOON_S = 0.05


def housekeeping(shop: Shop) -> Housekeeping:
    """The worker's loop."""
    return build_housekeeping(shop.core)


def test_an_abandoned_payment_is_canceled_in_the_providers_books(shops: OpenShop) -> None:
    """Stripe's intent is canceled, the payment as well, and its reference is free for another."""
    shop = shops(action_expires_seconds=SOON_S)
    body = shop.pay(payment_method=THREE_D_SECURE, reference="ORD-1").json or {}
    assert body["status"] == "requires_action"
    shop.core.clock.sleep(2 * SOON_S)
    assert housekeeping(shop).run_once() == Done(canceled=1)
    ended = shop.read(body["id"])
    assert (ended["status"], ended["next_action"]) == ("canceled", None)
    assert shop.charged("ORD-1") == []
    (attempt,) = ended["attempts"]
    found = shop.core.providers["stripe"].look_up(
        attempt["id"],
        provider_reference=attempt["provider_reference"],
        sent_from=shop.core.clock.now(),
        sent_until=shop.core.clock.now(),
        timeouts=Timeouts(1.0, 5.0),
    )
    assert found.outcome is not None
    assert found.outcome.kind is OutcomeKind.CANCELED
    assert shop.pay(reference="ORD-1").status_code == 201
    assert housekeeping(shop).run_once() == Done()
    assert [each for progress in verify(shop.core.database) for each in progress.differences] == []


def test_a_provider_that_is_away_is_asked_again_later(shops: OpenShop) -> None:
    """Nothing is canceled on our own word."""
    shop = shops(action_expires_seconds=SOON_S)
    body = shop.pay(payment_method=THREE_D_SECURE).json or {}
    shop.fault("stripe", "down")
    shop.core.clock.sleep(2 * SOON_S)
    assert housekeeping(shop).run_once() == Done()
    assert shop.read(body["id"])["status"] == "requires_action"


@pytest.mark.parametrize("days", [29, 31])
def test_old_keys_and_applied_notices_are_forgotten_after_thirty_days(shop: Shop, days: int) -> None:
    """Those of an open payment are kept; what has not been applied as well."""
    shop.pay(key="paid")
    shop.pay(key="open", capture="manual")
    micros = int(dt.timedelta(days=days).total_seconds()) * 1_000_000
    now = shop.core.clock.now()
    with shop.core.database.write() as connection:
        connection.execute(idempotency_keys.update().values(created_at=idempotency_keys.c.created_at - micros))
        row = {"provider": "stripe", "name": "n", "notice": {}, "received_at": 0, "tries": 0, "next_try_at": 0}
        connection.execute(webhooks.insert(), row | {"notice_id": "waiting"})
        at = sa.literal(int(now.timestamp() * 1_000_000) - micros)
        connection.execute(webhooks.insert().values(row | {"notice_id": "applied", "applied_at": at}))
    done = housekeeping(shop).run_once()
    assert done == (Done(keys=1, webhooks=1) if days > 30 else Done())
    assert (shop.core.ledger.find_key("default", "paid") is None) == (days > 30)
    assert shop.core.ledger.find_key("default", "open") is not None
    assert len(shop.rows("SELECT * FROM webhooks")) == (1 if days > 30 else 2)


@pytest.mark.parametrize(
    ("days", "done"), [(1.9, Done()), (2.1, Done(counts=1)), (31, Done(counts=1, probes=1, alerts=1))]
)
def test_what_processes_counted_probed_and_told_is_forgotten(shop: Shop, days: float, done: Done) -> None:
    """A row a process, provider and hour, for ever: each start of a process would read them all."""
    core = shop.core
    at = core.clock.now() - dt.timedelta(days=days)
    CountLedger(core.database).write([CountRow("web:old", "stripe", hour_of(at), 9, 0, 0, 0, updated_at=at)])
    assert ProbeLedger(core.database).begin(Probe("stripe", 1, 1, "worker:old", at))
    assert AlertLedger(core.database).tell(Alert("alert_1", "no_target", "inc_stripe_1", "nowhere to go", at))
    assert housekeeping(shop).run_once() == done
    assert housekeeping(shop).run_once() == Done()
