"""The last hours as lanes: volume and approval of each provider, its circuit, the primary, the flips. Pure."""

from __future__ import annotations

import datetime as dt
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from flags.changes import FlagChange
from router.console.lanes import KINDS, Band, Bar, Lane, Mark, News, Timeline, Window
from router.ledger.console import Count
from router.ledger.flips import Flip
from router.transitions import State, Transition

LEAST_ANSWERS = 3
"""Issuers' answers in a bucket, for it to have an approval rate: of one payment it would be nothing or all."""
NEWS_AT_MOST = 14
TURNS_ONLY_FROM = dt.timedelta(hours=6)
"""From such a window on, rounds of probes are not drawn: the 15 seconds between two are a fraction of a pixel."""


_KIND_OF = {
    "approved": "approved",
    "canceled": "approved",
    "declined": "declined",
    "requires_action": "waiting",
    "not_executed": "failed",
    "unknown": "unknown",
    None: "unknown",
}


def timeline(
    window: Window,
    now: dt.datetime,
    providers: Sequence[str],
    *,
    counts: Iterable[Count],
    moves: Mapping[str, Sequence[Transition]],
    changes: Sequence[FlagChange],
    primary: str,
    flips: Sequence[Flip],
) -> Timeline:
    """The window that ends with this moment. `moves`, `changes` (of the primary flag) and `flips`: newest first."""
    until = window.ends(now)
    scale = _Scale(until - window.span, until, min(now, until), window)
    by_place: dict[str, dict[int, dict[str, int]]] = {}
    for each in counts:
        place = (each.at - scale.since) // window.width
        if 0 <= place < window.buckets:
            kinds = by_place.setdefault(each.provider, {}).setdefault(place, dict.fromkeys(KINDS, 0))
            kinds[_KIND_OF.get(each.outcome, "unknown")] += each.count
    names = [*providers, *sorted(set(by_place) - set(providers))]
    highest = max((sum(kinds.values()) for of in by_place.values() for kinds in of.values()), default=0)
    lanes = [_lane(name, by_place.get(name, {}), moves.get(name, ()), highest, scale) for name in names]
    return Timeline(
        window=window,
        since=scale.since,
        until=until,
        highest=highest,
        lanes=lanes,
        primary=_primary(changes, primary, scale),
        marks=_marks(flips, scale),
        news=_news(moves, changes, flips, scale),
    )


@dataclass(frozen=True, slots=True)
class _Scale:
    since: dt.datetime
    until: dt.datetime
    now: dt.datetime
    window: Window

    def x(self, moment: dt.datetime) -> float:
        """Buckets from the left, within the window."""
        inside = min(max(moment, self.since), self.until)
        return round((inside - self.since) / self.window.width, 3)

    def has(self, moment: dt.datetime) -> bool:
        """Whether it is within the window."""
        return self.since <= moment <= self.until


def _lane(
    name: str, places: Mapping[int, Mapping[str, int]], moves: Sequence[Transition], highest: int, scale: _Scale
) -> Lane:
    bars: list[Bar] = []
    rates: dict[int, float] = {}
    totals = dict.fromkeys(KINDS, 0)
    for place, kinds in sorted(places.items()):
        at = scale.since + place * scale.window.width
        told = ", ".join(f"{number} {kind}" for kind, number in kinds.items() if number)
        top = 100.0
        for kind in KINDS:
            totals[kind] += kinds[kind]
            if kinds[kind]:
                height = kinds[kind] / highest * 100
                top -= height
                bars.append(Bar(place, round(top, 2), round(height, 2), kind, f"{at:%H:%M:%S} {name}: {told}"))
        answered = kinds["approved"] + kinds["declined"]
        if answered >= LEAST_ANSWERS:
            rates[place] = kinds["approved"] / answered
    path, dots = _path(rates)
    return Lane(
        provider=name,
        bars=bars,
        approval=path,
        dots=dots,
        bands=_circuit(name, moves, scale),
        attempts=sum(totals.values()),
        approved=totals["approved"],
        answered=totals["approved"] + totals["declined"],
        failed=totals["failed"] + totals["unknown"],
    )


def _path(rates: Mapping[int, float]) -> tuple[str, Sequence[tuple[float, float]]]:
    """A line through the buckets that have a rate, broken where one has none; and those that stand alone."""
    parts, dots = [], []
    for place, rate in rates.items():
        x, y = place + 0.5, round((1 - rate) * 100, 2)
        if place - 1 not in rates and place + 1 not in rates:
            dots.append((x, y))
        else:
            parts.append(f"{'L' if place - 1 in rates else 'M'}{x:g} {y:g}")
    return " ".join(parts), dots


