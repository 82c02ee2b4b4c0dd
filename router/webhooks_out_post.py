"""One delivery over HTTP: to an address that was checked, within one time for all of it, and only the status counts.

The name is resolved here, and what is connected to is the very address that was judged; so a name that answers
otherwise a moment later (DNS rebinding) gains nothing. TLS and the Host header go by the name. No connection serves a
second delivery, no redirect is followed, no proxy of the environment is asked, the answer's body is not read.
"""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from urllib3.exceptions import HTTPError

from providers.transport import SocketWithDeadline, verdict
from router.webhooks_out_addresses import Network, refusal
from router.webhooks_out_urls import BadUrlError, Target, target_of

TOTAL_S = 10.0
"""From the name's resolution to the answer's last header, however slowly either comes."""
CONNECT_S = 3.0
"""For one address of several."""
LOOK_UPS = 32
"""At once: a name server that does not answer holds a thread for longer than a delivery may take."""
GONE = 410

Resolve = Callable[[str, int], Sequence[Any]]
"""What `socket.getaddrinfo` answers for TCP. Raises OSError."""


@dataclass(frozen=True, slots=True)
class Posted:
    """What came of one delivery."""

    status: int | None
    """Of the answer; None: there was none."""
    reason: str | None
    """Why it was not accepted, as a word; None where it was."""
    latency_s: float

    @property
    def is_accepted(self) -> bool:
        """Whether the endpoint took it: any 2xx."""
        return self.reason is None


class _FailedError(Exception):
    """No answer; the word for it."""


def _getaddrinfo(host: str, port: int) -> Sequence[Any]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


class Poster:
    """Posts. Thread-safe; `allowed` are networks that a setting lets in, `tls` replaces the system's authorities."""

    def __init__(
        self,
        *,
        allow_http: bool = False,
        allowed: Sequence[Network] = (),
        total_s: float = TOTAL_S,
        tls: ssl.SSLContext | None = None,
        resolve: Resolve = _getaddrinfo,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._allow_http = allow_http
        self._allowed = allowed
        self._total_s = total_s
        self._tls = tls or ssl.create_default_context()
        self._resolve = resolve
        self._monotonic = monotonic
        self._looking_up = threading.BoundedSemaphore(LOOK_UPS)

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Posted:
        """Send once. Never raises for what the endpoint or its URL does."""
        began = self._monotonic()
        status, reason = None, None
        try:
            # The settings may be stricter than when the endpoint was made.
            target = target_of(url, allow_http=self._allow_http, allowed=self._allowed)
            status = self._status(target, headers, body, began + self._total_s)
            reason = _reason(status)
        except BadUrlError:
            reason = "url_refused"
        except _FailedError as failed:
            reason = str(failed)
        except (HTTPError, OSError, http.client.HTTPException) as error:
            reason = verdict(error).reason  # a word: the error's text may name what the URL holds
        return Posted(status, reason, self._monotonic() - began)

    def _status(self, target: Target, headers: Mapping[str, str], body: bytes, until: float) -> int:
        sock = self._connect(target, until)
        try:
            if target.is_tls:
                sock.settimeout(self._left(until))
                sock = self._tls.wrap_socket(sock, server_hostname=target.host)
            connection = http.client.HTTPConnection(target.host, target.port)
            connection.sock = sock
            sock.settimeout(self._left(until))
            connection.request(
                "POST", target.path, body, {"Host": target.authority, "Connection": "close", **headers}
            )
            sock.settimeout(self._left(until))
            # Its every read waits for what is left only: a socket's timeout begins anew with each byte.
            reader: Any = SocketWithDeadline(sock, self._monotonic)
            with http.client.HTTPResponse(reader, method="POST") as response:
                response.begin()
                return response.status
        finally:
            sock.close()

    def _connect(self, target: Target, until: float) -> socket.socket:
        refused, failed = "dns", None
        for family, kind, protocol, _name, address in self._addresses(target, until):
            word = refusal(address[0], self._allowed)
            if word is not None:
                refused = f"{word}_address"
                continue
            try:
                sock = socket.socket(family, kind, protocol)
            except OSError as error:
                failed = _no_connection(error)
                continue
            try:
                sock.settimeout(min(CONNECT_S, self._left(until)))
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                sock.close()
                failed = _no_connection(error)
            else:
                return sock
        raise _FailedError(failed or refused)

    def _addresses(self, target: Target, until: float) -> Sequence[Any]:
        """Raises _FailedError. A look-up cannot be cut short, so it is on a thread that may be left behind."""
        found: list[Sequence[Any] | OSError | UnicodeError] = []
        if not self._looking_up.acquire(timeout=self._left(until)):
            raise _FailedError("dns_timeout")

        def look_up() -> None:
            try:
                found.append(self._resolve(target.host, target.port))
            except (OSError, UnicodeError) as error:
                found.append(error)
            finally:
                self._looking_up.release()

        thread = threading.Thread(target=look_up, name="webhook-name", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._looking_up.release()
            raise _FailedError("no_thread") from None
        thread.join(self._left(until))
        if not found:
            raise _FailedError("dns_timeout")
        if isinstance(found[0], Exception):
            raise _FailedError("dns")
        return found[0]

    def _left(self, until: float) -> float:
        left_s = until - self._monotonic()
        if left_s <= 0:
            raise _FailedError("timeout")
        return left_s


def _reason(status: int) -> str | None:
    if 200 <= status < 300:
        return None
    if status == GONE:
        return "gone"
    return "redirect" if 300 <= status < 400 else f"http_{status}"


def _no_connection(error: OSError) -> str:
    match error:
        case TimeoutError():
            return "connect_timeout"
        case ConnectionRefusedError():
            return "connection_refused"
        case OSError(errno=errno.EMFILE | errno.ENFILE):
            return "no_descriptors"
        case _:
            return "no_connection"
