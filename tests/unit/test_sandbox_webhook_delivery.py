"""How the sandbox delivers its webhooks: in order, again, or mishandled as the control port says."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import urllib3

from providers.sandbox import webhook_client
from providers.sandbox import webhooks as machine
from providers.sandbox.server import Sandbox
from tests.unit.test_sandbox_client import PROVIDERS, Shop
from tests.unit.webhook_receiver import Receiver, attempts, hooks, notifying_shop, state, until


@pytest.fixture(scope="module")
def told() -> Iterator[tuple[Shop, Receiver]]:
    """One sandbox and one endpoint for all tests here."""
    with notifying_shop() as both:
        yield both


@pytest.fixture
def shop(told: tuple[Shop, Receiver]) -> Shop:
    """A merchant of that sandbox, all well."""
    shop, receiver = told
    receiver.slow.set()
    shop.sandbox.reset()
    receiver.clear()
    return shop


@pytest.fixture
def receiver(told: tuple[Shop, Receiver]) -> Receiver:
    """The endpoint, with nothing received."""
    return told[1]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_webhooks_come_in_order_and_each_once(shop: Shop, receiver: Receiver, provider: str) -> None:
    """In mode ok."""
    names = [f"att_{number}" for number in range(30)]
    for name in names:
        shop.charge(provider, name)
    assert attempts(receiver, provider, 30) == names
    until(lambda: state(shop, provider)["acknowledged"] == 30)  # the last answer is on its way
    assert state(shop, provider) == {
        "provider": provider,
        "url": f"{receiver.url}/{provider}",
        "mode": "ok",
        "delay_ms": 0,
        "batch": 1,
        "sent": 30,
        "acknowledged": 30,
        "failed": 0,
        "dropped": 0,
        "waiting": 0,
    }


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_refused_webhook_is_sent_again_before_its_successors(shop: Shop, receiver: Receiver, provider: str) -> None:
    """Errors, redirects, whatever is not 2xx."""
    receiver.statuses.extend((500, 503, 302, 202))
    shop.charge(provider, "att_1")
    shop.charge(provider, "att_2")
    assert attempts(receiver, provider, 2) == ["att_1", "att_2"]
    until(lambda: state(shop, provider)["waiting"] == 0)
    counted = state(shop, provider)
    assert (counted["sent"], counted["acknowledged"], counted["failed"]) == (5, 2, 3)


def test_one_that_is_always_refused_steps_aside(
    shop: Shop, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those behind it do not wait for ever, and it is not given up."""
    monkeypatch.setattr(machine, "FIRST_RETRY_S", 0.005)
    receiver.statuses.extend([500] * machine.TRIES_IN_ORDER)
    for name in ("att_1", "att_2", "att_3"):
        shop.pay_stripe(name)
    assert attempts(receiver, "stripe", 3) == ["att_2", "att_3", "att_1"]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_held_webhooks_go_out_when_released(shop: Shop, receiver: Receiver, provider: str) -> None:
    """Those that wait, now; later ones are held again, until another mode."""
    hooks(shop, provider, mode="hold")
    for name in ("att_1", "att_2"):
        shop.charge(provider, name)
    assert (state(shop, provider)["waiting"], state(shop, provider)["sent"]) == (2, 0)
    assert shop.control("POST", f"/control/{provider}/webhooks/release").json()["released"] == 2
    assert attempts(receiver, provider, 2) == ["att_1", "att_2"]
    shop.charge(provider, "att_3")
    until(lambda: state(shop, provider)["waiting"] == 1)
    hooks(shop, provider, mode="ok")
    assert attempts(receiver, provider, 3) == ["att_1", "att_2", "att_3"]


def test_duplicated_webhooks_come_twice(shop: Shop, receiver: Receiver) -> None:
    """The same event under one id, the same item."""
    for provider in PROVIDERS:
        hooks(shop, provider, mode="duplicate")
        shop.charge(provider)
    one, other = receiver.events(2)
    assert one == other
    first, second = receiver.items(2)
    assert first == second


