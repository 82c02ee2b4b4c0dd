"""The ledger's promises: compare-and-set, one commit a transition, and events that add up to the row."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from router.ledger.engine import Database
from router.ledger.payments import PaymentLedger
from router.ledger.records import Attempt, KeyTakenError, NewKey, Payment, ReferenceInUseError, StaleError
from router.ledger.tables import attempts, metadata, payment_events, payments
from tests.integration.conftest import OpenShop
from tests.integration.shop import Shop, order, paying_with

NOW = dt.datetime(2026, 11, 21, 2, 3, 4, 567891, tzinfo=dt.UTC)
LATER = NOW + dt.timedelta(seconds=7)


@pytest.fixture
def ledger(database: Database) -> PaymentLedger:
    return PaymentLedger(database)


def _payment(number: int = 1, **changed: Any) -> Payment:
    payment = Payment(
        id=f"pay_{number}",
        merchant="shop",
        reference=f"ORD-{number}",
        status="processing",
        amount=1999,
        currency="EUR",
        order={
            "reference": "ORD",
            "metadata": {
                "\u043a\u043b\u044e\u0447": "\u0437\u043d\u0430\u0447\u0435\u043d\u0438\u0435 \U0001f4b3",
                "quote": '"\\',
            },
        },
        flags={"primary": "stripe"},
        decision={"candidates": []},
        created_at=NOW,
        updated_at=NOW,
        expires_at=NOW + dt.timedelta(days=1),
        version=1,
        lease_holder="me",
        lease_until=LATER,
    )
    return dataclasses.replace(payment, **changed)


def _attempt(payment: Payment, number: int = 1) -> Attempt:
    # Names out of order on purpose: parameters are sent again exactly as they were written.
    params = {"z": 1, "a": {"y": [1, 2.5, None, True], "b": "\u00e9\u2028"}, "amount": 10**12}
    return Attempt(f"att_{payment.id}_{number}", payment.id, number, "stripe", f"key-{number}", params, NOW)


def _create(ledger: PaymentLedger, payment: Payment, *, key: str = "k", repeat: bool = False) -> Payment:
    ledger.create(payment, key=key, fingerprint="f", repeat=repeat, first=_attempt(payment))
    return payment


def test_what_is_written_is_read_again(ledger: PaymentLedger) -> None:
    """To the microsecond, to the last nested value, and with the parameters' names in the order of their writing."""
    payment = _create(ledger, _payment(amount=999_999_999_999))
    found = ledger.get(payment.id)
    assert found is not None
    assert found[0] == payment
    assert list(found[1]) == [_attempt(payment)]
    assert json.dumps(found[1][0].params) == json.dumps(_attempt(payment).params)
    assert ledger.find_key("shop", "k") == ("f", payment.id)


CHANGED: dict[str, list[Any]] = {
    "status": ["captured", "parked", "processing"],
    "amount_captured": [2**53 + 1, 0],
    "capture_pending": [True, False],
    "told": [True, False],
    "decline": [{"class": "soft", "n": [None, 1.5, "\u00e9"]}, {}, None],
    "next_action": [{"type": "sdk", "z": 1, "a": "\U0001f4b3"}, None],
    "dispute": [{"state": "won"}, None],
    "flags": [{"primary": "adyen"}, {}],
    "decision": [{"candidates": [{"value": 4.62, "eligible": True}]}],
    "lease_until": [LATER, None],
    "resolve_at": [NOW, None],
    "next_try_at": [LATER, None],
    "provider": ["adyen", None],
}


def test_what_a_change_answers_is_what_is_read_then(ledger: PaymentLedger) -> None:
    """Each kind of value set and unset again, one by one and together, by a process that reads nothing between."""
    payment = _create(ledger, _payment(lease_holder=None, lease_until=None))
    steps = [{name: value} for name, values in CHANGED.items() for value in values]
    steps += [{name: values[turn % len(values)] for name, values in CHANGED.items()} for turn in range(3)]
    for number, changes in enumerate(steps):
        now = NOW + dt.timedelta(hours=number + 1, microseconds=number)
        payment = ledger.change(payment, changes, event="changed", now=now)
        found = ledger.get(payment.id)
        assert found is not None
        assert found[0] == payment
        assert {name: getattr(payment, name) for name in changes} == changes
        assert json.dumps(found[0].next_action) == json.dumps(payment.next_action)


