"""When providers are in trouble, and when an issuer answers worse at one of them: drawn from a seed. Pure."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from router.routing_simulation.parameters import WEEK_S, Parameters, Step, Trouble

PROBE_EVERY_S = 10.0
"""Between synthetic probes of an open circuit (`ROUTER_BREAKER_OPEN_WAIT_SECONDS`)."""


class Outage(NamedTuple):
    """One stretch of trouble of one provider; seconds since the week began."""

    start: float
    end: float
    fails: float
    """Share of the calls."""
    kind: Trouble


class Fall(NamedTuple):
    """For a while one issuer answers worse at one provider."""

    start: float
    end: float
    by: float
    """Log-odds."""


class Availability:
    """One provider's, over the week."""

    def __init__(self, outages: Sequence[Outage], well: float) -> None:
        """`outages` do not overlap, and come in their order."""
        self.outages = outages
        self.well = well
        self._starts = [each.start for each in outages]

    def outage(self, at: float) -> Outage | None:
        """The trouble of that moment."""
        index = bisect_right(self._starts, at) - 1
        if index >= 0 and at < self.outages[index].end:
            return self.outages[index]
        return None

    def rate(self, at: float) -> float:
        """The probability that a call of that moment is answered."""
        found = self.outage(at)
        return self.well if found is None else 1 - found.fails

    def probes(self, draws: Random) -> bytes:
        """For every `PROBE_EVERY_S` of the week, whether a probe would be answered (1 or 0)."""
        slots = range(math.ceil(WEEK_S / PROBE_EVERY_S))
        return bytes(draws.random() < self.rate(slot * PROBE_EVERY_S) for slot in slots)


def draw_availability(parameters: Parameters, draws: Random) -> Availability:
    """One provider's week: of outages that would overlap, the later is left out."""
    drawn = []
    for kind in parameters.troubles:
        for start in _moments(kind.per_week, draws):
            lasts_s = 60 * _between(kind.shortest_min, kind.longest_min, draws)
            drawn.append(Outage(start, start + lasts_s, draws.uniform(kind.mildest, kind.worst), kind))
    kept: list[Outage] = []
    for each in sorted(drawn, key=lambda outage: outage.start):
        if not kept or each.start >= kept[-1].end:
            kept.append(each)
    return Availability(kept, parameters.well)


def draw_falls(step: Step, pairs: int, draws: Random) -> list[list[Fall]]:
    """For each of so many pairs of a provider and an issuer, its falls in their order."""
    falls: list[list[Fall]] = [[] for _ in range(pairs)]
    for start in _moments(step.per_week, draws):
        lasts_s = 3600 * _between(step.shortest_h, step.longest_h, draws)
        falls[draws.randrange(pairs)].append(Fall(start, start + lasts_s, draws.uniform(step.mildest, step.worst)))
    return falls


def _moments(expected: float, draws: Random) -> list[float]:
    """Of a Poisson process with so many events a week."""
    moments: list[float] = []
    if expected <= 0:
        return moments
    at = draws.expovariate(expected / WEEK_S)
    while at < WEEK_S:
        moments.append(at)
        at += draws.expovariate(expected / WEEK_S)
    return moments


def _between(low: float, high: float, draws: Random) -> float:
    """The logarithm is drawn evenly."""
    return math.exp(draws.uniform(math.log(low), math.log(high)))
