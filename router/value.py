"""What a payment is worth at a provider. Pure.

    value = availability × approval × (margin × amount − fee) − attempt fee

in major units of the payment's currency, as facts/routing.md has it: simulated, it beat "approval only" at every
margin up to 20%. Where the margin on the amount is less than twice what the dearest provider costs, its fee and its
attempt fee, that much stands in its place (the guard): otherwise an approval would be worth next to nothing or less,
and the best provider the one most likely to decline. Without a margin and without any fee an approval counts as 1.

Every term is rounded as it is printed before the value is made of it, so whoever reads the line can compute it.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from functools import cache, lru_cache
from typing import Any, NamedTuple

from iso4217 import Currency

from providers.contract import Money

GUARD = 2.0
"""Times the dearest cost that an approval is worth at least: above it, so that being approved still decides."""
FREE = 1.0
"""What an approval counts, in major units, where there is neither a margin nor a fee: any number orders alike."""
FEE_DIGITS = 4
"""Of fees, in major units."""


_new = tuple.__new__  # as in `router.policy`


def rate(measured: float) -> float:
    """A rate with the digits that are printed; `round` says the same, at five times the cost."""
    return int(measured * 10_000 + 0.5) / 10_000


class Terms(NamedTuple):
    """What is known of one provider for one payment; rates from 0 to 1, fees in major units."""

    approval: float
    """Of the issuer's answers."""
    availability: float
    """Of the calls that the provider answered at all."""
    fee: float
    """What an approval costs."""
    attempt: float
    """What trying costs, approved or not."""
    scheduled: bool = True
    """Whether a fee schedule names the provider; without one it is taken to cost nothing."""
    learned: float = 0.0
    """How much of the fee settlements have taught, beyond what the schedule says (`router.fee_learning`)."""

    def rounded(self) -> Terms:
        """With the digits that are printed."""
        return Terms(
            rate(self.approval),
            rate(self.availability),
            round(self.fee, FEE_DIGITS),
            round(self.attempt, FEE_DIGITS),
            self.scheduled,
            round(self.learned, FEE_DIGITS),
        )


class Stakes(NamedTuple):
    """What an approval of this payment earns before fees; the same whoever gives it."""

    margin: float
    """The merchant's, as a share of the amount."""
    amount: float
    """Major units."""
    gain: float
    """Major units: the margin on the amount, or the floor."""
    floor: float | None = None
    """What stands in the place of the margin on the amount, where the guard raises it."""


def stakes(margin: float, amount: float, terms: Iterable[Terms]) -> Stakes:
    """What is at stake among these providers, the guard applied."""
    dearest = max([fee + attempt for _, _, fee, attempt, _, _ in terms], default=0.0)
    gain, floor = margin * amount, GUARD * dearest
    if gain <= 0 >= floor:
        floor = FREE
    if gain >= floor:
        return _new(Stakes, (margin, amount, gain, None))
    floor = round(floor, FEE_DIGITS)  # as it is printed
    return Stakes(margin, amount, floor, floor)


def value(terms: Terms, at_stake: Stakes) -> float:
    """What choosing this provider is expected to earn, in major units."""
    approval, availability, fee, attempt, _, _ = terms
    return availability * approval * (at_stake.gain - fee) - attempt


def worth_of(points: float, terms: Terms, at_stake: Stakes) -> float:
    """What so many percentage points more of approvals would earn at this provider, in major units."""
    return points / 100 * terms.availability * (at_stake.gain - terms.fee)


def line(provider: str, terms: Terms, at_stake: Stakes) -> str:
    """The line that finance reads; its terms recompute to its value."""
    if at_stake.floor is None:
        gain = f"{_margin(at_stake.margin)} × {_money(at_stake.amount)}"
    else:
        gain = f"guard {_money(at_stake.floor)}"
    text = (
        f"{provider} {value(terms, at_stake):.2f} = approval {_percent(terms.approval)} × availability "
        f"{_percent(terms.availability)} × ({gain} − fee {_money(terms.fee)}) − attempt {_money(terms.attempt)}"
    )
    return text if terms.scheduled else f"{text} (no fee schedule)"


def to_json(terms: Terms, at_stake: Stakes) -> dict[str, Any]:
    """A candidate's figures as the HTTP contract shows them."""
    learned = {"fee_learned": terms.learned} if terms.learned else {}
    return {
        "value": round(value(terms, at_stake), 4),
        "approval": terms.approval,
        "availability": terms.availability,
        "cost": round(terms.fee + terms.attempt, 4),
        "fee": terms.fee,
        "attempt_fee": terms.attempt,
        **learned,
    }


def major_units(money: Money) -> Decimal:
    """The amount as people write it: 1999 EUR is 19.99."""
    return Decimal(money.amount).scaleb(-_exponent(money.currency))


def in_major_units(money: Money) -> float:
    """The same for a value, quicker."""
    amount: float = money.amount / 10 ** _exponent(money.currency)
    return amount


@cache
def _exponent(currency: str) -> int:
    return int(Currency(currency).exponent or 0)


@lru_cache(maxsize=20_000)
def _percent(share: float) -> str:
    """Of a rate, which has four digits (`rate`): so there are ten thousand of them."""
    return f"{share * 100:.2f}%"


@lru_cache(maxsize=64)
def _margin(share: float) -> str:
    """With all its digits: 12.5% shown as 12% would not recompute. It is a merchant's tuning, and rarely another."""
    return f"{(Decimal(str(share)) * 100).normalize():f}%"


def _money(amount: float) -> str:
    """With two digits at least, and all that it has."""
    text = f"{amount:.4f}"
    return text[:-2] if text.endswith("00") else text
