"""`pointsman flips`, as a person types it."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from router.cli import main
from router.ledger.engine import Database
from router.ledger.flips import Flip, FlipLedger


@pytest.fixture(autouse=True)
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run directory of its own for every test, with a ledger."""
    monkeypatch.setenv("ROUTER_RUN_DIR", str(tmp_path))
    assert main(["migrate"]) == 0
    return tmp_path


def test_flips_are_listed_and_one_is_undone_by_a_word(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Once; and who asked is on record."""
    capsys.readouterr()
    assert main(["flips"]) == 0
    assert capsys.readouterr().out == "no flips so far\n"
    database = Database(f"sqlite:///{run_dir / 'ledger.db'}")
    at = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
    flip = Flip("flip_1", "payments-primary-provider", "stripe", "adyen", "confirmed", "inc_stripe_1", "why", {}, at)
    assert FlipLedger(database).claim(flip)
    assert main(["flips", "list"]) == 0
    assert "flip_1  stripe -> adyen  confirmed  inc_stripe_1: why" in capsys.readouterr().out
    assert main(["flips", "restore", "flip_1", "--reason", "stripe is well"]) == 0
    assert "a worker moves payments-primary-provider back from adyen" in capsys.readouterr().out
    asked = FlipLedger(database).get("flip_1")
    assert asked is not None
    assert (asked.restore_reason, asked.state) == ("stripe is well", "confirmed")
    assert (asked.restore_by or "").startswith("operator: ")
    database.close()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["restore", "flip_9", "--reason", "x"], "there is no flip of this id"),
        (["restore", "flip_9", "--reason", ""], "--reason"),
        (["restore", "flip_9", "--reason", "4111 1111 1111 1111"], "card number"),
    ],
)
def test_what_cannot_be_done_is_one_line(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """And the exit code is 1."""
    assert main(["flips", *words]) == 1
    assert says in capsys.readouterr().err
