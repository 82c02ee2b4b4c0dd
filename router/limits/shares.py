"""A provider's places for payments, shared fairly between merchants: one's flood leaves room for the others. Pure.

**The rule** (dynamic thresholds, Choudhury and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998): a merchant may
take one more place while it has fewer than `ALPHA` times as many as are free. One that floods stops by itself, and
a fifth stays free for whoever comes; each of n that flood has ALPHA / (1 + ALPHA × n), which is at least four fifths
of an equal share, and still leaves room for the next one. Nothing is reserved for anybody by name, so a house of a
hundred merchants that pay now and then loses no place to their reserves; and it takes a step or two, not a look at
every merchant.

The last free place goes to none that has one already. A merchant that was alone lately may take them all.
"""

from __future__ import annotations

import threading
from enum import Enum

ALPHA = 4
"""Of 24 places one flooding merchant has 20 at most beside others, two have 11 each. At 1 it would have half, at 16
it would leave one."""
LATELY_S = 600.0
"""A merchant that paid so long ago may come again: ten minutes are a quiet shop's pause between two customers."""


class Entry(Enum):
    """What came of asking for a place."""

    TAKEN = "taken"
    FULL = "full"
    """No place is free, whoever asks."""
    OVER_SHARE = "over_share"
    """Places are free, and this merchant has as many as it may."""


class Places:
    """So many calls at once to one provider, and not one more. Nobody waits. Thread-safe."""

    def __init__(self, permits: int) -> None:
        self.permits = permits
        """Calls at once, at most."""
        self._lock = threading.Lock()
        self._in_use = 0
        self._of: dict[str, int] = {}
        """Places by merchant, of those that have any: never more entries than places."""
        # The last two merchants that asked, and when: enough to know whether somebody else did lately.
        self._last: tuple[str, float] | None = None
        self._before: tuple[str, float] | None = None

    @property
    def in_use(self) -> int:
        """Places that are taken now."""
        return self._in_use

    def of(self, merchant: str) -> int:
        """Places that a merchant has now."""
        return self._of.get(merchant, 0)

    def enter(self, merchant: str, now: float) -> Entry:
        """Take a place, at `now` seconds of the monotonic clock. Who got one calls `leave`, once."""
        with self._lock:
            self._see(merchant, now)
            free, mine = self.permits - self._in_use, self._of.get(merchant, 0)
            if free <= 0:
                return Entry.FULL
            if mine and (mine >= ALPHA * free or free == 1) and self._others_lately(now):
                return Entry.OVER_SHARE
            self._in_use += 1
            self._of[merchant] = mine + 1
            return Entry.TAKEN

    def leave(self, merchant: str) -> None:
        """Give a place back. Raises ValueError where the merchant has none: that would let one call too many in."""
        with self._lock:
            mine = self._of.get(merchant, 0)
            if not mine:
                raise ValueError("no place is taken")
            self._in_use -= 1
            if mine == 1:
                del self._of[merchant]
            else:
                self._of[merchant] = mine - 1

    def _see(self, merchant: str, now: float) -> None:
        if self._last is not None and self._last[0] != merchant:
            self._before = self._last
        self._last = (merchant, now)

    def _others_lately(self, now: float) -> bool:
        """Whether somebody else than who asks, who is the last one, asked lately; or still has a place."""
        lately = self._before is not None and now - self._before[1] <= LATELY_S
        return lately or len(self._of) > 1
