"""Which providers may take a payment, and in which order. Pure: facts in, decision out.

A provider is left out for good (`never`: it cannot take this payment) or for now (`not_now`: disabled or its
circuit is open). Of the rest one leads, and the others follow by value:

- `primary-first`: the flag's primary leads while it is eligible;
- `best-value`: the most valuable leads, but the present choice (at first the primary) is left only for an advantage
  worth the tuning's percentage points, and the primary taken back as soon as nothing is ahead of it.

A small share of the payments may be drawn to explore (any eligible provider leads, each as likely) or to be held out
(the primary leads, whatever the strategy). One that is recovering or suspect keeps its place for a share of the
payments only; for the others it stands behind the rest, as their last resort, so the only eligible provider is
never withheld. Where none keeps its place the one with the greatest share is the last resort of all. The
probability with which each provider would have led, over all these draws, is its propensity.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from flags.contract import RoutingFlags
from router import value
from router.transitions import ADMITTING, State
from router.value import Stakes, Terms

EXPLORED = 0.02
"""Share of payments that explore under `best-value`, where the tuning says nothing (facts/routing.md)."""


class Standing(enum.Enum):
    """Whether a provider may be tried."""

    ELIGIBLE = "eligible"
    NOT_NOW = "not_now"
    NEVER = "never"


_ELIGIBLE = Standing.ELIGIBLE
"""Looked up for every candidate."""


class Lane(enum.Enum):
    """By which rule this payment's first choice was made."""

    STRATEGY = "strategy"
    EXPLORE = "explore"
    HOLDOUT = "holdout"


_BY_STRATEGY = Lane.STRATEGY


class Offer(NamedTuple):
    """What is known of one provider for one payment, before deciding."""

    provider: str
    terms: Terms
    circuit: State = State.CLOSED
    obstacle: str | None = None
    """Why it can never take this payment."""
    share: float = 1.0
    """Of the payments for which it keeps its place, 0 to 1; less than all while it recovers or is suspect."""
    held_back: str | None = None
    """Why the share is less than all."""
    busy: bool = False
    """As many calls as it may have are under way to it already."""
    withheld: str | None = None
    """Why it may not be asked now, whatever its circuit says."""


class Draws(NamedTuple):
    """One payment's random numbers, each in [0, 1) and drawn evenly."""

    share: float = 0.0
    """Whether those that recover or are suspect keep their place."""
    lane: float = 1.0
    """Whether it is held out or explores; 1 never does."""
    pick: float = 0.0
    """Which provider is explored."""


def drawn(flags: RoutingFlags, draw: Callable[[], float]) -> Draws:
    """One payment's numbers; none is drawn for what these flags never do."""
    return Draws(draw()) if _lanes(flags) == _NO_LANES else Draws(draw(), draw(), draw())


class Candidate(NamedTuple):
    """One provider in a decision, chosen or not."""

    offer: Offer
    standing: Standing
    worth: float
    """Its value, major units."""
    obstacles: tuple[str, ...] = ()
    """Why it is not eligible."""
    propensity: float = 0.0
    """The probability with which this candidate was put first."""

    @property
    def provider(self) -> str:
        """Its name."""
        return self.offer.provider


_new = tuple.__new__
"""A third of what a call of a named tuple takes, and every payment makes many of them."""


