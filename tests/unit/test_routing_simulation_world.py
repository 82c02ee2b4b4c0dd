"""The simulated week: drawn again from its seed, within bounds, and its troubles do what they say."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from random import Random
from statistics import fmean

import pytest

from router.routing_simulation.circuits import Circuits
from router.routing_simulation.own_policy import segments_of
from router.routing_simulation.parameters import ERRORS, REFUSED, SLOW, WEEK_S, Parameters, Step, Trouble
from router.routing_simulation.troubles import PROBE_EVERY_S, Availability, Outage, draw_availability
from router.routing_simulation.world import APPROVED, DECLINED, LOST, NOT_EXECUTED, World, draw_world

PAYMENTS = 4000
QUIET = Parameters(troubles=(), step=Step(0.0, 1.0, 2.0, 1.0, 2.0), drift_spread=0.0)
"""Nothing changes."""


@pytest.fixture(scope="module")
def world() -> World:
    """A week as stated."""
    return draw_world(1, PAYMENTS, Parameters())


def test_a_seed_draws_the_same_week_again_and_another_seed_another(world: World) -> None:
    """Whoever doubts a figure can have it again."""
    again, other = draw_world(1, PAYMENTS, Parameters()), draw_world(2, PAYMENTS, Parameters())
    assert (again.at, again.amount, again.result, again.answer_at) == (
        world.at,
        world.amount,
        world.result,
        world.answer_at,
    )
    assert again.probes == world.probes
    assert (other.at, other.result) != (world.at, world.result)


def test_every_figure_is_within_its_bounds(world: World) -> None:
    """Probabilities are probabilities, moments are in the week and in order, an answer comes after its question."""
    assert len(world) == PAYMENTS
    assert all(0 < each < 1 for chances in world.approval for each in chances)
    assert all(0 <= each <= 1 for rates in (*world.available, *world.proved) for each in rates)
    assert list(world.at) == sorted(world.at)
    assert world.at[0] >= 0
    assert world.at[-1] < WEEK_S
    assert all(known > asked for known, asked in zip(world.answer_at, world.at, strict=True))
    assert sorted(world.answers_in_order) == list(range(PAYMENTS))
    assert min(world.amount) > 0


def test_the_segments_are_the_routers_own(world: World) -> None:
    """Sixty, and a payment is in that one of the world's whose router's segment it has."""
    assert len(world.kinds) == 60
    seen = [each for each in segments_of(world) if each.brand]
    assert len(set(seen)) == len(seen) == len(set(world.kind))


def test_results_come_as_often_as_their_probabilities_say(world: World) -> None:
    """The truth that the oracle knows is the truth."""
    for provider in range(3):
        expected = fmean(
            chance[provider] * up[provider] for chance, up in zip(world.approval, world.available, strict=True)
        )
        found = fmean(result[provider] == APPROVED for result in world.result)
        assert found == pytest.approx(expected, abs=4 * math.sqrt(0.25 * 0.5 / PAYMENTS))


def test_an_issuer_has_one_mind() -> None:
    """Where two providers answer, the one with the better rate approves whatever the other approves."""
    world = draw_world(3, 2000, QUIET)
    differing = 0
    for chances, results in zip(world.approval, world.result, strict=True):
        better, worse = (0, 1) if chances[0] >= chances[1] else (1, 0)
        if results[worse] == APPROVED and results[better] <= DECLINED:
            assert results[better] == APPROVED
        differing += results[0] != results[1]
    assert differing > 10


@pytest.mark.parametrize(
    ("kind", "never"), [(REFUSED, LOST), (SLOW, NOT_EXECUTED), (ERRORS, None)], ids=["refused", "slow", "errors"]
)
def test_an_outage_does_what_it_says(kind: Trouble, never: int | None) -> None:
    """So many calls fail, so many of them provably without effect, known after so long; outside of it hardly any."""
    often = replace(kind, per_week=40.0, shortest_min=100.0, longest_min=300.0)
    world = draw_world(5, PAYMENTS, replace(QUIET, troubles=(often,), well=1.0))
    within = failed = unproved = 0
    expected = 0.0
    for number, now in enumerate(world.at):
        outage = world.availabilities[0].outage(now)
        result = world.result[number][0]
        if outage is None:
            assert result in (APPROVED, DECLINED)
            assert world.available[number][0] == 1
            continue
        within += 1
        expected += outage.fails
        failed += result in (NOT_EXECUTED, LOST)
        unproved += result == LOST
        assert result != never
        assert world.failure_known_s[number][0] == kind.known_after_s
        assert world.available[number][0] == pytest.approx(1 - outage.fails)
    assert within > 300
    assert failed == pytest.approx(expected, rel=0.1)
    assert unproved == pytest.approx(failed * (1 - kind.proved), rel=0.15, abs=0.1)


def test_outages_do_not_overlap_and_probes_see_them() -> None:
    """One trouble at a time; a probe in a full outage is hardly ever answered, outside of it nearly always."""
    many = Parameters(troubles=(replace(REFUSED, per_week=60.0), replace(SLOW, per_week=60.0)))
    availability = draw_availability(many, Random("a"))
    assert len(availability.outages) > 30
    assert all(one.end <= next_.start for one, next_ in pairwise(availability.outages))
    down = Availability([Outage(1000.0, 2000.0, 1.0, REFUSED)], 1.0)
    probes = down.probes(Random("b"))
    assert len(probes) == WEEK_S / PROBE_EVERY_S
    assert [slot for slot, good in enumerate(probes) if not good] == list(range(100, 200))
    assert (down.rate(999.9), down.rate(1000.0), down.rate(1999.9), down.rate(2000.0)) == (1.0, 0.0, 0.0, 1.0)


def test_a_step_lowers_one_pairs_log_odds_and_ends() -> None:
    """Two rates and no others, as far apart as the step says, in whole stretches of hours."""
    step = Step(per_week=20.0, shortest_h=10.0, longest_h=20.0, mildest=1.0, worst=1.0)
    world = draw_world(7, PAYMENTS, replace(QUIET, step=step))
    odds: dict[tuple[int, int], set[float]] = {}
    for kind, chances in zip(world.kind, world.approval, strict=True):
        for provider, chance in enumerate(chances):
            odds.setdefault((kind, provider), set()).add(round(math.log(chance / (1 - chance)), 6))
    stepped = [found for found in odds.values() if len(found) > 1]
    assert len(stepped) > 10
    assert len(stepped) < len(odds) / 2
    for found in stepped:
        levels = sorted(found)
        assert all(high - low == pytest.approx(1.0) for low, high in pairwise(levels))


def test_drift_moves_rates_and_without_it_they_stand_still() -> None:
    """Slowly: from one hour to the next by less than over the week."""
    still, moving = draw_world(9, 3000, QUIET), draw_world(9, 3000, replace(QUIET, drift_spread=0.3))
    kind = max(set(still.kind), key=still.kind.count)
    numbers = [number for number, each in enumerate(still.kind) if each == kind]
    assert len({still.approval[number][0] for number in numbers}) == 1
    path = [moving.approval[number][0] for number in numbers]
    assert len(set(path)) == len(path)
    rises = sum(one < two for one, two in pairwise(path))
    assert 0.2 * len(path) < rises < 0.8 * len(path)
    assert max(path) - min(path) > 2.5 * max(abs(one - two) for one, two in pairwise(path))


# ---------------------------------------------------------------- the shared breaker


def circuits(good: bool = True) -> Circuits:
    """Of two providers whose probes are all the same."""
    return Circuits([bytes([good]) * 10, bytes([1]) * 10])


def test_five_failures_in_a_row_open_a_circuit_and_four_do_not() -> None:
    """And the other provider's stays closed."""
    guarded = circuits()
    for _ in range(4):
        guarded.count(0, True, 0.0)
    guarded.count(0, False, 0.0)
    for _ in range(4):
        guarded.count(0, True, 0.0)
    assert guarded.admitted(0.0) == (0, 1)
    guarded.count(0, True, 0.0)
    assert guarded.admitted(0.0) == (1,)
    assert guarded.opened == 1


def test_ten_failures_of_the_last_twenty_calls_open_a_circuit() -> None:
    """Nine do not, and what is further back does not count."""
    guarded = circuits()
    for call in range(18):
        guarded.count(0, call % 2 == 0, 0.0)
    assert guarded.admitted(0.0) == (0, 1)
    for _ in range(12):
        guarded.count(0, False, 0.0)
    guarded.count(0, True, 0.0)
    assert guarded.admitted(0.0) == (0, 1)
    guarded = circuits()
    for call in range(19):
        guarded.count(0, call % 2 == 0, 0.0)
    assert guarded.admitted(0.0) == (1,)


def test_three_good_probes_close_it_and_late_calls_count_for_nothing() -> None:
    """The first is due ten seconds after, at most."""
    guarded = circuits()
    for _ in range(5):
        guarded.count(0, True, 4.0)
    for _ in range(5):
        guarded.count(0, True, 15.0)
    assert guarded.opened == 1
    assert guarded.admitted(29.9) == (1,)
    assert guarded.admitted(30.0) == (0, 1)
    stays = circuits(good=False)
    for _ in range(5):
        stays.count(0, True, 4.0)
    assert stays.admitted(99.0) == (1,)
