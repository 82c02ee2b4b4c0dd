"""Slow clients must not hold every thread: only so many may wait for late bodies at once, and the next are refused.

Granian reads a request's head by itself, within its own time limit, and answers slow readers by itself too; but a
body is read by the thread that answers, for as long as its client likes, and a read once begun cannot be given up
(measured with granian 2.8: to answer while another thread still reads stops the whole process). So a thread in four
may be held by bodies that are late and from anybody (`/webhooks/…`, the console's forms), and a thread in two by one
merchant's: behind the gate a body is read only once its key is known, and the gate says whose it is. What comes then
is told 503 before its body is read: a provider sends its webhook again, and a checkout is held up by nobody's bodies
but its own.

A body that is there with its head, as an honest client's is, is read within microseconds. But a hundred slow ones can
come within a moment, of which none is late yet: so there is a bound for all that are read at once, too, of which an
honest load, that does more than read, stays clear. A thread in eight is left to those that read none, whoever the
others are: health checks, look-ups and refusals are answered.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from werkzeug.exceptions import ServiceUnavailable

LATE_S = 1.0
"""64 KB over 1 Mbit/s take half of it."""
RETRY_AFTER_S = 2
WHOSE = "pointsman.merchant"
"""In a request's environment, once its key is known: the merchant. Not the header, which says one key many ways."""

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class SlowBodies:
    """WSGI middleware. Thread-safe."""

    def __init__(self, app: WsgiApp, *, threads: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        """`threads`: those of the server, on which requests are answered."""
        self._app = app
        # Late ones, and all.
        self._of_anybody = (max(1, threads // 4), max(1, threads // 2))
        self._of_a_merchant = (max(1, threads // 2), max(1, threads * 3 // 4))
        self._in_all = max(1, threads - max(1, threads // 8))
        self._under_way = 0
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._reads: dict[str | None, dict[int, float]] = {}
        """By whose they are: when the reads under way began."""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request."""
        if environ.get("CONTENT_LENGTH") or "HTTP_TRANSFER_ENCODING" in environ:
            environ.pop(WHOSE, None)
            environ["wsgi.input"] = _Body(environ["wsgi.input"], self, environ)
        return self._app(environ, start_response)

    def begin(self, whose: str | None) -> int:
        """A read begins; answers its number. Raises ServiceUnavailable where too many of theirs are read, or late.

        `whose`: the merchant's; None: anybody's.
        """
        now = self._monotonic()
        late, all_ = self._of_anybody if whose is None else self._of_a_merchant
        with self._lock:
            reads = self._reads.get(whose, {})
            if self._under_way >= self._in_all or (
                len(reads) >= late
                and (len(reads) >= all_ or sum(now - began > LATE_S for began in reads.values()) >= late)
            ):
                raise ServiceUnavailable("Too many requests whose bodies are late.", retry_after=RETRY_AFTER_S)
            number = next(self._numbers)
            self._reads.setdefault(whose, reads)[number] = now
            self._under_way += 1
            return number

    def end(self, whose: str | None, number: int) -> None:
        """That read is over."""
        with self._lock:
            reads = self._reads[whose]
            del reads[number]
            self._under_way -= 1
            if not reads:
                del self._reads[whose]


class _Body:
    """A request's body."""

    def __init__(self, inner: Any, guard: SlowBodies, environ: dict[str, Any]) -> None:
        self._inner = inner
        self._guard = guard
        self._environ = environ

    def read(self, size: int = -1) -> bytes:
        return self._guarded(self._inner.read, size)

    def readline(self, size: int = -1) -> bytes:
        return self._guarded(self._inner.readline, size)

    def readlines(self, _hint: int = -1) -> list[bytes]:
        return self.read().splitlines(keepends=True)

    def __iter__(self) -> Iterable[bytes]:
        return iter(self.readline, b"")

    def _guarded(self, read: Callable[..., bytes], size: int) -> bytes:
        whose = self._environ.get(WHOSE)
        number = self._guard.begin(whose)
        try:
            return read() if size is None or size < 0 else read(size)
        finally:
            self._guard.end(whose, number)
