"""Policies from the literature and from practice, to compare with. A payment that fails for the provider's fault is
one without success to all of them; each was tuned on the same seeds as the world (`parameters`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from random import Random

from router.routing_simulation.play import Choice, Policy
from router.routing_simulation.world import World


class _Learner(Policy):
    """One that scores providers by their successes."""

    def __init__(self, world: World, draws: Random, *, by_band: bool = False) -> None:
        """`by_band`: whether it tells amounts apart, and not brands and countries only."""
        self._world = world
        self._cell = [number if by_band else kind.issuer for number, kind in enumerate(world.kinds)]
        """By segment, what it takes for the same."""
        self._cells = max(self._cell) + 1
        self._people = len(world.parameters.providers)
        self._draw = draws.random
        self._draws = draws

    def scores(self, cell: int, now: float, among: Sequence[int]) -> list[float]:
        """What each of these promises for such a payment."""
        raise NotImplementedError

    def learn(self, cell: int, provider: int, now: float, *, success: bool) -> None:
        """One payment's end."""
        raise NotImplementedError

    def choose(self, number: int, now: float, admitted: Sequence[int]) -> Choice:
        """The best."""
        best = self.best(number, now, admitted)
        return Choice(best, best)

    def best(self, number: int, now: float, among: Sequence[int]) -> int:
        """By score; the first of equals."""
        scores = self.scores(self._cell[self._world.kind[number]], now, among)
        return among[scores.index(max(scores))]

    def following(self, number: int, now: float, left: Sequence[int]) -> int:
        """The best of the rest."""
        return self.best(number, now, left)

    def called(self, number: int, provider: int, now: float, *, failed: bool) -> None:
        """A failed call is no success; one that did not fail says nothing until its issuer has answered."""
        if failed:
            self.learn(self._cell[self._world.kind[number]], provider, now, success=False)

    def answered(self, number: int, provider: int, now: float, *, approved: bool) -> None:
        """The issuer's answer."""
        self.learn(self._cell[self._world.kind[number]], provider, now, success=approved)


class EpsilonGreedy(_Learner):
    """The best success rate of all time in the segment; a share goes to any provider, each as likely."""

    def __init__(self, world: World, draws: Random, *, explore: float = 0.05, by_band: bool = False) -> None:
        super().__init__(world, draws, by_band=by_band)
        self._explore = explore
        # As if one success had been seen: what is not known yet is tried.
        self._successes = [[1.0] * self._people for _ in range(self._cells)]
        self._tries = [[1.0] * self._people for _ in range(self._cells)]

    def choose(self, number: int, now: float, admitted: Sequence[int]) -> Choice:
        """The best, or any."""
        best = self.best(number, now, admitted)
        if self._draw() < self._explore:
            return Choice(admitted[int(self._draw() * len(admitted))], best)
        return Choice(best, best)

    def scores(self, cell: int, now: float, among: Sequence[int]) -> list[float]:  # noqa: ARG002 (the base's)
        """Success rates."""
        successes, tries = self._successes[cell], self._tries[cell]
        return [successes[each] / tries[each] for each in among]

    def learn(self, cell: int, provider: int, now: float, *, success: bool) -> None:  # noqa: ARG002 (the base's)
        """For ever."""
        self._successes[cell][provider] += success
        self._tries[cell][provider] += 1


class LastSuccesses(_Learner):
    """The best success rate over the last payments in the segment at each provider; a share is hedged.

    The best-known open engine's way: 125 payments, and 5% to another than the best, each as likely.
    """

    def __init__(
        self, world: World, draws: Random, *, last: int = 125, hedge: float = 0.05, by_band: bool = False
    ) -> None:
        super().__init__(world, draws, by_band=by_band)
        self._hedge = hedge
        self._last = [[deque((True,), maxlen=last) for _ in range(self._people)] for _ in range(self._cells)]
        self._successes = [[1] * self._people for _ in range(self._cells)]

    def choose(self, number: int, now: float, admitted: Sequence[int]) -> Choice:
        """The best, or one of the others."""
        best = self.best(number, now, admitted)
        others = [each for each in admitted if each != best]
        if others and self._draw() < self._hedge:
            return Choice(others[int(self._draw() * len(others))], best)
        return Choice(best, best)

    def scores(self, cell: int, now: float, among: Sequence[int]) -> list[float]:  # noqa: ARG002 (the base's)
        """Success rates."""
        successes, last = self._successes[cell], self._last[cell]
        return [successes[each] / len(last[each]) for each in among]

    def learn(self, cell: int, provider: int, now: float, *, success: bool) -> None:  # noqa: ARG002 (the base's)
        """In the place of the oldest."""
        last = self._last[cell][provider]
        if len(last) == last.maxlen:
            self._successes[cell][provider] -= last[0]
        last.append(success)
        self._successes[cell][provider] += success


