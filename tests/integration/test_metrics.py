"""`/metrics` of a whole router: what it counts is what the ledger holds."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from prometheus_client.parser import text_string_to_metric_families

from router.ledger.engine import Database
from router.ledger.unavailable import LedgerUnavailableError
from tests.integration.conftest import OpenShop
from tests.integration.shop import Shop, order, paying_with


def figures(text: str) -> Mapping[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample of a page, which must be sound."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Page:
    """One scrape."""

    def __init__(self, shop: Shop) -> None:
        answer = shop.send("GET", "/metrics", api_key=None)
        assert answer.status_code == 200, answer.text
        self.text = answer.text
        self._found = figures(answer.text)

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name with these labels, and any others."""
        wanted = set(labels.items())
        found = [value for (each, has), value in self._found.items() if each == name and wanted <= has]
        assert found, f"no {name} {labels}"
        return sum(found)

    def has(self, name: str) -> bool:
        """Whether there is such a sample."""
        return any(each == name for each, _ in self._found)


def series(page: Page) -> int:
    """How many there are; which loops have had a round by now is chance."""
    return sum(1 for line in page.text.splitlines() if "pointsman_loop_rounds" not in line)


def by_status(shop: Shop) -> Mapping[str, int]:
    """The ledger's own count of payments."""
    return {
        row["status"]: row["n"] for row in shop.rows("SELECT status, count(*) AS n FROM payments GROUP BY status")
    }


def test_what_is_counted_is_what_the_ledger_holds(shop: Shop) -> None:
    """Payments by status, attempts by outcome and class, calls, times, refusals."""
    for _ in range(3):
        assert shop.pay().status_code == 201
    declined = paying_with(stripe="pm_card_chargeDeclined", adyen="8415718415172204")
    shop.pay(payment_method=declined)
    shop.fault("stripe", "down")
    shop.fault("adyen", "down")
    assert shop.pay().status_code == 202  # parked
    assert shop.pay({"amount": 1}).status_code == 422
    page = Page(shop)
    held = by_status(shop)
    assert held["parked"] == 1
    for status, count in held.items():
        assert page("pointsman_payments_total", status=status) == count
    assert page("pointsman_payments_created_total") == sum(held.values())
    outcomes = shop.rows("SELECT provider, outcome, count(*) AS n FROM attempts GROUP BY provider, outcome")
    for row in outcomes:
        found = page("pointsman_attempts_total", provider=row["provider"], outcome=row["outcome"])
        assert found == row["n"], row
    assert page("pointsman_attempts_total", outcome="not_executed", failure="unreachable") == 2.0
    assert page("pointsman_attempts_total", outcome="declined", failure="soft") == 1.0
    assert page("pointsman_payment_to_final_seconds_count") == held["captured"] + held.get("declined", 0)
    assert page("pointsman_decision_seconds_count") == 5.0
    requests = {status: page("pointsman_http_requests_total", status=status) for status in ("2xx", "4xx")}
    assert requests == {"2xx": 5.0, "4xx": 1.0}
    assert page("pointsman_http_request_seconds_count", endpoint="payments.create_payment") == 6.0
    sends = shop.rows("SELECT sum(sends) AS n FROM attempts")[0]["n"]
    assert page("pointsman_provider_call_seconds_count", call="authorize") == sends
    assert page("pointsman_provider_calls_total", call="authorize", result="unreachable") == 2.0
    assert page("pointsman_parked_payments") == 1.0
    assert page("pointsman_ledger_up") == 1.0
    assert page("pointsman_processes", role="web") == 1.0
    assert page("pointsman_ledger_write_seconds_count") >= 2 * sum(held.values()) - 1


