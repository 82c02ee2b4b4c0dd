"""The router's own way, by its own code: `router.scores` learn, `router.policy` decides by `router.value`."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from flags.contract import RoutingFlags, RoutingTuning
from router import policy
from router.policy import Draws, Offer
from router.routing_simulation.play import Choice, Policy
from router.routing_simulation.world import World
from router.scores import Scores
from router.segments import Segment, segment
from router.transitions import State
from router.value import Terms


class OwnPolicy(Policy):
    """`best-value`, with the first provider as the primary."""

    def __init__(self, world: World, draws: Random, *, margin: float, by_value: bool = True) -> None:
        """`by_value` False: it is told that every provider costs nothing, so that only approvals count."""
        self._world = world
        self._draw = draws.random
        self._names = world.parameters.providers
        self._numbers = {name: number for number, name in enumerate(self._names)}
        self._flags = RoutingFlags(primary=self._names[0], strategy="best-value", tuning=RoutingTuning(margin=margin))
        self._prices = world.parameters.prices if by_value else None
        self._scores = Scores(self._names)
        self._segments = segments_of(world)
        self._incumbents: list[str | None] = [None] * len(world.kinds)
        self._order: Sequence[str] = ()

    def choose(self, number: int, now: float, admitted: Sequence[int]) -> Choice:
        """As the planner does: scores and fees of every provider, one decision, whose choice the next one knows."""
        kind, amount = self._world.kind[number], self._world.amount[number]
        offers = []
        for provider, (name, score) in enumerate(self._scores.read(self._segments[kind], now).items()):
            fee = attempt = 0.0
            if self._prices is not None:
                price = self._prices[provider]
                fee, attempt = price.fee(amount), price.attempt
            terms = Terms(score.approval, score.availability, fee, attempt).rounded()
            offers.append(Offer(name, terms, State.CLOSED if provider in admitted else State.OPEN))
        decision = policy.decide(
            offers,
            self._flags,
            amount,
            draws=Draws(0.0, self._draw(), self._draw()),
            incumbent=self._incumbents[kind],
        )
        self._order = decision.order
        choice = decision.choice or self._order[0]
        self._incumbents[kind] = choice
        return Choice(self._numbers[self._order[0]], self._numbers[choice])

    def following(self, number: int, now: float, left: Sequence[int]) -> int:  # noqa: ARG002 (the protocol's)
        """The next in the decision's order."""
        return next(self._numbers[name] for name in self._order if self._numbers[name] in left)

    def called(self, number: int, provider: int, now: float, *, failed: bool) -> None:  # noqa: ARG002 (the protocol's)
        """Availability."""
        self._scores.hear_calls(self._names[provider], 1, int(failed), now)

    def answered(self, number: int, provider: int, now: float, *, approved: bool) -> None:
        """Approval."""
        self._scores.hear_answer(self._names[provider], self._segments[self._world.kind[number]], approved, now)


def segments_of(world: World) -> list[Segment]:
    """The router's own segment for each of the world's."""
    found: dict[int, Segment] = {}
    for kind, amount in zip(world.kind, world.amount, strict=True):
        if kind not in found:
            told = world.kinds[kind]
            found[kind] = segment(round(amount * 100), told.brand, told.country, "card")
    unseen = Segment("", "", "", "")
    return [found.get(kind, unseen) for kind in range(len(world.kinds))]
