"""Do the 95% intervals of `pointsman replay` hold the truth? Over many simulated logs whose truth is known.

    make replay-honesty [PAYMENTS=5000,20000] [TRIALS=200]

Each trial is a log of its own: payments decided by the real policy with its real propensities, first choices drawn by
them, outcomes by the world's law (`bench/replay_world.py`). The truth is what the policy asked about may be expected
to earn on the very payments of the log, computed exactly. Ends with status 1 where an interval of the doubly robust
estimate holds it in less than 92% of the trials that tell, where more than 10% of the trials on a log with overlap
cannot tell, or where one on a log without overlap does.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

from bench.replay_world import Scene, scenes, truth
from flags.contract import RoutingFlags, RoutingTuning
from router.replay.asking import Asked, Redecider
from router.replay.cases import Case
from router.replay.estimate import MEASURES
from router.replay.reckoning import Reckoning

LOGGED_BY = RoutingFlags(primary="stripe", strategy="best-value", tuning=RoutingTuning(explore=0.02))
WITHOUT_OVERLAP = RoutingFlags(primary="stripe", strategy="primary-first")
POLICIES: Mapping[str, Asked] = {
    "primary-first, another primary": Asked(strategy="primary-first", primary="adyen", tuning=RoutingTuning()),
    "best-value, margin 2%, no exploration": Asked(tuning=RoutingTuning(margin=0.02, explore=0.0)),
    "best-value, advantage 5 pp, primary third": Asked(
        primary="third", tuning=RoutingTuning(switch_advantage_pp=5.0, explore=0.02)
    ),
}
WORLDS = 10
"""Of the trials, so many have a world of their own; the others draw again from one of them."""
ESTIMATORS = ("doubly_robust", "self_normalised", "inverse_propensity", "change")
HELD_AT_LEAST, UNTOLD_AT_MOST = 0.92, 0.10


class _Drawn(NamedTuple):
    """A scene made ready to be drawn from many times."""

    names: Sequence[str]
    chances: Sequence[float]
    ends: Mapping[str, tuple[Sequence[tuple[bool, float]], Sequence[float]]]
    """Per first choice: approved and cost of each end, and their chances, added up."""


@dataclass
class Tried:
    """What one policy's trials came to."""

    trials: int = 0
    untold: int = 0
    held: dict[tuple[str, str], int] = field(default_factory=dict)
    """Per estimator and measure."""
    halves: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    """Half widths of the intervals."""
    reasons: set[str] = field(default_factory=set)

    def add(self, other: Tried) -> None:
        """Another run's trials."""
        self.trials += other.trials
        self.untold += other.untold
        self.reasons |= other.reasons
        for key, held in other.held.items():
            self.held[key] = self.held.get(key, 0) + held
            self.halves.setdefault(key, []).extend(other.halves[key])

    def share_held(self, estimator: str, measure: str) -> float:
        """Of the trials that tell."""
        return self.held.get((estimator, measure), 0) / max(1, self.trials - self.untold)


def run(
    payments: int,
    trials: int,
    seed: int,
    logged_by: RoutingFlags = LOGGED_BY,
    policies: Mapping[str, Asked] = POLICIES,
) -> Mapping[str, Tried]:
    """So many logs from one world."""
    world = scenes(payments, seed, logged_by)
    ready = [_ready(scene) for scene in world]
    asked = {name: _cases(world, each) for name, each in policies.items()}
    truths = {name: _truth(world, cases) for name, cases in asked.items()}
    # What the log's policy itself may be expected to earn: the change is against that.
    own = {name: _truth(world, cases, logged=True) for name, cases in asked.items()}
    found = {name: Tried() for name in policies}
    rng = random.Random(seed + 1)  # noqa: S311 (a simulation)
    for _ in range(trials):
        log = [_draw(each, rng) for each in ready]
        for name, cases in asked.items():
            _judge(found[name], cases, log, truths[name], own[name])
    return found


def _cases(world: Sequence[Scene], asked: Asked) -> Sequence[tuple[Case, Mapping[str, int]]]:
    """Each payment decided anew once: the decision does not depend on the draw."""
    redecider = Redecider(asked)
    cases = (redecider.case(scene.logged) for scene in world)
    return [(case, {option.provider: place for place, option in enumerate(case.options)}) for case in cases]


