"""One policy, one week: send every payment, tell the policy what came of it when it would be known, and count. Pure.

A switch is counted when the leading choice for a segment is not that of the same segment's payment before: a lead
that an open circuit forces counts, and one that was explored (or hedged) does not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from router.routing_simulation.circuits import Circuits
from router.routing_simulation.parameters import Price
from router.routing_simulation.world import APPROVED, DECLINED, LOST, World


class Choice(NamedTuple):
    """Providers by number."""

    first: int
    """Who is asked first."""
    leading: int
    """Who would be, if nothing were explored."""


class Policy:
    """Chooses providers; told what came of it. Providers and payments are numbers (`World`)."""

    guarded = True
    """Whether circuits keep calls away from a broken provider, and a failed call moves on to the next."""

    def choose(self, number: int, now: float, admitted: Sequence[int]) -> Choice:
        """Whom to ask first; `admitted` holds at least one provider."""
        raise NotImplementedError

    def following(self, number: int, now: float, left: Sequence[int]) -> int:
        """Whom to ask next, after the ones before did not execute; `left` holds at least one."""
        raise NotImplementedError

    def called(self, number: int, provider: int, now: float, *, failed: bool) -> None:
        """A call ended, by the provider's fault or well."""

    def answered(self, number: int, provider: int, now: float, *, approved: bool) -> None:
        """The issuer's answer is known."""


@dataclass(frozen=True, slots=True)
class Played:
    """What came of one week under one policy."""

    payments: int
    approved: int
    net_value: float
    """Margin on what was approved, less fees; major units."""
    switches: int
    calls: int
    lost: int
    """Payments of which a failed call may have charged."""
    turned_away: int
    """Payments that found every circuit open, or every provider failing."""
    opened: int
    """How often a circuit opened."""

    @property
    def approval(self) -> float:
        """Per cent."""
        return 100 * self.approved / self.payments

    @property
    def switches_per_1000(self) -> float:
        """Per thousand payments."""
        return 1000 * self.switches / self.payments

    @property
    def value_per_1000(self) -> float:
        """Net value of a thousand payments, in major units."""
        return 1000 * self.net_value / self.payments


class _Till:
    """Counts money."""

    def __init__(self, world: World, margin: float) -> None:
        self._prices: Sequence[Price] = world.parameters.prices
        self._amount = world.amount
        self._margin = margin
        self.net = 0.0

    def attempt(self, provider: int) -> None:
        self.net -= self._prices[provider].attempt

    def approve(self, number: int, provider: int) -> None:
        amount = self._amount[number]
        self.net += self._margin * amount - self._prices[provider].fee(amount)


def play(world: World, policy: Policy, *, margin: float) -> Played:
    """Play the week; `margin` is the merchant's, as a share of the amount."""
    circuits, till = Circuits(world.probes), _Till(world, margin)
    everyone = tuple(range(len(world.parameters.providers)))
    asked = [-1] * len(world)
    """By payment, who got an answer from its issuer."""
    waiting: deque[tuple[float, int, int]] = deque()
    """Calls that failed slowly: when it is known, payment, provider. All take equally long, so they are in order."""
    leading = [-1] * len(world.kinds)
    answers, answer_at, known = world.answers_in_order, world.answer_at, 0
    approved = switches = calls = lost = turned_away = 0

    for number, now in enumerate(world.at):
        while known < len(answers) and answer_at[answers[known]] <= now:
            which = answers[known]
            known += 1
            provider = asked[which]
            if provider >= 0:
                was_approved = world.result[which][provider] == APPROVED
                policy.answered(which, provider, answer_at[which], approved=was_approved)
        while waiting and waiting[0][0] <= now:
            at, which, provider = waiting.popleft()
            policy.called(which, provider, at, failed=True)
            circuits.count(provider, True, at)

        left = circuits.admitted(now) if policy.guarded else everyone
        if not left:
            turned_away += 1
            continue
        provider, leads = policy.choose(number, now, left)
        kind = world.kind[number]
        if leads != leading[kind]:
            switches += leading[kind] >= 0
            leading[kind] = leads
        while True:
            result = world.result[number][provider]
            calls += 1
            till.attempt(provider)
            if result <= DECLINED:
                asked[number] = provider
                policy.called(number, provider, now, failed=False)
                circuits.count(provider, False, now)
                if result == APPROVED:
                    approved += 1
                    till.approve(number, provider)
                break
            later = world.failure_known_s[number][provider]
            if later:
                waiting.append((now + later, number, provider))
            else:
                policy.called(number, provider, now, failed=True)
                circuits.count(provider, True, now)
            if result == LOST:
                lost += 1
                break
            left = tuple(each for each in left if each != provider)
            if not left or not policy.guarded:
                turned_away += 1
                break
            provider = policy.following(number, now, left)
    return Played(len(world), approved, till.net, switches, calls, lost, turned_away, circuits.opened)
