"""The control port, and the sandbox as a process: ports, restarts, signals."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from typing import Any

import pytest

from providers.sandbox.books import Event
from providers.sandbox.http import PortTaken
from providers.sandbox.server import Sandbox
from tests.unit.test_sandbox_client import Shop

DEFAULTS = {
    "mode": "ok",
    "rate": 1.0,
    "latency_ms": 0,
    "decline_code": None,
    "acts": False,
    "stored": False,
    "calls": "all",
}


@pytest.fixture
def shop(sandbox: Sandbox) -> Shop:
    """A merchant of the sandbox."""
    return Shop(sandbox)


def test_a_healthy_provider_shows_its_defaults(shop: Shop) -> None:
    """The state names every field of a control body, and the counters."""
    state = shop.state("stripe")
    assert state == DEFAULTS | {
        "provider": "stripe",
        "url": shop.sandbox.stripe_url,
        "requests": 0,
        "acted": 0,
        "cut": 0,
        "authorizations": 0,
    }


def test_what_is_put_is_what_is_shown(shop: Shop) -> None:
    """The whole body of the design is taken, and given back."""
    body = {
        "mode": "errors",
        "rate": 0.5,
        "latency_ms": 50,
        "decline_code": "05",
        "acts": True,
        "stored": True,
        "calls": "authorize",
    }
    answer = shop.control("PUT", "/control/adyen", body)
    assert answer.status == 200
    assert {name: answer.json()[name] for name in body} == body
    assert shop.state("stripe")["mode"] == "ok"


def test_a_put_replaces_what_was_put_before(shop: Shop) -> None:
    """A field that is left out takes its default again."""
    shop.mode("stripe", "errors", rate=0.5, acts=True)
    shop.mode("stripe", "errors")
    assert {name: shop.state("stripe")[name] for name in DEFAULTS} == DEFAULTS | {"mode": "errors"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"mode": "broken"}, "mode"),
        ({"mode": ["ok"]}, "mode"),
        ({"mode": None}, "mode"),
        ({}, "mode"),
        ({"mode": "ok", "speed": 1}, "speed"),
        ({"mode": "ok", "rate": 1.1}, "rate"),
        ({"mode": "ok", "rate": -0.1}, "rate"),
        ({"mode": "ok", "rate": "1"}, "rate"),
        ({"mode": "ok", "rate": True}, "rate"),
        ({"mode": "ok", "rate": float("nan")}, "rate"),
        ({"mode": "ok", "latency_ms": -1}, "latency_ms"),
        ({"mode": "ok", "latency_ms": 1.5}, "latency_ms"),
        ({"mode": "ok", "latency_ms": 10**9}, "latency_ms"),
        ({"mode": "decline", "decline_code": 5}, "decline_code"),
        ({"mode": "decline", "decline_code": ""}, "decline_code"),
        ({"mode": "errors", "acts": "yes"}, "acts"),
        ({"mode": "errors", "stored": 1}, "stored"),
        ({"mode": "ok", "calls": "some"}, "calls"),
        (["ok"], "body"),
    ],
)
def test_a_wrong_body_is_refused_by_field_and_changes_nothing(shop: Shop, body: Any, field: str) -> None:
    """Every unknown field, bad type and bad range is named."""
    answer = shop.control("PUT", "/control/stripe", body)
    assert answer.status == 422
    assert answer.json()["error"]["field"] == field
    assert {name: shop.state("stripe")[name] for name in DEFAULTS} == DEFAULTS


def test_an_unknown_provider_is_not_found(shop: Shop) -> None:
    """Whatever is asked of it."""
    for method, path in (("GET", "/control/paypal"), ("PUT", "/control/paypal"), ("GET", "/control/paypal/charges")):
        answer = shop.control(method, path, {"mode": "ok"})
        assert answer.status == 404
        assert answer.json()["error"]["field"] == "provider"


def test_what_is_no_control_call_is_refused(shop: Shop) -> None:
    """Bodies that are no JSON, wrong methods, other paths, unknown filters."""
    raw = shop.pool.request("PUT", f"{shop.sandbox.control_url}/control/stripe", body=b"{mode")
    assert (raw.status, raw.json()["error"]["field"]) == (400, "body")
    assert shop.control("POST", "/control/stripe").status == 405
    assert shop.control("GET", "/elsewhere").status == 404
    assert shop.control("GET", "/control/stripe/charges?order=1").json()["error"]["field"] == "order"


def test_books_are_filtered_by_reference_and_attempt(shop: Shop) -> None:
    """Without a filter all, with both only what matches both."""
    for reference, attempt in (("A", "1"), ("A", "2"), ("B", "3")):
        shop.pay_stripe(attempt, metadata__reference=reference)
        shop.pay_adyen(attempt, merchantOrderReference=reference)
    for provider in ("stripe", "adyen"):
        assert [row["attempt"] for row in shop.books(provider)] == ["1", "2", "3"]
        assert [row["attempt"] for row in shop.books(provider, "?reference=A")] == ["1", "2"]
        assert [row["attempt"] for row in shop.books(provider, "?reference=A&attempt=2")] == ["2"]
        assert shop.books(provider, "?attempt=4") == []


def test_delete_makes_all_well(shop: Shop) -> None:
    """Modes, books, counters and idempotency keys of both providers are as at the start."""
    for provider in ("stripe", "adyen"):
        shop.charge(provider, key="k")
        shop.mode(provider, "down")
    assert shop.control("DELETE", "/control").status == 200
    for provider in ("stripe", "adyen"):
        assert shop.books(provider) == []
        assert shop.state(provider)["requests"] == 0
        assert shop.charge(provider, "att_2", key="k").status == 200
        assert [row["attempt"] for row in shop.books(provider)] == ["att_2"]


def test_events_are_told_to_who_listens(sandbox: Sandbox) -> None:
    """The seam for webhooks: what a provider would notify, and whether it succeeded."""
    shop, seen = Shop(sandbox), list[Event]()
    sandbox.on_event.append(seen.append)
    try:
        psp = shop.pay_adyen(additionalData={"manualCapture": "true"}).json()["pspReference"]
        too_much = {"merchantAccount": "ShopECOM", "amount": {"value": 2000, "currency": "EUR"}}
        assert shop.adyen(f"/payments/{psp}/captures", too_much).json()["status"] == "received"
        assert shop.adyen(f"/payments/{psp}/cancels", {"merchantAccount": "ShopECOM"}).status == 201
    finally:
        sandbox.on_event.remove(seen.append)
    assert [(event.kind, event.success) for event in seen] == [
        ("authorization", True),
        ("capture", False),
        ("cancellation", True),
    ]


def test_a_taken_port_is_said_in_one_line() -> None:
    """Nothing is left listening when one of the three is taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        sandbox = Sandbox(stripe_port=0, adyen_port=port, control_port=0)
        with pytest.raises(
            PortTaken, match=rf"^the sandbox cannot use 127\.0\.0\.1:{port} for adyen: the port is taken$"
        ):
            sandbox.start()


