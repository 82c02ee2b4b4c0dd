"""What is estimated of another policy: exact where it can be, unbiased where it cannot, and silent where it must."""

from __future__ import annotations

import dataclasses
import math
import random

import pytest

from router.replay import telling
from router.replay.cases import Case, Option
from router.replay.estimate import Z95, Tally
from router.replay.outcomes import LEAST_CHANCE, Outcomes, Prediction
from router.replay.reckoning import Reckoning


def a_case(
    first: int = 0,
    *,
    approved: bool = True,
    logged: tuple[float, ...] = (0.9, 0.1),
    asked: tuple[float, ...] = (0.1, 0.9),
    currency: str = "EUR",
    cost: float = 1.0,
    nobody: bool = False,
) -> Case:
    """A payment of 50.00 at two providers, of which the second is dearer."""
    options = [
        Option(name, p, q, 0.8, fee, 0.1)
        for name, p, q, fee in zip(("stripe", "adyen"), logged, asked, (1.0, 2.0), strict=True)
    ]
    return Case(options, first, approved, cost, 5.0, 50.0, currency, "visa", nobody)


def predicted(*chances: float) -> list[Prediction]:
    return [Prediction(chance, 0.5) for chance in chances]


def test_where_both_policies_agree_the_estimate_is_what_was_earned() -> None:
    """Whatever was drawn: three of four, at a cost of 1; and it can be told, though nothing ever explored."""
    reckoning = Reckoning()
    for number in range(400):
        sure = a_case(logged=(1.0, 0.0), asked=(1.0, 0.0), approved=number % 4 > 0)
        reckoning.add(sure._replace(options=sure.options[:1]))
    told = reckoning.by_currency()["EUR"]
    assert told.doubts == []
    approval = told.measures["approval"]
    assert approval.earned == approval.doubly_robust.value == approval.inverse_propensity.value == 0.75
    assert approval.change == (0.0, 0.0, 0.0)
    half = Z95 * math.sqrt(0.75 * 0.25 / 400)
    assert approval.doubly_robust.low == pytest.approx(0.75 - half, abs=0.001)
    assert told.measures["net"].doubly_robust.value == pytest.approx(5.0 * 0.75 - 1.0)


def test_each_estimator_is_its_formula() -> None:
    """Two payments drawn apart, by hand."""
    tally = Tally()
    tally.add(a_case(0, approved=True), predicted(0.7, 0.6))
    tally.add(a_case(1, approved=False), predicted(0.7, 0.6))
    approval = tally.measured()["approval"]
    light, heavy = 0.1 / 0.9, 0.9 / 0.1
    expected = 0.1 * 0.7 + 0.9 * 0.6
    assert approval.inverse_propensity.value == pytest.approx(light / 2)
    assert approval.self_normalised.value == pytest.approx(light / (light + heavy))
    robust = (expected + light * (1 - 0.7) + expected + heavy * (0 - 0.6)) / 2
    assert approval.doubly_robust.value == pytest.approx(robust)
    assert approval.change.value == pytest.approx(robust - 0.5)
    support = tally.support()
    assert support.moved == pytest.approx(0.8)
    assert support.effective_moved == pytest.approx((2 * 0.8) ** 2 / (2 * 0.8**2 / 0.1))
    assert support.effective == pytest.approx(4 / (2 * (0.1**2 / 0.9 + 0.9**2 / 0.1)))
    assert support.largest_weight == pytest.approx(heavy / (light + heavy))


@pytest.mark.parametrize("chances", [(0.5, 0.5), (0.99, 0.01), (0.2, 0.9)])
@pytest.mark.parametrize("measure", ["approval", "cost", "net"])
def test_over_all_draws_the_robust_estimate_is_the_truth_however_wrong_the_prediction(
    chances: tuple[float, float], measure: str
) -> None:
    """Every draw and outcome with its chance, for one payment; so is the weighted one, and the change."""
    true, logged, asked = (0.9, 0.6), (0.95, 0.05), (0.3, 0.7)
    worth = {"approval": (1.0, 0.0), "cost": (1.2, 0.1), "net": (3.8, -0.1)}[measure]
    means = {"robust": 0.0, "weighted": 0.0, "change": 0.0}
    for first in (0, 1):
        for approved in (True, False):
            chance = logged[first] * (true[first] if approved else 1 - true[first])
            tally = Tally()
            case = a_case(first, approved=approved, logged=logged, asked=asked, cost=1.2 if approved else 0.1)
            tally.add(case, predicted(*chances))
            # The bounds of a rate are of its interval, not of the estimate.
            found = tally.measured()[measure]
            means["robust"] += chance * found.doubly_robust.value
            means["weighted"] += chance * found.inverse_propensity.value
            means["change"] += chance * found.change.value
    earned, would = (
        sum(p * (mu * worth[0] + (1 - mu) * worth[1]) for p, mu in zip(by, true, strict=True))
        for by in (logged, asked)
    )
    assert means["robust"] == pytest.approx(would)
    assert means["weighted"] == pytest.approx(would)
    assert means["change"] == pytest.approx(would - earned)


def test_the_interval_is_not_fooled_by_the_few_that_were_drawn() -> None:
    """A hundred payments of which a fiftieth explores, all approved: none of it makes the interval narrow."""
    tally = Tally()
    for number in range(100):
        tally.add(a_case(int(number < 2), logged=(0.98, 0.02), asked=(0.0, 1.0)), predicted(0.95, 0.95))
    robust = tally.measured()["approval"].doubly_robust
    # The true error is that of about two draws.
    assert robust.low <= robust.value - Z95 * math.sqrt(0.95 * 0.05 / 2)
    assert robust.high <= 1.0


