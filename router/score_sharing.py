"""Scores that all processes have in common, and that a restart does not lose.

What a process hears is counted by provider, segment and minute, and written about once a second, in one small commit
of what changed; the others' rows are read as differences, so that an exchange which fails, or comes late, loses
nothing and doubles nothing (as `router.fleet` does with calls). A difference is about a second's, and is learned at
the mean moment of its approvals and of its declines: at the shortest half-life, that of availability, half a second
around the mean changes a weight by less than 1e-6 of it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import structlog

from router.clock import Clock
from router.ledger.scores import CALLS, HOUR_S, MINUTE_S, Key, Past, ScoreRow
from router.ledger.tables import to_micros
from router.scores import Scores
from router.segments import Segment, parse

log = structlog.get_logger("router.score_sharing")

EXCHANGE_INTERVAL_S = 0.9
"""What one process hears, another knows after two of these and a commit: within two seconds."""
OVERLAP_S = 120
"""Rows are asked for again for so long: machines' clocks differ by a minute and step by one, and a commit may become
visible late."""
TOLD_S = 2 * HOUR_S
"""A process that was cut off tells of so much when it is back."""
REMEMBERED_S = 3 * HOUR_S
"""More than is told, by any clock; only what is older than this may be merged (`router.housekeeping`): a minute that
nobody remembers, and that is told again with more in it, would count twice."""
CALLS_KEPT_S = 2 * HOUR_S
"""24 half-lives of availability."""
HALF_LIVES_READ = 20
"""What is older weighs less than a millionth."""
LEARNED_ANEW_AFTER_S = 1800.0
"""A process that could not read for so long learns the past anew: rows may be merged before it has heard them."""
STEPPED_S = 30.0
"""The wall clock against the monotonic one: whoever set it, what was heard is weighed by moments that are no more."""


class ScoreStore(Protocol):
    """Where scores are shared: the ledger."""

    def write(self, rows: Iterable[ScoreRow], *, at_us: int) -> None:
        """Commit these, each in the place of what its process told of that minute before."""

    def since(self, updated_after_us: int, *, not_process: str) -> Sequence[ScoreRow]:
        """Other processes' minutes written after that moment."""

    def past(self, *, minutes_from_s: int, from_s: int, calls_from_s: int) -> Past:
        """Everything since then, of one moment."""


_Place = tuple[str, str, int]
"""Provider, segment or CALLS, start of the minute."""


