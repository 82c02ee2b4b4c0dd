"""What the web says of events: their schema, and how far behind a relay is; and that nobody throws events away."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys

import pytest
from jsonschema import Draft202012Validator

from router.events import body_of
from router.ledger.event_feed import START, EventFeed
from router.ledger.relays import RelayLedger
from router.ledger.tables import payment_events
from tests.integration.shop import Shop
from tests.integration.test_housekeeping import housekeeping

pytestmark = pytest.mark.either_database

YEAR = dt.timedelta(days=365)


def test_the_schema_is_served_and_says_what_real_payments_tell(shop: Shop) -> None:
    """To whoever has a key."""
    answer = shop.send("GET", "/v1/events/schema")
    assert (answer.status_code, answer.mimetype) == (200, "application/schema+json")
    assert shop.send("GET", "/v1/events/schema", api_key=None).status_code == 401
    validator = Draft202012Validator(json.loads(answer.text))
    paid = (shop.pay().json or {})["id"]
    shop.send("POST", f"/v1/payments/{paid}/refunds", key="refund", json={"amount": 500})
    events, _ = EventFeed(shop.core.database).after(START, 100)
    told = [json.loads(body_of(each)) for each in events]
    for each in told:
        validator.validate(each)
    words = [each["type"].rpartition(".")[2] for each in told]
    assert (words[:2], words[-1]) == (["created", "captured"], "refunded")
    assert told[-1]["data"]["amount_refunded"] == 500


def test_the_health_page_says_how_far_behind_a_relay_is(shop: Shop) -> None:
    """And nothing of relays where there is none: no broker is configured, and nothing is wrong."""
    now = shop.core.clock.now()
    RelayLedger(shop.core.database).take("kafka", "me", now=now, until=now)
    shop.pay()
    relays = (shop.send("GET", "/readyz", api_key=None).json or {})["relays"]
    assert relays["kafka"]["events"] == 2
    assert 0 <= relays["kafka"]["seconds"] < 60
    assert relays["kafka"]["cause"] is None


def test_without_a_relay_the_health_page_names_none(shop: Shop) -> None:
    """No broker: nothing happens."""
    shop.pay()
    assert (shop.send("GET", "/readyz", api_key=None).json or {})["relays"] == {}


def test_the_health_page_says_how_far_behind_the_webhooks_are(shop: Shop) -> None:
    """In numbers: who asks has no key."""
    body = {"url": "https://93.184.215.14/in"}
    assert shop.send("POST", "/v1/webhook-endpoints", key="endpoint", json=body).status_code == 201
    shop.pay()
    told = (shop.send("GET", "/readyz", api_key=None).json or {})["webhooks"]
    assert 0 <= told.pop("unread_seconds") < 60
    assert told == {"pending": 0, "pending_seconds": 0.0, "unread": 2, "failing": 0, "disabled": 0}


def test_events_that_nobody_has_passed_on_are_not_thrown_away(shop: Shop) -> None:
    """Housekeeping forgets what is old; events are the ledger's own record, and stay."""
    shop.pay()
    with shop.core.database.write() as connection:
        connection.execute(payment_events.update().values(at=payment_events.c.at - int(YEAR.total_seconds() * 1e6)))
    housekeeping(shop).run_once()
    events, _ = EventFeed(shop.core.database).after(START, 100)
    assert len(events) == 2


def test_a_router_without_brokers_does_not_load_their_client() -> None:
    """Its library is ten megabytes."""
    code = "import router.app.loops, sys; sys.exit('confluent_kafka' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
