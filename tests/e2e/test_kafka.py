"""Real processes, both ledgers and librdkafka's own cluster: killed relays, a cluster that is gone, late commits.

`make kafka` does the same at length, against a real broker.
"""

from __future__ import annotations

import datetime as dt
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from router import events
from router.clock import ManualClock, SequentialIds
from router.kafka_producer import KafkaProducer, Outgoing, producer_config
from router.kafka_relay import LEASE, KafkaRelay
from router.ledger.alerts import AlertLedger
from router.ledger.engine import Database
from router.ledger.event_feed import START, EventFeed, Position
from router.ledger.migrate import migrate
from router.ledger.relays import Relay, RelayLedger
from router.settings import Settings
from tests.e2e.house import eventually
from tests.e2e.kafka_town import TOPIC, Writers, drained, during, judge, python, relays
from tests.fakes.kafka import MockCluster, read_all
from tests.integration.ledgers import ledger_on
from tests.integration.postgres import Databases, databases

TOPIC_AUTHORIZATION_FAILED = 29
NOT_ENOUGH_REPLICAS = 19
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def postgres() -> Iterator[Databases]:
    """One PostgreSQL for these tests."""
    with databases() as found:
        yield found


@pytest.fixture
def cluster() -> Iterator[MockCluster]:
    """Three brokers."""
    with MockCluster(TOPIC) as cluster:
        yield cluster


@pytest.fixture
def producer(cluster: MockCluster) -> Iterator[KafkaProducer]:
    """The router's own, with its usual settings."""
    config = producer_config(Settings(kafka_bootstrap_servers=cluster.bootstrap))
    producer = KafkaProducer(config, TOPIC, content_type=events.CONTENT_TYPE, monotonic=time.monotonic)
    yield producer
    producer.discard()


def _batch(*names: str) -> list[Outgoing]:
    return [Outgoing(f"pay_{index % 4}", name.encode()) for index, name in enumerate(names)]


def _values(cluster: MockCluster, key: str) -> list[bytes]:
    return [each.value for each in read_all(cluster.bootstrap, TOPIC) if each.key == key]


def test_a_batch_is_written_in_order_by_key_as_cloudevents(cluster: MockCluster, producer: KafkaProducer) -> None:
    """One partition for a key, and the header that says what it is."""
    producer.send(_batch(*(f"{number:03}" for number in range(100))))
    assert producer.wait(PATIENCE_S) == (100, None)
    records = read_all(cluster.bootstrap, TOPIC)
    assert len(records) == 100
    for key in {each.key for each in records}:
        mine = [each for each in records if each.key == key]
        assert len({each.partition for each in mine}) == 1
        assert [each.value for each in mine] == sorted(each.value for each in mine)
    assert {each.headers["content-type"] for each in records} == {b"application/cloudevents+json; charset=utf-8"}


def test_a_cluster_that_is_gone_is_waited_for(cluster: MockCluster, producer: KafkaProducer) -> None:
    """The batch goes out when it is back, once; meanwhile it is said what is wrong."""
    producer.send(_batch("before"))
    assert producer.wait(PATIENCE_S) == (1, None)
    cluster.down()
    producer.send(_batch("a", "b", "c", "d", "e"))
    assert producer.wait(0.3) == (0, None)
    trouble = producer.trouble
    assert trouble in {"_TRANSPORT", "_ALL_BROKERS_DOWN"}
    cluster.up()
    assert producer.wait(PATIENCE_S) == (5, None)
    trouble = producer.trouble
    assert trouble is None
    assert _values(cluster, "pay_0") == [b"before", b"a", b"e"]


def test_what_passes_is_sent_again_and_written_once(cluster: MockCluster, producer: KafkaProducer) -> None:
    """Errors that a broker says of itself are no failure of the batch."""
    cluster.refuse(NOT_ENOUGH_REPLICAS, NOT_ENOUGH_REPLICAS)
    producer.send(_batch("a", "b", "c", "d", "e"))
    assert producer.wait(PATIENCE_S) == (5, None)
    assert _values(cluster, "pay_0") == [b"a", b"e"]


def test_what_does_not_pass_fails_the_batch_and_the_next_one_is_another_producers(
    cluster: MockCluster, producer: KafkaProducer
) -> None:
    """The cause is a word of Kafka's; nothing follows what could not be written."""
    producer.send(_batch("first"))
    assert producer.wait(PATIENCE_S) == (1, None)
    cluster.refuse(*[TOPIC_AUTHORIZATION_FAILED] * 9)
    producer.send(_batch("a", "b", "c", "d", "e"))
    assert producer.wait(PATIENCE_S) == (0, "TOPIC_AUTHORIZATION_FAILED")
    producer.discard()
    cluster.clear()
    producer.send(_batch("a", "b", "c", "d", "e"))
    assert producer.wait(PATIENCE_S) == (5, None)
    assert _values(cluster, "pay_0") == [b"first", b"a", b"e"]


def test_a_batch_that_is_discarded_is_not_written_later(cluster: MockCluster, producer: KafkaProducer) -> None:
    """It is another relay's by then. Nor does its end count as anything of the next batch."""
    cluster.down()
    producer.send(_batch("lost", "lost too"))
    assert producer.wait(0.1) == (0, None)
    producer.discard()
    cluster.up()
    producer.send(_batch("a"))
    assert producer.wait(PATIENCE_S) == (1, None)
    assert _values(cluster, "pay_0") == [b"a"]
    assert _values(cluster, "pay_1") == []


