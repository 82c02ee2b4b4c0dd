"""Traces by OpenTelemetry: one tree of spans a payment, off unless ROUTER_OTLP_ENDPOINT says where they go.

    POST /v1/payments            the request, under checkout's own span where it names one
      decision                   each candidate with its reasons
      commit: attempt started    the ledger
      send: authorize            each HTTP request to a provider, re-sends too
      commit: captured

Off, nothing here is in the way of a payment, nor is the library loaded: what is watched is wrapped when the process
is put together. On, spans are sent by a thread of their own, and lost when they cannot be sent. What the worker does
about a payment later joins the trace that the payment was made in: the ledger keeps it with the decision.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from flask import Flask, Response, g, request

from providers.contract import Provider
from router.ledger.payments import PaymentLedger
from router.planning import Plan, Planner
from router.settings import Settings
from router.telemetry.scrubbing import Scrubber, secrets_of

if TYPE_CHECKING:  # loaded only where traces are on: it takes 40 ms and 8 MB
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

EXPORT_TIMEOUT_S = 5
QUEUE = 4096
"""Spans that wait to be sent, some 700 payments; those above are lost."""
EVERY_MS = 2000
KEPT_AS = "trace"
"""The decision's field that keeps the payment's traceparent."""

_SENDS = ("authorize", "capture", "void", "refund", "look_up", "void_attempt", "complete")

_about: contextvars.ContextVar[Mapping[str, str] | None] = contextvars.ContextVar("about", default=None)
"""The trace that the payment which this thread has loaded last was made in."""


def start(settings: Settings, *, process: str, exporter: SpanExporter | None = None) -> Tracing | None:
    """This process's tracing; None where it is off. `exporter` is where spans go instead of the endpoint."""
    if settings.otlp_endpoint is None:
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    secret = settings.otlp_headers
    headers = {} if secret is None else _headers(secret.get_secret_value())
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(settings.otlp_sample)),
        resource=Resource.create({"service.name": "pointsman", "service.instance.role": process}),
        shutdown_on_exit=False,
    )
    endpoint = f"{settings.otlp_endpoint}/v1/traces"
    provider.add_span_processor(
        BatchSpanProcessor(
            exporter or OTLPSpanExporter(endpoint=endpoint, headers=headers, timeout=EXPORT_TIMEOUT_S),
            max_queue_size=QUEUE,
            schedule_delay_millis=EVERY_MS,
        )
    )
    return Tracing(provider, Scrubber(secrets_of(settings)))


def _headers(value: str) -> dict[str, str]:
    pairs = (each.partition("=") for each in value.split(",") if "=" in each)
    return {name.strip(): rest.strip() for name, _, rest in pairs}


