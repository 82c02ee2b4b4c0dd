"""One pooled, thread-safe HTTP client under both vendors' SDKs, and the verdict on every send that failed.

The verdict is spoken *here*, where the urllib3 error of this one send is caught, and travels on `SendFailed`.
Nobody looks for it afterwards along `__context__`: a re-send inside an `except` block drags the earlier send's
error along, and a charged payment would look untouched.

Which errors prove that the provider did nothing is settled in facts/providers.md: no connection was made, or its
certificate was not to be trusted. Everything later, a reset before the first byte of an answer included, is
unknown, because a provider that charged and lost its reply looks the same.
"""

from __future__ import annotations

import contextvars
import errno
import http.client
import io
import queue
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ClosedPoolError,
    ConnectTimeoutError,
    EmptyPoolError,
    HTTPError,
    IncompleteRead,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)

from providers.contract import Health, ProviderError, Timeouts
from providers.faults import Fault
from providers.sockets import has_something_to_say

MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""A payment's answer is a few kilobytes. A thousand times that is no answer, and must not fill our memory."""
CHUNK_BYTES = 64 * 1024
IDLE_S = 30.0
"""No request goes onto a connection that rested for longer. Whatever stands between us and a provider may forget it
without a word to us (a load balancer's usual minute is the least); the request would be lost, its outcome unknown."""


SLACK_S = 0.001
"""By so much an answer may take longer than it may."""


class SendFailed(ProviderError):  # noqa: N818 - the name says what happened
    """One HTTP request did not bring an answer; `fault` says whether the provider may have acted on it."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.reason)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete HTTP answer, whatever its status. Header names are case-insensitive."""

    status: int
    headers: Mapping[str, str]
    body: bytes


_timeouts: contextvars.ContextVar[Timeouts] = contextvars.ContextVar("timeouts of the send under way")


@contextmanager
def sending_within(timeouts: Timeouts) -> Iterator[None]:
    """Sends inside, in this thread, take at most this long. (The SDKs' signatures have no room for it.)"""
    token = _timeouts.set(timeouts)
    try:
        yield
    finally:
        _timeouts.reset(token)


class Transport:
    """A pool of connections. Thread-safe; one per provider, so that a hanging one cannot use up another's.

    A send takes at most `connect_s` waiting for a free connection, `connect_s` for each address of the host that
    does not answer, `connect_s` for the TLS handshake, and `read_s` from the request's last byte to the answer's
    last, however slowly it drips. Redirects are answers, and nothing is retried. `tls` replaces the system's
    certificate authorities.
    """

    def __init__(
        self, *, pool_size: int, monotonic: Callable[[], float] = time.monotonic, tls: ssl.SSLContext | None = None
    ) -> None:
        self._pools = urllib3.PoolManager(
            num_pools=4,
            maxsize=pool_size,
            block=True,
            retries=False,
            ssl_context=tls or ssl.create_default_context(),
        )
        self._pools.pool_classes_by_scheme = _pools_reading_against(monotonic)

    def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | str | None) -> Answer:
        """One request, once. Raises SendFailed; must be called within `sending_within`."""
        timeouts = _timeouts.get()
        try:
            response = self._pools.urlopen(
                method,
                url,
                body=body,
                headers=headers,
                redirect=False,
                retries=False,
                timeout=urllib3.Timeout(connect=timeouts.connect_s, read=timeouts.read_s),
                pool_timeout=timeouts.connect_s,
                preload_content=False,
            )
            try:
                content = _read_all(response)
            finally:
                if not response.closed:  # our own refusal to read on: what is left must not meet the next request
                    response.close()
                response.release_conn()
        except (HTTPError, OSError, http.client.HTTPException) as error:
            # `from None`: the error's text names addresses and paths; what matters of it is the verdict.
            raise SendFailed(verdict(error)) from None
        return Answer(response.status, response.headers, content)

    def use(self) -> tuple[int, int]:
        """How many connections are in use, and how many there may be, to all hosts of the provider together."""
        used = size = 0
        for name in self._pools.pools.keys():  # noqa: SIM118 - its plain iteration is forbidden, for threads' sake
            pool = self._pools.pools.get(name)
            queue = None if pool is None else pool.pool
            if queue is not None:
                size += queue.maxsize
                # Places that nobody holds are in the queue, connected or not.
                used += max(0, queue.maxsize - queue.qsize())
        return used, size

    def close(self) -> None:
        """Drop the pooled connections; one in use is dropped when its call ends. A later send connects anew."""
        self._pools.clear()


