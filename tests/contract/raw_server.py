"""A socket server that answers, or fails to, exactly as a test says: for what no sandbox can be asked to do."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from types import TracebackType

Talk = Callable[[socket.socket, int], None]
"""What to do with one connection; it is told how many came before. Returning closes the connection."""


class RawServer:
    """Accepts on a free port of 127.0.0.1, one thread per connection, until the `with` block ends."""

    def __init__(self, talk: Talk, tls: ssl.SSLContext | None = None) -> None:
        self._talk = talk
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.accepted = 0
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> RawServer:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        for conn in self._open:
            conn.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                conn, _ = self._listener.accept()
                conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                conn.settimeout(5)
                self._open.append(conn)
                number, self.accepted = self.accepted, self.accepted + 1
                threading.Thread(target=self._serve, args=(conn, number), daemon=True).start()

    def _serve(self, conn: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError):
            if self._tls is not None:
                conn = self._tls.wrap_socket(conn, server_side=True)
            with conn:
                self._talk(conn, number)


def refused_url() -> str:
    """A URL on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"http://127.0.0.1:{port}"


def read_request(conn: socket.socket) -> bytes:
    """One request, head and body; empty where the client hung up."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = conn.recv(65536)
        if not more:
            return b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
    )
    while len(body) < length:
        body += conn.recv(65536)
    return head + b"\r\n\r\n" + body


def answer(status: int, body: bytes, *headers: str, content_type: str = "application/json") -> bytes:
    """A complete HTTP answer."""
    head = [f"HTTP/1.1 {status} Word", f"Content-Type: {content_type}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def reset(conn: socket.socket) -> None:
    """End the connection with a RST instead of a FIN."""
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    conn.close()


def reset_unread(conn: socket.socket, number: int) -> None:
    """Resets once a request has come, without reading it: any sooner, and connecting itself might fail."""
    conn.recv(1, socket.MSG_PEEK)
    reset(conn)


def always(reply: bytes, seen: list[bytes] | None = None) -> Talk:
    """Answers every request on every connection the same; `seen` collects the requests."""

    def talk(conn: socket.socket, number: int) -> None:
        while request := read_request(conn):
            if seen is not None:
                seen.append(request)
            conn.sendall(reply)

    return talk
