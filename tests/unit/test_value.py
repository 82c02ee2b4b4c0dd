"""What a payment is worth at a provider, and the line that says so."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from providers.contract import Money
from router.value import GUARD, Stakes, Terms, in_major_units, line, major_units, stakes, to_json, value, worth_of
from tests.unit.printed_values import recomputed

TERMS = Terms(0.8731, 0.9990, 0.64, 0.05)
SIXTY = stakes(0.1, 60.0, [TERMS])


@pytest.mark.parametrize(
    ("money", "major"),
    [
        (Money(1999, "EUR"), "19.99"),
        (Money(500, "JPY"), "500"),
        (Money(1234, "KWD"), "1.234"),
        (Money(1, "USD"), "0.01"),
    ],
)
def test_money_is_shown_as_people_write_it(money: Money, major: str) -> None:
    """Each currency with its own number of decimals."""
    assert major_units(money) == Decimal(major)
    assert in_major_units(money) == float(major)


def test_the_value_is_what_the_formula_says() -> None:
    """As facts/routing.md has its example."""
    assert value(TERMS, SIXTY) == pytest.approx(0.999 * 0.8731 * (6 - 0.64) - 0.05)
    assert line("adyen", TERMS, SIXTY) == (
        "adyen 4.63 = approval 87.31% × availability 99.90% × (10% × 60.00 − fee 0.64) − attempt 0.05"
    )
    assert to_json(TERMS, SIXTY) == {
        "value": 4.6251,
        "approval": 0.8731,
        "availability": 0.999,
        "cost": 0.69,
        "fee": 0.64,
        "attempt_fee": 0.05,
    }


def test_a_provider_without_a_schedule_says_so() -> None:
    """It is taken to cost nothing: whoever reads must know."""
    assert line("third", TERMS._replace(scheduled=False), SIXTY).endswith("(no fee schedule)")


def test_the_guard_lets_an_approval_be_worth_more_than_the_dearest_fee() -> None:
    """At a margin of 1% on 20.00 each approval would lose money, and the worst approver look best."""
    good, bad = Terms(0.95, 1.0, 0.88, 0.0), Terms(0.50, 1.0, 0.88, 0.0)
    unguarded = Stakes(0.01, 20.0, 0.2)
    assert value(bad, unguarded) > value(good, unguarded)
    guarded = stakes(0.01, 20.0, [good, bad])
    assert guarded.floor == pytest.approx(GUARD * 0.88)
    assert value(good, guarded) > value(bad, guarded) > 0
    assert line("stripe", good, guarded) == (
        "stripe 0.84 = approval 95.00% × availability 100.00% × (guard 1.76 − fee 0.88) − attempt 0.00"
    )


def test_the_guard_leaves_alone_what_earns_enough() -> None:
    """It begins where the margin is less than twice what the dearest costs, without a step."""
    assert stakes(0.1, 60.0, [TERMS]).floor is None
    just, below = stakes(0.1, 13.81, [TERMS]), stakes(0.1, 13.79, [TERMS])
    assert (just.floor, below.floor) == (None, 1.38)
    assert value(TERMS, just) == pytest.approx(value(TERMS, below), abs=0.001)


@pytest.mark.parametrize("margin", [0.0, 1e-6, 0.001])
@pytest.mark.parametrize(("fee", "attempt"), [(0.0, 0.0), (0.0, 0.13), (0.01, 0.13), (0.3, 0.0)])
def test_an_approval_decides_however_small_the_margin_and_whatever_is_charged(
    margin: float, fee: float, attempt: float
) -> None:
    """Nothing, or attempts only: it must not be all the same whether the issuer approves, nor a cent outweigh it."""
    good, bad = Terms(0.95, 1.0, fee, attempt), Terms(0.05, 1.0, fee, round(attempt * 0.9, 4))
    at_stake = stakes(margin, 60.0, [good, bad])
    assert value(good, at_stake) > value(bad, at_stake)


def test_without_a_margin_or_a_fee_an_approval_counts_as_one() -> None:
    """And says so; with a margin there is nothing to guard."""
    free = Terms(0.9, 1.0, 0.0, 0.0)
    assert line("stripe", free, stakes(0.0, 60.0, [free])) == (
        "stripe 0.90 = approval 90.00% × availability 100.00% × (guard 1.00 − fee 0.00) − attempt 0.00"
    )
    assert stakes(0.01, 0.05, [free]).floor is None
    assert stakes(0.0, 60.0, []).gain > 0


def test_what_a_percentage_point_is_worth() -> None:
    """In money, at the provider that would be left."""
    assert worth_of(0.5, TERMS, SIXTY) == pytest.approx(0.005 * 0.999 * 5.36)


@given(
    approval=st.floats(0, 1),
    availability=st.floats(0, 1),
    fee=st.floats(0, 50),
    attempt=st.floats(0, 1),
    margin=st.floats(0, 1).map(lambda margin: round(margin, 4)),
    money=st.builds(Money, st.integers(1, 10**9), st.sampled_from(["EUR", "JPY", "KWD"])),
)
@example(0.87654321, 0.99996, 0.6437, 0.13, 0.125, Money(10**9, "JPY"))
def test_the_printed_terms_recompute_to_the_printed_value(
    approval: float, availability: float, fee: float, attempt: float, margin: float, money: Money
) -> None:
    """To the cent, with whatever digits are printed, and no other."""
    terms = Terms(approval, availability, fee, attempt).rounded()
    at_stake = stakes(margin, in_major_units(money), [terms])
    name, shown, made = recomputed(line("stripe", terms, at_stake))
    assert name == "stripe"
    assert abs(made - shown) <= Decimal("0.00501")
