"""What the state of a payment allows: captures, cancels and refunds, whole and in part; the rest is a 409."""

from __future__ import annotations

from typing import Any

import pytest

from router.transitions import State, following
from tests.integration.desk import OTHER
from tests.integration.till import AMOUNT, ANSWERED, Till, conflict

pytestmark = pytest.mark.either_database

DECLINE = {"stripe": "stolen_card", "adyen": "5"}


# ---------------------------------------------------------------- what is allowed


def test_a_capture_without_an_amount_takes_all(till: Till) -> None:
    """All of it, once, in the provider's books and in the ledger; Adyen's is pending until its webhook."""
    body = till.authorized()
    now = till.done(body, "capture")
    assert (now["status"], now["amount_captured"]) == ("captured", AMOUNT)
    assert now["capture_pending"] is (till.primary == "adyen")
    assert till.book(body) == ("captured", AMOUNT, 0)
    assert till.operations(body["id"]) == [("capture", ANSWERED[till.primary], AMOUNT)]
    assert till.settled(body)


@pytest.mark.parametrize("amount", [1, 700, AMOUNT])
def test_a_capture_takes_what_is_asked(till: Till, amount: int) -> None:
    """A part, from the least to all."""
    body = till.authorized()
    assert till.done(body, "capture", {"amount": amount})["amount_captured"] == amount
    assert till.totals(body) == till.book(body) == ("captured", amount, 0)


def test_a_cancel_releases_the_authorization(till: Till) -> None:
    """Canceled in the books too, nothing captured, and the reference is free."""
    body = till.authorized()
    assert till.done(body, "cancel")["status"] == "canceled"
    assert till.book(body) == ("canceled", 0, 0)
    assert till.settled(body)
    assert till.shop.pay(reference=body["reference"]).status_code == 201


def test_refunds_add_up_to_what_was_captured_and_not_more(till: Till) -> None:
    """Three parts and the rest; one unit too many is refused each time, and then anything."""
    body = till.paid()
    for amount, so_far in ((500, 500), (1, 501), (998, 1499)):
        conflict(till.do(body, "refunds", {"amount": AMOUNT - so_far + amount + 1}), "captured")
        assert till.done(body, "refunds", {"amount": amount})["amount_refunded"] == so_far
        assert till.book(body) == ("captured", AMOUNT, so_far)
    assert till.done(body, "refunds")["amount_refunded"] == AMOUNT
    assert till.book(body) == ("refunded", AMOUNT, AMOUNT)
    for asked in (None, {"amount": 1}, {"amount": AMOUNT}):
        conflict(till.do(body, "refunds", asked), "captured")
    assert till.book(body) == ("refunded", AMOUNT, AMOUNT)
    assert till.totals(body) == ("captured", AMOUNT, AMOUNT)
    assert [each[2] for each in till.operations(body["id"])] == [500, 1, 998, 500]


def test_of_a_partial_capture_no_more_than_that_part_is_refunded(till: Till) -> None:
    """700 of 1999 taken: 701 back is too much, all that is left is 700."""
    body = till.authorized()
    till.done(body, "capture", {"amount": 700})
    conflict(till.do(body, "refunds", {"amount": 701}), "captured")
    conflict(till.do(body, "refunds", {"amount": AMOUNT}), "captured")
    assert till.book(body) == ("captured", 700, 0)
    assert till.done(body, "refunds")["amount_refunded"] == 700
    assert till.book(body) == ("refunded", 700, 700)


def test_a_payment_that_waits_for_its_customer_can_be_canceled(till: Till) -> None:
    """Canceled at the provider: whoever takes the step afterwards is not charged."""
    body = till.waiting()
    now = till.done(body, "cancel")
    assert (now["status"], now["next_action"]) == ("canceled", None)
    conflict(till.do(body, "complete"), "canceled")
    assert till.books(body["reference"]) == []


# ---------------------------------------------------------------- what is not


def refused(till: Till, body: dict[str, Any], status: str, *calls: tuple[str, Any]) -> None:
    """Each of these calls is a 409 naming that status, and changes nothing, here or there."""
    before = till.trace(), till.row(body["id"])
    for what, asked in calls:
        conflict(till.do(body, what, asked), status)
    assert (till.trace(), till.row(body["id"])) == before


def test_an_authorized_payment_has_nothing_to_refund_or_complete(till: Till) -> None:
    """And no more can be captured of it than was authorized."""
    body = till.authorized()
    more = {"amount": AMOUNT + 1}
    refused(till, body, "authorized", ("refunds", None), ("refunds", {"amount": 1}), ("complete", None))
    refused(till, body, "authorized", ("capture", more), ("capture", {"amount": 999_999_999}))
    assert till.book(body) == ("authorized", 0, 0)
    till.done(body, "capture")


