"""What a worker may ask of a provider whose circuit is open: one call now and then, and no more. Pure.

Probes say when it is well again, and then what was left in doubt is found out at once. But a probe may fail for a
reason of its own, and doubt must not wait on that for ever.
"""

from __future__ import annotations

import threading

EVERY_S = 60.0
"""Between two such calls of one process; the first is so long after the first was wanted."""


class Trickle:
    """One provider's, in one process. Thread-safe."""

    def __init__(self, every_s: float = EVERY_S) -> None:
        self._every_s = every_s
        self._lock = threading.Lock()
        self._incident: str | None = None
        self._next = -1.0

    def take(self, now: float, incident: str | None) -> bool:
        """Whether one call may go now (monotonic seconds), in this incident; True is one call's, and no other's."""
        with self._lock:
            if self._next < 0.0 or incident != self._incident:
                # What has just opened is broken: nothing is learned by asking.
                self._incident, self._next = incident, now + self._every_s
                return False
            if now < self._next:
                return False
            self._next = now + self._every_s
            return True
