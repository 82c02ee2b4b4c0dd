"""A table of exchange rates that finance gives, and names: the only way in which money of two currencies is added up.

The file is JSON: {"name": "ECB, 31 October 2026", "currency": "EUR", "rates": {"USD": "0.9213", "JPY": "0.00613"}},
each rate the worth of one major unit in the table's currency. Every row is converted, and rounded half to even, from
its own sums; so are a currency's totals, from theirs; the total of all is the sum of these.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from providers.currencies import ISO_EXPONENTS
from router.report_measures import FEE_UNITS, INDEX
from router.reports.figures import Column, Shape, Sums, Value

CONVERTED = ("approved_amount", "captured_amount", "refunded_amount", "captured_in_period", "refunded_in_period")
NAME_CHARS = 80


class RatesError(ValueError):
    """The file is no table of rates; the message names the field, never its value."""


@dataclass(frozen=True, slots=True)
class Rates:
    """A table."""

    name: str
    currency: str
    """Into which it converts."""
    rates: Mapping[str, Decimal]

    def columns(self) -> Sequence[Column]:
        """What it adds to a report: the money, the cost, and which table it was."""
        about = f"in minor units of {self.currency}, by {self.name}"
        return (
            *(Column(f"{name}_{self.currency}", Shape.CONVERTED, about, "converted") for name in CONVERTED),
            Column(f"cost_{self.currency}", Shape.CONVERTED, about, "converted"),
            Column("rate_table", Shape.TEXT, "by which it was converted", "converted"),
        )

    def values(self, sums: Sums, currency: str | None) -> list[Value]:
        """The values of `columns`; None where the table has no rate."""
        rate = Decimal(1) if currency == self.currency else self.rates.get(currency or "")
        if rate is None or currency is None:
            return [*([None] * (len(CONVERTED) + 1)), self.name]
        unit = Decimal(1).scaleb(-ISO_EXPONENTS.get(currency, 0)) * rate
        found: list[Value] = [self._minor(sums[INDEX[name]] * unit) for name in CONVERTED]
        return [*found, self._minor(Decimal(sums[INDEX["cost"]]) / FEE_UNITS * rate), self.name]

    def total(self, rows: Sequence[Sequence[Value]]) -> list[Value]:
        """The same of several currencies' totals, which end with their own; None where one of them has none."""
        many = len(CONVERTED) + 1
        parts = [row[-many - 1 : -1] for row in rows]
        found: list[Value] = []
        for column in zip(*parts, strict=True):
            known = [each for each in column if isinstance(each, int)]
            found.append(sum(known) if len(known) == len(column) else None)
        return [*found, self.name]

    def _minor(self, major: Decimal) -> int:
        return int(major.scaleb(ISO_EXPONENTS[self.currency]).quantize(Decimal(1), ROUND_HALF_EVEN))


def load(path: Path) -> Rates:
    """The table in a file. Raises RatesError, or OSError."""
    try:
        told = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError):
        raise RatesError("is not JSON") from None
    if not isinstance(told, dict) or told.keys() != {"name", "currency", "rates"}:
        raise RatesError("must be an object of name, currency and rates")
    name = told["name"]
    if not isinstance(name, str) or not 0 < len(name) <= NAME_CHARS or not name.isprintable():
        raise RatesError(f"name: must be 1 to {NAME_CHARS} printable characters")
    if not isinstance(told["currency"], str) or told["currency"] not in ISO_EXPONENTS:
        raise RatesError("currency: must be of ISO 4217")
    if not isinstance(told["rates"], dict):
        raise RatesError("rates: must be an object of currency to rate")
    return Rates(name, told["currency"], {each: _rate(each, rate) for each, rate in told["rates"].items()})


def _rate(currency: str, rate: Any) -> Decimal:
    if currency not in ISO_EXPONENTS:
        raise RatesError("rates: a currency that is not of ISO 4217")
    try:
        # A float's digits are not those that were written.
        found = Decimal(rate) if isinstance(rate, str | int) and not isinstance(rate, bool) else None
    except InvalidOperation:
        found = None
    if found is None or not found.is_finite() or not Decimal("1e-9") < found < Decimal("1e9"):
        raise RatesError(f"rates.{currency}: must be a decimal number as a text, above 0")
    return found
