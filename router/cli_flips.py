"""`pointsman flips`: what the router changed by itself, and its undoing, from the command line."""

from __future__ import annotations

import argparse

from router.cli_commands import Add, CommandError, check_reason, current_ledger, operator
from router.clock import SystemClock
from router.settings import Settings

SHOWN_AT_MOST = 20


def add_commands(add: Add) -> None:
    """Put the command beside the others."""
    flips = add("flips", _list, "list the flips of the primary flag, or have one undone")
    actions = flips.add_subparsers(metavar="action")
    actions.add_parser("list", help=f"the last {SHOWN_AT_MOST}, newest first")
    restore = actions.add_parser(
        "restore", help="end the override at once, and have the flag serve again what it did, if nobody touched it"
    )
    restore.add_argument("id")
    restore.add_argument("--reason", required=True, help="for the audit record")
    restore.set_defaults(command=_restore)


def _list(_options: argparse.Namespace, settings: Settings) -> int | None:
    from router.ledger.flips import FlipLedger

    found = FlipLedger(current_ledger(settings)).newest(limit=SHOWN_AT_MOST)
    if not found:
        print("no flips so far")
    for each in found:
        asked = (
            f", to be restored since {each.restore_at:%H:%M:%S}" if each.restore_at and not each.restored_at else ""
        )
        print(f"{each.created_at:%Y-%m-%d %H:%M:%S}  {each.id}  {each.from_value} -> {each.to_value}  ", end="")
        print(f"{each.state}{asked}  {each.incident}: {each.reason}" + (f" ({each.cause})" if each.cause else ""))
    return 0


def _restore(options: argparse.Namespace, settings: Settings) -> int | None:
    from router.ledger.flips import FlipLedger, RestoreRefusedError

    check_reason(options.reason)
    ledger = FlipLedger(current_ledger(settings))
    try:
        flip = ledger.ask_restore(options.id, by=operator(), reason=options.reason, at=SystemClock().now())
    except RestoreRefusedError as error:
        raise CommandError(str(error)) from None
    if flip is None:
        raise CommandError("there is no flip of this id: `pointsman flips list` shows them")
    follows = {
        "confirmed": f"a worker moves {flip.flag} back from {flip.to_value}, if nobody has touched it since",
        "superseded": f"{flip.flag} is not moved any more",
    }
    looks = f"a worker looks what became of the change of {flip.flag}, and undoes it"
    print(f"{flip.id}: its override has ended; {follows.get(flip.state, looks)}")
    return 0
