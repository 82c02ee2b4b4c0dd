"""Passes payment events on to Kafka: every one at least once, each payment's in order, none skipped.

A worker loop; any number may run, and the one with the lease acts (`router.ledger.relays`). It reads the feed after
its position, sends a batch, and moves the position when the broker has all of it, or its first part. A process that
dies in between leaves events that are sent again, under the same id.

A broker that is away costs nothing but time: the batch waits in librdkafka, the lease is kept, the rest stays in the
ledger. What the broker refuses, such as a topic that is not there, is tried again with longer and longer waits. What
has not moved for `alert_after_s` is told to people, once each time.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from router.clock import Clock, Ids
from router.events import body_of
from router.kafka_producer import Outgoing
from router.ledger.alerts import Alert, AlertLedger
from router.ledger.event_feed import EventFeed, FeedEvent
from router.ledger.relays import Lag, LeaseLostError, Relay, RelayLedger

log = structlog.get_logger("router.kafka_relay")

NAME = "kafka"
AT_ONCE = 500
"""Events of a batch: half a megabyte, and one commit of the position for all of them."""
LEASE = dt.timedelta(seconds=6)
"""Another worker goes on so long after this one died. Renewed at half of it."""
WAIT_S = 0.5
"""For a batch to be delivered, before the lease is looked at again; a stop waits for it too."""
STALLED_S = 3.0
"""A batch that waits so long says that something is wrong; a busy broker takes a second."""
IDLE_S = 0.25
"""Between looks at a feed that has nothing new: so much later does an event come at most, on a quiet day."""
STANDBY_S = 1.0
"""Between looks at another worker's lease."""
FIRST_RETRY_S = 0.5
LONGEST_RETRY_S = 30.0
WATCH_EVERY_S = 10.0


class Sink(Protocol):
    """`KafkaProducer`, as far as the relay knows it."""

    @property
    def trouble(self) -> str | None:
        """What is wrong with the connection."""

    def send(self, messages: Sequence[Outgoing]) -> None:
        """Begin to deliver a batch."""

    def wait(self, within_s: float) -> tuple[int, str | None]:
        """How many of its first messages are delivered, and what failed."""

    def discard(self) -> None:
        """Forget what is not delivered."""


