"""Keys while the ledger is away: deciding, which needs no ledger, goes on for a while with those that were known."""

from __future__ import annotations

import pytest

from router.api.gate import KNOWN_KEY_FOR_S, KNOWN_WHILE_AWAY_S, KeyRing
from router.clock import ManualClock
from router.ledger.keys import Caller
from router.ledger.unavailable import LedgerUnavailableError

SHOP = Caller("shop", frozenset({"payments"}))


class Keys:
    """The ledger's; it can be away, and counts how often it is asked."""

    def __init__(self) -> None:
        self.away = False
        self.asked = 0
        self.known: dict[str, Caller] = {"key": SHOP}

    def find(self, key: str) -> Caller | None:
        self.asked += 1
        if self.away:
            raise LedgerUnavailableError("away")
        return self.known.get(key)


def test_a_known_key_is_trusted_for_a_while_and_a_new_one_is_not() -> None:
    clock, keys = ManualClock(), Keys()
    ring = KeyRing(keys.find, bootstrap=None, clock=clock)
    assert ring.caller("key") == SHOP
    keys.away = True
    clock.advance(KNOWN_KEY_FOR_S)
    asked = keys.asked
    for _ in range(5):
        assert ring.caller("key") == SHOP
    assert keys.asked == asked + 1  # asking can take seconds: not with every request
    with pytest.raises(LedgerUnavailableError):
        ring.caller("another")
    while clock.monotonic() <= KNOWN_WHILE_AWAY_S - KNOWN_KEY_FOR_S:
        clock.advance(KNOWN_KEY_FOR_S)
        assert ring.caller("key") == SHOP
    clock.advance(2 * KNOWN_KEY_FOR_S)
    with pytest.raises(LedgerUnavailableError):
        ring.caller("key")


def test_a_key_that_was_revoked_meanwhile_is_refused_as_soon_as_the_ledger_is_back() -> None:
    clock, keys = ManualClock(), Keys()
    ring = KeyRing(keys.find, bootstrap=None, clock=clock)
    assert ring.caller("key") == SHOP
    keys.away = True
    clock.advance(KNOWN_KEY_FOR_S)
    assert ring.caller("key") == SHOP
    keys.away, keys.known = False, {}
    clock.advance(KNOWN_KEY_FOR_S)
    assert ring.caller("key") is None
