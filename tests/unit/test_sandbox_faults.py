"""Each way in which a stand-in provider can be broken, over real sockets."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError, ProtocolError, ReadTimeoutError

from providers.sandbox.server import Sandbox
from tests.unit.test_sandbox_client import PROVIDERS, Shop

both = pytest.mark.parametrize("provider", PROVIDERS)


@pytest.fixture
def shop(sandbox: Sandbox) -> Shop:
    """A merchant of the sandbox."""
    return Shop(sandbox)


def eventually(condition: Any, within_s: float = 2.0) -> bool:
    """Whether something another thread does comes true in time."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.005)
    return bool(condition())


@both
def test_down_refuses_connections(shop: Shop, provider: str) -> None:
    """Connecting to a provider that is down is refused, as `unreachable` needs to prove."""
    shop.mode(provider, "down")
    with pytest.raises(NewConnectionError):
        shop.charge(provider)
    assert shop.books(provider) == []


@both
def test_down_closes_pooled_connections_cleanly(shop: Shop, provider: str) -> None:
    """A pooled connection is seen as gone before it is used, so the next call is a *refused connect*, not a reset."""
    for _ in range(20):
        assert shop.probe(provider).status == 200
        shop.mode(provider, "down")
        with pytest.raises(NewConnectionError):
            shop.probe(provider)
        shop.mode(provider, "ok")


@both
def test_coming_back_keeps_the_port(shop: Shop, provider: str) -> None:
    """After `down`, `ok` listens on the same port again."""
    before = shop.state(provider)["url"]
    shop.mode(provider, "down")
    shop.mode(provider, "ok")
    assert shop.charge(provider).status == 200
    assert shop.state(provider)["url"] == before


@both
def test_another_mode_also_ends_down(shop: Shop, provider: str) -> None:
    """From `down` straight to another fault, the port listens."""
    shop.mode(provider, "down")
    shop.mode(provider, "errors")
    assert shop.charge(provider).status == 503


@both
def test_down_cuts_requests_in_flight(shop: Shop, provider: str) -> None:
    """A request that waits for its answer when the provider goes down is reset, and counted as cut."""
    shop.mode(provider, "hang")
    failures: list[BaseException] = []

    def call() -> None:
        try:
            shop.charge(provider)
        except HTTPError as error:
            failures.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert eventually(lambda: shop.state(provider)["acted"] == 1)
    shop.mode(provider, "down")
    thread.join(2)
    assert isinstance(failures[0], ProtocolError)
    assert shop.state(provider)["cut"] == 1


@both
def test_reset_brings_a_provider_back_up(shop: Shop, provider: str) -> None:
    """`reset()` restores a port that is down, and is effective when it returns."""
    shop.charge(provider)
    shop.mode(provider, "down")
    shop.sandbox.reset()
    assert shop.probe(provider).status == 200
    assert shop.books(provider) == []
    state = shop.state(provider)
    assert (state["mode"], state["requests"], state["acted"], state["authorizations"]) == ("ok", 1, 0, 0)


@both
def test_errors_answer_503_without_acting(shop: Shop, provider: str) -> None:
    """Plain `errors` did nothing, and free the key for another try."""
    shop.mode(provider, "errors")
    assert shop.charge(provider, key="k1").status == 503
    assert shop.books(provider) == []
    shop.mode(provider, "ok")
    assert shop.charge(provider, key="k1").status == 200
    assert len(shop.books(provider)) == 1


@both
def test_errors_can_charge_first(shop: Shop, provider: str) -> None:
    """With `acts`, the money moved although 503 was said; a re-send tells the true result."""
    shop.mode(provider, "errors", acts=True)
    assert shop.charge(provider, key="k1").status == 503
    assert shop.statuses(provider) == ["captured"]
    shop.mode(provider, "ok")
    assert shop.charge(provider, key="k1").status == 200
    assert len(shop.books(provider)) == 1


@both
@pytest.mark.parametrize("acts", [True, False])
def test_a_stored_error_is_what_its_key_gives_from_then_on(shop: Shop, provider: str, acts: bool) -> None:
    """With `stored`, a re-send is answered the same error for ever, whether or not the charge was made."""
    shop.mode(provider, "errors", acts=acts, stored=True)
    assert shop.charge(provider, key="k1").status == 503
    shop.mode(provider, "ok")
    again = shop.charge(provider, key="k1")
    assert again.status == 503
    if provider == "stripe":
        assert again.headers["Idempotent-Replayed"] == "true"
    assert len(shop.books(provider)) == int(acts)
    assert shop.charge(provider, key="k2").status == 200


