"""The verdict on a unit, and what a fee is compared with."""

from __future__ import annotations

from decimal import Decimal

import pytest

from providers.contract import Money
from router.reconciliation.matching import NO_FEE, Expected, Known, Settled, Verdict, expected_fee, judge

TOLD, ABOUT = Expected("told", 90, "EUR"), Expected("estimated", 100, "EUR")


@pytest.mark.parametrize(
    ("settled", "known", "verdict"),
    [
        (Settled(1999, "EUR", 90, "EUR"), None, "provider_only"),
        (Settled(1999, "EUR", 90, "EUR"), Known(0, "EUR"), "provider_only"),
        (Settled(0, "EUR", 0, "EUR"), Known(0, "EUR"), "matched"),
        (Settled(-500, "EUR", 0, "EUR"), Known(-500, "EUR"), "matched"),
        (Settled(500, "EUR", 0, "EUR"), Known(-500, "EUR"), "amount_differs"),
        (Settled(1999, "EUR", 90, "EUR"), Known(1998, "EUR", TOLD), "amount_differs"),
        (Settled(1999, "USD", 90, "EUR"), Known(1999, "EUR", TOLD), "amount_differs"),
        (Settled(1999, None, 90, "EUR"), Known(1999, "EUR", TOLD), "amount_differs"),
        (Settled(1999, "EUR", 90, "EUR"), Known(1999, "EUR", TOLD), "matched"),
        (Settled(1999, "EUR", 91, "EUR"), Known(1999, "EUR", TOLD), "fee_differs"),
        (Settled(1999, "EUR", 90, "USD"), Known(1999, "EUR", TOLD), "fee_differs"),
        (Settled(1999, "EUR", 90, "EUR"), Known(1999, "EUR", ABOUT), "matched"),
        (Settled(1999, "EUR", 89, "EUR"), Known(1999, "EUR", ABOUT), "fee_differs"),
        (Settled(1999, "EUR", 110, "EUR"), Known(1999, "EUR", ABOUT), "matched"),
        (Settled(1999, "EUR", 111, "EUR"), Known(1999, "EUR", ABOUT), "fee_differs"),
        (Settled(1999, "EUR", 300, "USD"), Known(1999, "EUR", ABOUT), "matched"),
        (Settled(1999, "EUR", 4, "EUR"), Known(1999, "EUR", Expected("estimated", 3, "EUR")), "matched"),
        (Settled(1999, "EUR", 5, "EUR"), Known(1999, "EUR", Expected("estimated", 3, "EUR")), "fee_differs"),
        (Settled(1999, "EUR", 999, "EUR"), Known(1999, "EUR", NO_FEE), "matched"),
    ],
)
def test_a_unit_is_judged_by_amount_then_by_fee(settled: Settled, known: Known | None, verdict: Verdict) -> None:
    """A told fee is exact, an estimate within a tenth; in another currency an estimate says nothing."""
    assert judge(settled, known) == verdict


@pytest.mark.parametrize(
    ("fee", "verdict"),
    [(76, "fee_differs"), (77, "matched"), (87, "matched"), (110, "matched"), (111, "fee_differs")],
)
def test_what_may_be_billed_apart_may_be_missing(fee: int, verdict: Verdict) -> None:
    """Adyen's fee of an attempt comes in lines of its own, monthly; a told fee has no such room."""
    assert judge(Settled(1999, "EUR", fee, "EUR"), Known(1999, "EUR", ABOUT, apart=13)) == verdict
    assert judge(Settled(1999, "EUR", 80, "EUR"), Known(1999, "EUR", TOLD, apart=13)) == "fee_differs"


def test_the_providers_word_comes_before_an_estimate() -> None:
    """Which is in major units, and is rounded half up to minor ones."""
    assert expected_fee(Money(90, "USD"), Decimal("0.88"), "EUR") == Expected("told", 90, "USD")
    assert expected_fee(None, Decimal("0.8850"), "EUR") == Expected("estimated", 89, "EUR")
    assert expected_fee(None, Decimal("12.5"), "JPY") == Expected("estimated", 13, "JPY")
    assert expected_fee(None, None, "EUR") == NO_FEE