@pytest.mark.parametrize("provider", PROVIDERS)
def test_reordered_webhooks_all_come_in_another_order(shop: Shop, receiver: Receiver, provider: str) -> None:
    """As they happen, and those that were held before."""
    hooks(shop, provider, mode="reorder", delay_ms=150)
    names = [f"att_{number}" for number in range(8)]
    for name in names:
        shop.charge(provider, name)
    came = attempts(receiver, provider, 8)
    assert came != names
    assert sorted(came) == names
    hooks(shop, provider, mode="hold")
    shop.charge(provider, "att_8")
    shop.charge(provider, "att_9")
    hooks(shop, provider, mode="reorder")
    assert attempts(receiver, provider, 10)[8:] == ["att_9", "att_8"]


def test_dropped_webhooks_never_come(shop: Shop, receiver: Receiver) -> None:
    """Nor do those that waited when the mode was set."""
    hooks(shop, "adyen", mode="hold")
    shop.pay_adyen("att_1")
    hooks(shop, "adyen", mode="drop")
    shop.pay_adyen("att_2")
    hooks(shop, "adyen")
    shop.pay_adyen("att_3")
    assert attempts(receiver, "adyen", 1) == ["att_3"]
    assert state(shop, "adyen")["dropped"] == 2


def test_adyen_puts_several_items_into_one_request(shop: Shop, receiver: Receiver) -> None:
    """Every item has its own signature."""
    hooks(shop, "adyen", mode="hold", batch=3)
    for number in range(4):
        shop.pay_adyen(f"att_{number}")
    shop.control("POST", "/control/adyen/webhooks/release")
    assert attempts(receiver, "adyen", 4) == ["att_0", "att_1", "att_2", "att_3"]
    assert [len(json.loads(body)["notificationItems"]) for _, body in receiver.of("/adyen")] == [3, 1]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_webhooks_of_a_provider_that_is_down_wait(shop: Shop, receiver: Receiver, provider: str) -> None:
    """And go out when it is back."""
    shop.mode(provider, "slow", latency_ms=60)
    charge = threading.Thread(target=lambda: cut_off(lambda: shop.charge(provider, "att_1", timeout=2)))
    charge.start()
    until(lambda: shop.state(provider)["requests"] == 1)
    shop.mode(provider, "down")
    charge.join(2)
    until(lambda: state(shop, provider)["waiting"] == 1)
    time.sleep(0.05)
    assert state(shop, provider)["sent"] == 0
    shop.mode(provider, "ok")
    assert attempts(receiver, provider, 1) == ["att_1"]


def cut_off(call: Callable[[], object]) -> None:
    """A call whose connection the outage ends."""
    with pytest.raises(urllib3.exceptions.HTTPError):
        call()


def test_a_dead_or_hanging_receiver_slows_nobody(shop: Shop, receiver: Receiver) -> None:
    """The wires answer at once; it is told when it is back."""
    receiver.slow.clear()
    hooks(shop, "adyen", url="http://127.0.0.1:1/adyen")
    began = time.monotonic()
    for number in range(20):
        shop.pay_stripe(f"att_{number}")
        shop.pay_adyen(f"att_{number}")
    assert time.monotonic() - began < 5  # one that hangs costs two seconds, twenty times
    until(lambda: state(shop, "adyen")["failed"] >= 2)
    receiver.slow.set()
    hooks(shop, "adyen", url=f"{receiver.url}/adyen")
    names = [f"att_{number}" for number in range(20)]
    assert attempts(receiver, "stripe", 20) == names
    assert attempts(receiver, "adyen", 20) == names


