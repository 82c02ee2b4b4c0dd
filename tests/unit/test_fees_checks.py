"""Gaps and overlaps, against an oracle that prices every possible sale on every day."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Sequence
from decimal import Decimal

from hypothesis import event, given, settings
from hypothesis import strategies as st

from providers.fees import Cell, FeeBook, FeeLine, Sale
from providers.fees_checks import gaps, in_order, overlaps

FIRST = dt.date(2026, 1, 1)
DAYS = [FIRST + dt.timedelta(days) for days in range(7)]
TODAY = DAYS[3]
HORIZON = [*DAYS, DAYS[-1] + dt.timedelta(365)]

CURRENCIES, BRANDS, FUNDINGS, REGIONS = (
    ("EUR", "USD"),
    ("visa", "amex"),
    ("credit", "debit"),
    ("domestic", "regional"),
)
CELLS = st.tuples(
    *(st.sampled_from((None, None, *words)) for words in (CURRENCIES, BRANDS, FUNDINGS, REGIONS)),
)
SALES: Sequence[Cell] = list(
    itertools.product((*CURRENCIES, "JPY"), (*BRANDS, None), (*FUNDINGS, None), (*REGIONS, None))
)
"""Every sale there can be, as far as lines can tell them apart: what no line names, and what is not known, is one."""


@st.composite
def files(draw: st.DrawFn) -> list[FeeLine]:
    """Lines as a file has them. Often with the one that catches the rest, so that there is something else to find."""
    rest: tuple[Cell, dt.date, dt.date | None] = ((None, None, None, None), DAYS[0], None)
    lines = [rest] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 5))):
        since, until = draw(st.sampled_from(DAYS)), draw(st.sampled_from((None, None, *DAYS)))
        lines.append((draw(CELLS), since, until if until is not None and until > since else None))
    return [
        FeeLine("stripe", cell, Decimal(0), since=since, until=until, number=number)
        for number, (cell, since, until) in enumerate(lines, start=2)
    ]


def _in_force(line: FeeLine, lines: Sequence[FeeLine], day: dt.date) -> bool:
    """Read from the definition: from its day on, until its end or the next line of its cell."""
    superseded = any(
        other.cell == line.cell and line.since < other.since <= day for other in lines if line.until is None
    )
    return line.since <= day and not superseded and (line.until is None or day < line.until)


def _best(sale: Cell, lines: Sequence[FeeLine], day: dt.date) -> list[FeeLine]:
    """The lines in force that match a sale, and name as many words as any of them does."""
    matching = [
        line
        for line in lines
        if _in_force(line, lines, day) and all(a in (None, b) for a, b in zip(line.cell, sale, strict=True))
    ]
    most = max((sum(each is not None for each in line.cell) for line in matching), default=0)
    return [line for line in matching if sum(each is not None for each in line.cell) == most]


def _has_overlap(lines: Sequence[FeeLine]) -> bool:
    return any(len(_best(sale, lines, day)) > 1 for sale in SALES for day in HORIZON)


def _has_gap(lines: Sequence[FeeLine]) -> bool:
    unpriced = any(not _best(sale, lines, day) for sale in SALES for day in HORIZON if day >= TODAY)
    return unpriced or any(
        not any(_in_force(line, own, day) for line in own)
        for own in ([line for line in lines if line.cell == cell] for cell in {line.cell for line in lines})
        for day in HORIZON
        if min(line.since for line in own) < day < max(line.since for line in own)
    )


@settings(max_examples=200, deadline=None)
@given(files())
def test_an_overlap_is_told_where_two_lines_could_price_one_sale_and_nowhere_else(lines: list[FeeLine]) -> None:
    """Both ways, over every sale and day; the lines that are named are in the file."""
    ended, disordered = in_order(lines)
    found = [each for each in disordered if each.why.startswith("overlap")]
    if not disordered:
        found += overlaps(ended)
        event(f"of different cells: {bool(found)}")
        assert bool(found) == _has_overlap(lines)
    else:
        assert bool(found) <= _has_overlap(lines)
    assert {each.number for each in found} <= {line.number for line in lines}


@settings(max_examples=200, deadline=None)
@given(files())
def test_a_gap_is_told_where_a_sale_would_have_no_price_and_nowhere_else(lines: list[FeeLine]) -> None:
    """Today and ever after; and where a line of a cell ends before the next one of it begins."""
    ended, disordered = in_order(lines)
    found = [each for each in disordered if each.why.startswith("gap")]
    found += gaps(ended, ["stripe"], TODAY)
    if not any(each.why.startswith("overlap") for each in disordered):
        event(f"gap: {bool(found)}")
        assert bool(found) == _has_gap(lines)


@settings(max_examples=100, deadline=None)
@given(files())
def test_a_sound_file_prices_by_the_only_line_that_the_oracle_has(lines: list[FeeLine]) -> None:
    """For every sale and day, remembered or not."""
    ended, disordered = in_order(lines)
    if disordered or list(overlaps(ended)):
        return
    book = FeeBook(ended)
    for day, (currency, brand, funding, region) in itertools.product(HORIZON, SALES):
        sale = Sale(Decimal(1), currency or "", brand, funding, region, day)
        best = _best((currency, brand, funding, region), lines, day)
        found = book.line_for("stripe", sale)
        assert (None if found is None else found.number) == (best[0].number if best else None)
        assert book.quote("stripe", sale).scheduled == bool(best)
