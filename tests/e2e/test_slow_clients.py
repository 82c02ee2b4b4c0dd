"""Slow clients against the real server: heads, bodies and readings that trickle, and connections that say nothing."""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from router.serving import HEAD_WITHIN_S
from tests.e2e.house import House, eventually

pytestmark = pytest.mark.processes

THREADS = 8
BODY = b"POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer the-key-of-this-test\r\nContent-Length: 999\r\n\r\n{"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path, ROUTER_WEB_THREADS=str(THREADS))
    try:
        yield house
    finally:
        house.stop()


def clients(stack: contextlib.ExitStack, house: House, number: int, said: bytes = b"") -> list[socket.socket]:
    """That many connections, each of which has said so much."""
    url, found = urlsplit(house.url), []
    for _ in range(number):
        client = stack.enter_context(socket.create_connection((url.hostname, url.port or 0), timeout=30))
        client.sendall(said)
        found.append(client)
    return found


def pays(house: House) -> None:
    begun = time.monotonic()
    status, _ = house.pay()
    assert (status, time.monotonic() - begun < 5) == (201, True)


def test_slow_clients_hold_up_nobody_else(house: House) -> None:
    pays(house)
    with contextlib.ExitStack() as stack:
        heads = clients(stack, house, 40, b"POST /v1/payments HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        pays(house)
        # Ten times the threads; but no key, no body read.
        clients(stack, house, 10 * THREADS, BODY.replace(b"the-key", b"no-key") % b"/v1/payments")
        # Webhooks are anybody's until their body is read: half of the threads wait for them, the rest are refused.
        hooks = clients(stack, house, 4 * THREADS, BODY % b"/webhooks/stripe")
        time.sleep(1.5)
        hooks += clients(stack, house, THREADS, BODY % b"/webhooks/stripe")
        pays(house)
        # With a key: half of them, and whoever reads is answered.
        assert house.call("GET", "/healthz")[0] == 200
        readers = clients(stack, house, 20, b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
        pays(house)
        del hooks, readers
        # A head that does not end is not waited for any longer than the bound.
        heads[0].settimeout(HEAD_WITHIN_S + 10)
        with contextlib.suppress(ConnectionError):
            heads[0].recv(1000)
    eventually(lambda: house.pay()[0] == 201, 10)


def test_connections_that_say_nothing_leave_room_for_those_that_do(house: House) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip("this machine lets a process open fewer than 4096 files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    try:
        with contextlib.ExitStack() as stack:
            clients(stack, house, 1500)
            pays(house)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
