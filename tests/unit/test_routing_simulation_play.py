"""Policies on a simulated week: the one that knows most does best, ours learns, and a broken one of ours is worse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest

from router.routing_simulation.learning_policies import (
    EpsilonGreedy,
    LastSuccesses,
    SlidingWindowUCB,
    ThompsonSampling,
)
from router.routing_simulation.own_policy import OwnPolicy
from router.routing_simulation.parameters import ERRORS, SLOW, Parameters
from router.routing_simulation.plain_policies import InOrder, Oracle, RoundRobin, hindsight, worths
from router.routing_simulation.play import Choice, Played, Policy, play
from router.routing_simulation.world import APPROVED, DECLINED, LOST, NOT_EXECUTED, World, draw_world

MARGIN = 0.10
ROUGH = Parameters(
    troubles=(replace(ERRORS, per_week=30.0, worst=0.45), replace(SLOW, per_week=30.0, worst=0.45)),
    issuer_spread=0.5,
)
"""Much trouble that the breaker does not see, and much to learn, so that few payments show it."""


@pytest.fixture(scope="module")
def world() -> World:
    """Rough, and short of payments."""
    return draw_world(11, 5000, ROUGH)


@pytest.fixture(scope="module")
def own(world: World) -> Played:
    """The router's own way, approval only."""
    return play(world, own_policy(world), margin=MARGIN)


def own_policy(world: World, kind: type[OwnPolicy] = OwnPolicy, *, by_value: bool = False) -> OwnPolicy:
    """With random numbers that are the same each time."""
    return kind(world, Random("policy"), margin=MARGIN, by_value=by_value)


def test_the_oracle_is_best_and_ours_beats_those_that_learn_nothing(world: World, own: Played) -> None:
    """By as much as cannot be luck: all get the same payments and the same chances."""
    oracle = play(world, Oracle(world), margin=MARGIN)
    turns = play(world, RoundRobin(3), margin=MARGIN)
    singles = [play(world, InOrder([one, (one + 1) % 3, (one + 2) % 3]), margin=MARGIN) for one in range(3)]
    assert oracle.approval > own.approval + 0.5
    assert own.approval > turns.approval + 1
    assert own.approval > singles[0].approval + 1
    assert own.switches < turns.switches / 3
    best = max(singles, key=lambda each: each.approved)
    # The order of those that follow it may be another.
    assert play(world, InOrder(hindsight(world)), margin=MARGIN).approved == pytest.approx(best.approved, abs=5)


def test_by_value_earns_more_and_approves_less(world: World, own: Played) -> None:
    """And nobody earns more than who knows the true rates and fees."""
    by_value = play(world, own_policy(world, by_value=True), margin=MARGIN)
    most = play(world, Oracle(world, worths(world, MARGIN)), margin=MARGIN)
    assert own.net_value < by_value.net_value < most.net_value
    assert by_value.approved < own.approved
    singles = [play(world, InOrder([one, (one + 1) % 3, (one + 2) % 3]), margin=MARGIN) for one in range(3)]
    in_hindsight = play(world, InOrder(hindsight(world, MARGIN)), margin=MARGIN)
    assert in_hindsight.net_value == pytest.approx(max(each.net_value for each in singles), rel=0.01)


def test_ours_is_the_same_again(world: World, own: Played) -> None:
    """From the same seed."""
    assert play(world, own_policy(world), margin=MARGIN) == own


def test_ours_asks_nobody_whose_circuit_is_open(world: World) -> None:
    """Neither first, exploring or not, nor when the first did not execute; and the primary leads again afterwards."""
    policy = own_policy(world)
    assert policy.choose(0, 0.0, (0, 1, 2)).leading == 0
    for _ in range(200):
        assert policy.choose(0, 0.0, (1, 2)).first in (1, 2)
        assert policy.following(0, 0.0, (1,)) == 1
    assert policy.choose(0, 0.0, (1, 2)).leading in (1, 2)
    assert policy.choose(0, 0.0, (0, 1, 2)).leading == 0


class BlindToFaults(OwnPolicy):
    """A mutant that never hears of a call's end."""

    def called(self, number: int, provider: int, now: float, *, failed: bool) -> None:
        """Not heard."""


