"""What payments cost, as their providers say, beside what the decisions estimated. Pure.

An estimate is what the decision's candidate says under `cost` less `fee_learned`: the schedule's, in major units of
the payment's currency; the provider's own figure is in minor units of the currency in which it settles. Where these
are two currencies, a difference would be an exchange rate: such payments are counted, and not summed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from providers.currencies import ISO_EXPONENTS
from router.ledger.actual_fees import ActualFee


@dataclass(frozen=True, slots=True)
class Difference:
    """One provider and currency; amounts in major units."""

    provider: str
    currency: str
    payments: int = 0
    """With an actual fee in this currency, and an estimate."""
    amount: Decimal = Decimal(0)
    estimated: Decimal = Decimal(0)
    actual: Decimal = Decimal(0)
    settled_otherwise: int = 0
    """Payments settled in another currency: in none of the sums."""
    not_estimated: int = 0
    """Payments whose decision has no cost of this provider: in none of the sums."""

    @property
    def difference(self) -> Decimal:
        """How much more was charged than was estimated."""
        return self.actual - self.estimated

    @property
    def basis_points(self) -> Decimal | None:
        """The difference in hundredths of a per cent of the amount; None where there is no amount."""
        return None if not self.amount else self.difference / self.amount * 10_000


def differences(fees: Iterable[ActualFee]) -> Sequence[Difference]:
    """One for each provider and currency of a payment, by name."""
    found: dict[tuple[str, str], Difference] = {}
    for each in fees:
        key = (each.provider, each.currency)
        found[key] = _with(found.get(key, Difference(*key)), each)
    return [found[key] for key in sorted(found)]


def _with(so_far: Difference, each: ActualFee) -> Difference:
    estimated = estimate_in(each.decision, each.provider)
    other = each.fee_currency != each.currency
    counts = not other and estimated is not None
    return Difference(
        so_far.provider,
        so_far.currency,
        so_far.payments + counts,
        so_far.amount + (_major(each.amount, each.currency) if counts else 0),
        so_far.estimated + (estimated or 0 if counts else 0),
        so_far.actual + (_major(each.fee, each.currency) if counts else 0),
        so_far.settled_otherwise + other,
        so_far.not_estimated + (not other and estimated is None),
    )


def estimate_in(decision: Mapping[str, Any], provider: str) -> Decimal | None:
    """What the schedule said that this provider costs, in major units; None where the decision does not tell."""
    for candidate in decision.get("candidates", ()):
        if candidate.get("provider") == provider and candidate.get("cost") is not None:
            try:
                # To 4 decimals: the shortest form is exact. Without what settlements have taught: a price that is not
                # the agreed one must go on being seen.
                return Decimal(str(candidate["cost"])) - Decimal(str(candidate.get("fee_learned") or 0))
            except InvalidOperation:
                return None
    return None


def apart_in(decision: Mapping[str, Any], provider: str) -> Decimal:
    """How much of that may be billed apart from the payment: the attempt's fee, as Adyen's monthly lines have it."""
    for candidate in decision.get("candidates", ()):
        if candidate.get("provider") == provider and isinstance(candidate.get("attempt_fee"), int | float):
            return Decimal(str(candidate["attempt_fee"]))
    return Decimal(0)


def _major(amount: int, currency: str) -> Decimal:
    return Decimal(amount).scaleb(-ISO_EXPONENTS.get(currency, 0))
