"""Short versions of `make overload` and `make rolling`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.load.customers import summary
from tests.load.rolling import rolling
from tests.load.town import town

pytestmark = pytest.mark.processes


def test_who_finds_no_place_hears_it_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    """Four places at a provider that takes 100 ms: 40 a second at most, and 200 a second come."""
    with town(tmp_path, ROUTER_WEB_THREADS="4") as found:
        found.both("slow", latency_ms=100)
        told = found.customers(200, 3)
        answers = summary(told)
        assert set(answers["answers"]) == {"201", "503 overloaded"}
        assert answers["refused_without_retry_after"] == 0
        assert answers["refused_ms"]["p50"] < answers["paid_ms"]["p50"]
        assert found.house.pay()[0] == 201
        books = found.reckon()
        assert (books.wrong, books.unsettled) == ([], [])
        assert books.payments == answers["answers"]["201"] + 1


def test_processes_replaced_in_turn_fail_no_request(tmp_path: Path) -> None:
    """Two, by SIGTERM, while thirty payments a second come over connections that are kept."""
    found = rolling(tmp_path, rounds=1, per_second=30, rest_s=0.5)
    assert found["replaced"] == 2
    assert set(found["customers"]["answers"]) == {"201"}
    assert (found["books"]["wrong"], found["books"]["unsettled"]) == ([], [])
