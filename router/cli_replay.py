"""`pointsman replay`: what the ledger's own payments would have earned under another policy."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys

from pydantic import TypeAdapter, ValidationError

from flags.contract import PRIMARY_PROVIDER, ROUTING_STRATEGY, ROUTING_TUNING, RoutingTuning
from flags.definitions import definitions, tuning_problems
from router.cli_commands import Add, current_ledger
from router.order import CurrencyCode
from router.replay.asking import Asked
from router.settings import PROVIDER_NAMES, Settings

BAD_INPUT = 2
ABOUT = (
    "run the ledger's own payments of a period through another policy, and estimate the approval rate, the cost and "
    "the net value that it would have had, with 95% intervals; changes nothing"
)


class InputError(Exception):
    """What was asked for cannot be: the message is the one line to show."""


def add_commands(add: Add) -> None:
    """Put the command beside the others."""
    replay = add("replay", _replay, ABOUT)
    moment = "a date or a time by ISO 8601; UTC where it names no zone"
    replay.add_argument("--from", dest="since", required=True, help=moment)
    replay.add_argument("--to", dest="until", required=True, help=f"{moment}; not included")
    as_it_was = "as it was for each payment by default"
    replay.add_argument("--strategy", help=f"primary-first or best-value; {as_it_was}")
    replay.add_argument("--tuning", help=f"the flag's JSON, keys left out at their defaults; {as_it_was}")
    replay.add_argument("--primary", help=as_it_was)
    replay.add_argument("--enabled", help=f"the providers that are enabled, separated by commas; {as_it_was}")
    replay.add_argument("--currency", help="only payments in it")
    replay.add_argument("--merchant", help="only this merchant's payments")
    replay.add_argument("--format", choices=["text", "json"], default="text")


def _replay(options: argparse.Namespace, settings: Settings) -> int | None:
    """0 whether or not the log can tell; 2 after one line where what is asked for cannot be."""
    from router.ledger.decision_log import DecisionLog
    from router.replay.report import replay

    try:
        since, until = _moment("--from", options.since), _moment("--to", options.until)
        if since >= until:
            raise InputError("--from: must be before --to")
        asked = _asked(options)
        currency = _currency(options.currency)
    except InputError as error:
        # One line, whatever a key of the tuning looks like.
        print(f"pointsman: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    log = DecisionLog(current_ledger(settings))
    report = replay(log.between(since, until, merchant=options.merchant, currency=currency), asked)
    period = {"from": since.isoformat(), "to": until.isoformat(), "time_zone": "UTC"}
    filters = {"currency": currency, "merchant": options.merchant}
    if options.format == "json":
        print(json.dumps({**period, "filters": filters, **report.to_json()}, indent=2))
    else:
        print(f"from {since:%Y-%m-%d %H:%M:%S} to {until:%Y-%m-%d %H:%M:%S} UTC, the end not included")
        print(report.to_text())
    return 0


def _moment(option: str, text: str) -> dt.datetime:
    try:
        found = dt.datetime.fromisoformat(text)
        return found.replace(tzinfo=dt.UTC) if found.tzinfo is None else found.astimezone(dt.UTC)
    # OverflowError: a time of the year 1 or 9999 that its zone moves out of the calendar.
    except (ValueError, OverflowError):
        raise InputError(f"{option}: not a time such as 2026-11-21 or 2026-11-21T06:00:00+01:00") from None


def _asked(options: argparse.Namespace) -> Asked:
    flags = definitions(PROVIDER_NAMES)
    for option, value, key in (
        ("--strategy", options.strategy, ROUTING_STRATEGY),
        ("--primary", options.primary, PRIMARY_PROVIDER),
    ):
        if value is not None and flags[key].problem(value) is not None:
            raise InputError(f"{option}: only {flags[key].allowed}")
    enabled = None
    if options.enabled is not None:
        enabled = frozenset(each.strip() for each in options.enabled.split(","))
        if not enabled <= set(PROVIDER_NAMES):
            raise InputError(f"--enabled: only {', '.join(PROVIDER_NAMES)}, separated by commas")
    tuning = None
    if options.tuning is not None:
        try:
            told = json.loads(options.tuning)
        except (ValueError, RecursionError):
            raise InputError(f"--tuning: {flags[ROUTING_TUNING].allowed}; this is not JSON") from None
        problems = tuning_problems(told)
        if problems:
            raise InputError(f"--tuning: {'; '.join(problems)}")
        tuning = RoutingTuning(**told)
    return Asked(options.strategy, options.primary, enabled, tuning)


def _currency(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        return str(TypeAdapter(CurrencyCode).validate_python(text))
    except ValidationError:
        raise InputError("--currency: must be a currency of ISO 4217, in capital letters") from None