def test_how_an_attempt_ended_is_read_again(ledger: PaymentLedger) -> None:
    payment = _create(ledger, _payment())
    ends: list[dict[str, Any]] = [
        {
            "outcome": "unknown",
            "reason": "read_timeout",
            "health": "provider_error",
            "sends": 3,
            "latency_us": 2**40,
            "last_sent_at": LATER,
        },
        {
            "outcome": "approved",
            "provider_reference": "pi_1",
            "capture": "done",
            "was_approved": True,
            "was_canceled": True,
            "final_record": True,
            "fee_actual": 87,
            "fee_currency": "EUR",
            "finished_at": LATER,
        },
        {"outcome": "declined", "decline": {"class": "soft"}, "next_action": {"b": 1, "a": 2}, "was_approved": False},
        {"decline": None, "next_action": None, "reason": None, "last_sent_at": None},
    ]
    attempt = _attempt(payment)
    for changes in ends:
        before, attempt = attempt, dataclasses.replace(attempt, **changes)
        payment = ledger.change(payment, {}, event="changed", now=NOW, holder="me", finished=[attempt], read=[before])
        assert ledger.get(payment.id) == (payment, [attempt])


@pytest.mark.parametrize(
    "held",
    [{"version": 0}, {"version": 2}, {"lease_holder": "somebody else"}, {"lease_holder": None}],
    ids=["older", "newer", "other holder", "no holder"],
)
def test_a_change_from_another_version_or_holder_writes_nothing(ledger: PaymentLedger, held: dict[str, Any]) -> None:
    """StaleError, and payment, attempts, events and key stand as before."""
    payment = _create(ledger, _payment())
    before = ledger.get(payment.id)
    stale = dataclasses.replace(payment, **held)
    ended = dataclasses.replace(_attempt(payment), outcome="approved", finished_at=LATER)
    with pytest.raises(StaleError):
        ledger.change(
            stale,
            {"status": "captured"},
            event="captured",
            now=LATER,
            finished=[ended],
            started=_attempt(payment, 2),
            release_key=True,
        )
    assert ledger.get(payment.id) == before
    assert ledger.find_key("shop", "k") is not None


def test_a_change_of_a_payment_that_is_let_go_needs_nobody_to_hold_it(ledger: PaymentLedger) -> None:
    """Somebody took it over meanwhile: whoever still believes that it is free stops."""
    free = _create(ledger, _payment(lease_holder=None, lease_until=None))
    taken = ledger.change(free, {"lease_holder": "worker", "lease_until": LATER}, event="taken", now=LATER)
    assert (taken.version, taken.lease_holder) == (2, "worker")
    with pytest.raises(StaleError):
        ledger.change(free, {"status": "failed"}, event="failed", now=LATER)
    with pytest.raises(StaleError):
        ledger.change(dataclasses.replace(taken, lease_holder=None), {"status": "failed"}, event="failed", now=LATER)


def test_of_many_changes_at_once_one_is_written(ledger: PaymentLedger) -> None:
    """Eight threads from the same version, twenty times: one wins each time, and the versions have no gap."""
    payment = _create(ledger, _payment())

    def change(number: int) -> Payment | None:
        try:
            return ledger.change(payment, {"tries": number}, event="tried", now=LATER)
        except StaleError:
            return None

    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            (won,) = [each for each in pool.map(change, range(8)) if each is not None]
            assert won.version == payment.version + 1
            payment = won
    found = ledger.get(payment.id)
    assert found is not None
    assert found[0] == payment


def test_one_key_makes_one_payment(ledger: PaymentLedger) -> None:
    """The second is refused, and leaves nothing behind; another merchant's key of that name is another key."""
    _create(ledger, _payment(1))
    with pytest.raises(KeyTakenError):
        _create(ledger, _payment(2))
    assert ledger.get("pay_2") is None
    _create(ledger, _payment(3, merchant="other"))


def test_a_key_that_is_consumed_and_a_ledger_that_contradicts_itself_are_told_apart(
    ledger: PaymentLedger, database: Database
) -> None:
    """The first is checkout's double call; the second is a fault that no replay mends, and must be seen."""
    ledger.create(_payment(), key="k", fingerprint="f", repeat=False, first=None)
    payment = _payment()
    with pytest.raises(KeyTakenError):
        ledger.change(payment, {}, event="claimed", now=LATER, key=NewKey("k", "g"))
    with database.write() as connection:
        row = {"payment_id": "pay_1", "version": 2, "type": "from nowhere", "changes": {}, "at": 0}
        connection.execute(payment_events.insert(), row)
    with pytest.raises(sa.exc.IntegrityError):
        ledger.change(payment, {}, event="claimed", now=LATER, key=NewKey("new", "g"))
    assert ledger.find_key("shop", "new") is None
    again = dataclasses.replace(payment, reference="another")
    with pytest.raises(sa.exc.IntegrityError):
        ledger.create(again, key="another", fingerprint="f", repeat=False, first=None)


