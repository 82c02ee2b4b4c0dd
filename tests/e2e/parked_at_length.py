"""`make parked`: a thousand payments parked and paid, one worker and two, killed and not, on both databases."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.parked import Drill, run_parked
from tests.integration.postgres import databases


def main() -> int:
    """Run, print, and answer 1 where anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["sqlite", "postgresql"], help="on one database only")
    parser.add_argument("--payments", type=int, default=1000)
    parser.add_argument("--workers", type=int, choices=[1, 2], help="with that many only")
    options = parser.parse_args()
    count = options.payments
    drills = [
        Drill(count, workers=1, measures_sandbox=True),
        Drill(count, workers=2),
        Drill(count, workers=2, kills=5, within_s=90.0),
    ]
    wrong = 0
    for backend in ("sqlite", "postgresql"):
        if options.only not in (None, backend):
            continue
        for drill in drills:
            if options.workers not in (None, drill.workers):
                continue
            with _database(backend) as database_url:
                report = run_parked(Path(tempfile.mkdtemp(prefix="parked-")), database_url, drill)
            sys.stdout.write("".join(f"{line}\n" for line in [*report.lines(), ""]))
            sys.stdout.flush()
            wrong += bool(report.wrong)
    return int(wrong > 0)


@contextlib.contextmanager
def _database(backend: str) -> Iterator[str | None]:
    if backend == "sqlite":
        yield None
        return
    with databases() as server:
        yield server.create()


if __name__ == "__main__":
    sys.exit(main())