class ScoreSharing:
    """Not thread-safe: one thread exchanges. The scores may be taught and read by others meanwhile."""

    def __init__(
        self,
        scores: Scores,
        *,
        store: ScoreStore,
        process: str,
        clock: Clock,
        half_life_h: Callable[[], float] | None = None,
    ) -> None:
        """`process`: a name of its own for every life of a process. `half_life_h`: asked with every exchange."""
        self._scores = scores
        self._store = store
        self._process = process
        self._clock = clock
        self._half_life_h = half_life_h
        self._own: dict[_Place, list[int]] = {}
        """Good, bad, and the sums of their moments."""
        self._to_tell: set[_Place] = set()
        self._heard: dict[Key, ScoreRow] = {}
        """The last that each other process told of each minute."""
        self._asked: tuple[dt.datetime, float] | None = None
        """When the others were asked last, by both clocks; None: the past is not known yet."""

    def exchange_once(self) -> int:
        """Tell the others, and learn what they have told since the last time. Answers how many outcomes that were.

        Where the past is not known, or must be weighed anew, all of it is learned. Raises LedgerUnavailableError;
        what could not be told is told the next time.
        """
        now, monotonic = self._clock.now(), self._clock.monotonic()
        if self._half_life_h is not None and self._scores.set_half_life(self._half_life_h(), now.timestamp()):
            log.info("approval_half_life", hours=self._scores.half_life_h)
            self._asked = None
        self.tell()
        self._forget(now)
        if self._asked is None or self._must_learn_anew(now, monotonic):
            learned = self._learn_anew(now)
        else:
            after = to_micros(self._asked[0]) - OVERLAP_S * 1_000_000
            learned = self._news(self._store.since(after, not_process=self._process), now, self._scores)
        self._asked = (now, monotonic)
        return learned

    def _must_learn_anew(self, now: dt.datetime, monotonic: float) -> bool:
        if self._asked is None:
            return True
        passed = monotonic - self._asked[1]
        stepped = abs((now - self._asked[0]).total_seconds() - passed) > STEPPED_S
        return stepped or passed > LEARNED_ANEW_AFTER_S

    def _take(self) -> None:
        for provider, segment, good, bad, at in self._scores.take_heard():
            starts_s = int(at) // MINUTE_S * MINUTE_S
            place = (provider, CALLS if segment is None else segment.key(), starts_s)
            after_ms = round((at - starts_s) * 1000)
            counts = self._own.setdefault(place, [0, 0, 0, 0])
            counts[0] += good
            counts[1] += bad
            counts[2] += good * after_ms
            counts[3] += bad * after_ms
            self._to_tell.add(place)

    def tell(self) -> None:
        """Write what was heard since the last time, if anything was. Raises LedgerUnavailableError."""
        self._take()
        now = self._clock.now()
        oldest = now.timestamp() - TOLD_S
        telling = sorted(place for place in self._to_tell if place[2] > oldest)
        if telling:
            self._store.write([self._row(place) for place in telling], at_us=to_micros(now))
        self._to_tell.clear()

    def _row(self, place: _Place) -> ScoreRow:
        good, bad, good_ms, bad_ms = self._own[place]
        return ScoreRow(self._process, *place, good, bad, good_ms, bad_ms)

    def _forget(self, now: dt.datetime) -> None:
        # By the clock in both directions: set forward and back again, it must not leave minutes that never end.
        end = now.timestamp()
        for place in [each for each in self._own if not end - TOLD_S < each[2] < end + HOUR_S]:
            del self._own[place]
        for key in [each for each in self._heard if each[3] <= end - REMEMBERED_S]:
            del self._heard[key]

    def _learn_anew(self, now: dt.datetime) -> int:
        end = int(now.timestamp())
        past = self._store.past(
            minutes_from_s=end - REMEMBERED_S,
            from_s=end - int(HALF_LIVES_READ * self._scores.half_life_h * HOUR_S),
            calls_from_s=end - CALLS_KEPT_S,
        )
        taught = self._scores.blank()
        self._heard.clear()
        learned = self._news([row for row in past.minutes if not self._is_known(row)], now, taught)
        # The latest first: where there are too many segments, those in use are held.
        earlier = sorted(past.earlier, key=lambda each: each.starts_s, reverse=True)
        learned += sum(_learn(row, now, taught) for row in earlier)
        for place in self._own:
            _learn(self._row(place), now, taught)
        self._scores.adopt(taught)
        return learned

    def _is_known(self, row: ScoreRow) -> bool:
        return row.process == self._process and row[1:4] in self._own

    def _news(self, rows: Iterable[ScoreRow], now: dt.datetime, scores: Scores) -> int:
        learned = 0
        for row in rows:
            before = self._heard.get(row.key)
            new = row if before is None else _difference(row, before)
            if new is None:
                continue
            if row.process != self._process:
                self._heard[row.key] = row
            learned += _learn(new, now, scores)
        return learned


def _difference(row: ScoreRow, before: ScoreRow) -> ScoreRow | None:
    """What has come since `before`. None: this is an older version of it (a standby that took over lags behind).

    What was heard already must not become news when the newer version is read again.
    """
    grown = [now - then for now, then in zip(row[4:], before[4:], strict=True)]
    return None if min(grown) < 0 else ScoreRow(*row[:4], *grown)


def _learn(row: ScoreRow, now: dt.datetime, scores: Scores) -> int:
    """Teach a row's outcomes, at their mean moments; nothing has happened after now. Answers how many."""
    segment: Segment | None = None
    if row.segment != CALLS:
        segment = parse(row.segment)
        if segment is None:
            return 0  # of another version of the router
    good, bad = row.good, row.bad
    if not good and not bad:
        return 0
    latest = now.timestamp()
    good_at = min(latest, row.starts_s + row.good_ms / (1000 * good)) if good else 0.0
    bad_at = min(latest, row.starts_s + row.bad_ms / (1000 * bad)) if bad else 0.0
    scores.hear_others(row.provider, segment, good, bad, good_at=good_at, bad_at=bad_at)
    return good + bad
