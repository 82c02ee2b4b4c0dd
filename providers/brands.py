"""Card brands, by one name each, however vendors and checkouts write them. Pure."""

from __future__ import annotations

BRANDS = (
    *("visa", "mastercard", "maestro", "amex", "discover", "diners", "jcb", "unionpay", "cartesbancaires"),
    *("bancontact", "dankort", "girocard", "eftpos", "interac", "elo", "hipercard", "rupay", "troy"),
)
_OTHER_NAMES = {
    "americanexpress": "amex",
    "mc": "mastercard",
    "dinersclub": "diners",
    "cup": "unionpay",
    "chinaunionpay": "unionpay",
    "cartebancaire": "cartesbancaires",
    "cb": "cartesbancaires",
    "eftposau": "eftpos",
    "bcmc": "bancontact",
}
"""What vendors and checkouts call some of them besides."""


def letters(told: str) -> str:
    """Small letters and digits only: `American Express` is `americanexpress`."""
    return "".join(each for each in told.lower() if each.isalnum())


def brand_word(told: str | None) -> str | None:
    """A brand's one name; of one that is not known, its letters."""
    if told is None:
        return None
    word = letters(told)
    return _OTHER_NAMES.get(word, word)
