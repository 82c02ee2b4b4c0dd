"""A settled fee is the last word: what a process read before, or a late answer, does not take its place."""

from __future__ import annotations

import dataclasses
import io

import pytest

from router.clock import ManualClock, SequentialIds
from router.ledger.engine import Database
from router.ledger.journal import Journal, Journals
from router.ledger.payments import PaymentLedger
from router.reconciliation.files import formats
from router.reconciliation.importing import Importer
from router.settings import Settings
from tests.integration.settlement_world import World
from tests.integration.test_settlements import NOW

OTHER = 777
"""A fee that neither the ledger nor a file says."""


def settle(database: Database, world: World) -> None:
    """Import the world's file."""
    clock = ManualClock(NOW)
    importer = Importer(database, formats(Settings()), clock=clock, ids=SequentialIds())
    importer.run(world.provider, lambda: io.BytesIO(world.file()), name="x.csv", imported_by="test")


def world_of(database: Database, provider: str) -> World:
    """A few payments."""
    world = World(provider)
    world.build(6, 1, ("fee",))
    world.save(database)
    return world


def opened(database: Database, attempt_id: str) -> Journal:
    """The journal of a payment as it is now, by a process that has learned something of its attempt."""
    ledger, clock = PaymentLedger(database), ManualClock(NOW)
    found = ledger.get(attempt_id.replace("att_", "pay_"))
    assert found is not None
    return Journals(ledger, deadline_s=25, clock=clock, ids=SequentialIds()).open(*found)


def fee_of(database: Database, attempt_id: str) -> tuple[int | None, str | None]:
    """As the ledger has it."""
    found = PaymentLedger(database).get(attempt_id.replace("att_", "pay_"))
    assert found is not None
    (attempt,) = found[1]
    return attempt.fee_actual, attempt.fee_currency


@pytest.mark.parametrize("provider", ["stripe", "adyen"])
@pytest.mark.parametrize("told", [False, True])
def test_a_process_that_read_before_the_settlement_does_not_put_the_old_fee_back(
    database: Database, provider: str, told: bool
) -> None:
    """Whether the process learned something else of the attempt, or a fee of its own."""
    world = world_of(database, provider)
    journals = {id: opened(database, id) for id in world.fees}
    settle(database, world)
    assert {id: fee_of(database, id) for id in world.fees} == world.fees
    for journal in journals.values():
        (attempt,) = journal.attempts
        news = dataclasses.replace(attempt, latency_us=5)
        if told:
            news = dataclasses.replace(news, fee_actual=OTHER, fee_currency="EUR")
        journal.learned(news)
        journal.finish({}, event="changed")
    assert {id: fee_of(database, id) for id in world.fees} == world.fees


@pytest.mark.parametrize("provider", ["stripe", "adyen"])
def test_an_answer_that_comes_after_the_settlement_does_not_take_its_place(database: Database, provider: str) -> None:
    """A notice of the payment, late or sent again, knows of one charge; the file of all that was settled."""
    world = world_of(database, provider)
    settle(database, world)
    for id in world.fees:
        journal = opened(database, id)
        (attempt,) = journal.attempts
        journal.learned(dataclasses.replace(attempt, fee_actual=OTHER, fee_currency="EUR"))
        journal.finish({}, event="changed")
    assert {id: fee_of(database, id) for id in world.fees} == world.fees


def test_before_any_settlement_the_latest_answer_counts(database: Database) -> None:
    """First none, then one, then another."""
    world = world_of(database, "adyen")
    id = next(iter(world.fees))
    journal = opened(database, id)
    for fee in (50, 60):
        (attempt,) = journal.attempts
        journal.learned(dataclasses.replace(attempt, fee_actual=fee, fee_currency="EUR"))
        journal.finish({}, event="changed")
        assert fee_of(database, id) == (fee, "EUR")
    journal = opened(database, id)
    (attempt,) = journal.attempts
    journal.learned(dataclasses.replace(attempt, fee_actual=70, fee_currency="USD"))
    journal.finish({}, event="changed")
    assert fee_of(database, id) == (70, "USD")
