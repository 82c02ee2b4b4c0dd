"""What a payment is worth at a provider, and the line that says so."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from providers.contract import Money
from providers.fees import DEFAULT_SCHEDULES, FeeSchedule
from router.value import Value, by_fees, major_units

EUR = Money(6000, "EUR")
LINE = re.compile(r"(-?[\d.]+) = ([\d.]+)% × ([\d.]+) − fee (-?[\d.]+) − attempt (-?[\d.]+)")


@pytest.mark.parametrize(
    ("money", "major"),
    [
        (Money(1999, "EUR"), "19.99"),
        (Money(500, "JPY"), "500"),
        (Money(1230, "KWD"), "1.230"),
        (Money(300, "ISK"), "300"),
        (Money(1000, "CLP"), "1000"),
        (Money(12345, "CLF"), "1.2345"),
    ],
)
def test_minor_units_become_the_amount_that_people_write(money: Money, major: str) -> None:
    """By ISO 4217, written with all its digits."""
    assert str(major_units(money)) == major


def test_the_value_is_the_margin_less_the_fees() -> None:
    """10% of 60.00, less 2.1% of it and 0.13 an attempt."""
    value = by_fees(EUR, DEFAULT_SCHEDULES["adyen"], margin=0.10, international=False)
    assert value == Value(Decimal("4.610"), Decimal("1.390"), "4.61 = 10% × 60.00 − fee 1.26 − attempt 0.13")


def test_a_provider_without_a_schedule_is_taken_to_cost_nothing_and_says_so() -> None:
    """A missing schedule must be seen by whoever reads the decision."""
    value = by_fees(EUR, None, margin=0.10, international=True)
    assert (value.value, value.cost) == (Decimal(6), Decimal(0))
    assert value.reason.endswith("(no fee schedule)")


def test_a_card_from_another_country_costs_more() -> None:
    """Stripe's 1.5% of 60.00."""
    costs = [by_fees(EUR, DEFAULT_SCHEDULES["stripe"], margin=0.1, international=each).cost for each in (False, True)]
    assert costs[1] - costs[0] == Decimal("0.9")


@pytest.mark.parametrize("margin", [0.0, 0.005, 0.1, 0.125, 0.33, 1.0])
def test_the_margin_is_printed_as_it_was_set(margin: float) -> None:
    """12.5% must not be shown as 12%."""
    reason = by_fees(EUR, None, margin=margin, international=False).reason
    found = LINE.match(reason)
    assert found is not None
    assert Decimal(found[2]) == Decimal(str(margin)) * 100


@example(amount=1999, currency="EUR", margin=0.125, name="adyen", international=False)
@example(amount=999_999_999_999, currency="KWD", margin=0.333, name="stripe", international=True)
@given(
    amount=st.integers(1, 999_999_999_999),
    currency=st.sampled_from(["EUR", "USD", "JPY", "KWD", "CLP", "ISK"]),
    margin=st.decimals(0, 1, places=4).map(float),
    name=st.sampled_from(["stripe", "adyen", None]),
    international=st.booleans(),
)
def test_the_printed_line_recomputes_to_the_value(
    amount: int, currency: str, margin: float, name: str | None, international: bool
) -> None:
    """Whoever takes a calculator to it arrives at the printed figure, but for the rounding of each part shown."""
    schedule: FeeSchedule | None = None if name is None else DEFAULT_SCHEDULES[name]
    value = by_fees(Money(amount, currency), schedule, margin=margin, international=international)
    found = LINE.match(value.reason)
    assert found is not None, value.reason
    shown, percent, major, fee, attempt = (Decimal(each) for each in found.groups())
    assert major == major_units(Money(amount, currency))
    assert abs(shown - value.value) <= Decimal("0.005")
    assert abs(percent * major / 100 - fee - attempt - shown) <= Decimal("0.015")
    assert abs(fee + attempt - value.cost) <= Decimal("0.01")
