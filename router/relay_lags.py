"""How far behind the relays of payment events are, for the health page: asked of the ledger now and then."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from router.clock import Clock
from router.ledger.relays import Lag, RelayLedger
from router.ledger.unavailable import LedgerUnavailableError

ASKED_EVERY_S = 2.0
"""A load balancer that asks often must not make the ledger count each time."""


class RelayLags:
    """Thread-safe; one of a process."""

    def __init__(self, relays: RelayLedger, clock: Clock) -> None:
        self._relays = relays
        self._clock = clock
        self._lock = threading.Lock()
        self._asked_at: float | None = None
        self._known: Mapping[str, Mapping[str, Any]] = {}

    def known(self) -> Mapping[str, Mapping[str, Any]]:
        """By relay, at most ASKED_EVERY_S old; where the ledger does not answer, what it last said."""
        with self._lock:
            asked = self._clock.monotonic()
            if self._asked_at is None or asked - self._asked_at >= ASKED_EVERY_S:
                self._asked_at = asked
                try:
                    lags = self._relays.lags(self._clock.now())
                except LedgerUnavailableError:
                    return self._known
                self._known = {each.relay.name: lag_json(each) for each in lags}
            return self._known


def lag_json(lag: Lag) -> dict[str, Any]:
    """What the health page shows of one relay."""
    since = lag.relay.failing_since
    return {
        "events": lag.events,
        "seconds": round(lag.seconds, 3),
        "failing_since": None if since is None else since.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "cause": lag.relay.cause,
    }
