"""Figures are made of sums rightly, and a file of them is safe and the same in each format."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from openpyxl import load_workbook

from router.ledger.rollup_moment import Found, Standing
from router.report_measures import INDEX, LATENCIES, MEASURES, Piece
from router.reports.figures import COLUMNS, basis_points, figures, latency_bucket, latency_quantile, nothing, wilson
from router.reports.files import FORMULA_SIGNS, streamed, write_csv, write_json
from router.reports.query import Query, query
from router.reports.rates import Rates, RatesError, load
from router.reports.report import Row, TooManyRowsError, columns_of, link, report
from router.reports.workbook import write_xlsx

NOW = dt.datetime(2026, 12, 31, tzinfo=dt.UTC)


def sums(**known: int) -> list[int]:
    found = nothing()
    for name, value in known.items():
        found[INDEX[name]] = value
    return found


class Known:
    """A moment of a ledger with these rows, whatever is asked."""

    def __init__(self, *rows: tuple[tuple[str, ...], list[int]]) -> None:
        self._rows = rows

    def standing(self) -> Standing:
        return Standing(None, False, None)

    def sums(self, piece: Piece, dimensions: Sequence[str], filters: Mapping[str, str]) -> Iterator[Found]:
        for key, values in self._rows:
            yield (None, *key), values

    def payments(self, *_asked: object, **_page: object) -> Sequence[tuple[str, str, int]]:
        return ()


ROWS = (
    (
        ("=1+1", "EUR"),
        sums(payments=3, approved=2, declined=1, captured_amount=1999, cost=5_250, fee_estimated=12_345),
    ),
    (("stripe", "JPY"), sums(payments=7, approved=5, declined=2, captured_amount=500, cost=25_000)),
    (("", "KWD"), sums(payments=1, open=1)),
)


def asked() -> Query:
    return query("2026-10-01", "2026-11-01", group_by="provider", now=NOW)


@pytest.mark.parametrize(
    ("good", "of", "low", "high"),
    # R: binom::binom.confint(x, n, methods = "wilson")
    [
        (0, 10, 0.0, 0.2775328),
        (10, 10, 0.7224672, 1.0),
        (8, 10, 0.4901625, 0.9433178),
        (850, 1000, 0.8265361, 0.8707921),
    ],
)
def test_the_interval_is_wilsons(good: int, of: int, low: float, high: float) -> None:
    """Against R's figures."""
    assert wilson(good, of) == pytest.approx((low, high), abs=2e-5)
    assert wilson(0, 0) is None


def test_a_cost_in_basis_points_knows_the_currencys_decimals() -> None:
    """1 EUR of 100 EUR, 1 JPY of 100 JPY and 1 KWD of 100 KWD are each one per cent."""
    assert basis_points(10_000, 10_000, "EUR") == basis_points(10_000, 100, "JPY") == Decimal("100.00")
    assert basis_points(10_000, 100_000, "KWD") == Decimal("100.00")
    assert basis_points(10_000, 0, "EUR") is None


@pytest.mark.parametrize("milliseconds", [0.0, 49.9, 50.1, 65.1, 212.0, 999.0, 20_000.0])
def test_a_quantile_is_within_its_bucket(milliseconds: float) -> None:
    """Half a bucket off at most, but for what is quicker than 50 ms."""
    calls = [0] * len(LATENCIES)
    calls[latency_bucket(milliseconds)] = 3
    told = latency_quantile(calls, 0.5)
    assert told is not None
    assert told == pytest.approx(milliseconds, rel=0.1402) if milliseconds > 50 else told < 50


def test_quantiles_are_the_least_that_enough_calls_do_not_exceed() -> None:
    """Of ten calls the fifth, and the tenth; of none there is none."""
    calls = [5, 4, 0, 1] + [0] * 22
    assert latency_quantile(calls, 0.5) == latency_quantile([1] + [0] * 25, 0.5)
    assert latency_quantile(calls, 0.9) == latency_quantile([0, 1] + [0] * 24, 0.5)
    assert latency_quantile(calls, 0.95) == latency_quantile([0, 0, 0, 1] + [0] * 22, 0.5)
    assert latency_quantile([0] * 26, 0.5) is None
    assert latency_bucket(float("nan")) == 0
    assert latency_bucket(1e9) == 25


