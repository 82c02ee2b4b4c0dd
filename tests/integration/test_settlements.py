"""Settlement files beside the ledger: every planted difference is found, and nothing else."""

from __future__ import annotations

import dataclasses
import datetime as dt
import io
from collections import Counter

import pytest
import sqlalchemy as sa

from router.clock import ManualClock, SequentialIds
from router.ledger.engine import Database
from router.ledger.settlement_views import SettlementViews
from router.ledger.tables import attempts, metadata
from router.reconciliation.files import formats
from router.reconciliation.importing import Importer, Result
from router.reconciliation.matching import DIFFERING
from router.settings import Settings
from tests.integration.settlement_world import World

NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
PROVIDERS = ("stripe", "adyen")


def importer(database: Database, clock: ManualClock | None = None) -> Importer:
    """As of NOW, some weeks after what the files are about."""
    return Importer(database, formats(Settings()), clock=clock or ManualClock(NOW), ids=SequentialIds())


def imported(database: Database, provider: str, file: bytes, of: Importer | None = None) -> Result:
    """Import that file."""
    return (of or importer(database)).run(provider, lambda: io.BytesIO(file), name="october.csv", imported_by="test")


def listed(database: Database, result: Result) -> Counter[tuple[str, str]]:
    """Verdict and reference of every line that is not as expected."""
    lines = SettlementViews(database).lines(result.file.id, limit=1_000_000)
    return Counter((each.verdict, each.reference or "") for each in lines if each.verdict in DIFFERING)


def missing(database: Database, world: World) -> set[tuple[str, str]]:
    """What is in the ledger only."""
    views = SettlementViews(database)
    found = views.missing(world.provider, world.at, NOW - dt.timedelta(days=7), limit=1_000_000)
    return {(each.kind, each.id) for each in found}


def counts(database: Database) -> dict[str, int]:
    """Rows of every table."""
    with database.read() as connection:
        return {
            name: connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0
            for name, table in metadata.tables.items()
        }


def fees(database: Database) -> dict[str, tuple[int, str]]:
    """What attempts cost, as the ledger has it."""
    query = sa.select(attempts.c.id, attempts.c.fee_actual, attempts.c.fee_currency)
    with database.read() as connection:
        return {id: (fee, currency) for id, fee, currency in connection.execute(query) if fee is not None}


def check(database: Database, world: World, result: Result) -> None:
    """All that was planted is listed, and nothing else."""
    assert listed(database, result) == world.found
    assert missing(database, world) == world.missing
    assert result.missing == len(world.missing)
    assert result.differing == sum(world.found.values())
    known = fees(database)
    assert {id: known.get(id) for id in world.fees} == world.fees


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_planted_difference_is_found_and_nothing_else_twice_the_same(database: Database, provider: str) -> None:
    """2,000 lines with 8 of each kind; the same file again changes nothing."""
    world = World(provider)
    world.build(2000, 8)
    world.save(database)
    first = imported(database, provider, world.file())
    check(database, world, first)
    assert first.file.new_lines == len(world.rows)
    before = counts(database)
    again = imported(database, provider, world.file())
    assert (again.known, dataclasses.replace(again, known=False)) == (True, first)
    assert counts(database) == before
    check(database, world, again)
