"""Which sums answer a query: cells for whole hours and days of UTC, facts for what is left over. Pure.

Hours and days are the time zone's, cells are UTC's. Where a cell does not lie in one row, or in the period, with all
of it, it is counted with the larger part, and the facts of the smaller one, which are kept by the minute, are moved
to where they belong or taken away: sums of integers, so it is as exact. A day of Berlin by country is so a day of UTC
and the facts of two hours, not of twenty-four. All of a period that has one offset from UTC is one stretch, so the
day on which the clocks change has its 23 or 25 hours.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from zoneinfo import ZoneInfo

from router.report_measures import DAY_MINUTES, HOUR_MINUTES, Level, Piece
from router.reports.query import Query

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
MINUTE = dt.timedelta(minutes=1)
CHUNK_DAYS = {"hour": 7, "day": 62}
"""Of a report by time, so many days' rows are in memory together: by hour some ten thousand, or megabytes."""
WIDE_CHUNK_DAYS = {"hour": 1, "day": 7}
FACTS_AT_ONCE = DAY_MINUTES
"""Minutes of facts that one query adds up: it ends long before the ledger's limit for a query."""


_LEVELS = ((Level.DAY, DAY_MINUTES), (Level.HOUR, HOUR_MINUTES))
_WIDE_LEVELS = ((Level.WIDE_DAY, DAY_MINUTES),)
"""Cells by size, the larger first."""


class Label(NamedTuple):
    """A row's day or hour: what it is sorted by, and its text."""

    order: int
    text: str


def minute_of(moment: dt.datetime) -> int:
    """Minutes since 1970 of an aware moment."""
    return (moment - EPOCH) // MINUTE


def chunks(query: Query) -> Iterator[Sequence[Piece]]:
    """The period in parts that share no row, in order; each the pieces that it is made of."""
    begin, end = minute_of(query.start), minute_of(query.end)
    if query.time is None:
        yield list(_pieces(query, begin, end))
        return
    days = (WIDE_CHUNK_DAYS if query.is_wide else CHUNK_DAYS)[query.time]
    while begin < end:
        day = (EPOCH + begin * MINUTE).astimezone(query.zone).date()
        until = min(end, midnight(query.zone, day + dt.timedelta(days=days)))
        yield list(_pieces(query, begin, until))
        begin = until


def midnight(zone: ZoneInfo, day: dt.date) -> int:
    """The minute in which a day begins there: its first that there is, where the clocks skip midnight."""
    return minute_of(dt.datetime.combine(day, dt.time(), zone).astimezone(dt.UTC))


def labels(query: Query, piece: Piece, bucket: int) -> tuple[Label, ...]:
    """The texts of a row's time groups. `bucket`: the piece's buckets since 1970, on the zone's clocks."""
    return _labels(tuple(query.group_by), piece.bucket or 1, piece.offset, bucket)


@functools.lru_cache(maxsize=4096)
def _labels(group_by: Sequence[str], size: int, offset: int, bucket: int) -> tuple[Label, ...]:
    local = bucket * size
    found = []
    if "day" in group_by:
        number = local // DAY_MINUTES
        found.append(Label(number, (EPOCH + number * DAY_MINUTES * MINUTE).date().isoformat()))
    if "hour" in group_by:
        zone = dt.timezone(offset * MINUTE)
        moment = EPOCH + (local - offset) * MINUTE
        found.append(Label(local - offset, moment.astimezone(zone).isoformat(timespec="minutes")))
    return tuple(found)


def _pieces(query: Query, begin: int, end: int) -> Iterator[Piece]:
    bucket = {"hour": HOUR_MINUTES, "day": DAY_MINUTES, None: None}[query.time]
    if bucket is None:
        yield from _split(query, begin, end, 0, None)
        return
    for since, until, offset in stretches(query.zone, begin, end):
        yield from _split(query, since, until, offset, bucket)


