"""What `pointsman run` says while it waits, and when it is up."""

from __future__ import annotations

import http.server
import socket
import threading
from pathlib import Path

from pydantic import SecretStr

from router.clock import ManualClock
from router.launch import _becomes_ready, _introduce
from router.settings import Settings


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


def test_a_key_that_was_set_is_not_said_and_one_that_was_made_is(tmp_path: Path) -> None:
    """The one was given by somebody who has it, and a log keeps what is said; the other is this run's alone."""
    for given, shown in ((SecretStr("somebodys-own-key"), "$ROUTER_API_KEY"), (None, "pm_local_made")):
        said: list[str] = []
        settings = Settings(run_dir=tmp_path, api_key=given)
        key = "pm_local_made" if given is None else given.get_secret_value()
        _introduce(settings, "http://127.0.0.1:8080", key, pretend=True, say=said.append)
        text = "\n".join(said)
        assert f'-H "Authorization: Bearer {shown}"' in text
        assert "somebodys-own-key" not in text
