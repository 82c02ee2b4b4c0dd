"""Eight writers on a ledger, relays that are killed, and what must be found in the topic in the end."""

from __future__ import annotations

import datetime as dt
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from router.events import body_of
from router.ledger.engine import Database
from router.ledger.event_feed import START, EventFeed
from router.ledger.payments import PaymentLedger
from router.ledger.records import Payment
from router.ledger.relays import Relay, RelayLedger
from router.ledger.tables import payment_events
from tests.e2e.house import eventually
from tests.fakes.kafka import Record
from tests.fakes.payments import a_payment, passed_on

TOPIC = "pointsman.payments"
WRITERS = 8
EVENTS_OF_A_PAYMENT = 5
LATE_S = 0.2
"""At most so long does a transaction stay open after its event has its number: every fifth of them."""


class Writers:
    """Eight threads that write payments' events, some of which are committed late."""

    def __init__(self, database: Database, events: int, *, per_second: float) -> None:
        self._database = database
        self._ledger = PaymentLedger(database)
        each = events // WRITERS
        pause_s = WRITERS / per_second
        self._threads = [
            threading.Thread(target=self._write, args=(writer, each, pause_s), daemon=True)
            for writer in range(WRITERS)
        ]
        self.errors: list[BaseException] = []

    def start(self) -> None:
        """Begin to write."""
        for each in self._threads:
            each.start()

    @property
    def writing(self) -> bool:
        """Whether any has something to write."""
        return any(each.is_alive() for each in self._threads)

    def join(self, within_s: float) -> None:
        """Wait until everything is written."""
        until = time.monotonic() + within_s
        for each in self._threads:
            each.join(max(0.0, until - time.monotonic()))
        assert not self.writing, "the writers are too slow"
        assert not self.errors

    def _write(self, writer: int, events: int, pause_s: float) -> None:
        chance = random.Random(writer)
        try:
            for payment_id in (f"pay_{writer}_{number}" for number in range(events // EVENTS_OF_A_PAYMENT)):
                payment = self._create(payment_id, chance)
                time.sleep(pause_s * chance.random() * 2)
                for _ in range(EVENTS_OF_A_PAYMENT - 1):
                    changes = {"status": "captured", "amount_captured": payment.amount_captured + 1}
                    now = dt.datetime.now(dt.UTC)
                    payment = self._ledger.change(payment, changes, event="settled", now=now)
                    time.sleep(pause_s * chance.random() * 2)
        except BaseException as error:
            self.errors.append(error)
            raise

    def _create(self, payment_id: str, chance: random.Random) -> Payment:
        now = dt.datetime.now(dt.UTC)
        payment = a_payment(payment_id, created_at=now, updated_at=now)
        if chance.random() < 0.2:
            with self._database.write() as connection:
                passed_on(connection, payment)
                time.sleep(chance.random() * LATE_S)
        else:
            self._ledger.create(payment, key=payment_id, fingerprint="f", repeat=False, first=None)
        return payment


@dataclass(slots=True)
class Relays:
    """Relay processes, one of which works at a time."""

    command: Sequence[str]
    env: Mapping[str, str]
    ledger: RelayLedger
    log: Any
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    kills: int = 0

    def start(self) -> None:
        """One more."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ROUTER_")}
        self.running.append(
            subprocess.Popen(
                self.command, env=inherited | dict(self.env), stdin=subprocess.PIPE, stdout=self.log, stderr=self.log
            )
        )

    def row(self) -> Relay | None:
        """Who works, and how far."""
        lags = self.ledger.lags(dt.datetime.now(dt.UTC))
        return lags[0].relay if lags else None

    def kill(self, chance: random.Random, within_s: float) -> None:
        """SIGKILL the one that works, at a moment in which it does, and start another."""
        self.moves(within_s)
        time.sleep(chance.random() * 0.3)
        row = self.row()
        assert row is not None
        assert row.holder is not None
        pid = int(row.holder.split(":")[1])
        (working,) = [each for each in self.running if each.pid == pid]
        working.send_signal(signal.SIGKILL)
        working.wait(10)
        self.running.remove(working)
        self.start()
        self.kills += 1

    def moves(self, within_s: float) -> None:
        """Wait until the position moves."""
        before = self.row()
        there = None if before is None else before.position
        eventually(lambda: (row := self.row()) is not None and row.position != there, within_s)

    def stop(self) -> None:
        """End those that still run."""
        for each in self.running:
            each.send_signal(signal.SIGKILL)
            each.wait(10)


@contextmanager
def relays(command: Sequence[str], env: Mapping[str, str], database: Database, log: Any) -> Iterator[Relays]:
    """Relay processes that end with the block."""
    found = Relays(command, env, RelayLedger(database), log)
    try:
        yield found
    finally:
        found.stop()


def drained(database: Database, within_s: float) -> None:
    """Wait until the relay has passed everything there is."""

    def done() -> bool:
        lags = RelayLedger(database).lags(dt.datetime.now(dt.UTC))
        return bool(lags) and lags[0].events == 0

    eventually(done, within_s)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the topic holds beside what the ledger does."""

    events: int
    missing: int
    strangers: int
    """Messages that the ledger knows no event of."""
    different: int
    """Messages that say something else than their event."""
    duplicates: int
    disordered: int
    """Messages of a payment that are seen for the first time after a later one of it."""

    @property
    def sound(self) -> bool:
        """At least once, in order, nothing else."""
        return not (self.missing or self.strangers or self.different or self.disordered)


def judge(database: Database, records: Sequence[Record]) -> Verdict:
    """Compare the topic with the ledger."""
    expected = _expected(database)
    seen: Counter[str] = Counter()
    latest: dict[str, int] = {}
    strangers = different = disordered = 0
    for record in records:
        body = json.loads(record.value)
        event_id, payment, version = body["id"], body["data"]["payment"], body["data"]["version"]
        if event_id not in expected:
            strangers += 1
        elif expected[event_id] != record.value or record.key != payment:
            different += 1
        if not seen[event_id]:
            disordered += version != latest.get(payment, 0) + 1
            latest[payment] = version
        seen[event_id] += 1
    return Verdict(
        events=len(expected),
        missing=len(expected.keys() - seen.keys()),
        strangers=strangers,
        different=different,
        duplicates=seen.total() - len(seen),
        disordered=disordered,
    )


def _expected(database: Database) -> Mapping[str, bytes]:
    """Every event of the ledger, as it is to be told; counted by the table, not by the feed."""
    feed, position, found = EventFeed(database), START, dict[str, bytes]()
    while True:
        events, position = feed.after(position, 1000)
        if not events:
            break
        found |= {f"{each.payment_id}:{each.version}": body_of(each) for each in events}
    with database.read() as connection:
        table = payment_events.c
        written = {f"{row[0]}:{row[1]}" for row in connection.execute(sa.select(table.payment_id, table.version))}
    assert found.keys() == written
    return found


def python(*arguments: str) -> Sequence[str]:
    """A command of this interpreter."""
    return [sys.executable, *arguments]


def during(outage_s: float, down: Callable[[], object], up: Callable[[], object]) -> None:
    """Take the broker away for so long."""
    down()
    try:
        time.sleep(outage_s)
    finally:
        with suppress(KeyboardInterrupt):
            up()
