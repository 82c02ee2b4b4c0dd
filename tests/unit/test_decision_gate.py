"""Keys while the ledger is away: deciding, which needs no ledger, goes on for a while with those that were known."""

from __future__ import annotations

import pytest

from router.api.key_ring import KNOWN_KEY_FOR_S, KNOWN_WHILE_AWAY_S, KeyRing
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


def test_while_the_ledger_takes_seconds_to_be_away_requests_do_not_wait_one_after_the_other() -> None:
    """A connection that is waited for as long as a key is trusted: asked with every request, none would be quick."""
    clock, keys = ManualClock(), Keys()

    def slow(key: str) -> Caller | None:
        if keys.away:
            clock.advance(2 * KNOWN_KEY_FOR_S)
        return keys.find(key)

    ring = KeyRing(slow, bootstrap=None, clock=clock)
    assert ring.caller("key") == SHOP
    keys.away = True
    clock.advance(KNOWN_KEY_FOR_S)
    asked = keys.asked
    for _ in range(5):
        assert ring.caller("key") == SHOP
    assert keys.asked == asked + 1


def test_while_one_request_asks_the_others_go_on_with_a_known_key() -> None:
    clock, keys = ManualClock(), Keys()
    others: list[Caller | None] = []

    def asking(key: str) -> Caller | None:
        if keys.away:
            keys.away = False
            others.append(ring.caller(key))  # comes while the first still waits for its answer
            keys.away = True
        return keys.find(key)

    ring = KeyRing(asking, bootstrap=None, clock=clock)
    assert ring.caller("key") == SHOP
    asked, keys.away = keys.asked, True
    clock.advance(KNOWN_KEY_FOR_S)
    assert ring.caller("key") == SHOP
    assert (others, keys.asked) == ([SHOP], asked + 1)


def test_a_key_that_another_request_was_told_is_revoked_does_not_come_back() -> None:
    """Two ask at once: one is told that the key is revoked, the other does not reach the ledger."""
    clock, keys = ManualClock(), Keys()
    revoked: list[Caller | None] = []

    def raced(key: str) -> Caller | None:
        if keys.away:
            keys.away, keys.known = False, {}
            clock.advance(KNOWN_KEY_FOR_S)
            revoked.append(ring.caller(key))
            keys.away = True
        return keys.find(key)

    ring = KeyRing(raced, bootstrap=None, clock=clock)
    assert ring.caller("key") == SHOP
    keys.away = True
    clock.advance(KNOWN_KEY_FOR_S)
    for _ in range(3):
        with pytest.raises(LedgerUnavailableError):
            ring.caller("key")
    assert revoked == [None] * 3