def verdict(error: Exception) -> Fault:  # noqa: PLR0912 - a table: one branch per error
    """Whether a send that ended in this urllib3 (or socket) error may have been acted on.

    One branch per error, in the order of their inheritance. Judges the error itself, and what urllib3 wrapped in
    it on purpose (its arguments, its declared cause), never its context.
    """
    match error:
        case EmptyPoolError():
            return Fault(True, Health.IGNORED, "pool_exhausted")
        case ClosedPoolError():
            return Fault(True, Health.IGNORED, "pool_closed")
        case NameResolutionError() | socket.gaierror():
            return _unreachable("dns")
        case NewConnectionError(__cause__=ConnectionRefusedError()) | ConnectionRefusedError():
            return _unreachable("connection_refused")
        case NewConnectionError(__cause__=OSError(errno=errno.EMFILE | errno.ENFILE)):
            return Fault(True, Health.IGNORED, "no_descriptors")  # ours ran out: it says nothing of the provider
        case NewConnectionError():
            return _unreachable("no_connection")
        case ConnectTimeoutError():
            return _unreachable("connect_timeout")
        case SSLError(args=(ssl.SSLCertVerificationError(), *_)) | ssl.SSLCertVerificationError():
            return _unreachable("certificate")
        case SSLError() | ssl.SSLError():
            return _doubtful("tls")
        case ReadTimeoutError() | TimeoutError():
            return _doubtful("read_timeout")
        case IncompleteRead() | http.client.IncompleteRead():
            return _doubtful("truncated")
        case ProtocolError(args=(_, Exception() as wrapped, *_)):
            return _doubtful(_word(wrapped))
        case _:
            return _doubtful(_word(error))


def _unreachable(reason: str) -> Fault:
    return Fault(True, Health.UNREACHABLE, reason)


def _doubtful(reason: str) -> Fault:
    return Fault(False, Health.PROVIDER_ERROR, reason)


def _word(error: Exception) -> str:
    """The reason's word for what broke an established connection."""
    match error:
        case _AnswerTooLargeError():
            return "answer_too_large"
        case http.client.IncompleteRead():
            return "truncated"
        case TimeoutError():
            return "read_timeout"
        case ConnectionError():  # RemoteDisconnected is one
            return "connection_reset"
        case http.client.HTTPException():
            return "not_http"
        case _:
            return "connection_broken"


class _AnswerTooLargeError(HTTPError):
    """The answer is larger than any answer that makes sense."""


def _read_all(response: urllib3.BaseHTTPResponse) -> bytes:
    chunks = []
    size = 0
    while chunk := response.read(CHUNK_BYTES):
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            raise _AnswerTooLargeError
        chunks.append(chunk)
    return b"".join(chunks)


# ---------------------------------------------------------------- a deadline over the whole answer
# A socket's timeout starts anew with every received byte, so a provider that drips one byte a second, in its
# headers or in its body, could hold a thread for ever. The answer is therefore read through a file whose every
# read waits for what is left of the deadline only.


