"""What a provider charges the merchant for a payment: an estimate, from a schedule.

The figures are those that practitioners seed with (facts/routing.md): Stripe 2.9% + 0.30 and 1.5% more for a
card from another country; Adyen 0.13 an attempt and interchange-plus of about 2.1%. Exact decimal arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class FeeSchedule:
    """A provider's prices; money in major units of the payment's currency."""

    percent: Decimal
    """Per cent of an approved payment."""
    international_percent: Decimal = Decimal(0)
    """Added where the card's country is not the merchant's."""
    fixed: Mapping[str, Decimal] = field(default_factory=dict)
    """Per approved payment, by currency; a currency that is not named has none."""
    per_attempt: Mapping[str, Decimal] = field(default_factory=dict)
    """Per attempt, approved or not, by currency."""

    def fee(self, amount: Decimal, currency: str, *, international: bool) -> Decimal:
        """What an approval of this amount costs, in major units, without the fee per attempt."""
        percent = self.percent + (self.international_percent if international else 0)
        return amount * percent / 100 + self.fixed.get(currency, Decimal(0))

    def attempt_fee(self, currency: str) -> Decimal:
        """What trying costs, in major units."""
        return self.per_attempt.get(currency, Decimal(0))


_CENTS_30 = {"EUR": Decimal("0.30"), "USD": Decimal("0.30"), "GBP": Decimal("0.30")}
_CENTS_13 = {"EUR": Decimal("0.13"), "USD": Decimal("0.13"), "GBP": Decimal("0.13")}

DEFAULT_SCHEDULES: Mapping[str, FeeSchedule] = {
    "stripe": FeeSchedule(percent=Decimal("2.9"), international_percent=Decimal("1.5"), fixed=_CENTS_30),
    "adyen": FeeSchedule(percent=Decimal("2.1"), per_attempt=_CENTS_13),
}
"""A provider without a schedule is taken to cost nothing, and the decision says so."""