@pytest.mark.parametrize("refusal", [ReferenceInUseError, StaleError])
def test_a_reference_that_is_taken_as_a_payment_is_reopened_stays_taken(
    ledger: PaymentLedger, monkeypatch: pytest.MonkeyPatch, refusal: type[Exception]
) -> None:
    """Another order came between the look and the commit; by the time we look again it may have ended."""
    declined = _payment(status="declined", holds_reference=False)
    ledger.create(declined, key="k", fingerprint="f", repeat=False, first=None)
    other = _payment(2, reference=declined.reference)
    ledger.create(other, key="other", fingerprint="f", repeat=False, first=None)
    looks = iter([None, other.id if refusal is ReferenceInUseError else None])
    monkeypatch.setattr("router.ledger.payments._Statements.holder_of", lambda *_: next(looks))
    with pytest.raises(refusal):
        ledger.change(declined, {"status": "captured"}, event="captured", now=LATER)
    found = ledger.get(declined.id)
    assert found is not None
    assert found[0] == declined


def test_a_payment_that_another_process_reopened_first_is_not_its_own_rival(ledger: PaymentLedger) -> None:
    """Were it told that its reference is another's, the second would undo what the first has found paid."""
    declined = _payment(status="declined", holds_reference=False)
    ledger.create(declined, key="k", fingerprint="f", repeat=False, first=None)
    paid = ledger.change(declined, {"status": "captured"}, event="captured", now=LATER)
    with pytest.raises(StaleError):
        ledger.change(declined, {"status": "captured"}, event="captured", now=LATER)
    found = ledger.get(declined.id)
    assert found is not None
    assert found[0] == paid


def test_what_is_to_be_resolved_is_taken_up_in_order(ledger: PaymentLedger, database: Database) -> None:
    """The longest waiting first, whether they wait for a time or for a lease to run out; none is starved."""
    order = [7, 2, 9, 4, 1, 8, 3, 6, 0, 5]
    for number in order:
        waits = NOW + dt.timedelta(seconds=number)
        when = {"lease_holder": "gone", "lease_until": waits} if number % 3 == 0 else {"resolve_at": waits}
        ledger.create(_payment(number, **when), key=f"k{number}", fingerprint="f", repeat=False, first=None)
    with database.write() as connection:
        # Written again, PostgreSQL puts a row behind the others.
        connection.execute(sa.text("UPDATE payments SET contact_at = 1 WHERE id IN ('pay_1', 'pay_2')"))
    in_order = [f"pay_{number}" for number in range(9)]
    due = NOW + dt.timedelta(seconds=8)
    assert ledger.due_unresolved(due, limit=100) == in_order
    assert ledger.due_unresolved(due, limit=3) == in_order[:3]


def test_of_many_creations_at_once_one_is_written(ledger: PaymentLedger) -> None:
    """Eight threads with one key, then eight with one reference: one payment each time, and the right refusal."""

    def create(number: int, key: str, reference: str) -> str:
        try:
            _create(ledger, _payment(number, reference=reference), key=key)
        except KeyTakenError:
            return "key"
        except ReferenceInUseError as error:
            return error.payment_id
        return "made"

    with ThreadPoolExecutor(8) as pool:
        for turn in range(10):
            numbers = range(turn * 100, turn * 100 + 8)
            by_key = list(pool.map(lambda n, turn=turn: create(n, f"k{turn}", f"r{n}"), numbers))
            assert sorted(by_key) == ["key"] * 7 + ["made"]
            numbers = range(turn * 100 + 50, turn * 100 + 58)
            by_reference = list(pool.map(lambda n, turn=turn: create(n, f"own{n}", f"same{turn}"), numbers))
            winner = f"pay_{numbers[by_reference.index('made')]}"
            assert sorted(by_reference) == sorted([winner] * 7 + ["made"])