class Tracing:
    """Makes spans of what it watches. Thread-safe. No fault of its own reaches what is watched."""

    def __init__(self, provider: TracerProvider, scrubber: Scrubber) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("pointsman")
        self._scrubber = scrubber
        self._propagator = TraceContextTextMapPropagator()

    def close(self) -> None:
        """Send what waits, within the exporter's timeout, and stop."""
        self._provider.shutdown()

    # ------------------------------------------------------------ making spans

    @contextmanager
    def span(self, name: str, **attributes: Any) -> Iterator[Span]:
        """A span around what is done meanwhile: below the one under way, or in the trace of the payment in hand."""
        from opentelemetry.trace import Status, StatusCode

        with self._tracer.start_as_current_span(
            name, context=self._above(), record_exception=False, set_status_on_exception=False
        ) as span:
            self.tell(span, **attributes)
            try:
                yield span
            except Exception as error:
                # Its name alone: a message may quote what was sent.
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                raise

    def tell(self, span: Span, **attributes: Any) -> None:
        """Put attributes on a span, scrubbed; those that say nothing are left out.

        Never raises: a trace that cannot be told must not cost a provider's answer, which is in the caller's hands.
        """
        if not span.is_recording():
            return
        for name, value in attributes.items():
            if value is not None:
                with contextlib.suppress(Exception):
                    span.set_attribute(name.replace("__", "."), self._scrubbed(name, value))

    def _scrubbed(self, name: str, value: Any) -> Any:
        cleaned = self._scrubber.value(value, name)
        return cleaned if isinstance(cleaned, bool | int | float | str | list) else str(cleaned)

    def _above(self) -> Context | None:
        """None: whatever span is under way."""
        from opentelemetry import trace

        about = _about.get()
        if about is None or trace.get_current_span().get_span_context().is_valid:
            return None
        return self._propagator.extract(about)

    def _traceparent(self) -> str | None:
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier.get("traceparent")

    # ------------------------------------------------------------ what is watched

    def install(self, app: Flask) -> None:
        """A span around each request under `/v1/`."""
        from opentelemetry import context, trace

        @app.before_request
        def begin() -> None:
            if not request.path.startswith("/v1/"):
                return
            above = self._propagator.extract({name.lower(): value for name, value in request.headers.items()})
            span = self._tracer.start_span(
                f"{request.method} {request.url_rule or '(no route)'}", context=above, kind=trace.SpanKind.SERVER
            )
            g.span, g.span_token = span, context.attach(trace.set_span_in_context(span, above))
            self.tell(span, request=g.get("request_id"), http__request__method=request.method)

        @app.after_request
        def answered(response: Response) -> Response:
            span = g.get("span")
            if span is not None:
                self.tell(span, http__response__status_code=response.status_code)
                if response.status_code >= 500:
                    span.set_status(trace.Status(trace.StatusCode.ERROR))
            return response

        @app.teardown_request
        def end(_error: BaseException | None) -> None:
            span = g.pop("span", None)
            if span is not None:
                context.detach(g.pop("span_token"))
                span.end()
                _about.set(None)

    def watch_planner(self, planner: Planner) -> None:
        """A span around each decision, with its candidates and their reasons."""
        plan = planner.plan

        @functools.wraps(plan)
        def watched(payment_id: str, merchant: str, *args: Any, **named: Any) -> Plan:
            from opentelemetry import trace

            self.tell(trace.get_current_span(), payment=payment_id, merchant=merchant)
            with self.span("decision", payment=payment_id, merchant=merchant) as span:
                planned = plan(payment_id, merchant, *args, **named)
                if span.is_recording():
                    self._tell_decision(span, planned.decision.to_json(), planned.decision.order)
                return planned

        _replace(planner, "plan", watched)

    def _tell_decision(self, span: Span, decision: Mapping[str, Any], order: Any) -> None:
        self.tell(
            span,
            strategy=decision["strategy"],
            primary=decision["primary"],
            lane=decision["lane"],
            order=list(order),
        )
        for each in decision["candidates"]:
            about = {
                f"candidate__{each['provider']}__{name}": each.get(name)
                for name in ("eligible", "value", "approval", "availability", "cost", "propensity", "reasons")
            }
            self.tell(span, **about)

    def providers(self, providers: Mapping[str, Provider]) -> Mapping[str, Provider]:
        """The same adapters, each of their calls about a payment in a span."""
        for provider in providers.values():
            for name in _SENDS:
                _replace(provider, name, self._watched_send(provider.name, name, getattr(provider, name)))
        return providers

    def _watched_send(self, provider: str, what: str, send: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(send)
        def watched(*args: Any, **named: Any) -> Any:
            key = named.get("idempotency_key")
            with self.span(f"send: {what}", provider=provider, idempotency=key) as span:
                told = send(*args, **named)
                outcome = getattr(told, "outcome", None) or told
                self.tell(
                    span,
                    outcome=told.kind.value,
                    health=getattr(told, "health", None) and told.health.value,
                    reason=told.reason,
                    provider_reference=getattr(outcome, "provider_reference", None),
                )
                return told

        return watched

    def watch_ledger(self, ledger: PaymentLedger) -> None:
        """A span around each commit of a payment; and a payment that is loaded brings its trace along."""
        create, change, load, get = ledger.create, ledger.change, ledger.load, ledger.get

        @functools.wraps(create)
        def watched_create(payment: Any, **named: Any) -> Any:
            with self.span("commit: created", payment=payment.id):
                return create(self._keeping(payment), **named)

        @functools.wraps(change)
        def watched_change(payment: Any, changes: Any, *, event: str, **named: Any) -> Any:
            with self.span(f"commit: {event}", payment=payment.id, status=changes.get("status")):
                if "decision" in changes:
                    changes = {**changes, "decision": self._kept(changes["decision"], payment)}
                return change(payment, changes, event=event, **named)

        @functools.wraps(load)
        def watched_load(payment_id: str) -> Any:
            return _taken_up(load(payment_id))

        @functools.wraps(get)
        def watched_get(payment_id: str) -> Any:
            return _taken_up(get(payment_id))

        for name, watched in (
            ("create", watched_create),
            ("change", watched_change),
            ("load", watched_load),
            ("get", watched_get),
        ):
            _replace(ledger, name, watched)

    def _keeping(self, payment: Any) -> Any:
        """The payment with its trace, as it is written: what is answered to checkout stays as it was."""
        traceparent = self._traceparent()
        if traceparent is None:
            return payment
        return dataclasses.replace(payment, decision={**payment.decision, KEPT_AS: traceparent})

    def _kept(self, decision: Mapping[str, Any], payment: Any) -> Mapping[str, Any]:
        trace = payment.decision.get(KEPT_AS)
        return decision if trace is None else {**decision, KEPT_AS: trace}


def _taken_up(found: Any) -> Any:
    """What was loaded, its trace being the one of what this thread does next."""
    trace = None if found is None else found[0].decision.get(KEPT_AS)
    _about.set({"traceparent": trace} if isinstance(trace, str) else None)
    return found


def _replace(thing: object, name: str, watched: Callable[..., Any]) -> None:
    """This one object's method by one around it: other processes' and tests' objects stay as they are."""
    setattr(cast("Any", thing), name, watched)
