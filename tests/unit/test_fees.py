"""What a provider charges: of the lines of a day, the most specific one, in exact decimals."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.brands import BRANDS, brand_word
from providers.fees import Cell, Fee, FeeBook, FeeLine, Sale

TODAY = dt.date(2026, 11, 21)
ANY: Cell = (None, None, None, None)


def sale(amount: str = "60.00", currency: str = "EUR", **more: str | None) -> Sale:
    known: dict[str, str | None] = {"brand": None, "funding": None, "region": None, **more}
    return Sale(Decimal(amount), currency, known["brand"], known["funding"], known["region"], TODAY)


@pytest.mark.parametrize("currency", ["EUR", "USD", "GBP"])
def test_without_a_file_the_figures_are_those_that_practitioners_seed_with(currency: str) -> None:
    """Stripe 2.9% + 0.30, international 1.5% more; Adyen 0.13 an attempt and 2.1% (facts/routing.md)."""
    book = FeeBook.default()
    for region in (None, "domestic", "regional"):
        assert book.quote("stripe", sale("100", currency, region=region)) == Fee(
            Decimal("3.2"), Decimal(0), scheduled=True
        )
    assert book.quote("stripe", sale("100", currency, region="international")) == Fee(
        Decimal("4.7"), Decimal(0), scheduled=True
    )
    assert book.quote("adyen", sale("100", currency, region="international")) == (
        Decimal("2.1"),
        Decimal("0.13"),
        True,
    )


def test_without_a_file_another_currency_has_its_percentage_only() -> None:
    """0.30 is an amount of euros, not of yen."""
    book = FeeBook.default()
    assert book.quote("stripe", sale("500", "JPY")) == Fee(Decimal("14.5"), Decimal(0), scheduled=True)
    assert book.quote("stripe", sale("500", "JPY", region="international")).fee == Decimal("22")
    assert book.quote("adyen", sale("500", "JPY")) == Fee(Decimal("10.5"), Decimal(0), scheduled=True)


def test_a_provider_without_lines_is_not_scheduled() -> None:
    """It costs nothing as far as is known, and says that this is not known."""
    assert FeeBook.default().quote("third", sale()) == Fee(Decimal(0), Decimal(0), scheduled=False)


@pytest.mark.parametrize(
    ("asked", "percent"),
    [
        (sale(), 1),
        (sale(currency="USD", brand="visa"), 2),
        (sale(brand="visa"), 3),
        (sale(brand="VISA", funding="credit"), 3),
        (sale(brand="visa", funding="credit", region="international"), 5),
        (sale(currency="USD", brand="visa", funding="credit", region="international"), 2),
        (sale(brand="American Express", region="international"), 4),
        (sale(brand="amex"), 1),
        (sale(funding="unknown"), 1),
    ],
)
def test_the_line_that_names_the_most_wins(asked: Sale, percent: int) -> None:
    """Whichever columns they are; what is not known of a sale matches no line that names it."""
    lines: list[Cell] = [
        ANY,
        (None, "visa", None, None),
        ("EUR", "visa", None, None),
        (None, "amex", None, "international"),
        ("EUR", "visa", "credit", "international"),
    ]
    book = FeeBook(FeeLine("stripe", cell, Decimal(number)) for number, cell in enumerate(lines, start=1))
    assert book.quote("stripe", asked).fee == asked.amount * percent / 100


def test_a_line_holds_from_its_first_day_until_its_last() -> None:
    """Half open: on the day of the change the new price holds. Before the first line nothing is scheduled."""
    until = dt.date(2026, 12, 1)
    lines = [
        FeeLine("stripe", ANY, Decimal(1), since=TODAY, until=until),
        FeeLine("stripe", ANY, Decimal(2), since=until),
        FeeLine(
            "stripe", ("EUR", None, None, None), Decimal(5), since=dt.date(2026, 12, 24), until=dt.date(2026, 12, 25)
        ),
    ]
    book = FeeBook(lines)

    def fee(day: dt.date) -> Fee:
        return book.quote("stripe", Sale(Decimal(100), "EUR", None, None, None, day))

    assert [fee(TODAY).fee, fee(until - dt.timedelta(1)).fee, fee(until).fee] == [1, 1, 2]
    assert [fee(dt.date(2026, 12, day)).fee for day in (23, 24, 25)] == [2, 5, 2]
    assert fee(TODAY - dt.timedelta(1)) == Fee(Decimal(0), Decimal(0), scheduled=False)


def test_a_choice_that_is_remembered_is_never_another_sales() -> None:
    """Asked twice in any order, and after more sales than are remembered: always the same."""
    cells: list[Cell] = [ANY, (None, "visa", None, None), (None, None, None, "domestic")]
    book = FeeBook(
        FeeLine(name, cell, Decimal(n), Decimal(p)) for p, name in enumerate("ab") for n, cell in enumerate(cells)
    )
    asked = [("a", sale()), ("b", sale()), ("a", sale(brand="visa")), ("b", sale(region="domestic"))]
    first = [book.quote(*each) for each in asked]
    for number in range(5000):
        assert book.quote("a", sale(brand=f"brand {number}")).fee == 0
    assert [book.quote(*each) for each in reversed(asked)] == first[::-1]
    assert len(set(first)) == 4


@pytest.mark.parametrize(
    ("amount", "percent", "fixed", "fee"),
    [
        ("19.99", "2.9", "0.30", "0.8797"),  # 0.87971
        ("1.230", "4.4", "0", "0.0541"),  # 0.05412
        ("0.01", "0.5", "0", "0.0001"),  # 0.00005: half up
        ("0.01", "0.4999", "0", "0.0000"),
        ("9999999999999.99", "2.9", "0.30", "290000000000.2997"),
    ],
)
def test_a_fee_is_rounded_to_four_decimals_half_up(amount: str, percent: str, fixed: str, fee: str) -> None:
    """And has always four of them."""
    book = FeeBook([FeeLine("stripe", ANY, Decimal(percent), Decimal(fixed), Decimal("0.1"))])
    found = book.quote("stripe", sale(amount))
    assert (str(found.fee), str(found.attempt)) == (fee, "0.1000")


AMOUNTS = st.integers(1, 10**14).map(lambda minor: Decimal(minor).scaleb(-2))
PRICES = st.integers(0, 10**6).map(lambda minor: Decimal(minor).scaleb(-4))


@given(AMOUNTS, PRICES.filter(lambda price: price <= 100), PRICES, PRICES)
def test_a_quote_recomputes_by_whole_numbers(
    amount: Decimal, percent: Decimal, fixed: Decimal, tries: Decimal
) -> None:
    """In ten-thousandths of a unit: amount × percent, half up, and the fixed part."""
    quoted = FeeBook([FeeLine("stripe", ANY, percent, fixed, tries)]).quote("stripe", sale(str(amount)))
    share = int(amount * 100) * int(percent * 10_000)  # of 10⁸
    assert int(quoted.fee * 10_000) == (share + 5_000) // 10_000 + int(fixed * 10_000)
    assert (quoted.attempt, quoted.scheduled) == (tries, True)


def test_a_brand_is_known_by_its_other_names() -> None:
    """Small letters and digits only; a word that is not known stays itself."""
    words = ["Visa", "MasterCard", "mc", "American Express", "american_express", "Cartes Bancaires", "new-brand"]
    assert [brand_word(word) for word in words] == [
        *("visa", "mastercard", "mastercard", "amex", "amex", "cartesbancaires", "newbrand")
    ]
    assert brand_word(None) is None
    assert [brand_word(brand) for brand in BRANDS] == list(BRANDS)
