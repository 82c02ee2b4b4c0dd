"""Slow clients against the real server: heads, bodies and readings that trickle, and connections that say nothing."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import urllib3

from providers.sandbox.server import Sandbox
from router.serving import HEAD_WITHIN_S
from tests.e2e.house import free_port
from tests.integration.shop import order

pytestmark = pytest.mark.processes

THREADS = 8
_numbers = itertools.count(1)
BODY = b"POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer the-key-of-this-test\r\nContent-Length: 999\r\n\r\n{"


@dataclass(frozen=True, slots=True)
class Web:
    """`pointsman web`, one process of it."""

    port: int

    def call(self, method: str, path: str, **more: object) -> int:
        """One request on a connection of its own; its status."""
        headers = {"Authorization": "Bearer the-key-of-this-test", "Idempotency-Key": f"key-{next(_numbers)}"}
        url = f"http://127.0.0.1:{self.port}{path}"
        with urllib3.PoolManager(retries=False, timeout=20) as http:
            return http.request(method, url, headers=headers, **more).status  # type: ignore[arg-type]


@pytest.fixture
def web(tmp_path: Path, sandbox: Sandbox) -> Iterator[Web]:
    web = Web(free_port())
    env = {name: value for name, value in os.environ.items() if not name.startswith("ROUTER_")} | {
        "ROUTER_RUN_DIR": str(tmp_path),
        "ROUTER_BIND": f"127.0.0.1:{web.port}",
        "ROUTER_API_KEY": "the-key-of-this-test",
        "ROUTER_STRIPE_BASE_URL": sandbox.stripe_url,
        "ROUTER_ADYEN_BASE_URL": sandbox.adyen_url,
        "ROUTER_WEB_THREADS": str(THREADS),
    }
    process = subprocess.Popen([sys.executable, "-m", "router", "web"], env=env)
    try:
        until = time.monotonic() + 90
        while True:
            assert process.poll() is None
            assert time.monotonic() < until, "not up within 90 s"
            with contextlib.suppress(urllib3.exceptions.HTTPError):
                if web.call("GET", "/readyz") == 200:
                    break
            time.sleep(0.1)
        yield web
    finally:
        process.terminate()
        try:
            process.wait(15)
        finally:
            process.kill()


def clients(stack: contextlib.ExitStack, web: Web, number: int, said: bytes = b"") -> list[socket.socket]:
    """That many connections, each of which has said so much."""
    found = []
    for _ in range(number):
        client = stack.enter_context(socket.create_connection(("127.0.0.1", web.port), timeout=30))
        client.sendall(said)
        found.append(client)
    return found


def pays(web: Web) -> None:
    assert web.call("POST", "/v1/payments", json=order()) == 201


def test_slow_clients_hold_up_nobody_else(web: Web) -> None:
    pays(web)
    with contextlib.ExitStack() as stack:
        heads = clients(stack, web, 40, b"POST /v1/payments HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        pays(web)
        # Ten times the threads; but no key, no body read.
        for path in (b"/v1/payments", b"/v1/decisions"):
            clients(stack, web, 10 * THREADS, BODY.replace(b"the-key", b"no-key") % path)
        # Webhooks are anybody's until their body is read: half of the threads wait for them, the rest are refused.
        hooks = clients(stack, web, 4 * THREADS, BODY % b"/webhooks/stripe")
        time.sleep(1.5)
        hooks += clients(stack, web, THREADS, BODY % b"/webhooks/stripe")
        pays(web)
        # With a key: three in four, however its header is worded; and who sends no body, or is refused, is answered.
        with contextlib.ExitStack() as mine:
            for word in (b"Bearer ", b"bearer ", b"BEARER ", b"Bearer  "):
                clients(mine, web, 2 * THREADS, BODY.replace(b"Bearer ", word) % b"/v1/decisions")
            time.sleep(1.5)
            assert web.call("GET", "/healthz") == 200
            assert web.call("POST", "/v1/payments", json=order()) == 503
        assert web.call("GET", "/healthz") == 200
        readers = clients(stack, web, 20, b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
        pays(web)
        del hooks, readers
        # A head that does not end is not waited for any longer than the bound.
        heads[0].settimeout(HEAD_WITHIN_S + 10)
        with contextlib.suppress(ConnectionError):
            heads[0].recv(1000)
    pays(web)


def test_connections_that_say_nothing_leave_room_for_those_that_do(web: Web) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip("this machine lets a process open fewer than 4096 files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    try:
        with contextlib.ExitStack() as stack:
            clients(stack, web, 1500)
            pays(web)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
