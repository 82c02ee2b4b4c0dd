"""Serves the web application: granian's workers, each a process of its own with its own pools and flag stream."""

from __future__ import annotations

import ctypes
import math
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from granian import Granian
from granian.constants import Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels

from router import heap
from router.api.places import SPARE_THREADS
from router.settings import Settings

PR_SET_PDEATHSIG = 1
HEAD_WITHIN_S = 10
"""A request's head, once its first byte came; granian closes the connection then. Its own default is 30."""
CONNECTIONS_PER_PROCESS = 8192
"""Granian takes no further connection of a process beyond its part of the backlog: 1,024 idle ones were enough to
have no request answered any more. Bounded by what the system lets a process open, too (`ulimit -n`)."""


class PortTakenError(Exception):
    """Another process listens there; the message is the one line to show."""


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises PortTakenError."""
    host, _, port = settings.bind.rpartition(":")
    host = host.strip("[]")
    # Granian's workers share the port between them, so a second service would start silently beside the first.
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            raise PortTakenError(f"cannot listen on {settings.bind}: {error.strerror}") from None
    Granian(
        "wsgi:app",
        address=host,
        port=int(port),
        interface=Interfaces.WSGI,
        workers=settings.web_processes,
        blocking_threads=settings.web_threads + SPARE_THREADS,
        respawn_failed_workers=True,
        # Whole seconds: granian takes no others.
        workers_kill_timeout=math.ceil(settings.drain_seconds),
        websockets=False,
        # A head must come within this; connections that say nothing cost a place each, of which there are enough.
        http1_settings=HTTP1Settings(header_read_timeout=HEAD_WITHIN_S * 1000),
        backlog=CONNECTIONS_PER_PROCESS * settings.web_processes,
        log_level=LogLevels.error,
    ).serve(target_loader=_Loader(os.getpid()), wrap_loader=False)


class _Loader:
    """Loads the application in a worker; picklable, for platforms that spawn instead of forking."""

    def __init__(self, main: int) -> None:
        self._main = main

    def __call__(self) -> Callable[..., Any]:
        # A forked worker inherits the main's handler, which would swallow a SIGTERM during the import below.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if sys.platform == "linux":
            # A worker whose main was killed must not go on listening beside the main that replaces it.
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != self._main:
                sys.exit(0)
        with heap.building():
            from wsgi import app

        return app