def _circuit(name: str, moves: Sequence[Transition], scale: _Scale) -> Sequence[Band]:
    """A circuit's states, from the left; closed before its first move ever, and what is not known is left out."""
    found: list[Band] = []
    ends = scale.now
    for each, before in itertools.zip_longest(moves, moves[1:]):
        if ends <= scale.since:
            break
        if scale.window.span >= TURNS_ONLY_FROM and _is_repeated(each, before):
            continue
        kind = "suspect" if each.suspect else each.state.value
        stage = f" at {each.share:.0%}" if each.state is State.SLOW_START else ""
        found.append(_band(max(each.at, scale.since), ends, kind, f"{name}: {_state(kind)}{stage}", scale))
        ends = each.at
    if ends > scale.since and (not moves or moves[-1].version == 1):
        found.append(_band(scale.since, ends, "closed", f"{name}: closed", scale))
    return found[::-1]


def _state(kind: str) -> str:
    return kind.replace("_", " ")


def _band(since: dt.datetime, until: dt.datetime, kind: str, what: str, scale: _Scale) -> Band:
    # Never nothing: an outage of a second must be seen in a day. But a round of probes must not hide the outage.
    width = max(scale.x(until) - scale.x(since), 0.0)
    least = 0.0 if kind in ("closed", "half_open") else scale.window.buckets / 400
    title = f"{what} {since:%H:%M:%S} to {until:%H:%M:%S}"
    return Band(scale.x(since), round(max(width, least), 3), kind, title)


def _primary(changes: Sequence[FlagChange], primary: str, scale: _Scale) -> Sequence[Band]:
    """Whom the flag named, from the left; what is not known is left out."""
    found: list[Band] = []
    ends, value = scale.now, primary
    for each in changes:
        began = max(each.at, scale.since)
        if ends > began:
            found.append(_band(began, ends, value, f"primary {value}", scale))
        ends, before = each.at, served(each.old)
        if before is None or ends <= scale.since:
            return found[::-1]
        value = before
    if ends > scale.since:
        found.append(_band(scale.since, ends, value, f"primary {value}", scale))
    return found[::-1]


def served(told: Mapping[str, object] | None) -> str | None:
    """What a flag served to everyone, by the audit's words on it; None where that is not one text."""
    if told is None:
        return None
    value = told.get("serves") if told.get("on") else told.get("off")
    return value if isinstance(value, str) else None


def _marks(flips: Sequence[Flip], scale: _Scale) -> Sequence[Mark]:
    found = []
    for flip in flips:
        way = f"{flip.from_value} to {flip.to_value}"
        for at, kind, text in (
            (flip.created_at, "flip", f"override: {way}"),
            (flip.confirmed_at, "written", f"flag moved: {way}"),
            (flip.restored_at, "restored", f"flag restored to {flip.from_value}"),
        ):
            if at is not None and scale.has(at):
                found.append(Mark(scale.x(at), kind, f"{at:%H:%M:%S} {text}"))
    return found


def _news(
    moves: Mapping[str, Sequence[Transition]], changes: Sequence[FlagChange], flips: Sequence[Flip], scale: _Scale
) -> Sequence[News]:
    found: list[News] = []
    for name, each in moves.items():
        for move, before in itertools.zip_longest(each, each[1:]):
            if scale.has(move.at) and not _is_repeated(move, before):
                kind = "suspect" if move.suspect else move.state.value
                stage = f" at {move.share:.0%}" if move.state is State.SLOW_START else ""
                reason = move.reason.removeprefix("suspect: ")
                found.append(News(move.at, kind, f"{name} {_state(kind)}{stage}: {reason}"))
    for flip in flips:
        if scale.has(flip.created_at):
            text = f"flip decided, {flip.from_value} to {flip.to_value}: {flip.reason}"
            found.append(News(flip.created_at, "flip", text, flip.id))
        if flip.restored_at is not None and scale.has(flip.restored_at):
            found.append(News(flip.restored_at, "flip", f"flag restored to {flip.from_value}", flip.id))
    for change in changes:
        if change.old is not None and scale.has(change.at):
            found.append(News(change.at, "flag", f"primary flag now serves {served(change.new) or 'a rollout'}"))
    return sorted(found, key=lambda each: each.at, reverse=True)[:NEWS_AT_MOST]


def _is_repeated(move: Transition, before: Transition | None) -> bool:
    """Whether it is one more round of probes, or its failure: a long outage has hundreds, and the band shows them.

    Not a relapse in slow start, which counts as a failed round, too: there payments had begun to come back.
    """
    after_a_round = before is not None and before.state is State.HALF_OPEN
    return move.state is State.HALF_OPEN or (move.state is State.OPEN and after_a_round)


def percentile(ascending: Sequence[int], part: float) -> int | None:
    """The nearest-rank percentile, `part` from 0 to 1; None of nothing."""
    if not ascending:
        return None
    return ascending[min(len(ascending) - 1, max(0, math.ceil(part * len(ascending)) - 1))]
