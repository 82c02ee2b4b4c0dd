"""What kind of payment it is, as far as approval rates are told apart: card brand and country, amount, method. Pure.

Whatever checkout writes, there are at most 14 brands × 677 countries × 6 bands × 3 methods, and `router.scores`
holds the first thousand that are used.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from providers.brands import brand_word

OTHER = "other"
"""A brand or method that is not in the tables below: free text must not make a segment of its own."""

_BRANDS = frozenset(
    {
        *("visa", "mastercard", "amex", "discover", "diners", "jcb", "unionpay", "maestro", "cartes_bancaires"),
        *("bancontact", "eftpos", "elo", "interac"),
    }
)
_TOGETHER = {"visaelectron": "visa", "electron": "visa", "cartesbancaires": "cartes_bancaires"}
"""Of a brand's own word (`providers.brands`), the segments' where it is another."""
_METHODS = frozenset({"card"})
_COUNTRY = re.compile(r"[A-Z]{2}")

BANDS = ((1_000, "<10"), (5_000, "<50"), (20_000, "<200"), (100_000, "<1000"))
"""Up to how many minor units, and the band's name in hundreds of them. One table for every currency: where money has
no minor unit the unit is about as small (100 yen are about a euro), so a band is the same kind of purchase nearly
everywhere; rates of exchange would be one more thing to be wrong about. Issuers look harder at large amounts, and
four steps of about five are as fine as a day's answers can tell apart."""
LARGEST_BAND = "more"
_BAND_NAMES = frozenset({"", LARGEST_BAND, *(name for _, name in BANDS)})
_PARTS = 4


class Segment(NamedTuple):
    """What approval rates are told apart by; "" is what nobody told."""

    brand: str
    country: str
    """The card's, two letters."""
    band: str
    """Of the amount. "": of all amounts and methods, which is brand × country."""
    method: str

    def key(self) -> str:
        """As a table keeps it: `visa|DE|<50|card`."""
        return "|".join(self)

    def parent(self) -> Segment:
        """Brand × country, all amounts and methods."""
        return Segment(self.brand, self.country, "", "")


def segment(amount_minor: int, brand: str | None, country: str | None, method: str | None) -> Segment:
    """The segment of a payment of so many minor units; whatever is unknown or makes no sense has its own word."""
    return Segment(_brand(brand), _country(country), band(amount_minor), _method(method))


def parse(key: str) -> Segment | None:
    """The segment that `key` wrote; None where it is none of this version's."""
    parts = key.split("|")
    if len(parts) != _PARTS:
        return None
    found = Segment(*parts)
    if found.band not in _BAND_NAMES or (found.brand, found.country) != (
        _brand(found.brand),
        _country(found.country),
    ):
        return None
    return found if found.method == _method(found.method) else None


def band(amount_minor: int) -> str:
    """The band of an amount."""
    for below, name in BANDS:
        if amount_minor < below:
            return name
    return LARGEST_BAND


@lru_cache(maxsize=256)
def _brand(told: str | None) -> str:
    if not told:
        return ""
    word = brand_word(told) or ""
    word = _TOGETHER.get(word, word)
    return word if word in _BRANDS else OTHER


def _country(told: str | None) -> str:
    return told if told and _COUNTRY.fullmatch(told) else ""


def _method(told: str | None) -> str:
    return "" if not told else told if told in _METHODS else OTHER
