"""Payments that change, and endpoints that are told of it: what the tests of webhooks out stand on."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from router.clock import ManualClock, SequentialIds
from router.ledger.engine import Database
from router.ledger.event_feed import EventFeed
from router.ledger.payments import PaymentLedger
from router.ledger.records import Payment
from router.ledger.webhook_deliveries import DeliveryLedger
from router.ledger.webhook_endpoints import EndpointLedger
from router.ledger.webhook_records import Delivery, Endpoint
from router.webhooks_out import Post, Relay
from router.webhooks_out_endpoints import Endpoints
from router.webhooks_out_post import Posted
from tests.fakes.payments import a_payment

ACCEPTED = Posted(200, None, 0.01)
REFUSED = Posted(500, "http_500", 0.01)
GONE = Posted(410, "gone", 0.01)

_numbers = itertools.count(1)


@dataclass(slots=True)
class Told:
    """One request to an endpoint, accepted or not."""

    url: str
    event_id: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        """The body."""
        found: dict[str, Any] = json.loads(self.body)
        return found


@dataclass(slots=True)
class Inboxes:
    """Every endpoint's server, in memory; `answer` says what each request is answered."""

    answer: Callable[[Told], Posted] = lambda _told: ACCEPTED
    got: list[Told] = field(default_factory=list)
    """Every request, in the order of their beginnings."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Posted:
        told = Told(url, headers["X-Pointsman-Event-Id"], headers, body)
        with self.lock:
            self.got.append(told)
        return self.answer(told)

    def ids(self, url: str | None = None) -> list[str]:
        """The events' ids, as they came."""
        return [each.event_id for each in self.got if url in (None, each.url)]

    def refuse(self, *event_ids: str) -> None:
        """Refuse these from now on, and accept all else."""
        self.answer = lambda told: REFUSED if told.event_id in event_ids else ACCEPTED


class Bureau:
    """Payments, endpoints and any number of workers over one ledger, by a clock that is moved by hand."""

    def __init__(self, database: Database, clock: ManualClock | None = None) -> None:
        self.database = database
        self.clock = clock or ManualClock()
        self.ids = SequentialIds()
        self.inboxes = Inboxes()
        self.endpoint_ledger = EndpointLedger(database)
        self.deliveries = DeliveryLedger(database)
        self.feed = EventFeed(database)
        self._ledger = PaymentLedger(database)
        self.endpoints = Endpoints(
            self.endpoint_ledger, self.feed, allow_http=False, allowed=(), clock=self.clock, ids=self.ids
        )

    # ------------------------------------------------------------ payments

    def pays(self, merchant: str = "shop") -> Payment:
        """A payment's first event."""
        now, payment_id = self.clock.now(), f"pay_{next(_numbers):06}"
        payment = a_payment(
            payment_id, merchant=merchant, created_at=now, updated_at=now, reference=f"ORD-{payment_id}"
        )
        self._ledger.create(payment, key=f"key-{payment_id}", fingerprint="f", repeat=False, first=None)
        return payment

    def becomes(self, payment: Payment, *statuses: str) -> Payment:
        """Its next events; a status of before is an event that is not told."""
        for status in statuses:
            payment = self._ledger.change(payment, {"status": status}, event="moved", now=self.clock.now())
        return payment

    # ------------------------------------------------------------ endpoints

    def endpoint(self, name: str = "one", *, merchant: str = "shop", types: Sequence[str] = ()) -> Endpoint:
        """A new endpoint of that merchant."""
        return self.endpoints.create(merchant=merchant, url=f"https://{name}.example/in", event_types=types)[0]

    def now_is(self, endpoint: Endpoint) -> Endpoint:
        """How it stands now."""
        found = self.endpoint_ledger.find(endpoint.id)
        assert found is not None
        return found

    def records(self, endpoint: Endpoint) -> list[Delivery]:
        """Its deliveries, in the order in which they were put up."""
        return list(reversed(self.deliveries.page(endpoint.id, None, limit=10_000, before=None)))

    def states(self, endpoint: Endpoint) -> dict[str, str]:
        """The state of each of its deliveries."""
        return {each.event_id: each.state for each in self.records(endpoint)}

    # ------------------------------------------------------------ workers

    def worker(self, *, post: Post | None = None, chance: float = 0.5) -> Relay:
        """One more process."""
        return Relay(
            feed=EventFeed(self.database),
            deliveries=DeliveryLedger(self.database),
            post=post or self.inboxes,
            holder=self.ids.new("webhooks"),
            clock=self.clock,
            ids=self.ids,
            random=lambda: chance,
        )

    def go_on(self, relay: Relay, seconds: float, *, step_s: float = 1.0) -> None:
        """Rounds for so long."""
        until = self.clock.monotonic() + seconds
        while self.clock.monotonic() < until:
            relay.run_once()
            self.clock.advance(step_s)
