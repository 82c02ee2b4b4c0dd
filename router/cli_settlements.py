"""`pointsman settlements`: the providers' settlement files beside the ledger, from the command line."""

from __future__ import annotations

import argparse
import csv
import datetime as dt
import getpass
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from router.cli_commands import Add, CommandError, current_ledger
from router.clock import SystemClock, TimeOrderedIds
from router.settings import PROVIDER_NAMES, Settings

PROGRESS_S = 2.0
"""Between two lines of a long import."""
PAGE = 500
SHOWN_AT_MOST = 20


def add_commands(add: Add) -> None:
    """Put the command beside the others."""
    settlements = add("settlements", _list, "import a settlement file, and see what differs from the ledger")
    actions = settlements.add_subparsers(metavar="action")
    about = "import a file; the same one, or one that overlaps, may come again (exit code 2: something differs)"
    importing = actions.add_parser("import", help=about, description=about)
    importing.add_argument("provider", choices=PROVIDER_NAMES)
    importing.add_argument("file", type=Path)
    importing.set_defaults(command=_import)
    listing = actions.add_parser("list", help="the files that were imported, the latest first")
    listing.set_defaults(command=_list)
    show = actions.add_parser("show", help="what an import found: counts, and the first lines that differ")
    show.add_argument("id")
    show.set_defaults(command=_show)
    about = "everything in the ledger that no file has, or every line of one import, as CSV"
    export = actions.add_parser("export", help=about, description=about)
    export.add_argument("id", help="an import's id, or a provider's name for what is in the ledger only")
    export.add_argument("--verdict", help="only lines judged so: matched, amount_differs, fee_differs, …")
    export.add_argument("--from", dest="since", type=_day, metavar="YYYY-MM-DD", help="ledger only: begun since, UTC")
    export.add_argument("--to", dest="until", type=_day, metavar="YYYY-MM-DD", help="ledger only: begun before, UTC")
    export.add_argument("--grace-days", type=int, default=7, help="ledger only: younger payments are not due yet (7)")
    export.add_argument("--out", type=Path, help="a file; standard output by default")
    export.set_defaults(command=_export)


def _day(text: str) -> dt.datetime:
    try:
        return dt.datetime.combine(dt.date.fromisoformat(text), dt.time(), dt.UTC)
    except ValueError:
        raise argparse.ArgumentTypeError("not a date such as 2026-11-21") from None


def _import(options: argparse.Namespace, settings: Settings) -> int | None:
    from providers.settlement import SettlementFileError
    from router.ledger.settlements import ImportRunningError, LeaseLostError
    from router.reconciliation.files import formats
    from router.reconciliation.importing import Importer, Progress

    clock, said_at = SystemClock(), time.monotonic()

    def say(progress: Progress) -> None:
        nonlocal said_at
        if time.monotonic() - said_at >= PROGRESS_S:
            said_at = time.monotonic()
            print(f"{progress.stage}: {progress.lines} lines", file=sys.stderr)

    path: Path = options.file
    importer = Importer(current_ledger(settings), formats(settings), clock=clock, ids=TimeOrderedIds(clock))
    by = f"{getpass.getuser()}@{socket.gethostname()}"
    try:
        result = importer.run(options.provider, lambda: path.open("rb"), name=path.name, imported_by=by, progress=say)
    except SettlementFileError as error:
        raise CommandError(f"{path.name}: {error}. Nothing was imported.") from None
    except ImportRunningError:
        raise CommandError(f"another file of {options.provider} is being imported; nothing was done") from None
    except LeaseLostError:
        raise CommandError("another import took this one over; see `pointsman settlements list`") from None
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}") from None
    file = result.file
    again = ", imported before: nothing was done" if result.known else f", {file.new_lines} of them new"
    print(f"{file.id}: {file.lines} lines{again}")
    _print_counts(result.counts)
    print(f"ledger_only\t{result.missing}")
    return 2 if result.differing or result.missing else 0


def _print_counts(counts: object) -> None:
    for (verdict, kind), count in sorted(dict(counts).items()):  # type: ignore[call-overload]  # a Mapping
        print(f"{verdict}\t{kind}\t{count}")


