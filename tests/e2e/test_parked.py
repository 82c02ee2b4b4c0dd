"""Every provider down, on real processes: parked, and paid once when they are back. `make parked`: at length."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.parked import Drill, run_parked
from tests.integration.postgres import Databases, databases

pytestmark = pytest.mark.processes

SHORT = Drill(60, workers=2, kills=2)


@pytest.mark.timeout(240)
@pytest.mark.either_database
@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
def test_what_was_parked_is_paid_once_and_no_faster_than_the_ramp_allows(tmp_path: Path, backend: str) -> None:
    """Sixty payments over two workers, of which one is killed twice while they pay."""
    if backend == "sqlite":
        report = run_parked(tmp_path, None, SHORT)
    else:
        with databases() as server:
            report = run_parked(tmp_path, _new(server), SHORT)
    shown = "\n".join(report.lines())
    print(shown)  # noqa: T201 - calls a second, for whoever runs it with -s
    assert not report.wrong, shown
    assert report.killed == SHORT.kills, shown


def _new(server: Databases) -> str:
    return server.create()
