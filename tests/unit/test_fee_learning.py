"""What settlements teach of the fees."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from decimal import Decimal

import pytest

from providers.fees import FeeBook, FeeLine
from router.fee_learning import MOST, WEIGHT, learn
from router.ledger.actual_fees import SettledFee

DAY = dt.date(2026, 11, 1)
BOOK = FeeBook(
    [
        FeeLine("stripe", (None, None, None, None), Decimal(2)),
        FeeLine("adyen", (None, None, None, None), Decimal(2), per_attempt=Decimal("0.13")),
    ]
)


def fees(
    count: int,
    fee: int,
    *,
    amount: int = 10_000,
    currency: str = "EUR",
    brand: str | None = "Visa",
    provider: str = "stripe",
) -> Sequence[SettledFee]:
    """So many payments of 100.00 that cost so much; the schedule says 2.00."""
    one = SettledFee(provider, amount, currency, fee, brand, "credit", "DE", None, "shop", DAY)
    return [one] * count


def germany(_merchant: str) -> str:
    """Where the merchant sells from."""
    return "DE"


def test_a_difference_is_a_share_of_the_amount_drawn_towards_none() -> None:
    """50 payments count half; so does each kind beside its currency."""
    found = learn(fees(WEIGHT, 250), BOOK, germany)
    assert found["stripe", "EUR", None, None, None] == pytest.approx(0.0025)
    assert found["stripe", "EUR", "visa", "credit", "domestic"] == pytest.approx(0.00375)
    assert len(found) == 2


def test_kinds_are_told_apart_and_what_agrees_teaches_nothing() -> None:
    """One brand is dearer than the schedule, the other as it says."""
    found = learn([*fees(950, 300, brand="amex"), *fees(950, 200, brand="mc")], BOOK, germany)
    assert found["stripe", "EUR", "amex", "credit", "domestic"] == pytest.approx(0.01, rel=0.05)
    assert found["stripe", "EUR", "mastercard", "credit", "domestic"] == pytest.approx(0, abs=0.0005)
    assert learn(fees(99, 200), BOOK, germany)["stripe", "EUR", None, None, None] == 0


def test_an_attempts_fee_may_be_in_it_or_billed_apart() -> None:
    """Adyen's settlement has it in lines of their own, monthly; beyond both, it is a difference."""
    key = ("adyen", "EUR", None, None, None)
    for fee, learned in ((200, 0), (207, 0), (213, 0), (223, 0.0005), (190, -0.0005)):
        assert learn(fees(WEIGHT, fee, provider="adyen"), BOOK)[key] == pytest.approx(learned)


def test_currencies_have_their_own_digits_and_their_own_difference() -> None:
    """30 yen more of 1,000 are 3%; 30 fils more of one dinar are as much."""
    yen, dinars = fees(WEIGHT, 50, amount=1000, currency="JPY"), fees(WEIGHT, 50, amount=1000, currency="KWD")
    found = learn([*yen, *dinars], BOOK)
    assert found["stripe", "JPY", None, None, None] == pytest.approx(0.015)
    assert found["stripe", "KWD", None, None, None] == pytest.approx(0.015)


def test_no_file_moves_a_fee_without_bounds() -> None:
    """Whatever it says."""
    found = learn([*fees(5000, 9_000), *fees(5000, -9_000, currency="USD")], BOOK)
    assert set(found.values()) == {MOST, -MOST}
    assert not learn([], BOOK)
