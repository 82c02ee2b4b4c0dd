"""`pointsman report`, `rollup` and `generate-ledger`: reports as files, their rollup, and a ledger to try them on."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
import time
from pathlib import Path

from router.cli_commands import Add, CommandError, current_ledger
from router.clock import SystemClock
from router.reports.query import GROUPS, Query, QueryError
from router.settings import Settings

PROGRESS_S = 2.0
BAD_INPUT = 2


def add_commands(add: Add) -> None:
    """Put the commands beside the others."""
    report = add("report", _report, "write a period's report to a file; the format is the file's ending")
    report.add_argument("--month", metavar="YYYY-MM", help="in the time zone; or say --from and --to")
    report.add_argument("--from", dest="since", help="a day, or a time by ISO 8601")
    report.add_argument("--to", dest="until", help="the same; not included")
    report.add_argument("--time-zone", default="UTC", help="of the IANA database; UTC by default")
    report.add_argument("--group-by", default="day,provider", help=f"any of {', '.join(GROUPS)}")
    report.add_argument("--merchant", help="only this merchant's payments; all by default")
    report.add_argument("--rates", type=Path, help="a table of exchange rates (JSON): more columns, in one currency")
    report.add_argument("--compare", choices=["primary"], help="routing against always taking the primary")
    report.add_argument("--out", type=Path, required=True, help="a file that ends in .csv, .xlsx or .json")

    rollup = add("rollup", _rollup, "look at every payment anew and put the reports' sums right where they are not")
    rollup.add_argument("action", choices=["rebuild"])
    about = "where there is no rollup yet: leave out payments created before"
    rollup.add_argument("--kept-from", type=_day, metavar="YYYY-MM-DD", help=about)

    made = add("generate-ledger", _generate, "fill an empty ledger with made-up payments, the same for the same seed")
    made.add_argument("--payments", type=int, default=1_000_000)
    made.add_argument("--from", dest="since", type=_day, default="2026-10-01", metavar="YYYY-MM-DD")
    made.add_argument("--days", type=int, default=31)
    made.add_argument("--seed", type=int, default=1)


def _day(text: str) -> dt.datetime:
    try:
        return dt.datetime.combine(dt.date.fromisoformat(text), dt.time(), dt.UTC)
    except ValueError:
        raise argparse.ArgumentTypeError("not a date such as 2026-10-01") from None


def _report(options: argparse.Namespace, settings: Settings) -> int | None:
    """0, or 2 after one line where what is asked for cannot be. The file is there whole, or not at all."""
    from router.ledger.decision_log import DecisionLog
    from router.ledger.rollups import Rollups
    from router.reports import rates as exchange
    from router.reports.compared import against_the_primary
    from router.reports.files import TooManyRowsError, streamed
    from router.reports.sending import TYPES, writer

    kind = options.out.suffix[1:]
    if kind not in TYPES:
        return _refused("--out: must end in .csv, .xlsx or .json")
    now = SystemClock().now()
    try:
        wanted = _asked(options, now)
        rates = None if options.rates is None else exchange.load(options.rates)
        database = current_ledger(settings)
        compared = None if options.compare is None else against_the_primary(DecisionLog(database), wanted)
        partial = options.out.with_name(options.out.name + ".partial")
        try:
            with Rollups(database).moment() as sources, partial.open("wb") as out:
                found = streamed(wanted, sources, made_at=now, rates=rates, comparison=compared)
                writer(kind)(found, out)
            partial.replace(options.out)
        finally:
            partial.unlink(missing_ok=True)
    except QueryError as error:
        return _refused(f"--{error.field.replace('_', '-')}: {error.problem}")
    except exchange.RatesError as error:
        return _refused(f"--rates: {error}")
    except TooManyRowsError:
        return _refused("--out: a workbook's sheet does not hold so many rows; a .csv does")
    except OSError as error:
        raise CommandError(f"{error.filename} cannot be used: {error.strerror}") from None
    if not found.standing.complete:
        since = found.standing.behind_since
        what = "payments of before it began" if since is None else f"changes since {since:%Y-%m-%d %H:%M:%S} UTC"
        print(f"pointsman: the rollup is behind: {what} are not in it; is a worker running?", file=sys.stderr)
    return 0


def _asked(options: argparse.Namespace, now: dt.datetime) -> Query:
    from router.reports.query import month, query

    filters = {} if options.merchant is None else {"merchant": options.merchant}
    if options.month is not None:
        if options.since is not None or options.until is not None:
            raise QueryError("month", "instead of --from and --to, not beside them")
        return month(options.month, time_zone=options.time_zone, group_by=options.group_by, filters=filters, now=now)
    if options.since is None or options.until is None:
        raise QueryError("from", "say --from and --to, or --month")
    return query(
        options.since,
        options.until,
        time_zone=options.time_zone,
        group_by=options.group_by,
        filters=filters,
        now=now,
    )


def _refused(line: str) -> int:
    print(f"pointsman: {' '.join(line.split())}", file=sys.stderr)
    return BAD_INPUT


def _rollup(options: argparse.Namespace, settings: Settings) -> int | None:
    from router.ledger.rollups import Rollups
    from router.reports.rollup import Rollup

    counts, said_at = {"payments": 0, "cells": 0}, time.monotonic()
    database = current_ledger(settings)
    for what, many in Rollup(Rollups(database), SystemClock()).rebuild(kept_from=options.kept_from):
        counts[what] = many
        if time.monotonic() - said_at >= PROGRESS_S:
            said_at = time.monotonic()
            print(f"{counts['payments']} payments looked at", file=sys.stderr)
    print(f"{counts['payments']} payments looked at, {counts['cells']} sums put right", file=sys.stderr)
    return 0


def _generate(options: argparse.Namespace, settings: Settings) -> int | None:
    from router.generate import NotEmptyError, Plan, generate
    from router.ledger.engine import Database
    from router.ledger.migrate import migrate

    if not 1 <= options.payments <= 100_000_000 or not 1 <= options.days <= 3660:
        raise CommandError("--payments: 1 to 100000000, and --days: 1 to 3660")
    database = Database(settings.ledger_url, pool_size=2)
    migrate(database)
    made, said_at = 0, time.monotonic()
    try:
        for made in generate(database, Plan(options.payments, options.since, options.days, options.seed)):
            if time.monotonic() - said_at >= PROGRESS_S:
                said_at = time.monotonic()
                print(f"{made} payments", file=sys.stderr)
    except NotEmptyError:
        raise CommandError("the ledger has payments: made-up ones are not put among them") from None
    print(f"{made} payments", file=sys.stderr)
    return 0
