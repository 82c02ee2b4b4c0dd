"""Payment events to checkout's webhook endpoints: signed, in the order of each payment, at least once.

A round takes one endpoint's lease, puts up what the feed has for it, sends what is due and records what came of it.
Whoever dies in between leaves the lease to run out; the next one sends again, under the same event id. Payments go
out beside each other, the events of one payment one after the other: the next is not sent before the one before it
was accepted or given up. An endpoint that fails is tried with one event at a time, at growing intervals.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from router import events as events_out
from router.clock import Clock, Ids
from router.ledger.alerts import Alert
from router.ledger.event_feed import EventFeed, FeedEvent, Position
from router.ledger.unavailable import LedgerUnavailableError
from router.ledger.webhook_deliveries import DeliveryLedger
from router.ledger.webhook_records import (
    Candidate,
    Claimed,
    Delivery,
    Endpoint,
    NewDelivery,
    Recorded,
    Result,
    Standing,
)
from router.signing import SIGNATURE, signature
from router.webhooks_out_chains import Chain, chains
from router.webhooks_out_feed import FeedPages
from router.webhooks_out_post import Posted
from router.webhooks_out_retries import again, is_over, pause_s

log = structlog.get_logger("router.webhooks_out")

EVENT_ID = "X-Pointsman-Event-Id"
AT_ONCE = 8
"""Payments told to one endpoint beside each other."""
ROUND_S = 5.0
"""No send of a round begins later: others wait for this thread."""
LEASE = dt.timedelta(seconds=45)
"""A round's sends, the last of which takes ten seconds, and the commit of what came of them, tried for 15 s or so."""
RECORD_TRIES = 3
"""Each waits for a locked ledger for 5 s. After that the events come again, which were perhaps accepted."""
SLOW_S = 1.0
"""An endpoint that takes longer is not served by the threads of those that do not."""
WINDOW = 1000
"""Deliveries put up for an endpoint and not accepted: an endpoint that is dead for a day leaves no more rows."""
WELL_AFTER = 3
"""Failed rounds after which one that is accepted is news: what waits for an hour is tried at once."""


class Post(Protocol):
    """Sends one delivery; never raises for what the endpoint does."""

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Posted:
        """What came of it."""


@dataclass(frozen=True, slots=True)
class Due:
    """An endpoint to be sent to now, and what is to be put up for it first."""

    candidate: Candidate
    new: Sequence[NewDelivery]
    up_to: Position
    is_poorly: bool
    """It fails, or is slow: it must not keep the others waiting."""


