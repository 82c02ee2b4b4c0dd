"""The synthetic traffic of `make run`, against a small HTTP server that answers what the test wants."""

from __future__ import annotations

import json
import random
import re
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from router import demo
from router.clock import ManualClock, SequentialIds, SystemClock
from router.demo import DemoTraffic, format_minor


class FakeRouter:
    """Keeps what it was sent and answers `status` and `body`; `body` None cuts the connection."""

    def __init__(self) -> None:
        self.status = 201
        self.body: bytes | None = b"{}"
        self.answering = threading.Event()
        """Cleared: every request waits."""
        self.answering.set()
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fake.requests.append((self.path, dict(self.headers.items()), sent))
                fake.answering.wait(10)
                if fake.body is None:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(fake.status)
                self.send_header("Content-Length", str(len(fake.body)))
                self.end_headers()
                self.wfile.write(fake.body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answers(self, http_status: int, /, **body: Any) -> None:
        """Answer this JSON from now on."""
        self.status, self.body = http_status, json.dumps(body).encode()

    @property
    def payments(self) -> list[dict[str, Any]]:
        return [payment for _, _, payment in self.requests]


@pytest.fixture
def router() -> Iterator[FakeRouter]:
    """A fake router on a free port."""
    fake = FakeRouter()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()


def traffic(url: str, said: list[str], per_second: float = 2, clock: Any = None) -> DemoTraffic:
    """Demo traffic that is the same in every run; `url` may end with a slash."""
    return DemoTraffic(
        base_url=url,
        api_key="demo-key",
        per_second=per_second,
        say=said.append,
        clock=clock or ManualClock(),
        ids=SequentialIds(),
        rng=random.Random(7),
    )


def attempt(provider: str, outcome: str, reason: str | None = None) -> dict[str, Any]:
    """An attempt as the API shows it."""
    return {"id": "att_1", "provider": provider, "outcome": outcome, "latency_ms": 3, "reason": reason}


def test_a_payment_is_posted_as_a_checkout_would(router: FakeRouter) -> None:
    """The path, the key, a fresh idempotency key and a fresh reference each time, and every field of a payment."""
    router.answers(201, status="captured", provider="stripe", attempts=[attempt("stripe", "approved")])
    demo = traffic(router.url + "/", [])
    for _ in range(20):
        assert demo.run_once().answered
    assert {path for path, _, _ in router.requests} == {"/v1/payments"}
    assert {headers["Authorization"] for _, headers, _ in router.requests} == {"Bearer demo-key"}
    assert len({headers["Idempotency-Key"] for _, headers, _ in router.requests}) == 20
    assert len({payment["reference"] for payment in router.payments}) == 20
    for payment in router.payments:
        assert payment["reference"].startswith("DEMO-")
        assert isinstance(payment["amount"], int)
        assert payment["amount"] > 0
        assert payment["capture"] == "automatic"
        assert payment["payment_method"]["tokens"].keys() == {"stripe", "adyen"}
        assert payment["customer"]["id"]
        assert payment["return_url"].startswith("https://")


def test_payments_vary_and_a_few_have_no_money(router: FakeRouter) -> None:
    """Three currencies, several countries and both brands; a small share is declined by either provider."""
    router.answers(201, status="captured", provider="stripe", attempts=[attempt("stripe", "approved")])
    demo = traffic(router.url, [])
    for _ in range(200):
        demo.run_once()
    payments = router.payments
    assert {payment["currency"] for payment in payments} == {"EUR", "USD", "GBP"}
    assert {payment["payment_method"]["card"]["brand"] for payment in payments} == {"visa", "mastercard"}
    assert len({payment["customer"]["country"] for payment in payments}) > 4
    assert len({payment["amount"] for payment in payments}) > 150
    tokens = [payment["payment_method"]["tokens"] for payment in payments]
    poor = [token for token in tokens if token["stripe"] == "pm_card_visa_chargeDeclinedInsufficientFunds"]
    assert 4 <= len(poor) <= 40
    assert {token["adyen"]["holder_name"] for token in poor} == {"NOT_ENOUGH_BALANCE"}
    assert {token["adyen"] for token in tokens if token not in poor} == {"8415718415172204"}


def test_a_captured_payment_is_one_readable_line(router: FakeRouter) -> None:
    """Time, amount, outcome, provider and latency, and no path where there is nothing to explain."""
    router.answers(201, status="captured", provider="stripe", attempts=[attempt("stripe", "approved")])
    said: list[str] = []
    assert traffic(router.url, said).run_once().result == "captured"
    assert len(said) == 1
    assert re.fullmatch(r"00:00:00 +\d+\.\d\d (EUR|USD|GBP)  captured +stripe +0 ms", said[0])


def test_a_failover_shows_its_path(router: FakeRouter) -> None:
    """The line says which provider failed, why, and who took the payment."""
    router.answers(
        201,
        status="captured",
        provider="adyen",
        attempts=[attempt("stripe", "not_executed", "connection_refused"), attempt("adyen", "approved")],
    )
    said: list[str] = []
    traffic(router.url, said).run_once()
    assert "captured    adyen     (stripe: connection_refused → adyen)  " in said[0]


@pytest.mark.parametrize(
    ("status", "answer", "expected"),
    [
        (
            201,
            {"status": "declined", "provider": "stripe", "attempts": [attempt("stripe", "declined", "expired")]},
            "declined    stripe    (stripe: expired)",
        ),
        (
            201,
            {
                "status": "declined",
                "provider": "adyen",
                "decline": {"class": "soft", "code": "insufficient_funds"},
                "attempts": [attempt("stripe", "declined"), attempt("adyen", "declined")],
            },
            "declined    adyen     (stripe: declined → adyen: insufficient_funds)",
        ),
        (
            202,
            {"status": "processing", "provider": "stripe", "attempts": [attempt("stripe", "unknown")]},
            "processing  stripe    (stripe: unknown)",
        ),
        (202, {"status": "parked", "provider": None, "attempts": []}, "parked      -"),
        (503, {"type": "https://x.example/problems/ledger-unavailable"}, "refused (503 ledger-unavailable)"),
        (401, {"title": "no key"}, "refused (401 no key)"),
    ],
)
def test_every_other_answer_is_one_readable_line_too(
    router: FakeRouter, status: int, answer: dict[str, Any], expected: str
) -> None:
    """Declines, processing, parked and refusals are said with their reasons."""
    router.answers(status, **answer)
    said: list[str] = []
    assert traffic(router.url, said).run_once().answered
    assert len(said) == 1
    assert expected in said[0]


@pytest.mark.parametrize("body", [b"<html>Bad gateway</html>", b"\xff\xfe", b"[]"])
def test_an_answer_that_is_no_payment_is_said_to_be_unreadable(router: FakeRouter, body: bytes) -> None:
    """HTML, bytes that are no text, and JSON of another shape."""
    router.status, router.body = 502, body
    said: list[str] = []
    assert not traffic(router.url, said).run_once().answered
    assert "unreadable answer (HTTP 502)" in said[0]


@pytest.mark.parametrize("attempts", [None, "none", [1, 2], [{}], {"stripe": 1}])
def test_a_strange_answer_never_raises(router: FakeRouter, attempts: Any) -> None:
    """A line is said whatever shape the attempts have, and it stays one line."""
    router.answers(201, status="cap\ntured", provider=["a"], attempts=attempts)
    said: list[str] = []
    traffic(router.url, said).run_once()
    assert len(said) == 1
    assert "\n" not in said[0]


def test_a_router_that_is_down_is_one_line_and_no_traceback() -> None:
    """A refused connection is said plainly."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        said: list[str] = []
        assert not traffic(f"http://127.0.0.1:{unused.getsockname()[1]}", said).run_once().answered
    assert len(said) == 1
    assert "router is not answering" in said[0]


def test_a_cut_connection_is_one_line(router: FakeRouter) -> None:
    """A router killed in the middle of a request is said plainly, and the payment is not sent again."""
    router.body = None
    said: list[str] = []
    assert not traffic(router.url, said).run_once().answered
    assert "router cut the connection" in said[0]
    assert len(router.requests) == 1


def test_the_pace_is_kept_and_a_stop_is_prompt(router: FakeRouter) -> None:
    """Twenty a second for half a second is about ten payments, and a stop does not wait for the next one."""
    router.answers(201, status="captured", provider="stripe", attempts=[attempt("stripe", "approved")])
    stop = threading.Event()
    runner = threading.Thread(target=traffic(router.url, [], 20, SystemClock()).run, args=(stop,))
    runner.start()
    time.sleep(0.5)
    stop.set()
    runner.join(0.5)
    assert not runner.is_alive()
    assert 6 <= len(router.requests) <= 12


def test_payments_do_not_queue_up_behind_one_that_waits(router: FakeRouter) -> None:
    """As with real customers: a provider that hangs is seen to hang by many, and its circuit opens."""
    router.answering.clear()
    said: list[str] = []
    stop = threading.Event()
    runner = threading.Thread(target=traffic(router.url, said, 50, SystemClock()).run, args=(stop,))
    runner.start()
    until = time.monotonic() + 10
    while len(router.requests) < 12 and time.monotonic() < until:
        time.sleep(0.01)
    assert len(router.requests) >= 12
    assert said == []
    stop.set()
    runner.join(1)
    assert not runner.is_alive()  # nor does a stop wait for them
    router.answering.set()


def test_no_more_wait_at_once_than_a_shop_would_have(router: FakeRouter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the pace: an outage must not fill this machine with threads."""
    monkeypatch.setattr(demo, "_AT_ONCE", 3)
    router.answering.clear()
    stop = threading.Event()
    runner = threading.Thread(target=traffic(router.url, [], 200, SystemClock()).run, args=(stop,))
    runner.start()
    until = time.monotonic() + 10
    while len(router.requests) < 3 and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.2)
    stop.set()
    runner.join(1)
    assert len(router.requests) == 3
    router.answering.set()


def test_no_pace_means_no_traffic(router: FakeRouter) -> None:
    """`ROUTER_DEMO_TRAFFIC_PER_SECOND=0` posts nothing and returns."""
    traffic(router.url, [], 0).run(threading.Event())
    assert router.requests == []


@pytest.mark.parametrize(
    ("minor", "currency", "written"),
    [
        (1999, "EUR", "19.99 EUR"),
        (5, "USD", "0.05 USD"),
        (500, "JPY", "500 JPY"),
        (1230, "KWD", "1.230 KWD"),
        (1_000_000, "GBP", "10000.00 GBP"),
    ],
)
def test_amounts_are_written_with_the_decimals_of_their_currency(minor: int, currency: str, written: str) -> None:
    """ISO 4217 knows currencies of no, two and three decimals."""
    assert format_minor(minor, currency) == written
