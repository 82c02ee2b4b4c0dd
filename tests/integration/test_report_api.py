"""`GET /v1/reports/…` and `pointsman report`: what finance is given of a router's own payments, and refused."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
from pathlib import Path

import pytest
from openpyxl import load_workbook

from router.cli import main
from router.ledger.rollups import Rollups
from router.reports.rollup import Rollup
from tests.integration.conftest import OpenShop, Witness
from tests.integration.shop import Shop
from tests.integration.test_settlements_house import ADYEN, send, settlement, trade

pytestmark = pytest.mark.either_database

CHALLENGED = {"stripe": "pm_card_chargeDeclinedExpiredCard", "adyen": "8415718415172204"}


def period(shop: Shop) -> str:
    """Today and tomorrow."""
    today = shop.core.clock.now().date()
    return f"from={today - dt.timedelta(days=1)}&to={today + dt.timedelta(days=2)}"


def rolled_up(shop: Shop) -> None:
    """What the worker does."""
    assert Rollup(Rollups(shop.core.database), shop.core.clock).run_once().caught_up


def test_a_report_in_each_format_and_the_payments_it_is_made_of(shop: Shop) -> None:
    """Two payments, a refund, a decline and a failover; another merchant's is not in it."""
    paid = [shop.pay().json or {} for _ in range(2)]
    shop.send("POST", f"/v1/payments/{paid[0]['id']}/refunds", key="refund-1", json={"amount": 500})
    assert (shop.pay(payment_method={"type": "card", "tokens": CHALLENGED}).json or {})["status"] == "declined"
    shop.fault("stripe", "down")
    moved = shop.pay().json or {}
    assert moved["provider"] == "adyen"
    other = shop.add_key("another-merchants-key-0001", merchant="other")
    shop.fault("stripe", "ok")
    assert shop.pay(api_key=other).status_code == 201
    rolled_up(shop)
    path = f"/v1/reports/routing?{period(shop)}&group_by=provider"
    told = shop.send("GET", path).json or {}
    assert (told["time_zone"], told["complete"], told["behind_since"]) == ("UTC", True, None)
    rows = {row["provider"]: row for row in told["rows"]}
    assert {name: (row["payments"], row["currency"]) for name, row in rows.items()} == {
        "stripe": (3, "EUR"),
        "adyen": (1, "EUR"),
    }
    assert (rows["stripe"]["captured_amount"], rows["stripe"]["refunded_amount"]) == (3998, 500)
    assert rows["stripe"]["approval_rate"] == round(2 / 3, 6)
    assert (rows["adyen"]["recovered_by_failover"], rows["adyen"]["recovered_by_failover_amount"]) == (1, 1999)
    assert (rows["stripe"]["attempts"], rows["stripe"]["attempts_not_executed"]) == (4, 1)
    (total,) = told["totals"]
    assert (total["payments"], total["captured_amount"], total["first_approvals"]) == (4, 5997, 2)
    lines = list(csv.DictReader(io.StringIO(shop.send("GET", f"{path}&format=csv").text)))
    assert [line["captured_amount"] for line in lines] == ["1999", "3998", "5997"]
    answer = shop.send("GET", f"{path}&format=xlsx")
    assert "attachment" in answer.headers["Content-Disposition"]
    sheet = load_workbook(io.BytesIO(answer.data))["Money"]
    at = [cell.value for cell in sheet[1]].index("captured_amount")
    assert [row[at].value for row in sheet.iter_rows(min_row=2)] == [1999, 3998, 5997]
    listed = shop.send("GET", rows["stripe"]["link"] + "&figure=captured_amount").json or {}
    assert [(each["id"], each["adds"]) for each in listed["payments"]] == [(each["id"], 1999) for each in paid]
    refunded = shop.send("GET", rows["stripe"]["link"] + "&figure=refunded_amount").json or {}
    assert [(each["id"], each["adds"]) for each in refunded["payments"]] == [(paid[0]["id"], 500)]
    assert refunded["next"] is None


def test_what_a_settlement_file_says_of_fees_is_in_the_report(shop: Shop) -> None:
    """Days later, in the payments' own period: estimated before, actual after, and the costs follow."""
    trade(shop, **ADYEN)
    rolled_up(shop)
    path = f"/v1/reports/routing?{period(shop)}&group_by=provider"
    (before,) = (shop.send("GET", path).json or {})["rows"]
    assert (before["fees_told"], before["fee_actual"], before["cost"]) == (0, 0, before["fee_estimated"])
    assert send(shop, "adyen", settlement(shop, "adyen")).status_code == 201
    assert not (shop.send("GET", path).json or {})["complete"]
    rolled_up(shop)
    (after,) = (shop.send("GET", path).json or {})["rows"]
    fees = shop.rows("SELECT fee_actual FROM attempts WHERE fee_actual IS NOT NULL")
    assert after["fee_actual"] == sum(each["fee_actual"] for each in fees) / 100 > 0
    # The third was only authorized, and keeps its estimate.
    assert (after["fees_told"], after["fee_estimated"]) == (2, before["fee_estimated"])
    known = after["fee_actual"] - after["fee_estimated_of_actual"]
    assert after["cost"] == pytest.approx(before["cost"] + known)
    assert after["effective_cost"] == round(after["cost"] / (after["captured_amount"] / 100) * 10_000, 2)


