"""Amounts at the vendors: exact, or refused."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.contract import Ineligible, Money
from providers.currencies import ADYEN, ISO_EXPONENTS, STRIPE, MinorUnits, iso_exponent

VENDORS = pytest.mark.parametrize("vendor", [STRIPE, ADYEN], ids=["stripe", "adyen"])
currencies = st.sampled_from(sorted(ISO_EXPONENTS))
SPECIAL = ["CLP", "ISK", "UGX", "MGA", "IDR", "CVE", "BHD", "JOD", "KWD", "OMR", "TND", "JPY", "EUR"]
likely = st.one_of(st.sampled_from(SPECIAL), currencies)
amounts = st.one_of(st.integers(1, 10**13), st.integers(1, 10**6).map(lambda n: n * 100))
VENDOR_PLACES = {
    # facts/providers.md, written down a second time: (ISO 4217, Stripe, Adyen)
    "CLP": (0, 0, 2),
    "ISK": (0, 2, 2),
    "UGX": (0, 2, 0),
    "MGA": (2, 0, 2),
    "IDR": (2, 2, 0),
    "CVE": (2, 2, 0),
    **dict.fromkeys(("BHD", "JOD", "KWD", "OMR", "TND"), (3, 3, 3)),
    "JPY": (0, 0, 0),
    "EUR": (2, 2, 2),
}


def places(vendor: MinorUnits, currency: str) -> int:
    """The vendor's decimal places, by the facts."""
    iso, stripe, adyen = VENDOR_PLACES.get(currency, (ISO_EXPONENTS[currency],) * 3)
    assert iso == ISO_EXPONENTS[currency]
    return stripe if vendor is STRIPE else adyen


@VENDORS
@given(amount=amounts, currency=likely)
def test_what_is_sent_is_worth_exactly_what_was_asked(vendor: MinorUnits, amount: int, currency: str) -> None:
    """Or the vendor is ineligible: no amount is ever rounded."""
    try:
        sent = vendor.to_vendor(Money(amount, currency))
    except Ineligible:
        return
    assert Fraction(sent, 10 ** places(vendor, currency)) == Fraction(amount, 10 ** ISO_EXPONENTS[currency])
    assert vendor.to_iso(sent, currency) == Money(amount, currency)


@VENDORS
@given(major=st.integers(1, 9999), currency=currencies)
def test_a_whole_amount_is_never_refused(vendor: MinorUnits, major: int, currency: str) -> None:
    """Whole units (up to 9999, within everyone's digits) can be expressed in every currency."""
    assert vendor.to_vendor(Money(major * 10 ** ISO_EXPONENTS[currency], currency)) == major * 10 ** places(
        vendor, currency
    )


@pytest.mark.parametrize(
    ("vendor", "amount", "currency", "sent"),
    [
        (STRIPE, 1999, "EUR", 1999),
        (STRIPE, 500, "JPY", 500),
        (STRIPE, 500, "ISK", 50000),
        (STRIPE, 500, "UGX", 50000),
        (STRIPE, 500, "CLP", 500),
        (STRIPE, 500, "MGA", 5),
        (STRIPE, 1230, "KWD", 1230),
        (ADYEN, 500, "JPY", 500),
        (ADYEN, 500, "CLP", 50000),
        (ADYEN, 500, "ISK", 50000),
        (ADYEN, 500, "UGX", 500),
        (ADYEN, 500, "IDR", 5),
        (ADYEN, 500, "CVE", 5),
        (ADYEN, 1234, "KWD", 1234),
    ],
)
def test_the_vendors_own_places_are_used(vendor: MinorUnits, amount: int, currency: str, sent: int) -> None:
    """Each row of the facts' table, by example."""
    assert vendor.to_vendor(Money(amount, currency)) == sent


@pytest.mark.parametrize(
    ("vendor", "amount", "currency", "reason"),
    [
        (STRIPE, 501, "MGA", "exactly"),
        (STRIPE, 1234, "KWD", "exactly"),
        (STRIPE, 1001, "TND", "exactly"),
        (ADYEN, 501, "IDR", "exactly"),
        (ADYEN, 550, "CVE", "exactly"),
        (STRIPE, 10**8, "EUR", "8 digits"),
        (STRIPE, 10**8, "JPY", "8 digits"),
        (STRIPE, 10**6, "ISK", "8 digits"),
        (STRIPE, 10**12, "IDR", "12 digits"),
        (STRIPE, 0, "EUR", "not positive"),
        (ADYEN, -5, "EUR", "not positive"),
        (STRIPE, 100, "XXX", "ISO 4217"),
        (ADYEN, 100, "XAU", "ISO 4217"),
        (ADYEN, 100, "eur", "ISO 4217"),
        (STRIPE, 100, "BTC", "ISO 4217"),
    ],
)
def test_what_cannot_be_expressed_makes_the_vendor_ineligible(
    vendor: MinorUnits, amount: int, currency: str, reason: str
) -> None:
    """With the reason, for people."""
    with pytest.raises(Ineligible, match=reason):
        vendor.to_vendor(Money(amount, currency))


def test_the_most_that_stripe_takes_is_taken() -> None:
    """Eight digits, and twelve of the rupiah."""
    assert STRIPE.to_vendor(Money(99_999_999, "EUR")) == 99_999_999
    assert STRIPE.to_vendor(Money(999_999_999_999, "IDR")) == 999_999_999_999
    assert ADYEN.to_vendor(Money(100_000_000, "EUR")) == 100_000_000


def test_a_vendors_amount_that_is_finer_than_iso_is_refused() -> None:
    """Half a krona does not exist."""
    with pytest.raises(Ineligible, match="finer"):
        STRIPE.to_iso(50, "ISK")


def test_the_list_is_the_standards_own() -> None:
    """Places of 0, 2, 3 and 4 decimals, and nothing for what has none."""
    assert [iso_exponent(currency) for currency in ("JPY", "EUR", "KWD", "CLF")] == [0, 2, 3, 4]
