"""The worker's loop over parked payments, by a manual clock: recovery, expiry, cancel, dead letters, turns."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from flags.contract import RoutingFlags
from router.audit import verify
from router.ledger.alerts import AlertLedger
from router.ledger.engine import Database
from router.ledger.journal import Journals
from router.ledger.parked import ParkedLedger
from router.ledger.payments import PaymentLedger
from router.ledger.records import Payment, StaleError
from router.ledger.tables import to_micros
from router.ledger.unavailable import LedgerUnavailableError
from router.modifications import Modifications
from router.parked import CLAIM, FAULTS_AT_MOST
from router.parked_terms import LONGEST_WAIT_S
from router.payments import AlreadyExpiredError, PaymentBusyError, ProvidersUnavailableError
from router.sending import Sender
from router.transitions import State
from tests.fakes.house import DEADLINE_S, TIMES, House, an_order, build_house, drain, move, parked_loop
from tests.fakes.providers import REFUSED, FakeProvider, declined
from tests.fakes.threads import together

NAMES = ("stripe", "adyen")


@pytest.fixture
def house(database: Database) -> House:
    """A process whose circuits are open."""
    house = build_house(database, [FakeProvider(name) for name in NAMES])
    outage(house)
    return house


@pytest.fixture
def ledger(database: Database) -> ParkedLedger:
    return ParkedLedger(database)


def outage(house: House) -> None:
    for name in NAMES:
        move(house.health, name, State.OPEN, house.clock)


def recovery(house: House, *names: str) -> None:
    for name in names or NAMES:
        move(house.health, name, State.CLOSED, house.clock)


def park(house: House, count: int = 1, *, merchant: str = "m", **order: Any) -> Sequence[Payment]:
    answers = [
        house.payments.create(
            an_order(**order), merchant=merchant, key=f"key-{merchant}-{number}-{house.clock.now()}"
        )
        for number in range(count)
    ]
    assert {each.payment.status for each in answers} == {"parked"}
    return [each.payment for each in answers]


def stored(house: House, payment: Payment) -> Payment:
    found = house.ledger.get(payment.id)
    assert found is not None
    return found[0]


def modifications(house: House) -> Modifications:
    clock = house.clock
    return Modifications(
        ledger=house.ledger,
        journals=Journals(house.ledger, deadline_s=DEADLINE_S, clock=clock, ids=house.payments._ids),
        sender=Sender(house.providers, TIMES, clock=clock, random=lambda: 0.5),
        deadline_s=DEADLINE_S,
        clock=clock,
    )


def sound(database: Database) -> bool:
    return not [each for progress in verify(database) for each in progress.differences]


# ---------------------------------------------------------------- recovery


def test_a_recovery_wakes_who_would_have_waited_for_minutes(house: House, database: Database) -> None:
    """Parked for hours, the next try is ten minutes away; a circuit that closes makes it due."""
    loop = parked_loop(house)
    (payment,) = park(house)
    loop.run_once()
    house.clock.advance(3600)
    house.ledger.postpone(payment, house.clock.now() + dt.timedelta(seconds=LONGEST_WAIT_S), now=payment.updated_at)
    assert drain(house, loop, within_s=5) == 0
    recovery(house, "adyen")
    assert drain(house, loop, within_s=1) == 1
    assert stored(house, payment).provider == "adyen"
    assert sound(database)


def test_a_worker_that_begins_after_the_recovery_wakes_them_too(house: House, ledger: ParkedLedger) -> None:
    """Whoever should have seen it was dead; what has been tried since waits its time."""
    (payment,) = park(house)
    house.ledger.postpone(payment, house.clock.now() + dt.timedelta(seconds=LONGEST_WAIT_S), now=payment.updated_at)
    house.clock.advance(1)
    recovery(house)
    house.clock.advance(5)
    for provider in house.providers.values():
        provider.outcomes.append(REFUSED)
    (later,) = park(house)
    assert drain(house, parked_loop(house), within_s=2) == 1
    assert [stored(house, each).status for each in (payment, later)] == ["captured", "parked"]


def test_the_rest_of_them_is_woken_by_another_where_the_first_one_died(
    house: House, ledger: ParkedLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That a recovery was seen is on record until everybody is awake."""
    monkeypatch.setattr("router.ledger.parked.WAKE_BATCH", 2)
    payments = park(house, 5)
    for each in payments:
        house.ledger.postpone(each, house.clock.now() + dt.timedelta(hours=1), now=each.updated_at)
    house.clock.advance(60)
    recovery(house)
    assert ledger.recovered(house.clock.now(), since=house.clock.now(), restart=True)
    assert ledger.wake(house.clock.now()) == 2  # and then that worker dies
    assert drain(house, parked_loop(house), within_s=3) == 5