@pytest.mark.parametrize("taken", [700, AMOUNT])
def test_a_payment_captured_by_a_call_is_neither_captured_again_nor_canceled(till: Till, taken: int) -> None:
    """A second capture is refused even where the first left something: it is once."""
    body = till.authorized()
    till.done(body, "capture", {"amount": taken})
    refused(
        till, body, "captured", ("capture", None), ("capture", {"amount": 1}), ("cancel", None), ("complete", None)
    )
    assert till.book(body) == ("captured", taken, 0)


def test_a_payment_captured_at_once_is_neither_captured_nor_canceled(till: Till) -> None:
    """Also after it was refunded, in part or whole."""
    body = till.paid()
    calls = (("capture", None), ("capture", {"amount": 1}), ("cancel", None), ("complete", None))
    refused(till, body, "captured", *calls)
    till.done(body, "refunds", {"amount": 1})
    refused(till, body, "captured", *calls)
    till.done(body, "refunds")
    refused(till, body, "captured", *calls)


def test_a_declined_payment_allows_nothing(till: Till) -> None:
    """Nobody holds money of it."""
    till.shop.fault(till.primary, "decline", decline_code=DECLINE[till.primary])
    body = till.shop.pay().json or {}
    till.shop.fault(till.primary, "ok")
    assert body["status"] == "declined"
    refused(till, body, "declined", ("capture", None), ("cancel", None), ("refunds", None), ("complete", None))


def test_a_canceled_payment_allows_nothing(till: Till) -> None:
    """Not even to be canceled again."""
    body = till.authorized()
    till.done(body, "cancel")
    refused(till, body, "canceled", ("capture", None), ("cancel", None), ("refunds", None), ("complete", None))
    assert till.book(body) == ("canceled", 0, 0)


def test_a_payment_that_waits_for_its_customer_has_no_money_to_move(till: Till) -> None:
    """Neither captured nor refunded."""
    refused(till, till.waiting(), "requires_action", ("capture", None), ("refunds", None))


def test_a_payment_in_doubt_is_not_touched(till: Till) -> None:
    """What nobody knows to be authorized is neither captured, canceled, refunded nor completed."""
    till.shop.fault(till.primary, "lose_reply", calls="authorize")
    body = till.shop.pay(capture="manual").json or {}
    assert body["status"] == "processing"
    refused(till, body, "processing", ("capture", None), ("cancel", None), ("refunds", None), ("complete", None))


def test_a_parked_payment_can_only_be_canceled(till: Till) -> None:
    """No provider holds it: it is simply not tried again."""
    for name in OTHER:
        till.shop.fault(name, "down")
    body = till.shop.pay().json or {}
    assert body["status"] == "parked"
    refused(till, body, "parked", ("capture", None), ("refunds", None), ("complete", None))
    assert till.done(body, "cancel")["status"] == "canceled"
    for name in OTHER:
        till.shop.fault(name, "ok")
    till.change_all(f"next_try_at = 0 WHERE id = '{body['id']}' AND next_try_at IS NOT NULL")
    till.shop.parked().run_once()
    assert till.totals(body) == ("canceled", 0, 0)
    assert till.books(body["reference"]) == []
    refused(till, body, "canceled", ("capture", None), ("cancel", None), ("refunds", None))


def test_a_refusal_uses_up_no_key(till: Till) -> None:
    """The same key does what is allowed afterwards."""
    body = till.authorized()
    conflict(till.do(body, "refunds", key=f"once-{body['id']}"), "authorized")
    till.done(body, "capture")
    assert till.done(body, "refunds", key=f"once-{body['id']}")["amount_refunded"] == AMOUNT


# ---------------------------------------------------------------- an open circuit


def test_an_open_circuit_stops_no_operation(till: Till) -> None:
    """It keeps new authorizations away; what stands at a provider is always its own to change."""
    held, other = till.authorized(), till.authorized()
    health, clock = till.shop.core.health, till.shop.core.clock

    def move(state: State) -> None:
        last = health.snapshot(till.primary).last
        told = following(
            last, state, provider=till.primary, at=clock.now(), actor="test", reason="told to", failed_rounds=0
        )
        assert health.propose(told)

    move(State.OPEN)
    try:
        assert (till.shop.pay().json or {})["provider"] == OTHER[till.primary]
        assert till.done(held, "capture")["amount_captured"] == AMOUNT
        assert till.done(held, "refunds")["amount_refunded"] == AMOUNT
        assert till.done(other, "cancel")["status"] == "canceled"
    finally:
        move(State.CLOSED)
    assert till.book(held) == ("refunded", AMOUNT, AMOUNT)
    assert till.book(other) == ("canceled", 0, 0)
