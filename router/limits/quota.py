"""How many payments a minute a merchant may make: what it made before, some times over, within bounds. Pure.

The past is the busiest minute of each of its hours: the last 24, and, of the four weeks before, the same hour of the
week with its neighbours (a Monday's evening is like the Monday's before; a sale begins an hour early). The quota is
`growth` times the busiest of them all. So a merchant whose busiest minute grows less than `growth`-fold from one hour
to the next is never refused, whatever the day; one that had no past has the floor; and a flood, however long it goes
on, is let grow no faster, and never beyond the cap. The hour that is still going on does not count: it would let a
flood raise its own quota every minute.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from router.limits.rate import Pace

HOURS_BACK = 24
WEEKS_BACK = 4
WEEK_H = 168
BURST_S = 20.0
"""A third of the quota's minute at once: at threefold growth, a whole busiest minute of the past."""


@dataclass(frozen=True, slots=True)
class QuotaBounds:
    """Payments a minute, at least and at most, and how many times the past."""

    floor: int
    cap: int
    growth: float


def hours_that_count(hour: int) -> frozenset[int]:
    """The hours (since 1970) whose busiest minutes make the quota of this one."""
    recent = range(hour - HOURS_BACK, hour)
    weekly = (hour - week * WEEK_H + beside for week in range(1, WEEKS_BACK + 1) for beside in (-1, 0, 1))
    return frozenset(recent) | frozenset(weekly)


def quota(peaks: Iterable[int], bounds: QuotaBounds) -> int:
    """Payments a minute, from the busiest minutes of the hours that count."""
    return int(min(bounds.cap, max(bounds.floor, bounds.growth * max(peaks, default=0))))


def quotas(peaks: Mapping[str, Iterable[int]], bounds: QuotaBounds) -> dict[str, int]:
    """Those of all merchants whose quota is not the floor's."""
    found = {merchant: quota(each, bounds) for merchant, each in peaks.items()}
    return {merchant: each for merchant, each in found.items() if each != bounds.floor}


def pace_of(per_minute: float) -> Pace:
    """As a pace: steady over the minute, with a burst."""
    return Pace(per_minute / 60, max(1.0, per_minute / 60 * BURST_S))
