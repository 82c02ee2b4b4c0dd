"""How fast parked payments are tried: slowly at first, and faster while calls succeed. Pure.

One rate for the whole fleet, kept in the ledger: a provider that has just come back must not be sent a day's payments
in its first second, however many workers there are. The rate begins at FLOOR_PER_S, doubles after each stage in
which most of what it allows succeeded, halves when calls fail, and begins anew after an outage or a pause.

Tries are spaced, not counted by the second: `spent_until` is the moment up to which all that the rate allows has been
given out (the generic cell rate algorithm, ITU-T I.371).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from dataclasses import dataclass

FLOOR_PER_S = 5.0
"""What a provider gets that has just come back: as much as a probe round sends it (ten calls in two seconds)."""
STAGE_S = 2.0
"""A call of 10 s that hangs is the breaker's to notice; in two seconds a healthy provider answers twenty times."""
IDLE_S = 10.0
"""Nothing given out for so long: what was known of the providers' strength is old."""
AHEAD_S = 60.0
"""What was given out is never ahead of now, but for clocks that differ by less; one that was wrong, and was put
right, must not stop everybody until its time comes."""
FORGIVEN_SHARE = 0.1
"""Of a stage's tries so many may fail: as `BreakerSettings.probe_success_rate` forgives."""
USED_SHARE = 0.5
"""A stage proves something of its rate if at least so much of it succeeded."""
BURST_S = 0.25
"""What was not given out meanwhile is given at once, up to so much: a worker's rounds are some milliseconds apart."""


@dataclass(frozen=True, slots=True)
class Ramp:
    """The rate in force, tries a second, and what its stage has come to so far."""

    rate: float
    began_at: dt.datetime
    """When the stage did."""
    spent_until: dt.datetime
    restarted_at: dt.datetime
    """The last outage's end."""
    good: int = 0
    bad: int = 0


def beginning(now: dt.datetime, *, most_per_s: float = FLOOR_PER_S) -> Ramp:
    """At its slowest; the first try is due at once."""
    rate = min(FLOOR_PER_S, most_per_s)
    return Ramp(rate, began_at=now, spent_until=now - dt.timedelta(seconds=1 / rate), restarted_at=now)


def heard(ramp: Ramp, now: dt.datetime, *, good: int, bad: int, most_per_s: float) -> Ramp:
    """The ramp after that many more tries that succeeded and failed: a provider's fault is a failure, a decline none.

    `most_per_s`: as fast as it ever becomes.
    """
    idle_s = (now - ramp.spent_until).total_seconds()
    if idle_s > IDLE_S or idle_s < -AHEAD_S:
        return dataclasses.replace(beginning(now, most_per_s=most_per_s), restarted_at=min(now, ramp.restarted_at))
    ramp = dataclasses.replace(ramp, rate=min(ramp.rate, most_per_s), good=ramp.good + good, bad=ramp.bad + bad)
    slowest = min(FLOOR_PER_S, most_per_s)
    if ramp.bad > (ramp.good + ramp.bad) * FORGIVEN_SHARE:
        return _stage(ramp, max(slowest, ramp.rate / 2), now)
    age_s = (now - ramp.began_at).total_seconds()
    if age_s < STAGE_S:
        return ramp
    if ramp.good >= ramp.rate * STAGE_S * USED_SHARE:
        return _stage(ramp, min(most_per_s, ramp.rate * 2), now)
    return ramp if age_s < 2 * STAGE_S else _stage(ramp, ramp.rate, now)


def allowed(ramp: Ramp, now: dt.datetime) -> int:
    """How many tries may be given out now."""
    since_s = (now - ramp.spent_until).total_seconds()
    # At least one, or a slow rate would never give any: a try is due when a whole interval has passed.
    burst = max(1.0, ramp.rate * BURST_S)
    return max(0, math.floor(min(burst, since_s * ramp.rate + 1e-6)))


def spent(ramp: Ramp, now: dt.datetime, tries: int) -> Ramp:
    """The ramp when that many have been given out."""
    if not tries:
        return ramp
    saved = dt.timedelta(seconds=max(1.0, ramp.rate * BURST_S) / ramp.rate)
    since = max(ramp.spent_until, now - saved)
    return dataclasses.replace(ramp, spent_until=since + dt.timedelta(seconds=tries / ramp.rate))


def next_at(ramp: Ramp) -> dt.datetime:
    """When the next try may be given out."""
    return ramp.spent_until + dt.timedelta(seconds=1 / ramp.rate)


def _stage(ramp: Ramp, rate: float, now: dt.datetime) -> Ramp:
    return dataclasses.replace(ramp, rate=rate, began_at=now, good=0, bad=0)
