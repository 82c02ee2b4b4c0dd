"""Logs: one JSON object a line, our own and every library's, and never with a card number, a key or a token in it."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import MutableMapping
from typing import Any, TextIO, cast

import structlog

from router.settings import Settings
from router.telemetry import faults
from router.telemetry.scrubbing import Scrubber, secrets_of

log = structlog.get_logger("router.telemetry")

NOT_OURS = ("opentelemetry", "sentry_sdk")
"""Loggers whose errors are no reason to wake anybody: that reports or traces cannot be sent costs no payment."""


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


class _Libraries(logging.Handler):
    """What libraries log goes the way of our own lines: scrubbed, as JSON, errors reported."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - a stranger's arguments may raise anything when they are shown
            message = str(record.msg)
        level = record.levelno
        if level > logging.WARNING and record.name.startswith(NOT_OURS):
            level = logging.WARNING
        with contextlib.suppress(Exception):  # what cannot be logged must not stop what was logged about
            log.log(level, message, logger=record.name, exc_info=record.exc_info or None)


def configure(settings: Settings, *, process: str) -> None:
    """Set this process's logs and, with a DSN, its Sentry client up. Called once, by the composition root."""
    scrubber = Scrubber(secrets_of(settings))
    reporter = faults.Reporter(scrubber)

    def scrub(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        cleaned: MutableMapping[str, Any] = scrubber.value(event)
        return cleaned

    as_json = settings.log_format == "json"
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            reporter,
            structlog.processors.format_exc_info,
            scrub,
            # After the scrubbing, which would look at its twenty digits each time.
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer()
            if as_json
            else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _Unfailing(sys.stderr))),
        cache_logger_on_first_use=False,
    )
    _take_over_the_libraries()
    if settings.sentry_dsn is not None:
        faults.start(settings.sentry_dsn.get_secret_value(), reporter, process=process)
    # After Sentry's, which would print what they are given as it is.
    _take_over_what_nobody_caught()


def _take_over_the_libraries() -> None:
    """One handler for all; those that libraries bring along print what they like, where they like."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        # A test's own listener stays.
        if type(handler) in (logging.StreamHandler, _Libraries):
            root.removeHandler(handler)
    root.addHandler(_Libraries())
    root.setLevel(logging.WARNING)
    for name in list(logging.root.manager.loggerDict):
        logger = logging.getLogger(name)
        if logger.handlers:
            logger.handlers.clear()
            logger.propagate = True
    logging.captureWarnings(True)
    # Else a handler that fails prints the record, unscrubbed.
    logging.raiseExceptions = False


def _take_over_what_nobody_caught() -> None:
    """Python prints such exceptions with their messages."""

    def uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            log.critical("uncaught", exc_info=(kind, error, trace))

    def thread_ended(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
            name = args.thread.name if args.thread is not None else None
            log.critical("uncaught", thread=name, exc_info=(args.exc_type, args.exc_value, args.exc_traceback))

    def unraisable(args: Any) -> None:
        if args.exc_value is not None:
            log.error("unraisable", exc_info=(args.exc_type, args.exc_value, args.exc_traceback))

    sys.excepthook = uncaught
    threading.excepthook = thread_ended
    sys.unraisablehook = unraisable
