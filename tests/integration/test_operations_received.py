"""Adyen only *receives* a capture, cancel or refund: how it stands until the webhook, and what that makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from typing import Any

import pytest

from tests.integration.desk import LetterBox, letter_box
from tests.integration.till import AMOUNT, SETTINGS, Till, conflict

ADYEN = [each for each in SETTINGS if each[1] == "adyen"]


pytestmark = [
    pytest.mark.either_database,
    pytest.mark.parametrize("operating_shop", ADYEN, indirect=True, ids="-".join, scope="module"),
]


@pytest.fixture
def box(till: Till) -> Iterator[LetterBox]:
    with letter_box(till.shop) as box:
        yield box


def post(till: Till, box: LetterBox) -> None:
    """Everything that Adyen has told so far comes in, and is applied."""
    box.forward_all()
    till.read_notices()


def pending(till: Till, body: dict[str, Any]) -> bool:
    """Whether the payment's capture waits for its webhook."""
    found: bool = till.shop.read(body["id"])["capture_pending"]
    return found


def test_a_capture_is_pending_until_the_webhook_confirms_it(till: Till, box: LetterBox) -> None:
    """Captured and pending, without a doubt; then captured."""
    body = till.authorized()
    now = till.done(body, "capture", {"amount": 700})
    assert (now["status"], now["amount_captured"], now["capture_pending"]) == ("captured", 700, True)
    assert till.operations(body["id"]) == [("capture", "received", 700)]
    assert till.settled(body)
    till.resolve()
    assert pending(till, body), "the worker knows no more than Adyen has said"
    post(till, box)
    assert not pending(till, body)
    assert till.operations(body["id"]) == [("capture", "done", 700)]
    assert till.totals(body) == till.book(body) == ("captured", 700, 0)


def test_a_pending_capture_is_a_capture(till: Till, box: LetterBox) -> None:
    """Not captured again and not canceled meanwhile; it can be refunded, and its webhook still counts."""
    body = till.authorized()
    till.done(body, "capture")
    conflict(till.do(body, "capture"), "captured")
    conflict(till.do(body, "cancel"), "captured")
    assert till.done(body, "refunds", {"amount": 700})["amount_refunded"] == 700
    assert pending(till, body)
    post(till, box)
    assert not pending(till, body)
    assert till.operations(body["id"]) == [("capture", "done", AMOUNT), ("refund", "done", 700)]
    assert till.totals(body) == till.book(body) == ("captured", AMOUNT, 700)


def test_a_capture_that_fails_afterwards_is_no_capture(till: Till, box: LetterBox) -> None:
    """CAPTURE_FAILED takes it back, and it may be captured anew: once, in the books."""
    body = till.authorized()
    till.done(body, "capture")
    post(till, box)
    till.happen("adyen", body["reference"], "capture_failed")
    post(till, box)
    assert till.totals(body) == till.book(body) == ("authorized", 0, 0)
    assert not pending(till, body)
    assert till.operations(body["id"]) == [("capture", "failed", AMOUNT)]
    conflict(till.do(body, "refunds"), "authorized")
    till.done(body, "capture", {"amount": 700})
    assert pending(till, body)
    post(till, box)
    assert till.totals(body) == till.book(body) == ("captured", 700, 0)
    assert not pending(till, body)


def test_a_capture_that_the_webhook_refuses_did_not_happen(till: Till, box: LetterBox) -> None:
    """Received, then `success: false`: what was shown as captured is taken back."""
    body = till.authorized()
    box.all_told()
    (attempt,) = body["attempts"]
    core = till.shop.core
    core.providers["adyen"].void(
        attempt["provider_reference"], idempotency_key=f"hand-{body['id']}", timeouts=core.sender.timeouts(5.0)
    )
    assert till.done(body, "capture")["status"] == "captured"
    refusal = box.all_told()[-1]
    assert b'"CAPTURE"' in refusal[2]
    box.forward(refusal)
    till.read_notices()
    assert till.totals(body) == ("authorized", 0, 0)
    assert not pending(till, body)
    post(till, box)
    assert till.totals(body) == till.book(body) == ("canceled", 0, 0)


def test_a_cancel_is_believed_and_then_confirmed(till: Till, box: LetterBox) -> None:
    """Canceled at once, and nothing is captured any more; the attempt is canceled with the webhook."""
    body = till.authorized()
    assert till.done(body, "cancel")["status"] == "canceled"
    assert till.operations(body["id"]) == [("void", "received", AMOUNT)]
    conflict(till.do(body, "capture"), "canceled")
    post(till, box)
    now = till.shop.read(body["id"])
    assert (now["status"], now["attempts"][0]["outcome"]) == ("canceled", "canceled")
    assert till.operations(body["id"]) == [("void", "done", AMOUNT)]
    assert till.book(body) == ("canceled", 0, 0)


@pytest.mark.parametrize("kind", ["refund_failed", "refund_reversed"])
def test_a_refund_that_fails_afterwards_can_be_made_again(till: Till, box: LetterBox, kind: str) -> None:
    """The money is the merchant's again: the amount goes down, and all of it may be refunded."""
    body = till.paid()
    till.done(body, "refunds", {"amount": 700})
    till.done(body, "refunds", {"amount": 500})
    post(till, box)
    assert till.totals(body) == ("captured", AMOUNT, 1200)
    till.happen("adyen", body["reference"], kind)
    post(till, box)
    assert till.totals(body) == till.book(body) == ("captured", AMOUNT, 700)
    assert till.operations(body["id"]) == [("refund", "done", 700), ("refund", "failed", 500)]
    conflict(till.do(body, "refunds", {"amount": 1300}), "captured")
    till.done(body, "refunds")
    post(till, box)
    assert till.totals(body) == ("captured", AMOUNT, AMOUNT)
    assert till.book(body) == ("refunded", AMOUNT, AMOUNT)


def test_equal_refunds_are_told_apart(till: Till, box: LetterBox) -> None:
    """Two of 500, and the webhook of the second is twice there, the first one's never: one each, no more."""
    body = till.paid()
    box.forward_all()
    for _ in range(2):
        till.done(body, "refunds", {"amount": 500})
    letters = box.all_told()
    second = letters[-1]
    assert b'"REFUND"' in second[2]
    for _ in range(2):
        box.forward(second)
    till.read_notices()
    assert sorted(each[1] for each in till.operations(body["id"])) == ["done", "received"]
    assert till.totals(body) == till.book(body) == ("captured", AMOUNT, 1000)


def test_every_order_of_the_webhooks_is_the_same_end(till: Till, box: LetterBox) -> None:
    """Captured, refunded, refund failed, in every order, the approval last: each ends as the books have it."""
    for order in permutations((1, 2, 3)):
        body = till.authorized()
        till.done(body, "capture", {"amount": 700})
        till.done(body, "refunds", {"amount": 200})
        box.all_told()
        till.happen("adyen", body["reference"], "refund_failed")
        letters = box.all_told()
        box.requests.clear()
        assert len(letters) == 4
        for number in (*order, 0):
            box.forward(letters[number])
            till.read_notices()
        assert till.totals(body) == till.book(body) == ("captured", 700, 0)
        assert not pending(till, body)
        assert till.settled(body)
