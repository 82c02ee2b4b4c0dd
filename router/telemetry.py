"""Logs and error reports: structured, and never with a card number, a key or a token in them."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, TextIO, cast

import sentry_sdk
import structlog
from pydantic import BaseModel
from sentry_sdk.scrubber import DEFAULT_DENYLIST, DEFAULT_PII_DENYLIST
from sentry_sdk.types import Event, Hint

from router.pan import contains_pan
from router.settings import Settings

if TYPE_CHECKING:  # they exist for type checkers only
    from sentry_sdk._types import DataCollectionUserOptions, KeyValueCollectionBehaviour

REMOVED = "[removed]"
# Known by their field, because no pattern finds them: Luhn alone misses nine digits in ten.
_SECRET_WORDS = ("authorization", "api_key", "apikey", "secret", "token", "password", "cookie", "dsn", "params")
# Sentry's own scrubber is off once `data_collection` is set: what it knew by name is scrubbed here.
_SECRET_NAMES = frozenset(name.lower() for name in (*DEFAULT_DENYLIST, *DEFAULT_PII_DENYLIST))

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


def scrub(value: Any, name: str = "") -> Any:
    """The same value without what must not leave the process: by the field's name, and by what it holds."""
    if name.lower() in _SECRET_NAMES or any(word in name.lower().replace("-", "_") for word in _SECRET_WORDS):
        return REMOVED
    match value:
        case None | bool() | dt.date():
            return value
        case str() | int() | float():
            return REMOVED if contains_pan(value) else value
        case Mapping():
            return {REMOVED if contains_pan(key) else key: scrub(each, str(key)) for key, each in value.items()}
        case list() | tuple() | set() | frozenset():
            return [scrub(each, name) for each in value]
        case BaseModel():
            return scrub(value.model_dump(), name)
        case bytes():
            return scrub(value.decode(errors="replace"), name)
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return scrub({each.name: getattr(value, each.name) for each in dataclasses.fields(value)}, name)
        case _:
            # A log renders whatever else it is given by its own words.
            return scrub(repr(value), name)


def _scrub_log(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    cleaned: MutableMapping[str, Any] = scrub(event)
    return cleaned


def _to_sentry(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Report what is logged as an error: structlog goes past the logging module that Sentry listens to."""
    if event.get("level") in ("error", "critical") and sentry_sdk.is_initialized():
        known = {
            name: each for name, each in event.items() if name not in ("event", "level", "exc_info", "timestamp")
        }
        with sentry_sdk.new_scope() as scope:
            scope.set_context("log", known)
            # Grouped by the event's word and its provider, not by the ids in it: two providers in trouble are two
            # issues, one of which may be closed.
            provider = event.get("provider")
            scope.fingerprint = ["{{ default }}", str(event.get("event")), *([str(provider)] if provider else [])]
            if event.get("exc_info"):
                scope.capture_exception()
            else:
                scope.capture_message(str(event.get("event")), level="error")
    return event


def _before_send(event: Event, _hint: Hint) -> Event | None:
    cleaned: Event = scrub(event)
    return cleaned


class _Unfailing:
    """A stream that loses what it cannot write: a disk that is full of logs may not cost a payment its answer."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def configure(settings: Settings, *, process: str) -> None:
    """Set this process's logs and, with a DSN, its Sentry client up. Called once, by the composition root."""
    as_json = settings.log_format == "json"
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _to_sentry,
            structlog.processors.format_exc_info,
            _scrub_log,
            structlog.processors.JSONRenderer()
            if as_json
            else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Unfailing(sys.stderr))),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s", stream=sys.stderr)
    if settings.sentry_dsn is not None:
        sentry_sdk.init(
            dsn=settings.sentry_dsn.get_secret_value(),
            before_send=_before_send,
            # Local variables and bodies are where card data and keys would be; of the rest nothing is needed either.
            data_collection=_COLLECTED,
            include_local_variables=False,
            max_request_body_size="never",
            # Each HTTP call would be one, with its address: that of an alert webhook is a secret.
            max_breadcrumbs=0,
            server_name=process,
        )
