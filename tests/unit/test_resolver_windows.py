"""Where an attempt is looked for: around its sends, however long it is waited for."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import pytest

from providers.contract import LookUp, LookUpKind
from router.ledger.engine import Database
from router.ledger.records import Attempt
from tests.fakes.home import Home
from tests.fakes.house import DEADLINE_S
from tests.fakes.providers import UNKNOWN, Call

NOT_FOUND = LookUp(LookUpKind.NOT_FOUND)


class ProcessKilled(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


@pytest.fixture
def windows(home: Home, monkeypatch: pytest.MonkeyPatch) -> list[tuple[dt.datetime, dt.datetime]]:
    """The windows that were asked for; the provider has nothing."""
    asked: list[tuple[dt.datetime, dt.datetime]] = []

    def look_up(_attempt_id: str, *, sent_from: dt.datetime, sent_until: dt.datetime, **_named: Any) -> LookUp:
        asked.append((sent_from, sent_until))
        return NOT_FOUND

    monkeypatch.setattr(home.stripe, "look_up", look_up)
    home.stripe.outcomes.extend([UNKNOWN] * 1000)
    return asked


def attempt_of(home: Home, payment_id: str) -> Attempt:
    """Its one attempt."""
    loaded = home.ledger.load(payment_id)
    assert loaded is not None
    (attempt,) = loaded[1]
    return attempt


def give_up(database: Database) -> None:
    """As if the request had died before it answered: nobody was told that the payment goes on."""
    with database.write() as connection:
        connection.exec_driver_sql("update payments set told=0")


def test_a_request_writes_when_it_sent_last(home: Home, windows: list[tuple[dt.datetime, dt.datetime]]) -> None:
    """Three sends, with their waits."""
    payment = home.house.pay().payment
    attempt = attempt_of(home, payment.id)
    assert attempt.last_sent_at == home.clock.now()
    assert attempt.last_sent_at > attempt.started_at
    assert not windows


def test_the_window_ends_with_the_last_send_however_long_it_is_waited_for(
    home: Home, database: Database, windows: list[tuple[dt.datetime, dt.datetime]]
) -> None:
    """Of a payment given up nothing is sent any more, so the window stays as it is."""
    payment = home.house.pay().payment
    sent_last = home.clock.now()
    give_up(database)
    for _ in range(10):
        home.clock.advance(905)
        home.resolver.run_once()
    assert len(windows) >= 2
    assert set(windows) == {(attempt_of(home, payment.id).started_at, sent_last)}


def test_each_resend_moves_the_windows_end(home: Home, windows: list[tuple[dt.datetime, dt.datetime]]) -> None:
    """While checkout still expects the payment."""
    payment = home.house.pay().payment
    for _ in range(3):
        home.clock.advance(61)
        home.resolver.run_once()
        assert windows[-1] == (attempt_of(home, payment.id).started_at, home.clock.now())
    assert len(home.stripe.calls) == 3 + 3


def test_a_request_that_died_may_have_sent_until_its_deadline(
    home: Home, database: Database, windows: list[tuple[dt.datetime, dt.datetime]]
) -> None:
    """It wrote when it began, and no more."""

    def die(_call: Call) -> None:
        raise ProcessKilled

    home.stripe.during = die
    with pytest.raises(ProcessKilled):
        home.house.pay()
    home.stripe.during = None
    give_up(database)
    home.clock.advance(1000)
    home.resolver.run_once()
    ((begun, until),) = windows
    assert until == begun + dt.timedelta(seconds=DEADLINE_S)


def test_a_worker_that_died_has_written_that_it_was_about_to_send(
    home: Home, database: Database, windows: list[tuple[dt.datetime, dt.datetime]]
) -> None:
    """Else what its send made would lie outside every later window."""

    def die(_call: Call) -> None:
        raise ProcessKilled

    payment = home.house.pay().payment
    home.clock.advance(300)
    home.stripe.during = die
    with pytest.raises(ProcessKilled):
        home.resolver.run_once()
    died_at = home.clock.now()
    home.stripe.during = None
    give_up(database)
    home.clock.advance(1000)
    home.resolver.run_once()
    assert windows == [(attempt_of(home, payment.id).started_at, died_at)]


def test_an_attempt_that_is_not_sent_again_keeps_its_last_send(
    home: Home, windows: list[tuple[dt.datetime, dt.datetime]]
) -> None:
    """One that the provider has under its own id is only looked up."""
    home.stripe.outcomes.clear()
    home.stripe.outcomes.append(dataclasses.replace(UNKNOWN, reason="pending", provider_reference="ref_1"))
    payment = home.house.pay().payment
    sent = attempt_of(home, payment.id).last_sent_at
    home.clock.advance(61)
    home.resolver.run_once()
    assert attempt_of(home, payment.id).last_sent_at == sent
    assert windows == [(attempt_of(home, payment.id).started_at, sent)]