def test_a_provider_that_is_switched_on_again_is_a_recovery(database: Database) -> None:
    """The team took them all out, and brings one back."""
    house = build_house(database, [FakeProvider(name) for name in NAMES])
    house.flags.flags = RoutingFlags(enabled=dict.fromkeys(NAMES, False))

    def is_enabled(name: str) -> bool:
        return house.flags.flags.is_enabled(name)

    loop = parked_loop(house, is_enabled=is_enabled)
    (payment,) = park(house)
    house.clock.advance(1000)
    assert drain(house, loop, within_s=2) == 0
    assert (stored(house, payment).next_try_at or house.clock.now()) > house.clock.now()
    house.flags.flags = RoutingFlags(enabled={"stripe": False})
    assert drain(house, loop, within_s=1) == 1


def test_a_recovery_that_could_not_be_written_is_seen_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger was away at that moment."""
    loop = parked_loop(house)
    (payment,) = park(house)
    loop.run_once()
    house.ledger.postpone(payment, house.clock.now() + dt.timedelta(seconds=LONGEST_WAIT_S), now=payment.updated_at)
    house.clock.advance(30)
    recovery(house)
    with monkeypatch.context() as patch:

        def away(*_args: object, **_named: object) -> bool:
            raise LedgerUnavailableError("OperationalError")

        patch.setattr(ParkedLedger, "recovered", away)
        with pytest.raises(LedgerUnavailableError):
            loop.run_once()
    assert drain(house, loop, within_s=1) == 1


def test_one_recovery_seen_by_two_workers_begins_the_rate_anew_once(house: House, ledger: ParkedLedger) -> None:
    now = house.clock.now()
    assert ledger.recovered(now + dt.timedelta(seconds=10), since=now, restart=True)
    assert not ledger.recovered(now + dt.timedelta(seconds=10.3), since=now, restart=True)


# ---------------------------------------------------------------- how fast


def test_providers_that_have_just_come_back_are_not_stampeded(house: House) -> None:
    """Fifty wait; five are tried in the first second, and twice as many every other second, by two workers."""
    park(house, 50)
    first, second = parked_loop(house), parked_loop(house)
    for each in (first, second):
        each.run_once()
    house.clock.advance(60)
    recovery(house)
    calls = []
    for _ in range(6):
        before = sum(len(each.calls) for each in house.providers.values())
        for _ in range(10):
            first.run_once()
            second.run_once()
            house.clock.advance(0.1)
        calls.append(sum(len(each.calls) for each in house.providers.values()) - before)
    assert calls[0] <= 6
    assert all(now <= 5 * 2 ** ((number + 1) // 2) * 1.25 for number, now in enumerate(calls))
    assert sum(calls) == 50, calls


def test_a_decline_does_not_slow_the_rest_down(house: House) -> None:
    """It is a healthy provider's answer."""
    park(house, 40)
    loop = parked_loop(house)
    loop.run_once()
    recovery(house)
    house.providers["stripe"].outcomes.extend([declined(cascade=False)] * 40)
    assert drain(house, loop, within_s=7) == 40


