"""One policy, one week: send every payment, tell the policy what came of it when it would be known, and count. Pure.

A switch is counted when the leading choice for a segment is not that of the same segment's payment before: a lead
that an open circuit forces counts, and one that was explored (or hedged) does not. A way that does not tell amounts
apart moves the four segments of a brand in a country together, and each of them counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from router.routing_simulation.circuits import Circuits
from router.routing_simulation.parameters import Price
from router.routing_simulation.world import APPROVED, DECLINED, LOST, NOT_EXECUTED, World


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


def play(world: World, policy: Policy, *, margin: float) -> Played:
    """Play the week; `margin` is the merchant's, as a share of the amount."""
    till, calls = _Till(world, margin), _Calls(world, policy)
    everyone = tuple(range(len(world.parameters.providers)))
    leading = [-1] * len(world.kinds)
    switches = lost = turned_away = 0

    for number, now in enumerate(world.at):
        calls.catch_up(now)
        left = calls.circuits.admitted(now) if policy.guarded else everyone
        if not left:
            turned_away += 1
            continue
        provider, leads = policy.choose(number, now, left)
        kind = world.kind[number]
        if leads != leading[kind]:
            switches += leading[kind] >= 0
            leading[kind] = leads
        while True:
            till.attempt(provider)
            result = calls.send(number, provider, now)
            if result == APPROVED:
                till.approve(number, provider)
            if result != NOT_EXECUTED:
                lost += result == LOST
                break
            left = tuple(each for each in left if each != provider)
            if not left or not policy.guarded:
                turned_away += 1
                break
            provider = policy.following(number, now, left)
    return Played(len(world), till.approved, till.net, switches, calls.sent, lost, turned_away, calls.circuits.opened)


class _Till:
    """Counts money."""

    def __init__(self, world: World, margin: float) -> None:
        self._prices: Sequence[Price] = world.parameters.prices
        self._amount = world.amount
        self._margin = margin
        self.net = 0.0
        self.approved = 0

    def attempt(self, provider: int) -> None:
        self.net -= self._prices[provider].attempt

    def approve(self, number: int, provider: int) -> None:
        amount = self._amount[number]
        self.net += self._margin * amount - self._prices[provider].fee(amount)
        self.approved += 1


class _Calls:
    """Calls to providers, and when what came of them is told to the policy and counted by the circuits."""

    def __init__(self, world: World, policy: Policy) -> None:
        self._world = world
        self._policy = policy
        self.circuits = Circuits(world.probes)
        self.sent = 0
        self._asked = [-1] * len(world)
        """By payment, who got an answer from its issuer."""
        self._known = 0
        """Of the answers in their order, so many have been told."""
        self._waiting: deque[tuple[float, int, int]] = deque()
        """Calls that failed slowly: when it is known, payment, provider. All take as long, so they are in order."""

    def catch_up(self, now: float) -> None:
        """Tell everything that is known by now."""
        world, waiting = self._world, self._waiting
        order, answer_at = world.answers_in_order, world.answer_at
        while self._known < len(order) and answer_at[order[self._known]] <= now:
            which = order[self._known]
            self._known += 1
            provider = self._asked[which]
            if provider >= 0:
                was_approved = world.result[which][provider] == APPROVED
                self._policy.answered(which, provider, answer_at[which], approved=was_approved)
        while waiting and waiting[0][0] <= now:
            at, which, provider = waiting.popleft()
            self._end(which, provider, at, failed=True)

    def send(self, number: int, provider: int, now: float) -> int:
        """Call the provider; answers what comes of it, which the policy may not know yet."""
        self.sent += 1
        result = self._world.result[number][provider]
        if result <= DECLINED:
            self._asked[number] = provider
            self._end(number, provider, now, failed=False)
        elif self._world.failure_known_s[number][provider]:
            self._waiting.append((now + self._world.failure_known_s[number][provider], number, provider))
        else:
            self._end(number, provider, now, failed=True)
        return result

    def _end(self, number: int, provider: int, at: float, *, failed: bool) -> None:
        self._policy.called(number, provider, at, failed=failed)
        self.circuits.count(provider, failed, at)
