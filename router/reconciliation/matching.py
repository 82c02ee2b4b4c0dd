"""What a settled amount is judged as, beside what the ledger knows. Pure.

Lines are judged by *unit*: all that the file says of one capture, or of one refund, in one sum. So a charge of the
whole authorization and the reversal of what was not captured agree with a partial capture, and a charge that is
settled twice does not agree with one that was made once.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Literal

from providers.contract import Money
from providers.currencies import ISO_EXPONENTS

Verdict = Literal["matched", "amount_differs", "fee_differs", "provider_only", "apart"]
VERDICTS: tuple[Verdict, ...] = ("matched", "amount_differs", "fee_differs", "provider_only", "apart")
DIFFERING: tuple[Verdict, ...] = ("amount_differs", "fee_differs", "provider_only")
"""Judged anew with every import: what the ledger learns later may explain them."""
FeeBasis = Literal["told", "estimated", "none"]

FEE_TOLERANCE = Decimal("0.10")
"""How far a fee may be from an *estimate*, as a share of it: a schedule's line is an average over cards."""
LEAST_TOLERANCE = 1
"""In minor units: an estimate has four decimals, a fee is rounded. What the provider told is compared exactly."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What the file says of a unit, in minor units; positive where it came to the merchant."""

    amount: int
    currency: str | None
    """None: of more than one."""
    fee: int
    fee_currency: str | None


@dataclass(frozen=True, slots=True)
class Expected:
    """What a fee is compared with, and by whose word: in minor units of `currency`."""

    basis: FeeBasis
    fee: int | None = None
    currency: str | None = None


NO_FEE = Expected("none")


@dataclass(frozen=True, slots=True)
class Known:
    """What the ledger knows of a unit."""

    amount: int
    """In minor units; negative of a refund; 0 where nothing was captured or refunded, as far as it knows."""
    currency: str
    fee: Expected = NO_FEE
    apart: int = 0
    """How much of an estimated fee may be billed apart from the payment, and so be missing here."""


def expected_fee(told: Money | None, estimate: Decimal | None, currency: str) -> Expected:
    """The provider's own word before an estimate, which is in major units of the payment's currency."""
    if told is not None:
        return Expected("told", told.amount, told.currency)
    if estimate is None or currency not in ISO_EXPONENTS:
        return NO_FEE
    return Expected("estimated", minor_units(estimate, currency), currency)


def minor_units(amount: Decimal, currency: str) -> int:
    """An estimate in major units as minor units, half up; of a currency that is not known, none."""
    exponent = ISO_EXPONENTS.get(currency)
    return 0 if exponent is None else int(amount.scaleb(exponent).quantize(Decimal(1), ROUND_HALF_UP))


def judge(settled: Settled, known: Known | None) -> Verdict:
    """The verdict on a unit; an amount that differs says more than a fee that does."""
    if known is None or (known.amount == 0 and settled.amount != 0):
        return "provider_only"
    if settled.currency != known.currency or settled.amount != known.amount:
        return "amount_differs"
    return "matched" if _fee_agrees(settled, known.fee, known.apart) else "fee_differs"


def _fee_agrees(settled: Settled, expected: Expected, apart: int) -> bool:
    if expected.basis == "none" or expected.fee is None:
        return True
    if settled.fee_currency != expected.currency:
        # An estimate in the payment's currency says nothing of a fee in the settlement's.
        return expected.basis == "estimated"
    if expected.basis == "told":
        return settled.fee == expected.fee
    off = abs(settled.fee - min(max(settled.fee, expected.fee - apart), expected.fee))
    return off <= LEAST_TOLERANCE or off <= expected.fee * FEE_TOLERANCE