def test_tries_that_fail_slow_the_rest_down(house: House, ledger: ParkedLedger, database: Database) -> None:
    """What they came to is told with the next claim."""
    park(house, 12)
    loop = parked_loop(house)
    loop.run_once()
    house.clock.advance(15)
    recovery(house)
    loop.run_once()
    now = to_micros(house.clock.now())
    with database.write() as connection:
        connection.exec_driver_sql(
            f"UPDATE parked_ramp SET rate = 40, good = 0, began_at = {now}, spent_until = {now}"
        )
    for provider in house.providers.values():
        provider.outcomes.extend([REFUSED] * 4)
    drain(house, loop, within_s=0.3)
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT rate FROM parked_ramp").scalar_one() < 40


def test_no_more_are_under_way_than_there_are_places(house: House) -> None:
    """Four places, and providers that do not answer."""
    park(house, 30)
    tasks: list[Any] = []
    loop = parked_loop(house, at_once=4, start=tasks.append)
    loop.run_once()
    recovery(house)
    for _ in range(40):
        loop.run_once()
        house.clock.advance(0.1)
    assert len(tasks) == 4
    tasks.pop()()
    loop.run_once()
    assert len(tasks) == 4


def test_a_try_that_gets_no_thread_costs_no_place(house: House) -> None:
    """Its claim runs out, and it is tried then."""
    (payment,) = park(house)
    recovery(house)
    house.clock.advance(15)
    refused: list[object] = []

    def start(task: Any) -> None:
        if not refused:
            refused.append(task)
            raise RuntimeError("can't start new thread")
        task()

    loop = parked_loop(house, at_once=1, start=start)
    with pytest.raises(RuntimeError, match="thread"):
        loop.run_once()
    assert drain(house, loop, within_s=CLAIM.total_seconds() + 1) == 1
    assert stored(house, payment).status == "captured"


# ---------------------------------------------------------------- whose turn


def test_the_ten_of_one_merchant_do_not_wait_for_the_many_of_another(house: House) -> None:
    """Though all of the other's were parked before."""
    park(house, 100, merchant="large")
    house.clock.advance(1)
    small = park(house, 10, merchant="small")
    loop = parked_loop(house)
    loop.run_once()
    house.clock.advance(15)
    recovery(house)
    drain(house, loop, within_s=4)
    assert {stored(house, each).status for each in small} == {"captured"}
    assert sum(len(each.calls) for each in house.providers.values()) < 60


def test_each_of_many_merchants_has_its_turn(house: House, ledger: ParkedLedger) -> None:
    """One payment a claim, and each claim goes on behind the last."""
    for merchant in ("a", "b", "c"):
        park(house, 3, merchant=merchant)
    owners = []
    for _ in range(9):
        house.clock.advance(20)
        now = house.clock.now()
        (taken,) = ledger.claim(now, until=now + dt.timedelta(days=1), limit=1, good=0, bad=0, most_per_s=9.0).ids
        found = house.ledger.get(taken)
        assert found is not None
        owners.append(found[0].merchant)
    assert owners == ["a", "b", "c"] * 3
    house.clock.advance(20)
    now = house.clock.now()
    assert ledger.claim(now, until=now, limit=9, good=0, bad=0, most_per_s=9.0).ids == []


def test_what_one_claim_takes_is_dealt_out_among_the_merchants(
    house: House, ledger: ParkedLedger, database: Database
) -> None:
    """Six at once: two of each, and not six of the first."""
    for merchant in ("a", "b", "c"):
        park(house, 6, merchant=merchant)
    house.clock.advance(20)
    now = house.clock.now()
    ledger.recovered(now, since=now, restart=True)
    with database.write() as connection:
        connection.exec_driver_sql(f"UPDATE parked_ramp SET rate = 100, spent_until = {to_micros(now) - 1_000_000}")
    taken = ledger.claim(now, until=now, limit=6, good=0, bad=0, most_per_s=100.0).ids
    found = [house.ledger.get(each) for each in taken]
    owners = Counter(each[0].merchant for each in found if each is not None)
    assert owners == {"a": 2, "b": 2, "c": 2}


# ---------------------------------------------------------------- claims


