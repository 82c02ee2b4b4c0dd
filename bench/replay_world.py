"""A small world whose truth is known, for `router.replay`: payments decided by the real policy, outcomes by a law.

Segments differ in each provider's approval rate, which drifts; a provider has two spells of technical faults. The
logged terms are learned with an error and a lag, as scores are, so a replay must not trust them. An outcome follows
the decision's order: unavailable tries the next, so does a part of the declines, and the second try of a card that
was declined is approved less often than a first one.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flags.contract import RoutingFlags
from router import policy
from router.choices import Choices
from router.policy import Decision, Offer
from router.replay.logged import Logged
from router.segments import Segment, segment
from router.value import Terms

PROVIDERS = ("adyen", "stripe", "third")
FEES = {"adyen": (0.019, 0.10, 0.13), "stripe": (0.029, 0.30, 0.0), "third": (0.015, 0.05, 0.02)}
"""Per provider: share of the amount, fixed part, per attempt; major units."""
CASCADES = 0.6
"""Share of declines after which the next provider is tried."""
SECOND_TRY = 0.35
"""Chance of a second try, against that of a first."""


@dataclass(frozen=True, slots=True)
class End:
    """One way that a payment can end after a first choice."""

    chance: float
    approved: bool
    cost: float


@dataclass(frozen=True, slots=True)
class Scene:
    """A payment before its draw: the decision's terms and, for each possible first choice, the law of its end."""

    logged: Logged
    """With the outcome of nothing yet."""
    ends: Mapping[str, Sequence[End]]


def scenes(payments: int, seed: int, flags: RoutingFlags) -> Sequence[Scene]:
    """So many payments over four days, each decided by the real policy under these flags."""
    rng = random.Random(seed)  # noqa: S311 (a simulation)
    kinds = [(brand, country) for brand in ("visa", "mastercard", "amex") for country in ("DE", "FR", "US", "BR")]
    base = {kind: rng.gauss(0.86, 0.04) for kind in kinds}
    bias = {(kind, name): rng.gauss(0.0, 0.03) for kind in kinds for name in PROVIDERS}
    phase = {(kind, name): rng.random() * math.tau for kind in kinds for name in PROVIDERS}
    error = {(kind, name): rng.gauss(0.0, 0.02) for kind in kinds for name in PROVIDERS}
    faults = [(rng.choice(PROVIDERS), start, start + 0.05) for start in (rng.random() * 0.9, rng.random() * 0.9)]
    choices = Choices()
    found = []
    for number in range(payments):
        at = number / payments
        kind = rng.choices(kinds, weights=[1 / (1 + place) for place in range(len(kinds))])[0]
        minor = max(100, int(rng.lognormvariate(8.3, 0.9)))
        amount = minor / 100
        offers, truth = [], {}
        out = {name for name in PROVIDERS if rng.random() < 0.03}  # has no token for this provider
        for name in PROVIDERS:
            wave = 0.02 * math.sin(phase[kind, name] + 12 * at)
            late = 0.02 * math.sin(phase[kind, name] + 12 * (at - 0.02))
            level = base[kind] + bias[kind, name]
            faulty = any(name == each and start < at < end for each, start, end in faults)
            seen = any(name == each and start + 0.005 < at < end + 0.005 for each, start, end in faults)
            share, fixed, attempt = FEES[name]
            truth[name] = (_rate(level + wave), 0.5 if faulty else 0.998, share * amount + fixed, attempt)
            terms = Terms(
                _rate(level + late + error[kind, name] + rng.gauss(0, 0.005)),
                0.55 if seen else 0.998,
                share * amount + fixed,
                attempt,
            ).rounded()
            obstacle = "no token for this provider" if name in out and len(out) < len(PROVIDERS) else None
            # Slow start after a fault, seen by the policy as a share.
            recovering = any(name == each and end < at < end + 0.01 for each, _start, end in faults)
            offers.append(Offer(name, terms, obstacle=obstacle, share=0.5 if recovering else 1.0))
        brand, country = kind
        where = segment(minor, brand, country, "card")
        decision = policy.decide(offers, flags, amount, incumbent=choices.of(flags.primary, where))
        choices.made(decision, where)
        found.append(_scene(decision, offers, where, flags, truth))
    return found


def draw(scene: Scene, rng: random.Random) -> Logged:
    """The payment as it was logged: whom the draw put first, and how it ended."""
    names, chances = list(scene.logged.propensities), list(scene.logged.propensities.values())
    first = rng.choices(names, weights=chances)[0]
    ends = scene.ends[first]
    end = rng.choices(ends, weights=[each.chance for each in ends])[0]
    return _with(scene.logged, first, end)


def truth(scene: Scene, asked: Mapping[str, float], gain: float) -> tuple[float, float, float]:
    """Expected approval, cost and net value where each is first with that probability; exactly."""
    approval = cost = 0.0
    for name, chance in asked.items():
        for end in scene.ends[name]:
            approval += chance * end.chance * end.approved
            cost += chance * end.chance * end.cost
    return approval, cost, gain * approval - cost


def _rate(level: float) -> float:
    return min(0.99, max(0.3, level))


def _scene(
    decision: Decision,
    offers: Sequence[Offer],
    where: Segment,
    flags: RoutingFlags,
    truth: Mapping[str, tuple[float, float, float, float]],
) -> Scene:
    eligible = list(decision.order)
    logged = Logged(
        currency="EUR",
        amount=decision.at_stake.amount,
        segment=where,
        strategy=flags.strategy,
        primary=flags.primary,
        tuning=flags.tuning,
        offers=offers,
        propensities={each.provider: each.propensity for each in decision.candidates if each.provider in eligible},
        incumbent=decision.incumbent,
        first=eligible[0],
        lane=decision.lane,
        approved=False,
        cost=0.0,
    )
    return Scene(
        logged, {name: _ends([name, *[each for each in eligible if each != name]], truth) for name in eligible}
    )


def _ends(order: Sequence[str], truth: Mapping[str, tuple[float, float, float, float]]) -> Sequence[End]:
    """Every way that a payment can end whose providers are tried in this order; the chances add up to 1."""
    found: list[End] = []
    under_way = [(1.0, 0.0, False)]
    for name in order:
        rate, available, fee, attempt = truth[name]
        going_on = []
        for chance, cost, declined in under_way:
            approves = rate * (SECOND_TRY if declined else 1.0)
            found.append(End(chance * available * approves, True, cost + attempt + fee))
            found.append(End(chance * available * (1 - approves) * (1 - CASCADES), False, cost + attempt))
            going_on.append((chance * available * (1 - approves) * CASCADES, cost + attempt, True))
            going_on.append((chance * (1 - available), cost, declined))
        under_way = going_on
    return [*found, *[End(chance, False, cost) for chance, cost, _declined in under_way]]


def _with(logged: Logged, first: str, end: End) -> Logged:
    return Logged(
        currency=logged.currency,
        amount=logged.amount,
        segment=logged.segment,
        strategy=logged.strategy,
        primary=logged.primary,
        tuning=logged.tuning,
        offers=logged.offers,
        propensities=logged.propensities,
        incumbent=logged.incumbent,
        first=first,
        lane=logged.lane,
        approved=end.approved,
        cost=end.cost,
    )
