"""A shop's webhook endpoint, and a sandbox that tells it: what the tests of the sandbox's webhooks stand on."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import stripe
from Adyen.util import is_valid_hmac_notification

from providers.sandbox.server import SANDBOX_ADYEN_HMAC_KEY, Sandbox
from tests.unit.test_sandbox_client import Shop

ACCOUNT: dict[str, Any] = {"merchantAccount": "ShopECOM"}
MANUAL: dict[str, Any] = {"additionalData": {"manualCapture": "true"}}


class Receiver:
    """A shop's webhook endpoint that does as it is told; what it refuses it does not keep."""

    def __init__(self) -> None:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = receiver.receive(self.path, dict(self.headers), body)
                self.wfile.write(b"HTTP/1.1 %d Status\r\nContent-Length: 10\r\n\r\n[accepted]" % status)
                self.close_connection = receiver.forgetful

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A connection that the sandbox cut."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.clear()
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def clear(self) -> None:
        """Nothing came, everything is welcome."""
        self.statuses: deque[int] = deque()
        self.slow = threading.Event()
        self.slow.set()
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.forgetful = False
        """Whether it ends every connection without having said so."""

    def receive(self, path: str, headers: dict[str, str], body: bytes) -> int:
        """One webhook; the status it is answered with."""
        self.slow.wait(5)
        status = self.statuses.popleft() if self.statuses else 200
        if 200 <= status < 300:
            self.requests.append((path, headers, body))
        return status

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()

    def events(self, count: int) -> list[dict[str, Any]]:
        """Stripe's events, once that many came; each signature is checked."""
        until(lambda: len(self.of("/stripe")) >= count)
        for headers, body in self.of("/stripe"):
            stripe.Webhook.construct_event(body, headers["Stripe-Signature"], "whsec_sandbox")
        return [json.loads(body) for _, body in self.of("/stripe")]

    def items(self, count: int) -> list[dict[str, Any]]:
        """Adyen's notification items, once that many came; each signature is checked."""
        until(lambda: len(self._items()) >= count)
        for item in self._items():
            assert is_valid_hmac_notification(item, SANDBOX_ADYEN_HMAC_KEY) is True
        return self._items()

    def _items(self) -> list[dict[str, Any]]:
        batches = [json.loads(body) for _, body in self.of("/adyen")]
        assert all(batch["live"] == "false" for batch in batches)
        return [one["NotificationRequestItem"] for batch in batches for one in batch["notificationItems"]]

    def of(self, path: str) -> list[tuple[dict[str, str], bytes]]:
        """Headers and body of what was accepted there."""
        return [(headers, body) for where, headers, body in list(self.requests) if where == path]


def until(true: Callable[[], bool], within_s: float = 3) -> None:
    """Wait for it."""
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.003)


@contextlib.contextmanager
def notifying_shop() -> Iterator[tuple[Shop, Receiver]]:
    """A shop of a sandbox that sends webhooks without a delay, and where they come in."""
    receiver = Receiver()
    sandbox = Sandbox(
        stripe_port=0,
        adyen_port=0,
        control_port=0,
        seed=1,
        stripe_webhook_url=f"{receiver.url}/stripe",
        adyen_webhook_url=f"{receiver.url}/adyen",
        webhook_delay_ms=0,
    )
    sandbox.start()
    try:
        yield Shop(sandbox), receiver
    finally:
        receiver.slow.set()
        sandbox.stop()
        receiver.close()


def hooks(shop: Shop, provider: str, **settings: Any) -> None:
    """Steer a provider's webhooks; what is left out takes its default, the URL stays."""
    answer = shop.control("PUT", f"/control/{provider}/webhooks", settings)
    assert answer.status == 200, answer.data


def state(shop: Shop, provider: str) -> dict[str, Any]:
    """Settings and counters."""
    found: dict[str, Any] = shop.control("GET", f"/control/{provider}/webhooks").json()
    return found


def happen(shop: Shop, provider: str, type: str, status: int = 200) -> dict[str, Any]:
    """Let something happen to the newest charge; the row after it."""
    charge = shop.books(provider)[-1]["id"]
    answer = shop.control("POST", f"/control/{provider}/events", {"charge": charge, "type": type})
    assert answer.status == status, answer.data
    row: dict[str, Any] = answer.json()
    return row


def attempts(receiver: Receiver, provider: str, count: int) -> list[str]:
    """The attempts that were told of, as they came."""
    if provider == "stripe":
        return [event["data"]["object"]["metadata"]["attempt"] for event in receiver.events(count)]
    return [item["merchantReference"] for item in receiver.items(count)]