def test_a_claim_keeps_others_away_until_it_runs_out(house: House, ledger: ParkedLedger, database: Database) -> None:
    """The worker that had it died between the claim and its try."""
    (payment,) = park(house)
    house.clock.advance(20)
    now = house.clock.now()
    assert ledger.claim(now, until=now + CLAIM, limit=5, good=0, bad=0, most_per_s=9.0).ids == [payment.id]
    assert sound(database)
    recovery(house)
    loop = parked_loop(house)
    assert drain(house, loop, within_s=CLAIM.total_seconds() - 1) == 0
    assert drain(house, loop, within_s=2) == 1
    assert sound(database)


def test_what_nobody_takes_this_time_is_not_claimed_any_more(house: House, database: Database) -> None:
    """Tried and parked again, or postponed without a try: its next time is by the clock alone."""
    recovery(house)
    for provider in house.providers.values():
        provider.outcomes.append(REFUSED)
    (payment,) = park(house)
    house.clock.advance(20)
    for provider in house.providers.values():
        provider.outcomes.append(REFUSED)
    drain(house, parked_loop(house), within_s=1)
    again = stored(house, payment)
    assert (again.status, again.tries, again.claimed_until) == ("parked", 2, None)
    assert sound(database)


def test_workers_on_threads_pay_each_payment_once(house: House) -> None:
    """Four of them, at one instant, over one ledger."""
    payments = park(house, 12)
    recovery(house)
    loops = [parked_loop(house) for _ in range(4)]
    for _ in range(40):
        house.clock.advance(1)
        together([each.run_once for each in loops])
    assert {stored(house, each).status for each in payments} == {"captured"}
    calls = [call.payment_id for each in house.providers.values() for call in each.calls]
    assert sorted(calls) == sorted(each.id for each in payments)


# ---------------------------------------------------------------- expiry, cancel


def test_expiry_says_so_and_comes_while_everything_is_down(house: House, database: Database) -> None:
    (payment,) = park(house, expires_at=(house.clock.now() + dt.timedelta(minutes=5)).isoformat())
    loop = parked_loop(house)
    house.clock.advance(299)
    assert loop.run_once() == 0
    house.clock.advance(1)
    assert loop.run_once() == 1
    ended = stored(house, payment)
    assert (ended.status, ended.failure, ended.holds_reference) == ("failed", "expired", False)
    assert sound(database)


def test_an_expiry_in_the_past_is_refused(house: House) -> None:
    with pytest.raises(AlreadyExpiredError):
        park(house, expires_at=house.clock.now().isoformat())


def test_a_cancel_wins_over_a_try_that_has_not_begun(house: House, ledger: ParkedLedger) -> None:
    """Even over one that is claimed, and whose worker has read the payment already."""
    (payment,) = park(house)
    recovery(house)
    house.clock.advance(20)
    now = house.clock.now()
    assert ledger.claim(now, until=now + CLAIM, limit=5, good=0, bad=0, most_per_s=9.0).ids == [payment.id]
    plan = house.payments._planner.plan

    def canceled_meanwhile(*args: Any) -> Any:
        modifications(house).cancel("m", payment.id, key="cancel")
        return plan(*args)

    house.payments._planner.plan = canceled_meanwhile  # type: ignore[assignment, method-assign]
    answer = house.payments.retry_parked(payment.id)
    assert answer is not None
    assert answer.payment.status == "canceled"
    assert [each.calls for each in house.providers.values()] == [[], []]
    assert drain(house, parked_loop(house), within_s=1) == 0


def test_a_cancel_during_a_try_has_to_ask_again(house: House) -> None:
    """The provider may be charging at this moment."""
    (payment,) = park(house)
    recovery(house)
    house.clock.advance(20)
    refused = []

    def cancel(_call: object) -> None:
        with pytest.raises(PaymentBusyError):
            modifications(house).cancel("m", payment.id, key="cancel")
        refused.append(True)

    house.providers["stripe"].during = cancel
    assert drain(house, parked_loop(house), within_s=1) == 1
    assert (stored(house, payment).status, refused) == ("captured", [True])


# ---------------------------------------------------------------- errors of ours


def poison(database: Database, *payments: Payment) -> None:
    with database.write() as connection:
        for each in payments:
            connection.exec_driver_sql(f"UPDATE payments SET \"order\" = '{{}}' WHERE id = '{each.id}'")


