"""Figures over real processes: two web processes and a worker, one of them killed, and none of the figures falls."""

from __future__ import annotations

import concurrent.futures
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest
import urllib3
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.house import House, eventually

pytestmark = pytest.mark.processes
PAYMENTS = 24


def scrape(house: House) -> Mapping[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample, whichever process answered."""
    answer = urllib3.request("GET", f"{house.url}/metrics", retries=urllib3.Retry(3), timeout=10)
    assert answer.status == 200
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.data.decode())
        for sample in family.samples
    }


def total(house: House, name: str, **labels: str) -> float:
    """The sum of the samples of that name with these labels."""
    wanted = set(labels.items())
    return sum(value for (each, has), value in scrape(house).items() if each == name and wanted <= has)


def counters(house: House) -> Mapping[tuple[str, frozenset[tuple[str, str]]], float]:
    """What may never fall."""
    ends = ("_total", "_bucket", "_count", "_sum")
    return {key: value for key, value in scrape(house).items() if key[0].endswith(ends)}


def pay(house: House, count: int) -> None:
    """So many payments, all captured, over several connections: both web processes get some."""
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        for status, answer in pool.map(lambda _: house.pay(), range(count)):
            assert (status, answer["status"]) == (201, "captured")


def test_a_killed_process_takes_no_figure_with_it(tmp_path: Path) -> None:
    """kill -9 of a web process: another takes its place, its counts stay, and the sums are the ledger's."""
    house = House(tmp_path, ROUTER_WEB_PROCESSES="2")
    try:
        eventually(lambda: total(house, "pointsman_processes", role="web") == 2, 20)
        eventually(lambda: total(house, "pointsman_processes", role="worker") == 1, 20)
        pay(house, PAYMENTS)
        assert total(house, "pointsman_payments_total", status="captured") == PAYMENTS
        assert total(house, "pointsman_provider_call_seconds_count", call="authorize") == PAYMENTS
        assert total(house, "pointsman_loop_rounds_total", loop="parked") > 0  # a worker's, told by a web process
        seen = counters(house)
        folder = house.run_dir / "metrics"
        lives = {each.name for each in folder.glob("web-*.alive")}
        assert len(lives) == 2
        os.kill(house.pids()["web"][-1], signal.SIGKILL)
        eventually(lambda: len({each.name for each in folder.glob("web-*.alive")} - lives) >= 1, 20)
        eventually(lambda: total(house, "pointsman_processes", role="web") == 2, 20)
        after = counters(house)
        assert not [key for key, value in seen.items() if after.get(key, 0.0) < value]
        pay(house, PAYMENTS)
        assert total(house, "pointsman_payments_total", status="captured") == 2 * PAYMENTS
        assert total(house, "pointsman_payments_created_total") == 2 * PAYMENTS
        assert total(house, "pointsman_attempts_total", outcome="approved") == 2 * PAYMENTS
        # One archive, and the files of those who live: web, web, worker, and what was killed is in the archive.
        assert len(list(folder.glob("*.alive"))) == 3
        assert len(list(folder.glob("counter_archive-*.db"))) == 1
    finally:
        house.stop()
