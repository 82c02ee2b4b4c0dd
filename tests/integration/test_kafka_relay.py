"""The relay over both ledgers and a broker that does as it is told: what is passed on, by whom, and how far."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from collections.abc import Sequence

import pytest

from router.clock import ManualClock, SequentialIds
from router.kafka_producer import Outgoing
from router.kafka_relay import AT_ONCE, LEASE, STALLED_S, KafkaRelay
from router.ledger.alerts import AlertLedger
from router.ledger.engine import Database
from router.ledger.event_feed import START, EventFeed, Position
from router.ledger.payments import PaymentLedger
from router.ledger.relays import Relay, RelayLedger
from router.ledger.unavailable import LedgerUnavailableError
from router.relay_lags import RelayLags
from tests.fakes.payments import a_payment, passed_on


class Broker:
    """Takes what it is sent, unless told otherwise; keeps what was delivered."""

    def __init__(self, clock: ManualClock) -> None:
        self.delivered: list[tuple[str, str]] = []
        self.takes: int | None = None
        """Messages of a batch that it takes; None: all."""
        self.fails: str | None = None
        self.trouble: str | None = None
        self.discarded = 0
        self.sent = 0
        self._clock = clock
        self._batch: list[tuple[str, str]] = []
        self._taken = 0

    def send(self, messages: Sequence[Outgoing]) -> None:
        self.sent += 1
        self._batch = [(each.key, json.loads(each.value)["id"]) for each in messages]
        self._taken = 0

    def wait(self, within_s: float) -> tuple[int, str | None]:
        takes = len(self._batch) if self.takes is None else self.takes
        self.delivered += self._batch[self._taken : takes]
        self._taken = max(self._taken, takes)
        if self._taken < len(self._batch) and self.fails is None:
            self._clock.advance(within_s)
        return self._taken, self.fails

    def discard(self) -> None:
        self._batch, self.discarded = [], self.discarded + 1


class Scene:
    """A ledger, a clock and relays beside each other."""

    def __init__(self, database: Database) -> None:
        self.clock = ManualClock()
        self.database = database
        self.relays = RelayLedger(database)
        self.alerts = AlertLedger(database)
        self._ledger = PaymentLedger(database)

    def relay(self, holder: str, broker: Broker, relays: RelayLedger | None = None) -> KafkaRelay:
        return KafkaRelay(
            feed=EventFeed(self.database),
            relays=relays or self.relays,
            sink=broker,
            alerts=self.alerts,
            holder=holder,
            alert_after_s=300,
            clock=self.clock,
            ids=SequentialIds(),
            random=lambda: 0.5,
        )

    def pay(self, *payments: str, changes: int = 0) -> None:
        for each in payments:
            payment = a_payment(each, created_at=self.clock.now(), updated_at=self.clock.now())
            self._ledger.create(payment, key=each, fingerprint="f", repeat=False, first=None)
            for _ in range(changes):
                payment = self._ledger.change(payment, {"tries": 1}, event="tried", now=self.clock.now())

    @property
    def row(self) -> Relay:
        (lag,) = self.relays.lags(self.clock.now())
        return lag.relay

    @property
    def left(self) -> int:
        (lag,) = self.relays.lags(self.clock.now())
        return lag.events


@pytest.fixture
def scene(database: Database) -> Scene:
    return Scene(database)


@pytest.fixture
def broker(scene: Scene) -> Broker:
    return Broker(scene.clock)


def test_what_is_committed_is_passed_on_once_in_order_under_its_payments_key(scene: Scene, broker: Broker) -> None:
    """From the first event there is: whoever sets up a broker late misses nothing."""
    scene.pay("pay_b", "pay_a", changes=1)
    relay = scene.relay("one", broker)
    assert relay.run_once() == 4
    assert broker.delivered == [
        ("pay_b", "pay_b:1"),
        ("pay_b", "pay_b:2"),
        ("pay_a", "pay_a:1"),
        ("pay_a", "pay_a:2"),
    ]
    assert relay.run_once() == 0
    scene.pay("pay_c")
    assert relay.run_once() == 1
    assert [each for _, each in broker.delivered[4:]] == ["pay_c:1"]
    assert scene.left == 0


def test_only_what_is_delivered_is_passed(scene: Scene, broker: Broker) -> None:
    """The first part of a batch; the rest is waited for, and not sent a second time."""
    scene.pay("pay_1", "pay_2", "pay_3")
    relay = scene.relay("one", broker)
    broker.takes = 1
    assert relay.run_once() == 1
    assert scene.left == 2
    assert relay.pause_s == 0
    broker.takes = None
    assert relay.run_once() == 2
    assert (scene.left, broker.sent) == (0, 1)


def test_of_two_relays_one_works_and_the_other_follows_when_it_dies(scene: Scene, broker: Broker) -> None:
    """Within its lease, from where it had come to."""
    scene.pay("pay_1")
    first, second = scene.relay("one", broker), scene.relay("two", broker)
    assert (first.run_once(), second.run_once()) == (1, 0)
    scene.pay("pay_2")
    assert second.run_once() == 0
    scene.clock.advance(LEASE.total_seconds())
    assert second.run_once() == 1
    assert [each for _, each in broker.delivered] == ["pay_1:1", "pay_2:1"]


def test_a_relay_that_does_nothing_keeps_its_lease(scene: Scene, broker: Broker) -> None:
    """Quiet is not death."""
    first, second = scene.relay("one", broker), scene.relay("two", broker)
    for _ in range(10):
        first.run_once()
        second.run_once()
        assert scene.row.holder == "one"
        scene.clock.advance(LEASE.total_seconds() / 4)


def test_killed_between_delivery_and_position_it_sends_again_and_loses_nothing(scene: Scene, broker: Broker) -> None:
    """The same ids, so that who listens knows them; nothing missing."""

    class Killed(BaseException):
        pass

    class Dying(RelayLedger):
        def advance(self, relay: Relay, to: Position, *, now: dt.datetime, until: dt.datetime) -> Relay:
            raise Killed

    scene.pay("pay_1", "pay_2")
    with pytest.raises(Killed):
        scene.relay("one", broker, Dying(scene.database)).run_once()
    assert scene.row.position == START
    scene.clock.advance(LEASE.total_seconds())
    scene.pay("pay_3")
    assert scene.relay("two", broker).run_once() == 3
    assert [each for _, each in broker.delivered] == ["pay_1:1", "pay_2:1", "pay_1:1", "pay_2:1", "pay_3:1"]


def test_a_relay_that_was_paused_past_its_lease_stops(scene: Scene, broker: Broker) -> None:
    """What it had sent is given up; the other's position stands."""
    scene.pay("pay_1", "pay_2")
    paused, other = scene.relay("one", broker), Broker(scene.clock)
    broker.takes = 0
    paused.run_once()
    scene.clock.advance(LEASE.total_seconds())
    following = scene.relay("two", other)
    assert following.run_once() == 2
    broker.takes = None
    assert paused.run_once() == 0
    assert broker.discarded == 1
    assert (scene.row.holder, scene.left) == ("two", 0)


