"""Settlement files of the stand-ins' books, through a whole router: the API, the command, what a key may do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import urllib3
from werkzeug.test import TestResponse

from router import cli_settlements
from router.cli import main
from router.ledger import settlements as settlement_ledger
from tests.integration.conftest import OpenShop, Witness
from tests.integration.settlement_world import World
from tests.integration.shop import Shop

pytestmark = pytest.mark.either_database

ADYEN: dict[str, Any] = {"payment_method": {"type": "card", "tokens": {"adyen": "8415718415172204"}}}
COVERED = "from=2020-01-01T00:00:00Z&to=2100-01-01T00:00:00Z&grace_days=0"


def settlement(shop: Shop, provider: str, query: str = "") -> bytes:
    """The stand-in's file."""
    answer = urllib3.request("GET", f"{shop.sandbox.control_url}/control/{provider}/settlement{query}")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/csv; charset=utf-8")
    return answer.data


def send(shop: Shop, provider: str, data: bytes, **more: Any) -> TestResponse:
    """Upload it."""
    return shop.send("POST", f"/v1/settlements/{provider}?name=october.csv", data=data, **more)


def trade(shop: Shop, **more: Any) -> None:
    """A capture at once, one in part later, a refund, and an authorization that stays one."""
    paid = shop.pay(**more).json or {}
    assert shop.send("POST", f"/v1/payments/{paid['id']}/refunds", key="r", json={"amount": 500}).status_code < 300
    held = shop.pay(capture="manual", **more).json or {}
    assert shop.send("POST", f"/v1/payments/{held['id']}/capture", key="c", json={"amount": 700}).status_code < 300
    assert shop.pay(capture="manual", **more).status_code == 201


def verdicts(answer: TestResponse) -> dict[str, int]:
    """New lines by verdict."""
    return {verdict: sum(kinds.values()) for verdict, kinds in (answer.json or {})["lines_by_verdict"].items()}


@pytest.mark.parametrize(("provider", "lines"), [("stripe", 4), ("adyen", 3)])
def test_the_stand_ins_own_file_agrees_with_the_ledger(shop: Shop, provider: str, lines: int) -> None:
    """Captures at once and in part, refunds, estimated and told fees: nothing differs, and nothing is missing."""
    trade(shop, **(ADYEN if provider == "adyen" else {}))
    missing = shop.send("GET", f"/v1/settlements/missing?provider={provider}&{COVERED}").json or {}
    assert sorted((each["kind"], each["amount"]) for each in missing["missing"]) == [
        ("capture", 700),
        ("capture", 1999),
        ("refund", -500),
    ]
    answer = send(shop, provider, settlement(shop, provider))
    assert answer.status_code == 201, answer.text
    assert verdicts(answer) == {"matched": lines}
    missing = shop.send("GET", f"/v1/settlements/missing?provider={provider}&{COVERED}").json or {}
    assert missing["missing"] == []
    known = send(shop, provider, settlement(shop, provider))
    assert (known.status_code, (known.json or {})["known"]) == (200, True)
    assert len((shop.send("GET", "/v1/settlements").json or {})["settlements"]) == 1
    fees = shop.rows("SELECT fee_actual FROM attempts WHERE fee_actual IS NOT NULL ORDER BY started_at")
    assert [each["fee_actual"] for each in fees] == ([90, 54] if provider == "stripe" else [55, 28])


@pytest.mark.parametrize("provider", ["stripe", "adyen"])
def test_planted_differences_are_listed(shop: Shop, provider: str, tmp_path: Path) -> None:
    """Over the API and on the command line."""
    for _ in range(4):
        assert shop.pay(**(ADYEN if provider == "adyen" else {})).status_code == 201
    answer = send(shop, provider, settlement(shop, provider, "?amount=1&fee=1&left_out=1&unknown=2"))
    found = verdicts(answer)
    # The same line may be drawn for an amount and a fee: the amount is what it says.
    assert (found["provider_only"], found["amount_differs"] + found.get("fee_differs", 0)) in ((2, 1), (2, 2))
    id = (answer.json or {})["id"]
    page = shop.send("GET", f"/v1/settlements/{id}/lines?verdict=amount_differs").json or {}
    (line,) = page["lines"]
    assert (line["settled"], line["expected"], line["expected_currency"]) == (2099, 1999, "EUR")
    assert page["next"] is None
    missing = shop.send("GET", f"/v1/settlements/missing?provider={provider}&{COVERED}").json or {}
    assert len(missing["missing"]) == 1


