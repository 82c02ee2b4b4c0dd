"""What a provider charges, in exact decimals."""

from __future__ import annotations

from decimal import Decimal

import pytest

from providers.fees import DEFAULT_SCHEDULES, FeeSchedule

SCHEDULE = FeeSchedule(
    percent=Decimal("2.9"),
    international_percent=Decimal("1.5"),
    fixed={"EUR": Decimal("0.30")},
    per_attempt={"EUR": Decimal("0.13")},
)


@pytest.mark.parametrize(
    ("amount", "currency", "international", "fee"),
    [
        ("19.99", "EUR", False, "0.87971"),
        ("19.99", "EUR", True, "1.17956"),
        ("0.01", "EUR", False, "0.30029"),
        ("500", "JPY", False, "14.5"),
        ("1.230", "KWD", True, "0.05412"),
    ],
)
def test_the_fee_is_a_share_and_a_fixed_part(amount: str, currency: str, international: bool, fee: str) -> None:
    """Exact to the last digit; a currency that is not named has no fixed part."""
    assert SCHEDULE.fee(Decimal(amount), currency, international=international) == Decimal(fee)


@pytest.mark.parametrize(("currency", "fee"), [("EUR", "0.13"), ("JPY", "0")])
def test_the_fee_of_an_attempt_is_by_currency(currency: str, fee: str) -> None:
    """It is due whether the attempt is approved or not, so it is kept apart."""
    assert SCHEDULE.attempt_fee(currency) == Decimal(fee)


@pytest.mark.parametrize("currency", ["EUR", "USD", "GBP"])
def test_the_default_schedules_are_those_that_practitioners_seed_with(currency: str) -> None:
    """Stripe 2.9% + 0.30, international 1.5% more; Adyen 0.13 an attempt and 2.1% (facts/routing.md)."""
    stripe, adyen = DEFAULT_SCHEDULES["stripe"], DEFAULT_SCHEDULES["adyen"]
    hundred = Decimal(100)
    assert stripe.fee(hundred, currency, international=False) == Decimal("3.2")
    assert stripe.fee(hundred, currency, international=True) == Decimal("4.7")
    assert stripe.attempt_fee(currency) == 0
    assert adyen.fee(hundred, currency, international=True) == Decimal("2.1")
    assert adyen.attempt_fee(currency) == Decimal("0.13")
