"""What all processes together have seen of each provider: this one's counts, told to the others, and theirs.

Counts only grow, hour by hour, and whoever reads them takes differences: an exchange that fails, or comes late,
loses nothing.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from router.breaker import Verdict
from router.clock import Clock
from router.histogram import bucket_of
from router.ledger.counts import CountRow, Key, hour_of
from router.windows import Counts

OVERLAP = dt.timedelta(minutes=2)
"""Rows are asked for again for so long: machines' clocks differ by a minute and step by one, and a commit may become
visible late. It costs little: a process that lives has written its rows within seconds anyway."""
HOURS_TOLD = 22
"""A process that was cut off tells of so many hours when it is back; of the time before, nobody learns anything."""
HOURS_REMEMBERED = 24
"""More than are told, by any clock: a row that was forgotten and is told again with more in it would count twice."""


class CountStore(Protocol):
    """Where counts are shared: the ledger."""

    def write(self, rows: Iterable[CountRow]) -> None:
        """Commit these, each in the place of what its process told of that hour before."""

    def since(self, updated_after: dt.datetime, *, not_process: str) -> Sequence[CountRow]:
        """Other processes' rows written after that moment."""

    def hours(self, providers: Iterable[str], *, from_hour: int) -> Sequence[CountRow]:
        """Every process's rows of these providers, from that hour on."""


@dataclass(slots=True)
class _Sum:
    """Counts that grow."""

    calls: int = 0
    failures: int = 0
    unreachable: int = 0
    slow: int = 0
    histogram: Counter[int] = field(default_factory=Counter)
    overdue: int = 0
    refused: int = 0

    def add(self, counts: Counts) -> None:
        self.calls += counts.calls
        self.failures += counts.failures
        self.unreachable += counts.unreachable
        self.slow += counts.slow
        self.histogram.update(counts.histogram)
        self.overdue += counts.overdue
        self.refused += counts.refused

    def frozen(self) -> Counts:
        """These, as they are now."""
        return Counts(
            self.calls,
            self.failures,
            self.unreachable,
            self.slow,
            dict(self.histogram),
            self.overdue,
            self.refused,
        )


class Sample(NamedTuple):
    """A call of this process that ended, as it is counted for the fleet."""

    verdict: Verdict
    seconds: float
    version: int = 0
    """The circuit's, when the call ended."""
    was_overdue: bool = False
    """It was counted as slow in flight."""


@dataclass(frozen=True, slots=True)
class News:
    """What other processes saw since the last time."""

    provider: str
    version: int
    """The circuit's, when the calls ended."""
    normal: bool
    """Whether they learned from these calls."""
    counts: Counts


_NOTHING = Counts()
_Place = tuple[str, int, int, bool]
"""Provider, hour, version, normal."""
_VERSIONS_KEPT = 64
"""Of totals: what is older than so many versions adds to the oldest."""