def heal(database: Database, payment: Payment) -> None:
    order = json.dumps(payment.order).replace("'", "''")
    with database.write() as connection:
        connection.exec_driver_sql(f"UPDATE payments SET \"order\" = '{order}' WHERE id = '{payment.id}'")


def test_after_five_errors_of_ours_it_waits_for_a_person_who_is_told(
    house: House, database: Database, ledger: ParkedLedger
) -> None:
    """Checkout sees it parked, with no time; re-driven once the fault is mended, it is paid."""
    (payment,) = park(house)
    poison(database, payment)
    recovery(house)
    loop = parked_loop(house)
    house.clock.advance(15)
    for number in range(1, FAULTS_AT_MOST):
        drain(house, loop, within_s=1)
        assert (stored(house, payment).faults, stored(house, payment).dead_at) == (number, None)
        house.clock.advance(15)
    drain(house, loop, within_s=1)
    dead = stored(house, payment)
    assert (dead.status, dead.faults, dead.next_try_at) == ("parked", FAULTS_AT_MOST, None)
    assert dead.dead_at is not None
    ((listed, cause),) = ledger.dead(merchant="m", limit=9, after=None)
    assert (listed, cause) == (dead, "ValidationError")
    assert ledger.dead(merchant="other", limit=9, after=None) == []
    (alert,) = AlertLedger(database).all()
    assert (alert.kind, alert.detail["payment"]) == ("parked_dead_letter", payment.id)
    house.clock.advance(3600)
    drain(house, loop, within_s=1)
    assert stored(house, payment) == dead
    heal(database, payment)
    assert ledger.redrive(payment.id, merchant="other", by="x", now=house.clock.now()) is None
    redriven = ledger.redrive(payment.id, merchant="m", by="x", now=house.clock.now())
    assert redriven == stored(house, payment)
    assert drain(house, loop, within_s=1) == 1
    paid = stored(house, payment)
    assert (paid.status, paid.faults, paid.dead_at) == ("captured", 0, None)
    with pytest.raises(StaleError):
        ledger.redrive(payment.id, merchant="m", by="x", now=house.clock.now())
    assert sound(database)


def test_many_dead_letters_of_one_hour_are_one_alert(house: House, database: Database, ledger: ParkedLedger) -> None:
    """A fault of ours that fails every payment is one thing to hear of; the next hour's is another."""
    now = house.clock.now()
    for number, each in enumerate(park(house, 4)):
        at = now + dt.timedelta(minutes=25 * number)
        assert ledger.failed(each.id, cause="KeyError", now=at, again_at=at, at_most=1, alert_id=f"alert_{number}")
    assert [each.id for each in AlertLedger(database).all()] == ["alert_0", "alert_3"]


def test_a_clean_round_forgives_the_errors_before_it(house: House, ledger: ParkedLedger, database: Database) -> None:
    """Only errors in a row are a poison payment's."""
    (payment,) = park(house)
    now = house.clock.now()
    for _ in range(FAULTS_AT_MOST - 1):
        ledger.failed(payment.id, cause="KeyError", now=now, again_at=now, at_most=FAULTS_AT_MOST, alert_id="a")
    house.payments.retry_parked(payment.id)  # every circuit is open: put off, and nothing wrong with it
    assert stored(house, payment).faults == 0
    assert sound(database)


def test_an_error_after_the_try_has_begun_is_the_resolvers(house: House, ledger: ParkedLedger) -> None:
    """It is `processing`: a provider may have charged."""
    (payment,) = park(house)
    recovery(house)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(house.payments), "_finish", lambda *_args, **_named: 1 / 0)
        house.clock.advance(15)
        drain(house, parked_loop(house), within_s=1)
    now = stored(house, payment)
    assert (now.status, now.faults, now.dead_at) == ("processing", 0, None)