def _truth(
    world: Sequence[Scene], cases: Sequence[tuple[Case, Mapping[str, int]]], *, logged: bool = False
) -> tuple[float, ...]:
    sums = [0.0] * len(MEASURES)
    for scene, (case, _) in zip(world, cases, strict=True):
        chances = {each.provider: each.logged if logged else each.asked for each in case.options}
        for place, each in enumerate(truth(scene, chances, case.gain)):
            sums[place] += each
    return tuple(each / len(world) for each in sums)


def _ready(scene: Scene) -> _Drawn:
    names, chances = zip(*scene.logged.propensities.items(), strict=True)
    ends = {
        name: (
            [(end.approved, end.cost) for end in scene.ends[name]],
            list(itertools.accumulate(end.chance for end in scene.ends[name])),
        )
        for name in names
    }
    return _Drawn(names, list(itertools.accumulate(chances)), ends)


def _draw(ready: _Drawn, rng: random.Random) -> tuple[str, bool, float]:
    first = rng.choices(ready.names, cum_weights=ready.chances)[0]
    ends, chances = ready.ends[first]
    return first, *rng.choices(ends, cum_weights=chances)[0]


def _judge(
    tried: Tried,
    cases: Sequence[tuple[Case, Mapping[str, int]]],
    log: Sequence[tuple[str, bool, float]],
    expected: tuple[float, ...],
    own: tuple[float, ...],
) -> None:
    reckoning = Reckoning()
    for (case, places), (first, approved, cost) in zip(cases, log, strict=True):
        reckoning.add(
            Case(
                case.options, places[first], approved, cost, case.gain, case.amount, case.currency, case.segment,
                case.nobody,
            )
        )  # fmt: skip
    (told,) = reckoning.by_currency().values()
    tried.trials += 1
    if told.doubts:
        tried.untold += 1
        tried.reasons.update(told.doubts)
        return
    for place, measure in enumerate(MEASURES):
        for estimator in ESTIMATORS:
            _, low, high = getattr(told.measures[measure], estimator)
            true = expected[place] - own[place] if estimator == "change" else expected[place]
            key = (estimator, measure)
            tried.held[key] = tried.held.get(key, 0) + (low <= true <= high)
            tried.halves.setdefault(key, []).append((high - low) / 2)


def _lines(payments: int, found: Mapping[str, Tried]) -> Iterator[str]:
    for name, tried in found.items():
        untold = tried.untold / tried.trials
        yield f"{payments} payments a log, {tried.trials} logs · {name} · cannot tell {untold:.1%}"
        for estimator in ESTIMATORS:
            shown = [
                f"{measure} {tried.share_held(estimator, measure):6.1%} ±{statistics.median(halves):.4f}"
                for measure in MEASURES
                if (halves := tried.halves.get((estimator, measure)))
            ]
            yield f"    {estimator:<19} " + "   ".join(shown)


def _together(runs: Sequence[Mapping[str, Tried]]) -> Mapping[str, Tried]:
    whole: dict[str, Tried] = {}
    for each in runs:
        for name, tried in each.items():
            whole.setdefault(name, Tried()).add(tried)
    return whole


def main() -> int:
    """1 where a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--payments", default="5000,20000", help="of a log; several sizes separated by commas")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    missed = []
    with ProcessPoolExecutor(options.processes) as pool:
        for payments in [int(each) for each in options.payments.split(",")]:
            per_world = [len(range(world, options.trials, WORLDS)) for world in range(WORLDS)]
            seeds = [options.seed * 1000 + world for world in range(WORLDS)]
            found = _together(list(pool.map(run, [payments] * WORLDS, per_world, seeds)))
            print("\n".join(_lines(payments, found)), flush=True)
            for name, tried in found.items():
                if tried.share_held("doubly_robust", "approval") < HELD_AT_LEAST:
                    missed.append(f"{payments} payments, {name}: the interval holds the truth too seldom")
                if tried.untold > UNTOLD_AT_MOST * tried.trials:
                    missed.append(f"{payments} payments, {name}: cannot tell too often")
            blind = _together(list(pool.map(run, [payments] * 2, [3] * 2, seeds[:2], [WITHOUT_OVERLAP] * 2)))
            for name, tried in blind.items():
                print(
                    f"{payments} payments a log without overlap · {name} · cannot tell {tried.untold}/{tried.trials}"
                )
                if tried.untold < tried.trials:
                    missed.append(f"{payments} payments without overlap, {name}: was told")
    print("\n".join(missed) or "every bound is kept")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