def test_a_port_that_is_down_cannot_be_taken_by_another() -> None:
    """The number is kept for coming back."""
    sandbox = Sandbox(stripe_port=0, adyen_port=0, control_port=0)
    sandbox.start()
    try:
        Shop(sandbox).mode("stripe", "down")
        other = Sandbox(stripe_port=int(sandbox.stripe_url.rsplit(":", 1)[1]), adyen_port=0, control_port=0)
        with pytest.raises(PortTaken):
            other.start()
        Shop(sandbox).mode("stripe", "ok")
        assert Shop(sandbox).probe("stripe").status == 200
    finally:
        sandbox.stop()


def test_it_restarts_at_once_on_the_same_ports() -> None:
    """Connections that the last run closed do not block the next."""
    sandbox = Sandbox(stripe_port=0, adyen_port=0, control_port=0)
    for _ in range(3):
        sandbox.start()
        assert Shop(sandbox).probe("stripe").status == 200
        sandbox.stop()
    sandbox.stop()


def test_a_malformed_request_is_refused_and_harms_nobody(shop: Shop) -> None:
    """Bytes that are no HTTP get a 400 and a closed connection."""
    with socket.create_connection(("127.0.0.1", int(shop.sandbox.stripe_url.rsplit(":", 1)[1])), 2) as sock:
        sock.sendall(b"\x16\x03\x01 no http\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 400 ")
    assert shop.probe("stripe").status == 200


def test_pipelined_requests_are_answered_in_order(shop: Shop) -> None:
    """Two requests in one segment get two answers."""
    with socket.create_connection(("127.0.0.1", int(shop.sandbox.stripe_url.rsplit(":", 1)[1])), 2) as sock:
        one = b"GET /v1/%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk_test_1\r\n%s\r\n"
        sock.sendall(one % (b"balance", b"") + one % (b"nowhere", b"Connection: close\r\n"))
        received = b""
        while chunk := sock.recv(65536):
            received += chunk
    assert received.index(b"HTTP/1.1 200 OK") < received.index(b"HTTP/1.1 404 Not Found")


@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_command_within_a_second(number: signal.Signals) -> None:
    """Also while a request hangs; the exit code is 0."""
    command = [sys.executable, "-m", "providers.sandbox", "--stripe-port=0", "--adyen-port=0", "--control-port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        words = process.stdout.readline().split()
        port = int(words[2].rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), 2) as sock:
            sock.sendall(b"GET /v1/balance HTTP/1.1\r\n")
            started = time.monotonic()
            process.send_signal(number)
            assert process.wait(5) == 0
            assert time.monotonic() - started < 3


@pytest.mark.processes
def test_the_command_says_in_one_line_which_port_is_taken(sandbox: Sandbox) -> None:
    """And ends with 1."""
    port = sandbox.stripe_url.rsplit(":", 1)[1]
    command = [
        sys.executable,
        "-m",
        "providers.sandbox",
        f"--stripe-port={port}",
        "--adyen-port=0",
        "--control-port=0",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    assert ended.returncode == 1
    assert ended.stderr == f"the sandbox cannot use 127.0.0.1:{port} for stripe: the port is taken\n"