def test_every_measure_is_shown_or_goes_into_a_figure() -> None:
    """What is added up for nobody would be a mistake; so would a figure that does not move with its measure."""
    base = sums(
        payments=9, approved=4, declined=3, first_answers=9, captured_amount=10, parked_completed=2, cost=50_000
    )
    for number, measure in enumerate(MEASURES):
        changed = list(base)
        changed[number] += 1
        assert figures(changed, "EUR") != figures(base, "EUR"), measure.name


def test_money_of_several_currencies_is_never_one_sum() -> None:
    """Of all currencies together there are counts and rates, and no money."""
    told = report(asked(), Known(*ROWS))
    assert [each[1] for each in told.totals] == ["EUR", "JPY", "KWD", None]
    whole = dict(zip([each.name for each in told.columns], told.totals[-1], strict=True))
    assert (whole["payments"], whole["approved"], whole["approval_rate"]) == (11, 7, 0.7)
    money = [each.name for each in COLUMNS if each.shape.value in ("money", "fee", "basis_points")]
    assert len(money) > 15
    assert {whole[each] for each in money} == {None}


def written(write: Any, **more: Any) -> bytes:
    out = io.BytesIO()
    write(streamed(asked(), Known(*ROWS), made_at=NOW, **more), out)
    return out.getvalue()


def test_json_csv_and_workbook_have_the_same_numbers() -> None:
    """Rows and totals, figure by figure; what is not known is null, empty, and an empty cell."""
    told = report(asked(), Known(*ROWS))
    names = [each.name for each in told.columns]
    wanted = [*told.rows, *told.totals]
    document = json.loads(written(write_json))
    shown = [[row[name] for name in names] for row in (*document["rows"], *document["totals"])]
    assert shown == [[float(v) if isinstance(v, Decimal) else v for v in row] for row in wanted]
    lines = list(csv.reader(io.StringIO(written(write_csv).decode())))
    assert lines[0] == ["kind", *names]
    assert [line[0] for line in lines[1:]] == ["row"] * 3 + ["total"] * 4
    for line, row in zip(lines[1:], wanted, strict=True):
        for cell, value in zip(line[1:], row, strict=True):
            if value is None or isinstance(value, str):
                assert cell.removeprefix("'") == (value or "")
            else:
                assert Decimal(cell) == Decimal(str(value))
    book = load_workbook(io.BytesIO(written(write_xlsx)))
    seen: set[str] = set()
    for sheet in book.worksheets[1:]:
        head = [cell.value for cell in sheet[1]]
        assert sheet.freeze_panes == "D2"
        for cells, row in zip(sheet.iter_rows(min_row=2), wanted, strict=True):
            for name, cell in zip(head[1:], cells[1:], strict=True):
                value = row[names.index(str(name))]
                assert cell.value == (float(value) if isinstance(value, Decimal) else value), (sheet.title, name)
                assert cell.data_type == ("s" if isinstance(value, str) else "n")
        seen |= {str(each) for each in head[1:]}
    assert seen == set(names)
    assert [each.title for each in book.worksheets] == [
        *("About", "Payments", "Approval", "Money", "Costs", "Recovery", "Declines", "Latency"),
    ]


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"])
def test_a_text_that_a_spreadsheet_would_reckon_with_is_only_text(sign: str) -> None:
    """An apostrophe before it in a CSV; a string in a workbook, and nowhere a formula."""
    rows = Known(((f"{sign}cmd|' /C calc'!A0", "EUR"), sums(payments=1)))
    out = io.BytesIO()
    write_csv(streamed(asked(), rows, made_at=NOW), out)
    (_, line, _) = csv.reader(io.StringIO(out.getvalue().decode(), newline=""))
    assert line[1] == f"'{sign}cmd|' /C calc'!A0"
    out = io.BytesIO()
    write_xlsx(streamed(asked(), rows, made_at=NOW), out)
    with zipfile.ZipFile(out) as book:
        assert not any(b"<f>" in book.read(name) for name in book.namelist())


@pytest.mark.parametrize(
    "text", ["visa;=1+1", 'visa;"=1+1', "visa; @A1", "visa\t-1", " =1+1", "visa,+1", "a-b; c - d;=1"]
)
def test_nor_where_a_spreadsheet_cuts_a_line_at_semicolons(text: str) -> None:
    """As it does in half of Europe: whatever the CSV is cut at, and whatever is trimmed, no cell begins as one."""
    out = io.BytesIO()
    write_csv(streamed(asked(), Known(((text, "EUR"), sums(payments=1))), made_at=NOW), out)
    line = out.getvalue().decode().splitlines()[1]
    cells = re.split(r"[;,\t]", line)
    assert not [each for each in cells if each.lstrip(' "').startswith(tuple(FORMULA_SIGNS))]
    assert line.count("'") == 1


