"""`make reconcile-at-length`: 100,000 lines of each vendor with 50 planted differences of each kind, twice.

Prints how long an import took and the most memory that this process had, and how much of it the import added; exits
with 1 where anything planted is not found, or anything else is.
"""

from __future__ import annotations

import argparse
import datetime as dt
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import BinaryIO

from router.clock import ManualClock, TimeOrderedIds
from router.ledger.engine import Database
from router.ledger.migrate import migrate
from router.ledger.settlement_views import SettlementViews
from router.reconciliation.files import formats
from router.reconciliation.importing import Importer, Result
from router.reconciliation.matching import DIFFERING
from router.settings import Settings
from tests.integration.settlement_world import World

NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)


def peak_mb() -> float:
    """The most memory that this process had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def found(database: Database, world: World, result: Result) -> bool:
    """Whether all that was planted is listed, and nothing else; page by page."""
    views, listed, number = SettlementViews(database), Counter[tuple[str, str]](), 0
    while page := views.lines(result.file.id, limit=1000, after=number):
        listed.update((each.verdict, each.reference or "") for each in page if each.verdict in DIFFERING)
        number = page[-1].number
    until = NOW - dt.timedelta(days=7)
    missing = {(each.kind, each.id) for each in views.missing(world.provider, world.at, until, limit=100_000)}
    return listed == world.found and missing == world.missing and result.missing == len(missing)


def build(provider: str, lines: int, planted: int, url: str, path: Path) -> World:
    """Write the ledger and the file; the world, without its rows."""
    world, database = World(provider), Database(url, pool_size=1)
    world.build(lines, planted)
    world.save(database)
    database.close()
    path.write_bytes(world.file())
    return World(provider, found=world.found, missing=world.missing)


def opening(path: Path) -> Callable[[], BinaryIO]:
    """Opens it for each reading."""
    return lambda: path.open("rb")


def main() -> int:
    """Both vendors, each with a ledger of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--planted", type=int, default=50)
    parser.add_argument("--database", help="a PostgreSQL URL of an empty database; SQLite by default")
    options, failed = parser.parse_args(), False
    for provider in ("stripe", "adyen"):
        with tempfile.TemporaryDirectory(prefix="reconcile-") as folder:
            database = Database(options.database or f"sqlite:///{folder}/ledger.db", pool_size=2)
            migrate(database)
            path = Path(folder, "settlement.csv")
            url = options.database or f"sqlite:///{folder}/ledger.db"
            # In a process of its own: what it needs would hide what the import does.
            with get_context("spawn").Pool(1) as pool:
                world = pool.apply(build, (provider, options.lines, options.planted, url, path))
            clock = ManualClock(NOW)
            importer = Importer(database, formats(Settings()), clock=clock, ids=TimeOrderedIds(clock))
            for round_ in ("first", "again"):
                before_mb, began, cpu = peak_mb(), time.monotonic(), time.process_time()
                result = importer.run(provider, opening(path), name=path.name, imported_by="x")
                took, used = time.monotonic() - began, time.process_time() - cpu
                good = found(database, world, result)
                failed |= not good
                print(
                    f"{provider} {round_}: {result.file.lines} lines, {result.differing} differ, {result.missing}"
                    f" in the ledger only: {'all planted, nothing else' if good else 'NOT what was planted'};"
                    f" {took:.1f} s ({used:.1f} s of CPU), peak {peak_mb():.0f} MB, {peak_mb() - before_mb:.0f} of it"
                    " by the import",
                    flush=True,
                )
            database.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
