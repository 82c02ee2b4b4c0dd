"""What a report's charts draw: each currency by itself, in its own units, and nothing left out in silence."""

from __future__ import annotations

import datetime as dt

from router.console.report_charts import POINTS_AT_MOST, SERIES_AT_MOST, Chart, charts
from router.ledger.rollup_moment import Standing
from router.report_measures import INDEX
from router.reports.figures import nothing
from router.reports.query import query
from router.reports.report import Report, Row, columns_of

NOW = dt.datetime(2026, 12, 31, tzinfo=dt.UTC)


def made(group_by: str, *rows: tuple[tuple[str, ...], dict[str, int]]) -> dict[str, Chart]:
    """The charts of these rows, by figure."""
    wanted, shown = query("2026-10-01", "2026-10-03", group_by=group_by, now=NOW), []
    for groups, known in rows:
        sums = nothing()
        for name, value in known.items():
            sums[INDEX[name]] = value
        shown.append(Row(groups, groups[-1], sums).values())
    return {
        each.name: each for each in charts(Report(wanted, columns_of(wanted), shown, [], Standing(None, False, None)))
    }


def test_money_is_drawn_in_its_currencys_units_and_never_on_anothers() -> None:
    """A line a currency; bars of money stand beside each other, bars of counts on each other."""
    found = made(
        "day",
        (("2026-10-01", "EUR"), {"captured_amount": 1999, "payments": 2}),
        (("2026-10-01", "JPY"), {"captured_amount": 500, "payments": 1}),
        (("2026-10-02", "EUR"), {"captured_amount": 1}),
    )
    money = found["captured_amount"]
    assert [(each["name"], each["x"], each["y"]) for each in money.series] == [
        ("EUR", ["2026-10-01", "2026-10-02"], [19.99, 0.01]),
        ("JPY", ["2026-10-01"], [500.0]),
    ]
    assert (money.stacked, found["payments"].stacked) == (False, True)


def test_a_rate_has_its_interval_and_nothing_has_none() -> None:
    """In per cent, with how far it reaches up and down; a day without answers is a gap, not zero."""
    rate = made("day", (("2026-10-01", "EUR"), {"approved": 9, "declined": 1}), (("2026-10-02", "EUR"), {"open": 1}))
    (series,) = rate["approval_rate"].series
    assert (series["y"], series["up"], series["down"]) == ([90.0, None], [8.212, None], [30.415, None])


def test_a_chart_says_how_many_lines_it_leaves_out() -> None:
    """And one of too many points is not drawn."""
    rows = [((f"shop-{number}", "EUR"), {"payments": 1}) for number in range(SERIES_AT_MOST + 3)]
    assert "(" not in made("merchant", *rows)["payments"].title, "without a time, each is a bar"
    by_day = [(("2026-10-01", *groups), known) for groups, known in rows * 2]
    chart = made("day,merchant", *by_day)["payments"]
    assert len(chart.series) == SERIES_AT_MOST
    assert chart.title == "Payments (12 of 15; all are in the files)"
    assert made("day", *[(("2026-10-01", "EUR"), {"payments": 1})] * (POINTS_AT_MOST + 1)) == {}
