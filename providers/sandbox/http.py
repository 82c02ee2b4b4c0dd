"""HTTP/1.1 over asyncio and httptools: one connection, one exchange, one listening port.

Made for two things that ordinary servers avoid: answering in a single write without any framework in between, and
misbehaving exactly (a reset, a silence, a port that refuses).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

import httptools

MAX_BODY_BYTES = 1_000_000
BACKLOG = 1024
# l_onoff=1, l_linger=0: closing sends RST at once, so that the client sees "connection reset", not a clean end.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_REASONS = {status.value: status.phrase for status in HTTPStatus}


class PortTaken(Exception):  # noqa: N818 - reads as what happened
    """A port of the sandbox is already in use by another process."""


@dataclass(slots=True)
class Request:
    """One whole request; `path` without its query, header names in lower case."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """What to answer: status, body bytes, content type and further headers."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()

    def encode(self, *, keep_alive: bool) -> bytes:
        """Head and body as one piece of bytes: two writes would cost a keep-alive client 40 ms (delayed ACK)."""
        extra = "".join(f"{name}: {value}\r\n" for name, value in self.headers)
        connection = "keep-alive" if keep_alive else "close"
        head = (
            f"HTTP/1.1 {self.status} {_REASONS.get(self.status, 'Status')}\r\n"
            f"Content-Type: {self.content_type}\r\nContent-Length: {len(self.body)}\r\n"
            f"Connection: {connection}\r\n{extra}\r\n"
        )
        return head.encode("latin-1") + self.body


class Exchange:
    """One request and the one answer it may get. After its connection is gone, `send` and `cut` do nothing."""

    __slots__ = ("_connection", "_keep_alive", "request")

    def __init__(self, request: Request, connection: Connection, *, keep_alive: bool) -> None:
        self.request = request
        self._connection = connection
        self._keep_alive = keep_alive

    @property
    def open(self) -> bool:
        """Whether an answer could still be sent."""
        return self._connection.current is self

    def send(self, reply: Reply) -> None:
        """Answer."""
        if self.open:
            self._connection.finish(reply.encode(keep_alive=self._keep_alive), keep_alive=self._keep_alive)

    def cut(self) -> None:
        """Reset the connection instead of answering."""
        if self.open:
            self._connection.reset()


Handler = Callable[[Exchange], None]


class Connection(asyncio.Protocol):
    """One accepted connection: reads requests, hands them on one at a time (pipelined ones wait their turn)."""

    def __init__(self, port: ListeningPort, handler: Handler) -> None:
        self._port = port
        self._handler = handler
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[Exchange] = deque()
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body = b""
        self.current: Exchange | None = None

    # -- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio. TCP_NODELAY is set by asyncio itself on every TCP transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._port.listening:
            self._port.connections.add(self)
        else:
            self.reset()  # accepted by the kernel just before the port went down

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Called by asyncio when the other side, or we, ended it."""
        self._forget()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse(400)
        else:
            # Not from within the parser's callbacks: it would take a fault of ours for a malformed request.
            if len(self._body) > MAX_BODY_BYTES:
                self._refuse(413)
            self._take_next()

    # -- httptools

    def on_message_begin(self) -> None:
        """A new request starts."""
        self._url, self._headers, self._body = b"", {}, b""

    def on_url(self, url: bytes) -> None:
        """A piece of the request's target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One whole header."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._body += body

    def on_message_complete(self) -> None:
        """The request is whole."""
        url = httptools.parse_url(self._url)
        request = Request(
            method=self._parser.get_method().decode("latin-1"),
            path=(url.path or b"/").decode("latin-1"),
            query=(url.query or b"").decode("latin-1"),
            headers=self._headers,
            body=self._body,
        )
        self._waiting.append(Exchange(request, self, keep_alive=self._parser.should_keep_alive()))

    # -- answering

    def finish(self, answer: bytes, *, keep_alive: bool) -> None:
        """Write the current exchange's answer and go on to the next request, if one waits already."""
        self.current = None
        if self._transport is None:
            return
        self._transport.write(answer)
        if not keep_alive:
            self.close()
        else:
            self._take_next()

    def close(self) -> None:
        """End cleanly (FIN), after what was written is sent."""
        if self._transport is not None:
            self._transport.close()
        self._forget()

    def reset(self) -> None:
        """End at once with a reset (RST)."""
        transport = self._transport
        if transport is not None:
            sock = transport.get_extra_info("socket")
            if sock is not None:
                with contextlib.suppress(OSError):  # the other side was faster
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            transport.abort()
        self._forget()

    def _take_next(self) -> None:
        if self.current is None and self._waiting and self._transport is not None:
            self.current = self._waiting.popleft()
            self._handler(self.current)

    def _refuse(self, status: int) -> None:
        if self._transport is not None:
            body = b'{"error":{"message":"Malformed HTTP request","type":"invalid_request_error"}}'
            self._transport.write(Reply(status, body).encode(keep_alive=False))
        self.close()

    def _forget(self) -> None:
        self._transport = None
        self.current = None
        self._waiting.clear()
        self._port.connections.discard(self)


class ListeningPort:
    """A TCP port that can stop listening and come back, without losing its number in between."""

    def __init__(self, what: str, host: str, port: int) -> None:
        self.what = what
        self.host = host
        self.port = port
        self.connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._reserved: socket.socket | None = None

    @property
    def listening(self) -> bool:
        """Whether connects are accepted."""
        return self._server is not None

    @property
    def url(self) -> str:
        """`http://host:port`, with the real port once reserved."""
        return f"http://{self.host}:{self.port}"

    def reserve(self) -> None:
        """Bind the port without listening: connects are refused, and nobody else gets the number."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            # Without SO_REUSEADDR the remains of closed connections (TIME_WAIT) would block a restart for a minute.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((self.host, self.port))
            # Now exclusive: with the option on, another process could take a port that is bound but does not listen.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        except OSError as error:
            sock.close()
            if error.errno == errno.EADDRINUSE:
                taken = f"the sandbox cannot use {self.host}:{self.port} for {self.what}: the port is taken"
                raise PortTaken(taken) from None
            raise
        self._reserved = sock
        self.port = sock.getsockname()[1]

    async def listen(self, handler: Handler) -> None:
        """Accept connects on the reserved port."""
        if self._server is not None:
            return
        if self._reserved is None:
            self.reserve()
        sock, self._reserved = self._reserved, None
        assert sock is not None
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # inherited by what it accepts
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: Connection(self, handler), sock=sock, backlog=BACKLOG)
        except OSError as error:
            sock.close()
            taken = f"the sandbox cannot use {self.host}:{self.port} for {self.what}: {error.strerror}"
            raise PortTaken(taken) from None

    def go_down(self) -> int:
        """Refuse connects, end every connection; returns how many requests were cut without their answer."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self.reserve()
        return self.end_connections()

    def end_connections(self) -> int:
        """Close idle connections cleanly, reset the others; returns how many requests were cut."""
        cut = 0
        for connection in list(self.connections):
            if connection.current is None:
                connection.close()
            else:
                cut += 1
                connection.reset()
        return cut

    def abort_unanswered(self) -> None:
        """Reset the connections whose request has no answer yet; idle ones stay."""
        for connection in list(self.connections):
            if connection.current is not None:
                connection.reset()

    def release(self) -> None:
        """Give the port up for good."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None
        self.end_connections()
