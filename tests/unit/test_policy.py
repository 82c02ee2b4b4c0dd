"""Which providers may take a payment, in which order, and with what reasons."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flags.contract import RoutingFlags, RoutingTuning, Strategy
from router.policy import Candidate, Decision, Draws, Lane, Offer, Standing, refusals
from router.policy import decide as decide_on
from router.transitions import ADMITTING, State
from router.value import Terms

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
    """What is known of one provider; of a payment of nothing, it is worth what its attempt costs less."""
    terms = Terms(1.0, 1.0, 0.0, -float(value))
    why = f"held back: {share:.0%}" if share < 1 else None
    if obstacle is None and not possible:
        obstacle = "cannot take this payment"
    return Offer(provider, terms, circuit, obstacle, share=share, held_back=why, busy=busy)


def decide(offers: Sequence[Offer], flags: RoutingFlags, *, draw: float = 0.0, amount: float = 0.0) -> Decision:
    """A decision on a payment of nothing, which explores nothing."""
    return decide_on(offers, flags, amount, draws=Draws(share=draw))


def reasons(decision: Decision, provider: str) -> list[str]:
    """Without the line of its value."""
    return decision.reasons(of(decision, provider))[:-1]


def of(decision: Decision, provider: str) -> Candidate:
    (found,) = [each for each in decision.candidates if each.provider == provider]
    return found


def test_the_primary_leads_and_the_rest_follow_by_value() -> None:
    """Under `primary-first` the flag decides who is first, however little it is worth."""
    offers = [an_offer("stripe", value="1"), an_offer("adyen", value="2"), an_offer("third", value="3")]
    assert decide(offers, RoutingFlags(primary="stripe")).order == ["stripe", "third", "adyen"]
    assert decide(offers, RoutingFlags(primary="adyen")).order == ["adyen", "third", "stripe"]


def test_under_best_value_the_value_leads() -> None:
    """The primary is only one of them."""
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
    assert reasons(decision, "stripe") == ["primary", "disabled by flag"]
    assert decision.possible


@pytest.mark.parametrize("circuit", [State.OPEN, State.HALF_OPEN, State.FORCED_OPEN])
def test_a_provider_whose_circuit_is_not_closed_is_left_out_for_now(circuit: State) -> None:
    """The flag is advice, the breaker is law."""
    decision = decide([an_offer("stripe", circuit=circuit), an_offer("adyen")], RoutingFlags())
    assert decision.order == ["adyen"]
    assert reasons(decision, "stripe") == ["primary", f"circuit {circuit.value}"]


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
    """Every figure of the formula, and what a replay of another policy needs."""
    stripe = Offer("stripe", Terms(0.8731, 0.9991, 0.88, 0.0))
    shown = decide_on([stripe, an_offer("adyen", possible=False)], RoutingFlags(), 19.99).to_json()
    assert {name: shown[name] for name in ("strategy", "primary", "lane", "choice", "incumbent")} == {
        "strategy": "primary-first",
        "primary": "stripe",
        "lane": "strategy",
        "choice": "stripe",
        "incumbent": None,
    }
    assert (shown["margin"], shown["amount"]) == (0.1, 19.99)
    assert shown["candidates"][0] == {
        "provider": "stripe",
        "eligible": True,
        "value": 0.9761,
        "approval": 0.8731,
        "availability": 0.9991,
        "cost": 0.88,
        "fee": 0.88,
        "attempt_fee": 0.0,
        "share": 1.0,
        "propensity": 1.0,
        "reasons": [
            "primary",
            "stripe 0.98 = approval 87.31% × availability 99.91% × (10% × 19.99 − fee 0.88) − attempt 0.00",
        ],
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
    assert reasons(decision, "stripe") == ["primary", "held back: 10%"]


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


@pytest.mark.parametrize("strategy", ["primary-first", "best-value"])
@pytest.mark.parametrize("explore", [0.0, 0.1])
def test_one_that_recovers_leads_no_more_than_its_share_though_the_other_is_suspect(
    strategy: Strategy, explore: float
) -> None:
    """The other has had all the payments, and has its own trouble now: it carries what the first one may not yet."""
    flags = RoutingFlags(primary="stripe", strategy=strategy, tuning=RoutingTuning(explore=explore))
    offers = [an_offer("stripe", value="9", circuit=State.SLOW_START, share=0.1), an_offer("adyen", share=0.5)]
    for draw in (0.1, 0.49, 0.5, 0.999):
        draws = Draws(draw, 0.0, 0.999)
        assert decide_on(offers, flags, 0.0, draws=draws).order == ["adyen", "stripe"]
    assert of(decide_on(offers, flags, 0.0), "stripe").propensity <= 0.1
    alike = [each._replace(share=0.5) for each in offers]
    assert decide_on(alike, flags, 0.0, draws=Draws(0.9)).order == ["stripe", "adyen"]


def test_a_provider_with_no_place_left_is_not_asked_now() -> None:
    """Its bulkhead is full: the next one takes the payment."""
    decision = decide([an_offer("stripe", busy=True), an_offer("adyen")], RoutingFlags())
    assert decision.order == ["adyen"]
    assert reasons(decision, "stripe") == ["primary", "too many calls under way"]
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
    sure = RoutingTuning(explore=0.0)
    decision = decide(offers, RoutingFlags(primary=primary, strategy=strategy, enabled=enabled, tuning=sure))
    by_name = {offer.provider: offer for offer in offers}
    eligible = {
        name
        for name, offer in by_name.items()
        if offer.obstacle is None and offer.circuit in ADMITTING and enabled.get(name, True)
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
    cheapest = min((by_name[name].terms.attempt for name in rest), default=None)
    # Of those that are worth the most the primary leads, whatever its name.
    if primary in eligible and (strategy == "primary-first" or by_name[primary].terms.attempt == cheapest):
        assert rest.pop(0) == primary
    assert rest == sorted(rest, key=lambda name: (by_name[name].terms.attempt, name))


# ---------------------------------------------------------------- best value: advantage, exploration, holdout

LEVEL = Terms(0.90, 1.0, 1.0, 0.0)
"""On a payment of 100 at a margin of 10%, a percentage point is worth 0.09, and half of one 0.045."""
BEST = RoutingFlags(primary="stripe", strategy="best-value", tuning=RoutingTuning(explore=0.0))


BEST_AT_ANY = RoutingFlags(
    primary="stripe", strategy="best-value", tuning=RoutingTuning(explore=0.0, switch_advantage_pp=0.0)
)


def better_by(points: float) -> Terms:
    """Terms with so many percentage points more of approvals."""
    return LEVEL._replace(approval=round(LEVEL.approval + points / 100, 4))


def between(stripe: Terms, adyen: Terms, *, incumbent: str | None = None, flags: RoutingFlags = BEST) -> Decision:
    """A decision between two, on a payment of 100."""
    return decide_on([Offer("stripe", stripe), Offer("adyen", adyen)], flags, 100.0, incumbent=incumbent)


@pytest.mark.parametrize(("ahead_pp", "leads"), [(0.0, "stripe"), (0.49, "stripe"), (0.51, "adyen"), (3.0, "adyen")])
def test_the_primary_wins_within_the_switch_advantage(ahead_pp: float, leads: str) -> None:
    """Half a percentage point, unless the tuning says otherwise."""
    decision = between(LEVEL, better_by(ahead_pp))
    assert decision.order[0] == leads == decision.choice


@pytest.mark.parametrize(
    ("ahead_pp", "leads"), [(0.6, "adyen"), (0.2, "adyen"), (0.01, "adyen"), (0.0, "stripe"), (-0.1, "stripe")]
)
def test_the_choice_that_was_made_is_kept_until_nothing_speaks_for_it(ahead_pp: float, leads: str) -> None:
    """Or two providers that are nearly alike would take turns."""
    assert between(LEVEL, better_by(ahead_pp), incumbent="adyen").order[0] == leads


def test_between_two_others_the_present_choice_is_kept_within_the_advantage() -> None:
    """The primary is far behind and out of it."""
    offers = [Offer("stripe", better_by(-9)), Offer("adyen", LEVEL), Offer("third", better_by(0.4))]
    assert decide_on(offers, BEST, 100.0, incumbent="adyen").order == ["adyen", "third", "stripe"]
    assert decide_on(offers, BEST, 100.0).order == ["third", "adyen", "stripe"]
    offers[2] = Offer("third", better_by(0.6))
    assert decide_on(offers, BEST, 100.0, incumbent="adyen").order == ["third", "adyen", "stripe"]


def test_a_present_choice_that_cannot_take_the_payment_counts_for_nothing() -> None:
    """Then the primary is what is left only for an advantage."""
    offers = [Offer("stripe", LEVEL), Offer("adyen", LEVEL, State.OPEN), Offer("third", better_by(0.4))]
    assert decide_on(offers, BEST, 100.0, incumbent="adyen").order[0] == "stripe"


@pytest.mark.parametrize("tuning", [{"switch_advantage_pp": 0.0}, {"margin": 0.0}, {"margin": 0.0, "holdout": 0.1}])
def test_two_alike_are_no_reason_to_leave_the_primary(tuning: dict[str, float]) -> None:
    """However small the advantage that a switch takes, and though the other comes first by its name."""
    flags = RoutingFlags(primary="stripe", strategy="best-value", tuning=RoutingTuning(explore=0, **tuning))
    decision = between(LEVEL._replace(fee=0.0), LEVEL._replace(fee=0.0), flags=flags)
    assert decision.order == ["stripe", "adyen"]
    assert reasons(decision, "stripe") == ["primary", "highest value"]
    assert between(LEVEL, better_by(0.01), flags=BEST_AT_ANY).choice == "adyen"


def test_the_primary_is_not_taken_back_where_it_would_be_left_at_once() -> None:
    """A point of approvals is worth less at a provider with a higher fee: the lead that is none here is one there."""
    present, primary = Terms(0.5, 1.0, 0.0, 0.0), Terms(0.9, 1.0, 4.44, 0.0)  # 5.000 and 5.004 of a gain of 10
    offers = [Offer("stripe", primary), Offer("adyen", present), Offer("third", Terms(0.504, 1.0, 0.0, 0.0))]
    decision = decide_on(offers, BEST, 100.0, incumbent="adyen")
    assert decision.choice == "adyen"
    assert reasons(decision, "adyen") == ["kept: third is ahead by 0.0400, a switch takes 0.0500 (0.5 pp)"]
    assert decide_on(offers, BEST, 100.0, incumbent="stripe").choice == "third"


def test_what_the_advantage_needs_is_the_tunings() -> None:
    """In percentage points, worth more on a dearer payment."""
    flags = RoutingFlags(
        primary="stripe", strategy="best-value", tuning=RoutingTuning(switch_advantage_pp=2, explore=0)
    )
    assert between(LEVEL, better_by(1.9), flags=flags).order[0] == "stripe"
    assert between(LEVEL, better_by(2.1), flags=flags).order[0] == "adyen"


def test_each_is_told_why_it_stands_where_it_stands() -> None:
    """The loser as plainly as the winner."""
    decision = between(LEVEL, better_by(0.3))
    assert reasons(decision, "stripe") == [
        "primary",
        "kept: adyen is ahead by 0.0270, a switch takes 0.0450 (0.5 pp)",
    ]
    assert reasons(decision, "adyen") == ["0.0270 ahead of stripe"]
    decision = between(LEVEL, better_by(1.0))
    assert (reasons(decision, "adyen"), reasons(decision, "stripe")) == (
        ["highest value"],
        ["primary", "0.0900 behind adyen"],
    )
    decision = between(LEVEL, better_by(1.0), flags=RoutingFlags(primary="stripe"))
    assert reasons(decision, "adyen") == ["0.0900 ahead of stripe, which leads as the primary"]


EXPLORING = RoutingFlags(primary="stripe", strategy="best-value", tuning=RoutingTuning(holdout=0.1, explore=0.1))
THREE = [Offer("stripe", LEVEL), Offer("adyen", better_by(2)), Offer("third", better_by(1))]


@pytest.mark.parametrize(
    ("draws", "lane", "order"),
    [
        (Draws(lane=0.0), Lane.HOLDOUT, ["stripe", "adyen", "third"]),
        (Draws(lane=0.0999), Lane.HOLDOUT, ["stripe", "adyen", "third"]),
        (Draws(lane=0.1, pick=0.0), Lane.EXPLORE, ["adyen", "third", "stripe"]),
        (Draws(lane=0.1, pick=0.34), Lane.EXPLORE, ["third", "adyen", "stripe"]),
        (Draws(lane=0.1899, pick=0.999999), Lane.EXPLORE, ["stripe", "adyen", "third"]),
        (Draws(lane=0.19), Lane.STRATEGY, ["adyen", "third", "stripe"]),
    ],
)
def test_a_draw_may_hold_out_or_explore(draws: Draws, lane: Lane, order: list[str]) -> None:
    """A tenth on the primary; of the rest a tenth anywhere."""
    decision = decide_on(THREE, EXPLORING, 100.0, draws=draws)
    assert (decision.lane, decision.order) == (lane, order)
    assert decision.choice == "adyen"
    chances = {each.provider: each.propensity for each in decision.candidates}
    assert chances == pytest.approx({"stripe": 0.1 + 0.03, "adyen": 0.03 + 0.81, "third": 0.03}, abs=1e-6)


def test_a_draw_is_told_in_the_reasons() -> None:
    """Or nobody could say why that provider led."""
    held_out, explored = (decide_on(THREE, EXPLORING, 100.0, draws=Draws(lane=lane)) for lane in (0.0, 0.1))
    assert reasons(held_out, "stripe") == ["primary", "held out: the primary leads", "0.1800 behind adyen"]
    assert reasons(explored, "adyen") == ["explored: one of the eligible, each as likely", "highest value"]


@pytest.mark.parametrize(("strategy", "share"), [("best-value", 0.02), ("primary-first", 0.0)])
def test_what_is_explored_where_the_tuning_says_nothing(strategy: Strategy, share: float) -> None:
    """Under `primary-first` a payment goes elsewhere only if the flag asks for it."""
    decision = decide_on(THREE, RoutingFlags(primary="stripe", strategy=strategy), 100.0)
    leader, *others = decision.candidates
    assert leader.propensity == pytest.approx(1 - share * 2 / 3, abs=1e-6)
    assert [each.propensity for each in others] == pytest.approx([share / 3] * 2, abs=1e-6)


def test_what_is_recovering_is_not_explored_beyond_its_share() -> None:
    """Its share is what it may be asked to carry."""
    offers = [Offer("stripe", LEVEL), Offer("adyen", LEVEL, State.SLOW_START, share=0.1, held_back="slow start")]
    for pick in (0.0, 0.99):
        assert decide_on(offers, EXPLORING, 100.0, draws=Draws(0.1, 0.15, pick)).order[0] == "stripe"
    assert decide_on(offers, EXPLORING, 100.0, draws=Draws(0.09, 0.15, 0.0)).order[0] == "adyen"


DRAWN = st.floats(0, 1, exclude_max=True)


@given(
    worths=st.lists(st.floats(0.5, 1.0), min_size=3, max_size=3),
    shares=st.lists(st.sampled_from([0.01, 0.1, 0.25, 1.0]), min_size=3, max_size=3),
    holdout=st.sampled_from([0.0, 0.2]),
    explore=st.sampled_from([0.0, 0.1]),
    strategy=st.sampled_from(["primary-first", "best-value"]),
)
def test_the_propensities_are_what_the_draws_do(
    worths: list[float], shares: list[float], holdout: float, explore: float, strategy: Strategy
) -> None:
    """Counted over a grid of all draws, each provider leads as often as its propensity says."""
    offers = [
        Offer(name, Terms(round(approval, 4), 1.0, 0.0, 0.0), share=share)
        for name, approval, share in zip(NAMES, worths, shares, strict=True)
    ]
    flags = RoutingFlags(primary="stripe", strategy=strategy, tuning=RoutingTuning(holdout=holdout, explore=explore))
    by_share = [0.005, 0.05, 0.15, 0.5]
    widths = [0.01, 0.09, 0.15, 0.75]
    led: dict[str, float] = dict.fromkeys(NAMES, 0.0)
    lanes = [(0.0, holdout), (holdout, (1 - holdout) * explore), (0.999, (1 - holdout) * (1 - explore))]
    for (draw, width), (lane, weight), pick in itertools.product(zip(by_share, widths, strict=True), lanes, range(6)):
        if weight:
            draws = Draws(draw, lane, (pick + 0.5) / 6)
            led[decide_on(offers, flags, 100.0, draws=draws).order[0]] += width * weight / 6
    propensity = {each.provider: each.propensity for each in decide_on(offers, flags, 100.0).candidates}
    assert propensity == pytest.approx(led, abs=1e-5)