class FleetCounts:
    """Thread-safe. One thread counts, another exchanges."""

    def __init__(self, providers: Iterable[str], *, store: CountStore | None, process: str, clock: Clock) -> None:
        self._process = process
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._totals: dict[str, dict[int, list[int]]] = {name: {} for name in providers}
        """Calls and failures by the circuit's version."""
        self._own: dict[_Place, _Sum] = {}
        """This process's counts."""
        self._to_tell: set[_Place] = set()
        self._heard: dict[Key, CountRow] = {}
        """The last that each other process told."""
        self._asked_at = clock.now()

    def add(self, provider: str, counts: Counts, *, version: int = 0, normal: bool = True) -> None:
        """Count calls of this process. `normal`: it has learned from them."""
        if counts == _NOTHING:
            return
        place = (provider, hour_of(self._clock.now()), version, normal)
        with self._lock:
            self._own.setdefault(place, _Sum()).add(counts)
            self._total(provider, version, counts)
            self._to_tell.add(place)

    def totals(self, provider: str, since_version: int = 0) -> tuple[int, int]:
        """Calls and failures of all processes under this version of the circuit and later ones.

        Since this process began, as far as it has heard.
        """
        with self._lock:
            found = [each for version, each in self._totals[provider].items() if version >= since_version]
            return sum(calls for calls, _ in found), sum(failures for _, failures in found)

    def exchange(self) -> Sequence[News]:
        """Tell the others, and answer what they have told since the last time.

        Raises LedgerUnavailableError; what could not be told is told the next time.
        """
        if self._store is None:
            return []
        asked_at = self._clock.now()
        with self._lock:
            self._to_tell = {place for place in self._to_tell if place[1] > hour_of(asked_at) - HOURS_TOLD}
            telling = sorted(self._to_tell)
            rows = [self._row(place, asked_at) for place in telling]
            self._to_tell.clear()
        try:
            if rows:
                self._store.write(rows)
            theirs = self._store.since(self._asked_at - OVERLAP, not_process=self._process)
        except BaseException:
            with self._lock:
                self._to_tell.update(telling)
            raise
        self._asked_at = asked_at
        with self._lock:
            hour = hour_of(asked_at)
            for told in [place for place in self._own if place[1] < hour - 1 and place not in self._to_tell]:
                del self._own[told]
            new = self._news(theirs)
            for heard in [place for place in self._heard if place[2] <= hour - HOURS_REMEMBERED]:
                del self._heard[heard]
            return new

    def _news(self, rows: Sequence[CountRow]) -> Sequence[News]:
        new: dict[tuple[str, int, bool], _Sum] = {}
        for row in rows:
            before = self._heard.get(row.key)
            if before is not None and _went_back(row, before):
                # An older version (a standby that took over lags behind): what was heard already must not become
                # news when the newer version is read again.
                continue
            difference = _difference(row, before)
            self._heard[row.key] = row
            if row.provider in self._totals and difference != _NOTHING:
                new.setdefault((row.provider, row.version, row.normal), _Sum()).add(difference)
                self._total(row.provider, row.version, difference)
        return [News(*place, each.frozen()) for place, each in sorted(new.items(), key=_in_order)]

    def _total(self, provider: str, version: int, counts: Counts) -> None:
        totals = self._totals[provider]
        total = totals.setdefault(version, [0, 0])
        total[0] += counts.calls
        total[1] += counts.failures
        if len(totals) > _VERSIONS_KEPT:
            oldest, next_oldest = sorted(totals)[:2]
            forgotten = totals.pop(oldest)
            totals[next_oldest] = [sum(both) for both in zip(forgotten, totals[next_oldest], strict=True)]

    def history(self, from_hour: int) -> Sequence[CountRow]:
        """What every process has told since that hour: what a process that begins knows of the time before it.

        From now on only what is told after it counts as new. Raises LedgerUnavailableError.
        """
        if self._store is None:
            return []
        rows = self._store.hours(self._totals, from_hour=from_hour)
        with self._lock:
            self._heard.update({row.key: row for row in rows})
        return rows

    def _row(self, place: _Place, now: dt.datetime) -> CountRow:
        own, (provider, hour, version, normal) = self._own[place], place
        return CountRow(
            process=self._process,
            provider=provider,
            hour=hour,
            calls=own.calls,
            failures=own.failures,
            unreachable=own.unreachable,
            slow=own.slow,
            updated_at=now,
            histogram=dict(own.histogram),
            version=version,
            normal=normal,
            overdue=own.overdue,
            refused=own.refused,
        )


def counts_of(row: CountRow) -> Counts:
    """A row's counts."""
    return Counts(row.calls, row.failures, row.unreachable, row.slow, row.histogram, row.overdue, row.refused)


def counted(samples: Iterable[Sample], slow_call_s: float) -> Counts:
    """These calls, added up. One that took longer than `slow_call_s` is slow, unless it counted as such in flight."""
    total = _Sum()
    for each in samples:
        if each.verdict is Verdict.CREDENTIALS_REFUSED:
            total.refused += 1
            continue
        total.calls += 1
        if each.was_overdue:
            total.overdue -= 1
        else:
            total.slow += each.seconds > slow_call_s
        if each.verdict is Verdict.OK:
            total.histogram[bucket_of(each.seconds)] += 1
        else:
            total.failures += 1
            total.unreachable += each.verdict is Verdict.UNREACHABLE
    return total.frozen()


def _in_order(item: tuple[tuple[str, int, bool], _Sum]) -> tuple[str, int, bool]:
    return item[0]


def _went_back(row: CountRow, before: CountRow) -> bool:
    return any(getattr(row, name) < getattr(before, name) for name in ("calls", "failures", "slow", "refused"))


def _difference(row: CountRow, before: CountRow | None) -> Counts:
    if before is None:
        return counts_of(row)
    grown = {bucket: n - before.histogram.get(bucket, 0) for bucket, n in row.histogram.items()}
    return Counts(
        row.calls - before.calls,
        row.failures - before.failures,
        row.unreachable - before.unreachable,
        row.slow - before.slow,
        {bucket: n for bucket, n in grown.items() if n > 0},
        row.overdue - before.overdue,
        row.refused - before.refused,
    )