def test_paused_in_the_very_moment_of_its_commit_it_moves_nothing(scene: Scene, broker: Broker) -> None:
    """Its lease still ran when it looked."""

    class Late(RelayLedger):
        def advance(self, relay: Relay, to: Position, *, now: dt.datetime, until: dt.datetime) -> Relay:
            scene.clock.advance(LEASE.total_seconds())
            assert scene.relay("two", Broker(scene.clock)).run_once() == 2
            return super().advance(relay, to, now=now, until=until)

    scene.pay("pay_1", "pay_2")
    assert scene.relay("one", broker, Late(scene.database)).run_once() == 0
    assert (scene.row.holder, scene.left, broker.discarded) == ("two", 0, 1)


def test_without_an_answer_it_waits_says_so_and_sends_nothing_twice(scene: Scene, broker: Broker) -> None:
    """However long: the lease is kept, and the batch goes out when the broker is back."""
    scene.pay("pay_1")
    relay = scene.relay("one", broker)
    broker.takes, broker.trouble = 0, "_TRANSPORT"
    began = scene.clock.now()
    while scene.clock.now() - began < 4 * LEASE:
        assert relay.run_once() == 0
        assert scene.row.holder == "one"
    failing = scene.row
    assert failing.cause == "_TRANSPORT"
    assert failing.failing_since is not None
    assert STALLED_S <= (failing.failing_since - began).total_seconds() < STALLED_S + 2
    broker.takes = None
    assert relay.run_once() == 1
    assert (broker.sent, broker.discarded) == (1, 0)
    assert (scene.row.failing_since, scene.row.cause) == (None, None)


