"""`pointsman breaker` and `pointsman drill`: circuits from the command line."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
from pathlib import Path

from router.cli_commands import Add, CommandError, check_reason, current_ledger, operator
from router.clock import SystemClock, TimeOrderedIds
from router.settings import PROVIDER_NAMES, Settings

SHOWN_AT_MOST = 10
MINUTES_AT_MOST = 60 * 24 * 365


def add_commands(add: Add) -> None:
    """Put both commands beside the others."""
    about = "show a provider's circuit, or order it open, bypassed or back to automatic"
    breaker = add("breaker", _show_breaker, about)
    breaker.add_argument("provider", choices=PROVIDER_NAMES)
    orders = breaker.add_subparsers(metavar="order")
    for name, mode, meaning in (
        ("force-open", "forced_open", "let no payment through, however healthy it looks"),
        ("bypass", "bypass", "let every payment through, and record nothing"),
        ("metrics-only", "metrics_only", "record, and never open"),
        ("automatic", "automatic", "let the circuit decide for itself again"),
        ("reset", "reset", "close it now, and forget what was counted and every failed round"),
    ):
        order = orders.add_parser(name, help=meaning, description=meaning)
        order.add_argument("--reason", required=True, help="for the audit record")
        order.add_argument("--for-minutes", type=float, help="end the order after that long")
        order.set_defaults(command=_order_breaker, mode=mode)

    about = "outages by script against the sandbox, with real traffic, and a table of what they did"
    drill = add("drill", _drill, about)
    drill.add_argument("scripts", nargs="*", metavar="script", help="all of them where none is named")
    drill.add_argument("--per-second", type=float, help="payments, instead of each script's own pace")
    drill.add_argument("--web-processes", type=int, default=2)
    drill.add_argument("--json", type=Path, help="write the figures there too")


def _show_breaker(options: argparse.Namespace, settings: Settings) -> int | None:
    from router.ledger.circuits import CircuitLedger

    history = CircuitLedger(current_ledger(settings)).history(options.provider, limit=SHOWN_AT_MOST)
    if not history:
        print(f"{options.provider}: closed, and always has been")
    for each in history:
        share = f" at {each.share:.0%}" if each.share < 1 else ""
        mark = ", suspect" if each.suspect else ""
        until = f", until {each.until:%Y-%m-%d %H:%M:%S}" if each.until else ""
        print(f"{each.at:%Y-%m-%d %H:%M:%S}  {each.state.value}{share}{mark}{until}  by {each.actor}: {each.reason}")
    return 0


def _order_breaker(options: argparse.Namespace, settings: Settings) -> int | None:
    from router.ledger.circuits import CircuitLedger
    from router.overrides import AlreadyAutomaticError, AutomaticHasNoEndError, EndsInThePastError, Overrides

    check_reason(options.reason)
    database, clock = current_ledger(settings), SystemClock()
    until = None
    if options.for_minutes is not None:
        if not 0 < options.for_minutes <= MINUTES_AT_MOST:
            raise CommandError(f"--for-minutes: more than 0, at most {MINUTES_AT_MOST}")
        until = clock.now() + dt.timedelta(minutes=options.for_minutes)
    overrides = Overrides(PROVIDER_NAMES, CircuitLedger(database), clock=clock)
    by = operator()
    try:
        moved = overrides.order(options.provider, options.mode, reason=options.reason, by=by, until=until)
    except AlreadyAutomaticError:
        raise CommandError(f"the circuit of {options.provider} is automatic: nothing is overridden") from None
    except EndsInThePastError:
        raise CommandError("--for-minutes: ends in the past") from None
    except AutomaticHasNoEndError:
        raise CommandError("--for-minutes: an automatic circuit has no end") from None
    print(f"{options.provider}: {moved.state.value} from now on")
    return 0


def _drill(options: argparse.Namespace, _settings: Settings) -> int | None:
    from router.drill.figures import LEGEND, table
    from router.drill.run import Drill, DrillError, run
    from router.drill.scripts import SCRIPTS

    known = {script.name: script for script in SCRIPTS}
    for name in options.scripts:
        if name not in known:
            raise CommandError(f"no such script: known are {', '.join(known)}")
    chosen = [known[name] for name in options.scripts or known]
    clock = SystemClock()
    try:
        drill = Drill(chosen, web_processes=options.web_processes, per_second=options.per_second)
        found = run(drill, clock=clock, ids=TimeOrderedIds(clock), say=lambda line: print(line, file=sys.stderr))
    except DrillError as error:
        raise CommandError(str(error)) from None
    print(table(found))
    print(LEGEND)
    if options.json is not None:
        options.json.write_text(json.dumps([each.to_json() for each in found], indent=2) + "\n")
    return 1 if any(each.not_final for each in found) else 0
