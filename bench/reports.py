"""A month of a million made-up payments: every report beside plain Python's count, how long it takes, and in how much
memory. `--ledger` takes one that `pointsman generate-ledger` has made (a second run saves a quarter of an hour).

Each report runs in a process of its own, so that its peak memory is its own; times are of the second run of three,
by the wall clock and by the processor.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from router.clock import SystemClock
from router.generate import Plan, generate
from router.ledger.engine import Database
from router.ledger.migrate import migrate
from router.ledger.rollups import Rollups
from router.reports.files import streamed, write_csv, write_json
from router.reports.query import Query, query
from router.reports.report import columns_of, report, rows
from router.reports.rollup import Rollup
from router.reports.workbook import write_xlsx
from tests.integration import recount
from tests.integration.test_report_ledger import cursor_on

START, NOW = dt.datetime(2026, 10, 1, tzinfo=dt.UTC), dt.datetime(2026, 12, 31, tzinfo=dt.UTC)
ASKED = (
    ("UTC", "day,provider"),
    ("Europe/Berlin", "day,provider"),
    ("Europe/Berlin", "day,provider,merchant"),
    ("Europe/Berlin", ""),
    ("America/New_York", "hour"),
    ("Europe/Berlin", "hour,provider,merchant"),
    ("UTC", "country,brand"),
    ("Europe/Berlin", "decline_class,provider"),
    ("UTC", "day,country"),
    ("Europe/Berlin", "day,country"),
    ("Asia/Kolkata", "day"),
    ("UTC", "day,hour,provider,country,brand,merchant,decline_class"),
)
COMPARED = 11
"""Of these, so many are counted by plain Python too: the largest would fill its memory."""


def _wanted(zone: str, group_by: str) -> Query:
    return query("2026-10-01", "2026-11-01", time_zone=zone, group_by=group_by, now=NOW)


def one(url: str, zone: str, group_by: str, kind: str) -> None:
    """In a process of its own: a report three times; a line of JSON of the second."""
    database, told = Database(url, pool_size=1), {}
    for _ in range(3):
        wall, cpu, out, many = time.perf_counter(), time.process_time(), io.BytesIO(), 0
        with Rollups(database).moment() as sources, tempfile.TemporaryFile() as file:
            wanted = _wanted(zone, group_by)
            if kind == "page":
                many = len(report(wanted, sources).rows)
            elif kind == "rows":
                many = sum(1 for _ in rows(wanted, sources))
            else:
                write = {"csv": write_csv, "json": write_json, "xlsx": write_xlsx}[kind]
                write(streamed(wanted, sources, made_at=NOW), file)
                many = file.tell()
        out.close()
        told.setdefault("runs", []).append((time.perf_counter() - wall, time.process_time() - cpu))
        told["size"] = many
    told["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(told))


def _timed(url: str, zone: str, group_by: str, kind: str) -> None:
    command = [sys.executable, "-m", "bench.reports", "--one", zone, group_by, kind, "--ledger", url]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # noqa: S603 - ours
    wall, cpu = sorted(told["runs"])[1]
    what = "bytes" if kind in ("csv", "json", "xlsx") else "rows"
    print(
        f"{zone:18} {group_by or '-':56} {kind:5} {wall:7.2f} s wall {cpu:7.2f} s cpu "
        f"{told['size']:>12} {what:5} peak {told['peak_mb']} MB",
        flush=True,
    )


def main() -> int:
    """0: every report is what plain Python counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--payments", type=int, default=1_000_000)
    parser.add_argument("--ledger", help="the database's URL; a new SQLite file by default")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--no-recount", action="store_true", help="only the times")
    options = parser.parse_args()
    if options.one:
        one(options.ledger, *options.one)
        return 0
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pointsman-reports-"))
        url = options.ledger or f"sqlite:///{Path(folder) / 'ledger.db'}"
        return _bench(url, options.payments, recounted=not options.no_recount)


def _bench(url: str, payments: int, *, recounted: bool) -> int:
    database = Database(url, pool_size=2)
    migrate(database)
    with database.read() as connection:
        empty = connection.exec_driver_sql("SELECT id FROM payments LIMIT 1").one_or_none() is None
    if empty:
        began = time.perf_counter()
        for made in generate(database, Plan(payments, START, 31)):
            if made % 100_000 == 0:
                print(f"{made} payments made in {time.perf_counter() - began:.0f} s", flush=True)
    began, cpu, seen = time.perf_counter(), time.process_time(), 0
    keeper = Rollup(Rollups(database), SystemClock())
    while not (done := keeper.run_once()).caught_up:
        seen += done.payments
    if seen:
        took = time.perf_counter() - began
        print(f"rolled up {seen} payments in {took:.0f} s wall, {time.process_time() - cpu:.0f} s cpu", flush=True)
    for zone, group_by in ASKED:
        _timed(url, zone, group_by, "rows" if group_by.count(",") > 1 and "hour" in group_by else "page")
    for kind in ("csv", "json", "xlsx"):
        _timed(url, "Europe/Berlin", "day,provider", kind)
    _timed(url, "Europe/Berlin", "hour,provider,merchant", "csv")
    _timed(url, *ASKED[-1], "csv")
    return _recounted(database, url) if recounted else 0


def _recounted(database: Database, url: str) -> int:
    began = time.perf_counter()
    periods = []
    for zone, group_by in ASKED[:COMPARED]:
        wanted = _wanted(zone, group_by)
        periods.append(recount.Asked(wanted.start, wanted.end, zone, tuple(wanted.group_by)))
    with cursor_on(url) as (cursor, marker):
        found = recount.recount(recount.raw(cursor, marker), periods)
    print(f"counted by plain Python in {time.perf_counter() - began:.0f} s", flush=True)
    wrong = 0
    for (zone, group_by), period, counted in zip(ASKED[:COMPARED], periods, found, strict=True):
        with Rollups(database).moment() as sources:
            wanted = _wanted(zone, group_by)
            names = [each.name for each in columns_of(wanted)]
            lines = [each.values() for each in rows(wanted, sources)]
        different = list(recount.differences(names, lines, period, counted))
        for each in different[:5]:
            print(each)
        figures = len(lines) * (len(names) - len(wanted.group_by))
        print(f"{zone:18} {group_by or '-':40} {figures} figures, {len(different)} differ", flush=True)
        wrong += len(different)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
