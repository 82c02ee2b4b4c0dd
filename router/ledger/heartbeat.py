"""Whether the ledger takes writes: tried, at most once a second, by writing."""

from __future__ import annotations

import threading

import sqlalchemy as sa

from router.clock import Clock
from router.ledger.engine import Database
from router.ledger.tables import heartbeats, to_micros
from router.ledger.unavailable import LedgerUnavailableError

FORGOTTEN_AFTER_US = 86_400 * 1_000_000
"""A process that has not beaten for a day is gone; its row goes when another one begins."""
TRIED_FOR_S = 1.0
"""How long an answer stands: a load balancer that asks often must not cost commits."""


class Heartbeat:
    """One process's sign of life in the ledger."""

    def __init__(self, database: Database, *, process: str, clock: Clock) -> None:
        self._database = database
        self._process = process
        self._clock = clock
        self._lock = threading.Lock()
        self._tried_at: float | None = None
        self._fault: str | None = None

    def fault(self) -> str | None:
        """Why the ledger cannot be written, or None."""
        with self._lock:
            now = self._clock.monotonic()
            if self._tried_at is None or now - self._tried_at >= TRIED_FOR_S:
                self._fault = self._try()
                self._tried_at = self._clock.monotonic()
            return self._fault

    def _try(self) -> str | None:
        at = to_micros(self._clock.now())
        table = heartbeats
        try:
            with self._database.write() as connection:
                beat = connection.execute(table.update().where(table.c.process == self._process).values(at=at))
                if beat.rowcount == 0:
                    connection.execute(table.delete().where(table.c.at < at - FORGOTTEN_AFTER_US))
                    connection.execute(table.insert(), {"process": self._process, "at": at})
        except LedgerUnavailableError as error:
            return f"cannot be written: {error}"
        except sa.exc.IntegrityError:
            return None  # another process of this name wrote in the same instant: the ledger takes writes
        return None
