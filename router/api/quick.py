"""`POST /v1/decisions` in front of Flask: the usual request is answered here, every other one goes on to the views.

Flask's dispatch costs as much as a decision. So what is plain is done here with the very functions that the views
use: the key is one that is known, the body is whole and sound, the decision is made. Whatever else happens, a refusal
or a fault, nothing is answered from here: the request goes on with the bytes that were read, and is judged, refused
and worded in the one place where that is done. Deciding twice is harmless: one that ends in a refusal keeps nothing.

A hook that is put on Flask (`before_request`, `after_request`) does not see what is answered here: what every request
has to pass or to be counted in belongs into `router.api.gate` and is called from both, or wraps this as WSGI.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable
from typing import Any

from router.api import gate, request_ids, views
from router.api.answers import encoded
from router.api.key_ring import KeyRing
from router.clock import Ids
from router.decisions import DecisionOrder, Decisions
from router.ledger.keys import Caller
from router.slow_bodies import WHOSE

WsgiApp = Callable[..., Iterable[bytes]]
PATH = "/v1/decisions"
_SCOPES = gate.SCOPES_BY_PATH[PATH]


class QuickDecisions:
    """A WSGI application around the views. Thread-safe."""

    def __init__(
        self,
        views: WsgiApp,
        *,
        keys: KeyRing,
        decisions: Decisions,
        allowed: Callable[[Caller], bool] = lambda _caller: True,
        answered: Callable[[float], None] = lambda _began: None,
        ids: Ids,
    ) -> None:
        """`allowed`: whether the key's rate lets this request through, which counts against it if so. `answered` is
        told of each request that was answered here, with when it began (`time.perf_counter`).
        """
        self._views = views
        self._keys = keys
        self._decisions = decisions
        self._allowed = allowed
        self._answered = answered
        self._ids = ids

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] != PATH or environ["REQUEST_METHOD"] != "POST" or environ.get("QUERY_STRING"):
            return self._views(environ, start_response)
        length = environ.get("CONTENT_LENGTH") or ""
        if not (length.isascii() and length.isdigit()) or int(length) > gate.MAXIMUM_BODY_BYTES:
            return self._views(environ, start_response)
        began = time.perf_counter()
        # Before the body is waited for: whoever has no key holds no thread with one that is late.
        caller = self._keys.remembered(gate.key_in(environ.get("HTTP_AUTHORIZATION", "")))
        if caller is None or caller.scopes.isdisjoint(_SCOPES):
            return self._views(environ, start_response)
        environ[WHOSE] = caller.merchant
        try:
            data = environ["wsgi.input"].read(int(length))
        except Exception:  # noqa: BLE001 - too many late ones, or the client is gone: the views meet it again
            return self._views(environ, start_response)
        answer = self._answer(caller, data) if len(data) == int(length) else None
        if answer is None:
            environ["wsgi.input"] = io.BytesIO(data)
            return self._views(environ, start_response)
        request_id = request_ids.given_id(environ.get("HTTP_X_REQUEST_ID")) or self._ids.new("req")
        headers = [
            (request_ids.HEADER, request_id),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(answer))),
            ("Cache-Control", "no-store"),
        ]
        start_response("200 OK", headers)
        self._answered(began)
        return [answer]

    def _answer(self, caller: Caller, data: bytes) -> bytes | None:
        """The decision's JSON; None: it is not for here to say what is to be answered."""
        try:
            order = DecisionOrder.model_validate(gate.parse(data))
            if not self._allowed(caller):
                return None
            return encoded(views.decided_json(self._decisions.decide(order, merchant=caller.merchant))) + b"\n"
        except Exception:  # noqa: BLE001 - the views meet it again, and say and report it
            return None
