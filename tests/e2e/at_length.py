"""`make chaos`: what the suite tries shortly, at length, on SQLite and on PostgreSQL, as tables. Two minutes each."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.chaos import FULL, SHORT, run_chaos
from tests.e2e.house import House
from tests.e2e.twins import run_twins
from tests.integration.postgres import databases

TWIN_ROUNDS = 200


def main() -> int:
    """Run, print, and answer 1 where anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["sqlite", "postgresql"], help="on one database only")
    parser.add_argument("--short", action="store_true", help="as short as in the suite")
    parser.add_argument("--seed", type=int, default=FULL.seed)
    options = parser.parse_args()
    scale = dataclasses.replace(SHORT if options.short else FULL, seed=options.seed)
    wrong = 0
    for name, database_url in _databases(options.only):
        folder = Path(tempfile.mkdtemp(prefix="chaos-"))
        _say(f"chaos on {name}, seed {scale.seed} (logs in {folder})")
        report = run_chaos(folder, database_url, scale, explain=True)
        _say(*report.lines(), "")
        twins = Path(tempfile.mkdtemp(prefix="twins-"))
        settings = {} if database_url is None else {"ROUTER_DATABASE_URL": database_url}
        house = House(twins, ROUTER_WEB_PROCESSES="2", **settings)
        try:
            _say(f"twins on {name}")
            rounds = run_twins(house, TWIN_ROUNDS)
        finally:
            house.stop()
        _say(*rounds.lines(), "")
        wrong += bool(report.wrong) + bool(rounds.wrong)
    return int(wrong > 0)


def _databases(only: str | None) -> Iterator[tuple[str, str | None]]:
    if only != "postgresql":
        yield "sqlite", None
    if only != "sqlite":
        with databases() as server:
            yield "postgresql", server.create()


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