def test_routing_is_compared_with_always_the_primary_on_demand(shop: Shop) -> None:
    """As the replay tells it; not in a CSV, and not by what a replay does not know."""
    for _ in range(3):
        shop.pay()
    rolled_up(shop)
    path = f"/v1/reports/routing?{period(shop)}&compare=primary"
    told = shop.send("GET", path).json or {}
    assert told["against_the_primary"]["payments"]["used"] == 3
    assert told["against_the_primary"]["currencies"]["EUR"]["estimates"]["approval"]["change"]["value"] == 0
    assert shop.send("GET", f"{path}&format=xlsx").status_code == 200
    for more in ("&format=csv", "&provider=stripe"):
        refused = shop.send("GET", path + more)
        assert (refused.status_code, [each["field"] for each in (refused.json or {})["errors"]]) == (422, ["compare"])


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ("", "from"),
        ("from=2026-10-01", "to"),
        ("from=2026-10-02&to=2026-10-01", "from"),
        ("from=2026-10-01&to=2026-10-02&group_by=planet", "group_by"),
        ("from=2026-10-01&to=2026-10-02&time_zone=Mars/Olympus", "time_zone"),
        ("from=2026-10-01&to=2026-10-02&format=planet", "format"),
        ("from=2026-10-01&to=2026-10-02&planet=1", "planet"),
        ("from=2026-10-01&to=2026-10-02&merchant=planet", "merchant"),
        ("from=2026-10-01&to=2026-10-02&country=%0Aplanet", "country"),
        ("from=2100-10-01&to=2100-10-02", "from"),
    ],
)
def test_bad_input_names_its_field(witness: Witness, more: str, field: str) -> None:
    """With no word of what was sent."""
    witness.plant("Olympus")
    witness.refused(witness.shop.send("GET", f"/v1/reports/routing?{more}"), 422, "invalid-request", field=field)


def test_who_may_not_see_reports_is_refused(witness: Witness) -> None:
    """No key, or one for checkout only; and a figure that is no sum has no payments."""
    shop = witness.shop
    witness.refused(shop.send("GET", "/v1/reports/routing", api_key=None), 401, "unauthenticated")
    path = "/v1/reports/payments?from=2026-10-01&to=2026-10-02&figure=approval_rate"
    witness.refused(shop.send("GET", path), 422, "invalid-request", field="figure")


def test_a_key_for_payments_sees_no_report(shops: OpenShop) -> None:
    """The scope is `reports`."""
    shop = shops()
    key = shop.add_key("a-key-of-checkout-00000001", merchant="default")
    for path in ("routing", "payments"):
        answer = shop.send("GET", f"/v1/reports/{path}?from=2026-10-01&to=2026-10-02", api_key=key)
        assert (answer.status_code, (answer.json or {})["type"]) == (403, "urn:pointsman:problem:forbidden")


def test_the_command_writes_the_file_or_says_why_not(
    shop: Shop, ledger_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A month's workbook, CSV and JSON, with a table of rates; in one line what is wrong, and no file then."""
    monkeypatch.setenv("ROUTER_DATABASE_URL", ledger_url)
    shop.pay()
    month = f"{shop.core.clock.now():%Y-%m}"
    rates = tmp_path / "rates.json"
    rates.write_text('{"name": "table 7", "currency": "USD", "rates": {"EUR": "1.1"}}')
    out = tmp_path / "report.json"
    command = ["report", "--month", month, "--out", str(out), "--rates", str(rates)]
    assert main(command) == 0
    assert "the rollup is behind: payments of before it began" in capsys.readouterr().err
    assert main(["rollup", "rebuild"]) == 0
    assert "1 payments looked at, 0 sums put right" in capsys.readouterr().err
    assert main(command) == 0
    assert capsys.readouterr().err == ""
    (row,) = json.loads(out.read_text())["rows"]
    assert (row["captured_amount"], row["captured_amount_USD"], row["rate_table"]) == (1999, 2199, "table 7")
    for kind in ("csv", "xlsx"):
        assert main([*command[:4], str(tmp_path / f"report.{kind}"), "--compare", "primary"]) == 0
        assert (tmp_path / f"report.{kind}").stat().st_size > 500
    for changed, said in (
        (["--month", "2026-13"], "--month: must be a month"),
        (["--month", month, "--group-by", "planet"], "--group-by: only day"),
        (["--month", month, "--from", "2026-10-01"], "--month: instead of"),
        (["--from", "2026-10-01"], "--from: say"),
    ):
        assert main(["report", *changed, "--out", str(tmp_path / "no.csv")]) == 2
        assert said in capsys.readouterr().err
    assert main(["report", "--month", month, "--out", str(tmp_path / "no.pdf")]) == 2
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith("no.") or "partial" in each.name] == []


def test_a_made_up_ledger_is_made_once(ledger_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for the same seed, and sound by its own books."""
    monkeypatch.setenv("ROUTER_DATABASE_URL", ledger_url)
    command = ["generate-ledger", "--payments", "60", "--days", "4"]
    assert main(command) == 0
    assert main(["ledger", "verify"]) == 0
    assert main(command) == 1


def test_a_workbook_that_does_not_hold_the_rows_is_refused(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CSV of them can be had."""
    monkeypatch.setattr("router.reports.workbook.MOST_ROWS", 1)
    for currency in ("EUR", "USD"):
        shop.pay(currency=currency)
    rolled_up(shop)
    refused = shop.send("GET", f"/v1/reports/routing?{period(shop)}&format=xlsx")
    assert (refused.status_code, (refused.json or {})["errors"][0]["field"]) == (422, "format")
    assert shop.send("GET", f"/v1/reports/routing?{period(shop)}&format=csv").status_code == 200
