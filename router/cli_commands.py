"""What the commands share. It imports little: those that run the service begin with it, several times a house."""

from __future__ import annotations

import argparse
import getpass
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from router.pan import contains_pan
from router.settings import Settings

if TYPE_CHECKING:
    from router.ledger.engine import Database

REASON_AT_MOST = 255

Add = Callable[[str, Callable[[argparse.Namespace, Settings], int | None], str], argparse.ArgumentParser]


class CommandError(Exception):
    """The command cannot be done; the message is the one line to show."""


def current_ledger(settings: Settings) -> Database:
    """The ledger, if its tables are this version's. Raises CommandError."""
    from router.ledger.engine import Database
    from router.ledger.migrate import is_current

    database = Database(settings.ledger_url, pool_size=1)
    if not is_current(database):
        raise CommandError("the ledger's tables are another version's, or none: `pointsman migrate` brings them here")
    return database


def actions_of(command: argparse.ArgumentParser) -> Add:
    """What puts actions below a command, as `Add` puts commands beside the others."""
    actions = command.add_subparsers(metavar="action")

    def add(
        name: str, does: Callable[[argparse.Namespace, Settings], int | None], about: str
    ) -> argparse.ArgumentParser:
        about = about.replace("%", "%%")  # argparse formats both with it
        action = actions.add_parser(name, help=about, description=about)
        action.set_defaults(command=does)
        return action

    return add


def check_reason(reason: str) -> None:
    """Raises CommandError for one that cannot go on record."""
    if not 0 < len(reason) <= REASON_AT_MOST or not reason.isprintable():
        raise CommandError(f"--reason: 1 to {REASON_AT_MOST} printable characters")
    if contains_pan(reason):
        raise CommandError("--reason: must not hold a card number")


def operator() -> str:
    """Who runs this command, for the audit record."""
    return f"operator: {_user()} at {socket.gethostname()}"


def _user() -> str:
    """Who runs this command; by number in a container, whose user has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # OSError since Python 3.13
        return f"uid {os.getuid()}"