class _DeadlineFile(io.RawIOBase):
    def __init__(self, sock: socket.socket, monotonic: Callable[[], float]) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)  # keeps the socket open until this file is closed
        self._monotonic = monotonic
        # urllib3 has just set the socket's timeout to the read timeout.
        self._allowed_s = sock.gettimeout()
        self._deadline = None if self._allowed_s is None else monotonic() + self._allowed_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._deadline is not None:
            left_s = self._deadline - self._monotonic()
            if left_s <= 0:
                raise TimeoutError("the answer did not end in time")
            # Saying so is a system call, in which another thread goes first: the first read can go without.
            if self._allowed_s is None or left_s < self._allowed_s - SLACK_S:
                self._sock.settimeout(left_s)
                self._allowed_s = left_s
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class SocketWithDeadline:
    """All that `http.client` takes of a socket to read an answer: a file, here one that minds the deadline."""

    def __init__(self, sock: socket.socket, monotonic: Callable[[], float]) -> None:
        self._sock = sock
        self._monotonic = monotonic

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb"
        return io.BufferedReader(_DeadlineFile(self._sock, self._monotonic))


class _InOnePiece:
    """A request's head and body leave together: one system call, one packet, and no reply that is late because the
    provider's machine waits for the rest."""

    sock: socket.socket | None
    _pieces: list[bytes | bytearray | memoryview] | None = None

    @property
    def is_connected(self) -> bool:
        """Whether it is connected, as far as can be known without a word: asked before it is used again."""
        return self.sock is not None and not has_something_to_say(self.sock.fileno())

    def request(self, *args: Any, **options: Any) -> None:
        pieces: list[bytes | bytearray | memoryview] = []
        self._pieces = pieces
        try:
            super().request(*args, **options)  # type: ignore[misc]  # urllib3's connection's
        finally:
            self._pieces = None
        super().send(b"".join(pieces))  # type: ignore[misc]

    def send(self, data: Any) -> None:
        if self._pieces is None:
            super().send(data)  # type: ignore[misc]
        elif isinstance(data, bytes | bytearray | memoryview):
            self._pieces.append(data)
        else:
            # Sent at once it would be in front of its own head.
            raise TypeError("a request's body is bytes")


class _Resting(queue.LifoQueue[Any]):
    """urllib3's connections that nobody uses, the last used first, so that the fewest stay awake; `None` is room."""

    def __init__(self, maxsize: int, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._looked_at = monotonic()
        super().__init__(maxsize)

    def _put(self, item: Any) -> None:
        now = self._monotonic()
        self.queue.append((item, now))
        if now - self._looked_at >= 1.0:
            self._looked_at = now
            self._close_the_rested(now)

    def _get(self) -> Any:
        connection, since = self.queue.pop()
        if connection is not None and self._monotonic() - since > IDLE_S:
            connection.close()  # it connects anew when it is used
        return connection

    def _close_the_rested(self, now: float) -> None:
        # After a busy hour or a slow provider most would rest for good: descriptors, here and there. (So do those to
        # a provider that is sent nothing any more: nobody comes by. They are few, and none is used again.)
        for at, (connection, since) in enumerate(self.queue):
            if now - since <= IDLE_S:
                return  # whatever lies above came back later
            if connection is not None:
                connection.close()
                self.queue[at] = (None, since)


def _pools_reading_against(monotonic: Callable[[], float]) -> dict[str, Any]:
    """urllib3's two kinds of pool, with connections whose answers must end in time by that clock, and whose rests."""

    class Response(http.client.HTTPResponse):
        def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
            super().__init__(SocketWithDeadline(sock, monotonic), *args, **kwargs)  # type: ignore[arg-type]  # all it takes of one

    class Plain(_InOnePiece, HTTPConnection):
        response_class = Response

    class Secure(_InOnePiece, HTTPSConnection):
        response_class = Response

    class Resting(_Resting):
        def __init__(self, maxsize: int) -> None:
            super().__init__(maxsize, monotonic)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain
        QueueCls: Any = Resting

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure
        QueueCls: Any = Resting

    return {"http": PlainPool, "https": SecurePool}


def checked_base_url(base_url: str) -> str:
    """The URL without a trailing slash. Raises ValueError where it is not an http(s) URL with a host."""
    url = urllib3.util.parse_url(base_url)
    if url.scheme not in ("http", "https") or not url.host or url.auth or url.query or url.fragment:
        raise ValueError("a provider's base URL is http(s)://host[:port][/path], with nothing else in it")
    return base_url.rstrip("/")
