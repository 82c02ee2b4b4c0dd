"""`pointsman fees`: what providers charge, from a file, for one sale, and beside what they charged."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

from router.cli_commands import Add, CommandError, current_ledger
from router.clock import SystemClock
from router.settings import PROVIDER_NAMES, Settings

EXAMPLE = Decimal("60.00")
"""The sale that each line is shown with; in the decimals that any currency has, it is close enough."""


def add_commands(add: Add) -> None:
    """Put the command beside the others."""
    fees = add("fees", _check, "check a file of fees, quote one, or compare with what was charged")
    actions = fees.add_subparsers(metavar="action", required=True)
    check = actions.add_parser("check", help="every error of a file with its line; or its prices, if there is none")
    check.add_argument("file", type=Path)
    check.set_defaults(command=_check)
    quote = actions.add_parser("quote", help="what each provider would charge for one sale")
    quote.add_argument("amount", help="in major units, as 60.00")
    quote.add_argument("currency")
    quote.add_argument("--brand")
    quote.add_argument("--funding", choices=["credit", "debit", "prepaid"])
    quote.add_argument("--region", choices=["domestic", "regional", "international"])
    quote.add_argument("--on", type=_day, metavar="YYYY-MM-DD", help="the day of the sale; today by default")
    quote.add_argument("--file", type=Path, help="instead of ROUTER_FEES_FILE")
    quote.set_defaults(command=_quote)
    difference = actions.add_parser("difference", help="what was estimated and what was charged, where it is told")
    difference.add_argument("--from", dest="since", type=_day, required=True, metavar="YYYY-MM-DD", help="in UTC")
    difference.add_argument("--to", dest="until", type=_day, required=True, metavar="YYYY-MM-DD", help="not included")
    difference.set_defaults(command=_difference)


def _day(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("not a date such as 2026-11-21") from None


def _check(options: argparse.Namespace, _settings: Settings) -> int | None:
    from providers.fees import Sale
    from providers.fees_file import FeesFileError, by_provider, load

    today = SystemClock().now().date()
    try:
        book = load(options.file, providers=PROVIDER_NAMES, today=today)
    except FeesFileError as error:
        for finding in error.findings:
            print(f"{options.file}:{finding}")
        if error.more:
            print("… and more", file=sys.stderr)
        print(f"{len(error.findings)}{' and more' if error.more else ''} errors", file=sys.stderr)
        return 1
    except OSError as error:
        raise CommandError(f"{options.file} cannot be read: {error.strerror}") from None
    heads = (
        "line",
        "currency",
        "brand",
        "funding",
        "region",
        "percent",
        "fixed",
        "attempt",
        f"of {EXAMPLE}",
        "holds",
    )
    for provider, lines in by_provider(book).items():
        rows: list[Sequence[str]] = [heads]
        for line in lines:
            currency, brand, funding, region = line.cell
            # Quoted as any sale would be, on a day on which this line holds.
            sale = Sale(EXAMPLE, currency or "XXX", brand, funding, region, max(line.since, today))
            fee = book.quote(provider, sale)
            over = line.until is not None and line.until <= today
            rows.append(
                (
                    str(line.number),
                    *(each or "any" for each in line.cell),
                    f"{line.percent}%",
                    str(line.fixed),
                    str(line.per_attempt),
                    "" if over else str(fee.fee + fee.attempt),
                    _holds(line.since, line.until, today),
                )
            )
        print(f"{provider}\n{_table(rows)}\n")
    print(f"{len(book.lines)} lines, no error")
    return 0


def _holds(since: dt.date, until: dt.date | None, today: dt.date) -> str:
    if until is not None and until <= today:
        return f"until {until}: over"
    words = [f"from {since}" if since > today else f"since {since}"]
    if until is not None:
        words.append(f"until {until}")
    return ", ".join(words)


def _quote(options: argparse.Namespace, settings: Settings) -> int | None:
    from providers.currencies import ISO_EXPONENTS
    from providers.fees import Sale
    from router.fee_book import fee_book

    today = SystemClock().now().date()
    if options.file is not None:
        settings = settings.model_copy(update={"fees_file": options.file})
    book = fee_book(settings, today)
    try:
        amount = Decimal(options.amount)
    except InvalidOperation:
        raise CommandError("amount: not a number such as 60.00") from None
    if not amount.is_finite() or not 0 < amount < 10**12:
        raise CommandError("amount: more than 0, in major units")
    currency = options.currency.upper()
    if currency not in ISO_EXPONENTS:
        raise CommandError("currency: three letters of ISO 4217")
    sale = Sale(amount, currency, options.brand, options.funding, options.region, options.on or today)
    rows: list[Sequence[str]] = [("provider", "fee", "attempt", "line")]
    for provider in PROVIDER_NAMES:
        fee, line = book.quote(provider, sale), book.line_for(provider, sale)
        shown = "none holds on that day" if line is None else str(line.number or "default")
        rows.append((provider, str(fee.fee), str(fee.attempt), shown))
    print(_table(rows))
    return 0


def _difference(options: argparse.Namespace, settings: Settings) -> int | None:
    from router.fee_difference import differences
    from router.ledger.actual_fees import ActualFees

    if options.until <= options.since:
        raise CommandError("--to: must be after --from")
    since, until = (dt.datetime.combine(day, dt.time(), dt.UTC) for day in (options.since, options.until))
    found = differences(ActualFees(current_ledger(settings)).between(since, until))
    if not found:
        print("no provider has told a fee of a payment of these days")
        return 0
    heads = ("provider", "currency", "payments", "estimated", "actual", "difference", "basis points")
    rows: list[Sequence[str]] = [(*heads, "settled otherwise", "not estimated")]
    for each in found:
        points = each.basis_points
        sums = (f"{figure:.4f}" for figure in (each.estimated, each.actual, each.difference))
        left_out = (str(each.settled_otherwise), str(each.not_estimated))
        shown = "-" if points is None else f"{points:.2f}"
        rows.append((each.provider, each.currency, str(each.payments), *sums, shown, *left_out))
    print(_table(rows))
    return 0


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
