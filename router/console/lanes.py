"""What a timeline is made of: lanes of bars, bands and marks, and the windows that it can show. Pure.

Places are in buckets from the left, and shares of a lane's height from the top, so a page can draw them at any width.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """How far back a timeline goes, in which steps."""

    name: str
    span: dt.timedelta
    width: dt.timedelta

    @property
    def buckets(self) -> int:
        """How many steps it has."""
        return self.span // self.width

    def ends(self, now: dt.datetime) -> dt.datetime:
        """The end of the bucket that this moment is in."""
        micros = (now - _EPOCH) // dt.timedelta(microseconds=1)
        step = self.width // dt.timedelta(microseconds=1)
        return _EPOCH + dt.timedelta(microseconds=(micros // step + 1) * step)


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
WINDOWS: Mapping[str, Window] = {
    each.name: each
    for each in (
        Window("5m", dt.timedelta(minutes=5), dt.timedelta(seconds=3)),
        Window("15m", dt.timedelta(minutes=15), dt.timedelta(seconds=10)),
        Window("1h", dt.timedelta(hours=1), dt.timedelta(seconds=30)),
        Window("6h", dt.timedelta(hours=6), dt.timedelta(minutes=3)),
        Window("24h", dt.timedelta(hours=24), dt.timedelta(minutes=12)),
    )
}

KINDS = ("approved", "declined", "waiting", "failed", "unknown")
"""What a bar is made of, from below: what issuers said, customers at 3-D Secure, never executed, not known."""


@dataclass(frozen=True, slots=True)
class Bar:
    """Attempts of one kind in one bucket."""

    x: int
    y: float
    height: float
    kind: str
    title: str


@dataclass(frozen=True, slots=True)
class Band:
    """A state that lasted."""

    x: float
    width: float
    kind: str
    title: str


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened at one moment."""

    x: float
    kind: str
    title: str


@dataclass(frozen=True, slots=True)
class News:
    """One line of what happened."""

    at: dt.datetime
    kind: str
    text: str
    href: str | None = None


@dataclass(frozen=True, slots=True)
class Lane:
    """One provider."""

    provider: str
    bars: Sequence[Bar]
    approval: str
    """An SVG path; empty where there is nothing to draw."""
    dots: Sequence[tuple[float, float]]
    """Buckets with a rate that have no neighbour with one."""
    bands: Sequence[Band]
    attempts: int
    approved: int
    answered: int
    failed: int

    @property
    def approval_rate(self) -> float | None:
        """Of the issuers' answers."""
        return self.approved / self.answered if self.answered else None


@dataclass(frozen=True, slots=True)
class Timeline:
    """What the page draws."""

    window: Window
    since: dt.datetime
    until: dt.datetime
    highest: int
    """Attempts in the fullest bucket of any provider: the height of every lane."""
    lanes: Sequence[Lane]
    primary: Sequence[Band]
    marks: Sequence[Mark]
    news: Sequence[News]

    @property
    def ticks(self) -> Sequence[dt.datetime]:
        """Moments to write below, evenly from the start to the end."""
        return [self.since + (self.until - self.since) * part / 5 for part in range(6)]
