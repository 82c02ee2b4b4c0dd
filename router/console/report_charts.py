"""A report's charts, as data: what the page's script hands to plotly. Pure; at most a few thousand points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from providers.currencies import ISO_EXPONENTS
from router.reports.figures import Shape, Value
from router.reports.query import TIMES
from router.reports.report import Report

POINTS_AT_MOST = 4000
SERIES_AT_MOST = 12
CHARTED = (
    ("payments", "Payments", "bar"),
    ("approval_rate", "Approval rate, with its 95% interval", "line"),
    ("captured_amount", "Captured", "bar"),
    ("recovered_by_failover_amount", "Recovered by failover", "bar"),
    ("latency_p95", "p95 latency, ms", "line"),
)
"""Figure, title, and how it is drawn."""


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart."""

    name: str
    title: str
    kind: str
    stacked: bool
    """Whether bars stand on each other: never of money, which is not added up across currencies."""
    series: Sequence[dict[str, Any]]
    """Each with `name`, `x`, `y`, and for a rate how far its interval reaches, `up` and `down`."""


def charts(report: Report) -> Sequence[Chart]:
    """The charts of a report; none where it has too many rows to be read off one."""
    names = [each.name for each in report.columns]
    if not report.rows or len(report.rows) > POINTS_AT_MOST:
        return []
    return [_chart(report, names, *each) for each in CHARTED]


def _chart(report: Report, names: Sequence[str], figure: str, title: str, kind: str) -> Chart:
    at = names.index(figure)
    shape, currency_at = report.columns[at].shape, names.index("currency")
    groups = list(report.query.group_by)
    time = report.query.time
    # By time, a line for each of the other groups; without it, a bar for each row, apart by currency.
    along = [place for place, group in enumerate(groups) if (group == time if time else group != "currency")]
    apart = [place for place, group in enumerate(groups) if group not in TIMES and place not in along]
    series: dict[str, dict[str, Any]] = {}
    left_out: set[str] = set()
    for row in report.rows:
        name = " · ".join(str(row[place] or "none") for place in apart) or "all"
        if name not in series and len(series) >= SERIES_AT_MOST:
            left_out.add(name)
            continue
        of = series.setdefault(name, {"name": name, "x": [], "y": [], "up": [], "down": []})
        of["x"].append(" · ".join(str(row[place] or "none") for place in along) or "all")
        value = _drawn(row[at], shape, row[currency_at])
        of["y"].append(value)
        if figure == "approval_rate" and value is not None:
            low, high = row[at + 1], row[at + 2]
            of["up"].append(None if high is None else round(float(high) * 100 - value, 3))
            of["down"].append(None if low is None else round(value - float(low) * 100, 3))
        else:
            of["up"].append(None)
            of["down"].append(None)
    if left_out:
        title = f"{title} ({SERIES_AT_MOST} of {SERIES_AT_MOST + len(left_out)}; all are in the files)"
    return Chart(figure, title, kind, shape is Shape.COUNT, list(series.values()))


def _drawn(value: Value, shape: Shape, currency: Value) -> float | None:
    """A figure as it is drawn: money in major units, rates in per cent."""
    if value is None or isinstance(value, str):
        return None
    if shape is Shape.MONEY:
        return float(value) / float(10 ** ISO_EXPONENTS.get(str(currency), 0))
    return round(float(value) * 100, 3) if shape is Shape.RATE else float(value)