def test_an_answer_is_waited_for_in_bounds(shop: Shop, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver that hangs is told again, at least once each."""
    monkeypatch.setattr(webhook_client, "TIMEOUT_S", 0.05)
    receiver.slow.clear()
    shop.pay_stripe("att_1")
    shop.pay_stripe("att_2")
    until(lambda: state(shop, "stripe")["failed"] >= 2)
    receiver.slow.set()
    until(lambda: state(shop, "stripe")["waiting"] == 0)
    assert set(attempts(receiver, "stripe", 2)) == {"att_1", "att_2"}


def test_a_connection_that_the_receiver_ended_costs_nothing(shop: Shop, receiver: Receiver) -> None:
    """The next webhook takes a new one, at once."""
    receiver.forgetful = True
    names = [f"att_{number}" for number in range(5)]
    for name in names:
        shop.pay_stripe(name)
    assert attempts(receiver, "stripe", 5) == names
    assert state(shop, "stripe")["failed"] == 0


def test_the_oldest_give_way_when_too_many_wait(
    shop: Shop, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded, and what was lost is counted."""
    monkeypatch.setattr(machine, "MAX_WAITING", 3)
    hooks(shop, "stripe", mode="hold")
    for number in range(5):
        shop.pay_stripe(f"att_{number}")
    assert (state(shop, "stripe")["waiting"], state(shop, "stripe")["dropped"]) == (3, 2)
    hooks(shop, "stripe")
    assert attempts(receiver, "stripe", 3) == ["att_2", "att_3", "att_4"]


def test_delete_drops_what_waits_and_keeps_the_urls(shop: Shop, receiver: Receiver) -> None:
    """Modes and counters are as at the start."""
    for provider in PROVIDERS:
        before = state(shop, provider)
        hooks(shop, provider, mode="hold", delay_ms=10)
        shop.charge(provider, "att_1")
        shop.control("DELETE", "/control")
        assert state(shop, provider) == before
        shop.charge(provider, "att_2")
        assert attempts(receiver, provider, 1) == ["att_2"]


def test_nothing_is_sent_where_there_is_no_url(sandbox: Sandbox) -> None:
    """Nor kept for later."""
    shop = Shop(sandbox)
    for provider in PROVIDERS:
        shop.charge(provider)
        assert state(shop, provider) == {
            "provider": provider,
            "url": None,
            "mode": "ok",
            "delay_ms": 50,
            "batch": 1,
            "sent": 0,
            "acknowledged": 0,
            "failed": 0,
            "dropped": 0,
            "waiting": 0,
        }


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"url": "shop.example/hooks"}, "url"),
        ({"url": "ftp://shop.example/"}, "url"),
        ({"url": "http://shop.example:99999/"}, "url"),
        ({"url": "http:///hooks"}, "url"),
        ({"url": "http://shop.example/a b\r\n"}, "url"),
        ({"url": 5}, "url"),
        ({"mode": "slow"}, "mode"),
        ({"delay_ms": -1}, "delay_ms"),
        ({"delay_ms": True}, "delay_ms"),
        ({"batch": 0}, "batch"),
        ({"batch": 2}, "batch"),
        ({"speed": 1}, "speed"),
        ([], "body"),
    ],
)
def test_wrong_webhook_settings_are_refused_by_field(shop: Shop, body: Any, field: str) -> None:
    """And change nothing. Stripe has no batches."""
    before = state(shop, "stripe")
    answer = shop.control("PUT", "/control/stripe/webhooks", body)
    assert (answer.status, answer.json()["error"]["field"]) == (422, field)
    assert state(shop, "stripe") == before


@pytest.mark.processes
def test_the_command_takes_the_urls(receiver: Receiver) -> None:
    """As options; one that is no URL is refused."""
    command = [sys.executable, "-m", "providers.sandbox", "--stripe-port=0", "--adyen-port=0", "--control-port=0"]
    url = f"{receiver.url}/adyen"
    with subprocess.Popen([*command, f"--adyen-webhook-url={url}"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        control = process.stdout.readline().split()[-1]
        answer = urllib3.request("GET", f"{control}/control/adyen/webhooks")
        process.terminate()
    assert (answer.json()["url"], process.returncode) == (url, 0)
    refused = subprocess.run([*command, "--stripe-webhook-url=shop"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "must be null or an http(s) URL" in refused.stderr


def test_other_methods_are_refused(shop: Shop) -> None:
    """405, as for every control call."""
    for method, path in (("POST", "webhooks"), ("GET", "webhooks/release"), ("GET", "events")):
        assert shop.control(method, f"/control/stripe/{path}").status == 405
    assert shop.control("GET", "/control/paypal/webhooks").status == 404