class KafkaRelay:
    """`run_once` does what there is to do now, in a second at most; `pause_s` says how long to wait after it."""

    def __init__(
        self,
        *,
        feed: EventFeed,
        relays: RelayLedger,
        sink: Sink,
        alerts: AlertLedger,
        holder: str,
        alert_after_s: float,
        clock: Clock,
        ids: Ids,
        random: Callable[[], float],
        lease: dt.timedelta = LEASE,
    ) -> None:
        self._feed = feed
        self._relays = relays
        self._sink = sink
        self._alerts = alerts
        self._holder = holder
        self._alert_after = dt.timedelta(seconds=alert_after_s)
        self._clock = clock
        self._ids = ids
        self._random = random
        self._lease = lease
        self._relay: Relay | None = None
        self._batch: Sequence[FeedEvent] = ()
        self._passed = 0
        self._moved_at = 0.0
        self._failures = 0
        self._retry_at: float | None = None
        self._watch_at = clock.monotonic() + WATCH_EVERY_S

    @property
    def pause_s(self) -> float:
        """Until the next round."""
        if self._relay is None:
            return STANDBY_S
        return 0.0 if self._batch else IDLE_S

    def run_once(self) -> int:
        """Send what follows, or wait for what was sent. Answers how many events were delivered.

        Raises LedgerUnavailableError: what was sent is waited for again in the next round.
        """
        try:
            if not self._hold():
                return 0
            try:
                delivered = self._deliver()
            finally:
                self._watch()  # also where it raises each time: nobody else would tell
        except LeaseLostError:
            # Another worker has it, or a person moved it: what is on its way is theirs to send again.
            self._let_go()
            return 0
        return delivered

    # ------------------------------------------------------------ the lease

    def _hold(self) -> bool:
        """Have the lease, for long enough."""
        now = self._clock.now()
        held = self._relay
        if held is not None and held.lease_until is not None:
            left = held.lease_until - now
            # More than a whole one: the clock was set back, and who follows must not wait for the difference.
            if self._lease / 2 < left <= self._lease:
                return True
        taken = self._relays.take(NAME, self._holder, now=now, until=now + self._lease)
        if taken is None or (held is not None and taken.position != held.position):
            self._let_go()
        if held is None and taken is not None:
            log.info("relay_taken", relay=NAME, position=[taken.position.xact, taken.position.number])
        self._relay = taken
        return taken is not None

    def _let_go(self) -> None:
        self._sink.discard()
        self._relay, self._batch, self._retry_at, self._failures = None, (), None, 0

    # ------------------------------------------------------------ delivering

    def _deliver(self) -> int:
        assert self._relay is not None
        if not self._batch and not self._begin(self._relay):
            return 0
        count, failure = self._sink.wait(WAIT_S)
        delivered = count - self._passed
        if delivered:
            now = self._clock.now()
            there = self._batch[count - 1].position
            if self._relay.failing_since is not None:
                log.info("relay_goes_on", relay=NAME, cause=self._relay.cause)
            self._relay = self._relays.advance(self._relay, there, now=now, until=now + self._lease)
            self._passed, self._failures, self._moved_at = count, 0, self._clock.monotonic()
        if failure is not None:
            self._again_later(failure)
        elif count == len(self._batch):
            self._batch = ()
        elif self._clock.monotonic() - self._moved_at >= STALLED_S:
            self._say(self._sink.trouble or "no answer")
        return delivered

    def _begin(self, relay: Relay) -> bool:
        """Send the next batch, if there is one and it is time."""
        if self._retry_at is not None and self._clock.monotonic() < self._retry_at:
            return False
        self._retry_at = None
        events, _ = self._feed.after(relay.position, AT_ONCE)
        if not events:
            return False
        try:
            messages = [Outgoing(each.payment_id, body_of(each)) for each in events]
        except ValueError:
            # A row that no version wrote: not to be skipped, and not to be retried at full speed.
            log.exception("event_not_told", relay=NAME, after=relay.position.number)
            self._again_later("an event that cannot be told")
            return False
        self._sink.send(messages)
        self._batch, self._passed, self._moved_at = events, 0, self._clock.monotonic()
        return True

    def _again_later(self, cause: str) -> None:
        """Give up this batch, and send what is left of it, by a connection of its own, after a while."""
        self._sink.discard()
        self._batch = ()
        wait_s = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2 ** min(self._failures, 10)) * (0.75 + self._random() / 2)
        self._failures += 1
        self._retry_at = self._clock.monotonic() + wait_s
        self._say(cause)

    def _say(self, cause: str) -> None:
        """Write down that nothing is delivered, and why; once for each cause."""
        relay = self._relay
        assert relay is not None
        if relay.cause == cause:
            return
        now = self._clock.now()
        self._relay = self._relays.failing(relay, cause, now=now, until=now + self._lease)
        if relay.failing_since is None:
            log.warning("relay_failing", relay=NAME, cause=cause)

    # ------------------------------------------------------------ telling people

    def _watch(self) -> None:
        if self._clock.monotonic() < self._watch_at:
            return
        self._watch_at = self._clock.monotonic() + WATCH_EVERY_S
        now = self._clock.now()
        lag = next((each for each in self._relays.lags(now) if each.relay.name == NAME), None)
        if lag is not None and is_stuck(lag, now, self._alert_after):
            self._tell(lag, now)

    def _tell(self, lag: Lag, now: dt.datetime) -> None:
        cause = lag.relay.cause or "a transaction that does not end holds its events back"
        stopped = lag.relay.updated_at
        alert = Alert(
            id=self._ids.new("alert"),
            kind="relay_stuck",
            # One alert for each time that it stops, whichever workers see it.
            incident=f"relay-{NAME}-{stopped.isoformat()}",
            text=f"No payment event has reached Kafka for {_minutes(now - stopped)}; {lag.events} wait: {cause}",
            at=now,
            detail={"relay": NAME, "events": lag.events, "seconds": round(lag.seconds), "cause": cause},
        )
        if self._alerts.tell(alert):
            log.error("relay_stuck", relay=NAME, events=lag.events, seconds=round(lag.seconds), cause=cause)


def is_stuck(lag: Lag, now: dt.datetime, after: dt.timedelta) -> bool:
    """Whether an event has waited for so long, and none was delivered meanwhile: catching up is not being stuck."""
    return lag.events > 0 and lag.seconds >= after.total_seconds() and now - lag.relay.updated_at >= after


def _minutes(time: dt.timedelta) -> str:
    return f"{round(time.total_seconds() / 60)} min"
