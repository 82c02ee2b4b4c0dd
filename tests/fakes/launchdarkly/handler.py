"""HTTP of the stand-in: routes, the chunked stream, and faults on demand."""

from __future__ import annotations

import contextlib
import http.server
import json
import queue
import re
import socket
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from tests.fakes.launchdarkly.project import RefusedError, invalid

if TYPE_CHECKING:
    from tests.fakes.launchdarkly.server import FakeLaunchDarkly, Fault, Patch

HEARTBEAT_S = 0.05
"""How often an idle stream is written to; also how soon a handler notices that it should end."""

FLAG = re.compile(r"/api/v2/flags/([^/]+)/([^/]+)")
FLAGS = re.compile(r"/api/v2/flags/([^/]+)")
APPROVALS = re.compile(r"/api/v2/projects/([^/]+)/flags/([^/]+)/environments/([^/]+)/approval-requests(?:/([^/]+))?")
ENVIRONMENT = re.compile(r"/api/v2/projects/([^/]+)/environments/([^/]+)")
SEMANTIC = "domain-model=launchdarkly.semanticpatch"
CODES = {
    400: ("invalid_request", "Invalid request body"),
    401: ("unauthorized", "Invalid access token"),
    403: ("forbidden", "Forbidden. Access to the requested resource was denied."),
    404: ("not_found", "Invalid resource identifier"),
    405: ("method_not_allowed", "Method not allowed"),
    409: ("optimistic_locking_error", "Conflict. Optimistic lock error. Try again later."),
    429: ("rate_limited", "You've exceeded the API rate limit. Try again later."),
}


class Connections:
    """Every open connection, so that an outage can cut them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()

    def add(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.add(connection)

    def remove(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)

    def cut(self) -> None:
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


def handler_of(fake: FakeLaunchDarkly) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            fake.connections.add(self.connection)

        def finish(self) -> None:
            fake.connections.remove(self.connection)
            with contextlib.suppress(OSError):
                super().finish()

        def do_GET(self) -> None:
            if self.path != "/all":
                self._rest("GET")
                return
            fake.authorization = self.headers.get("Authorization")
            if fake.refuse_with is not None:
                self._answer(fake.refuse_with, None)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")  # without it the SDK sees nothing
            self.end_headers()
            self.close_connection = True
            stream = fake.open_stream()
            try:
                self._stream(stream)
            except OSError:
                return
            finally:
                fake.left(stream)

        def _stream(self, stream: queue.Queue[bytes | None]) -> None:
            held: list[bytes] = []
            while True:
                try:
                    event = stream.get(timeout=HEARTBEAT_S)
                except queue.Empty:
                    event = b"" if fake.stalled else b":\n\n"
                if event is None:
                    self.wfile.write(b"0\r\n\r\n")
                    return
                if event:
                    held.append(event)
                if held and not fake.stalled:
                    text = b"".join(held)
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
                    held.clear()

        def do_POST(self) -> None:
            if self.path.startswith("/api/"):
                self._rest("POST")
                return
            self._body()
            fake.posts.append(self.path)
            self._answer(202, None)

        def do_PATCH(self) -> None:
            self._rest("PATCH")

        def do_DELETE(self) -> None:
            self._rest("DELETE")

        def _rest(self, method: str) -> None:
            url = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(url.query).items()}
            body = self._body()
            call, names = _route(method, url.path)
            fake.calls.append(call)
            patch = _noted(fake, names, body) if call == "patch" else None
            fake.run_hooks(call)
            fault = fake.next_fault(call)
            if fault is not None and not fault.acts:
                self._fail(fault, patch)
                return
            try:
                status, answer = self._done(call, names, query, body)
            except RefusedError as refused:
                status, answer = refused.status, refused.body
            if fault is not None:
                self._fail(fault, patch)
                return
            if patch is not None:
                patch.status = status
            self._answer(status, answer)

        def _done(self, call: str, names: tuple[str, ...], query: dict[str, str], body: Any) -> tuple[int, Any]:
            if self.headers.get("Authorization") != fake.token:
                raise RefusedError(401, *CODES[401])
            if not names or names[0] != fake.project:
                raise RefusedError(404, *CODES[404])
            if call in ("requests", "ask", "withdraw") and names[2] != fake.environment:
                raise RefusedError(404, *CODES[404])
            if call == "environment":
                return fake.rest_environment(names[1])
            if call == "get":
                return fake.rest_get(names[1], query.get("env"))
            if call == "patch":
                if SEMANTIC not in self.headers.get("Content-Type", "") or not isinstance(body, dict):
                    raise invalid("invalid JSON patch")
                dry_run, ignoring = query.get("dryRun") == "true", query.get("ignoreConflicts") == "true"
                return fake.rest_patch(names[1], body, dry_run=dry_run, ignore_conflicts=ignoring)
            if call == "create":
                return fake.rest_create(body)
            if call == "requests":
                return fake.rest_requests(names[1])
            if call == "ask":
                return fake.rest_ask(names[1], body)
            if call == "withdraw":
                return fake.rest_withdraw(names[1], names[3])
            raise RefusedError(404, *CODES[404])

        def _fail(self, fault: Fault, patch: Patch | None) -> None:
            if fault.how == "hang":
                give_up_at = time.monotonic() + 30
                while not fake.closing.wait(0.02) and time.monotonic() < give_up_at and not self._client_left():
                    pass
            if fault.how in ("hang", "cut"):
                self.close_connection = True
                with contextlib.suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)
                return
            if fault.how == "garbage":
                self._answer(200, b"<html>a proxy's page</html>")
                return
            assert fault.status is not None
            headers = {}
            if fault.reset_in_s is not None:
                headers["X-Ratelimit-Reset"] = str(int((time.time() + fault.reset_in_s) * 1000))
            if fault.retry_after_s is not None:
                headers["Retry-After"] = f"{fault.retry_after_s:g}"
            if patch is not None:
                patch.status = fault.status
            code, message = CODES.get(fault.status, ("internal_service_error", "Internal server error"))
            self._answer(fault.status, {"code": code, "message": message, "id": "f-1"}, headers)

        def _client_left(self) -> bool:
            try:
                return not self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            except OSError:
                return True

        def _body(self) -> Any:
            content = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            try:
                return json.loads(content)
            except ValueError:
                return None

        def _answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
            content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", str(len(content)))
            with contextlib.suppress(OSError):
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: pytest's output is for the tests."""

    return Handler


def _route(method: str, path: str) -> tuple[str, tuple[str, ...]]:
    for pattern, calls in (
        (FLAG, {"GET": "get", "PATCH": "patch"}),
        (FLAGS, {"POST": "create"}),
        (APPROVALS, {"GET": "requests", "POST": "ask", "DELETE": "withdraw"}),
        (ENVIRONMENT, {"GET": "environment"}),
    ):
        found = pattern.fullmatch(path)
        if found and method in calls:
            return calls[method], tuple(found.groups(default=""))
    return "unknown", ()


def _noted(fake: FakeLaunchDarkly, names: tuple[str, ...], body: Any) -> Patch:
    from tests.fakes.launchdarkly.server import Patch

    body = body if isinstance(body, dict) else {}
    patch = Patch(names[1], body.get("comment"), body.get("instructions", []), time.monotonic())
    fake.patches.append(patch)
    return patch
