"""Reports to Sentry: faults of ours and incidents. Never a decline nor a refusal that is to be expected.

What is logged as an error is a report, so that there is one place that says what is one. The same fault a thousand
times a second is one report a minute that tells how many it stands for.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sentry_sdk
from sentry_sdk.integrations.excepthook import ExcepthookIntegration
from sentry_sdk.integrations.flask import FlaskIntegration
from sentry_sdk.integrations.logging import LoggingIntegration
from sentry_sdk.integrations.threading import ThreadingIntegration
from sentry_sdk.types import Event, Hint

from router.telemetry.scrubbing import Scrubber

if TYPE_CHECKING:  # they exist for type checkers only
    from sentry_sdk._types import DataCollectionUserOptions, KeyValueCollectionBehaviour

ONE_EVERY_S = 60.0
"""One fault is reported so often, at most: who is to be woken is woken by the first."""
MOST_A_MINUTE = 60
"""Reports of all faults together: a database that dies breaks everything at once, and Sentry's quota is shared."""
MOST_KINDS = 1000
"""Faults that are told apart: what is suppressed of one not seen for long is forgotten."""

_NONE: KeyValueCollectionBehaviour = {"mode": "off"}
_COLLECTED: DataCollectionUserOptions = {
    "user_info": False,
    "cookies": _NONE,
    "http_headers": {"request": _NONE},
    "http_bodies": [],
    "url_query_params": _NONE,
    "graphql": {"document": False, "variables": False},
    "gen_ai": {"inputs": False, "outputs": False},
    "database_query_data": False,
    "queues": False,
    "stack_frame_variables": False,
}
"""What Sentry's integrations may add by themselves: nothing, each kind by name, because what is not named is."""
_OWN = frozenset({"event", "level", "exc_info", "timestamp"})


@dataclass(slots=True)
class _Kind:
    reported_at: float
    suppressed: int = 0


class Flood:
    """Lets the first report of each kind through, then one in ONE_EVERY_S; counts the others. Thread-safe."""

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        one_every_s: float = ONE_EVERY_S,
        most_a_minute: int = MOST_A_MINUTE,
        most_kinds: int = MOST_KINDS,
    ) -> None:
        self._monotonic = monotonic
        self._one_every_s = one_every_s
        self._most_a_minute = most_a_minute
        self._most_kinds = most_kinds
        self._kinds: OrderedDict[Hashable, _Kind] = OrderedDict()
        self._minute, self._in_minute = float("-inf"), 0
        self._lock = threading.Lock()

    def admit(self, kind: Hashable) -> int | None:
        """None: not now. Else how many of this kind were not reported since the one before."""
        now = self._monotonic()
        with self._lock:
            known = self._kinds.get(kind)
            if known is None:
                known = self._kinds[kind] = _Kind(float("-inf"))
                if len(self._kinds) > self._most_kinds:
                    self._kinds.popitem(last=False)
            self._kinds.move_to_end(kind)
            if now - self._minute >= 60:
                self._minute, self._in_minute = now, 0
            if now - known.reported_at < self._one_every_s or self._in_minute >= self._most_a_minute:
                known.suppressed += 1
                return None
            self._in_minute += 1
            suppressed, known.suppressed, known.reported_at = known.suppressed, 0, now
            return suppressed


class Reporter:
    """A processor of the log: what is logged as an error is reported, with what was logged beside it."""

    def __init__(self, scrubber: Scrubber, flood: Flood | None = None) -> None:
        self._scrubber = scrubber
        self._flood = flood or Flood()

    def __call__(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if event.get("level") in ("error", "critical") and sentry_sdk.is_initialized():
            self._report(event)
        return event

    def _report(self, event: MutableMapping[str, Any]) -> None:
        # By the event's word and its provider, not by the ids in it: two providers in trouble are two issues, one of
        # which may be closed. Two incidents of one provider are one issue with two events.
        word, provider = str(event.get("event")), event.get("provider")
        error = _error_of(event.get("exc_info"))
        suppressed = self._flood.admit((word, provider, event.get("incident"), type(error)))
        if suppressed is None:
            return
        with sentry_sdk.new_scope() as scope:
            known = {name: each for name, each in event.items() if name not in _OWN}
            scope.set_context("log", known | {"suppressed": suppressed})
            scope.fingerprint = ["{{ default }}", word, *([str(provider)] if provider else [])]
            if error is not None:
                scope.capture_exception(error)
            else:
                scope.capture_message(word, level="error")

    def before_send(self, event: Event, _hint: Hint) -> Event | None:
        """The last look at whatever is about to leave. What the SDK caught by itself is kept from flooding here."""
        if "suppressed" not in event.get("contexts", {}).get("log", {}):
            suppressed = self._flood.admit(_kind_of(event))
            if suppressed is None:
                return None
            event.setdefault("extra", {})["suppressed"] = suppressed
        cleaned: Event = self._scrubber.value(event)
        return cleaned


def _error_of(exc_info: Any) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        return exc_info[1] if len(exc_info) > 1 and isinstance(exc_info[1], BaseException) else None
    if exc_info:
        import sys

        return sys.exc_info()[1]
    return None


def _kind_of(event: Event) -> Hashable:
    """An event's exception and where it was raised, or its words."""
    values = (event.get("exception") or {}).get("values") or []
    if not values:
        return event.get("logger"), str(event.get("message") or event.get("logentry"))
    frames = (values[-1].get("stacktrace") or {}).get("frames") or [{}]
    return values[-1].get("type"), frames[-1].get("module"), frames[-1].get("lineno")


def start(dsn: str, reporter: Reporter, *, process: str) -> None:
    """Set this process's Sentry client up."""
    sentry_sdk.init(
        dsn=dsn,
        before_send=reporter.before_send,
        # Local variables and bodies are where card data and keys would be; of the rest nothing is needed either.
        data_collection=_COLLECTED,
        include_local_variables=False,
        max_request_body_size="never",
        # Each HTTP call would be one, with its address: that of an alert webhook is a secret.
        max_breadcrumbs=0,
        # Providers are told nothing of our reports, and queries are not worth watching a second time.
        trace_propagation_targets=[],
        auto_enabling_integrations=False,
        integrations=[FlaskIntegration()],
        # The log reports them, once.
        disabled_integrations=[LoggingIntegration(), ExcepthookIntegration(), ThreadingIntegration()],
        server_name=process,
    )