def test_what_has_no_support_widens_the_interval_by_all_that_it_could_be() -> None:
    """One payment of two hundred goes where the log never does: half a point at both ends together."""
    narrow, wide = Tally(), Tally()
    for tally, asked in ((narrow, (1.0, 0.0)), (wide, (0.0, 1.0))):
        for number in range(199):
            tally.add(a_case(approved=number % 5 > 0, logged=(0.5, 0.5), asked=(0.5, 0.5)), ())
        tally.add(a_case(logged=(1.0, 0.0), asked=asked), predicted(0.8, 0.8))
    before, after = (each.measured()["approval"].doubly_robust for each in (narrow, wide))
    assert wide.support().unsupported == pytest.approx(1 / 200)
    assert (after.high - after.low) - (before.high - before.low) == pytest.approx(1 / 200, abs=0.0005)
    # Below a hundredth of all, but all that moves: that is no overlap.
    assert any("no overlap" in each for each in telling.doubts(wide.support()))
    assert telling.doubts(narrow.support()) == []


@pytest.mark.parametrize("share", [0.002, 0.05, 1.0])
def test_a_log_without_overlap_is_never_told(share: float) -> None:
    """However few payments the policy asked about would move."""
    reckoning = Reckoning()
    for number in range(2000):
        asked = (0.0, 1.0) if number < 2000 * share else (1.0, 0.0)
        reckoning.add(a_case(logged=(1.0, 0.0), asked=asked, approved=number % 7 > 0))
    told = reckoning.by_currency()["EUR"]
    assert told.support.unsupported == pytest.approx(share)
    assert any("no overlap" in each for each in told.doubts)


def test_too_few_explored_and_one_that_weighs_all_are_not_told() -> None:
    """Each by its own reason; with more of the same it is told."""
    for payments, reasons in ((60, ["another first choice", "of all weights"]), (4000, [])):
        reckoning = Reckoning()
        for number in range(payments):
            reckoning.add(a_case(int(number % 50 == 1), logged=(0.98, 0.02), asked=(0.02, 0.98)))
        doubts = reckoning.by_currency()["EUR"].doubts
        assert len(doubts) == len(reasons)
        assert all(reason in doubt for reason, doubt in zip(reasons, doubts, strict=True))


def test_a_payment_that_nobody_could_take_is_not_taken_for_declined() -> None:
    """It may end as anything: without support."""
    tally = Tally()
    tally.add(a_case(asked=(0.0, 0.0), nobody=True), predicted(0.8, 0.8))
    assert tally.support().unsupported == tally.support().moved == 1.0
    robust = tally.measured()["approval"].doubly_robust
    assert (robust.low, robust.high) == (0.0, 1.0)


def test_without_support_a_payment_can_have_cost_every_try_before_the_dearest_approval() -> None:
    """The ends of what nobody knows: 2.00 for the approval and both fees of 0.10 for the tries."""
    tally = Tally()
    tally.add(a_case(cost=1.0, asked=(0.0, 0.0), nobody=True), predicted(0.8, 0.8))
    cost, net = (tally.measured()[name].doubly_robust for name in ("cost", "net"))
    assert (cost.low, cost.high) == pytest.approx((0.0, 2.2))
    assert (net.low, net.high) == pytest.approx((-2.2, 5.0))


def test_rates_are_added_up_across_currencies_and_money_is_not() -> None:
    """The whole is what one tally of all would say, of approvals only."""
    chance, apart, together = random.Random(3), Reckoning(), Reckoning()
    for number in range(600):
        first = int(chance.random() < 0.3)
        case = a_case(first, approved=chance.random() < 0.8, logged=(0.7, 0.3), currency=("EUR", "JPY")[number % 2])
        apart.add(case)
        together.add(case._replace(currency="EUR"))
    whole, one = apart.overall(), together.by_currency()["EUR"]
    assert whole is not None
    assert list(whole.measures) == ["approval"]
    assert list(apart.by_currency()) == ["EUR", "JPY"]
    assert dataclasses.astuple(whole.support) == pytest.approx(dataclasses.astuple(one.support))
    ours, theirs = whole.measures["approval"], one.measures["approval"]
    assert ours.inverse_propensity.value == pytest.approx(theirs.inverse_propensity.value)
    assert ours.inverse_propensity.high == pytest.approx(theirs.inverse_propensity.high, abs=0.01)
    assert Reckoning().overall() is None


def test_outcomes_start_from_the_terms_and_learn_from_what_ended_before() -> None:
    """Unknown: approval × availability. Seen often: what was seen; a segment of its own more than its provider."""
    outcomes, case = Outcomes(), a_case(approved=False, cost=0.1)
    option = case.options[0]
    assert outcomes.predict(case, option) == pytest.approx((0.8, 0.8 * 1.0 + 0.1))
    for _ in range(400):
        outcomes.learn(case)
    learned = outcomes.predict(case, option)
    elsewhere = outcomes.predict(case._replace(segment="amex"), option)
    assert LEAST_CHANCE <= learned.chance <= elsewhere.chance < 0.1
    assert learned.cost == pytest.approx(0.1, abs=0.05)
    assert outcomes.predict(case, case.options[1]).chance == pytest.approx(0.8)
    outcomes.learn(case._replace(first=-1))
    assert outcomes.predict(case, option) == learned
