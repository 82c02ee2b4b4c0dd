"""What all processes together have seen of each provider: this one's counts, told to the others, and theirs.

Counts only grow, hour by hour, and whoever reads them takes differences: an exchange that fails, or comes late,
loses nothing.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from router.breaker import Verdict
from router.clock import Clock
from router.histogram import bucket_of
from router.ledger.counts import CountRow, hour_of
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

    def add(self, counts: Counts) -> None:
        self.calls += counts.calls
        self.failures += counts.failures
        self.unreachable += counts.unreachable
        self.slow += counts.slow
        self.histogram.update(counts.histogram)


class FleetCounts:
    """Thread-safe. One thread counts, another exchanges."""

    def __init__(self, providers: Iterable[str], *, store: CountStore | None, process: str, clock: Clock) -> None:
        self._process = process
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._totals = {name: _Sum() for name in providers}
        self._own: dict[tuple[str, int], _Sum] = {}
        """This process's counts by provider and hour."""
        self._to_tell: set[tuple[str, int]] = set()
        self._heard: dict[tuple[str, str, int], CountRow] = {}
        """The last that each other process told, by process, provider and hour."""
        self._asked_at = clock.now()

    def count(self, provider: str, calls: Iterable[tuple[Verdict, float]], slow_call_s: float) -> Counts:
        """Add calls of this process: what each said of the provider, and its seconds. Answers them as counts."""
        counts = _counted(calls, slow_call_s)
        if counts.calls:
            place = (provider, hour_of(self._clock.now()))
            with self._lock:
                self._own.setdefault(place, _Sum()).add(counts)
                self._totals[provider].add(counts)
                self._to_tell.add(place)
        return counts

    def totals(self, provider: str) -> tuple[int, int]:
        """Calls and failures of all processes since this one began, as far as it has heard."""
        with self._lock:
            total = self._totals[provider]
            return total.calls, total.failures

    def exchange(self) -> Mapping[str, Counts]:
        """Tell the others, and answer what they have told since the last time, by provider.

        Raises LedgerUnavailableError; what could not be told is told the next time.
        """
        if self._store is None:
            return {}
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

    def _news(self, rows: Sequence[CountRow]) -> Mapping[str, Counts]:
        new: dict[str, _Sum] = {}
        for row in rows:
            before = self._heard.get(row.key)
            if before is not None and row.calls < before.calls:
                # An older version (a standby that took over lags behind): what was heard already must not become
                # news when the newer version is read again.
                continue
            difference = _difference(row, before)
            self._heard[row.key] = row
            if row.provider in self._totals and difference.calls:
                new.setdefault(row.provider, _Sum()).add(difference)
                self._totals[row.provider].add(difference)
        return {name: _frozen(each) for name, each in new.items()}

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

    def _row(self, place: tuple[str, int], now: dt.datetime) -> CountRow:
        own = self._own[place]
        return CountRow(
            process=self._process,
            provider=place[0],
            hour=place[1],
            calls=own.calls,
            failures=own.failures,
            unreachable=own.unreachable,
            slow=own.slow,
            updated_at=now,
            histogram=dict(own.histogram),
        )


def counts_of(row: CountRow) -> Counts:
    """A row's counts."""
    return Counts(row.calls, row.failures, row.unreachable, row.slow, row.histogram)


def _counted(calls: Iterable[tuple[Verdict, float]], slow_call_s: float) -> Counts:
    total, histogram = _Sum(), Counter[int]()
    for verdict, seconds in calls:
        total.calls += 1
        total.slow += seconds > slow_call_s
        if verdict is Verdict.OK:
            histogram[bucket_of(seconds)] += 1
        else:
            total.failures += 1
            total.unreachable += verdict is Verdict.UNREACHABLE
    return dataclasses.replace(_frozen(total), histogram=histogram)


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
    )


def _frozen(total: _Sum) -> Counts:
    return Counts(total.calls, total.failures, total.unreachable, total.slow, dict(total.histogram))
