"""The file of fees, as finance keeps it: CSV, one line a price. See `providers.fees` for which line prices a sale.

`provider, valid_from, valid_until, currency, brand, funding, region, percent, fixed, per_attempt`, in any order,
under these names; `valid_until` may be left out. Dates as 2026-11-21, in UTC: `valid_from` is the first day,
`valid_until` the first day no more, or empty: until the next line for the same sales. An empty currency, brand,
funding or region means any. `fixed` and `per_attempt` are in major units of the line's currency; empty means none.

Every error is told with its line and column, all of them at once, and never with the value.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

from providers.brands import BRANDS, brand_word
from providers.currencies import ISO_EXPONENTS
from providers.fees import FUNDINGS, Cell, FeeBook, FeeLine
from providers.fees_checks import Finding, gaps, in_order, overlaps
from providers.regions import REGIONS

REQUIRED = ("provider", "valid_from", "currency", "brand", "funding", "region", "percent", "fixed", "per_attempt")
COLUMNS = (*REQUIRED, "valid_until")

MOST_BYTES = 1_000_000
MOST_LINES = 5_000
MOST_ERRORS = 50
"""Told at once: more are the same mistake again."""
MOST_PERCENT = Decimal(100)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NUMBER = re.compile(r"(-?)([0-9]{1,7})(?:\.([0-9]+))?", re.ASCII)
_DECIMALS = 4
"""As many as are quoted: a price that is finer could not be checked by eye."""

_T = TypeVar("_T")


class FeesFileError(Exception):
    """The file cannot be used. `findings`: what is wrong, by line; at most MOST_ERRORS of them."""

    def __init__(self, findings: Sequence[Finding], *, more: bool = False) -> None:
        super().__init__(str(findings[0]))
        self.findings = findings
        self.more = more
        """Whether there are more than these."""


class _WrongError(Exception):
    """One cell cannot be read; the message says why, without the value."""


def load(path: Path, *, providers: Sequence[str], today: dt.date) -> FeeBook:
    """The book of a file. Raises FeesFileError, or OSError where it cannot be read."""
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    return parse(data, providers=providers, today=today)


def parse(data: bytes, *, providers: Sequence[str], today: dt.date) -> FeeBook:
    """The book of a file's bytes: UTF-8, with or without a byte order mark, any line ends.

    Each of `providers` must be priced from `today` on. Raises FeesFileError.
    """
    if len(data) > MOST_BYTES:
        raise FeesFileError([Finding(1, None, f"larger than {MOST_BYTES} bytes")])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FeesFileError([Finding(line, None, "not UTF-8: save it as CSV UTF-8")]) from None
    rows = _rows(text)
    number, header = next(rows, (1, []))
    names = [name.strip().lower() for name in header]
    if wrong := list(_wrong_header(number, names)):
        raise FeesFileError(wrong[:MOST_ERRORS], more=len(wrong) > MOST_ERRORS)
    lines, findings, unread = _read(rows, names, providers)
    ended, disordered = in_order(lines)
    # A line that cannot be read may be the one that is missed: of its provider no gap is told.
    whole = [name for name in providers if None not in unread and name not in unread]
    later = (*disordered, *gaps(ended, whole, today))
    # Of lines that overlap in their own cell it is not said again beside all others.
    across = () if disordered else overlaps(ended)
    found = [*findings, *later, *itertools.islice(across, MOST_ERRORS + 1)]
    if found:
        found.sort(key=lambda each: each.number)
        raise FeesFileError(found[:MOST_ERRORS], more=len(found) > MOST_ERRORS)
    return FeeBook(ended)


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Each row with the line on which it begins; those that are empty are left out."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    number = 1
    while True:
        try:
            row = next(reader, None)
        except csv.Error:
            raise FeesFileError(
                [Finding(max(1, number), None, "not CSV: a quote is not closed, or misplaced")]
            ) from None
        if row is None:
            return
        if any(cell.strip() for cell in row):
            yield number, row
        number = reader.line_num + 1


def _wrong_header(number: int, names: Sequence[str]) -> Iterator[Finding]:
    for place, name in enumerate(names, start=1):
        if name in COLUMNS and name in names[: place - 1]:
            yield Finding(number, name, "this column is there twice")
        elif name not in COLUMNS:
            why = f"column {place} has no name of ours: the columns are {', '.join(COLUMNS)}, separated by commas"
            yield Finding(number, None, why)
    for name in REQUIRED:
        if name not in names:
            yield Finding(number, name, "this column is missing")


def _read(
    rows: Iterator[tuple[int, list[str]]], names: Sequence[str], providers: Sequence[str]
) -> tuple[Sequence[FeeLine], Sequence[Finding], set[str | None]]:
    """The lines that can be read, what is wrong with the others, and whose those are (None: not known either)."""
    lines: list[FeeLine] = []
    findings: list[Finding] = []
    unread: set[str | None] = set()
    for count, (number, row) in enumerate(rows):
        if count >= MOST_LINES:
            findings.append(Finding(number, None, f"more than {MOST_LINES} lines"))
            unread.add(None)
            break
        line, wrong = _line(number, row, names, providers)
        if line is not None:
            lines.append(line)
            continue
        findings.extend(wrong)
        cells = dict(zip(names, row, strict=False))
        provider = cells.get("provider", "").strip().lower()
        unread.add(provider if provider in providers and len(row) == len(names) else None)
        if len(findings) > MOST_ERRORS:
            unread.add(None)
            break
    return lines, findings, unread


def _line(
    number: int, row: Sequence[str], names: Sequence[str], providers: Sequence[str]
) -> tuple[FeeLine | None, Sequence[Finding]]:
    if len(row) != len(names):
        return None, [Finding(number, None, f"{len(row)} columns, where the first line has {len(names)}")]
    cells = {name: cell.strip() for name, cell in zip(names, row, strict=True)}
    wrong: list[Finding] = []

    def read(name: str, how: Callable[[str], _T], otherwise: _T) -> _T:
        try:
            return how(cells.get(name, ""))
        except _WrongError as error:
            wrong.append(Finding(number, name, str(error)))
            return otherwise

    provider = read("provider", lambda cell: _one_of(cell.lower(), providers), "")
    since = read("valid_from", _date, None)
    until = read("valid_until", lambda cell: _date(cell) if cell else None, None)
    currency = read("currency", _currency, None)
    brand = read("brand", lambda cell: _one_of(brand_word(cell) or "", BRANDS) if cell else None, None)
    funding = read("funding", lambda cell: _one_of(cell.lower(), FUNDINGS) if cell else None, None)
    region = read("region", lambda cell: _one_of(cell.lower(), REGIONS) if cell else None, None)
    percent = read("percent", _percent, Decimal(0))
    amounts = {name: read(name, _amount, Decimal(0)) for name in ("fixed", "per_attempt")}
    if since is not None and until is not None and until <= since:
        wrong.append(Finding(number, "valid_until", "must be after valid_from: it is the first day no more"))
    if not cells["currency"]:
        why = "an amount needs a currency: without one it would be as many yen as euros"
        wrong.extend(Finding(number, name, why) for name, amount in amounts.items() if amount)
    if wrong or since is None:
        return None, wrong
    cell: Cell = (currency, brand, funding, region)
    line = FeeLine(provider, cell, percent, amounts["fixed"], amounts["per_attempt"], since, until, number)
    return line, ()


def _one_of(cell: str, known: Sequence[str]) -> str:
    if cell not in known:
        raise _WrongError(f"unknown: one of {', '.join(known)}")
    return cell


def _currency(cell: str) -> str | None:
    if cell and cell.upper() not in ISO_EXPONENTS:
        raise _WrongError("unknown: three letters of ISO 4217")
    return cell.upper() or None


def _date(cell: str) -> dt.date:
    if _DATE.fullmatch(cell) is None:
        raise _WrongError("not a date such as 2026-11-21")
    try:
        return dt.date.fromisoformat(cell)
    except ValueError:
        raise _WrongError("there is no such day") from None


def _percent(cell: str) -> Decimal:
    if not cell:
        raise _WrongError("missing: 0 where there is none")
    number = _amount(cell)
    if number > MOST_PERCENT:
        raise _WrongError("more than 100")
    return number


def _amount(cell: str) -> Decimal:
    if not cell:
        return Decimal(0)
    found = _NUMBER.fullmatch(cell)
    if found is None:
        raise _WrongError("not a number such as 0.30 (a point, no signs, at most 7 digits before it)")
    sign, _, decimals = found.groups()
    if sign and Decimal(cell):
        raise _WrongError("negative")
    if len(decimals or "") > _DECIMALS:
        raise _WrongError(f"more than {_DECIMALS} decimals")
    return abs(Decimal(cell))


def by_provider(book: FeeBook) -> Mapping[str, Sequence[FeeLine]]:
    """The lines of each provider, the broad ones first, each cell by its days."""

    def place(line: FeeLine) -> tuple[str, int, Sequence[str], dt.date]:
        names = [each or "" for each in line.cell]
        return line.provider, sum(map(bool, names)), names, line.since

    grouped = itertools.groupby(sorted(book.lines, key=place), key=lambda line: line.provider)
    return {provider: list(lines) for provider, lines in grouped}
