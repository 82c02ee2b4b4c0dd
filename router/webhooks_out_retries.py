"""When a delivery that was not accepted is tried again, and when trying ends. Pure."""

from __future__ import annotations

import datetime as dt

FIRST_WAIT_S = 5.0
LONGEST_WAIT_S = 3600.0
"""Some thirty tries of one event in its day: 5 s, 10 s, … 43 min in an hour and a half, then hourly."""
TRIED_FOR = dt.timedelta(hours=24)
LEAST_TRIES = 8
"""A day may pass without a worker: an endpoint is not given up for what nobody tried."""
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 120.0
"""Between two tries of whatever at an endpoint that fails: its events wait together, and do not each knock."""


def wait_s(failures: int, chance: float) -> float:
    """Seconds until an event is sent again that was refused that often in a row; `chance` is of 0 to 1."""
    return _jittered(min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(failures - 1, 20)), chance)


def pause_s(failures: int, chance: float) -> float:
    """Seconds until anything is sent to an endpoint that has refused everything, that often in a row."""
    return _jittered(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(failures - 1, 20)), chance)


def is_over(since: dt.datetime, tries: int, now: dt.datetime) -> bool:
    """Whether what has failed since then, that often, is tried no more."""
    return tries >= LEAST_TRIES and now - since >= TRIED_FOR


def again(since: dt.datetime, failures: int, now: dt.datetime, chance: float) -> dt.datetime | None:
    """When an event is sent again that was refused that often in a row, since then; None: never.

    The last try is at the end of the day, not an hour and a quarter behind it.
    """
    if is_over(since, failures, now):
        return None
    at, end = now + dt.timedelta(seconds=wait_s(failures, chance)), since + TRIED_FOR
    return min(at, end) if now < end else at


def _jittered(seconds: float, chance: float) -> float:
    """A quarter more or less: what failed together does not come back together."""
    return seconds * (0.75 + chance / 2)