def test_a_client_that_cannot_be_made_is_a_failure_like_others(tmp_path: Path) -> None:
    """A certificate that is none: said, and tried again later, not raised with every round."""
    wrong = tmp_path / "ca.pem"
    wrong.write_text("not a certificate")
    settings = Settings(kafka_bootstrap_servers="127.0.0.1:1", kafka_security_protocol="ssl", kafka_ca_file=wrong)
    producer = KafkaProducer(producer_config(settings), TOPIC, content_type="text/plain", monotonic=time.monotonic)
    producer.send(_batch("a"))
    delivered, cause = producer.wait(PATIENCE_S)
    assert delivered == 0
    assert cause == "_INVALID_ARG"
    producer.discard()


def test_a_relay_that_dies_between_delivery_and_position_leaves_doubles_of_the_same_ids(
    cluster: MockCluster, producer: KafkaProducer, tmp_path: Path
) -> None:
    """None missing, nothing out of order at its first appearance."""

    class Killed(BaseException):
        pass

    class Dying(RelayLedger):
        def advance(self, relay: Relay, to: Position, *, now: dt.datetime, until: dt.datetime) -> Relay:
            raise Killed

    database = Database(f"sqlite:///{tmp_path / 'ledger.db'}", pool_size=12)
    migrate(database)
    writers, clock = Writers(database, 80, per_second=10_000), ManualClock()
    writers.start()
    writers.join(PATIENCE_S)

    def relay(relays: RelayLedger, holder: str) -> KafkaRelay:
        alerts, ids = AlertLedger(database), SequentialIds()
        return KafkaRelay(
            feed=EventFeed(database), relays=relays, sink=producer, alerts=alerts, holder=holder,
            alert_after_s=300, clock=clock, ids=ids, random=lambda: 0.5,
        )  # fmt: skip

    dying = relay(Dying(database), "one")
    with pytest.raises(Killed):
        eventually(dying.run_once, PATIENCE_S)
    clock.advance(LEASE.total_seconds())
    following, delivered = relay(RelayLedger(database), "two"), 0
    while delivered < 80:
        delivered += following.run_once()
    verdict = judge(database, read_all(cluster.bootstrap, TOPIC))
    database.close()
    assert verdict.events == 80
    assert verdict.duplicates > 0
    assert verdict.sound, verdict


@pytest.mark.processes
@pytest.mark.either_database
@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
def test_killed_relays_and_a_cluster_that_is_gone_lose_nothing(
    backend: str, request: pytest.FixtureRequest, cluster: MockCluster, tmp_path: Path
) -> None:
    """Every event at least once, each payment's in order, none skipped, with eight writers; in short."""
    with ledger_on(backend, request, tmp_path) as url, (tmp_path / "relays.log").open("wb") as log:
        database = Database(url, pool_size=12)
        env = {"ROUTER_DATABASE_URL": url, "ROUTER_KAFKA_BOOTSTRAP_SERVERS": cluster.bootstrap}
        writers, chance = Writers(database, 320, per_second=150), random.Random(1)
        with relays(python("-m", "tests.e2e.kafka_process", "0.5"), env, database, log) as town:
            town.start()
            writers.start()
            town.kill(chance, PATIENCE_S)
            during(0.5, cluster.down, cluster.up)
            writers.join(PATIENCE_S)
            drained(database, PATIENCE_S)
        verdict = judge(database, read_all(cluster.bootstrap, TOPIC))
        database.close()
    assert verdict.sound, verdict
    assert verdict.events == 320


def test_the_verdict_can_be_bad(cluster: MockCluster, producer: KafkaProducer, tmp_path: Path) -> None:
    """It sees what is missing, out of order, different, strange and double."""
    with ledger_on("sqlite", None, tmp_path) as url:  # type: ignore[arg-type]  # asked for PostgreSQL's server only
        database = Database(url, pool_size=12)
        writers = Writers(database, 80, per_second=10_000)
        writers.start()
        writers.join(PATIENCE_S)
        bodies = {
            f"{payment}:{version}": body
            for payment in ("pay_0_0", "pay_1_0")
            for version in range(1, 6)
            for body in [_told(database, payment, version)]
        }
        other = json.dumps(json.loads(bodies["pay_1_0:1"]) | {"type": "pointsman.payment.failed"}).encode()
        stranger = bodies["pay_0_0:1"].replace(b"pay_0_0", b"pay_x")
        sent = [bodies[f"pay_0_0:{version}"] for version in (2, 1, 1)] + [other]
        producer.send([*(Outgoing(json.loads(each)["subject"], each) for each in sent), Outgoing("pay_x", stranger)])
        assert producer.wait(PATIENCE_S) == (5, None)
        verdict = judge(database, read_all(cluster.bootstrap, TOPIC))
        database.close()
    assert (verdict.events, verdict.missing) == (80, 77)
    assert (verdict.strangers, verdict.different, verdict.duplicates, verdict.disordered) == (1, 1, 1, 2)
    assert not verdict.sound


def _told(database: Database, payment: str, version: int) -> bytes:
    found, _ = EventFeed(database).after(START, 1000)
    (event,) = [each for each in found if (each.payment_id, each.version) == (payment, version)]
    return events.body_of(event)
