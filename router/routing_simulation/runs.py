"""Many seeds, in several processes: every policy by name, and each played on each week."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from router.routing_simulation.learning_policies import (
    EpsilonGreedy,
    LastSuccesses,
    SlidingWindowUCB,
    ThompsonSampling,
)
from router.routing_simulation.own_policy import OwnPolicy
from router.routing_simulation.parameters import Parameters
from router.routing_simulation.plain_policies import InOrder, Oracle, RoundRobin, hindsight, worths
from router.routing_simulation.play import Played, Policy, play
from router.routing_simulation.world import World, draw_world

ORACLE = "oracle"
OWN_APPROVAL = "own-approval"
OWN_VALUE = "own-value"
BEST_SINGLE = "best-single"
BEST_SINGLE_VALUE = "best-single-value"
LAST = "last-125"

Maker = Callable[[World, Random, float], Policy]
"""Of the world, random numbers of the policy's own, and the margin."""


def _in_hindsight(world: World, margin: float | None) -> Policy:
    return InOrder(hindsight(world, margin))


POLICIES: Mapping[str, tuple[str, Maker]] = {
    "one-unguarded": (
        "one provider, no failover",
        lambda world, _draws, _margin: InOrder(range(len(world.parameters.providers)), guarded=False),
    ),
    "one": (
        "one provider + breaker and failover",
        lambda world, _draws, _margin: InOrder(range(len(world.parameters.providers))),
    ),
    BEST_SINGLE: ("best single provider in hindsight", lambda world, _draws, _margin: _in_hindsight(world, None)),
    BEST_SINGLE_VALUE: (
        "best single provider in hindsight, by net value",
        lambda world, _draws, margin: _in_hindsight(world, margin),
    ),
    "round-robin": (
        "round robin + breaker",
        lambda world, _draws, _margin: RoundRobin(len(world.parameters.providers)),
    ),
    "epsilon-greedy": ("ε-greedy 5%, all history", lambda world, draws, _margin: EpsilonGreedy(world, draws)),
    "ucb": ("sliding-window UCB", lambda world, draws, _margin: SlidingWindowUCB(world, draws)),
    "thompson": (
        "discounted Thompson sampling, hierarchical",
        lambda world, draws, _margin: ThompsonSampling(world, draws),
    ),
    LAST: ("success rate over the last 125, 5% hedging", lambda world, draws, _margin: LastSuccesses(world, draws)),
    OWN_APPROVAL: (
        "pointsman, approval only",
        lambda world, draws, margin: OwnPolicy(world, draws, margin=margin, by_value=False),
    ),
    OWN_VALUE: ("pointsman, by value", lambda world, draws, margin: OwnPolicy(world, draws, margin=margin)),
    ORACLE: ("oracle: knows the true rates of the moment", lambda world, _draws, _margin: Oracle(world)),
    "oracle-value": (
        "oracle, by net value",
        lambda world, _draws, margin: Oracle(world, worths(world, margin)),
    ),
}
"""By name: what it is, and how it is made. All but the first have the same breaker and failover."""


WORLD = Parameters()
"""As stated."""


@dataclass(frozen=True, slots=True)
class Job:
    """One seed's week, and what is to be played on it."""

    seed: int
    payments: int
    policies: Sequence[str]
    margin: float
    parameters: Parameters = WORLD


def play_week(job: Job) -> tuple[int, dict[str, Played]]:
    """The seed, and what came of each policy. The same job always comes to the same."""
    world = draw_world(job.seed, job.payments, job.parameters)
    played = {}
    for name in job.policies:
        # Every policy draws the same numbers, so that chance makes no difference between two that explore alike.
        policy = POLICIES[name][1](world, Random(f"{job.seed}/policy"), job.margin)
        played[name] = play(world, policy, margin=job.margin)
    return job.seed, played


def play_weeks(jobs: Sequence[Job], processes: int) -> Iterator[tuple[int, dict[str, Played]]]:
    """As they are done; in the jobs' order."""
    if processes <= 1 or len(jobs) <= 1:
        yield from map(play_week, jobs)
        return
    # Not forked: nothing of the caller, whose threads would not come along, is needed.
    with multiprocessing.get_context("spawn").Pool(min(processes, len(jobs))) as pool:
        yield from pool.imap(play_week, jobs)