class Relay:
    """One process's sending. Thread-safe: rounds of several endpoints may run beside each other."""

    def __init__(
        self,
        *,
        feed: EventFeed,
        deliveries: DeliveryLedger,
        post: Post,
        holder: str,
        clock: Clock,
        ids: Ids,
        random: Callable[[], float],
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._pages = FeedPages(feed, clock)
        self._deliveries = deliveries
        self._post = post
        self._holder = holder
        self._clock = clock
        self._ids = ids
        self._random = random
        self._stopping = stopping
        self._slow: set[str] = set()

    def run_once(self) -> int:
        """One round of every endpoint that is due, one after the other. Answers how many events were accepted."""
        return sum(self.round(due) for due in self.due())

    def due(self) -> Sequence[Due]:
        """Endpoints that something is to be sent to now. Reads only."""
        found = []
        for candidate in self._deliveries.candidates(self._clock.now()):
            new, up_to = self._new(candidate)
            if candidate.is_due or new or self._pages.is_far(candidate.endpoint.id, candidate.position):
                poorly = candidate.endpoint.failures > 0 or candidate.endpoint.id in self._slow
                found.append(Due(candidate, new, up_to, poorly))
        return found

    def _new(self, candidate: Candidate) -> tuple[Sequence[NewDelivery], Position]:
        """What the feed has for an endpoint, and up to where."""
        endpoint, committed = candidate.endpoint, candidate.position
        room = WINDOW - candidate.pending
        if room <= 0:
            return [], committed
        events, up_to = self._pages.after(self._pages.begins(endpoint.id, committed))
        new: list[NewDelivery] = []
        for event in events:
            if event.after.get("merchant") != endpoint.merchant:
                continue
            told = _told(event)
            if told is None or not endpoint.wants(told.type):
                continue
            if len(new) == room:
                return new, new[-1].position
            new.append(told)
        if events and not new:
            self._pages.passed_over(endpoint.id, committed, up_to, len(events))
        return new, up_to

    # ------------------------------------------------------------ one endpoint

    def round(self, due: Due) -> int:
        """Send to one endpoint what is due. Answers how many events it accepted; 0 where another worker has it."""
        now, began = self._clock.now(), self._clock.monotonic()
        claimed = self._deliveries.claim(
            due.candidate, self._holder, now=now, until=now + LEASE, new=due.new, up_to=due.up_to
        )
        if claimed is None:
            return 0
        found, postponed = chains(claimed.pending, now)
        if claimed.endpoint.failures:
            found = [found[0][:1]] if found else []  # one event, to find out whether it is well again
        results = self._send(claimed, found, until=began + ROUND_S)
        standing = self._judged(claimed.endpoint, results)
        later = [*postponed, *_behind(results, found)]
        if not self._record(claimed, Recorded(results, later, standing)):
            log.warning("webhook_lease_lost", endpoint=claimed.endpoint.id)
        return sum(each.reason is None for each in results)

    def _record(self, claimed: Claimed, recorded: Recorded) -> bool:
        for tries_left in reversed(range(RECORD_TRIES)):
            try:
                return self._deliveries.record(claimed, self._holder, recorded, now=self._clock.now())
            except LedgerUnavailableError:
                if not tries_left:
                    raise
                self._clock.sleep(0.2)
        raise AssertionError  # the last try returned or raised

    def _send(self, claimed: Claimed, found: Sequence[Chain], *, until: float) -> Sequence[Result]:
        """Every chain, each in its order, several beside each other, until the time is over or something fails."""
        waiting = collections.deque(found)
        results: list[Result] = []  # appended to by each thread: atomic
        trouble = threading.Event()

        def work() -> None:
            while not trouble.is_set():
                try:
                    chain = waiting.popleft()
                except IndexError:
                    return
                for delivery in chain:
                    if self._stopping() or self._clock.monotonic() >= until:
                        return
                    result = self._sent(claimed, delivery)
                    results.append(result)
                    if result.reason is not None or result.latency_s > SLOW_S:
                        trouble.set()
                        break

        threads = [
            threading.Thread(target=work, name="webhook-send", daemon=True)
            for _ in range(min(AT_ONCE, len(found)) - 1)
        ]
        for thread in threads:
            thread.start()
        work()
        for thread in threads:
            thread.join()
        return results

    def _sent(self, claimed: Claimed, delivery: Delivery) -> Result:
        now = self._clock.now()
        body = (delivery.body or "").encode()
        headers = {
            "Content-Type": events_out.CONTENT_TYPE,
            "User-Agent": "pointsman/1",
            EVENT_ID: delivery.event_id,
            SIGNATURE: signature(claimed.secrets, body, int(now.timestamp())),
        }
        try:
            posted = self._post.post(claimed.endpoint.url, headers, body)
        except Exception:
            # A fault of ours with one event must not end the round of the others.
            log.exception("webhook_fault", endpoint=claimed.endpoint.id, delivery=delivery.event_id)
            posted = Posted(None, "router_fault", 0.0)
        again_at = None
        if posted.reason is not None:
            at = self._clock.now()
            again_at = again(delivery.failing_since or at, delivery.failures + 1, at, self._random())
        return Result(delivery, now, posted.status, posted.reason, posted.latency_s, again_at)

    # ------------------------------------------------------------ what it says of the endpoint

    def _judged(self, endpoint: Endpoint, results: Sequence[Result]) -> Standing | None:
        """How the endpoint stands after these sends."""
        if not results:
            return None
        if sum(each.latency_s for each in results) > SLOW_S * len(results):
            self._slow.add(endpoint.id)
        else:
            self._slow.discard(endpoint.id)
        now = self._clock.now()
        gone = any(each.reason == "gone" for each in results)
        given_up = any(each.reason is not None and each.again_at is None for each in results)
        standing = Standing(all_again_at=now if endpoint.failures >= WELL_AFTER else None)
        if not any(each.reason is None for each in results):
            failures, since = endpoint.failures + 1, endpoint.failing_since or results[0].at
            next_try_at = now + dt.timedelta(seconds=pause_s(failures, self._random()))
            standing = Standing(failures, since, next_try_at)
            given_up = given_up or is_over(since, failures, now)
        if gone:
            return self._disabled(endpoint, standing, results, "it answered 410 Gone", now)
        if given_up:
            return self._disabled(endpoint, standing, results, "it did not accept an event for 24 hours", now)
        if standing.failures == 1:
            refused = results[-1]
            log.warning("webhook_refused", endpoint=endpoint.id, cause=refused.reason, status=refused.status)
        return standing

    def _disabled(
        self, endpoint: Endpoint, standing: Standing, results: Sequence[Result], cause: str, now: dt.datetime
    ) -> Standing:
        last = next(each for each in reversed(results) if each.reason is not None)
        log.error("webhook_disabled", endpoint=endpoint.id, merchant=endpoint.merchant, cause=cause, last=last.reason)
        alert = Alert(
            id=self._ids.new("alert"),
            kind="webhook_disabled",
            # What is told once: this disablement, of however many.
            incident=f"{endpoint.id}:{int(now.timestamp())}",
            text=f"webhook endpoint {endpoint.id} of merchant {endpoint.merchant} is disabled: {cause}",
            at=now,
            detail={"endpoint": endpoint.id, "merchant": endpoint.merchant, "last": last.reason},
        )
        return dataclasses.replace(standing, disabled=cause, alert=alert)


def _told(event: FeedEvent) -> NewDelivery | None:
    try:
        told = events_out.payment_event(event)
    except events_out.UntellableError:
        # It must not hold up what comes after it, nor the other endpoints.
        log.exception("event_not_told", payment=event.payment_id, version=event.version)
        return None
    body = events_out.body_of(event).decode()
    return NewDelivery(told.id, told.type, event.payment_id, event.version, event.position, body)


def _behind(results: Sequence[Result], found: Sequence[Chain]) -> Sequence[Delivery]:
    """What waits for an event that was refused in this round, and until when."""
    later = {each.delivery.payment_id: each.again_at for each in results if each.again_at is not None}
    done = {each.delivery.number for each in results}
    return [
        dataclasses.replace(delivery, next_try_at=at)
        for chain in found
        if (at := later.get(chain[0].payment_id)) is not None
        for delivery in chain
        if delivery.number not in done
    ]
