"""The pooled client under both SDKs, on real sockets: what each failed send proves, and how long it may take."""

from __future__ import annotations

import itertools
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import urllib3

from providers.contract import Health, Timeouts
from providers.faults import Fault
from providers.transport import IDLE_S, Answer, SendFailed, Transport, checked_base_url, sending_within, verdict
from tests.contract.raw_server import RawServer, Talk, always, answer, read_request, refused_url, reset, reset_unread

SHORT = Timeouts(connect_s=0.2, read_s=0.2)
LONG = Timeouts(connect_s=5, read_s=5)
OK = answer(200, b"{}")
LONG_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"


def send(transport: Transport, url: str, timeouts: Timeouts = LONG) -> Answer:
    """One POST."""
    with sending_within(timeouts):
        return transport.send("POST", f"{url}/v1/things", {"X-Key": "k"}, b"a=1")


def fault_of(url: str, timeouts: Timeouts = LONG, transport: Transport | None = None) -> Fault:
    """The verdict on one POST that must fail."""
    with pytest.raises(SendFailed) as caught:
        send(transport or Transport(pool_size=2), url, timeouts)
    return caught.value.fault


def after_request(act: Callable[[socket.socket], None]) -> Talk:
    """Reads one request, then does that."""

    def talk(conn: socket.socket, number: int) -> None:
        read_request(conn)
        act(conn)

    return talk


# ---------------------------------------------------------------- what proves that nothing was done


def test_a_refused_connection_proves_that_nothing_was_done() -> None:
    """Nobody listens on the port."""
    assert fault_of(refused_url()) == Fault(True, Health.UNREACHABLE, "connection_refused")


def test_a_name_that_does_not_resolve_proves_that_nothing_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver says no; asked for real it could take seconds."""

    def no_such_name(*args: object, **kwargs: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_such_name)
    assert fault_of("http://api.provider.invalid") == Fault(True, Health.UNREACHABLE, "dns")


def test_a_connect_timeout_proves_that_nothing_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel gives up connecting; a black-holed address is not the same on every machine."""

    def gives_up(self: socket.socket, address: object) -> None:
        assert self.gettimeout() == SHORT.connect_s
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket.socket, "connect", gives_up)
    assert fault_of("http://127.0.0.1:9", SHORT) == Fault(True, Health.UNREACHABLE, "connect_timeout")


def test_a_host_without_a_route_proves_that_nothing_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other error of connecting itself."""

    def no_route(self: socket.socket, address: object) -> None:
        raise OSError(113, "No route to host")

    monkeypatch.setattr(socket.socket, "connect", no_route)
    assert fault_of("http://127.0.0.1:9") == Fault(True, Health.UNREACHABLE, "no_connection")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that nobody signed, with its key, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    both = folder / "both.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=sandbox"
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(folder / "key"), "-out", str(folder / "crt")]
    try:
        subprocess.run([*command.split(), *files], check=True, capture_output=True, timeout=20)
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("makes its certificate with the openssl command, which is missing here")
    both.write_text((folder / "key").read_text() + (folder / "crt").read_text())
    return both


@pytest.fixture
def server_tls(certificate: Path) -> ssl.SSLContext:
    """The server's side."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_a_certificate_that_nobody_signed_proves_that_nothing_was_done(server_tls: ssl.SSLContext) -> None:
    """The request is not sent to a server that cannot say who it is."""
    seen: list[bytes] = []
    with RawServer(always(OK, seen), server_tls) as server:
        assert fault_of(server.url) == Fault(True, Health.UNREACHABLE, "certificate")
    assert seen == []


def test_a_certificate_for_another_name_proves_that_nothing_was_done(
    server_tls: ssl.SSLContext, certificate: Path
) -> None:
    """The authority is trusted, but the name is not in the certificate."""
    transport = Transport(pool_size=1, tls=ssl.create_default_context(cafile=certificate))
    with RawServer(always(OK), server_tls) as server:
        fault = fault_of(server.url.replace("127.0.0.1", "localhost"), transport=transport)
    assert fault == Fault(True, Health.UNREACHABLE, "certificate")


def test_a_trusted_certificate_is_used_over_one_connection(server_tls: ssl.SSLContext, certificate: Path) -> None:
    """TLS works, deadline file and all, and is pooled; after a rest it is another connection, as trusted."""
    now = [0.0]
    transport = Transport(pool_size=1, monotonic=lambda: now[0], tls=ssl.create_default_context(cafile=certificate))
    with RawServer(always(OK), server_tls) as server:
        assert [send(transport, server.url).status for _ in range(3)] == [200] * 3
        assert server.accepted == 1
        now[0] += IDLE_S + 0.1
        assert [send(transport, server.url).status for _ in range(2)] == [200] * 2
        assert server.accepted == 2


