"""A stand-in LaunchDarkly that the real SDK talks to: the flag stream over HTTP, and sinks for its events."""

from __future__ import annotations

import copy
import http.server
import json
import queue
import threading
from typing import Any

HEARTBEAT_S = 0.05
"""How often an idle stream is written to; also how soon a handler notices that it should end."""


class FakeLaunchDarkly:
    """Serves `flags` on 127.0.0.1, on a free port unless told which, and pushes every `update` to its streams."""

    def __init__(
        self, flags: dict[str, dict[str, Any]], segments: dict[str, dict[str, Any]] | None = None, port: int = 0
    ) -> None:
        self._flags = copy.deepcopy(flags)
        self._segments = segments or {}
        self._lock = threading.Lock()
        self._streams: list[queue.Queue[bytes | None]] = []
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), _handler_of(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self.posts: list[str] = []
        """The paths that were posted to: `/bulk` and `/diagnostic`."""
        self.authorization: str | None = None
        """The key of the last stream request."""
        self.refuse_with: int | None = None
        """When set, the stream is refused with this HTTP status."""

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FakeLaunchDarkly:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.drop_streams()
        self._server.shutdown()
        self._server.server_close()

    def update(self, key: str, **changes: Any) -> None:
        """Change fields of a flag, raise its version and send the patch."""
        with self._lock:
            flag = self._flags[key]
            flag.update(changes, version=flag["version"] + 1)
            event = _event("patch", {"path": f"/flags/{key}", "data": flag})
            for stream in self._streams:
                stream.put(event)

    def drop_streams(self) -> None:
        """End every open stream, as a restart of LaunchDarkly's edge does."""
        with self._lock:
            for stream in self._streams:
                stream.put(None)
            self._streams.clear()

    def open_stream(self) -> queue.Queue[bytes | None]:
        stream: queue.Queue[bytes | None] = queue.Queue()
        with self._lock:
            stream.put(_event("put", {"path": "/", "data": {"flags": self._flags, "segments": self._segments}}))
            self._streams.append(stream)
        return stream


def _event(name: str, data: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def _handler_of(fake: FakeLaunchDarkly) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            fake.authorization = self.headers.get("Authorization")
            if self.path != "/all" or fake.refuse_with is not None:
                self.send_response(fake.refuse_with or 404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")  # without it the SDK sees nothing
            self.end_headers()
            stream = fake.open_stream()
            self.close_connection = True
            while True:
                try:
                    event = stream.get(timeout=HEARTBEAT_S)
                except queue.Empty:
                    event = b":\n\n"
                try:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event) if event is not None else b"0\r\n\r\n")
                    self.wfile.flush()
                except OSError:
                    return
                if event is None:
                    return

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            fake.posts.append(self.path)
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: pytest's output is for the tests."""

    return Handler
