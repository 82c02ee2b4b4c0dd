"""No payment is charged twice, none is lost, with real processes killed and paused. `make chaos`: at length."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.chaos import SHORT, run_chaos
from tests.e2e.house import House
from tests.e2e.twins import run_twins

pytestmark = pytest.mark.processes


def test_books_and_ledger_agree_after_every_fault_kills_and_a_pause(tmp_path: Path) -> None:
    """Sixty payments, a fifth of them asked for twice: all final soon after the faults end, and each charged once."""
    report = run_chaos(tmp_path, None, SHORT, explain=True)

    shown = "\n".join(report.lines())
    assert not report.wrong, shown
    assert report.final_s is not None, shown
    assert sum(report.kills.values()) == SHORT.kills, shown
    assert sum(report.pauses.values()) == SHORT.pauses, shown


def test_two_requests_with_one_key_at_the_same_instant_make_one_charge(tmp_path: Path) -> None:
    """Forty rounds over two web processes: one is paid, the other is told the same payment, or to wait."""
    house = House(tmp_path, ROUTER_WEB_PROCESSES="2")
    try:
        rounds = run_twins(house, 40)
    finally:
        house.stop()

    assert not rounds.wrong, "\n".join(rounds.lines())
