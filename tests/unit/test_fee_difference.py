"""What was estimated beside what was charged: sums of the same payments in the same currency."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from router.fee_difference import differences
from router.ledger.actual_fees import ActualFee


def fee(
    fee: int,
    cost: object = 0.8797,
    *,
    amount: int = 1999,
    currency: str = "EUR",
    settled: str | None = None,
    provider: str = "stripe",
) -> ActualFee:
    decision: dict[str, Any] = {"candidates": [{"provider": "other", "cost": 99.0}]}
    if cost is not None:
        decision["candidates"].append({"provider": provider, "cost": cost})
    return ActualFee(provider, amount, currency, fee, settled or currency, decision)


def test_payments_are_summed_by_provider_and_currency() -> None:
    """Exactly, though an estimate is kept as a JSON number; a yen has no minor units."""
    found = differences(
        [fee(90), fee(90, 0.1), fee(100, 1.5, currency="JPY", amount=5000), fee(7, 0.07, provider="adyen")]
    )
    assert [(each.provider, each.currency, each.payments) for each in found] == [
        ("adyen", "EUR", 1),
        ("stripe", "EUR", 2),
        ("stripe", "JPY", 1),
    ]
    euros, yen = found[1], found[2]
    assert (euros.amount, euros.estimated, euros.actual) == (Decimal("39.98"), Decimal("0.9797"), Decimal("1.80"))
    assert euros.difference == Decimal("0.8203")
    assert round(euros.basis_points or 0, 2) == Decimal("205.18")
    assert [yen.amount, yen.actual, yen.difference, yen.basis_points] == [5000, 100, Decimal("98.5"), 197]
    assert found[0].difference == 0


def test_what_cannot_be_compared_is_counted_and_in_no_sum() -> None:
    """Settled in another currency: a difference would be an exchange rate. Not estimated: it would be all of it."""
    (found,) = differences(
        [fee(90), fee(95, settled="USD"), fee(80, None), fee(80, "x"), fee(95, None, settled="USD")]
    )
    assert (found.payments, found.settled_otherwise, found.not_estimated) == (1, 2, 2)
    assert (found.amount, found.estimated, found.actual) == (Decimal("19.99"), Decimal("0.8797"), Decimal("0.9"))
    (found,) = differences([fee(95, settled="USD")])
    assert [found.payments, found.basis_points, found.difference] == [0, None, 0]


def test_an_estimate_of_nothing_is_one() -> None:
    """A provider without a schedule was taken to cost nothing."""
    (found,) = differences([fee(90, 0.0)])
    assert (found.payments, found.not_estimated, found.difference) == (1, 0, Decimal("0.9"))


def test_without_fees_there_is_nothing() -> None:
    """No line, not one of zeros."""
    assert differences([]) == []
