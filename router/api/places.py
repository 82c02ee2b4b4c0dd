"""So many payments at once in one web process, and the next is told so at once instead of after a queue.

In front of everything: a request that is turned away must cost next to nothing, or turning away is what a flood is
about. The server has a few threads more than there are places, so that refusals, look-ups and health checks find one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from router.api.problems import ProblemError, response

SPARE_THREADS = 16
"""Of the server's, beyond its places: a refusal takes one for a fraction of a millisecond."""
RETRY_AFTER_S = 1
"""What waits is gone within a second where providers answer in a few hundred milliseconds."""

WsgiApp = Callable[..., Iterable[bytes]]

_OVERLOADED = response(
    ProblemError(
        503,
        "overloaded",
        "This process works on as many payments as it can. This request charged nothing; send it again with the "
        "same Idempotency-Key.",
        headers={"Retry-After": str(RETRY_AFTER_S)},
    )
)
_BODY = _OVERLOADED.get_data()
_STATUS, _HEADERS = _OVERLOADED.status, list(_OVERLOADED.headers)


class Places:
    """A WSGI application in front of another. Thread-safe; nobody waits."""

    def __init__(self, application: WsgiApp, places: int, refused: Callable[[], None]) -> None:
        """`refused` is told of each request turned away."""
        self._application = application
        self._places = threading.Semaphore(places)
        self._refused = refused

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        # `//v1/payments` is the same view's.
        if environ["REQUEST_METHOD"] != "POST" or not environ["PATH_INFO"].lstrip("/").startswith("v1/payments"):
            return self._application(environ, start_response)  # asks no provider, or costs little
        if not self._places.acquire(blocking=False):
            self._refused()
            start_response(_STATUS, list(_HEADERS))
            return [_BODY]
        try:
            # The answers of these views are whole when they are returned: no place is needed to send them.
            return self._application(environ, start_response)
        finally:
            self._places.release()
