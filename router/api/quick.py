"""The two busiest requests in front of Flask: the usual one is answered here, every other one goes on to the views.

Flask's dispatch costs as much as a decision, and a tenth of a payment. So what is plain is done here with the very
functions that the views use: the key is one that is known, the body is whole and sound, it is decided or paid. What
is to be refused is not answered from here: the request goes on with the bytes that were read, and is judged, refused
and worded in the one place where that is done. Deciding twice is harmless: one that ends in a refusal keeps nothing.
A payment is not made twice: what making it raised goes along, and its view raises it (`Tried`).

A hook that is put on Flask (`before_request`, `after_request`) does not see what is answered here: what every request
has to pass or to be counted in belongs into `router.api.gate` and is called from both, or wraps this as WSGI.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from router.api import gate, request_ids, views
from router.api.answers import encoded
from router.api.gate import TRIED, Tried
from router.api.key_ring import KeyRing
from router.api.payments import created, headers_of, status_of
from router.clock import Ids
from router.decisions import DecisionOrder, Decisions
from router.ledger.keys import Caller
from router.limits.guard import Guard
from router.order import Order
from router.payments import Payments
from router.slow_bodies import WHOSE

WsgiApp = Callable[..., Iterable[bytes]]
_STATUS = {201: "201 CREATED", 202: "202 ACCEPTED"}
_DIGITS = len(str(gate.MAXIMUM_BODY_BYTES))


@dataclass(frozen=True, slots=True)
class Asked:
    """A request whose key is known and may do this, and whose body is here."""

    caller: Caller
    data: bytes
    environ: dict[str, Any]
    request_id: str
    began: float
    """By `time.perf_counter`."""


@dataclass(frozen=True, slots=True)
class Said:
    """What it is answered with, beside the headers of every answer."""

    status: str
    body: bytes
    headers: list[tuple[str, str]]


class Door(Protocol):
    """One path's usual request."""

    view: str
    """The name of the view that answers the others."""

    def __call__(self, asked: Asked, /) -> Said | None:
        """The answer; None: it is not for here to say what is to be answered."""


class DecisionDoor:
    """`POST /v1/decisions`."""

    view = "decisions.decide"

    def __init__(self, decisions: Decisions, allowed: Callable[[Caller], bool]) -> None:
        """`allowed`: whether the key's rate lets this request through, which counts against it if so."""
        self._decisions = decisions
        self._allowed = allowed

    def __call__(self, asked: Asked) -> Said | None:
        """As `Door`."""
        if not self._allowed(asked.caller):
            return None
        asked.environ[TRIED] = Tried(asked.caller)
        try:
            order = DecisionOrder.model_validate(gate.parse(asked.data))
            decided = self._decisions.decide(order, merchant=asked.caller.merchant)
            return Said("200 OK", views.decided_body(decided), [])
        except Exception:  # noqa: BLE001 - the views meet it again, and say and report it
            return None


class PaymentDoor:
    """`POST /v1/payments`. What is reported from within it has no view's name."""

    view = "payments.create_payment"

    def __init__(self, payments: Payments, guard: Guard, allowed: Callable[[Caller], bool]) -> None:
        """`guard` knows the merchants' quotas; `allowed` as a decision's."""
        self._payments = payments
        self._guard = guard
        self._allowed = allowed

    def __call__(self, asked: Asked) -> Said | None:
        """As `Door`."""
        if not self._allowed(asked.caller):
            return None
        environ = asked.environ
        environ[TRIED] = tried = Tried(asked.caller)
        try:
            key = gate.sound_key(environ.get("HTTP_IDEMPOTENCY_KEY"))
            order = Order.model_validate(gate.parse(asked.data))
        except Exception:  # noqa: BLE001 - nothing is done yet: the views meet it again, and say and report it
            return None
        request_ids.know(asked.request_id, environ.get("HTTP_TRACEPARENT"))
        try:
            tried.refusal = self._guard.payment(asked.caller.merchant)
            if tried.refusal is not None:
                return None
            answer = created(self._payments, self._guard, asked.caller, order, key)
            request_ids.log_payment(answer, time.perf_counter() - asked.began)
            body = encoded(views.payment_json(answer)) + b"\n"
            return Said(_STATUS[status_of(answer)], body, headers_of(answer))
        except Exception as error:  # noqa: BLE001 - its view raises it, and its handlers say and report it
            tried.error = error
            return None
        finally:
            structlog.contextvars.clear_contextvars()


class QuickDoors:
    """A WSGI application around the views. Thread-safe."""

    def __init__(
        self,
        views: WsgiApp,
        doors: Mapping[str, Door],
        *,
        keys: KeyRing,
        answered: Callable[[str], Callable[[float], None]],
        ids: Ids,
    ) -> None:
        """`doors` by path. `answered`: for a view's name, what is told of each request that was answered here as by
        it (with 2xx, all of them), when it began (`time.perf_counter`).
        """
        self._views = views
        self._doors = doors
        self._scopes = {path: gate.SCOPES_BY_PATH[path] for path in doors}
        self._keys = keys
        self._answered = {path: answered(door.view) for path, door in doors.items()}
        self._ids = ids

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        door = self._doors.get(path)
        if door is None or environ["REQUEST_METHOD"] != "POST" or environ.get("QUERY_STRING"):
            return self._views(environ, start_response)
        length = environ.get("CONTENT_LENGTH") or ""
        sound = length.isascii() and length.isdigit() and len(length) <= _DIGITS
        if not sound or int(length) > gate.MAXIMUM_BODY_BYTES:
            return self._views(environ, start_response)
        began = time.perf_counter()
        # Before the body is waited for: whoever has no key holds no thread with one that is late.
        caller = self._keys.remembered(gate.key_in(environ.get("HTTP_AUTHORIZATION", "")))
        if caller is None or caller.scopes.isdisjoint(self._scopes[path]):
            return self._views(environ, start_response)
        environ[WHOSE] = caller.merchant
        try:
            data = environ["wsgi.input"].read(int(length))
        except Exception:  # noqa: BLE001 - too many late ones, or the client is gone: the views meet it again
            return self._views(environ, start_response)
        request_id = request_ids.given_id(environ.get("HTTP_X_REQUEST_ID")) or self._ids.new("req")
        said = door(Asked(caller, data, environ, request_id, began)) if len(data) == int(length) else None
        if said is None:
            environ["wsgi.input"] = io.BytesIO(data)
            environ["HTTP_X_REQUEST_ID"] = request_id  # what is logged so far has it
            return self._views(environ, start_response)
        headers = [
            (request_ids.HEADER, request_id),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(said.body))),
            ("Cache-Control", "no-store"),
            *said.headers,
        ]
        start_response(said.status, headers)
        self._answered[path](began)
        return [said.body]
