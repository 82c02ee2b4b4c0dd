"""How far behind the relays of payment events and the webhooks are, for the health page: asked now and then."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from router.clock import Clock
from router.ledger.relays import Lag, RelayLedger
from router.ledger.unavailable import LedgerUnavailableError
from router.ledger.webhook_endpoints import Backlog, EndpointLedger

ASKED_EVERY_S = 2.0
"""A load balancer that asks often must not make the ledger count each time."""


Answer = TypeVar("Answer")


class _NowAndThen(Generic[Answer]):
    """Thread-safe; one of a process."""

    def __init__(self, ask: Callable[[dt.datetime], Answer], clock: Clock, *, unknown: Answer) -> None:
        self._ask = ask
        self._clock = clock
        self._lock = threading.Lock()
        self._asked_at: float | None = None
        self._known = unknown

    def known(self) -> Answer:
        """At most ASKED_EVERY_S old; where the ledger does not answer, what it last said."""
        with self._lock:
            asked = self._clock.monotonic()
            if self._asked_at is None or asked - self._asked_at >= ASKED_EVERY_S:
                self._asked_at = asked
                try:
                    self._known = self._ask(self._clock.now())
                except LedgerUnavailableError:
                    return self._known
            return self._known


class RelayLags(_NowAndThen[Mapping[str, Mapping[str, Any]]]):
    """The relays' lags by name, each as `lag_json` has it."""

    def __init__(self, relays: RelayLedger, clock: Clock) -> None:
        def ask(now: dt.datetime) -> Mapping[str, Mapping[str, Any]]:
            return {each.relay.name: lag_json(each) for each in relays.lags(now)}

        super().__init__(ask, clock, unknown={})


class WebhookLag(_NowAndThen[Mapping[str, Any] | None]):
    """How far behind the webhook endpoints are together, as `backlog_json` has it; None: it was never known."""

    def __init__(self, endpoints: EndpointLedger, clock: Clock) -> None:
        super().__init__(lambda now: backlog_json(endpoints.backlog(), now), clock, unknown=None)


def lag_json(lag: Lag) -> dict[str, Any]:
    """What the health page shows of one relay."""
    since = lag.relay.failing_since
    return {
        "events": lag.events,
        "seconds": round(lag.seconds, 3),
        "failing_since": None if since is None else since.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "cause": lag.relay.cause,
    }


def backlog_json(backlog: Backlog, now: dt.datetime) -> dict[str, Any]:
    """What the health page shows of the webhook endpoints: anybody may read it, so numbers only."""
    return {
        "pending": backlog.pending,
        "pending_seconds": _seconds(backlog.oldest, now),
        "unread": backlog.unread,
        "unread_seconds": _seconds(backlog.unread_since, now),
        "failing": backlog.failing,
        "disabled": backlog.disabled,
    }


def _seconds(since: dt.datetime | None, now: dt.datetime) -> float:
    return 0.0 if since is None else round(max(0.0, (now - since).total_seconds()), 3)
