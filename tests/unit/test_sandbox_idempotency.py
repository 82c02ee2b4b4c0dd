"""Idempotency keys at both stand-in providers, as each vendor treats them."""

from __future__ import annotations

import threading

import pytest
import urllib3

from providers.sandbox.server import Sandbox
from tests.unit.test_sandbox_client import PROVIDERS, Shop

both = pytest.mark.parametrize("provider", PROVIDERS)


@pytest.fixture
def shop(sandbox: Sandbox) -> Shop:
    """A merchant of the sandbox."""
    return Shop(sandbox)


def at_once(sandbox: Sandbox, provider: str, number: int) -> list[urllib3.BaseHTTPResponse]:
    """The same charge with the same key, from as many threads at the same time."""
    answers: list[urllib3.BaseHTTPResponse] = []
    barrier = threading.Barrier(number)

    def call() -> None:
        shop = Shop(sandbox)
        barrier.wait()
        answers.append(shop.charge(provider, key="same"))

    threads = [threading.Thread(target=call) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    return answers


@both
def test_a_key_replays_its_first_answer(shop: Shop, provider: str) -> None:
    """Status and body are the same, and nothing is charged again."""
    first, second = shop.charge(provider, key="k1"), shop.charge(provider, key="k1")
    assert (second.status, second.data) == (first.status, first.data)
    assert len(shop.books(provider)) == 1
    assert shop.state(provider)["acted"] == 1


@both
def test_another_key_is_another_charge(shop: Shop, provider: str) -> None:
    """And without a key every call is one."""
    for key in ("k1", "k2", None, None):
        shop.charge(provider, key=key)
    assert len(shop.books(provider)) == 4


@both
def test_a_decline_is_replayed_too(shop: Shop, provider: str) -> None:
    """A declined charge stays declined for its key, even when the issuer would now approve."""
    shop.mode(provider, "decline")
    first = shop.charge(provider, key="k1")
    shop.mode(provider, "ok")
    assert shop.charge(provider, key="k1").data == first.data
    assert shop.statuses(provider) == ["declined"]


def test_stripe_marks_a_replay(shop: Shop) -> None:
    """The header `Idempotent-Replayed` tells a replay from a first answer; the request's id stays the first one's."""
    first, second = shop.charge("stripe", key="k1"), shop.charge("stripe", key="k1")
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    assert second.headers["Request-Id"] == first.headers["Request-Id"]


def test_adyen_echoes_the_key(shop: Shop) -> None:
    """The answer's header says that the key was taken up."""
    assert shop.charge("adyen", key="k1").headers["Idempotency-Key"] == "k1"


def test_stripe_refuses_a_key_with_other_parameters(shop: Shop) -> None:
    """Another amount, or another path, under a used key is an `idempotency_error`."""
    intent = shop.charge("stripe", key="k1").json()["id"]
    other_amount = shop.pay_stripe(key="k1", amount="2000")
    other_path = shop.stripe("POST", f"/v1/payment_intents/{intent}/cancel", key="k1")
    for answer in (other_amount, other_path):
        assert answer.status == 400
        assert answer.json()["error"]["type"] == "idempotency_error"
    assert len(shop.books("stripe")) == 1


def test_stripe_does_not_save_validation_failures(shop: Shop) -> None:
    """A key whose first request was not valid is free for the corrected one."""
    assert shop.pay_stripe(key="k1", amount="none").status == 400
    assert shop.pay_stripe(key="k1").status == 200


def test_adyen_does_not_save_validation_failures(shop: Shop) -> None:
    """A key whose first request was not valid is free for the corrected one."""
    assert shop.pay_adyen(key="k1", returnUrl=None).status == 422
    assert shop.pay_adyen(key="k1").status == 200


def test_stripe_saves_what_failed_after_execution_began(shop: Shop) -> None:
    """A capture that the state forbade is replayed as such."""
    intent = shop.pay_stripe().json()["id"]
    path = f"/v1/payment_intents/{intent}/capture"
    assert shop.stripe("POST", path, key="k1").json()["error"]["code"] == "payment_intent_unexpected_state"
    assert shop.stripe("POST", path, key="k1").headers["Idempotent-Replayed"] == "true"


def test_stripe_answers_409_to_a_key_in_use(sandbox: Sandbox) -> None:
    """Of ten at once, one charges and nine conflict; later the key replays."""
    shop = Shop(sandbox)
    shop.mode("stripe", "slow", latency_ms=300)
    answers = at_once(sandbox, "stripe", 10)
    assert sorted(answer.status for answer in answers) == [200] + [409] * 9
    conflict = next(answer for answer in answers if answer.status == 409)
    assert conflict.json()["error"]["code"] == "idempotency_key_in_use"
    assert len(shop.books("stripe")) == 1
    shop.mode("stripe", "ok")
    assert shop.charge("stripe", key="same").headers["Idempotent-Replayed"] == "true"


def test_adyen_answers_704_to_a_key_in_use(sandbox: Sandbox) -> None:
    """Of ten at once, one charges and nine are told that it is in progress; later the key replays."""
    shop = Shop(sandbox)
    shop.mode("adyen", "slow", latency_ms=300)
    answers = at_once(sandbox, "adyen", 10)
    assert sorted(answer.status for answer in answers) == [200] + [422] * 9
    conflict = next(answer for answer in answers if answer.status == 422)
    assert conflict.json()["errorCode"] == "704"
    assert len(shop.books("adyen")) == 1
    shop.mode("adyen", "ok")
    assert shop.charge("adyen", key="same").status == 200
    assert len(shop.books("adyen")) == 1


@both
def test_a_key_freed_while_it_was_refused_is_not_in_use(shop: Shop, provider: str) -> None:
    """Faults that never act do not claim the key, even while they are slow to say so."""
    shop.mode(provider, "rate_limited", latency_ms=200)
    with pytest.raises(urllib3.exceptions.ReadTimeoutError):
        shop.charge(provider, key="k1", timeout=0.05)
    shop.mode(provider, "ok")
    assert shop.charge(provider, key="k1").status == 200


def test_keys_have_a_longest_length(shop: Shop) -> None:
    """255 characters at Stripe, 64 at Adyen."""
    assert shop.charge("stripe", key="k" * 255).status == 200
    assert shop.charge("stripe", key="k" * 256).status == 400
    assert shop.charge("adyen", key="k" * 64).status == 200
    assert shop.charge("adyen", key="k" * 65).status == 422


@both
def test_one_key_charges_once_whatever_fails_in_between(shop: Shop, provider: str) -> None:
    """A reply lost, a hang, a stored success: every re-send finds the one charge."""
    for mode in ("lose_reply", "hang", "garbage", "errors"):
        shop.mode(provider, mode, acts=mode in ("garbage", "errors"))
        try:
            shop.charge(provider, key="k1", timeout=0.05)
        except urllib3.exceptions.HTTPError:
            continue
    shop.mode(provider, "ok")
    assert shop.charge(provider, key="k1").status == 200
    assert shop.statuses(provider) == ["captured"]
