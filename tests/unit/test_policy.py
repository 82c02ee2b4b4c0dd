"""Which providers may take a payment, in which order, and with what reasons."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flags.contract import RoutingFlags, Strategy
from router.policy import Candidate, Decision, Offer, Standing, decide, refusals
from router.transitions import ADMITTING, State
from router.value import Value

NAMES = ("stripe", "adyen", "third")


def an_offer(
    provider: str,
    *,
    value: str = "1",
    circuit: State = State.CLOSED,
    obstacle: str | None = None,
    possible: bool = True,
    share: float = 1.0,
    busy: bool = False,
) -> Offer:
    """What is known of one provider; its value's reason is `worth` and the figure."""
    params = {"amount": 1} if possible and obstacle is None else None
    worth = Value(Decimal(value), Decimal("0.25"), f"worth {value}")
    why = f"held back: {share:.0%}" if share < 1 else None
    return Offer(provider, params, obstacle, circuit, worth, share=share, held_back=why, busy=busy)


def of(decision: Decision, provider: str) -> Candidate:
    (found,) = [each for each in decision.candidates if each.provider == provider]
    return found


def test_the_primary_leads_and_the_rest_follow_by_value() -> None:
    """Under `primary-first` the flag decides who is first, however little it is worth."""
    offers = [an_offer("stripe", value="1"), an_offer("adyen", value="2"), an_offer("third", value="3")]
    assert decide(offers, RoutingFlags(primary="stripe")).order == ["stripe", "third", "adyen"]
    assert decide(offers, RoutingFlags(primary="adyen")).order == ["adyen", "third", "stripe"]


def test_under_best_value_the_primary_has_no_advantage() -> None:
    """The value alone decides."""
    offers = [an_offer("stripe", value="1"), an_offer("adyen", value="2"), an_offer("third", value="-3")]
    decision = decide(offers, RoutingFlags(primary="third", strategy="best-value"))
    assert decision.order == ["adyen", "stripe", "third"]
    assert (decision.strategy, decision.primary) == ("best-value", "third")


@pytest.mark.parametrize("order", list(itertools.permutations(NAMES)))
def test_equal_values_are_ordered_by_name_whatever_order_they_came_in(order: Sequence[str]) -> None:
    """Every process decides the same."""
    offers = [an_offer(name) for name in order]
    assert decide(offers, RoutingFlags(primary="nobody")).order == ["adyen", "stripe", "third"]


def test_a_disabled_provider_is_left_out_for_now() -> None:
    """The kill switch stands above the primary."""
    decision = decide([an_offer("stripe"), an_offer("adyen")], RoutingFlags(enabled={"stripe": False}))
    assert decision.order == ["adyen"]
    assert of(decision, "stripe").standing is Standing.NOT_NOW
    assert of(decision, "stripe").reasons == ["primary", "disabled by flag", "worth 1"]
    assert decision.possible


@pytest.mark.parametrize("circuit", [State.OPEN, State.HALF_OPEN, State.FORCED_OPEN])
def test_a_provider_whose_circuit_is_not_closed_is_left_out_for_now(circuit: State) -> None:
    """The flag is advice, the breaker is law."""
    decision = decide([an_offer("stripe", circuit=circuit), an_offer("adyen")], RoutingFlags())
    assert decision.order == ["adyen"]
    assert of(decision, "stripe").reasons == ["primary", f"circuit {circuit.value}", "worth 1"]


def test_a_provider_that_cannot_take_the_payment_is_never_tried() -> None:
    """Its reason is the adapter's; a circuit that opens or closes does not change it."""
    decision = decide(
        [an_offer("stripe", obstacle="no token"), an_offer("adyen", possible=False)],
        RoutingFlags(enabled={"stripe": False}),
    )
    assert decision.order == []
    assert not decision.possible
    assert of(decision, "stripe").standing is Standing.NEVER
    assert refusals(decision) == {
        "stripe": "disabled by flag; no token",
        "adyen": "cannot take this payment",
    }


def test_a_payment_that_someone_could_take_later_is_possible() -> None:
    """All are down: it parks. None could ever take it: it is refused."""
    down = [an_offer("stripe", circuit=State.OPEN), an_offer("adyen", obstacle="no token")]
    assert decide(down, RoutingFlags()).possible
    assert not decide([], RoutingFlags()).possible


def test_the_refusals_name_obstacles_only() -> None:
    """Being the primary, or what the payment would be worth, is no reason for a refusal."""
    decision = decide(
        [an_offer("stripe", circuit=State.OPEN), an_offer("adyen", obstacle="the amount is too small")],
        RoutingFlags(),
    )
    assert refusals(decision) == {"stripe": "circuit open", "adyen": "the amount is too small"}


def test_a_decision_is_shown_as_the_contract_has_it() -> None:
    """What is not measured yet is null, not made up."""
    shown = decide([an_offer("stripe", value="4.61789"), an_offer("adyen", possible=False)], RoutingFlags()).to_json()
    assert (shown["strategy"], shown["primary"]) == ("primary-first", "stripe")
    assert shown["candidates"][0] == {
        "provider": "stripe",
        "eligible": True,
        "value": 4.6179,
        "approval": None,
        "availability": None,
        "cost": 0.25,
        "propensity": 1.0,
        "reasons": ["primary", "worth 4.61789"],
    }
    assert (shown["candidates"][1]["eligible"], shown["candidates"][1]["propensity"]) == (False, 0.0)


