"""So many calls at once to one provider, and not one more: a slow provider must not hold every thread. Pure."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class Bulkhead:
    """A fixed number of permits for one provider. Nobody waits: the next is refused at once. Thread-safe."""

    def __init__(self, permits: int) -> None:
        self.permits = permits
        """Calls at once, at most."""
        self._lock = threading.Lock()
        self._in_use = 0

    @property
    def in_use(self) -> int:
        """Permits that are out now."""
        return self._in_use

    def enter(self) -> bool:
        """Take a permit; False, at once, when all are out. Who got True calls `leave`, once."""
        with self._lock:
            if self._in_use >= self.permits:
                return False
            self._in_use += 1
            return True

    def leave(self) -> None:
        """Return a permit. Raises ValueError when none is out: a permit returned twice lets one call too many in."""
        with self._lock:
            if not self._in_use:
                raise ValueError("no permit is out")
            self._in_use -= 1

    @contextlib.contextmanager
    def place(self) -> Iterator[bool]:
        """Whether there is a place, which is given back however the block ends, interrupts and exits included."""
        entered = self.enter()
        try:
            yield entered
        finally:
            if entered:
                self.leave()
