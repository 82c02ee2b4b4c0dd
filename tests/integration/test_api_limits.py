"""A key's rate, a merchant's quota, its share of a provider's places: 429, and nothing is written."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
from typing import Any

import pytest
from werkzeug.test import TestResponse

from router.clock import ManualClock, SystemClock
from router.ledger.counts import hour_of
from router.ledger.engine import Database
from router.ledger.merchant_volumes import MerchantVolumes
from router.limits.quota import HOURS_BACK, WEEK_H, WEEKS_BACK
from router.volumes import Volumes
from tests.integration.conftest import OpenShop
from tests.integration.shop import Shop, order

pytestmark = pytest.mark.either_database

SLOW: dict[str, Any] = {"rate_per_key": 0.1, "rate_burst_seconds": 20.0}
"""Two at once, and one more ten seconds later."""


def limited(answer: TestResponse, limit: str) -> int:
    """The `Retry-After` of a refusal that says it was this limit."""
    problem = answer.get_json(force=True)
    assert (answer.status_code, answer.content_type) == (429, "application/problem+json"), answer.text
    assert (problem["type"], problem["limit"]) == ("urn:pointsman:problem:rate-limited", limit)
    return int(answer.headers["Retry-After"])


def test_beyond_a_keys_rate_nothing_is_made_and_what_was_made_is_still_told(shops: OpenShop) -> None:
    shop = shops(**SLOW)
    body = order()
    first = shop.pay(body, key="one")
    assert (first.status_code, shop.pay().status_code) == (201, 201)
    before = shop.counts()
    assert 1 <= limited(shop.pay(), "rate") <= 10
    # Checkout lost the first answer, and asks again: twice, for that has a rate of its own.
    again = shop.pay(body, key="one")
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (201, "true")
    assert (again.json or {})["id"] == (first.json or {})["id"]
    limited(shop.pay(body, key="one"), "rate")
    assert shop.counts() == before
    # Reads have their own, and another key too.
    shop.read((first.json or {})["id"])
    assert shop.pay(api_key=shop.add_key("other", merchant="books")).status_code == 201
    # A refused one has used up nothing but its place: its key is free.
    assert shop.rows("SELECT count(*) AS n FROM idempotency_keys WHERE key = 'two'") == [{"n": 0}]


def test_beyond_a_merchants_quota_it_is_said_so_and_a_replay_counts_not(shops: OpenShop) -> None:
    shop = shops(quota_floor_per_minute=6)
    body = order()
    for _ in range(5):
        assert shop.pay(body, key="one").status_code == 201
    assert shop.pay().status_code == 201
    before = shop.counts()
    assert 1 <= limited(shop.pay(), "quota") <= 10
    assert shop.pay(body, key="one").headers["Idempotent-Replayed"] == "true"
    assert shop.counts() == before
    assert shop.pay(api_key=shop.add_key("other", merchant="books")).status_code == 201


def test_what_nobody_may_limit_is_not_limited(shops: OpenShop) -> None:
    shop = shops(**SLOW)
    for _ in range(5):
        assert shop.send("GET", "/healthz", api_key=None).status_code == 200
        assert shop.send("POST", "/webhooks/stripe", api_key=None, data=b"{}").status_code != 429
        assert shop.send("GET", "/v1/status", api_key=None).status_code == 200
    assert [shop.send("GET", "/v1/providers").status_code for _ in range(3)] == [200, 200, 429]


def test_a_merchant_with_its_share_of_every_provider_is_refused_before_anything_is_written(shop: Shop) -> None:
    """Of three places at each provider it has two, and another merchant paid lately: the last one is for others."""
    books = shop.add_key("books", merchant="books")
    assert shop.pay().status_code == 201
    health, before = shop.core.health, shop.counts()
    with contextlib.ExitStack() as stack:
        for provider in ("stripe", "adyen"):
            for _ in range(health.bulkhead(provider).permits - 1):
                call = health.admit(provider, "default")
                assert call is not None
                stack.enter_context(call)
        health.bulkhead("stripe").leave("default")  # the other merchant's, for a moment
        health.bulkhead("stripe").enter("toys", shop.core.clock.monotonic())
        health.bulkhead("adyen").leave("default")
        health.bulkhead("adyen").enter("toys", shop.core.clock.monotonic())
        assert limited(shop.pay(key="mine"), "share") == 1
        assert shop.counts() == before | {"api_keys": before["api_keys"]}
        assert shop.pay(api_key=books).status_code == 201
        for provider in ("stripe", "adyen"):
            health.bulkhead(provider).leave("toys")
            health.bulkhead(provider).enter("default", shop.core.clock.monotonic())
    assert shop.pay(key="mine").status_code == 201
    assert [health.bulkhead(each).in_use for each in ("stripe", "adyen")] == [0, 0]


def test_every_view_behind_the_gate_documents_the_refusal(standing_shop: Shop) -> None:
    paths = standing_shop.app.test_client().get("/openapi.json").json["paths"]  # type: ignore[index]
    for path, operations in paths.items():
        for operation in operations.values():
            if path.startswith("/v1/") and operation.get("security"):
                assert "application/problem+json" in operation["responses"]["429"]["content"], path


# ---------------------------------------------------------------- what quotas are made from


def test_payments_are_counted_by_the_minute_once_whoever_counts(shops: OpenShop) -> None:
    shop = shops()
    other = shop.add_key("other", merchant="books")
    for _ in range(3):
        shop.pay()
    shop.pay(api_key=other)
    ledger, now = MerchantVolumes(shop.core.database), shop.core.clock.now()
    minute = dt.timedelta(minutes=1)
    counted: dict[str, int] = {}
    for (merchant, _), payments in ledger.count(now - minute, now + minute).items():
        counted[merchant] = counted.get(merchant, 0) + payments
    assert counted == {"default": 3, "books": 1}
    clock = ManualClock(now + 2 * minute)
    workers = [Volumes(ledger, clock) for _ in range(2)]
    for worker in workers:
        while worker.run_once():
            pass
    hours = {hour_of(now), hour_of(now) - 1}
    found = {merchant: max(peaks) for merchant, peaks in ledger.peaks(hours).items()}
    assert found["books"] == 1
    assert found["default"] in (2, 3)  # the minute may have turned between them
    assert workers[0].run_once() == 0


def test_what_is_on_record_only_goes_up_and_is_forgotten_in_time(database: Database) -> None:
    ledger, clock = MerchantVolumes(database), SystemClock()
    hour = hour_of(clock.now())
    old = hour - WEEKS_BACK * WEEK_H - HOURS_BACK - 2
    ledger.raise_to({("books", hour): 5, ("books", old): 9})
    ledger.raise_to({("books", hour): 3, ("toys", hour): 1})
    assert ledger.peaks([hour, old]) == {"books": [9, 5], "toys": [1]}
    Volumes(ledger, clock).run_once()
    assert ledger.peaks([hour, old]) == {"books": [5], "toys": [1]}
    threads = [
        threading.Thread(target=ledger.raise_to, args=({("a", hour): peak, ("b", hour): peak},)) for peak in range(9)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert ledger.peaks([hour])["a"] == ledger.peaks([hour])["b"] == [8]
