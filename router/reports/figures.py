"""From sums to the figures of a row: rates with their intervals, costs in basis points, quantiles. Pure.

Every figure is made here and nowhere else, so that the page, CSV, XLSX and JSON cannot differ.
"""

from __future__ import annotations

import enum
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal

from providers.currencies import ISO_EXPONENTS
from router.report_measures import (
    FEE_UNITS,
    FIRST_LATENCY,
    INDEX,
    LATENCIES,
    LATENCY_BUCKETS,
    LATENCY_FIRST_MS,
    LATENCY_GROWTH,
    MEASURES,
    Kind,
)

Z95 = 1.959963984540054
"""Standard normal quantile of 97.5%."""
RATE_DIGITS = 6
Value = int | float | Decimal | str | None
Sums = Sequence[int]
"""In the order of MEASURES."""


class Shape(enum.Enum):
    """How a figure is to be read and shown."""

    TEXT = "text"
    COUNT = "count"
    MONEY = "money"
    """An integer in minor units of the row's currency."""
    FEE = "fee"
    """A Decimal in major units of the row's currency, four digits."""
    RATE = "rate"
    """0 to 1."""
    BASIS_POINTS = "basis_points"
    """Hundredths of a per cent, two digits."""
    MILLISECONDS = "milliseconds"
    SECONDS = "seconds"
    CONVERTED = "converted"
    """An integer in minor units of a stated other currency, by a stated table of rates."""


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of every row."""

    name: str
    shape: Shape
    about: str
    part: str = "volume"
    """The sheet of a workbook that it stands on, of PARTS."""


PARTS = ("volume", "approval", "money", "costs", "recovery", "declines", "latency", "converted")


def wilson(good: int, of: int) -> tuple[float, float] | None:
    """The 95% score interval of a rate; None of nothing.

    Source: E. B. Wilson, JASA 22 (1927) 209-212. It stays within 0 and 1, and holds for small numbers.
    """
    if of <= 0:
        return None
    rate, z2 = good / of, Z95 * Z95
    center = rate + z2 / (2 * of)
    spread = Z95 * math.sqrt(rate * (1 - rate) / of + z2 / (4 * of * of))
    scale = 1 + z2 / of
    return max(0.0, (center - spread) / scale), min(1.0, (center + spread) / scale)


def latency_bucket(milliseconds: float) -> int:
    """The bucket of a latency; see `router.report_measures`."""
    if not milliseconds > LATENCY_FIRST_MS:
        return 0
    exponent = math.log(milliseconds / LATENCY_FIRST_MS) / math.log(LATENCY_GROWTH)
    return min(LATENCY_BUCKETS - 1, 1 + int(exponent))


def latency_quantile(calls: Sequence[int], share: float) -> float | None:
    """Milliseconds in the middle (geometric) of the bucket that holds the quantile; None without calls.

    The quantile is the smallest latency that at least this share of the calls does not exceed.
    """
    total = sum(calls)
    if total <= 0:
        return None
    needed, below = max(1, math.ceil(share * total)), 0
    for bucket, count in enumerate(calls):  # noqa: B007 - the bucket it stops at is the answer
        below += count
        if below >= needed:
            break
    return float(LATENCY_FIRST_MS * LATENCY_GROWTH ** (bucket - 0.5))


def basis_points(cost: int, captured: int, currency: str) -> Decimal | None:
    """A cost in ten-thousandths of the major unit, in hundredths of a per cent of minor units; None of nothing."""
    if captured <= 0:
        return None
    points = Decimal(cost).scaleb(ISO_EXPONENTS.get(currency, 0)) * 10_000 / FEE_UNITS / captured
    return points.quantize(Decimal("0.01"), ROUND_HALF_EVEN)


_Make = Callable[[Sums, str], Value]


@dataclass(frozen=True, slots=True)
class _Sum:
    """A figure that is a sum as it is: most are, and are taken out of the sums all at once."""

    at: int

    def __call__(self, sums: Sums, _currency: str) -> Value:
        return sums[self.at]


def _fee(name: str) -> _Make:
    at = INDEX[name]
    return lambda sums, _currency: Decimal(sums[at]).scaleb(-4)


def _minor_fee(name: str) -> _Make:
    at = INDEX[name]
    return lambda sums, currency: Decimal(sums[at]).scaleb(-ISO_EXPONENTS.get(currency, 0))


def _rate(good: str, *of: str) -> _Make:
    at, parts = INDEX[good], [INDEX[each] for each in of]

    def make(sums: Sums, _currency: str) -> Value:
        total = sum([sums[each] for each in parts])
        return round(sums[at] / total, RATE_DIGITS) if total else None

    return make


def _bound(which: int, good: str, *of: str) -> _Make:
    at, parts = INDEX[good], [INDEX[each] for each in of]

    def make(sums: Sums, _currency: str) -> Value:
        found = wilson(sums[at], sum([sums[each] for each in parts]))
        return None if found is None else round(found[which], RATE_DIGITS)

    return make


def _points(sums: Sums, currency: str) -> Value:
    return basis_points(sums[INDEX["cost"]], sums[INDEX["captured_amount"]], currency)


def _wait(sums: Sums, _currency: str) -> Value:
    completed = sums[INDEX["parked_completed"]]
    return round(sums[INDEX["parked_wait_ms"]] / completed / 1000, 3) if completed else None


def _quantile(share: float) -> _Make:
    def make(sums: Sums, _currency: str) -> Value:
        found = latency_quantile(sums[FIRST_LATENCY : FIRST_LATENCY + LATENCY_BUCKETS], share)
        return None if found is None else round(found, 1)

    return make


_ABOUT = {each.name: each.about for each in MEASURES}
_SHAPES = {Kind.COUNT: Shape.COUNT, Kind.MONEY: Shape.MONEY, Kind.FEE: Shape.FEE}
_KINDS = {each.name: each.kind for each in MEASURES}
FINAL, FIRST = ("approved", "declined"), ("first_answers",)


def _summed(part: str, *names: str) -> list[tuple[Column, _Make]]:
    found = []
    for name in names:
        kind = _KINDS[name]
        make = _fee(name) if kind is Kind.FEE else _Sum(INDEX[name])
        found.append((Column(name, _SHAPES[kind], _ABOUT[name], part), make))
    return found


def _interval(name: str, about: str, good: str, of: Sequence[str]) -> list[tuple[Column, _Make]]:
    return [
        (Column(name, Shape.RATE, about, "approval"), _rate(good, *of)),
        (Column(f"{name}_low", Shape.RATE, "95% interval (Wilson), its lower end", "approval"), _bound(0, good, *of)),
        (Column(f"{name}_high", Shape.RATE, "its upper end", "approval"), _bound(1, good, *of)),
    ]


_MADE: Sequence[tuple[Column, _Make]] = (
    *_summed("volume", "payments", "attempts", "approved", "declined", "failed", "canceled", "open"),
    *_interval("approval_rate", "approved, of all that were approved or declined in the end", "approved", FINAL),
    *_summed("approval", "first_answers", "first_approvals"),
    *_interval("first_approval_rate", "of first attempts that were approved or declined", "first_approvals", FIRST),
    *_summed(
        "money",
        "amount",
        "approved_amount",
        "captured_amount",
        "refunded_amount",
        "captured_in_period",
        "refunded_in_period",
        "disputes",
        "disputed_amount",
        "chargebacks",
        "chargeback_amount",
    ),
    *_summed("costs", "fee_estimated"),
    (Column("fee_actual", Shape.FEE, _ABOUT["fee_actual"], "costs"), _minor_fee("fee_actual")),
    *_summed("costs", "fee_estimated_of_actual", "fees_told", "fees_told_otherwise", "cost"),
    (Column("effective_cost", Shape.BASIS_POINTS, "cost, of what was captured", "costs"), _points),
    *_summed(
        "recovery",
        "failed_over",
        "cascaded",
        "recovered_by_failover",
        "recovered_by_failover_amount",
        "recovered_by_cascade",
        "recovered_by_cascade_amount",
        "parked",
        "recovered_by_parking",
        "recovered_by_parking_amount",
        "parked_completed",
    ),
    (Column("parked_wait", Shape.SECONDS, "mean, of those that were completed", "recovery"), _wait),
    *_summed(
        "declines",
        "attempts_approved",
        "declines_soft",
        "declines_hard",
        "declines_fraud",
        "declines_authentication",
        "declines_invalid",
        "declines_other",
        "attempts_not_executed",
        "attempts_in_doubt",
    ),
    (Column("latency_p50", Shape.MILLISECONDS, "of attempts, within 15%", "latency"), _quantile(0.5)),
    (Column("latency_p95", Shape.MILLISECONDS, "of attempts, within 15%", "latency"), _quantile(0.95)),
)

COLUMNS: Sequence[Column] = tuple(each for each, _ in _MADE)
"""All figures, in the order in which they are shown."""
_MONEY_SHAPES = frozenset({Shape.MONEY, Shape.FEE, Shape.BASIS_POINTS})
SUMMED = tuple(name for name in INDEX if name not in LATENCIES and name != "parked_wait_ms")
"""Figures that are a sum of payments' own: the others are made of several."""


_TAKEN = operator.itemgetter(*(make.at if isinstance(make, _Sum) else 0 for _, make in _MADE))
_RECKONED = [(place, make) for place, (_, make) in enumerate(_MADE) if not isinstance(make, _Sum)]


def figures(sums: Sums, currency: str | None) -> list[Value]:
    """The values of COLUMNS. `currency` None: of several, then all that is money is None."""
    if currency is not None:
        found = list(_TAKEN(sums))
        for place, make in _RECKONED:
            found[place] = make(sums, currency)
        return found
    return [None if column.shape in _MONEY_SHAPES else make(sums, "") for column, make in _MADE]


def nothing() -> list[int]:
    """Sums of no fact, to add to."""
    return [0] * len(MEASURES)


def add(into: list[int], sums: Sums) -> None:
    """Add sums to others in place."""
    into[:] = map(int.__add__, into, sums)


def is_nothing(sums: Sums) -> bool:
    """Whether no fact is in it, or all that were have been taken out again."""
    return not any(sums)
