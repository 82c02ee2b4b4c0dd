"""How well a circuit recovers: figures from its transitions. Pure.

What people in this field ask for: over 90% of half-open rounds succeed, closed within 120 s of the provider's
recovery, fewer than 5% open again within five minutes.
"""

from __future__ import annotations

import datetime as dt
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from router.transitions import State

FALSE_WITHIN = dt.timedelta(minutes=5)
"""A circuit that opens again so soon after it closed had not recovered."""


class Moved(Protocol):
    """What the figures are made of: `Transition` is one."""

    @property
    def state(self) -> State: ...
    @property
    def at(self) -> dt.datetime: ...
    @property
    def is_ordered(self) -> bool: ...


class Move(NamedTuple):
    """A transition, as far as the figures go: there are many."""

    state: State
    at: dt.datetime
    is_ordered: bool


@dataclass(frozen=True, slots=True)
class Recoveries:
    """One circuit's recoveries, over the transitions that were looked at."""

    rounds: int
    """Half-open rounds that were decided; one that an operator cut short is none."""
    succeeded: int
    """Rounds after which payments were let through again: the recoveries."""
    false: int
    """Of those, the ones that opened again: from slow start, or within five minutes of closing."""
    to_closed_s: float | None
    """Median seconds from the last sign of failure (the last opening before the round that succeeded) to CLOSED;
    None where no recovery got there. The provider itself was well for at most so long."""

    @property
    def success_rate(self) -> float | None:
        """Share of rounds that succeeded; None before the first."""
        return self.succeeded / self.rounds if self.rounds else None

    @property
    def false_rate(self) -> float | None:
        """Share of recoveries that were none; None before the first."""
        return self.false / self.succeeded if self.succeeded else None


def recoveries(transitions: Iterable[Moved]) -> Recoveries:
    """The figures of one circuit's transitions, oldest first."""
    rounds = succeeded = false = 0
    took_s: list[float] = []
    before: Moved | None = None
    failed_at: dt.datetime | None = None
    # Of the recovery that is under way, or may still turn out false.
    recovering = False
    closed_at: dt.datetime | None = None
    for each in transitions:
        if each.is_ordered:
            # An operator took over: what comes then says nothing of the recovery, nor of how long it took. A release
            # and the round of probes after it are the end of that, and no recovery of their own.
            recovering, before, failed_at = False, None, None
            continue
        if before is not None and before.state is State.HALF_OPEN:
            good = each.state in (State.SLOW_START, State.CLOSED)
            rounds += good or each.state is State.OPEN
            succeeded += good
            if good:
                recovering, closed_at = True, None
        if each.state is State.OPEN:
            if recovering and (closed_at is None or each.at - closed_at < FALSE_WITHIN):
                false += 1
            recovering, failed_at = False, each.at
        elif each.state is State.CLOSED and recovering and closed_at is None:
            closed_at = each.at
            if failed_at is not None:
                took_s.append((each.at - failed_at).total_seconds())
        elif each.state is State.HALF_OPEN:
            recovering = False
        before = each
    return Recoveries(rounds, succeeded, false, statistics.median(took_s) if took_s else None)
