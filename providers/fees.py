"""What a provider charges the merchant for a payment: an estimate, from lines of prices. Pure.

A line prices a *cell*: the sales of one provider in a currency, of a card's brand and funding, from a region, where
each may be left open. Of the lines in force on the day that match a sale, **the one that names the most of these four
wins**. A file in which two could be that one is refused (`fees_checks`), so it does not matter which of the four they
are. What is not known of a sale matches only where the line leaves it open.

Amounts are exact decimals in major units of the sale's currency; what is quoted is rounded to 4 decimals, half up.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import NamedTuple

from providers.brands import brand_word
from providers.regions import INTERNATIONAL

Cell = tuple[str | None, str | None, str | None, str | None]
"""Currency, brand, funding, region; None: any."""
DIMENSIONS = ("currency", "brand", "funding", "region")

FUNDINGS = ("credit", "debit", "prepaid")
FOUR_PLACES = Decimal("0.0001")
_ZERO = Decimal(0)
_REMEMBERED = 4096
"""Choices of a line that are kept: a day's usual sales many times over, and bounded: a brand can be any word."""


@dataclass(frozen=True, slots=True)
class Sale:
    """What a fee depends on."""

    amount: Decimal
    """In major units."""
    currency: str
    brand: str | None
    """As checkout says it: `visa`, `American Express`, …"""
    funding: str | None
    region: str | None
    """`domestic`, `regional` or `international`: see `providers.regions`."""
    at: dt.date
    """The day in UTC."""


class Fee(NamedTuple):
    """In major units of the sale's currency, to 4 decimals."""

    fee: Decimal
    """Of an approval: percentage and fixed part."""
    attempt: Decimal
    """Of an attempt, approved or not."""
    scheduled: bool
    """False: no line is known for it, and both are 0."""


@dataclass(frozen=True, slots=True)
class FeeLine:
    """The price of one cell for a time."""

    provider: str
    cell: Cell
    percent: Decimal
    """Per cent of an approved payment."""
    fixed: Decimal = _ZERO
    """Per approved payment, in major units."""
    per_attempt: Decimal = _ZERO
    """Per attempt, approved or not, in major units."""
    since: dt.date = dt.date.min
    until: dt.date | None = None
    """The first day on which it holds no more; None: no end."""
    number: int = 0
    """Its line in the file; 0: from no file."""

    def holds_on(self, day: dt.date) -> bool:
        """Whether it is in force on that day."""
        return self.since <= day and (self.until is None or day < self.until)


class _Chosen(NamedTuple):
    share: Decimal
    fixed: Decimal
    attempt: Decimal
    scheduled: bool


_UNKNOWN = _Chosen(_ZERO, _ZERO, _ZERO.quantize(FOUR_PLACES), False)
Mask = tuple[bool, bool, bool, bool]
"""Which of the four a line names."""
MASKS: Sequence[Mask] = sorted(itertools.product((True, False), (True, False), (True, False), (True, False)), key=sum)
"""All sixteen, the fewest first."""


class FeeBook:
    """The lines of every provider. Thread-safe; it never changes.

    Its lines are taken to be sound: `fees_file.parse` refuses those that are not.
    """

    def __init__(self, lines: Iterable[FeeLine]) -> None:
        self.lines: Sequence[FeeLine] = tuple(lines)
        self._cells: dict[tuple[str, Cell], list[FeeLine]] = {}
        for line in self.lines:
            self._cells.setdefault((line.provider, line.cell), []).append(line)
        self._chosen: dict[tuple[str, str, str | None, str | None, str | None, dt.date], _Chosen] = {}

    def quote(self, provider: str, sale: Sale) -> Fee:
        """What that provider would charge for that sale, by the lines of its day."""
        key = (provider, sale.currency, sale.brand, sale.funding, sale.region, sale.at)
        chosen = self._chosen.get(key)
        if chosen is None:
            chosen = self._choose(provider, sale)
            if len(self._chosen) >= _REMEMBERED:
                self._chosen.clear()
            self._chosen[key] = chosen
        share, fixed, attempt, scheduled = chosen
        fee = (sale.amount * share + fixed).quantize(FOUR_PLACES, ROUND_HALF_UP)
        return tuple.__new__(Fee, (fee, attempt, scheduled))  # quicker: every payment asks each provider's

    def line_for(self, provider: str, sale: Sale) -> FeeLine | None:
        """The line that prices that sale; None where there is none."""
        full: Cell = (sale.currency, brand_word(sale.brand), sale.funding, sale.region)
        for mask in reversed(MASKS):
            for line in self._cells.get((provider, masked(full, mask)), ()):
                if line.holds_on(sale.at):
                    return line
        return None

    def _choose(self, provider: str, sale: Sale) -> _Chosen:
        line = self.line_for(provider, sale)
        if line is None:
            return _UNKNOWN
        return _Chosen(line.percent.scaleb(-2), line.fixed, line.per_attempt.quantize(FOUR_PLACES), True)

    @classmethod
    def default(cls) -> FeeBook:
        """Without a file: what practitioners seed with (facts/routing.md).

        Stripe 2.9% + 0.30, and 1.5% more for an international card; Adyen 0.13 an attempt and interchange-plus of
        about 2.1%. The amounts stand for EUR, USD and GBP; in any other currency there is none.
        """
        more, amounts = Decimal("4.4"), ("EUR", "USD", "GBP")
        lines = [FeeLine("stripe", (None, None, None, None), Decimal("2.9"))]
        lines += [FeeLine("stripe", (each, None, None, None), Decimal("2.9"), Decimal("0.30")) for each in amounts]
        lines += [FeeLine("stripe", (None, None, None, INTERNATIONAL), more)]
        lines += [FeeLine("stripe", (each, None, None, INTERNATIONAL), more, Decimal("0.30")) for each in amounts]
        lines += [FeeLine("adyen", (None, None, None, None), Decimal("2.1"))]
        tries = Decimal("0.13")
        lines += [FeeLine("adyen", (each, None, None, None), Decimal("2.1"), per_attempt=tries) for each in amounts]
        return cls(lines)


def masked(cell: Cell, mask: Mask) -> Cell:
    """The cell with the rest left open."""
    (currency, brand, funding, region), (by_currency, by_brand, by_funding, by_region) = cell, mask
    return (
        currency if by_currency else None,
        brand if by_brand else None,
        funding if by_funding else None,
        region if by_region else None,
    )
