"""Whose key it is: the bootstrap key, or one of the ledger's, remembered for a few seconds."""

from __future__ import annotations

import datetime as dt
import hmac
import threading
from collections.abc import Callable

from router.clock import Clock
from router.key_format import is_impossible
from router.ledger.keys import SCOPES, Caller
from router.ledger.unavailable import LedgerUnavailableError

KNOWN_KEY_FOR_S = 5.0
"""How long a key that was found is trusted without asking the ledger: so long may a revoked key still work."""
KNOWN_WHILE_AWAY_S = 900.0
"""The same while the ledger cannot be asked: what needs no ledger (`POST /v1/decisions`) goes on for so long."""
KNOWN_KEYS = 10_000


class KeyRing:
    """Thread-safe."""

    def __init__(self, find: Callable[[str], Caller | None], *, bootstrap: str | None, clock: Clock) -> None:
        self._find = find
        self._bootstrap = None if bootstrap is None else bootstrap.encode()
        self._house = Caller("default", SCOPES, "bootstrap key", is_house=True)
        self._clock = clock
        self._known: dict[str, tuple[Caller, float, float]] = {}
        """Caller, when the ledger was last asked, and when it last answered."""
        self._lock = threading.Lock()
        self._used: dict[str, dt.datetime] = {}
        """By id: when the ledger was last asked for a key that is valid."""

    def remembered(self, key: str) -> Caller | None:
        """The same as `caller`, where the ledger need not be asked; None: it has to be, or the key is not valid."""
        if not key:
            return None
        if self._bootstrap is not None and hmac.compare_digest(key.encode(), self._bootstrap):
            return self._house
        known = self._known.get(key)
        if known is None or self._clock.monotonic() - known[1] >= KNOWN_KEY_FOR_S:
            return None
        return self._unless_expired(known[0])

    def caller(self, key: str) -> Caller | None:
        """The key's merchant and scopes; None for a key that is not valid. Raises LedgerUnavailableError."""
        remembered = self.remembered(key)
        if remembered is not None:
            return remembered
        now = self._clock.monotonic()
        known = self._known.get(key)
        if known is not None and now - known[1] < KNOWN_KEY_FOR_S:
            return self._unless_expired(known[0])
        if known is None and is_impossible(key):
            return None
        if known is not None and now - known[2] <= KNOWN_WHILE_AWAY_S:
            # While one asks, which can take as long as a key is trusted, the others need not wait for it.
            with self._lock:
                if key in self._known:
                    self._known[key] = (known[0], now, known[2])
        try:
            caller = self._find(key)
        except LedgerUnavailableError:
            with self._lock:
                known = self._known.get(key)  # looked at again: another may have been told that it is revoked
                if known is None or now - known[2] > KNOWN_WHILE_AWAY_S:
                    raise
                # From when it failed: the next one, too, would wait all that time for nothing.
                self._known[key] = (known[0], self._clock.monotonic(), known[2])
            return self._unless_expired(known[0])
        with self._lock:
            if caller is None:
                self._known.pop(key, None)
            else:
                if len(self._known) >= KNOWN_KEYS:
                    self._known.clear()
                self._known[key] = (caller, now, now)
                # Every few seconds while it is used: that is exact enough, and no request pays for it.
                self._used[caller.key_id] = self._clock.now()
        return None if caller is None else self._unless_expired(caller)

    def take_used(self) -> dict[str, dt.datetime]:
        """When keys were used last, by id: those that were used since this was asked before."""
        with self._lock:
            used, self._used = self._used, {}
        return used

    def _unless_expired(self, caller: Caller) -> Caller | None:
        """A key that is remembered ends in time, also while the ledger cannot say so."""
        return caller if caller.expires_at is None or caller.expires_at > self._clock.now() else None
