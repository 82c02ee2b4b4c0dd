"""Segments: few enough whatever checkout writes, and the same after a stay in a table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.segments import Segment, band, parse, segment

TEXT = st.text(max_size=12) | st.sampled_from(["visa", "MC", "American Express", "card", "DE", "|", "*"])


def test_a_segment_is_what_approval_rates_are_told_apart_by() -> None:
    """Brand, card's country, band of the amount, method."""
    assert segment(1999, "visa", "DE", "card") == Segment("visa", "DE", "<50", "card")


@pytest.mark.parametrize(
    ("amount", "name"),
    [(1, "<10"), (999, "<10"), (1000, "<50"), (4999, "<50"), (5000, "<200"), (20_000, "<1000"), (100_000, "more")],
)
def test_amounts_fall_into_bands_of_minor_units(amount: int, name: str) -> None:
    """An amount that is a band's bound belongs to the next."""
    assert band(amount) == name


@pytest.mark.parametrize(
    ("told", "brand"),
    [("Visa", "visa"), ("mc", "mastercard"), ("American Express", "amex"), ("cartes_bancaires", "cartes_bancaires")],
)
def test_a_brand_is_known_however_a_vendor_writes_it(told: str, brand: str) -> None:
    """Two spellings would be two segments, each with half of the answers."""
    assert segment(1, told, "DE", "card").brand == brand


def test_what_is_not_told_is_told_apart_from_what_is_not_known() -> None:
    """Most payments without a brand have nothing in common with a rare brand's."""
    assert segment(1, None, None, None) == Segment("", "", "<10", "")
    assert segment(1, "buycard", "Germany", "wire") == Segment("other", "", "<10", "other")


@given(st.integers(1, 10**12), TEXT | st.none(), TEXT | st.none(), TEXT | st.none())
def test_whatever_checkout_writes_there_are_few_segments(
    amount: int, brand: str | None, country: str | None, method: str | None
) -> None:
    """Free text never becomes a part, so nobody can fill the table with names; and each is read as it was written."""
    found = segment(amount, brand, country, method)
    assert parse(found.key()) == found
    assert parse(found.parent().key()) == found.parent()
    assert len(found.brand) <= 16
    assert found.country == "" or (len(found.country) == 2 and found.country.isascii())
    assert found.method in ("", "card", "other")


@pytest.mark.parametrize(
    "key", ["", "*", "visa|DE|<50", "visa|DE|<50|card|x", "visa|DE|<51|card", "VISA|DE|<50|card", "visa|de|<50|card"]
)
def test_a_key_that_this_version_does_not_write_is_none(key: str) -> None:
    """A later version's rows are left to it."""
    assert parse(key) is None
