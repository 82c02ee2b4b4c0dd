"""Webhook endpoints and deliveries as the ledger has them, and what a round of sending brings it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from router.ledger.alerts import Alert
from router.ledger.event_feed import Position

EndpointState = Literal["enabled", "disabled", "deleted"]
DeliveryState = Literal["pending", "accepted", "given_up"]
UNTOLD = "pointsman.payment.updated"
"""Something that is not told has changed: who wants it names it."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint as people see it: without its secrets."""

    id: str
    merchant: str
    url: str
    event_types: tuple[str, ...]
    """None named: every type but UNTOLD."""
    description: str
    state: EndpointState
    state_at: dt.datetime
    created_at: dt.datetime
    cause: str | None = None
    """Why it is disabled."""
    failures: int = 0
    failing_since: dt.datetime | None = None
    next_try_at: dt.datetime | None = None
    """Of one that fails."""
    old_secret_until: dt.datetime | None = None
    """While a rotation lasts, both secrets sign."""

    def wants(self, event_type: str) -> bool:
        """Whether events of this type are for it."""
        return event_type in self.event_types if self.event_types else event_type != UNTOLD


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """An event that an endpoint is to be told."""

    event_id: str
    type: str
    payment_id: str
    version: int
    position: Position
    body: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one endpoint, or there."""

    number: int
    endpoint_id: str
    event_id: str
    type: str
    payment_id: str
    version: int
    state: DeliveryState
    attempts: int
    """Sends, ever."""
    failures: int
    """Refusals since it was last put up for sending."""
    failing_since: dt.datetime | None
    next_try_at: dt.datetime
    created_at: dt.datetime
    body: str | None = None
    """None: it has ended."""
    last_at: dt.datetime | None = None
    last_status: int | None = None
    last_reason: str | None = None
    latency_ms: int | None = None
    ended_at: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """An enabled endpoint that nobody sends to at this moment."""

    endpoint: Endpoint
    position: Position
    pending: int
    is_due: bool
    """Whether something that is put up may be sent now."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """An endpoint that this worker sends to, for a while."""

    endpoint: Endpoint
    secrets: tuple[str, ...] = field(repr=False)
    pending: Sequence[Delivery]
    """By payment and version."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one send."""

    delivery: Delivery
    at: dt.datetime
    status: int | None
    reason: str | None
    """None: it was accepted."""
    latency_s: float
    again_at: dt.datetime | None = None
    """Of a refusal; None: it is given up."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How the endpoint stands after a round."""

    failures: int = 0
    failing_since: dt.datetime | None = None
    next_try_at: dt.datetime | None = None
    all_again_at: dt.datetime | None = None
    """It is well again: whatever waits for a later try is tried then."""
    disabled: str | None = None
    """Why nothing more is sent to it."""
    alert: Alert | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """A round's results, for one commit."""

    results: Sequence[Result]
    postponed: Sequence[Delivery] = field(default_factory=list)
    """What waits for an earlier one of its payment; `next_try_at` says for how long."""
    standing: Standing | None = None
    """None: nothing was sent."""
