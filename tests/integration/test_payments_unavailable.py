"""Every provider is unavailable: the payment waits and is paid later, or checkout is told at once."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from router.api.views import PaymentView
from tests.integration.conftest import OpenShop
from tests.integration.shop import Shop

pytestmark = pytest.mark.either_database

BOTH = ("stripe", "adyen")
SOON_S = 0.05
"""A parked payment's time to the next try, in these tests."""


def _all(shop: Shop, mode: str) -> None:
    for provider in BOTH:
        shop.fault(provider, mode)


def _due(shop: Shop, payment: dict[str, Any]) -> None:
    """Let the time of a parked payment's next try come."""
    until = dt.datetime.fromisoformat(payment["retry_at"])
    shop.core.clock.sleep(max(0.0, (until - shop.core.clock.now()).total_seconds()) + 0.005)


def _drained(shop: Shop) -> int:
    """What a worker of its own has paid, when nothing is parked any more."""
    worker, settled = shop.parked(), 0
    while shop.rows("SELECT 1 FROM payments WHERE status = 'parked'"):
        settled += worker.run_once()
        shop.core.clock.sleep(0.02)
    return settled


@pytest.mark.parametrize("mode", ["down", "rate_limited"])
def test_a_payment_that_nobody_can_take_now_is_parked_and_paid_later(shops: OpenShop, mode: str) -> None:
    """202 parked with retry_at; when a provider is back the worker's round captures it, once."""
    shop = shops(parked_retry_seconds=SOON_S)
    _all(shop, mode)
    answer = shop.pay()
    assert answer.status_code == 202
    body = answer.json or {}
    PaymentView.model_validate(body, extra="forbid")
    assert (body["status"], body["provider"]) == ("parked", None)
    assert [each["outcome"] for each in body["attempts"]] == ["not_executed", "not_executed"]
    assert body["retry_at"] > body["created_at"]
    _all(shop, "ok")
    _due(shop, body)
    assert shop.parked().run_once() == 1
    paid = shop.read(body["id"])
    assert (paid["status"], paid["provider"], paid["retry_at"]) == ("captured", "stripe", None)
    assert [each["outcome"] for each in paid["attempts"]] == ["not_executed", "not_executed", "approved"]
    assert shop.charged(body["reference"]) == [("stripe", "captured", 1999)]
    assert shop.parked().run_once() == 0


def test_a_parked_payment_is_not_tried_before_its_time(shop: Shop) -> None:
    """Its time is fifteen seconds away by default."""
    _all(shop, "down")
    body = shop.pay().json or {}
    _all(shop, "ok")
    assert shop.parked().run_once() == 0
    assert shop.read(body["id"]) == body


def test_a_parked_payment_that_fails_again_is_parked_again(shops: OpenShop) -> None:
    """Still parked, later again, and a further try on record."""
    shop = shops(parked_retry_seconds=SOON_S)
    _all(shop, "down")
    body = shop.pay().json or {}
    _due(shop, body)
    assert shop.parked().run_once() == 0
    again = shop.read(body["id"])
    assert (again["status"], len(again["attempts"])) == ("parked", 4)
    assert again["retry_at"] > body["retry_at"]


def test_a_parked_payment_whose_time_is_over_fails_unplaced(shops: OpenShop) -> None:
    """It expires even while everything is still down; then its reference is free."""
    shop = shops(parked_retry_seconds=SOON_S)
    _all(shop, "down")
    expires_at = shop.core.clock.now() + dt.timedelta(milliseconds=300)
    body = shop.pay(reference="ORD-1", expires_at=expires_at.isoformat()).json or {}
    assert body["status"] == "parked"
    shop.core.clock.sleep(max(0.0, (expires_at - shop.core.clock.now()).total_seconds()) + 0.005)
    assert shop.parked().run_once() == 1
    gone = shop.read(body["id"])
    assert (gone["status"], gone["retry_at"], gone["amount_captured"]) == ("failed", None, 0)
    _all(shop, "ok")
    assert shop.parked().run_once() == 0
    assert shop.pay(reference="ORD-1").status_code == 201
    assert len(shop.charged("ORD-1")) == 1


def test_several_workers_pay_a_parked_payment_once(shops: OpenShop) -> None:
    """Each of three finds it due; the first commit decides, the others stop."""
    shop = shops(parked_retry_seconds=SOON_S)
    _all(shop, "down")
    bodies = [shop.pay().json or {} for _ in range(4)]
    _all(shop, "ok")
    _due(shop, bodies[-1])
    with ThreadPoolExecutor(3) as pool:
        settled = list(pool.map(lambda _: _drained(shop), range(3)))
    assert sum(settled) == 4
    for body in bodies:
        assert shop.read(body["id"])["status"] == "captured"
        assert len(shop.charged(body["reference"])) == 1


@pytest.mark.parametrize("outage", ["down", "disabled"])
def test_checkout_may_ask_to_be_refused_instead(shops: OpenShop, outage: str) -> None:
    """503 providers-unavailable with Retry-After; key and reference stay free, and nothing stays open."""
    off = {f"payments-provider-{name}-enabled": False for name in BOTH} if outage == "disabled" else {}
    shop = shops(flags=off)
    _all(shop, "down")
    answer = shop.pay(reference="ORD-1", key="k", when_unavailable="fail")
    assert (answer.status_code, answer.content_type) == (503, "application/problem+json")
    assert (answer.json or {})["type"].endswith(":providers-unavailable")
    assert int(answer.headers["Retry-After"]) >= 1
    assert shop.counts()["idempotency_keys"] == 0
    listed = (shop.send("GET", "/v1/payments?reference=ORD-1").json or {})["payments"]
    assert {each["status"] for each in listed} <= {"failed"}
    assert len(listed) == (1 if outage == "down" else 0)
    if outage == "down":
        _all(shop, "ok")
        assert shop.pay(reference="ORD-1", key="k", when_unavailable="fail").status_code == 201
        assert len(shop.charged("ORD-1")) == 1


def test_a_payment_is_parked_without_an_attempt_when_every_circuit_is_open(shops: OpenShop) -> None:
    """No provider is called for it at all, and the decision says why."""
    shop = shops(breaker_minimum_calls=2)
    _all(shop, "down")
    for _ in range(2):
        shop.pay()
    _all(shop, "ok")
    asked = shop.control("GET", "/control")
    body = shop.pay().json or {}
    assert (body["status"], body["attempts"]) == ("parked", [])
    assert all("circuit open" in each["reasons"] for each in body["decision"]["candidates"])
    assert shop.control("GET", "/control") == asked


def test_a_doubtful_payment_is_not_what_the_parked_loop_tries(shops: OpenShop) -> None:
    """`processing` is left alone: only what is proved to be unplaced is placed again."""
    shop = shops(parked_retry_seconds=SOON_S)
    shop.fault("stripe", "lose_reply")
    body = shop.pay().json or {}
    _all(shop, "ok")
    assert shop.parked().run_once() == 0
    assert shop.core.payments.retry_parked(body["id"]) is None
    assert len(shop.charged(body["reference"])) == 1
