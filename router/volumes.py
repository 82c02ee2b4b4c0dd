"""A worker loop: counts each merchant's payments minute by minute, for its quota. Any number of workers may."""

from __future__ import annotations

import datetime as dt

from router.clock import Clock
from router.ledger.merchant_volumes import MINUTE_US, MerchantVolumes
from router.ledger.tables import from_micros, to_micros
from router.limits.quota import HOURS_BACK, WEEK_H, WEEKS_BACK

LAG = dt.timedelta(seconds=10)
"""Until a minute is counted: a payment's first commit comes within seconds of its beginning."""
BACK = dt.timedelta(hours=2)
"""How far back a worker looks when it begins: so long can none have run without a merchant's past missing an hour."""
AT_ONCE_MINUTES = 10
KEPT_H = WEEKS_BACK * WEEK_H + HOURS_BACK
MINUTES_AN_HOUR = 60


class Volumes:
    """A worker loop."""

    def __init__(self, ledger: MerchantVolumes, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._counted_to: int | None = None
        """Minutes since 1970, before which this worker has counted."""

    def run_once(self) -> int:
        """Count some minutes that are over. Answers how many. Raises LedgerUnavailableError."""
        now = self._clock.now()
        end = _minute_of(now - LAG)
        begin = self._counted_to if self._counted_to is not None else _minute_of(now - BACK)
        begin = max(begin, _minute_of(now - BACK))
        end = min(end, begin + AT_ONCE_MINUTES)
        if end <= begin:
            return 0
        peaks: dict[tuple[str, int], int] = {}
        counted = self._ledger.count(_moment(begin), _moment(end))
        for (merchant, minute), payments in counted.items():
            hour = (merchant, minute // MINUTES_AN_HOUR)
            peaks[hour] = max(peaks.get(hour, 0), payments)
        self._ledger.raise_to(peaks)
        self._ledger.forget(_minute_of(now) // MINUTES_AN_HOUR - KEPT_H - 1)
        self._counted_to = end
        return end - begin


def _minute_of(moment: dt.datetime) -> int:
    return to_micros(moment) // MINUTE_US


def _moment(minute: int) -> dt.datetime:
    return from_micros(minute * MINUTE_US)