# ---------------------------------------------------------------- shares: slow start and suspicion


@pytest.mark.parametrize(("draw", "order"), [(0.0, ["stripe", "adyen"]), (0.099, ["stripe", "adyen"])])
def test_within_its_share_a_recovering_primary_leads(draw: float, order: list[str]) -> None:
    """One payment in ten goes where it would have gone."""
    offers = [an_offer("stripe", circuit=State.SLOW_START, share=0.1), an_offer("adyen")]
    assert decide(offers, RoutingFlags(), draw=draw).order == order


@pytest.mark.parametrize("draw", [0.1, 0.5, 0.999])
def test_beyond_its_share_it_is_the_last_resort(draw: float) -> None:
    """The other nine go elsewhere, and come back to it only if there is nobody else."""
    offers = [an_offer("stripe", circuit=State.SLOW_START, share=0.1), an_offer("adyen"), an_offer("third")]
    decision = decide(offers, RoutingFlags(), draw=draw)
    assert decision.order == ["adyen", "third", "stripe"]
    assert of(decision, "stripe").reasons == ["primary", "held back: 10%", "worth 1"]


@pytest.mark.parametrize("draw", [0.0, 0.5, 0.999])
def test_the_only_eligible_provider_is_never_withheld(draw: float) -> None:
    """However small its share: a recovering provider is better than none."""
    offers = [an_offer("stripe", share=0.1), an_offer("adyen", circuit=State.OPEN)]
    decision = decide(offers, RoutingFlags(), draw=draw)
    assert decision.order == ["stripe"]
    assert of(decision, "stripe").propensity == 1.0


def test_the_propensity_is_the_chance_of_being_first() -> None:
    """Over all draws: a tenth, the four tenths after it, and what is left."""
    offers = [
        an_offer("stripe", circuit=State.SLOW_START, share=0.1),
        an_offer("adyen", value="3", share=0.5),
        an_offer("third", value="2"),
    ]
    decision = decide(offers, RoutingFlags(), draw=0.3)
    assert [(each.provider, each.propensity) for each in decision.candidates] == [
        ("adyen", 0.4),
        ("third", 0.5),
        ("stripe", 0.1),
    ]


def test_a_provider_with_no_place_left_is_not_asked_now() -> None:
    """Its bulkhead is full: the next one takes the payment."""
    decision = decide([an_offer("stripe", busy=True), an_offer("adyen")], RoutingFlags())
    assert decision.order == ["adyen"]
    assert of(decision, "stripe").reasons == ["primary", "too many calls under way", "worth 1"]
    assert decision.possible


@given(
    shares=st.lists(st.floats(0, 1), min_size=3, max_size=3),
    draws=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=5),
)
def test_who_is_drawn_first_had_a_chance_and_the_chances_add_up(shares: list[float], draws: list[float]) -> None:
    """What is logged as the probability of a choice is one, whatever the shares."""
    offers = [an_offer(name, share=share) for name, share in zip(NAMES, shares, strict=True)]
    for draw in draws:
        decision = decide(offers, RoutingFlags(), draw=draw)
        assert sum(each.propensity for each in decision.candidates) == pytest.approx(1, abs=1e-5)
        assert len(decision.order) == len(NAMES)


OFFERS = st.lists(
    st.builds(
        an_offer,
        st.sampled_from(NAMES),
        value=st.integers(-2, 2).map(str),
        circuit=st.sampled_from(list(State)),
        possible=st.booleans(),
    ),
    unique_by=lambda offer: offer.provider,
)


@given(
    offers=OFFERS,
    primary=st.sampled_from(NAMES),
    strategy=st.sampled_from(["primary-first", "best-value"]),
    enabled=st.dictionaries(st.sampled_from(NAMES), st.booleans()),
)
def test_whatever_is_offered_the_rules_hold(
    offers: list[Offer], primary: str, strategy: Strategy, enabled: dict[str, bool]
) -> None:
    """Only enabled, closed, able providers are tried; the primary first, then by value; one is certain."""
    decision = decide(offers, RoutingFlags(primary=primary, strategy=strategy, enabled=enabled))
    by_name = {offer.provider: offer for offer in offers}
    eligible = {
        name
        for name, offer in by_name.items()
        if offer.params is not None and offer.circuit in ADMITTING and enabled.get(name, True)
    }
    assert set(decision.order) == eligible
    assert len(decision.candidates) == len(offers)
    assert [each.standing is Standing.ELIGIBLE for each in decision.candidates] == sorted(
        (each.standing is Standing.ELIGIBLE for each in decision.candidates), reverse=True
    )
    assert [each.propensity for each in decision.candidates] == [1.0] * bool(eligible) + [0.0] * (
        len(offers) - bool(eligible)
    )
    rest = list(decision.order)
    if strategy == "primary-first" and primary in eligible:
        assert rest.pop(0) == primary
    assert rest == sorted(rest, key=lambda name: (-by_name[name].value.value, name))