class Decision(NamedTuple):
    """Candidates in the order in which they are tried; those not eligible stand last.

    A named tuple, for a frozen dataclass of as many fields takes a microsecond to make.
    """

    strategy: str
    primary: str
    candidates: Sequence[Candidate]
    at_stake: Stakes
    lane: Lane = _BY_STRATEGY
    choice: str | None = None
    """Whom the strategy puts first, before any draw; the next of its kind leaves it only for an advantage."""
    incumbent: str | None = None
    """The choice before this one."""
    advantage_pp: float = 0.0
    overridden: str | None = None
    """Why the primary is not the flag's own."""

    @property
    def order(self) -> Sequence[str]:
        """Names of the eligible providers, first choice first."""
        return [each.offer.provider for each in self.candidates if each.standing is Standing.ELIGIBLE]

    @property
    def possible(self) -> bool:
        """Whether any provider could take this payment, now or later."""
        return any(each.standing is not Standing.NEVER for each in self.candidates)

    def reasons(self, candidate: Candidate) -> list[str]:
        """Why it stands where it stands, the loser's as plain as the winner's; the line of its value last."""
        name, terms = candidate.offer.provider, candidate.offer.terms
        notes = [self.overridden or "primary"] if name == self.primary else []
        notes += candidate.obstacles
        if candidate.standing is Standing.ELIGIBLE:
            notes += self._place(candidate)
            if candidate.offer.held_back is not None:
                notes.append(candidate.offer.held_back)
        return [*notes, value.line(name, terms, self.at_stake)]

    def _place(self, candidate: Candidate) -> list[str]:
        """In words, what the strategy made of its value."""
        name, first = candidate.offer.provider, self.candidates[0]
        notes = []
        if candidate is first and self.lane is Lane.EXPLORE:
            notes.append("explored: one of the eligible, each as likely")
        if candidate is first and self.lane is Lane.HOLDOUT:
            notes.append("held out: the primary leads")
        if self.strategy == "best-value" and name == self.choice:
            best = min((each for each in self.candidates if each.standing is Standing.ELIGIBLE), key=_by_worth)
            if candidate.worth >= best.worth:
                notes.append("highest value")
            else:
                needed = value.worth_of(self.advantage_pp, candidate.offer.terms, self.at_stake)
                lead = best.worth - candidate.worth
                notes.append(
                    f"kept: {best.offer.provider} is ahead by {lead:.4f}, a switch takes {needed:.4f} "
                    f"({self.advantage_pp:g} pp)"
                )
        elif name != self.choice and len(self.order) > 1:
            notes.append(self._behind(candidate))
        return notes

    def _behind(self, candidate: Candidate) -> str:
        leader = next((each for each in self.candidates if each.offer.provider == self.choice), None)
        if leader is None:
            return "by value"
        difference = candidate.worth - leader.worth
        how = f"{abs(difference):.4f} {'ahead of' if difference > 0 else 'behind'} {leader.offer.provider}"
        if difference > 0 and self.strategy == "primary-first":
            return f"{how}, which leads as the primary"
        return how

    def to_json(self) -> dict[str, Any]:
        """As the HTTP contract shows it, and as a replay of another policy needs it."""
        return {
            "strategy": self.strategy,
            "primary": self.primary,
            "lane": self.lane.value,
            "choice": self.choice,
            "incumbent": self.incumbent,
            "margin": self.at_stake.margin,
            "amount": self.at_stake.amount,
            "candidates": [
                {
                    "provider": each.offer.provider,
                    "eligible": each.standing is Standing.ELIGIBLE,
                    **value.to_json(each.offer.terms, self.at_stake),
                    "share": each.offer.share,
                    "propensity": round(each.propensity, 6),
                    "reasons": self.reasons(each),
                }
                for each in self.candidates
            ],
        }


def decide(
    offers: Sequence[Offer],
    flags: RoutingFlags,
    amount: float,
    *,
    draws: Draws = Draws(),  # noqa: B008 (frozen)
    incumbent: str | None = None,
    overridden: str | None = None,
) -> Decision:
    """Order the providers for one payment of `amount` (major units). The offers' terms are rounded.

    `incumbent`: the choice of the last decision of this kind. `overridden`: why the primary is not the flag's own.
    """
    tuning = flags.tuning
    at_stake = value.stakes(tuning.margin, amount, [offer.terms for offer in offers])
    # The name breaks ties, so that equal values are ordered the same in every process.
    candidates = sorted([_judge(offer, flags, at_stake) for offer in offers], key=_by_worth)
    eligible = [each for each in candidates if each.standing is _ELIGIBLE]
    rest = [each for each in candidates if each.standing is not _ELIGIBLE]
    led_by = {each.offer.provider: each for each in eligible}
    kept_out = led_by.get(flags.primary, eligible[0]) if eligible else None
    choice = kept_out if flags.strategy == "primary-first" else _choice(led_by, eligible, flags, incumbent, at_stake)
    lanes = _lanes(flags)
    lane = _BY_STRATEGY if draws.lane >= lanes.holdout + lanes.explore else lanes.of(draws.lane)
    leads = kept_out if lane is Lane.HOLDOUT else choice
    order = _ordered(eligible, leads, draws.share)
    if lane is Lane.EXPLORE and order:
        open_to = _holding(eligible, draws.share)
        picked = open_to[min(int(draws.pick * len(open_to)), len(open_to) - 1)]
        order = [picked, *(each for each in order if each is not picked)]
    chances = _chances(eligible, choice, kept_out, lanes)
    placed = [
        _new(Candidate, (offer, standing, worth, obstacles, chances.get(offer.provider, 0.0)))
        for offer, standing, worth, obstacles, _ in order
    ]
    return Decision(
        flags.strategy,
        flags.primary,
        placed + rest,
        at_stake,
        lane,
        choice.offer.provider if choice is not None else None,
        incumbent,
        tuning.switch_advantage_pp,
        overridden,
    )


class _Lanes(NamedTuple):
    """The shares of payments that are held out, and that explore."""

    holdout: float
    explore: float

    def of(self, draw: float) -> Lane:
        if draw < self.holdout:
            return Lane.HOLDOUT
        return Lane.EXPLORE if draw < self.holdout + self.explore else Lane.STRATEGY


_NO_LANES = _Lanes(0.0, 0.0)


def _lanes(flags: RoutingFlags) -> _Lanes:
    explore = flags.tuning.explore
    if explore is None:
        explore = EXPLORED if flags.strategy == "best-value" else 0.0
    holdout = flags.tuning.holdout
    return _new(_Lanes, (holdout, (1 - holdout) * explore))


