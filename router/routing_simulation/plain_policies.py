"""Policies that learn nothing: one provider, turns, and those that know what nobody can."""

from __future__ import annotations

from collections.abc import Sequence

from router.routing_simulation.play import Choice, Policy
from router.routing_simulation.world import World


class InOrder(Policy):
    """Always the first of a list that is admitted."""

    def __init__(self, order: Sequence[int], *, guarded: bool = True) -> None:
        """`guarded` False: whatever happens, nobody but the first is asked."""
        self.guarded = guarded
        self._order = order

    def choose(self, number: int, now: float, admitted: Sequence[int]) -> Choice:  # noqa: ARG002 (the protocol's)
        """The first."""
        first = self._order[0]
        if first not in admitted:
            first = next(each for each in self._order if each in admitted)
        return Choice(first, first)

    def following(self, number: int, now: float, left: Sequence[int]) -> int:  # noqa: ARG002 (the protocol's)
        """The next."""
        return next(each for each in self._order if each in left)


class RoundRobin(Policy):
    """Each in turn, whatever the payment."""

    def __init__(self, providers: int) -> None:
        self._providers = providers
        self._turn = 0

    def choose(self, number: int, now: float, admitted: Sequence[int]) -> Choice:  # noqa: ARG002 (the protocol's)
        """Whose turn it is; one that is not admitted loses it."""
        first = self._take(admitted)
        return Choice(first, first)

    def following(self, number: int, now: float, left: Sequence[int]) -> int:  # noqa: ARG002 (the protocol's)
        """Whose turn is next."""
        return self._take(left)

    def _take(self, among: Sequence[int]) -> int:
        while True:
            turn = self._turn
            self._turn = (turn + 1) % self._providers
            if turn in among:
                return turn


class Oracle(Policy):
    """Knows every true probability of this moment, but not what chance makes of it."""

    def __init__(self, world: World, worths: Sequence[Sequence[tuple[float, float]]] | None = None) -> None:
        """`worths`: by payment and provider, what an approval earns and a try costs; None: only approvals count.

        It is as good as one can be but for one thing: it does not look further than the second provider.
        """
        self._world = world
        self._worths = worths

    def choose(self, number: int, now: float, admitted: Sequence[int]) -> Choice:  # noqa: ARG002 (the protocol's)
        """The best, with what is left where it did not execute."""
        if len(admitted) == 1:
            return Choice(admitted[0], admitted[0])
        available, proved = self._world.available[number], self._world.proved[number]
        worth = {each: self._worth(number, each) for each in admitted}
        best, best_worth = admitted[0], float("-inf")
        for each in admitted:
            second = max(worth[other] for other in admitted if other != each)
            total = worth[each] + (1 - available[each]) * proved[each] * second
            if total > best_worth:
                best, best_worth = each, total
        return Choice(best, best)

    def following(self, number: int, now: float, left: Sequence[int]) -> int:  # noqa: ARG002 (the protocol's)
        """The best of the rest."""
        return max(left, key=lambda each: self._worth(number, each))

    def _worth(self, number: int, provider: int) -> float:
        chance = self._world.available[number][provider] * self._world.approval[number][provider]
        if self._worths is None:
            return chance
        gain, attempt = self._worths[number][provider]
        return chance * gain - attempt


def worths(world: World, margin: float) -> list[tuple[tuple[float, float], ...]]:
    """By payment and provider: what an approval earns, and what trying costs; major units."""
    prices = world.parameters.prices
    return [
        tuple((margin * amount - price.fee(amount), price.attempt) for price in prices) for amount in world.amount
    ]


def hindsight(world: World, margin: float | None = None) -> list[int]:
    """Providers, the best over the whole week first: by expected approvals, with a margin by expected net value."""
    totals = [0.0] * len(world.parameters.providers)
    earned = None if margin is None else worths(world, margin)
    for number, (approval, available) in enumerate(zip(world.approval, world.available, strict=True)):
        for provider, chance in enumerate(approval):
            expected = chance * available[provider]
            if earned is not None:
                gain, attempt = earned[number][provider]
                expected = expected * gain - attempt
            totals[provider] += expected
    return sorted(range(len(totals)), key=lambda each: -totals[each])
