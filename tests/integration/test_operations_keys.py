"""One Idempotency-Key, one capture, cancel or refund: sent again, sent at once, sent with something else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from werkzeug.test import TestResponse

from router.ledger.payments import PaymentLedger
from tests.fakes.threads import together
from tests.integration.shop import order
from tests.integration.till import AMOUNT, ANSWERED, Till, problem

pytestmark = pytest.mark.either_database

ENDS = {"capture": ("captured", AMOUNT, 0), "cancel": ("canceled", 0, 0), "refunds": ("refunded", AMOUNT, AMOUNT)}
"""How the books have a payment after each call."""
ROUNDS = 4


def ready(till: Till, what: str) -> dict[str, Any]:
    """A payment that allows this call."""
    return till.paid() if what == "refunds" else till.authorized()


def at_once(*calls: Callable[[], TestResponse]) -> list[TestResponse]:
    """The answers to calls made in the same instant, in their order."""
    answers: dict[int, TestResponse] = {}

    def run(number: int, call: Callable[[], TestResponse]) -> None:
        answers[number] = call()

    together([partial(run, number, call) for number, call in enumerate(calls)])
    return [answers[number] for number in range(len(calls))]


@pytest.mark.parametrize("what", ENDS)
def test_a_replay_gives_the_finished_answer(till: Till, what: str) -> None:
    """The same body with Idempotent-Replayed, and the provider hears nothing of it."""
    body = ready(till, what)
    first = till.do(body, what, key=f"k-{body['id']}")
    assert (first.status_code, "Idempotent-Replayed" in first.headers) == (200, False)
    before = till.trace()
    second = till.do(body, what, key=f"k-{body['id']}")
    assert (second.status_code, second.headers["Idempotent-Replayed"]) == (200, "true")
    assert second.json == first.json
    assert till.trace() == before
    assert till.book(body) == ENDS[what]


def test_a_replay_tells_how_the_payment_stands_now(till: Till) -> None:
    """A refund came after the capture: the capture's replay shows it, and captures nothing."""
    body = till.authorized()
    till.done(body, "capture", key=f"k-{body['id']}")
    till.done(body, "refunds", {"amount": 500})
    again = till.do(body, "capture", key=f"k-{body['id']}")
    assert again.headers["Idempotent-Replayed"] == "true"
    assert ((again.json or {})["amount_captured"], (again.json or {})["amount_refunded"]) == (AMOUNT, 500)
    assert till.book(body) == ("captured", AMOUNT, 500)


def test_the_same_key_with_another_body_is_refused(till: Till) -> None:
    """Another amount, or none at all, is another request; nothing moves."""
    body = till.paid()
    key = f"k-{body['id']}"
    till.done(body, "refunds", {"amount": 500}, key=key)
    before = till.trace()
    for asked in ({"amount": 501}, {"amount": 1499}, None):
        problem(till.do(body, "refunds", asked, key=key), 422, "idempotency-key-reused")
    assert till.trace() == before
    assert till.do(body, "refunds", {"amount": 500}, key=key).headers["Idempotent-Replayed"] == "true"
    assert till.book(body) == ("captured", AMOUNT, 500)


def test_a_key_of_another_kind_of_call_is_refused(till: Till) -> None:
    """A payment's key for its capture, a capture's for its refund, and a capture's for a payment."""
    body = order(capture="manual")
    key = f"k-{body['reference']}"
    paid = till.shop.pay(body, key=key).json or {}
    problem(till.do(paid, "capture", key=key), 422, "idempotency-key-reused")
    assert till.book(paid) == ("authorized", 0, 0)
    till.done(paid, "capture", key=f"{key}-2")
    for what in ("refunds", "cancel", "complete"):
        problem(till.do(paid, what, key=f"{key}-2"), 422, "idempotency-key-reused")
    told = {"outcome": "approved", "evidence": "the dashboard"}
    problem(till.do(paid, "resolve", told, key=f"{key}-2"), 422, "idempotency-key-reused")
    problem(till.shop.pay(key=f"{key}-2"), 422, "idempotency-key-reused")
    assert till.book(paid) == ("captured", AMOUNT, 0)