def _list(_options: argparse.Namespace, settings: Settings) -> int | None:
    from router.ledger.settlement_views import SettlementViews

    views, before = SettlementViews(current_ledger(settings)), None
    while page := views.imports(limit=PAGE, before=before):
        for each in page:
            differ = sum(
                count for (verdict, _), count in views.counts(each.id).items() if verdict not in ("matched", "apart")
            )
            about = f"{each.lines} lines\t{each.new_lines} new\t{differ} differ\t{each.state}"
            print(f"{each.id}\t{each.provider}\t{each.account}\t{each.at:%Y-%m-%d %H:%M}\t{about}\t{each.name}")
        before = page[-1].id
    return 0


def _show(options: argparse.Namespace, settings: Settings) -> int | None:
    from router.ledger.settlement_views import SettlementViews
    from router.ledger.settlements import SettlementLedger
    from router.reconciliation.matching import DIFFERING

    database = current_ledger(settings)
    if SettlementLedger(database).get(options.id) is None:
        raise CommandError("there is no such import; `pointsman settlements list` names them")
    views = SettlementViews(database)
    counts = views.counts(options.id)
    _print_counts(counts)
    for verdict in DIFFERING:
        for each in views.lines(options.id, limit=SHOWN_AT_MOST, verdict=verdict):
            said = f"{each.settled} {each.currency}, ledger {each.expected} {each.expected_currency}"
            fee = f"fee {each.fee} {each.net_currency}, {each.fee_basis} {each.expected_fee}"
            where = f"line {each.number}\t{each.reference}\t{each.payment_id or 'no payment'}"
            print(f"{verdict}\t{where}\t{fee if verdict == 'fee_differs' else said}")
    return 0


def _export(options: argparse.Namespace, settings: Settings) -> int | None:
    database = current_ledger(settings)
    # Found before the file is opened: a wrong id must not empty last month's.
    rows = _rows(options, database)
    first = next(rows)
    if options.out is None:
        _write(sys.stdout, first, rows)
        return 0
    part = options.out.with_name(options.out.name + f".part{os.getpid()}")
    try:
        with part.open("w", encoding="utf-8", newline="") as out:
            _write(out, first, rows)
        part.replace(options.out)
    except OSError as error:
        raise CommandError(f"{options.out} cannot be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
    return 0


def _write(out: object, first: list[object], rows: Iterator[list[object]]) -> None:
    writer = csv.writer(out)  # type: ignore[arg-type]  # a text file
    writer.writerow(first)
    writer.writerows(rows)


def _rows(options: argparse.Namespace, database: object) -> Iterator[list[object]]:
    """The heading, then every row. Raises CommandError."""
    from router.ledger.settlement_views import JudgedLine, Missing, SettlementViews
    from router.ledger.settlements import SettlementLedger
    from router.reconciliation.standing import covered

    views = SettlementViews(database)  # type: ignore[arg-type]  # the ledger
    if options.id not in PROVIDER_NAMES:
        if SettlementLedger(database).get(options.id) is None:  # type: ignore[arg-type]  # the same
            raise CommandError("there is no such import; `pointsman settlements list` names them")
        yield list(JudgedLine.__slots__)
        number = 0
        while page := views.lines(options.id, limit=PAGE, verdict=options.verdict, after=number):
            yield from ([_cell(getattr(each, name)) for name in JudgedLine.__slots__] for each in page)
            number = page[-1].number
        return
    period = covered(views, options.id)
    if period is None:
        raise CommandError("no file of this provider was imported: what should be in one is not known")
    due = SystemClock().now() - dt.timedelta(days=options.grace_days)
    since = options.since or period[0]
    until = min(options.until or period[1], due)
    yield list(Missing.__slots__)
    after = None
    while found := views.missing(options.id, since, until, limit=PAGE, after=after):
        yield from ([_cell(getattr(each, name)) for name in Missing.__slots__] for each in found)
        after = (found[-1].at, found[-1].id)


def _cell(value: object) -> object:
    """Safe in a spreadsheet: no text of these begins like a formula, but for a reference that a file made up."""
    if isinstance(value, dt.datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value