@both
def test_rate_limited_answers_429_and_saves_nothing(shop: Shop, provider: str) -> None:
    """429 is no result: the key is free, nothing is in the books, and the authorization is counted as asked for."""
    shop.mode(provider, "rate_limited")
    assert shop.charge(provider, key="k1").status == 429
    assert shop.books(provider) == []
    state = shop.state(provider)
    assert (state["requests"], state["authorizations"], state["acted"], state["cut"]) == (1, 1, 0, 0)
    shop.mode(provider, "ok")
    assert shop.charge(provider, key="k1").status == 200


@both
def test_slow_acts_at_the_end_of_its_latency_even_when_the_client_has_gone(shop: Shop, provider: str) -> None:
    """A read timeout proves nothing: the charge is not in the books yet, and then it is."""
    shop.mode(provider, "slow", latency_ms=250)
    with pytest.raises(ReadTimeoutError):
        shop.charge(provider, timeout=0.1)
    assert shop.books(provider) == []
    assert eventually(lambda: shop.statuses(provider) == ["captured"])


@both
def test_latency_applies_to_ok(shop: Shop, provider: str) -> None:
    """`latency_ms` under `ok` is the provider's usual answering time."""
    shop.mode(provider, "ok", latency_ms=120)
    started = time.monotonic()
    assert shop.charge(provider).status == 200
    assert time.monotonic() - started >= 0.115


@both
def test_hang_acts_and_never_answers(shop: Shop, provider: str) -> None:
    """The charge is made, the answer never comes; a re-send with the key is given the first result."""
    shop.mode(provider, "hang")
    with pytest.raises(ReadTimeoutError):
        shop.charge(provider, key="k1", timeout=0.1)
    assert shop.statuses(provider) == ["captured"]
    shop.mode(provider, "ok")
    assert shop.charge(provider, key="k1").status == 200
    assert len(shop.books(provider)) == 1


@both
def test_reset_frees_hung_requests(shop: Shop, provider: str) -> None:
    """A client that waits for ever is let go by `reset()`."""
    shop.mode(provider, "hang")
    ended = threading.Event()

    def call() -> None:
        try:
            shop.charge(provider, timeout=30)
        except HTTPError:
            ended.set()

    thread = threading.Thread(target=call)
    thread.start()
    assert eventually(lambda: shop.state(provider)["acted"] == 1)
    shop.sandbox.reset()
    assert ended.wait(2)
    thread.join(2)


@both
def test_reset_drops_what_was_still_delayed(shop: Shop, provider: str) -> None:
    """A delayed charge of the test before does not turn up in the books of the next."""
    shop.mode(provider, "slow", latency_ms=150)
    with pytest.raises(ReadTimeoutError):
        shop.charge(provider, timeout=0.05)
    shop.sandbox.reset()
    time.sleep(0.2)
    assert shop.books(provider) == []


@both
def test_lose_reply_acts_then_resets(shop: Shop, provider: str) -> None:
    """The worst case: charged, and the client sees only a reset connection."""
    shop.mode(provider, "lose_reply")
    with pytest.raises(ProtocolError) as caught:
        shop.charge(provider, key="k1")
    assert isinstance(caught.value.args[1], ConnectionResetError)
    assert shop.statuses(provider) == ["captured"]
    state = shop.state(provider)
    assert (state["acted"], state["cut"]) == (1, 1)
    shop.mode(provider, "ok")
    assert shop.charge(provider, key="k1").status == 200
    assert len(shop.books(provider)) == 1


@both
def test_drop_request_resets_before_acting(shop: Shop, provider: str) -> None:
    """To the client the same as a lost reply, yet nothing happened and the key is free."""
    shop.mode(provider, "drop_request")
    with pytest.raises(ProtocolError) as caught:
        shop.charge(provider, key="k1")
    assert isinstance(caught.value.args[1], ConnectionResetError)
    assert shop.books(provider) == []
    state = shop.state(provider)
    assert (state["acted"], state["cut"]) == (0, 1)