def test_a_circuit_that_opens_is_seen(shop: Shop) -> None:
    """Its state, one of them; the transition, which the ledger counts, whoever made it; and who was turned away."""
    answer = shop.send("POST", "/v1/providers/stripe/breaker", json={"mode": "forced_open", "reason": "a test"})
    assert answer.status_code == 200
    assert shop.core.health.admit("stripe") is None
    page = Page(shop)
    assert page("pointsman_circuit_state", provider="stripe", state="forced_open") == 1.0
    assert page("pointsman_circuit_state", provider="stripe") == 1.0
    assert page("pointsman_circuit_transitions_total", provider="stripe", state="forced_open") == 1.0
    assert page("pointsman_circuit_transitions_total", provider="adyen") == 0.0
    assert page("pointsman_bulkhead_refused_total", provider="stripe") == 1.0


def test_places_that_are_taken_are_seen(shop: Shop) -> None:
    """As of the moment of the scrape, in the process that answers."""
    call = shop.core.health.admit("stripe")
    assert call is not None
    with call:
        assert Page(shop)("pointsman_bulkhead_in_use", provider="stripe") == 1.0
    assert Page(shop)("pointsman_bulkhead_in_use", provider="stripe") == 0.0


def test_nothing_of_a_customer_is_on_the_page(shop: Shop) -> None:
    """No merchant, payment, attempt, reference, token or key; and no more series for more payments."""
    shop.add_key("key-of-a-merchant", merchant="merchant-with-a-name")
    body = order()
    answer = shop.pay(body, api_key="key-of-a-merchant")
    shop.send("GET", f"/v1/payments/{(answer.json or {})['id']}/nothing-here")
    Page(shop)  # a scrape is a request like others, and has its series from then on
    before = Page(shop)
    told = answer.json or {}
    private = [told["id"], told["attempts"][0]["id"], body["reference"], "pm_card_visa", "merchant-with-a-name"]
    assert not [each for each in (*private, "key-of-a-merchant", "nothing-here") if each in before.text]
    for _ in range(3):
        shop.pay(api_key="key-of-a-merchant")
    assert series(Page(shop)) == series(before)


def test_a_token_keeps_strangers_out(shops: OpenShop) -> None:
    """Where one is set; an API key is none."""
    shop = shops(metrics_token="the-token-of-prometheus")
    assert shop.send("GET", "/metrics", api_key=None).status_code == 401
    refused = shop.send("GET", "/metrics")
    assert (refused.status_code, refused.content_type) == (401, "application/problem+json")
    assert "pointsman_" not in refused.text
    assert shop.send("GET", "/metrics", api_key="the-token-of-prometheus").status_code == 200


def test_a_ledger_that_is_away_is_told_of(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page answers with what the process knows of itself; what is the ledger's is not made up."""
    shop.pay()

    def away(_self: Database) -> None:
        raise LedgerUnavailableError("away")

    monkeypatch.setattr(Database, "read", away)
    page = Page(shop)
    assert page("pointsman_ledger_up") == 0.0
    assert page("pointsman_payments_total", status="captured") == 1.0
    assert not page.has("pointsman_parked_payments")


def test_a_router_that_starts_again_goes_on_counting(shops: OpenShop) -> None:
    """Counters never fall; and what the first process was is past."""
    first = shops()
    first.pay()
    _, stop = first.app.extensions["pointsman"]
    stop()
    second = shops()
    second.pay()
    page = Page(second)
    assert page("pointsman_payments_total", status="captured") == 2.0
    assert page("pointsman_processes", role="web") == 1.0
    assert len(list(second.core.measuring.folder.glob("*.alive"))) == 1


def test_limits_are_counted_by_their_kind(shop: Shop) -> None:
    """What `router.limits` calls."""
    shop.core.measuring.refused("rate")
    assert Page(shop)("pointsman_requests_refused_total", reason="rate") == 1.0


def test_every_name_keeps_to_the_conventions(shop: Shop) -> None:
    """Prefix, base units, `_total` of counters alone, and something to read about each."""
    for family in text_string_to_metric_families(Page(shop).text):
        assert family.name.startswith("pointsman_")
        assert family.documentation
        assert not family.name.endswith(("_ms", "_milliseconds", "_percent", "_count", "_sum"))
        assert family.type in {"counter", "gauge", "histogram"}, family.name
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)
        else:
            assert not family.name.endswith("_total")