def test_a_dead_letter_can_be_canceled_and_expires(house: House, ledger: ParkedLedger, database: Database) -> None:
    """Nothing was charged for it; its order is free again."""
    canceled, expires = park(house, 2)
    now = house.clock.now()
    for each in (canceled, expires):
        assert ledger.failed(each.id, cause="KeyError", now=now, again_at=now, at_most=1, alert_id="alert")
    assert modifications(house).cancel("m", canceled.id, key="c").payment.status == "canceled"
    house.clock.advance(24 * 3600)
    assert parked_loop(house).run_once() == 1
    ended = stored(house, expires)
    assert (ended.status, ended.failure, ended.dead_at) == ("failed", "expired", None)
    assert sound(database)


# ---------------------------------------------------------------- the ledger is away; a stop


def test_a_ledger_that_goes_away_is_told_to_the_loop_and_costs_no_fault(house: House) -> None:
    (payment,) = park(house)
    recovery(house)
    house.clock.advance(15)
    loop = parked_loop(house)
    with pytest.MonkeyPatch.context() as patch:

        def away(*_args: Any) -> None:
            raise LedgerUnavailableError("OperationalError")

        patch.setattr(PaymentLedger, "get", away)
        with pytest.raises(LedgerUnavailableError):
            loop.run_once()
    assert (stored(house, payment).faults, stored(house, payment).status) == (0, "parked")
    assert drain(house, loop, within_s=CLAIM.total_seconds() + 1) == 1


def test_a_stop_waits_for_the_tries_under_way_and_begins_none(house: House) -> None:
    """A try that is cut off leaves a doubt behind."""
    park(house, 3)
    recovery(house)
    stop, inside, go_on = threading.Event(), threading.Event(), threading.Event()

    def slow(_call: object) -> None:
        inside.set()
        assert go_on.wait(10)

    house.providers["stripe"].during = slow
    house.clock.advance(15)
    threads: list[threading.Thread] = []

    def start(task: Any) -> None:
        threads.append(threading.Thread(target=task, daemon=True))
        threads[-1].start()

    loop = parked_loop(house, stopping=stop.is_set, start=start)
    loop.run_once()
    assert inside.wait(10)
    stop.set()
    house.clock.advance(15)
    last = threading.Thread(target=loop.run_once, daemon=True)
    last.start()
    last.join(0.1)
    assert last.is_alive()
    go_on.set()
    last.join(10)
    assert not last.is_alive()
    assert len(threads) == 1
    assert len(house.providers["stripe"].calls) == 1


# ---------------------------------------------------------------- what does not wait


def test_a_merchant_that_does_not_park_is_told_at_once(database: Database) -> None:
    """Nothing is created, and the key stays free."""
    house = build_house(database, [FakeProvider(name) for name in NAMES])
    outage(house)
    house.payments._when_unavailable = lambda merchant: "fail" if merchant == "m" else "park"
    with pytest.raises(ProvidersUnavailableError):
        house.pay(an_order(), key="k")
    assert house.ledger.find_key("m", "k") is None
    assert house.pay(an_order(when_unavailable="park"), key="k").payment.status == "parked"
    park(house, merchant="other")


def test_what_was_accepted_is_not_refused_when_its_merchant_changes_its_mind(house: House) -> None:
    (payment,) = park(house)
    recovery(house)
    house.payments._when_unavailable = lambda _merchant: "fail"
    for provider in house.providers.values():
        provider.outcomes.append(REFUSED)
    house.clock.advance(15)
    drain(house, parked_loop(house), within_s=1)
    assert stored(house, payment).status == "parked"


# ---------------------------------------------------------------- what a review found


