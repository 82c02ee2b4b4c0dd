"""What a payment is worth at a provider. Pure.

For now by fees alone: `value = margin × amount − fee − attempt fee`; approval and availability join the formula
when they are measured (issue 5), and until then they are absent from a decision, not made up.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from iso4217 import Currency

from providers.contract import Money
from providers.fees import FeeSchedule


@dataclass(frozen=True, slots=True)
class Value:
    """What choosing a provider is expected to earn, in major units of the payment's currency."""

    value: Decimal
    cost: Decimal
    reason: str
    """The line that finance reads."""


def major_units(money: Money) -> Decimal:
    """The amount as people write it: 1999 EUR is 19.99."""
    return Decimal(money.amount).scaleb(-int(Currency(money.currency).exponent or 0))


def by_fees(money: Money, schedule: FeeSchedule | None, *, margin: float, international: bool) -> Value:
    """The value of an approval by fees alone."""
    amount = major_units(money)
    fee = attempt_fee = Decimal(0)
    if schedule is not None:
        fee = schedule.fee(amount, money.currency, international=international)
        attempt_fee = schedule.attempt_fee(money.currency)
    share = Decimal(str(margin))
    value = share * amount - fee - attempt_fee
    # The margin with all its digits: 12.5% shown as 12% would not recompute.
    percent = f"{(share * 100).normalize():f}%"
    reason = f"{value:.2f} = {percent} × {amount} − fee {fee:.2f} − attempt {attempt_fee:.2f}"
    return Value(value, fee + attempt_fee, reason if schedule is not None else f"{reason} (no fee schedule)")
