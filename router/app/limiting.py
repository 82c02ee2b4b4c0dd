"""What the web's keys and limits need built, and the loop that keeps them in step with the ledger."""

from __future__ import annotations

from router.api.key_ring import KeyRing
from router.app.core import Core
from router.ledger.keys import KeyLedger
from router.ledger.unavailable import LedgerUnavailableError
from router.loops import Loop, Loops

KEYS_INTERVAL_S = 60.0
"""How often it is written when keys were used last, in one commit."""


def add_limits(loops: Loops, core: Core, ring: KeyRing) -> None:
    """Add the web's loops."""
    ledger = KeyLedger(core.database)

    def keys() -> int:
        used = ring.take_used()
        try:
            ledger.used(used)
        except LedgerUnavailableError:
            pass  # the next use says it again
        return ledger.end_expired(core.clock.now())

    loops.add(Loop("keys", keys, loops.pause(KEYS_INTERVAL_S)))