@pytest.mark.parametrize(
    ("label", "since", "until"),
    [
        # Back from 02:00 to 01:30: the hour that is twice there, by half.
        ("2026-04-05T01:00+11:00", "2026-04-04T14:00:00+00:00", "2026-04-04T15:00:00+00:00"),
        ("2026-04-05T01:00+10:30", "2026-04-04T15:00:00+00:00", "2026-04-04T15:30:00+00:00"),
        # On from 02:00 to 02:30.
        ("2026-10-04T02:00+11:00", "2026-10-03T15:30:00+00:00", "2026-10-03T16:00:00+00:00"),
        ("2026-10-04T03:00+11:00", "2026-10-03T16:00:00+00:00", "2026-10-03T17:00:00+00:00"),
    ],
)
def test_an_hour_in_which_the_clocks_change_leads_to_its_own_payments(label: str, since: str, until: str) -> None:
    """Not to those of the row beside it, on Lord Howe Island."""
    wanted = query("2026-04-01", "2026-10-10", time_zone="Australia/Lord_Howe", group_by="hour", now=NOW)
    address = parse_qs(urlsplit(link(wanted, [label, "EUR"])).query)
    assert (address["from"], address["to"]) == ([since], [until])


def test_a_row_says_where_its_payments_are() -> None:
    """By the hour that Berlin has twice, and by a day cut short by the period's end."""
    wanted = query("2026-10-25", "2026-10-25T12:00", time_zone="Europe/Berlin", group_by="hour,provider", now=NOW)
    row = Row(("2026-10-25T02:00+01:00", "", "EUR"), "EUR", sums(payments=1)).values()
    assert link(wanted, row) == (
        "/v1/reports/payments?from=2026-10-25T01%3A00%3A00%2B00%3A00&to=2026-10-25T02%3A00%3A00%2B00%3A00"
        "&time_zone=Europe%2FBerlin&provider=&currency=EUR"
    )
    by_day = query("2026-10-25", "2026-10-25T12:00", time_zone="Europe/Berlin", group_by="day", now=NOW)
    assert "from=2026-10-24T22%3A00%3A00%2B00%3A00&to=2026-10-25T11%3A00%3A00" in link(by_day, ["2026-10-25", "EUR"])


def test_a_table_of_rates_adds_up_what_it_converts_and_says_its_name() -> None:
    """Beside each row's own money; half a cent is rounded to even, and what has no rate has no sum."""
    rates = Rates("ECB 31 Oct", "EUR", {"JPY": Decimal("0.00625")})
    told = report(asked(), Known(*ROWS[:2]), rates)
    names = [each.name for each in told.columns]
    at, table = names.index("captured_amount_EUR"), names.index("rate_table")
    assert [row[at] for row in told.totals] == [1999, 312, 2311]  # 500 JPY are 3.125 EUR
    assert {row[table] for row in told.totals} == {"ECB 31 Oct"}
    assert report(asked(), Known(*ROWS), rates).totals[-1][at] is None
    assert len(columns_of(asked(), rates)) == len(told.rows[0])


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("{", "JSON"),
        ("[]", "object"),
        ('{"name": "", "currency": "EUR", "rates": {}}', "name"),
        ('{"name": "a", "currency": "EU", "rates": {}}', "currency"),
        ('{"name": "a", "currency": [], "rates": {}}', "currency"),
        ('{"name": "a", "currency": "EUR", "rates": {"XX": "1"}}', "rates"),
        ('{"name": "a", "currency": "EUR", "rates": {"USD": 0.9}}', "rates.USD"),
        ('{"name": "a", "currency": "EUR", "rates": {"USD": "-1"}}', "rates.USD"),
        ('{"name": "a", "currency": "EUR", "rates": {"USD": "NaN"}}', "rates.USD"),
    ],
)
def test_a_table_of_rates_that_is_none_is_refused(tmp_path: Path, text: str, field: str) -> None:
    """Naming what is wrong with it."""
    path = tmp_path / "rates.json"
    path.write_text(text)
    with pytest.raises(RatesError, match=field):
        load(path)


def test_a_report_that_memory_does_not_hold_is_refused() -> None:
    """A file of it can be had."""
    many = Known(*(((f"p{number}", "EUR"), sums(payments=1)) for number in range(20_001)))
    with pytest.raises(TooManyRowsError):
        report(asked(), many)
