"""The feed's pages, read once for all endpoints that are at the same place, and how far each has looked already."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from router.clock import Clock
from router.ledger.event_feed import EventFeed, FeedEvent, Position

PAGE = 100
"""Events of one look, and put up in one commit: a millisecond or two, for which payments wait on SQLite."""
SHARED_FOR_S = 0.1
"""How long a page that is not full serves other endpoints: more may have come by then."""
PAGES = 64
FAR = 4 * PAGE
"""Events that an endpoint does not want are passed over in memory; so many at a time its position is committed."""
FAR_S = 60.0
"""And so long after the first of them: what the ledger does not know of, the health page shows as a lag."""


class FeedPages:
    """Thread-safe."""

    def __init__(self, feed: EventFeed, clock: Clock) -> None:
        self._feed = feed
        self._clock = clock
        self._lock = threading.Lock()
        self._pages: dict[Position, tuple[float, Sequence[FeedEvent], Position]] = {}
        self._passed: dict[str, tuple[Position, Position, int, float]] = {}

    def begins(self, endpoint_id: str, committed: Position) -> Position:
        """Where to look on for an endpoint whose position is this in the ledger: behind what it does not want."""
        known = self._known(endpoint_id, committed)
        return committed if known is None else known[1]

    def passed_over(self, endpoint_id: str, committed: Position, up_to: Position, events: int) -> None:
        """Remember that it wants none of so many more events, up to there."""
        known = self._known(endpoint_id, committed) or (committed, committed, 0, self._clock.monotonic())
        self._passed[endpoint_id] = committed, up_to, events + known[2], known[3]

    def is_far(self, endpoint_id: str, committed: Position) -> bool:
        """Whether its position is to be committed: it is far behind what was passed over, or has been for long."""
        known = self._known(endpoint_id, committed)
        return known is not None and (known[2] >= FAR or self._clock.monotonic() - known[3] >= FAR_S)

    def _known(self, endpoint_id: str, committed: Position) -> tuple[Position, Position, int, float] | None:
        """What was passed over since that commit: from where, up to where, how many events, since when."""
        known = self._passed.get(endpoint_id)
        return known if known is not None and known[0] == committed else None

    def after(self, position: Position) -> tuple[Sequence[FeedEvent], Position]:
        """The page that follows a position, and where it ends."""
        now = self._clock.monotonic()
        with self._lock:
            found = self._pages.get(position)
        # A full page stays as it is: nothing can appear before a position that was answered.
        if found is not None and (len(found[1]) == PAGE or now - found[0] < SHARED_FOR_S):
            return found[1], found[2]
        events, up_to = self._feed.after(position, PAGE)
        with self._lock:
            if len(self._pages) >= PAGES:
                self._pages.clear()
            self._pages[position] = now, events, up_to
        return events, up_to
