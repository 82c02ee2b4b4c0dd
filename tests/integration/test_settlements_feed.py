"""What an import feeds: the reports, the scorer, /metrics; through a whole router."""

from __future__ import annotations

from typing import Any

import pytest

from router.ledger.figures import Figures
from router.ledger.rollups import Rollups
from router.reconciliation.matching import DIFFERING
from router.reports.rollup import Rollup
from tests.integration.settlement_world import World
from tests.integration.shop import Shop

ORDER: dict[str, Any] = {
    "reference": "ORD-1",
    "amount": 10_000,
    "currency": "EUR",
    "payment_method": {"type": "card", "tokens": {"stripe": "pm_card_visa", "adyen": "8415718415172204"}},
}


def candidate(shop: Shop, provider: str) -> dict[str, Any]:
    """What a decision says of it now."""
    answer = shop.send("POST", "/v1/decisions", json=ORDER)
    assert answer.status_code in (200, 201), answer.text
    (found,) = [each for each in (answer.json or {})["candidates"] if each["provider"] == provider]
    return dict(found)


def costs(shop: Shop) -> dict[str, Any]:
    """What the reports say of the world's month, in euros."""
    assert Rollup(Rollups(shop.core.database), shop.core.clock).run_once().caught_up
    rows = shop.send("GET", "/v1/reports/routing?from=2026-09-30&to=2026-11-02&group_by=currency").json or {}
    (row,) = [each for each in rows["rows"] if each["currency"] == "EUR"]
    return dict(row)


def test_an_import_feeds_the_reports_the_scorer_and_the_metric(shop: Shop) -> None:
    """Adyen kept 2.9% where the schedule says 2.1%: later decisions weigh it so, and say what is learned."""
    world = World("adyen")
    world.build(400, 3, ("amount", "unknown_charge", "ledger_only"))
    world.save(shop.core.database)
    shop.core.fee_lessons.run_once()
    before, reported = candidate(shop, "adyen"), costs(shop)
    assert (before["fee"], before.get("fee_learned")) == (2.1, None)
    assert reported["fees_told"] == 0
    figures = Figures(shop.core.database)
    assert figures.settled(shop.core.clock.now()) == []

    answer = shop.send("POST", "/v1/settlements/adyen", data=world.file())
    assert answer.status_code == 201, answer.text

    # The reports: each settled fee is in them, exactly.
    euros = {
        id: fee
        for id, (fee, currency) in world.fees.items()
        if currency == "EUR"
        and shop.rows(f"SELECT currency FROM payments WHERE id = '{id.replace('att', 'pay')}'")[0]["currency"]
        == "EUR"
    }
    told = costs(shop)
    assert told["fees_told"] == len(euros)
    assert round(float(told["fee_actual"]) * 100) == sum(euros.values())

    # The scorer: nothing until this process has read it, and then by the difference.
    assert candidate(shop, "adyen")["fee"] == 2.1
    assert shop.core.fee_lessons.run_once() == 1
    after = candidate(shop, "adyen")
    assert after["fee_learned"] == pytest.approx(0.8 * 200 / 250, abs=0.1)
    assert after["fee"] == pytest.approx(2.1 + after["fee_learned"])
    assert after["value"] < before["value"]
    assert candidate(shop, "stripe").get("fee_learned") is None
    assert shop.core.fee_lessons.run_once() == 0

    # The metric.
    counted = {kind: count for _, kind, count in figures.settled(shop.core.clock.now()) if kind in DIFFERING}
    assert counted == {"amount_differs": 3, "provider_only": 3}


def test_what_was_learned_is_not_learned_a_second_time(shop: Shop) -> None:
    """Nor does it hide the difference from finance: the agreed price is what a settled fee is compared with."""
    world = World("adyen")
    world.build(200, 0)
    world.save(shop.core.database)
    assert shop.send("POST", "/v1/settlements/adyen", data=world.file()).status_code == 201
    assert shop.core.fee_lessons.run_once() == 1
    tokens = {"type": "card", "tokens": {"adyen": "8415718415172204"}}
    paid = shop.pay(amount=10_000, payment_method=tokens).json or {}
    (told,) = [each for each in paid["decision"]["candidates"] if each["provider"] == "adyen"]
    assert told["fee_learned"] > 0.3
    (attempt,) = shop.rows(f"SELECT id, provider_reference FROM attempts WHERE payment_id = '{paid['id']}'")
    later = World("adyen", seed=2)
    later._adyen(
        attempt["provider_reference"],
        attempt["id"],
        "Settled",
        "C000000000000001",
        "EUR",
        10_000,
        shop.core.clock.now(),
        fee=290,
        net="EUR",
    )
    answer = shop.send("POST", "/v1/settlements/adyen", data=later.file()).json or {}
    assert answer["lines_by_verdict"] == {"fee_differs": {"capture": 1}}
    # One more payment at the price that was learned: what is learned stays what it was.
    before = told["fee_learned"]
    assert shop.core.fee_lessons.run_once() == 1
    assert candidate(shop, "adyen")["fee_learned"] == pytest.approx(before, abs=0.02)
