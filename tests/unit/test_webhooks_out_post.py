"""One delivery on real sockets: what counts as accepted, how long it may take, and whom it is never sent to."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from router.webhooks_out_addresses import EVERYWHERE, networks
from router.webhooks_out_post import Posted, Poster
from tests.contract.raw_server import RawServer, Talk, always, answer, read_request, refused_url, reset, reset_unread
from tests.unit.test_transport import certificate, server_tls

__all__ = ["certificate", "server_tls"]

OK = answer(200, b"{}")
PATIENT_S = 20.0


def a_poster(total_s: float = PATIENT_S, **more: Any) -> Poster:
    """One that may reach this machine."""
    return Poster(**{"allow_http": True, "allowed": EVERYWHERE, "total_s": total_s, **more})


def post(url: str, poster: Poster | None = None) -> Posted:
    """One delivery."""
    return (poster or a_poster()).post(f"{url}/in?key=1", {"X-Pointsman-Event-Id": "pay_1:1"}, b'{"a": 1}')


def at(port: int, address: str = "127.0.0.1") -> Callable[[str, int], list[Any]]:
    """A resolver for which every name is at this address, whatever port is asked for."""
    return lambda _host, _port: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_an_acceptance(status: int) -> None:
    """With the event's id and the signature's header beside the body."""
    seen: list[bytes] = []
    with RawServer(always(answer(status, b""), seen)) as server:
        posted = post(server.url)
    assert (posted.is_accepted, posted.status, posted.reason) == (True, status, None)
    assert seen[0].startswith(b"POST /in?key=1 HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{server.port}\r\n".encode() in seen[0]
    assert b"X-Pointsman-Event-Id: pay_1:1\r\n" in seen[0]
    assert b"Content-Length: 8\r\n" in seen[0]
    assert seen[0].endswith(b'\r\n\r\n{"a": 1}')


@pytest.mark.parametrize(
    ("status", "reason"), [(300, "redirect"), (308, "redirect"), (400, "http_400"), (410, "gone"), (500, "http_500")]
)
def test_any_other_answer_is_a_refusal(status: int, reason: str) -> None:
    """With its status kept."""
    with RawServer(always(answer(status, b"<html>"))) as server:
        assert post(server.url).status == status
        assert post(server.url).reason == reason


def test_a_redirect_is_not_followed() -> None:
    """Nobody asks the address that it names."""
    with RawServer(always(OK)) as other:
        moved = f"HTTP/1.1 302 Found\r\nLocation: {other.url}/\r\nContent-Length: 0\r\n\r\n".encode()
        with RawServer(always(moved)) as server:
            assert post(server.url).reason == "redirect"
        assert other.accepted == 0


def after_request(act: Callable[[socket.socket], None]) -> Talk:
    """Reads one request, then does that."""

    def talk(conn: socket.socket, number: int) -> None:
        read_request(conn)
        act(conn)

    return talk


def test_an_endpoint_that_never_answers_takes_so_long_and_no_longer() -> None:
    """It has the request, and is silent."""
    ended = threading.Event()
    with RawServer(after_request(lambda _conn: void(ended.wait(60)))) as server:
        began = time.monotonic()
        posted = post(server.url, a_poster(0.3))
        assert (posted.status, posted.reason) == (None, "read_timeout")
        assert 0.25 <= time.monotonic() - began < 10
        assert 0.25 <= posted.latency_s < 10
        ended.set()


def void(_value: object) -> None:
    """Nothing more."""


def drip(conn: socket.socket, data: bytes, ended: threading.Event) -> None:
    """Byte by byte, for ever slower than anybody waits."""
    for byte in data:
        if ended.wait(0.05):
            return
        conn.sendall(bytes([byte]))


def test_headers_that_drip_take_so_long_and_no_longer() -> None:
    """Each byte comes well within the time, and there is no end of them."""
    ended = threading.Event()
    with RawServer(after_request(lambda conn: drip(conn, b"HTTP/1.1 200 OK\r\nX: " + b"a" * 9999, ended))) as server:
        posted = post(server.url, a_poster(0.4))
        assert posted.reason == "read_timeout"
        assert posted.latency_s < 10
        ended.set()


def test_a_body_that_drips_or_does_not_end_is_not_waited_for() -> None:
    """The status says it all."""
    ended = threading.Event()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n"

    def talk(conn: socket.socket) -> None:
        conn.sendall(head)
        drip(conn, b" " * 9999, ended)

    with RawServer(after_request(talk)) as server:
        posted = post(server.url, a_poster(30))
        assert posted.is_accepted
        assert posted.latency_s < 20
        ended.set()


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (lambda conn: conn.close(), "connection_reset"),
        (reset, "connection_reset"),
        (lambda conn: conn.sendall(b"SMTP ready\r\n"), "not_http"),
        (lambda conn: conn.sendall(b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 300), "not_http"),
    ],
)
def test_a_connection_that_is_cut_or_speaks_no_http_is_a_refusal(act: Callable[..., None], reason: str) -> None:
    """It may have been accepted: it is sent again under the same id."""
    with RawServer(after_request(act)) as server:
        assert post(server.url).reason == reason


def test_nobody_listens() -> None:
    """And a reset before anything was read."""
    assert post(refused_url()).reason == "connection_refused"
    with RawServer(reset_unread) as server:
        assert post(server.url).reason == "connection_reset"


# ---------------------------------------------------------------- certificates


def test_a_certificate_that_nobody_signed_is_refused(server_tls: ssl.SSLContext) -> None:
    """And nothing is sent."""
    seen: list[bytes] = []
    with RawServer(always(OK, seen), server_tls) as server:
        assert post(server.url).reason == "certificate"
    assert seen == []


def test_the_name_in_the_url_is_what_certificate_and_host_are_of(certificate: Path) -> None:
    """Though what is connected to is an address: the server is asked for that name, and proves that it has it."""
    named: list[str | None] = []
    seen: list[bytes] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.sni_callback = lambda _socket, name, _context: named.append(name)
    trusting = ssl.create_default_context(cafile=str(certificate))
    with RawServer(always(OK, seen), context) as server:
        poster = a_poster(tls=trusting, resolve=at(server.port))
        # The certificate is for 127.0.0.1 only.
        assert poster.post("https://shop.example/in", {}, b"{}").reason == "certificate"
        assert named == ["shop.example"]
        assert poster.post(f"https://127.0.0.1:{server.port}/in", {}, b"{}").is_accepted
    assert f"Host: 127.0.0.1:{server.port}".encode() in seen[0]


def test_a_handshake_that_does_not_come_takes_so_long_and_no_longer() -> None:
    """The port is open, and says nothing."""
    ended = threading.Event()
    with RawServer(lambda _conn, _number: void(ended.wait(60))) as server:
        posted = post(server.url.replace("http:", "https:"), a_poster(0.3))
        assert posted.reason == "read_timeout"
        assert posted.latency_s < 10
        ended.set()


# ---------------------------------------------------------------- where it goes


def test_a_name_that_is_at_an_address_inside_is_not_connected_to() -> None:
    """Each time anew: a name may be moved after its endpoint was made (DNS rebinding)."""
    with RawServer(always(OK)) as server:
        allowed = networks("127.0.0.2")
        places = iter(["127.0.0.2", "127.0.0.1", "127.0.0.2"])

        def moving(host: str, port: int) -> list[Any]:
            return at(server.port, next(places))(host, port)

        poster = a_poster(allowed=allowed, resolve=moving)
        url = f"http://shop.example:{server.port}/in"
        # Nobody listens at 127.0.0.2: that it is tried says that it was let through.
        assert [poster.post(url, {}, b"").reason for _ in range(3)] == [
            "connection_refused",
            "loopback_address",
            "connection_refused",
        ]
        assert server.accepted == 0


def test_of_several_addresses_those_outside_are_tried() -> None:
    """The first that takes the connection; one inside is passed over."""
    with RawServer(always(OK)) as server:
        found = [*at(server.port, "10.0.0.1")("", 0), *at(server.port, "127.0.0.2")("", 0), *at(server.port)("", 0)]
        poster = a_poster(allowed=networks("127.0.0.0/8"), resolve=lambda _host, _port: found)
        assert poster.post("http://shop.example/in", {}, b"").is_accepted


def test_a_setting_that_has_become_stricter_counts_at_once() -> None:
    """For endpoints that were made before it too."""
    with RawServer(always(OK)) as server:
        assert post(server.url, a_poster(allow_http=False)).reason == "url_refused"
        assert post(server.url, a_poster(allowed=())).reason == "url_refused"
        assert server.accepted == 0


def test_a_name_that_cannot_be_resolved_in_time_holds_nobody() -> None:
    """The look-up is left behind, and ends when it ends."""
    ended = threading.Event()

    def slow(_host: str, _port: int) -> list[Any]:
        ended.wait(60)
        return []

    posted = a_poster(0.2, resolve=slow).post("https://shop.example/in", {}, b"")
    assert posted.reason == "dns_timeout"
    assert posted.latency_s < 10
    ended.set()

    def unknown(_host: str, _port: int) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    assert a_poster(resolve=unknown).post("https://shop.example/in", {}, b"").reason == "dns"


def test_the_environments_proxy_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would resolve the name by itself, and connect to whatever it is."""
    with RawServer(always(OK)) as proxy, RawServer(always(OK)) as server:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert post(server.url).is_accepted
        assert proxy.accepted == 0
