"""`GET /v1/flags/changes` and the flags' part of `/readyz`, over a whole router."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from flags.changes import Definition
from flags.contract import PRIMARY_PROVIDER, SourceStatus
from flags.filewriter import FileFlagWriter
from router.api.operator_views import FlagChangeList, FlagsView, flags_json
from router.ledger.flag_values import FlagValueLedger
from router.settings import PROVIDER_NAMES
from tests.integration.conftest import OpenShop
from tests.integration.shop import Shop

pytestmark = pytest.mark.either_database

NOW = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)


def eventually(check: Callable[[], Any], within_s: float = 5.0) -> Any:
    end = time.monotonic() + within_s
    while not (found := check()):
        assert time.monotonic() < end, f"not within {within_s} s"
        time.sleep(0.02)
    return found


def changes(shop: Shop, query: str = "") -> Any:
    answer = shop.send("GET", f"/v1/flags/changes{query}")
    assert answer.status_code == 200, answer.text
    FlagChangeList.model_validate(answer.json)
    return answer.json


def test_a_toggle_is_an_audit_event_with_old_and_new_value(shops: OpenShop) -> None:
    """Two processes over one ledger and one flags file: one line, newest first, and what it was before."""
    shop = shops()
    shops()
    eventually(lambda: changes(shop)["changes"])
    settings = shop.core.settings
    writer = FileFlagWriter(settings.flags_path, PROVIDER_NAMES)
    writer.set(PRIMARY_PROVIDER, "adyen", expected=None, comment="a person")
    listed = eventually(lambda: [each for each in changes(shop)["changes"] if each["old"]])
    time.sleep(0.6)  # two rounds of the other process
    assert [each for each in changes(shop)["changes"] if each["old"]] == listed
    [change] = listed
    assert (change["key"], change["kind"], change["version"]) == (PRIMARY_PROVIDER, "flag", 2)
    assert change["old"] == {"on": True, "serves": "stripe", "off": "stripe", "rules": 0, "targets": 0}
    assert change["new"]["serves"] == "adyen"
    assert change["seen_by"].startswith("web:")
    assert len(changes(shop, f"?key={PRIMARY_PROVIDER}")["changes"]) == 2
    assert changes(shop, "?key=none")["changes"] == []


def test_pages_and_who_may_read_them(shops: OpenShop) -> None:
    """The scopes of on-call and of reports; a cursor that is none is refused."""
    shop = shops()
    told = [
        Definition(
            "flag", "k", n, {"version": n, "on": True, "variations": [n], "fallthrough": {"variation": 0}}, NOW
        )
        for n in range(1, 53)
    ]
    FlagValueLedger(shop.core.database).saw("launchdarkly:0123", told, by="web:a:1")
    first = changes(shop, "?key=k")
    assert [each["new"]["serves"] for each in first["changes"]] == list(range(52, 2, -1))
    rest = changes(shop, f"?key=k&cursor={first['next']}")
    assert [each["version"] for each in rest["changes"]] == [2, 1]
    assert rest["next"] is None
    assert shop.send("GET", "/v1/flags/changes?cursor=x").status_code == 422
    assert shop.send("GET", f"/v1/flags/changes?cursor={2**63}").status_code == 422
    only_payments = shop.add_key("k-payments", merchant="m", scopes=("payments",))
    reports = shop.add_key("k-reports", merchant="m", scopes=("reports",))
    assert shop.send("GET", "/v1/flags/changes", api_key=only_payments).status_code == 403
    assert shop.send("GET", "/v1/flags/changes", api_key=reports).status_code == 200


def test_a_broken_file_at_start_serves_the_last_known_flags(shops: OpenShop, tmp_path: Any) -> None:
    """Those of the run before, from the ledger; /readyz says so, and since when."""
    first = shops(flags={PRIMARY_PROVIDER: "adyen"})
    eventually(lambda: changes(first)["changes"])
    path = first.core.settings.flags_path
    good = path.read_bytes()
    path.write_text("{")
    second = shops()
    body = (second.send("GET", "/readyz", api_key=None).json or {})["flags"]
    FlagsView.model_validate(body)
    assert (body["state"], body["serves"]) == ("initializing", "last known")
    assert 0 <= body["age_seconds"] < 60
    decision = (second.pay().json or {})["decision"]
    assert decision["primary"] == "adyen"
    path.write_bytes(good)
    eventually(lambda: (second.send("GET", "/readyz", api_key=None).json or {})["flags"]["serves"] == "current")


def test_a_payment_is_stored_with_whether_its_primary_was_pinned(shops: OpenShop) -> None:
    """With the other flags; a payment of an older version has none of it, and is read as ever."""
    shop = shops()
    paid = shop.pay().json or {}
    [row] = shop.rows("SELECT flags FROM payments WHERE id = :id", id=paid["id"])
    assert '"primary_pinned": false' in str(row["flags"]) or row["flags"]["primary_pinned"] is False
    with shop.core.database.engine.begin() as connection:
        connection.execute(sa.text("""UPDATE payments SET flags = '{"primary": "stripe"}'"""))
    assert shop.read(paid["id"])["status"] == "captured"
    assert shop.send("POST", f"/v1/payments/{paid['id']}/refunds", key="r", json={}).status_code in (200, 201, 202)


@pytest.mark.parametrize(
    ("status", "serves", "age_s"),
    [
        (SourceStatus("valid", NOW - dt.timedelta(hours=3)), "current", 0.0),
        (SourceStatus("interrupted", NOW, "x", as_of=NOW - dt.timedelta(seconds=90)), "current", 90.0),
        (SourceStatus("initializing", NOW, "x", "last known", NOW - dt.timedelta(days=1)), "last known", 86400.0),
        (SourceStatus("initializing", NOW, "x", "defaults"), "defaults", None),
    ],
)
def test_the_age_of_what_is_served(status: SourceStatus, serves: str, age_s: float | None) -> None:
    """None while it is valid, and none of the defaults, which do not age."""
    shown = flags_json(status, NOW)
    FlagsView.model_validate(shown)
    assert (shown["serves"], shown["age_seconds"]) == (serves, age_s)
