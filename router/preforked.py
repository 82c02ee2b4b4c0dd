"""One application for each process, however the server makes its processes.

An application holds threads, a flag stream and pooled connections, and none of them survives a fork: two processes
on one PostgreSQL socket would read each other's answers.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

import structlog

from router import heap
from router.ledger.unavailable import LedgerUnavailableError

log = structlog.get_logger("router.preforked")

RETRY_AFTER = ("Retry-After", "5")
UNAVAILABLE = {
    "type": "urn:pointsman:problem:ledger-unavailable",
    "title": "Ledger unavailable",
    "status": 503,
    "detail": "The ledger is away. This request charged nothing; send it again with the same Idempotency-Key.",
}
"""The application would answer the same; where there is none yet, there is nothing to render it."""

WsgiApp = Callable[..., Iterable[bytes]]


class PerProcess:
    """A WSGI application that is built by the process that serves with it: now, or with its first request.

    What was built before a fork is kept untouched: to close its connections here would end those of the parent.
    """

    def __init__(self, build: Callable[[], WsgiApp], *, now: bool) -> None:
        self._build = build
        self._lock = threading.Lock()
        self._built: tuple[int, WsgiApp] | None = None
        self._inherited: list[object] = []
        if now:
            self.application()

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        try:
            application = self.application()
        except LedgerUnavailableError as error:
            # As any payment is told while the ledger is away; the next request tries to build again.
            log.error("ledger_unavailable", cause=str(error))
            start_response("503 Service Unavailable", [("Content-Type", "application/problem+json"), RETRY_AFTER])
            return [json.dumps(UNAVAILABLE).encode()]
        return application(environ, start_response)

    def application(self) -> WsgiApp:
        """This process's own."""
        built = self._built
        if built is not None and built[0] == os.getpid():
            return built[1]
        with self._lock:
            built = self._built
            if built is None or built[0] != os.getpid():
                self._inherited.append(built)
                heap.begin()
                built = self._built = os.getpid(), self._build()
                heap.settle()
            return built[1]


def is_gunicorn_master() -> bool:
    """Whether gunicorn's main process is importing this, to fork its workers afterwards (`--preload`).

    It says so nowhere. The main imports under its arbiter; a worker does so under its own class too.
    """
    frame: FrameType | None = sys._getframe()
    modules = set()
    while frame is not None:
        modules.add(frame.f_globals.get("__name__"))
        frame = frame.f_back
    return "gunicorn.arbiter" in modules and "gunicorn.workers.base" not in modules