def test_a_dripping_answer_over_tls_ends_in_time(server_tls: ssl.SSLContext, certificate: Path) -> None:
    """The deadline holds under TLS too."""
    transport = Transport(pool_size=1, tls=ssl.create_default_context(cafile=certificate))
    with RawServer(after_request(drip(LONG_ANSWER, b" " * 100)), server_tls) as server:
        assert fault_of(server.url, Timeouts(2, 0.2), transport).reason == "read_timeout"


def test_a_server_that_does_not_speak_tls_leaves_it_unknown() -> None:
    """Not on the list of proofs, so it proves nothing."""
    with RawServer(after_request(lambda conn: conn.sendall(OK))) as server:
        fault = fault_of(server.url.replace("http:", "https:"), SHORT)
    assert not fault.proved_untouched


# ---------------------------------------------------------------- what proves nothing


def drip(start: bytes, slowly: bytes) -> Callable[[socket.socket], None]:
    """Sends the start at once and the rest a byte every 20 ms: each in time, all of it not."""

    def act(conn: socket.socket) -> None:
        conn.sendall(start)
        for byte in slowly:
            time.sleep(0.02)
            conn.sendall(bytes([byte]))

    return act


def say(data: bytes, then: Callable[[socket.socket], object] = socket.socket.close) -> Talk:
    """Answers the first request with that, then does something else."""

    def act(conn: socket.socket) -> None:
        conn.sendall(data)
        then(conn)

    return after_request(act)


def wait(conn: socket.socket) -> None:
    """Longer than anybody waits here."""
    time.sleep(0.5)


HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"
UNKNOWN: dict[str, tuple[Talk, str]] = {
    "a reset before the request was read": (reset_unread, "connection_reset"),
    "a reset after the request was read": (after_request(reset), "connection_reset"),
    "a hang-up instead of an answer": (after_request(socket.socket.close), "connection_reset"),
    "silence": (after_request(wait), "read_timeout"),
    "a body shorter than promised": (say(HALF), "truncated"),
    "a chunked body that breaks off": (
        say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"),
        "truncated",
    ),
    "a reset within the body": (say(HALF, reset), "connection_reset"),
    "a body that drips": (after_request(drip(LONG_ANSWER, b" " * 100)), "read_timeout"),
    "headers that drip": (after_request(drip(b"HTTP/1.1 200 OK\r\n", b"X-Drip: yes\r\n" * 8)), "read_timeout"),
    "something that is not HTTP": (say(b"SSH-2.0-hello\r\n\r\n"), "not_http"),
    "a body that stops half-way": (say(HALF, wait), "read_timeout"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_ends_a_made_connection_proves_nothing(case: str) -> None:
    """Each looks the same from here whether the provider charged or not, and counts against its health."""
    talk, reason = UNKNOWN[case]
    with RawServer(talk) as server:
        started = time.monotonic()
        fault = fault_of(server.url, SHORT)
        took_s = time.monotonic() - started
    assert not fault.proved_untouched
    assert fault.health is Health.PROVIDER_ERROR
    if "reset" in case:  # what a RST overtakes is up to the kernel: the reset itself, or the end of the data
        assert fault.reason in (reason, "truncated")
    else:
        assert fault.reason == reason
    assert took_s < 1.9  # what drips goes on for two seconds


def test_an_answer_without_end_is_cut_off() -> None:
    """Our memory is not the provider's to fill."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"
    transport = Transport(pool_size=1)
    with RawServer(after_request(lambda conn: conn.sendall(head + b" " * 5_000_000))) as server:
        for _ in range(2):  # the only slot of the pool comes back
            fault = fault_of(server.url, transport=transport)
            assert (fault.proved_untouched, fault.reason) == (False, "answer_too_large")


def test_a_byte_at_the_last_moment_does_not_buy_the_whole_time_again() -> None:
    """The deadline is the answer's, not each byte's."""

    def one_late_byte(conn: socket.socket) -> None:
        conn.sendall(LONG_ANSWER)
        time.sleep(0.5)
        conn.sendall(b" ")
        conn.recv(1)  # until the other side has given up

    with RawServer(after_request(one_late_byte)) as server:
        started = time.monotonic()
        assert fault_of(server.url, Timeouts(1, 0.6)).reason == "read_timeout"
        assert time.monotonic() - started < 0.95  # not 0.5 + 0.6


def test_a_resend_within_an_except_block_is_judged_by_itself() -> None:
    """The refused first send hangs on the second's context; a charged payment must not look untouched for it."""

    def send_and_send_again(url: str) -> None:
        try:
            send(Transport(pool_size=1), refused_url())
        except SendFailed:
            send(Transport(pool_size=1), url)

    with RawServer(after_request(reset)) as server, pytest.raises(SendFailed) as caught:
        send_and_send_again(server.url)
    chain: list[BaseException] = [caught.value]
    while chain[-1].__context__ is not None:
        chain.append(chain[-1].__context__)
    assert any(isinstance(error, urllib3.exceptions.NewConnectionError) for error in chain)  # the trap is set
    assert not caught.value.fault.proved_untouched


def test_urllib3_wrapping_a_refusal_in_something_else_proves_nothing() -> None:
    """Only the error itself is judged: a refusal that merely hangs on it belongs to another send."""
    error = urllib3.exceptions.ProtocolError("Connection aborted.", ConnectionResetError())
    error.__context__ = ConnectionRefusedError()
    error.__cause__ = ConnectionRefusedError()
    assert not verdict(error).proved_untouched


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize("status", [200, 302, 404, 500])
def test_every_complete_answer_is_an_answer(status: int) -> None:
    """Nothing is followed, nothing retried: what it means is the adapter's to say."""
    seen: list[bytes] = []
    elsewhere = "Location: http://127.0.0.1:1/elsewhere"
    with RawServer(always(answer(status, b"body", elsewhere, "Retry-After: 0"), seen)) as server:
        got = send(Transport(pool_size=1), server.url)
    assert (got.status, got.body, got.headers["content-TYPE"]) == (status, b"body", "application/json")
    assert len(seen) == 1


def test_a_request_goes_out_as_it_was_given() -> None:
    """Path, headers and body reach the provider unchanged."""
    seen: list[bytes] = []
    with RawServer(always(OK, seen)) as server:
        send(Transport(pool_size=1), server.url)
    assert seen[0].startswith(b"POST /v1/things HTTP/1.1\r\n")
    assert b"\r\nX-Key: k\r\n" in seen[0]
    assert seen[0].endswith(b"\r\n\r\na=1")


# ---------------------------------------------------------------- the pool


@pytest.mark.parametrize("body", [b"a=1", "a=1", bytearray(b"a=1"), memoryview(b"a=1"), b"", None])
def test_head_and_body_leave_together(body: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one call of the system: no answer is late because the provider waits for the rest of a request."""
    sent: list[bytes] = []
    sendall = socket.socket.sendall

    def counted(self: socket.socket, data: bytes) -> None:
        if data.startswith(b"POST") or b"a=1" in data:
            sent.append(data)
        sendall(self, data)

    monkeypatch.setattr(socket.socket, "sendall", counted)
    with RawServer(always(OK)) as server:
        transport = Transport(pool_size=2)
        for _ in range(2):  # on a new connection, and on a kept one
            with sending_within(LONG):
                transport.send("POST", server.url, {}, body)
        transport.close()
    assert len(sent) == 2
    assert all(each.endswith(b"\r\n\r\n" + (b"a=1" if body else b"")) for each in sent)


def test_a_slot_comes_back_however_the_send_ended() -> None:
    """A pool of one survives every failure: otherwise each bad minute would cost connections for good."""
    talks = [case[0] for case in UNKNOWN.values() if case[1] != "read_timeout"]

    def talk(conn: socket.socket, number: int) -> None:
        if number < len(talks):
            talks[number](conn, number)
        else:
            always(OK)(conn, number)

    transport = Transport(pool_size=1)
    with RawServer(talk) as server:
        for _ in talks:
            fault_of(server.url, Timeouts(1, 0.1), transport)
        assert send(transport, server.url).status == 200


def test_a_connection_that_the_provider_closed_meanwhile_is_not_used_again() -> None:
    """Noticed before the request is sent, so it costs nothing."""

    def one_answer_each(conn: socket.socket, number: int) -> None:
        read_request(conn)
        conn.sendall(OK)

    transport = Transport(pool_size=1)
    with RawServer(one_answer_each) as server:
        for _ in range(3):
            assert send(transport, server.url).status == 200
            time.sleep(0.02)  # the FIN arrives
        assert server.accepted == 3


def test_a_connection_that_breaks_on_reuse_is_unknown_and_not_sent_again() -> None:
    """What the check before reuse does not see may have reached the provider."""
    seen: list[bytes] = []

    def second_breaks(conn: socket.socket, number: int) -> None:
        read_request(conn)
        conn.sendall(OK)
        seen.append(read_request(conn))

    transport = Transport(pool_size=1)
    with RawServer(second_breaks) as server:
        send(transport, server.url)
        fault = fault_of(server.url, transport=transport)
        assert server.accepted == 1
    assert (fault.proved_untouched, fault.reason) == (False, "connection_reset")
    assert len(seen) == 1


def test_many_sends_share_few_connections() -> None:
    """Fifty calls by four threads need four connections at most."""
    transport = Transport(pool_size=4)
    with RawServer(always(OK)) as server:
        threads = [
            threading.Thread(target=lambda: [send(transport, server.url) for _ in range(50)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 1 <= server.accepted <= 4


def test_a_connection_that_rested_for_long_is_not_used_again() -> None:
    """What stands between may have forgotten it, and would lose the request: its outcome would be unknown."""
    now = [0.0]
    transport = Transport(pool_size=2, monotonic=lambda: now[0])
    with RawServer(always(OK)) as server:
        for rested_s, connections in ((0.0, 1), (IDLE_S, 1), (IDLE_S, 1), (IDLE_S + 0.1, 2), (1000.0, 3), (1.0, 3)):
            now[0] += rested_s
            assert send(transport, server.url).status == 200
            assert server.accepted == connections
    assert transport.use() == (0, 2)


def test_connections_that_a_busy_minute_needed_are_closed_after_it() -> None:
    """One that is used stays, and the others do not for good; their places are free, and can be used again."""
    now, busy, ended = [0.0], threading.Barrier(5), [threading.Event() for _ in range(4)]

    def talk(conn: socket.socket, number: int) -> None:
        read_request(conn)
        if number < 4:
            busy.wait(5)  # all four are under way at once
        conn.sendall(OK)
        while read_request(conn):
            conn.sendall(OK)
        if number < 4:
            ended[number].set()

    transport = Transport(pool_size=4, monotonic=lambda: now[0])
    with RawServer(talk) as server:
        threads = [threading.Thread(target=send, args=(transport, server.url)) for _ in range(4)]
        for thread in threads:
            thread.start()
        busy.wait(5)
        for thread in threads:
            thread.join()
        for _ in range(4):
            now[0] += IDLE_S / 3
            send(transport, server.url)
        gone = [each for each in ended if each.wait(0.5)]
        assert (len(gone), server.accepted, transport.use()) == (3, 4, (0, 4))
        with ThreadPoolExecutor(4) as pool:
            assert [each.status for each in pool.map(lambda _: send(transport, server.url), range(4))] == [200] * 4


def test_an_exhausted_pool_was_never_sent_and_says_nothing_of_the_provider() -> None:
    """The second thread waits no longer than the connect timeout for the only connection."""
    entered = threading.Event()

    def hang(conn: socket.socket) -> None:
        entered.set()
        time.sleep(0.5)

    transport = Transport(pool_size=1)
    with RawServer(after_request(hang)) as server:
        first = threading.Thread(target=fault_of, args=(server.url, Timeouts(0.2, 0.4), transport))
        first.start()
        entered.wait(2)
        fault = fault_of(server.url, Timeouts(0.1, 5), transport)
        first.join()
        assert server.accepted == 1
    assert fault == Fault(True, Health.IGNORED, "pool_exhausted")


def test_the_deadline_is_read_from_the_clock_it_is_given() -> None:
    """With a clock that leaps past the deadline the answer that is there already comes too late."""
    leaps = itertools.count(0, 100)
    transport = Transport(pool_size=1, monotonic=lambda: next(leaps))
    with RawServer(always(OK)) as server:
        assert fault_of(server.url, transport=transport).reason == "read_timeout"


def test_each_call_has_its_own_timeouts() -> None:
    """Two threads over one pool, one patient and one not."""

    def late(conn: socket.socket) -> None:
        time.sleep(0.25)
        conn.sendall(OK)

    transport = Transport(pool_size=2)
    got: list[int] = []
    with RawServer(after_request(late)) as server:
        patient = threading.Thread(target=lambda: got.append(send(transport, server.url).status))
        patient.start()
        assert fault_of(server.url, Timeouts(1, 0.1), transport).reason == "read_timeout"
        patient.join()
    assert got == [200]


def test_a_send_without_timeouts_is_a_mistake_of_ours() -> None:
    """Nothing is ever sent that could take for ever."""
    with pytest.raises(LookupError):
        Transport(pool_size=1).send("GET", "http://127.0.0.1:1/", {}, None)


def test_closing_drops_the_pooled_connections() -> None:
    """And the transport can be used again after."""
    transport = Transport(pool_size=1)
    with RawServer(always(OK)) as server:
        send(transport, server.url)
        transport.close()
        send(transport, server.url)
        assert server.accepted == 2


@pytest.mark.parametrize(
    "url", ["", "api.stripe.com", "ftp://x", "http://", "http://u:p@x", "http://x/?a=1", "http://x/#f"]
)
def test_a_base_url_that_is_none_stops_the_start(url: str) -> None:
    """Better at start than at the first payment."""
    with pytest.raises(ValueError, match="base URL"):
        checked_base_url(url)
