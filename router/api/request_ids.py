"""Each request's id, in every line that it logs and in its answer; and the one line that a payment leaves.

The line holds ids, what came of it and how long it took. Of the merchant's own data nothing: the reference, the
amount and the rest are in the ledger, where the payment's id leads.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import structlog
from flask import Flask, Response, g, request

from router.clock import Ids
from router.pan_written import holds_pan
from router.payments import Answer

log = structlog.get_logger("router.payments")

HEADER = "X-Request-Id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,63}", re.ASCII)
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?", re.ASCII)
"""W3C Trace Context, https://www.w3.org/TR/trace-context/#traceparent-header: the version, the trace, the span."""
_A_SECRET = re.compile(r"(?i)(?:sk|rk|pm|tok|whsec)_|^(?:sdk|api|mob)-|^AQE|^eyJ")
"""Beginnings of keys and tokens: somebody has mixed his headers up."""


def install(app: Flask, ids: Ids, monotonic: Callable[[], float]) -> None:
    """Give every request an id: the caller's own where it can be one, else a new one. Before any other hook."""

    @app.before_request
    def begin() -> None:
        g.monotonic, g.begun = monotonic, monotonic()
        g.request_id = given_id(request.headers.get(HEADER)) or ids.new("req")
        know(g.request_id, request.headers.get("traceparent"))

    @app.after_request
    def say(response: Response) -> Response:
        response.headers[HEADER] = g.request_id
        return response

    @app.teardown_request
    def end(_error: BaseException | None) -> None:
        structlog.contextvars.clear_contextvars()


def know(request_id: str, traceparent: str | None) -> None:
    """Have every line of this request's thread say so, until structlog's context variables are cleared."""
    trace = trace_of(traceparent)
    structlog.contextvars.bind_contextvars(**{"request": request_id} | ({} if trace is None else {"trace": trace}))


def given_id(header: str | None) -> str | None:
    """The caller's own id of the request; None where it is none, or what no log may hold."""
    if header is None or not _REQUEST_ID.fullmatch(header) or _A_SECRET.search(header) or holds_pan(header):
        return None
    return header


def trace_of(traceparent: str | None) -> str | None:
    """The trace that the caller names, 32 hex digits; None where it names none."""
    match = None if traceparent is None else _TRACEPARENT.fullmatch(traceparent)
    return None if match is None or traceparent is None or traceparent.startswith("ff") else match[1]


def log_payment(answer: Answer, took_s: float) -> None:
    """The line of the payment that this request made, in so many seconds."""
    payment = answer.payment
    decline = answer.attempts[-1].decline if answer.attempts else None
    log.info(
        "payment",
        payment=payment.id,
        merchant=payment.merchant,
        status=payment.status,
        currency=payment.currency,
        provider=payment.provider,
        attempts=len(answer.attempts),
        decline=None if decline is None else decline.get("code"),
        replayed=answer.replayed,
        latency_ms=round(took_s * 1000, 1),
    )