def test_the_command_imports_lists_shows_and_exports(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Exit code 0 where all agrees, 2 where something differs, 1 where the file is no good."""
    for _ in range(3):
        assert shop.pay().status_code == 201
    monkeypatch.setenv("ROUTER_DATABASE_URL", shop.url)
    monkeypatch.setattr(cli_settlements, "PAGE", 2)
    monkeypatch.setattr(settlement_ledger, "BATCH", 2)
    file = tmp_path / "october.csv"
    file.write_bytes(settlement(shop, "stripe"))
    assert main(["settlements", "import", "stripe", str(file)]) == 0
    assert "matched\tcapture\t3" in capsys.readouterr().out
    file.write_bytes(settlement(shop, "stripe", "?unknown=1"))
    assert main(["settlements", "import", "stripe", str(file)]) == 2
    said = capsys.readouterr().out
    assert "4 lines, 1 of them new" in said
    id = said.split(":")[0]
    assert main(["settlements", "show", id]) == 0
    assert "provider_only\tline 5\tpi_unknown1\tno payment" in capsys.readouterr().out
    assert main(["settlements", "list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    out = tmp_path / "out.csv"
    assert main(["settlements", "export", id, "--out", str(out)]) == 0
    assert [row.split(",")[1] for row in out.read_text().splitlines()] == ["id", "txn_unknown1"]
    assert main(["settlements", "export", "settlement_none", "--out", str(out)]) == 1
    assert len(out.read_text().splitlines()) == 2
    assert main(["settlements", "export", "stripe", "--grace-days", "0"]) == 0
    assert capsys.readouterr().out.splitlines() == ["provider,kind,id,payment_id,reference,amount,currency,at"]
    file.write_bytes(file.read_bytes() + b"txn_9,2026")
    capsys.readouterr()
    assert main(["settlements", "import", "stripe", str(file)]) == 1
    assert "line 6: has 2 columns where the heading has 17. Nothing was imported." in capsys.readouterr().err
    assert main(["settlements", "import", "stripe", str(tmp_path / "none.csv")]) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: file.replace(b"Merchant", b"Marchand", 1), "line 1, Merchant Account: the column is missing"),
        (lambda file: file.replace(b"SandboxMerchant", b"AnotherShop"), "line 2, Merchant Account: the line is of"),
        (lambda file: file + b"1,2\n", "columns where the heading has"),
        (lambda _file: b"", "line 1: the file is empty"),
        (lambda _file: b"\x89PNG\r\n\x1a\n\0\0", "line 1: is not UTF-8"),
        (lambda _file: b'{"a": "4111111111111111"}', "line 1"),
    ],
)
def test_a_file_that_is_no_good_leaves_nothing(witness: Witness, change: Any, said: str) -> None:
    """Over the API: 422, the line and the column, never the value."""
    witness.plant("AnotherShop", "Marchand", "4111111111111111")
    world = World("adyen")
    world.build(20, 0)
    answer = send(witness.shop, "adyen", change(world.file()))
    problem = witness.refused(answer, 422, "invalid-request", field="body")
    assert said in problem["detail"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/settlements/paypal", 404),
        ("GET", "/v1/settlements/none", 404),
        ("GET", "/v1/settlements/none/lines", 404),
        ("GET", "/v1/settlements/missing", 422),
        ("GET", "/v1/settlements/missing?provider=paypal", 422),
        ("GET", "/v1/settlements/missing?provider=stripe&cursor=x", 422),
        ("GET", "/v1/settlements/missing?provider=stripe&cursor=2026-01-01~x", 422),
        ("GET", "/v1/settlements/missing?provider=stripe&from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z", 422),
        ("GET", "/v1/settlements/missing?provider=stripe&grace_days=-1", 422),
    ],
)
def test_what_is_not_there_or_senseless_is_refused(witness: Witness, method: str, path: str, status: int) -> None:
    """As everywhere."""
    kind = "not-found" if status == 404 else "invalid-request"
    witness.refused(witness.shop.send(method, path, data=b"x"), status, kind)


def test_a_key_does_what_its_scopes_say_and_sees_its_merchants_lines(shops: OpenShop) -> None:
    """Only an operator sends files, and sees lines of no payment; nobody sees another merchant's."""
    shop = shops()
    for merchant in ("a", "b"):
        shop.add_key(f"pay-{merchant}", merchant=merchant)
        shop.add_key(f"reports-{merchant}", merchant=merchant, scopes=("reports",))
        assert shop.pay(api_key=f"pay-{merchant}").status_code == 201
    file = settlement(shop, "stripe", "?unknown=1")
    for key, status in (("pay-a", 403), ("reports-a", 403), (None, 401)):
        assert send(shop, "stripe", file, api_key=key).status_code == status
    shop.add_key("operate-a", merchant="a", scopes=("operate",))
    id = (send(shop, "stripe", file, api_key="operate-a").json or {})["id"]
    seen = {
        key: [
            each["number"]
            for each in (shop.send("GET", f"/v1/settlements/{id}/lines", api_key=key).json or {})["lines"]
        ]
        for key in ("reports-a", "reports-b", "operate-a")
    }
    assert seen == {"reports-a": [2], "reports-b": [3], "operate-a": [2, 4]}
    assert shop.send("GET", "/v1/settlements", api_key="pay-a").status_code == 403


def test_the_stand_ins_refuse_a_difference_that_they_do_not_know(shop: Shop) -> None:
    """By its name, as every control call."""
    for query, field in (("?surprise=1", "surprise"), ("?fee=x", "fee"), ("?fee=-1", "fee")):
        answer = urllib3.request("GET", f"{shop.sandbox.control_url}/control/stripe/settlement{query}")
        assert (answer.status, answer.json()["error"]["field"]) == (422, field)
