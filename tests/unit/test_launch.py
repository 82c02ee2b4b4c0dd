"""What `pointsman run` says while it waits."""

from __future__ import annotations

import http.server
import socket
import threading

from router.clock import ManualClock
from router.launch import _becomes_ready


class _Well(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Ready."""
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def test_a_slow_start_is_told_of_and_waited_for() -> None:
    """The addresses and the curl are what a newcomer waits for, however slow the machine is."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    clock, said, servers = ManualClock(), [], []

    def say(line: str) -> None:
        said.append((clock.monotonic(), line))
        servers.append(http.server.HTTPServer(("127.0.0.1", port), _Well))
        threading.Thread(target=servers[0].serve_forever, daemon=True).start()

    try:
        assert _becomes_ready(f"http://127.0.0.1:{port}/readyz", clock, threading.Event(), say=say)
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
    [(at, line)] = said
    assert at >= 30
    assert "its log says why" in line


def test_a_stop_ends_the_wait_without_a_word() -> None:
    """Ctrl-C in the first seconds."""
    stopping = threading.Event()
    said: list[str] = []
    stopping.set()
    assert not _becomes_ready("http://127.0.0.1:1/readyz", ManualClock(), stopping, say=said.append)
    assert said == []
