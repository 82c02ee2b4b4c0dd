"""Whether lines of fees leave a gap or overlap: each sale on each day must be priced by exactly one. Pure.

A *gap*: a provider without a line that leaves all open (it catches the rest), or whose such line is not in force
today, or ends; and a hole between two lines of one cell, which would price by a broader line for a while. A cell that
ends for good is none: the broader line takes over.

An *overlap*: two lines of one cell on one day; or two lines that name as many of the four and match one sale, where
no line that names more prices it. `visa` and `international` both name one: of a visa card from abroad neither is the
more specific, so such a pair needs a third line that names both.
"""

from __future__ import annotations

import bisect
import dataclasses
import datetime as dt
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from providers.fees import DIMENSIONS, MASKS, Cell, FeeLine, Mask, masked

_ALL_OPEN: Cell = (None, None, None, None)
_NO_END = dt.date.max


class Finding(NamedTuple):
    """What is wrong, and where: a line of the file and one of its columns."""

    number: int
    column: str | None
    why: str

    def __str__(self) -> str:
        return f"{self.number}: {self.column}: {self.why}" if self.column else f"{self.number}: {self.why}"


def in_order(lines: Iterable[FeeLine]) -> tuple[Sequence[FeeLine], Sequence[Finding]]:
    """The lines with their ends: each holds until its own end, or until the next line of its cell begins."""
    cells: dict[tuple[str, Cell], list[FeeLine]] = {}
    for line in lines:
        cells.setdefault((line.provider, line.cell), []).append(line)
    ended: list[FeeLine] = []
    found: list[Finding] = []
    for cell in cells.values():
        cell.sort(key=lambda line: (line.since, line.number))
        for line, following in itertools.pairwise(cell):
            if line.since == following.since:
                why = f"overlap: line {line.number} is for the same sales from the same day"
                found.append(Finding(following.number, "valid_from", why))
            elif line.until is not None and line.until > following.since:
                why = f"overlap: line {line.number}, for the same sales, has not ended by then"
                found.append(Finding(following.number, "valid_from", why))
            elif line.until is not None and line.until < following.since:
                why = f"gap: line {line.number}, for the same sales, has ended before"
                found.append(Finding(following.number, "valid_from", why))
            ended.append(dataclasses.replace(line, until=following.since) if line.until is None else line)
        ended.append(cell[-1])
    return ended, found


def gaps(lines: Sequence[FeeLine], providers: Iterable[str], today: dt.date) -> Iterator[Finding]:
    """Providers that have no price for some sale, today or later. `lines` as `in_order` answers them."""
    for provider in providers:
        own = [line for line in lines if line.provider == provider]
        rest = [line for line in own if line.cell == _ALL_OPEN]
        if not own:
            yield Finding(1, "provider", f"gap: there is no line for {provider}")
        elif not rest:
            first = min(line.number for line in own)
            why = f"gap: {provider} needs a line that leaves {', '.join(DIMENSIONS)} empty, for all other sales"
            yield Finding(first, "provider", why)
        else:
            rest.sort(key=lambda line: (line.since, line.number))
            begins, ends = rest[0], rest[-1]
            if begins.since > today:
                yield Finding(begins.number, "valid_from", f"gap: no line for all other sales of {provider} today")
            if ends.until is not None:
                yield Finding(ends.number, "valid_until", f"gap: nothing follows for all other sales of {provider}")


def overlaps(lines: Sequence[FeeLine]) -> Iterator[Finding]:
    """Pairs of lines of different cells that could both be the one for a sale. `lines` as `in_order` answers them."""
    for _, own in itertools.groupby(sorted(lines, key=lambda line: line.provider), key=lambda line: line.provider):
        yield from _overlaps_of_one(list(own))


def _overlaps_of_one(lines: Sequence[FeeLine]) -> Iterator[Finding]:
    cells: dict[Cell, list[FeeLine]] = {}
    for line in lines:
        cells.setdefault(line.cell, []).append(line)
    for timeline in cells.values():
        timeline.sort(key=lambda line: line.since)
    by_mask: dict[Mask, list[Cell]] = {}
    for cell in cells:
        by_mask.setdefault(_mask(cell), []).append(cell)
    for one, other in itertools.combinations(by_mask, 2):
        if sum(one) != sum(other):
            continue
        shared: Mask = (one[0] and other[0], one[1] and other[1], one[2] and other[2], one[3] and other[3])
        matching: dict[Cell, list[Cell]] = {}
        for cell in by_mask[other]:
            matching.setdefault(masked(cell, shared), []).append(cell)
        for cell in by_mask[one]:
            for twin in matching.get(masked(cell, shared), ()):
                yield from _in_doubt(cells[cell], cells[twin], _more_specific(_both(cell, twin), sum(one), cells))


def _both(cell: Cell, twin: Cell) -> Cell:
    """What the sales have in common that both match."""
    return (cell[0] or twin[0], cell[1] or twin[1], cell[2] or twin[2], cell[3] or twin[3])


def _more_specific(both: Cell, named: int, cells: Mapping[Cell, Sequence[FeeLine]]) -> Sequence[FeeLine]:
    """The lines that name more, and match every sale that both match."""
    narrower = {masked(both, mask) for mask in MASKS}
    return [line for cell in narrower if sum(_mask(cell)) > named for line in cells.get(cell, ())]


def _in_doubt(
    timeline: Sequence[FeeLine], other: Sequence[FeeLine], specific: Sequence[FeeLine]
) -> Iterator[Finding]:
    ends = [_end(line) for line in other]
    for line in timeline:
        for twin in other[bisect.bisect_right(ends, line.since) :]:
            if twin.since >= _end(line):
                break
            begin, end = max(line.since, twin.since), min(_end(line), _end(twin))
            if begin < end and not _covered(begin, end, specific):
                first, second = sorted((line.number, twin.number))
                both = _both(line.cell, twin.cell)
                named = [name for name, value in zip(DIMENSIONS, both, strict=True) if value is not None]
                why = (
                    f"overlap: line {first} and this one are equally specific for some sales on the same day; "
                    f"a line that names {' and '.join(named)} would settle it"
                )
                yield Finding(second, None, why)


def _covered(begin: dt.date, end: dt.date, lines: Sequence[FeeLine]) -> bool:
    """Whether on every day from `begin` until before `end` one of these lines is in force."""
    for line in sorted(lines, key=lambda line: line.since):
        if line.since > begin:
            return False
        begin = max(begin, _end(line))
        if begin >= end:
            return True
    return False


def _end(line: FeeLine) -> dt.date:
    return line.until or _NO_END


def _mask(cell: Cell) -> Mask:
    currency, brand, funding, region = cell
    return (currency is not None, brand is not None, funding is not None, region is not None)
