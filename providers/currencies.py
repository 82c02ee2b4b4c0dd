"""Amounts as each vendor wants them: where Stripe and Adyen leave ISO 4217, and what they cannot express.

Everywhere else in the router an amount is integer minor units by ISO 4217. Here, and only here, it becomes the
vendor's own. Nothing is ever rounded: what a vendor cannot express exactly makes it ineligible for the payment.

Sources: https://docs.stripe.com/currencies (special cases, maximum) and
https://docs.adyen.com/development-resources/currency-codes; ISO 4217 from the standard's own file (`iso4217`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import iso4217

from providers.contract import Ineligible, Money

ISO_EXPONENTS: Mapping[str, int] = MappingProxyType(
    {currency.code: currency.exponent for currency in iso4217.Currency if currency.exponent is not None}
)
"""Decimal places by ISO 4217, for every currency that has minor units (gold, for example, has none)."""


def iso_exponent(currency: str) -> int:
    """How many decimal places ISO 4217 gives the currency. Raises Ineligible where it is not in the standard."""
    exponent = ISO_EXPONENTS.get(currency)
    if exponent is None:
        raise Ineligible("the currency is not in ISO 4217, or has no minor units there")
    return exponent


@dataclass(frozen=True, slots=True)
class MinorUnits:
    """One vendor's minor units: its exceptions from ISO 4217."""

    vendor: str
    exponents: Mapping[str, int]
    """Decimal places where they are not ISO 4217's."""
    steps: Mapping[str, int] = field(default_factory=dict)
    """What the vendor's amount must be a multiple of, where that is not 1."""
    digits: int | None = None
    """The most digits that an amount in the vendor's units may have; None: no documented limit."""
    digits_of: Mapping[str, int] = field(default_factory=dict)
    """The same, for the currencies that have a limit of their own."""

    def to_vendor(self, money: Money) -> int:
        """The amount in the vendor's minor units, exactly. Raises Ineligible where there is no such amount."""
        if money.amount <= 0:
            raise Ineligible("the amount is not positive")
        ours, theirs = iso_exponent(money.currency), self._exponent(money.currency)
        amount, rest = divmod(money.amount * 10**theirs, 10**ours)
        step = self.steps.get(money.currency, 1)
        if rest or amount % step:
            raise Ineligible(f"{self.vendor} cannot express this amount of {money.currency} exactly")
        digits = self.digits_of.get(money.currency, self.digits)
        if digits is not None and amount >= 10**digits:
            raise Ineligible(f"the amount is above the {digits} digits that {self.vendor} takes in {money.currency}")
        return int(amount)

    def to_iso(self, amount: int, currency: str) -> Money:
        """What the vendor calls `amount`, in ISO 4217's minor units. Raises Ineligible where that is not whole."""
        ours, theirs = iso_exponent(currency), self._exponent(currency)
        minor, rest = divmod(amount * 10**ours, 10**theirs)
        if rest:
            raise Ineligible(f"an amount of {currency} at {self.vendor} is finer than ISO 4217 allows")
        return Money(int(minor), currency)

    def _exponent(self, currency: str) -> int:
        return self.exponents[currency] if currency in self.exponents else iso_exponent(currency)


STRIPE = MinorUnits(
    vendor="Stripe",
    # ISK and UGX have no minor units any more, but Stripe still wants two decimals, both of them 0.
    exponents=MappingProxyType({"ISK": 2, "UGX": 2, "MGA": 0}),
    # Three-decimal currencies must end in 0 for the sake of Stripe's partners.
    steps=MappingProxyType({"ISK": 100, "UGX": 100, "BHD": 10, "JOD": 10, "KWD": 10, "OMR": 10, "TND": 10}),
    # "up to twelve digits for IDR, and up to eight digits for all other currencies"
    digits=8,
    digits_of=MappingProxyType({"IDR": 12}),
)

ADYEN = MinorUnits(vendor="Adyen", exponents=MappingProxyType({"CLP": 2, "ISK": 2, "IDR": 0, "CVE": 0}))