class BlindToIssuers(OwnPolicy):
    """A mutant that never hears an issuer's answer."""

    def answered(self, number: int, provider: int, now: float, *, approved: bool) -> None:
        """Not heard."""


class MixesUp(OwnPolicy):
    """A mutant that takes what one provider's issuers say for another's."""

    def answered(self, number: int, provider: int, now: float, *, approved: bool) -> None:
        """Of the next one."""
        super().answered(number, (provider + 1) % 3, now, approved=approved)


@pytest.mark.parametrize("mutant", [BlindToFaults, BlindToIssuers, MixesUp])
def test_a_broken_one_of_ours_is_worse(world: World, own: Played, mutant: type[OwnPolicy]) -> None:
    """The simulation would notice."""
    assert play(world, own_policy(world, mutant), margin=MARGIN).approval < own.approval - 0.3


# ---------------------------------------------------------------- the play itself


class Scripted(Policy):
    """Does what it is told, and remembers what it hears."""

    def __init__(self, choices: Sequence[Choice]) -> None:
        self._choices = choices
        self.chose: list[tuple[float, int, tuple[int, ...]]] = []
        self.followed: list[int] = []
        self.heard: list[tuple[str, float, int, int, bool]] = []
        """What, when, payment, provider, whether well; and the payments chosen by then."""
        self.heard_after: list[int] = []

    def choose(self, number: int, now: float, admitted: Sequence[int]) -> Choice:
        """By the script."""
        self.chose.append((now, number, tuple(admitted)))
        return self._choices[number % len(self._choices)]

    def following(self, number: int, now: float, left: Sequence[int]) -> int:
        """The last."""
        self.followed.append(number)
        return left[-1]

    def called(self, number: int, provider: int, now: float, *, failed: bool) -> None:
        """Remember."""
        self.heard.append(("called", now, number, provider, not failed))
        self.heard_after.append(len(self.chose))

    def answered(self, number: int, provider: int, now: float, *, approved: bool) -> None:
        """Remember."""
        self.heard.append(("answered", now, number, provider, approved))
        self.heard_after.append(len(self.chose))


def test_switches_count_the_leaders_of_a_segment_and_not_what_is_explored() -> None:
    """One segment: eleven changes of the leader in twelve payments; none where only the first choice changes."""
    calm = Parameters(troubles=(), well=1.0, brands=(("visa", 1.0),), countries=(("DE", 1.0),), amount_spread=0.0)
    world = draw_world(1, 12, calm)
    leaders = play(world, Scripted([Choice(0, 0), Choice(0, 1)]), margin=MARGIN)
    explored = play(world, Scripted([Choice(0, 0), Choice(1, 0)]), margin=MARGIN)
    assert (leaders.switches, explored.switches) == (11, 0)
    assert leaders.switches_per_1000 == pytest.approx(1000 * 11 / 12)


def test_nothing_is_heard_before_it_can_be_known(world: World) -> None:
    """An answer at its moment and once; a slow failure after its ten seconds; both before the next choice."""
    policy = Scripted([Choice(0, 0), Choice(1, 1), Choice(2, 2)])
    play(world, policy, margin=MARGIN)
    answers = [each for each in policy.heard if each[0] == "answered"]
    assert len(answers) > len(world) * 0.8
    assert len({number for _, _, number, _, _ in answers}) == len(answers)
    slow = 0
    for (what, at, number, provider, well), after in zip(policy.heard, policy.heard_after, strict=True):
        result = world.result[number][provider]
        if what == "answered":
            assert at == world.answer_at[number]
            assert well == (result == APPROVED)
        else:
            assert at == world.at[number] + (0 if well else world.failure_known_s[number][provider])
            assert well == (result in (APPROVED, DECLINED))
            slow += at > world.at[number]
        if after < len(policy.chose) and at > world.at[number]:
            assert policy.chose[after - 1][0] < at <= policy.chose[after][0]
    assert slow > 10


