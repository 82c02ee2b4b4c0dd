"""`make kafka`: 10,000 events through real workers to a real broker over TLS, killed and taken away."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from router.ledger.engine import Database
from router.sealing import new_key
from tests.e2e.kafka_broker import Broker
from tests.e2e.kafka_town import TOPIC, Writers, drained, during, judge, python, relays
from tests.fakes.kafka import read_all
from tests.integration.ledgers import with_tables
from tests.integration.postgres import Databases, databases

HOME_VARIABLE = "ROUTER_TEST_KAFKA_HOME"
EVENTS = int(os.environ.get("ROUTER_TEST_KAFKA_EVENTS", "10000"))
KILLS = 10
GONE_S = 30.0
PER_SECOND = 50.0
"""So that there is something to pass on at every kill, which takes a lease of 6 s, and while Kafka is gone."""
PATIENCE_S = 300.0

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.processes,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(HOME_VARIABLE not in os.environ, reason=f"{HOME_VARIABLE} names no folder of Kafka's jars"),
]


@pytest.fixture
def postgres() -> Iterator[Databases]:
    """One PostgreSQL for this test."""
    with databases() as found:
        yield found


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """Kafka, on this machine."""
    broker = Broker(Path(os.environ[HOME_VARIABLE]).resolve(), tmp_path)
    yield broker
    broker.stop()


def test_ten_thousand_events_reach_a_real_broker(postgres: Databases, broker: Broker, tmp_path: Path) -> None:
    """Workers SIGKILLed ten times, the broker SIGKILLed and away for 30 s, eight writers, commits that come late."""
    url, chance, began = postgres.create(with_tables), random.Random(7), time.monotonic()
    database = Database(url, pool_size=12)
    env = broker.router_settings | {"ROUTER_DATABASE_URL": url, "ROUTER_RUN_DIR": str(tmp_path / "run")}
    env |= {"ROUTER_ENCRYPTION_KEYS": new_key()}
    writers = Writers(database, EVENTS, per_second=PER_SECOND)
    with (
        (tmp_path / "workers.log").open("wb") as log,
        relays(python("-m", "router", "worker"), env, database, log) as town,
    ):
        town.start()
        town.start()
        writers.start()
        outage = threading.Timer(20.0, during, (GONE_S, broker.stop, broker.start))
        while town.kills < KILLS:
            town.kill(chance, PATIENCE_S)
            if town.kills == KILLS // 2:
                outage.start()
        writing = writers.writing
        outage.join()
        writers.join(600)
        drained(database, PATIENCE_S)
    took_s = time.monotonic() - began
    records = read_all(broker.bootstrap, TOPIC, within_s=PATIENCE_S, **broker.client_config)
    verdict = judge(database, records)
    database.close()
    print(f"\n{verdict}\n{len(records)} messages, {town.kills} kills, {took_s:.0f} s")
    assert verdict.events == EVENTS
    assert verdict.sound, verdict
    assert writing, "everything was written before the last kill: it has shown nothing"