def _split(query: Query, begin: int, end: int, offset: int, bucket: int | None) -> Iterator[Piece]:
    """Whole cells in the middle, the largest that fit into a row; what is finer at both ends."""
    *larger, (level, size) = _WIDE_LEVELS if query.is_wide else _LEVELS
    fitting = [each for each in larger if bucket is None or (each[1] <= bucket and not offset % each[1])]
    # Where half of a row would be moved, its facts are read at once.
    if bucket is None or (size <= bucket and 2 * abs(_astray(offset, size)) < bucket):
        fitting.append((level, size))
    yield from _filled(fitting, Piece(None, begin, end, offset, bucket))


def _astray(offset: int, size: int) -> int:
    """Minutes from where the zone's hours and days begin to the nearest beginning of a cell; below 0: it is later."""
    return offset - _nearest(offset, size)


def _nearest(minute: int, size: int) -> int:
    return (minute + size // 2) // size * size


def _filled(levels: Sequence[tuple[Level, int]], piece: Piece) -> Iterator[Piece]:
    if not levels:
        yield from _facts(piece)
        return
    (level, size), *finer = levels
    if not finer:
        yield from _rounded(level, size, piece)
        return
    first, last = -(-piece.begin // size) * size, piece.end // size * size
    if first >= last:
        yield from _filled(finer, piece)
        return
    yield from _filled(finer, piece._replace(end=first))
    yield piece._replace(level=level, begin=first, end=last)
    yield from _filled(finer, piece._replace(begin=last))


def _rounded(level: Level, size: int, piece: Piece) -> Iterator[Piece]:
    """The cells that are nearest to the piece, and the facts in which they differ from it."""
    first, last = _nearest(piece.begin, size), _nearest(piece.end, size)
    if first >= last:
        yield from _facts(piece)
        return
    cells = piece._replace(level=level, begin=first, end=last, nudge=-_astray(piece.offset, size))
    yield from _facts(piece._replace(end=first))
    yield from _facts(cells._replace(level=None, end=piece.begin, adds=((0, -1),)))
    yield cells
    yield from _moved(piece, cells, size)
    yield from _facts(cells._replace(level=None, begin=piece.end, adds=((0, -1),)))
    yield from _facts(piece._replace(begin=last))


def _moved(piece: Piece, cells: Piece, size: int) -> Iterator[Piece]:
    """The facts that cells have in the row before their own, or in the one after."""
    astray = _astray(piece.offset, size)
    if piece.bucket is None or not astray:
        return
    begin, end = max(piece.begin, cells.begin), min(piece.end, cells.end)
    # Each beginning of a row, from the one whose astray minutes may reach into the piece.
    turn = (begin + piece.offset) // piece.bucket * piece.bucket - piece.offset
    while turn < end - min(0, astray):
        since, until = sorted((turn, turn + astray))
        back = ((0, 1), (-1 if astray > 0 else 1, -1))
        yield from _facts(piece._replace(begin=max(begin, since), end=min(end, until), adds=back))
        turn += piece.bucket


def _facts(piece: Piece) -> Iterator[Piece]:
    for since in range(piece.begin, piece.end, FACTS_AT_ONCE):
        yield piece._replace(begin=since, end=min(piece.end, since + FACTS_AT_ONCE))


def stretches(zone: ZoneInfo, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The parts of a period in which the zone is the same minutes ahead of UTC: begin, end, minutes."""
    since = begin
    while since < end:
        offset, until = _offset(zone, since), since
        while until < end and _offset(zone, until) == offset:
            until += DAY_MINUTES
        low, high = max(since, until - DAY_MINUTES), min(until, end)
        # The clocks change, at most once, after `low` and not after `high`.
        if high == end and _offset(zone, end - 1) == offset:
            yield since, end, offset
            return
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if _offset(zone, middle) == offset else (low, middle)
        yield since, high, offset
        since = high


def _offset(zone: ZoneInfo, minute: int) -> int:
    ahead = (EPOCH + minute * MINUTE).astimezone(zone).utcoffset()
    assert ahead is not None
    return ahead // MINUTE