def test_a_call_that_did_nothing_moves_on_and_one_that_may_have_charged_does_not(world: World) -> None:
    """And those turned away found nobody left."""
    policy = Scripted([Choice(0, 0)])
    policy.guarded = True
    play(world, policy, margin=MARGIN)
    first_results = {number: world.result[number][0] for _, number, admitted in policy.chose if len(admitted) == 3}
    followed = set(policy.followed)
    assert any(result == LOST for result in first_results.values())
    for number, result in first_results.items():
        assert (number in followed) == (result == NOT_EXECUTED)


def test_the_unguarded_asks_one_provider_whatever_happens_and_its_money_adds_up(world: World) -> None:
    """Margin on what was approved, less the fees, less each attempt's."""
    played = play(world, InOrder([1, 0, 2], guarded=False), margin=MARGIN)
    approved = [number for number, result in enumerate(world.result) if result[1] == APPROVED]
    price = world.parameters.prices[1]
    expected = sum(
        0.10 * world.amount[each] - price.share * world.amount[each] - price.fixed for each in approved
    ) - price.attempt * len(world)
    assert (played.approved, played.calls) == (len(approved), len(world))
    assert played.net_value == pytest.approx(expected)
    assert played.lost + played.turned_away == sum(result[1] > DECLINED for result in world.result)


# ---------------------------------------------------------------- those to compare with


def test_the_last_125_forget_and_all_history_does_not(world: World) -> None:
    """After 125 failures nothing is left of what was good."""
    last, ever = LastSuccesses(world, Random("a")), EpsilonGreedy(world, Random("a"))
    for success in [True] * 200 + [False] * 124:
        last.learn(0, 0, 0.0, success=success)
        ever.learn(0, 0, 0.0, success=success)
    assert last.scores(0, 0.0, [0]) == [1 / 125]
    last.learn(0, 0, 0.0, success=False)
    assert last.scores(0, 0.0, [0]) == [0.0]
    assert ever.scores(0, 0.0, [0]) == [201 / 325]


@pytest.mark.parametrize(("kind", "share"), [(EpsilonGreedy, 0.05 * 2 / 3), (LastSuccesses, 0.05)])
def test_so_many_are_explored_or_hedged(
    world: World, kind: type[EpsilonGreedy] | type[LastSuccesses], share: float
) -> None:
    """Any provider, or any other than the best."""
    policy = kind(world, Random("a"))
    policy.learn(0, 1, 0.0, success=False)
    policy.learn(0, 2, 0.0, success=False)
    number = next(number for number, each in enumerate(world.kind) if world.kinds[each].issuer == 0)
    firsts = [policy.choose(number, 0.0, (0, 1, 2)) for _ in range(6000)]
    assert {choice.leading for choice in firsts} == {0}
    assert {choice.first for choice in firsts} == {0, 1, 2}
    assert sum(choice.first != 0 for choice in firsts) / 6000 == pytest.approx(share, abs=0.012)


def test_the_window_slides(world: World) -> None:
    """What is older than its hours is gone, and what was tried less is more promising."""
    policy = SlidingWindowUCB(world, Random("a"), window_h=1.0)
    for number in range(40):
        policy.learn(0, number % 2 and 1, 0.0, success=number % 2 == 0)
    good, bad = policy.scores(0, 0.0, [0, 1])
    assert good > 1 > bad > 0
    policy.learn(0, 1, 3601.0, success=True)
    untried, fresh = policy.scores(0, 3601.0, [0, 1])
    assert untried > fresh > 1
    policy.learn(0, 0, 3601.0, success=True)
    for _ in range(20):
        policy.learn(0, 1, 3601.0, success=True)
    rare, often = policy.scores(0, 3601.0, [0, 1])
    assert rare > often > 1


def test_thompson_draws_near_what_is_known_and_forgets_by_halves(world: World) -> None:
    """Many answers leave little to chance; a day later they weigh a sixteenth."""
    policy = ThompsonSampling(world, Random("a"), half_life_h=6.0)
    for _ in range(4000):
        policy.learn(0, 0, 0.0, success=False)
    now = [policy.scores(0, 0.0, [0])[0] for _ in range(200)]
    later = [policy.scores(0, 5 * 24 * 3600.0, [0])[0] for _ in range(200)]
    assert max(now) < 0.05
    assert min(later) > 0.5
