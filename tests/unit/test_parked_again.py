"""An accepted order whose try was cut off, and of which its provider proves nothing, waits on."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import pytest

from router import audit
from router.ledger.engine import Database
from router.ledger.operations import CHECKOUT
from router.ledger.records import Payment
from router.settling import HELD_DEAD, settle
from tests.fakes.home import Home
from tests.fakes.house import an_order, drain, parked_loop
from tests.fakes.providers import REFUSED, UNKNOWN

NOTHING_CHARGED = dataclasses.replace(REFUSED, reason="acquirer_error", provider_reference="ref_1", final_record=True)


@pytest.fixture
def home(database: Database) -> Home:
    return Home(database)


def in_doubt(home: Home, *, parked: bool = True, **order: Any) -> Payment:
    """A payment whose try has no answer; one that was parked before, if so."""
    if parked:
        for provider in (home.stripe, home.adyen):
            provider.outcomes.append(REFUSED)
    home.stripe.outcomes.extend([UNKNOWN] * 3)
    payment = home.house.pay(an_order(**order)).payment
    if parked:
        assert payment.status == "parked"
        home.clock.advance(15)
        drain(home.house, parked_loop(home.house), within_s=0.1)
    assert home.status(payment) == "processing"
    return payment


def resolved(home: Home, *, after_s: float = 61.0) -> None:
    """The provider's own record says of the same key that nothing was charged."""
    home.stripe.outcomes.append(NOTHING_CHARGED)
    home.clock.advance(after_s)
    home.resolver.run_once()


def test_it_is_parked_again_and_paid_once(home: Home, database: Database) -> None:
    """By a new attempt under a new key."""
    payment = in_doubt(home)
    resolved(home)
    now, attempts, _ = home.now(payment)
    assert (now.status, now.tries, now.failure, now.resolve_at, now.attempt_id) == ("parked", 2, None, None, None)
    assert now.next_try_at is not None
    assert now.next_try_at > home.clock.now()
    assert now.holds_reference
    home.clock.advance(600)
    drain(home.house, parked_loop(home.house), within_s=1)
    now, attempts, _ = home.now(payment)
    assert now.status == "captured"
    assert [each.outcome for each in attempts].count("approved") == 1
    assert len({each.idempotency_key for each in attempts}) == len(attempts)
    assert [each for progress in audit.verify(database) for each in progress.differences] == []


def test_one_that_was_never_parked_fails_as_before(home: Home) -> None:
    payment = in_doubt(home, parked=False)
    resolved(home)
    assert home.status(payment) == "failed"


def test_one_whose_time_is_over_fails(home: Home) -> None:
    until = home.clock.now() + dt.timedelta(minutes=1)
    payment = in_doubt(home, expires_at=until.isoformat())
    resolved(home)
    now = home.now(payment)[0]
    assert (now.status, now.failure, now.holds_reference) == ("failed", "expired", False)


@pytest.mark.parametrize("why", ["canceled", "held dead", "given up", "a person's word", "no record"])
def test_what_is_not_proved_or_not_wanted_is_not_tried_again(home: Home, why: str) -> None:
    """Checkout has asked to cancel it meanwhile; its provider only knows nothing; a person has said so."""
    payment = in_doubt(home)
    now, attempts, operations = home.now(payment)
    journal = home.journals.open(now, attempts, operations)
    last = dataclasses.replace(attempts[-1], outcome="not_executed", final_record=True)
    if why == "canceled":
        void = home.journals.operation(journal, last, "void", now.amount, asked_by=CHECKOUT)
        journal.ask(void)
        journal.learned(dataclasses.replace(void, state="refused"))
    if why == "held dead":
        # Beside what is proved: another attempt of it, that is not.
        first = dataclasses.replace(attempts[0], outcome="not_executed", final_record=False, reason=HELD_DEAD)
        journal.learned(first)
    if why == "a person's word":
        last = dataclasses.replace(last, final_record=False, reason="operator")
    if why == "no record":
        last = dataclasses.replace(last, final_record=False, reason="rate_limited")
    journal.learned(last)
    settle(journal, event="told", now=home.clock.now(), given_up=why == "given up")
    assert home.status(payment) == ("canceled" if why == "given up" else "failed")
