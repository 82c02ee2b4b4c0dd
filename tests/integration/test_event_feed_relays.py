"""One process at a time passes events on; another follows it within its lease, and none moves what is not its own."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor

import pytest

from router.ledger.engine import Database
from router.ledger.event_feed import START, EventFeed, Position
from router.ledger.payments import PaymentLedger
from router.ledger.relays import LeaseLostError, Relay, RelayLedger
from tests.fakes.payments import NOW, a_payment

LEASE = dt.timedelta(seconds=6)
THERE = Position(0, 7)


def _taken(relays: RelayLedger, holder: str, at: dt.datetime = NOW, start: Position = START) -> Relay | None:
    return relays.take("kafka", holder, now=at, until=at + LEASE, start=start)


def _advance(relays: RelayLedger, relay: Relay, to: Position, at: dt.datetime = NOW) -> Relay:
    return relays.advance(relay, to, now=at, until=at + LEASE)


def test_while_a_lease_runs_nobody_else_has_it(database: Database) -> None:
    """Its holder keeps it by asking again."""
    relays = RelayLedger(database)
    first = _taken(relays, "a", start=THERE)
    assert first is not None
    assert (first.position, first.holder, first.lease_until) == (THERE, "a", NOW + LEASE)
    assert _taken(relays, "b", NOW + LEASE / 2) is None
    kept = _taken(relays, "a", NOW + LEASE / 2)
    assert kept is not None
    assert kept.lease_until == NOW + 1.5 * LEASE
    assert _taken(relays, "b", NOW + LEASE) is None


def test_of_many_that_ask_at_once_one_has_it(database: Database) -> None:
    """At the very beginning, and when a lease has run out."""
    relays = RelayLedger(database)
    with ThreadPoolExecutor(6) as pool:
        for at in (NOW, NOW + 2 * LEASE):
            found = list(pool.map(lambda holder, at=at: _taken(relays, f"{holder} {at}", at), range(6)))
            assert len([each for each in found if each is not None]) == 1


def test_who_follows_goes_on_where_the_one_before_had_delivered(database: Database) -> None:
    """Once its lease has run out, or at once where it was given back."""
    relays = RelayLedger(database)
    first = _taken(relays, "a")
    assert first is not None
    _advance(relays, first, THERE)
    second = _taken(relays, "b", NOW + LEASE)
    assert second is not None
    assert second.position == THERE
    relays.release("kafka", "a")  # which it has not got any more
    assert _taken(relays, "c", NOW + LEASE) is None
    relays.release("kafka", "b")
    assert _taken(relays, "c", NOW + LEASE) is not None


def test_who_was_paused_past_its_lease_moves_nothing(database: Database) -> None:
    """Neither the position nor the word on what fails: it stops."""
    relays = RelayLedger(database)
    paused = _taken(relays, "a")
    following = _taken(relays, "b", NOW + LEASE)
    assert paused is not None
    assert following is not None
    with pytest.raises(LeaseLostError):
        _advance(relays, paused, THERE)
    with pytest.raises(LeaseLostError):
        relays.failing(paused, "no broker", now=NOW, until=NOW + LEASE)
    (lag,) = relays.lags(NOW)
    assert lag.relay == following


def test_a_position_that_a_person_moved_is_not_moved_back(database: Database) -> None:
    """Who was delivering asks again, and begins there."""
    relays = RelayLedger(database)
    first = _taken(relays, "a", start=THERE)
    assert first is not None
    assert relays.move("kafka", START)
    with pytest.raises(LeaseLostError):
        _advance(relays, first, Position(0, 9))
    again = _taken(relays, "a")
    assert again is not None
    assert again.position == START
    assert not relays.move("no such relay", START)


def test_a_failure_lasts_until_something_is_delivered(database: Database) -> None:
    """Whichever process sees it: since when is kept, the cause is the latest."""
    relays = RelayLedger(database)
    relay = _taken(relays, "a")
    assert relay is not None
    relay = relays.failing(relay, "no broker", now=NOW, until=NOW + LEASE)
    second = _taken(relays, "b", NOW + LEASE)
    assert second is not None
    second = relays.failing(second, "refused", now=NOW + LEASE, until=NOW + 2 * LEASE)
    assert (second.failing_since, second.cause) == (NOW, "refused")
    second = _advance(relays, second, THERE, NOW + LEASE)
    assert (second.failing_since, second.cause, second.updated_at) == (None, None, NOW + LEASE)


def test_the_lag_is_what_is_not_delivered_and_the_age_of_its_oldest(database: Database) -> None:
    """In events and seconds; none when all is delivered."""
    relays, ledger, feed = RelayLedger(database), PaymentLedger(database), EventFeed(database)
    relay = _taken(relays, "a")
    assert relay is not None
    for number in range(3):
        at = NOW + dt.timedelta(seconds=number)
        payment = a_payment(f"pay_{number}", created_at=at, updated_at=at)
        ledger.create(payment, key=payment.id, fingerprint="f", repeat=False, first=None)
    events, _ = feed.after(START, 2)
    for delivered, events_left, seconds in ((START, 3, 10.0), (events[0].position, 2, 9.0)):
        if delivered != START:
            relay = _advance(relays, relay, delivered)
        (lag,) = relays.lags(NOW + dt.timedelta(seconds=10))
        assert (lag.relay.name, lag.events, lag.seconds) == ("kafka", events_left, seconds)
    _advance(relays, relay, feed.head())
    (lag,) = relays.lags(NOW + dt.timedelta(seconds=10))
    assert (lag.events, lag.seconds) == (0, 0.0)


def test_a_relay_that_is_forgotten_is_gone(database: Database) -> None:
    """It was the last of a broker that is no more."""
    relays = RelayLedger(database)
    _taken(relays, "a")
    assert relays.forget("kafka")
    assert not relays.forget("kafka")
    assert relays.lags(NOW) == []
