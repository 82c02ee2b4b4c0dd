"""How far from the merchant a card was issued."""

from __future__ import annotations

import pytest

from providers.regions import COUNTRIES, EEA, region_of


@pytest.mark.parametrize(
    ("card", "merchant", "region"),
    [
        ("DE", "DE", "domestic"),
        ("US", "US", "domestic"),
        ("DE", "FR", "regional"),
        ("NO", "IE", "regional"),
        ("GB", "FR", "international"),
        ("FR", "GB", "international"),
        ("CH", "LI", "international"),
        ("US", "DE", "international"),
        ("US", "CA", "international"),
        (None, "DE", None),
        ("DE", None, None),
        (None, None, None),
    ],
)
def test_a_region_is_told_by_two_countries(card: str | None, merchant: str | None, region: str | None) -> None:
    """Regional is within the EEA, which the United Kingdom and Switzerland are not in."""
    assert region_of(card, merchant) == region


def test_the_countries_are_those_of_the_standard() -> None:
    """249 codes of ISO 3166-1; 30 states in the EEA."""
    assert (len(COUNTRIES), len(EEA)) == (249, 30)
    assert EEA < COUNTRIES
    assert not {"UK", "EU", "XX", "EL"} & COUNTRIES