def test_a_merchant_behind_many_that_have_nothing_due_has_its_turn(
    house: House, ledger: ParkedLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of theirs is a dead letter; a claim looks at so many merchants, and the next one behind them."""
    monkeypatch.setattr("router.ledger.parked.MERCHANTS_AT_ONCE", 2)
    now = house.clock.now()
    for merchant in ("a", "b", "c", "d", "e"):
        (dead,) = park(house, merchant=merchant)
        assert ledger.failed(dead.id, cause="KeyError", now=now, again_at=now, at_most=1, alert_id=f"al_{merchant}")
    (payment,) = park(house, merchant="z")
    house.clock.advance(15)
    recovery(house)
    assert drain(house, parked_loop(house), within_s=3) == 1
    assert stored(house, payment).status == "captured"


def test_a_recovery_wakes_once_whom_it_does_not_help(house: House, database: Database) -> None:
    """Their merchant may use the other provider only: they are looked at, put off, and left alone after that."""
    house.payments._planner._allowed = lambda _merchant: ["adyen"]
    for each in park(house, 4):
        house.ledger.postpone(each, house.clock.now() + dt.timedelta(hours=1), now=each.updated_at)
    loop = parked_loop(house)
    loop.run_once()
    house.clock.advance(60)
    recovery(house, "stripe")
    with pytest.MonkeyPatch.context() as patch:
        looked_at: list[str] = []
        retry = house.payments.retry_parked

        def counted(payment_id: str) -> Any:
            looked_at.append(payment_id)
            house.clock.advance(0.001)  # a try takes its time
            return retry(payment_id)

        patch.setattr(house.payments, "retry_parked", counted)
        drain(house, loop, within_s=20)
    assert sorted(Counter(looked_at).values()) == [1, 1, 1, 1]
    assert sound(database)


def test_a_worker_that_begins_does_not_undo_a_later_recovery(house: House, ledger: ParkedLedger) -> None:
    """The team brought a provider back a moment ago; the new worker knows of an older recovery, of a circuit."""
    (payment,) = park(house)
    house.clock.advance(60)
    now = house.clock.now()
    house.ledger.postpone(payment, now + dt.timedelta(hours=1), now=now)
    house.clock.advance(1)
    now = house.clock.now()
    assert ledger.recovered(now, since=now, restart=True)
    assert not ledger.recovered(now, since=now - dt.timedelta(seconds=30), restart=False)
    assert ledger.wake(now) == 1


def test_a_fault_of_ours_waits_its_time_while_a_recovery_wakes_the_others(house: House, ledger: ParkedLedger) -> None:
    """Five errors within a second would make a dead letter of what a restart might mend."""
    (payment,) = park(house)
    house.clock.advance(60)
    now = house.clock.now()
    ledger.recovered(now, since=now - dt.timedelta(seconds=1), restart=True)
    again_at = now + dt.timedelta(seconds=15)
    ledger.failed(payment.id, cause="KeyError", now=now, again_at=again_at, at_most=9, alert_id="a")
    assert ledger.wake(now) == 0
    assert stored(house, payment).next_try_at == again_at


def test_expiries_do_not_speed_up_the_rate(house: House) -> None:
    """No provider has answered anything."""
    until = house.clock.now() + dt.timedelta(seconds=60)
    (payment,) = park(house, expires_at=until.isoformat())
    recovery(house)
    house.clock.advance(60)
    loop = parked_loop(house)
    loop._try(payment.id)
    assert stored(house, payment).failure == "expired"
    assert (loop._good, loop._bad) == (0, 0)


def test_how_much_waits_is_read_from_an_index(house: House, ledger: ParkedLedger, database: Database) -> None:
    """`/readyz` is asked every few seconds, and each round of a worker whether anything is due."""
    if not database.is_sqlite:
        pytest.skip("SQLite says how it reads")
    dead, _ = park(house, 2)
    now = house.clock.now()
    assert ledger.failed(dead.id, cause="KeyError", now=now, again_at=now, at_most=1, alert_id="a")
    asked: list[str] = []

    @sa.event.listens_for(database.engine, "before_cursor_execute")
    def note(_connection: Any, cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        cursor.execute("EXPLAIN QUERY PLAN " + statement, parameters)
        asked.extend(row[3] for row in cursor.fetchall())

    waiting = ledger.waiting()
    ledger.is_any_due(now)
    assert (waiting.depth, waiting.dead, waiting.oldest_at) == (2, 1, now)
    assert len(asked) == 2
    assert "COVERING INDEX ix_payments_parked_due" in asked[0]
    assert "INDEX ix_payments_parked_due (next_try_at<?)" in asked[1]
