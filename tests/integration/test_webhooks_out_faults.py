"""Endpoints that are slow, err, redirect, are gone, have a bad certificate, hang up or drip: handled, and visible.

On real sockets, all beside each other and beside one that is well, with payments going on.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from router import webhooks_out_post
from router.app.loops import create_worker
from router.ledger.alerts import AlertLedger
from tests.contract.raw_server import RawServer, Talk, always, answer, read_request
from tests.integration.conftest import OpenShop
from tests.integration.test_webhooks_out_api import OPEN, PATH
from tests.unit.test_transport import certificate, server_tls
from tests.unit.webhook_receiver import until

pytestmark = pytest.mark.either_database

__all__ = ["certificate", "server_tls"]

OK = answer(200, b"{}")
ELSEWHERE = "http://127.0.0.1:9/"


def test_each_kind_of_bad_endpoint_is_handled_and_visible(
    shops: OpenShop, server_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The well one gets each event at once; each other one says what it did, and payments take no notice."""
    ended = threading.Event()
    usual = webhooks_out_post.Poster
    monkeypatch.setattr("router.app.loops.Poster", lambda **chosen: usual(**chosen, total_s=2.0))

    def after(act: Callable[[socket.socket], None]) -> Talk:
        def talk(conn: socket.socket, _number: int) -> None:
            read_request(conn)
            act(conn)

        return talk

    def silent(_conn: socket.socket) -> None:
        ended.wait(60)

    def drip(conn: socket.socket) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"a" * 5000:
            if ended.wait(0.05):
                return
            conn.sendall(bytes([byte]))

    def endless(conn: socket.socket) -> None:
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n")
        ended.wait(60)

    moved = answer(302, b"", f"Location: {ELSEWHERE}")
    wanted: dict[str, tuple[Talk, str | None, int | None]] = {
        "well": (always(OK), None, 200),
        "slow": (after(silent), "read_timeout", None),
        "errs": (always(answer(500, b"")), "http_500", 500),
        "moved": (always(moved), "redirect", 302),
        "gone": (always(answer(410, b"")), "gone", 410),
        "hangs up": (after(lambda conn: conn.close()), "connection_reset", None),
        "drips": (after(drip), "read_timeout", None),
        "endless": (after(endless), None, 200),
    }
    shop = shops(**OPEN)
    with ExitStack() as stack:
        urls = {name: stack.enter_context(RawServer(talk)).url for name, (talk, _, _) in wanted.items()}
        urls["bad certificate"] = stack.enter_context(RawServer(always(OK), server_tls)).url
        expected = {name: (reason, status) for name, (_, reason, status) in wanted.items()}
        expected["bad certificate"] = ("certificate", None)
        ids = {}
        for name, url in urls.items():
            made = shop.send("POST", PATH, json={"url": url, "event_types": ["pointsman.payment.captured"]})
            assert made.status_code == 201, made.text
            ids[name] = made.get_json()["id"]
        stack.callback(ended.set)
        loops = create_worker(shop.core)
        loops.start()
        stack.callback(lambda: loops.stop(30))
        paid = shop.pay().get_json()
        assert paid["status"] == "captured"

        def last(name: str) -> dict[str, object]:
            rows = shop.send("GET", f"{PATH}/{ids[name]}/deliveries").get_json()["deliveries"]
            return rows[0] if rows else {"attempts": 0}

        until(lambda: all(last(name)["attempts"] for name in urls), within_s=60)
        found = {name: (last(name)["last_reason"], last(name)["last_status"]) for name in urls}
        assert found == expected
        accepted = {name for name in urls if last(name)["state"] == "accepted"}
        assert accepted == {"well", "endless"}
        assert shop.send("GET", f"{PATH}/{ids['gone']}").get_json()["state"] == "disabled"
        assert [each.kind for each in AlertLedger(shop.core.database).all()] == ["webhook_disabled"]
        assert shop.send("GET", f"{PATH}/{ids['errs']}").get_json()["failing_since"] is not None
        ended.set()
