"""Payments that were accepted while nobody could take them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import pytest

from flags.contract import RoutingFlags
from router.ledger.engine import Database
from router.ledger.records import Attempt, Payment
from router.parked import Parked
from router.payments import PARKED_FOR
from router.sending import SENDS_IN_A_REQUEST
from router.transitions import State
from tests.fakes.house import House, an_order, build_house, drain, move, parked_loop
from tests.fakes.providers import CAPTURED, REFUSED, UNKNOWN, FakeProvider, declined
from tests.fakes.threads import together

RETRY_S = 15.0


@pytest.fixture
def house(database: Database) -> House:
    return build_house(database, [FakeProvider("stripe"), FakeProvider("adyen")])


@pytest.fixture
def parked(house: House) -> Parked:
    return parked_loop(house)


def park(house: House, **changes: object) -> Payment:
    """A payment that was refused by both providers' doors."""
    for provider in house.providers.values():
        provider.outcomes.append(REFUSED)
    payment = house.pay(an_order(**changes)).payment
    assert payment.status == "parked"
    return payment


def stored(house: House, payment: Payment) -> tuple[Payment, Sequence[Attempt]]:
    found = house.ledger.get(payment.id)
    assert found is not None
    return found


def test_a_parked_payment_is_tried_when_its_time_has_come(house: House, parked: Parked) -> None:
    """Not before; then it is captured, with new attempts under new keys, numbered on."""
    payment = park(house)
    assert parked.run_once() == 0
    house.clock.advance(RETRY_S - 0.1)
    assert parked.run_once() == 0
    assert stored(house, payment)[0].status == "parked"
    house.clock.advance(0.1)
    assert parked.run_once() == 1
    paid, attempts = stored(house, payment)
    assert (paid.status, paid.provider, paid.amount_captured, paid.next_try_at) == ("captured", "stripe", 1999, None)
    assert [(each.number, each.provider, each.outcome) for each in attempts] == [
        (1, "stripe", "not_executed"),
        (2, "adyen", "not_executed"),
        (3, "stripe", "approved"),
    ]
    assert len({each.idempotency_key for each in attempts}) == 3
    assert parked.run_once() == 0


def test_a_payment_that_nobody_takes_stays_parked_and_is_tried_at_each_interval(house: House, parked: Parked) -> None:
    """Each round counts, and each provider is tried once in it."""
    payment = park(house)
    for tries in (2, 3):
        for provider in house.providers.values():
            provider.outcomes.append(REFUSED)
        house.clock.advance(RETRY_S)
        assert parked.run_once() == 0
        assert stored(house, payment)[0].tries == tries
    assert {name: len(each.calls) for name, each in house.providers.items()} == {"stripe": 3, "adyen": 3}


@pytest.mark.parametrize(
    ("outcome", "status"), [(declined(cascade=False), "declined"), (UNKNOWN, "processing"), (CAPTURED, "captured")]
)
def test_an_answer_ends_the_parking_whatever_it_is(
    house: House, parked: Parked, outcome: object, status: str
) -> None:
    """An unknown outcome above all: it must not be tried as if it had not happened."""
    payment = park(house)
    sends = SENDS_IN_A_REQUEST if outcome is UNKNOWN else 1
    house.providers["stripe"].outcomes.extend([outcome] * sends)  # type: ignore[list-item] # parametrize hides the type
    house.clock.advance(RETRY_S)
    assert parked.run_once() == 1
    assert stored(house, payment)[0].status == status
    house.clock.advance(RETRY_S)
    assert parked.run_once() == 0
    assert len(house.providers["stripe"].calls) == 1 + sends


def test_flags_are_read_anew_for_every_round(house: House, parked: Parked) -> None:
    """The team moved the primary meanwhile."""
    payment = park(house)
    house.flags.flags = RoutingFlags(primary="adyen")
    house.clock.advance(RETRY_S)
    parked.run_once()
    assert stored(house, payment)[0].provider == "adyen"


def test_with_every_circuit_open_nothing_is_tried_and_nothing_is_written(house: House, parked: Parked) -> None:
    """A try could only park it again; when one closes, it is due."""
    payment = park(house)
    for name in house.providers:
        move(house.health, name, State.OPEN, house.clock)
    house.clock.advance(RETRY_S)
    version = stored(house, payment)[0].version
    assert parked.run_once() == 0
    assert stored(house, payment)[0].version == version
    move(house.health, "adyen", State.CLOSED, house.clock)
    assert parked.run_once() == 1
    assert stored(house, payment)[0].provider == "adyen"


@pytest.mark.parametrize("all_open", [False, True])
@pytest.mark.parametrize("own_limit", [False, True])
def test_a_payment_whose_time_is_over_fails_and_is_not_tried(
    house: House, parked: Parked, all_open: bool, own_limit: bool
) -> None:
    """After 24 hours, or when checkout said; with every circuit open as well. Its reference is free again."""
    limit = dt.timedelta(minutes=10) if own_limit else PARKED_FOR
    changes = {"expires_at": (house.clock.now() + limit).isoformat()} if own_limit else {}
    payment = park(house, **changes)
    if all_open:
        for name in house.providers:
            move(house.health, name, State.OPEN, house.clock)
    house.clock.advance(limit.total_seconds())
    assert parked.run_once() == 1
    ended, attempts = stored(house, payment)
    assert (ended.status, ended.next_try_at, ended.lease_holder, len(attempts)) == ("failed", None, None, 2)
    assert len(house.providers["stripe"].calls) == 1
    assert parked.run_once() == 0
    assert not ended.holds_reference


def test_two_workers_try_a_parked_payment_once(house: House, database: Database) -> None:
    """Real threads over one ledger: the first commit of a try is a compare-and-set."""
    for _ in range(5):
        payment = park(house)
        house.clock.advance(RETRY_S)
        calls = len(house.providers["stripe"].calls)
        together([parked_loop(house).run_once, parked_loop(house).run_once])
        assert len(house.providers["stripe"].calls) == calls + 1
        assert stored(house, payment)[0].status == "captured"


def test_a_worker_that_finds_the_payment_taken_tries_nothing(house: House) -> None:
    """It is captured, or being worked on, since the list was read."""
    payment = park(house)
    assert house.payments.retry_parked(payment.id) is not None
    assert house.payments.retry_parked(payment.id) is None
    assert house.payments.retry_parked("pay_of_nobody") is None
    assert len(house.providers["stripe"].calls) == 2


def test_one_payment_that_cannot_be_worked_on_does_not_hold_up_the_others(
    house: House, parked: Parked, database: Database
) -> None:
    """A row that this version cannot read (it stays parked, and is told of) must not be everyone's end."""
    bad, good = park(house), park(house)
    with database.write() as connection:
        connection.exec_driver_sql(f"UPDATE payments SET \"order\" = '{{}}' WHERE id = '{bad.id}'")
    house.clock.advance(RETRY_S)
    assert drain(house, parked, within_s=1) == 1
    assert stored(house, good)[0].status == "captured"
    assert stored(house, bad)[0].status == "parked"