def test_the_same_call_on_another_payment_needs_another_key(till: Till) -> None:
    """The key names one payment's capture."""
    first, second = till.authorized(), till.authorized()
    till.done(first, "capture", key=f"k-{first['id']}")
    problem(till.do(second, "capture", key=f"k-{first['id']}"), 422, "idempotency-key-reused")
    assert till.book(second) == ("authorized", 0, 0)


@pytest.mark.parametrize("what", ENDS)
def test_one_key_twice_at_the_same_instant_is_one_operation(till: Till, what: str) -> None:
    """One does it; the other replays, or is told to wait. Never an error, never twice."""
    for _ in range(ROUNDS):
        body = ready(till, what)
        answers = at_once(*[partial(till.do, body, what, key=f"k-{body['id']}")] * 2)
        codes = sorted(each.status_code for each in answers)
        assert codes in ([200, 200], [200, 409]), [each.text for each in answers]
        for each in answers:
            if each.status_code == 409:
                problem(each, 409, "request-in-progress")
                assert int(each.headers["Retry-After"]) >= 1
        assert sum("Idempotent-Replayed" not in each.headers for each in answers if each.status_code == 200) == 1
        assert till.book(body) == ENDS[what]
        kind = {"refunds": "refund", "cancel": "void", "capture": "capture"}[what]
        assert till.operations(body["id"]) == [(kind, ANSWERED[till.primary], AMOUNT)]
        assert till.do(body, what, key=f"k-{body['id']}").headers["Idempotent-Replayed"] == "true"


def test_two_refunds_at_the_same_instant_pay_back_no_more_than_was_captured(till: Till) -> None:
    """Each under a key of its own, each for two thirds: one of them, and never both."""
    for _ in range(ROUNDS):
        body = till.paid()
        answers = at_once(*[partial(till.do, body, "refunds", {"amount": 1400})] * 3)
        assert sorted(each.status_code for each in answers) == [200, 409, 409], [each.text for each in answers]
        assert till.book(body) == ("captured", AMOUNT, 1400)
        assert till.totals(body) == ("captured", AMOUNT, 1400)


def test_a_capture_and_a_cancel_at_the_same_instant_are_one_of_them(till: Till) -> None:
    """Whichever was first; the ledger says what the books say."""
    for _ in range(ROUNDS):
        body = till.authorized()
        answers = at_once(partial(till.do, body, "capture"), partial(till.do, body, "cancel"))
        assert sorted(each.status_code for each in answers) == [200, 409]
        assert till.book(body) in (ENDS["capture"], ENDS["cancel"])
        assert till.totals(body) == till.book(body)


def test_a_call_that_its_twin_overtook_replays(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key was free when it looked, and the payment then captured: under this very key, so it replays."""
    body = till.authorized()
    find_key = PaymentLedger.find_key
    overtaken: list[tuple[str, str] | None] = []

    def slowly(ledger: PaymentLedger, merchant: str, key: str) -> tuple[str, str] | None:
        found = find_key(ledger, merchant, key)
        if not overtaken:
            overtaken.append(found)
            till.done(body, "capture", key=key)
        return found

    monkeypatch.setattr(PaymentLedger, "find_key", slowly)
    answer = till.do(body, "capture", key=f"k-{body['id']}")
    assert overtaken == [None]
    assert (answer.status_code, answer.headers.get("Idempotent-Replayed")) == (200, "true"), answer.text
    assert till.book(body) == ("captured", AMOUNT, 0)


def test_another_merchants_key_of_the_same_name_is_another_key(till: Till) -> None:
    """Neither sees, blocks or replays the other's."""
    theirs = till.shop.add_key(f"other-{till.shop.url}-keys", merchant="other")
    mine = till.authorized()
    yours = till.shop.pay(capture="manual", api_key=theirs).json or {}
    key = f"k-{mine['id']}"
    till.done(mine, "capture", key=key)
    now = till.done(yours, "capture", {"amount": 700}, key=key, api_key=theirs)
    assert now["amount_captured"] == 700
    assert till.book(mine) == ("captured", AMOUNT, 0)
    assert till.book(yours) == ("captured", 700, 0)
