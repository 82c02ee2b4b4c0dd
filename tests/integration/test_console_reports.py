"""The Reports page: the same figures as the API's, of one's own merchant, each with its payments behind it."""

from __future__ import annotations

import csv
import io
import re
from html import unescape

import pytest

from router.clock import SystemClock
from router.ledger.rollups import Rollups
from router.reports.rollup import Rollup
from tests.integration.console_visitor import visitor
from tests.integration.shop import Shop, paying_with

pytestmark = pytest.mark.either_database

NO_MONEY = paying_with(stripe="pm_card_visa_chargeDeclinedInsufficientFunds")
ROW = re.compile(r"<tr>(.*?)</tr>", re.DOTALL)
CELL = re.compile(r"<t[dh][^>]*>(.*?)</t[dh]>", re.DOTALL)


def cells(page: str, part: str) -> list[list[str]]:
    """The texts of the rows of a table's part."""
    found = page.partition(f"<{part}>")[2].partition(f"</{part}>")[0]
    return [
        [unescape(re.sub(r"<[^>]+>", "", each)).strip() for each in CELL.findall(row)] for row in ROW.findall(found)
    ]


def test_page_file_and_api_tell_the_same_of_ones_own_payments(shop: Shop) -> None:
    """Five payments of ours, one of another merchant's; counts, money, totals, and the payments behind a figure."""
    shop.add_key("the-other-shop", merchant="other")
    mine = [shop.pay(amount=1000 + number).json or {} for number in range(3)]
    mine += [shop.pay(amount=500, currency="GBP").json or {}, shop.pay(payment_method=NO_MONEY).json or {}]
    other = shop.pay(api_key="the-other-shop").json or {}
    Rollup(Rollups(shop.core.database), SystemClock()).run_once()
    person = visitor(shop)
    asked = "group_by=provider&group_by=currency"
    page = person.get(f"/reports?{asked}").text
    api = shop.send("GET", "/v1/reports/routing?from=2020-01-01&to=2029-12-31&group_by=provider,currency").json
    assert api is not None

    heads = cells(page, "thead")[0]
    rows = [dict(zip(heads, row, strict=True)) for row in cells(page, "tbody")]
    assert [(row["currency"], row["payments"]) for row in rows] == [("EUR", "4"), ("GBP", "1")]
    assert [int(row["payments"]) for row in rows] == [each["payments"] for each in api["rows"]]
    captured = {row["currency"]: row["captured amount"].replace("\u202f", "") for row in rows}
    assert captured == {"EUR": "30.03 EUR", "GBP": "5.00 GBP"}
    totals = [dict(zip(heads, row, strict=True)) for row in cells(page, "tfoot")]
    assert [(each["currency"], each["payments"]) for each in totals] == [("EUR", "4"), ("GBP", "1"), ("all", "5")]
    assert totals[-1]["captured amount"] == "–", "money is never added up across currencies"

    file = list(csv.DictReader(io.StringIO(person.get(f"/reports/file?{asked}&format=csv").text.lstrip("\ufeff"))))
    assert [(each["currency"], each["payments"], each["captured_amount"]) for each in file][:2] == [
        ("EUR", "4", "3003"),
        ("GBP", "1", "500"),
    ]
    behind = person.get("/reports/payments?figure=captured_amount&currency=EUR").text
    assert all(each["id"] in behind for each in mine[:3])
    assert not any(each["id"] in behind for each in (*mine[3:], other))
    for path in ("/reports?merchant=other", "/reports/payments?merchant=other"):
        assert other["id"] not in person.get(path).text
        assert cells(person.get(path).text, "tbody") == cells(person.get(path.partition("?")[0]).text, "tbody")


def test_a_workbook_that_does_not_hold_the_rows_is_refused_in_words(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its CSV can be had, which says in its name of which period it is, and in which zone."""
    monkeypatch.setattr("router.reports.workbook.MOST_ROWS", 1)
    for currency in ("EUR", "USD"):
        shop.pay(currency=currency)
    Rollup(Rollups(shop.core.database), SystemClock()).run_once()
    person = visitor(shop)
    path = "/console/reports/file?from=2026-10-01&to=2030-01-01&time_zone=Europe/Berlin&group_by=currency&format="
    refused = person.client.get(f"{path}xlsx")
    assert (refused.status_code, "a CSV does" in refused.text) == (422, True)
    answer = person.client.get(f"{path}csv")
    assert answer.status_code == 200
    assert "routing-2026-10-01-to-2030-01-01-Europe-Berlin.csv" in answer.headers["Content-Disposition"]


def test_charts_are_drawn_by_plotly_from_its_wheel(shop: Shop) -> None:
    """Whoever may not see reports does not get the script either; without plotly there is still the table."""
    person = visitor(shop)
    answer = person.client.get("/console/plotly.js")
    if answer.status_code == 404:
        assert "plotly.js" not in person.get("/reports").text
        return
    assert answer.headers["Content-Encoding"] == "gzip"
    assert len(answer.data) > 500_000
    shop.add_key("payments-alone", merchant="default")
    assert visitor(shop, "payments-alone").client.get("/console/plotly.js").status_code == 403
