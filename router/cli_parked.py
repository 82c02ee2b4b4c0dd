"""`pointsman parked`: how much is parked, what cannot be tried, and its re-drive, from the command line."""

from __future__ import annotations

import argparse
import sys

from router.cli_commands import Add, CommandError, current_ledger, operator
from router.clock import SystemClock
from router.settings import Settings

PAGE = 100


def add_commands(add: Add) -> None:
    """Put the command beside the others."""
    parked = add("parked", _list, "list the parked payments that cannot be tried, or have them tried again")
    actions = parked.add_subparsers(metavar="action")
    actions.add_parser("list", help="the dead letters of every merchant, oldest first; and how much is parked")
    redrive = actions.add_parser("redrive", help="have dead letters tried again, now")
    redrive.add_argument("ids", nargs="*", metavar="id")
    redrive.add_argument("--all", action="store_true", help="every dead letter, of every merchant")
    redrive.set_defaults(command=_redrive)


def _list(_options: argparse.Namespace, settings: Settings) -> int | None:
    from router.ledger.parked import ParkedLedger

    ledger, after = ParkedLedger(current_ledger(settings)), None
    while page := ledger.dead(merchant=None, limit=PAGE, after=after):
        for payment, cause in page:
            amount = f"{payment.amount} {payment.currency}"
            since = f"since {payment.dead_at:%Y-%m-%d %H:%M:%S}"
            print(f"{payment.id}\t{payment.merchant}\t{amount}\t{cause}, {payment.faults} times\t{since}", flush=True)
        after = page[-1][0].id
    waiting = ledger.waiting()
    oldest = "" if waiting.oldest_at is None else f", the oldest since {waiting.oldest_at:%Y-%m-%d %H:%M:%S}"
    print(f"{waiting.depth} payments parked{oldest}; {waiting.dead} of them dead letters", file=sys.stderr)
    return 0


def _redrive(options: argparse.Namespace, settings: Settings) -> int | None:
    from router.ledger.parked import ParkedLedger
    from router.ledger.records import StaleError

    if bool(options.ids) == options.all:
        raise CommandError("redrive: name payments, or say --all")
    ledger, by, clock = ParkedLedger(current_ledger(settings)), operator(), SystemClock()
    ids, driven, after = list(options.ids), 0, None
    while options.all and (page := ledger.dead(merchant=None, limit=PAGE, after=after)):
        ids += [payment.id for payment, _ in page]
        after = page[-1][0].id
    for each in ids:
        try:
            found = ledger.redrive(each, merchant=None, by=by, now=clock.now())
        except StaleError:
            found = None
        if found is None and not options.all:
            print(f"{each}: no such dead letter", file=sys.stderr)
        driven += found is not None
    print(f"{driven} payments are tried again now")
    return 0 if driven or options.all else 1
