"""`pointsman console password`: a password for the console, beside the API keys."""

from __future__ import annotations

import argparse
import getpass
import sys

from router.cli_commands import Add, CommandError
from router.clock import SystemClock
from router.console.passwords import WeakPasswordError, hashed
from router.ledger.console_access import ConsoleAccess, Password
from router.ledger.engine import Database
from router.ledger.migrate import migrate
from router.settings import Settings


def add_commands(add: Add) -> None:
    """Put the command beside the others."""
    about = "set the console's password: whoever has it sees and may do all of that merchant's"
    console = add("console", _set_password, about)
    console.add_argument("action", choices=["password"])
    console.add_argument(
        "--merchant", default="default", help="whose payments it shows; `default` where none is named"
    )


def _set_password(options: argparse.Namespace, settings: Settings) -> int | None:
    """Asks twice on a terminal; else the first line of standard input. Every session of the old one is over."""
    try:
        kept = hashed(_asked())
    except WeakPasswordError as error:
        raise CommandError(str(error)) from None
    database = Database(settings.ledger_url, pool_size=1)
    migrate(database)
    ConsoleAccess(database).set_password(Password(options.merchant, kept, SystemClock().now()))
    print(f"set; log in at http://{settings.bind}/console", file=sys.stderr)
    return 0


def _asked() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    word = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != word:
        raise CommandError("these are not the same")
    return word
