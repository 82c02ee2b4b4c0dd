"""`pointsman parked`, as on-call types it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from router.cli import main
from router.ledger.engine import Database
from router.ledger.parked import ParkedLedger
from router.ledger.records import Payment
from router.settings import PREFIX
from router.transitions import State
from tests.fakes.house import an_order, build_house, move
from tests.fakes.providers import FakeProvider


@pytest.fixture
def dead(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Payment]:
    """Three parked payments, of which two are dead letters."""
    for name in os.environ:
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.setenv("ROUTER_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("ROUTER_DATABASE_URL", f"sqlite:///{tmp_path / 'ledger.db'}")
    house = build_house(database, [FakeProvider("stripe")])
    move(house.health, "stripe", State.OPEN, house.clock)
    payments = [house.pay(an_order()).payment for _ in range(3)]
    now = house.clock.now()
    for each in payments[:2]:
        ParkedLedger(database).failed(
            each.id, cause="KeyError", now=now, again_at=now, at_most=1, alert_id=f"alert_{each.id}"
        )
    return payments[:2]


def test_the_list_names_each_with_its_cause_and_says_how_much_is_parked(
    dead: list[Payment], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["parked", "list"]) == 0
    shown = capsys.readouterr()
    assert [line.split("\t")[0] for line in shown.out.splitlines()] == [each.id for each in dead]
    assert "KeyError, 1 times" in shown.out
    assert "3 payments parked" in shown.err
    assert "2 of them dead letters" in shown.err


def test_a_redrive_names_payments_or_takes_them_all(
    dead: list[Payment], database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that is no dead letter is said to be none."""
    assert main(["parked", "redrive", dead[0].id]) == 0
    assert [each.id for each, _ in ParkedLedger(database).dead(merchant=None, limit=9, after=None)] == [dead[1].id]
    assert main(["parked", "redrive", dead[0].id]) == 1
    assert f"{dead[0].id}: no such dead letter" in capsys.readouterr().err
    assert main(["parked", "redrive", "--all"]) == 0
    assert ParkedLedger(database).dead(merchant=None, limit=9, after=None) == []
    assert main(["parked", "redrive", "--all"]) == 0
    assert main(["parked", "redrive"]) == 1
    assert main(["parked", "redrive", "--all", "pay_1"]) == 1
