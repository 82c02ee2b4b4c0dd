"""A slow or dead endpoint keeps no other waiting, and a worker's threads end when they are told to."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from router.ledger.engine import Database
from router.loops import Loops
from router.webhooks_out import AT_ONCE, SLOW_S
from router.webhooks_out_lanes import POORLY_THREADS, WELL_THREADS, Lanes, add_lanes
from router.webhooks_out_post import Posted
from tests.fakes.webhooks_out import ACCEPTED, Bureau, Told
from tests.unit.webhook_receiver import until


@pytest.fixture
def bureau(database: Database) -> Bureau:
    return Bureau(database)


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """What hangs ends with the test."""
    event = threading.Event()
    yield event
    event.set()


def test_endpoints_that_hang_keep_no_other_waiting(bureau: Bureau, released: threading.Event) -> None:
    """More of them than there are threads for the well: they are known as slow, and wait for their own threads."""
    slow = [bureau.endpoint(f"slow{number}") for number in range(WELL_THREADS + POORLY_THREADS)]
    well = bureau.endpoint("well")

    def answer(told: Told) -> Posted:
        if told.url == well.url:
            return ACCEPTED
        if len(bureau.inboxes.ids(told.url)) > AT_ONCE:
            released.wait(60)
        return Posted(200, None, SLOW_S * 2)  # the first ones say that it is slow, the later ones hang

    bureau.inboxes.answer = answer
    relay = bureau.worker()
    for _ in range(AT_ONCE):
        bureau.pays()
    while relay.run_once():
        bureau.clock.advance(1)
    assert [each.is_poorly for each in relay.due()] == []
    bureau.pays()
    bureau.clock.advance(1)
    assert sorted(each.is_poorly for each in relay.due()) == [False] + [True] * len(slow)
    loops = Loops()
    add_lanes(loops, relay)
    loops.start()
    until(lambda: len(bureau.inboxes.ids(well.url)) == AT_ONCE + 1, within_s=30)
    hanging = [each for each in slow if len(bureau.inboxes.ids(each.url)) > AT_ONCE]
    assert len(hanging) <= POORLY_THREADS
    for _ in range(3):
        bureau.clock.advance(1)
        bureau.pays()
        count = len(bureau.inboxes.ids(well.url))
        until(lambda: len(bureau.inboxes.ids(well.url)) > count, within_s=30)  # noqa: B023 - called at once
    released.set()
    assert loops.stop(30)


def test_an_endpoint_is_queued_once(bureau: Bureau) -> None:
    """However often it is looked for; after its round it is found again."""
    bureau.endpoint()
    bureau.pays()
    lanes = Lanes(bureau.worker())
    assert (lanes.look_once(), lanes.look_once()) == (1, 0)
    assert (lanes.send_well(), lanes.send_poorly()) == (1, 0)
    bureau.pays()
    bureau.clock.advance(1)
    assert (lanes.look_once(), lanes.send_well()) == (1, 1)