@both
@pytest.mark.parametrize("acts", [True, False])
def test_garbage_is_200_with_html(shop: Shop, provider: str, acts: bool) -> None:
    """A page of a load balancer in place of an answer, with or without the charge."""
    shop.mode(provider, "garbage", acts=acts)
    answer = shop.charge(provider)
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    assert answer.data.startswith(b"<!DOCTYPE html>")
    assert len(shop.books(provider)) == int(acts)


def test_decline_refuses_at_stripe_with_the_code_asked_for(shop: Shop) -> None:
    """`decline_code` is Stripe's own; without one it is a plain decline."""
    shop.mode("stripe", "decline", decline_code="insufficient_funds")
    assert shop.charge("stripe").json()["error"]["decline_code"] == "insufficient_funds"
    shop.mode("stripe", "decline")
    assert shop.charge("stripe").json()["error"]["decline_code"] == "generic_decline"
    assert shop.statuses("stripe") == ["declined", "declined"]


def test_decline_refuses_at_adyen_with_the_code_asked_for(shop: Shop) -> None:
    """`decline_code` is Adyen's refusalReasonCode; without one it is a plain refusal."""
    shop.mode("adyen", "decline", decline_code="12")
    assert shop.charge("adyen").json()["refusalReasonCode"] == "12"
    shop.mode("adyen", "decline")
    answer = shop.charge("adyen").json()
    assert (answer["resultCode"], answer["refusalReasonCode"]) == ("Refused", "2")
    assert shop.statuses("adyen") == ["declined", "declined"]


@both
def test_a_decline_code_that_nobody_knows_is_sent_as_it_is(shop: Shop, provider: str) -> None:
    """So that the loud handling of unknown codes can be tested."""
    shop.mode(provider, "decline", decline_code="999")
    answer = shop.charge(provider).json()
    assert answer.get("refusalReasonCode", answer.get("error", {}).get("decline_code")) == "999"


@both
def test_decline_leaves_other_calls_alone(shop: Shop, provider: str) -> None:
    """A probe is answered while every authorization is declined."""
    shop.mode(provider, "decline")
    assert shop.probe(provider).status == 200


@both
@pytest.mark.parametrize("mode", ["errors", "rate_limited", "garbage", "hang", "lose_reply", "drop_request"])
def test_calls_authorize_spares_every_other_call(shop: Shop, provider: str, mode: str) -> None:
    """Probes go on while authorizations are hit."""
    shop.mode(provider, mode, calls="authorize")
    answer = shop.probe(provider)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"


def test_rate_hits_its_share_from_a_seed() -> None:
    """The same seed hits the same calls; after a reset again."""

    def hits(sandbox: Sandbox) -> list[int]:
        shop = Shop(sandbox)
        shop.mode("stripe", "errors", rate=0.3)
        return [shop.probe("stripe").status for _ in range(100)]

    runs = []
    for _ in range(2):
        sandbox = Sandbox(stripe_port=0, adyen_port=0, control_port=0, seed=7)
        sandbox.start()
        try:
            runs.append(hits(sandbox))
            sandbox.reset()
            runs.append(hits(sandbox))
        finally:
            sandbox.stop()
    assert runs[0] == runs[1] == runs[2] == runs[3]
    assert 15 <= runs[0].count(503) <= 45


@both
def test_every_request_is_counted(shop: Shop, provider: str) -> None:
    """Requests, authorizations and what acted are told apart."""
    shop.charge(provider)
    shop.probe(provider)
    shop.mode(provider, "rate_limited")
    shop.charge(provider)
    state = shop.state(provider)
    assert (state["requests"], state["authorizations"], state["acted"], state["cut"]) == (3, 2, 1, 0)


def test_keep_alive_calls_do_not_wait_for_delayed_acknowledgements(shop: Shop) -> None:
    """Head and body in one write: fifty calls on one connection take nothing like fifty times 40 ms."""
    pool = urllib3.HTTPConnectionPool("127.0.0.1", int(shop.sandbox.stripe_url.rsplit(":", 1)[1]), maxsize=1)
    started = time.monotonic()
    for _ in range(50):
        assert pool.request("GET", "/v1/balance", headers={"Authorization": "Bearer sk_test_1"}).status == 200
    assert pool.num_connections == 1
    assert time.monotonic() - started < 1.9  # fifty times 40 ms are two seconds