@pytest.mark.parametrize("status", ["processing", "requires_action", "authorized", "parked", "captured"])
def test_an_open_or_paid_payment_holds_its_reference(ledger: PaymentLedger, status: str) -> None:
    """And names itself to whoever wants it; a repeat that is allowed does not hold it."""
    payment = _create(ledger, _payment(1))
    ledger.change(payment, {"status": status}, event=status, now=LATER)
    with pytest.raises(ReferenceInUseError) as taken:
        _create(ledger, _payment(2, reference="ORD-1"), key="k2")
    assert taken.value.payment_id == "pay_1"
    _create(ledger, _payment(3, reference="ORD-1", holds_reference=False), key="k3", repeat=True)


@pytest.mark.parametrize("status", ["declined", "failed", "canceled"])
def test_a_payment_that_came_to_nothing_lets_its_reference_go(ledger: PaymentLedger, status: str) -> None:
    """The order may be paid by another payment."""
    payment = _create(ledger, _payment(1))
    ledger.change(payment, {"status": status}, event=status, now=LATER)
    _create(ledger, _payment(2, reference="ORD-1"), key="k2")


def _fold(connection: sa.Connection, payment_id: str) -> dict[str, Any]:
    """A payment's row as its events, applied one after the other, make it."""
    query = payment_events.select().where(payment_events.c.payment_id == payment_id)
    row: dict[str, Any] = {}
    for number, event in enumerate(connection.execute(query.order_by(payment_events.c.version)).mappings(), 1):
        assert event["version"] == number == event["changes"]["version"]
        assert event["at"] == event["changes"]["updated_at"]
        row |= event["changes"]
    return row


def test_folding_the_events_of_a_payment_gives_its_row(shops: OpenShop) -> None:
    """For every way that a payment can end: captured, declined, doubtful, parked, paid later, refused."""
    shop = shops(parked_retry_seconds=0.01, breaker_minimum_calls=1000)
    _have_every_kind_of_payment(shop)
    with shop.core.database.read() as connection:
        rows = [dict(row) for row in connection.execute(payments.select()).mappings()]
        assert {row["status"] for row in rows} == {
            *("captured", "authorized", "declined", "processing", "parked", "failed", "requires_action")
        }
        for row in rows:
            assert _fold(connection, row["id"]) == row


def test_no_payment_that_has_ended_its_request_is_held(shops: OpenShop) -> None:
    """Whoever comes next (a worker, a replay) finds it free, and every attempt but a doubtful one finished."""
    shop = shops(parked_retry_seconds=0.01, breaker_minimum_calls=1000)
    _have_every_kind_of_payment(shop)
    with shop.core.database.read() as connection:
        assert connection.execute(payments.select().where(payments.c.lease_holder.is_not(None))).all() == []
        assert connection.execute(attempts.select().where(attempts.c.finished_at.is_(None))).all() == []


def _have_every_kind_of_payment(shop: Shop) -> None:
    shop.pay()
    shop.pay(capture="manual")
    shop.pay(payment_method=paying_with(stripe="pm_card_threeDSecure2Required"))
    shop.pay(payment_method=paying_with(stripe="pm_card_visa_chargeDeclinedStolenCard"))
    shop.fault("stripe", "lose_reply")
    shop.pay()
    shop.fault("stripe", "down")
    shop.pay()
    shop.fault("adyen", "down")
    shop.pay(when_unavailable="fail")
    first = shop.pay().json or {}
    soon = shop.core.clock.now() + dt.timedelta(milliseconds=1)
    shop.pay(order(expires_at=soon.isoformat()))
    shop.core.clock.sleep(0.02)
    shop.parked().run_once()
    shop.fault("stripe", "ok")
    shop.core.payments.retry_parked(first["id"])
    assert shop.read(first["id"])["status"] == "captured"
    shop.fault("stripe", "down")
    shop.pay()


def test_every_table_is_one_that_a_test_has_seen(shop: Shop) -> None:
    """A new table must be counted among those that a refused request leaves alone."""
    shop.pay()
    by_itself = {"heartbeats", "provider_counts", "score_counts", "flag_values", "flag_changes"} | {
        "parked_ramp",
        *("provider_accounts", "merchant_volumes", "sealing_keys", "sealing_processes"),
        *("event_clock", "report_facts", "report_cells", "report_state"),
    }
    assert set(shop.counts()) | by_itself == set(metadata.tables)
    assert shop.counts()["payments"] == 1
