"""Time, sleep, randomness and ids, as values that are passed in.

Nothing else in the router reads a clock, sleeps, draws a random number or makes an id. A test passes
`ManualClock` and `SequentialIds` instead, and an outage of hours runs in milliseconds, the same each time.
"""

from __future__ import annotations

import datetime as dt
import itertools
import os
import threading
import time
from typing import Protocol

CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32: no letter that reads like a digit, so an id can be read out on the phone."""


class Clock(Protocol):
    """A wall clock for records, a monotonic one for durations, and a way to wait."""

    def now(self) -> dt.datetime:
        """The present instant, aware, in UTC."""

    def monotonic(self) -> float:
        """Seconds since some fixed instant; never steps back, unlike `now`."""

    def sleep(self, seconds: float) -> None:
        """Wait that many seconds."""


class Ids(Protocol):
    """A source of ids that nobody can guess."""

    def new(self, prefix: str) -> str:
        """A new id such as `pay_01jd3…`: the prefix, an underscore and 26 letters and digits."""


class SystemClock:
    """The machine's clocks."""

    def now(self) -> dt.datetime:
        return dt.datetime.now(dt.UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class TimeOrderedIds:
    """ULIDs: 48 bits of milliseconds and 80 random bits, so that new rows land at an index's end.

    Source: https://github.com/ulid/spec, with lower-case letters.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def new(self, prefix: str) -> str:
        milliseconds = int(self._clock.now().timestamp() * 1000)
        return f"{prefix}_{_base32((milliseconds << 80) | int.from_bytes(_random_bytes(), 'big'))}"


class _Pool:
    """Random bytes of the operating system's, asked for many at a time.

    Each asking is a system call in which Python lets another thread go first: at a thousand decisions a second on
    one core that costs more than the id.
    """

    SIZE = 10
    """Bytes of one id: 80 bits."""
    TAKEN = 4096

    def __init__(self) -> None:
        self._left: list[bytes] = []
        # A child that went on with its parent's bytes would make its parent's ids.
        os.register_at_fork(after_in_child=self._left.clear)

    def take(self) -> bytes:
        """The next ten, which nobody else is given."""
        try:
            return self._left.pop()  # one step of the interpreter: no two threads are given the same
        except IndexError:
            drawn = os.urandom(self.SIZE * self.TAKEN)
            pieces = [drawn[at : at + self.SIZE] for at in range(0, len(drawn), self.SIZE)]
            last = pieces.pop()
            self._left.extend(pieces)
            return last


_random_bytes = _Pool().take


_PAIRS = [first + second for first in CROCKFORD for second in CROCKFORD]
_SHIFTS = tuple(range(120, -1, -10))
"""Two letters at a time: an id costs a third of what one letter at a time does, and a payment makes five."""


def _base32(number: int) -> str:
    return "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])


class ManualClock:
    """A clock that moves only when told to; `sleep` moves it at once."""

    def __init__(self, start: dt.datetime = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)) -> None:
        self._start = start
        self._elapsed_s = 0.0
        self._lock = threading.Lock()

    def now(self) -> dt.datetime:
        return self._start + dt.timedelta(seconds=self._elapsed_s)

    def monotonic(self) -> float:
        return self._elapsed_s

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Move the clock on."""
        with self._lock:
            self._elapsed_s += seconds


class SequentialIds:
    """`pay_1`, `att_2`, …: ids that are the same in every run of a test."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def new(self, prefix: str) -> str:
        return f"{prefix}_{next(self._numbers)}"
