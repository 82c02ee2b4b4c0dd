"""Reports of a made-up ledger are what plain Python counts from its raw rows, whatever they are grouped by."""

from __future__ import annotations

import contextlib
import datetime as dt
import sqlite3
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from router.clock import ManualClock
from router.generate import NotEmptyError, Plan, generate
from router.ledger.engine import Database
from router.ledger.rollups import Rollups
from router.reports.query import query
from router.reports.report import report
from router.reports.rollup import Rollup
from tests.integration import recount
from tests.integration.ledgers import BACKENDS, ledger_on

START = dt.datetime(2026, 10, 1, tzinfo=dt.UTC)
NOW = dt.datetime(2026, 12, 31, tzinfo=dt.UTC)
PAYMENTS = 800
ASKED: tuple[tuple[str, tuple[str, ...], dict[str, str]], ...] = (
    ("UTC", ("currency",), {}),
    ("Europe/Berlin", ("day", "provider", "currency"), {}),
    ("America/New_York", ("hour", "currency"), {"merchant": "north"}),
    ("Asia/Kolkata", ("day", "merchant", "currency"), {}),
    ("Asia/Kathmandu", ("country", "currency"), {}),
    ("UTC", ("day", "brand", "decline_class", "currency"), {}),
    ("Europe/Berlin", ("decline_class", "currency"), {"provider": "stripe"}),
    ("Europe/Berlin", ("day", "country", "currency"), {}),
    ("Asia/Tokyo", ("day", "brand", "currency"), {"merchant": "default"}),
    ("Asia/Kathmandu", ("hour", "currency"), {}),
)


@contextlib.contextmanager
def cursor_on(url: str) -> Iterator[tuple[Any, str]]:
    """The driver's own cursor, and how it marks a parameter."""
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            yield connection.cursor(), "?"
    else:
        plain = url.replace("postgresql+psycopg", "postgresql")
        with psycopg.connect(plain) as connection:
            yield connection.cursor(), "%s"


@pytest.fixture(scope="module", params=BACKENDS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Database, str]]:
    """A month of payments, with its rollup."""
    with ledger_on(request.param, request, tmp_path_factory.mktemp("reports")) as url:
        database = Database(url, pool_size=4)
        assert list(generate(database, Plan(PAYMENTS, START, 31)))[-1] == PAYMENTS
        assert Rollup(Rollups(database), ManualClock(NOW)).run_once().caught_up
        yield database, url
        database.close()


@pytest.fixture(scope="module")
def counted(made: tuple[Database, str]) -> list[tuple[recount.Asked, recount.Found]]:
    """The same by plain Python."""
    periods = []
    for zone, group_by, only in ASKED:
        wanted = query("2026-10-01", "2026-11-01", time_zone=zone, now=NOW)
        periods.append(recount.Asked(wanted.start, wanted.end, zone, group_by, only))
    with cursor_on(made[1]) as (cursor, marker):
        return list(zip(periods, recount.recount(recount.raw(cursor, marker), periods), strict=True))


@pytest.mark.parametrize("which", range(len(ASKED)), ids=[f"{a[0]} {','.join(a[1])}" for a in ASKED])
def test_every_report_is_what_the_raw_rows_say(
    made: tuple[Database, str], counted: list[tuple[recount.Asked, recount.Found]], which: int
) -> None:
    """To the minor unit, by any group, in any zone, whether from cells or from facts."""
    asked, found = counted[which]
    wanted = query(
        "2026-10-01", "2026-11-01", time_zone=asked.zone, group_by=asked.group_by, filters=asked.only, now=NOW
    )
    with Rollups(made[0]).moment() as sources:
        told = report(wanted, sources)
    assert told.standing.complete
    assert len(told.rows) > 3
    assert list(recount.differences([each.name for each in told.columns], told.rows, asked, found)) == []


def test_made_up_payments_are_not_put_among_others(made: tuple[Database, str]) -> None:
    """A ledger with payments is left alone."""
    with pytest.raises(NotEmptyError):
        list(generate(made[0], Plan(1, START, 1)))
