"""One fixed HTTP answer to whoever asks, however wrong it is."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Mapping


@contextlib.contextmanager
def answering(
    status: int, body: bytes, headers: Mapping[str, str] | None = None, *, drip_s: float | None = None
) -> Iterator[str]:
    """An address where every request gets this answer; with `drip_s` its body comes byte by byte."""
    given = {"Content-Length": str(len(body)), "Connection": "close", **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    ended = threading.Event()

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.recv(65536)
            connection.sendall(f"HTTP/1.1 {status} Any\r\n{lines}\r\n".encode())
            if drip_s is None:
                connection.sendall(body)
                return
            for byte in body:
                if ended.is_set():
                    return
                connection.sendall(bytes([byte]))
                time.sleep(drip_s)

    def accept(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, args=(server,), daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        ended.set()
        server.shutdown(socket.SHUT_RDWR)