class SlidingWindowUCB(_Learner):
    """The best upper bound over the last hours in the segment (Garivier and Moulines, 2011)."""

    def __init__(
        self, world: World, draws: Random, *, window_h: float = 12.0, boldness: float = 0.08, by_band: bool = False
    ) -> None:
        """`boldness`: times the root of ln(all tries) / tries, on top of the rate."""
        super().__init__(world, draws, by_band=by_band)
        self._window_s = window_h * 3600
        self._boldness = boldness
        self._kept: list[deque[tuple[float, int, bool]]] = [deque() for _ in range(self._cells)]
        self._successes = [[0] * self._people for _ in range(self._cells)]
        self._tries = [[0] * self._people for _ in range(self._cells)]

    def scores(self, cell: int, now: float, among: Sequence[int]) -> list[float]:  # noqa: ARG002 (the base's)
        """Upper bounds; one that was not tried has none."""
        successes, tries = self._successes[cell], self._tries[cell]
        total = math.log(max(2, len(self._kept[cell])))
        boldness = self._boldness
        return [
            successes[each] / tries[each] + boldness * math.sqrt(total / tries[each]) if tries[each] else 9.0
            for each in among
        ]

    def learn(self, cell: int, provider: int, now: float, *, success: bool) -> None:
        """And forget what is too old."""
        kept, successes, tries = self._kept[cell], self._successes[cell], self._tries[cell]
        kept.append((now, provider, success))
        successes[provider] += success
        tries[provider] += 1
        while kept[0][0] < now - self._window_s:
            _, gone, was = kept.popleft()
            successes[gone] -= was
            tries[gone] -= 1


class ThompsonSampling(_Learner):
    """Drawn from what discounted successes leave open: segment, shrunk to brand × country, country and provider."""

    def __init__(
        self,
        world: World,
        draws: Random,
        *,
        half_life_h: float = 6.0,
        priors: tuple[float, float, float, float] = (100.0, 40.0, 40.0, 20.0),
    ) -> None:
        """`priors`: how many payments the next wider group counts for, from the segment outwards."""
        super().__init__(world, draws, by_band=True)
        self._half_life_s = half_life_h * 3600
        self._priors = priors
        countries = {name: index for index, (name, _) in enumerate(world.parameters.countries)}
        people = range(self._people)
        provider = [[0.0, 0.0] for _ in people]
        country = [[[0.0, 0.0] for _ in people] for _ in countries]
        issuer = [[[0.0, 0.0] for _ in people] for _ in range(world.kinds[-1].issuer + 1)]
        self._chains = [
            [
                ([0.0, 0.0], issuer[kind.issuer][each], country[countries[kind.country]][each], provider[each])
                for each in people
            ]
            for kind in world.kinds
        ]
        """By segment and provider, from the segment outwards: failures and successes, weighed as of the beginning."""

    def scores(self, cell: int, now: float, among: Sequence[int]) -> list[float]:
        """One draw each."""
        weight = 2.0 ** (now / self._half_life_s)
        narrow, middle, wide, widest = (each * weight for each in self._priors)
        scores = []
        for each in among:
            segment, issuer, country, provider = self._chains[cell][each]
            rate = (provider[1] + widest * 0.85) / (provider[0] + provider[1] + widest)
            rate = (country[1] + wide * rate) / (country[0] + country[1] + wide)
            rate = (issuer[1] + middle * rate) / (issuer[0] + issuer[1] + middle)
            good, bad = segment[1] + narrow * rate, segment[0] + narrow * (1 - rate)
            scores.append(self._draws.betavariate(good / weight, bad / weight))
        return scores

    def learn(self, cell: int, provider: int, now: float, *, success: bool) -> None:
        """At every width."""
        weight = 2.0 ** (now / self._half_life_s)
        for sums in self._chains[cell][provider]:
            sums[success] += weight