def _by_worth(candidate: Candidate) -> tuple[float, str]:
    return -candidate[2], candidate[0][0]  # worth and name; by place, for it is quick


def _choice(
    led_by: Mapping[str, Candidate],
    eligible: Sequence[Candidate],
    flags: RoutingFlags,
    incumbent: str | None,
    at_stake: Stakes,
) -> Candidate | None:
    """Whom `best-value` puts first: the present choice, until another is ahead by the advantage."""
    if not eligible:
        return None
    best, primary = eligible[0], led_by.get(flags.primary)
    present = led_by.get(incumbent or flags.primary) or primary
    points = flags.tuning.switch_advantage_pp
    if present is None or _is_left(present, best, points, at_stake):
        return best
    # Left once, the primary comes back when nothing is ahead of it: halfway, or the two would take turns. Not where
    # it would be left again at once: a point of approvals is not worth the same at both.
    if primary is None or primary is present or primary.worth < present.worth:
        return present
    return present if _is_left(primary, best, points, at_stake) else primary


def _is_left(present: Candidate, best: Candidate, points: float, at_stake: Stakes) -> bool:
    """Whether the best is ahead by the advantage; of two alike neither is ahead, however small the advantage."""
    lead = best.worth - present.worth
    return lead > 0 and lead >= value.worth_of(points, present.offer.terms, at_stake)


def _holding(eligible: Sequence[Candidate], draw: float) -> Sequence[Candidate]:
    """Those that keep their place in this draw; where none does, those with the greatest share."""
    holding = [each for each in eligible if draw < each.offer.share]
    if holding:
        return holding
    most = max(each.offer.share for each in eligible)
    return [each for each in eligible if each.offer.share == most]


def _ordered(eligible: Sequence[Candidate], leads: Candidate | None, draw: float) -> Sequence[Candidate]:
    """The leader, then by value; those that do not keep their place in this draw behind the others.

    Of those the one with the greatest share first: one that recovers must not be flooded while the other is suspect.
    """
    if leads is None:
        return eligible
    led = [leads, *[each for each in eligible if each is not leads]]
    held_back = [each for each in led if draw >= each.offer.share]
    if not held_back:
        return led
    held_back.sort(key=lambda each: -each.offer.share)
    return [each for each in led if draw < each.offer.share] + held_back


def _chances(
    eligible: Sequence[Candidate], choice: Candidate | None, kept_out: Candidate | None, lanes: _Lanes
) -> Mapping[str, float]:
    """With which probability each provider is the first, over all draws: the order changes only at a share."""
    if choice is None or kept_out is None:
        return {}
    chances: dict[str, float] = {}
    if min([each.offer.share for each in eligible]) >= 1:
        # Nearly always; and the same as below, quicker.
        if lanes == _NO_LANES:
            return {choice.offer.provider: 1.0}
        explored = lanes.explore / len(eligible)
        chances = {each.offer.provider: explored for each in eligible}
        chances[choice.offer.provider] += 1 - lanes.holdout - lanes.explore
        chances[kept_out.offer.provider] += lanes.holdout
        return chances
    bounds = sorted({0.0, 1.0, *[min(1.0, max(0.0, each.offer.share)) for each in eligible]})
    for low, high in itertools.pairwise(bounds):
        holding = _holding(eligible, low)
        led = _ordered(eligible, choice, low)[0]
        explored = (high - low) * lanes.explore / len(holding)
        for each in holding:
            chances[each.offer.provider] = chances.get(each.offer.provider, 0.0) + explored
        chances[led.offer.provider] = chances.get(led.offer.provider, 0.0) + (high - low) * (
            1 - lanes.holdout - lanes.explore
        )
        if lanes.holdout:
            first = _ordered(eligible, kept_out, low)[0].offer.provider
            chances[first] = chances.get(first, 0.0) + (high - low) * lanes.holdout
    return chances


def _judge(offer: Offer, flags: RoutingFlags, at_stake: Stakes) -> Candidate:
    provider, terms, circuit, obstacle, _, _, busy, withheld = offer
    worth = value.value(terms, at_stake)
    enabled = flags.is_enabled(provider)
    if obstacle is None and enabled and not busy and withheld is None and circuit in ADMITTING:
        return _new(Candidate, (offer, _ELIGIBLE, worth, (), 0.0))
    obstacles = []
    if not enabled:
        obstacles.append("disabled by flag")
    if circuit not in ADMITTING:
        obstacles.append(f"circuit {circuit.value}")
    elif busy:
        obstacles.append("too many calls under way")
    if withheld is not None:
        obstacles.append(withheld)
    if obstacle is not None:
        obstacles.append(obstacle)
    return Candidate(offer, Standing.NOT_NOW if obstacle is None else Standing.NEVER, worth, tuple(obstacles))


def refusals(decision: Decision) -> Mapping[str, str]:
    """Each provider's reason for not being able to take the payment, for a problem document."""
    return {each.offer.provider: "; ".join(each.obstacles) for each in decision.candidates}