def test_what_is_refused_is_sent_again_with_longer_and_longer_waits(scene: Scene, broker: Broker) -> None:
    """By a new connection, from where it was refused; the lease is kept all the time."""
    scene.pay("pay_1", "pay_2")
    relay = scene.relay("one", broker)
    broker.takes, broker.fails = 1, "TOPIC_AUTHORIZATION_FAILED"
    relay.run_once()
    assert (scene.left, scene.row.cause) == (1, "TOPIC_AUTHORIZATION_FAILED")
    broker.takes = 0
    tried: list[float] = []
    while len(tried) < 9:
        scene.clock.advance(0.25)
        before = broker.sent
        relay.run_once()
        assert scene.row.holder == "one"
        if broker.sent > before:
            tried.append(scene.clock.monotonic())
    waits = [later - earlier for earlier, later in itertools.pairwise(tried)]
    assert waits == sorted(waits)
    assert waits[:3] == [1.0, 2.0, 4.0]
    assert waits[-1] == 30.0
    broker.takes = broker.fails = None
    scene.clock.advance(60)
    assert relay.run_once() == 1
    assert [each for _, each in broker.delivered] == ["pay_1:1", "pay_2:1"]


def test_a_position_that_a_person_moved_is_followed(scene: Scene, broker: Broker) -> None:
    """Everything is sent again from there, by the relay that has the lease."""
    scene.pay("pay_1", "pay_2")
    relay = scene.relay("one", broker)
    relay.run_once()
    scene.pay("pay_3")
    broker.takes = 0
    relay.run_once()  # it is on its way, and a person asks for all of it again
    scene.relays.move("kafka", START)
    broker.takes = None
    scene.clock.advance(LEASE.total_seconds() / 2)
    assert relay.run_once() == 3
    assert broker.discarded == 1
    assert [each for _, each in broker.delivered[2:]] == ["pay_1:1", "pay_2:1", "pay_3:1"]


def test_a_large_backlog_is_passed_on_in_batches(scene: Scene, broker: Broker) -> None:
    """Each with a commit of the position of its own."""
    with scene.database.write() as connection:
        for number in range(AT_ONCE + 3):
            passed_on(connection, a_payment(f"pay_{number}"))
    relay = scene.relay("one", broker)
    assert [relay.run_once() for _ in range(3)] == [AT_ONCE, 3, 0]


def test_people_are_told_once_of_a_relay_that_is_stuck_and_of_the_next_time_again(
    scene: Scene, broker: Broker
) -> None:
    """After the time that is set, by whichever worker; never because it is merely catching up."""
    relay = scene.relay("one", broker)
    relay.run_once()
    scene.clock.advance(3600)  # nothing happened for an hour, which is no fault
    relay.run_once()
    for outage in (1, 2):
        broker.takes, broker.trouble = 0, "_TRANSPORT"
        scene.pay(f"pay_{outage}")
        began = scene.clock.now()
        while scene.clock.now() - began < dt.timedelta(seconds=290):
            scene.clock.advance(1)
            relay.run_once()
        assert len(scene.alerts.all()) == outage - 1
        for _ in range(30):
            scene.clock.advance(1)
            relay.run_once()
            scene.relay("two", Broker(scene.clock)).run_once()
        alerts = scene.alerts.all()
        assert len(alerts) == outage
        assert alerts[-1].kind == "relay_stuck"
        assert alerts[-1].detail["cause"] == "_TRANSPORT"
        assert alerts[-1].text.startswith("No payment event has reached Kafka for ")
        broker.takes = None
        assert relay.run_once() == 1


def test_a_feed_that_cannot_be_read_is_told_of_too(
    scene: Scene, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The round ends with an error each time, and the ledger as such is there: nothing else would say so."""
    scene.pay("pay_1")
    relay = scene.relay("one", broker)
    broker.takes = 0
    relay.run_once()

    def after(*_args: object) -> None:
        raise LedgerUnavailableError

    monkeypatch.setattr(EventFeed, "after", after)
    scene.clock.advance(301)
    relay._let_go()
    with pytest.raises(LedgerUnavailableError):
        relay.run_once()
    assert [each.kind for each in scene.alerts.all()] == ["relay_stuck"]


def test_catching_up_is_not_being_stuck(scene: Scene, broker: Broker) -> None:
    """A broker that is set up years later begins with events that are years old."""
    scene.pay("pay_1", "pay_2")
    scene.clock.advance(1e7)
    relay = scene.relay("one", broker)
    broker.takes = 1
    relay.run_once()
    scene.clock.advance(11)
    relay.run_once()
    assert scene.alerts.all() == []


def test_the_health_page_is_told_how_far_behind_it_is(scene: Scene, broker: Broker) -> None:
    """At most two seconds old."""
    lags = RelayLags(scene.relays, scene.clock)
    assert lags.known() == {}
    scene.pay("pay_1", "pay_2")
    broker.takes, broker.fails = 1, "_MSG_TIMED_OUT"
    scene.relay("one", broker).run_once()
    assert lags.known() == {}
    since = scene.clock.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
    scene.clock.advance(2)
    assert lags.known() == {"kafka": {"events": 1, "seconds": 2.0, "failing_since": since, "cause": "_MSG_TIMED_OUT"}}
