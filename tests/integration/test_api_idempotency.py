"""One Idempotency-Key, one payment: sent again, sent at once, sent with something else, sent by somebody else."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

from werkzeug.test import TestResponse

from tests.integration.conftest import OpenShop
from tests.integration.shop import Shop, Spy, order, paying_with


def test_the_same_request_again_answers_the_same_payment(shop: Shop) -> None:
    """201 again with Idempotent-Replayed, the same body, one charge; the first answer has no such header."""
    body = order()
    first, second = (shop.pay(body, key="k") for _ in range(2))
    assert "Idempotent-Replayed" not in first.headers
    assert (second.status_code, second.headers["Idempotent-Replayed"]) == (201, "true")
    assert second.json == first.json
    assert second.headers["Location"] == first.headers["Location"]
    assert len(shop.charged(body["reference"])) == 1


def test_the_same_body_in_other_words_is_the_same_request(shop: Shop) -> None:
    """Names in another order, defaults spelled out, a time in another zone: still the same request."""
    body = order(expires_at="2099-01-01T12:00:00+02:00", when_unavailable="park")
    again = dict(reversed(body.items())) | {"expires_at": "2099-01-01T10:00:00Z", "initiator": "customer"}
    del again["when_unavailable"]
    assert shop.pay(body, key="k").status_code == 201
    assert shop.pay(again, key="k").headers["Idempotent-Replayed"] == "true"


def test_a_replay_answers_the_payment_as_it_now_stands(shop: Shop) -> None:
    """202 while its outcome is open, 201 once it is final."""
    body = order()
    for provider in ("stripe", "adyen"):
        shop.fault(provider, "down")
    assert shop.pay(body, key="k").status_code == 202
    replayed = shop.pay(body, key="k")
    assert (replayed.status_code, (replayed.json or {})["status"]) == (202, "parked")
    shop.fault("stripe", "ok")
    shop.core.payments.retry_parked((replayed.json or {})["id"])
    replayed = shop.pay(body, key="k")
    assert (replayed.status_code, (replayed.json or {})["status"]) == (201, "captured")
    assert replayed.headers["Idempotent-Replayed"] == "true"


def test_another_body_under_a_used_key_is_refused(shop: Shop) -> None:
    """422 idempotency-key-reused, whatever small thing differs; nothing is created."""
    body = order()
    shop.pay(body, key="k")
    before = shop.counts()
    for changed in ({"amount": 2000}, {"metadata": {"cart": "78"}}, {"reference": "other"}, {"capture": "manual"}):
        answer = shop.pay(body | changed, key="k")
        assert answer.status_code == 422
        assert (answer.json or {})["type"].endswith(":idempotency-key-reused")
    assert shop.counts() == before
    assert len(shop.charged(body["reference"])) == 1


def test_a_second_request_while_the_first_runs_is_told_to_wait(shops: OpenShop) -> None:
    """409 request-in-progress with Retry-After; the first ends as if alone, and then the key replays."""
    found: list[Spy] = []
    shop = shops(spies={"stripe": found})
    during: list[TestResponse] = []
    body = order()
    found[0].before.append(lambda *_: during.append(shop.pay(body, key="k")))
    assert shop.pay(body, key="k").status_code == 201
    (answer,) = during
    assert (answer.status_code, answer.content_type) == (409, "application/problem+json")
    assert (answer.json or {})["type"].endswith(":request-in-progress")
    assert int(answer.headers["Retry-After"]) >= 1
    assert shop.pay(body, key="k").headers["Idempotent-Replayed"] == "true"
    assert len(shop.charged(body["reference"])) == 1


def test_a_client_that_gave_up_and_retries_is_told_to_wait(shop: Shop) -> None:
    """The same over a slow provider and two threads, as checkout's own timeout would have it."""
    shop.fault("stripe", "slow", latency_ms=400)
    body = order()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(shop.pay, body, key="k")
        time.sleep(0.15)
        assert shop.pay(body, key="k").status_code == 409
        assert first.result().status_code == 201


def test_two_requests_at_the_same_instant_charge_once(shop: Shop) -> None:
    """30 rounds of two threads: each time one payment and one charge; the other is told to wait or replays."""
    barrier = Barrier(2)

    def send(body: dict[str, Any], key: str) -> TestResponse:
        barrier.wait(5)
        return shop.pay(body, key=key)

    with ThreadPoolExecutor(2) as pool:
        for number in range(30):
            body = order()
            answers = list(pool.map(send, [body] * 2, [f"k{number}"] * 2))
            codes = sorted(each.status_code for each in answers)
            assert codes in ([201, 201], [201, 409]), [each.text for each in answers]
            assert len({(each.json or {}).get("id") for each in answers if each.status_code == 201}) == 1
            assert len(shop.charged(body["reference"])) == 1
    assert shop.counts()["payments"] == 30


def test_a_refused_payment_consumes_no_key(shop: Shop) -> None:
    """422 and 503 leave the key free: the corrected request goes through under it."""
    assert shop.pay(key="k", payment_method=paying_with(stripe="nonsense")).status_code == 422
    assert shop.pay(key="k", amount=-1).status_code == 422
    for provider in ("stripe", "adyen"):
        shop.fault(provider, "down")
    assert shop.pay(key="k", when_unavailable="fail").status_code == 503
    for provider in ("stripe", "adyen"):
        shop.fault(provider, "ok")
    answer = shop.pay(key="k")
    assert answer.status_code == 201
    assert "Idempotent-Replayed" not in answer.headers


def test_the_same_key_of_another_merchant_is_another_payment(shop: Shop) -> None:
    """Keys belong to a merchant: neither sees, blocks or replays the other's."""
    other = shop.add_key("key-of-another-merchant", merchant="other")
    body = order()
    mine, theirs = shop.pay(body, key="k"), shop.pay(body, key="k", api_key=other)
    assert (mine.status_code, theirs.status_code) == (201, 201)
    assert (mine.json or {})["id"] != (theirs.json or {})["id"]
    assert "Idempotent-Replayed" not in theirs.headers
    assert len(shop.charged(body["reference"])) == 2
