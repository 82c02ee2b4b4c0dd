"""The customer's 3-D Secure step, finished by `/complete`: at the same provider, by the provider's word only."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.fakes.threads import together
from tests.integration.desk import OTHER, LetterBox, letter_box
from tests.integration.till import AMOUNT, Till, conflict, pass_step, problem

pytestmark = pytest.mark.either_database

TOO_LARGE = "request-entity-too-large"


@pytest.fixture
def box(till: Till) -> Iterator[LetterBox]:
    with letter_box(till.shop) as box:
        yield box


def details(till: Till, back: dict[str, str]) -> dict[str, Any]:
    """What checkout sends of what the browser brought back; Stripe knows by itself."""
    return {"details": back} if till.primary == "adyen" else {}


def test_a_passed_step_is_charged_once(till: Till) -> None:
    """Captured at the provider that asked for it, with one charge; no other provider heard of it."""
    body = till.waiting()
    assert body["next_action"]["type"] == "redirect"
    now = till.done(body, "complete", details(till, pass_step(body)))
    assert (now["status"], now["amount_captured"], now["next_action"]) == ("captured", AMOUNT, None)
    assert [each["outcome"] for each in now["attempts"]] == ["approved"]
    assert till.book(body) == ("captured", AMOUNT, 0)
    assert till.shop.charges(OTHER[till.primary]) == []
    assert till.settled(body)
    assert till.done(body, "refunds")["amount_refunded"] == AMOUNT


def test_a_passed_step_of_a_manual_payment_is_an_authorization(till: Till) -> None:
    """Checkout captures it by itself."""
    body = till.waiting(capture="manual")
    now = till.done(body, "complete", details(till, pass_step(body)))
    assert (now["status"], now["amount_captured"]) == ("authorized", 0)
    assert till.book(body) == ("authorized", 0, 0)
    assert till.done(body, "capture", {"amount": 700})["amount_captured"] == 700
    assert till.book(body) == ("captured", 700, 0)


def test_a_failed_step_is_a_decline_and_no_other_provider_is_asked(till: Till) -> None:
    """The customer said no, or was not the one: declined as authentication, nothing charged anywhere."""
    body = till.waiting()
    now = till.done(body, "complete", details(till, pass_step(body, result="fail")))
    assert (now["status"], now["decline"]["class"], now["next_action"]) == ("declined", "authentication", None)
    assert till.books(body["reference"]) == []
    assert till.shop.charges(OTHER[till.primary]) == []
    conflict(till.do(body, "complete"), "declined")


@pytest.mark.parametrize("brought", [{}, {"redirectResult": "made-up"}, {"unheard_of": "x"}])
def test_a_step_that_was_not_taken_is_still_awaited(till: Till, brought: dict[str, str]) -> None:
    """Whatever a browser brings: only the provider says that it passed. The customer can still take it."""
    body = till.waiting()
    now = till.done(body, "complete", {"details": brought})
    assert (now["status"], now["amount_captured"]) == ("requires_action", 0)
    assert now["next_action"] == body["next_action"]
    assert till.books(body["reference"]) == []
    assert till.done(body, "complete", details(till, pass_step(body)))["status"] == "captured"
    assert till.book(body) == ("captured", AMOUNT, 0)


def test_the_details_of_a_cheaper_payment_do_not_finish_a_dear_one(till: Till) -> None:
    """Both wait; the cheap one's step is passed, and brought back for the dear one."""
    dear, cheap = till.waiting(amount=99_999), till.waiting(amount=1)
    brought = {"details": pass_step(cheap)}
    now = till.done(dear, "complete", brought)
    assert (now["status"], now["amount_captured"]) == ("requires_action", 0)
    assert till.books(dear["reference"]) == []
    now = till.done(cheap, "complete", details(till, brought["details"]))
    assert (now["status"], now["amount_captured"]) == ("captured", 1)
    assert till.book(cheap) == ("captured", 1, 0)


def test_the_key_of_a_completion_replays(till: Till) -> None:
    """The same call again answers the payment; other details under it are another request."""
    body = till.waiting()
    asked, key = details(till, pass_step(body)), f"k-{body['id']}"
    first = till.done(body, "complete", asked, key=key)
    before = till.trace()
    again = till.do(body, "complete", asked, key=key)
    assert (again.status_code, again.headers["Idempotent-Replayed"], again.json) == (200, "true", first)
    problem(till.do(body, "complete", {"details": {"redirectResult": "x"}}, key=key), 422, "idempotency-key-reused")
    assert till.trace() == before
    conflict(till.do(body, "complete", asked), "captured")


def test_two_completions_at_the_same_instant_are_one_charge(till: Till) -> None:
    """Under one key or two: one does it, the other replays, is told to wait, or that there is nothing to complete."""
    for keys in (("a", "a"), ("a", "b")):
        body = till.waiting()
        asked = details(till, pass_step(body))
        codes: list[int] = []

        def complete(key: str, body: dict[str, Any] = body, asked: Any = asked, codes: list[int] = codes) -> None:
            codes.append(till.do(body, "complete", asked, key=f"{key}-{body['id']}").status_code)

        together([partial(complete, key) for key in keys])
        assert sorted(codes) in ([200, 200], [200, 409])
        assert till.totals(body) == till.book(body) == ("captured", AMOUNT, 0)


@pytest.mark.parametrize("same_key", [True, False], ids=["same key", "another key"])
@pytest.mark.parametrize("mode", ["down", "lose_reply", "drop_request", "errors"])
def test_a_completion_whose_answer_is_lost_is_asked_for_again(till: Till, mode: str, same_key: bool) -> None:
    """202, and still awaited, for all that is known; the same details under any key end it with one charge."""
    body = till.waiting()
    asked = details(till, pass_step(body))
    till.shop.fault(till.primary, mode)
    answer = till.do(body, "complete", asked, key=f"k-{body['id']}")
    now = answer.json or {}
    assert (answer.status_code, now["status"], now["amount_captured"]) == (202, "requires_action", 0), answer.text
    again = till.do(body, "complete", asked, key=f"k-{body['id']}")
    assert (again.status_code, "Idempotent-Replayed" in again.headers) == (202, False)
    till.shop.fault(till.primary, "ok")
    assert till.done(body, "complete", asked, key=same_key and f"k-{body['id']}")["status"] == "captured"
    assert till.book(body) == ("captured", AMOUNT, 0)
    assert till.settled(body)


def test_a_customer_whose_browser_never_comes_back_is_told_of_by_webhook(till: Till, box: LetterBox) -> None:
    """Stripe's page finishes it by itself; at Adyen it is the completion whose answer was lost."""
    body = till.waiting()
    asked = details(till, pass_step(body))
    if till.primary == "adyen":
        till.shop.fault("adyen", "lose_reply")
        till.do(body, "complete", asked)
        till.shop.fault("adyen", "ok")
    box.forward_all()
    till.read_notices()
    assert till.totals(body) == till.book(body) == ("captured", AMOUNT, 0)
    assert till.shop.read(body["id"])["next_action"] is None
    conflict(till.do(body, "complete", asked), "captured")


def test_the_notification_after_the_completion_changes_nothing(till: Till, box: LetterBox) -> None:
    """What it tells is known."""
    body = till.waiting()
    till.done(body, "complete", details(till, pass_step(body)))
    before = till.shop.read(body["id"])
    box.forward_all()
    till.read_notices()
    assert till.shop.read(body["id"]) == before


def test_a_step_passed_after_the_cancel_charges_nobody(till: Till, box: LetterBox) -> None:
    """The page was still open: the provider has canceled it, or the approval is undone."""
    body = till.waiting()
    till.done(body, "cancel")
    if till.primary == "adyen":
        core = till.shop.core
        core.providers["adyen"].complete(
            None,
            pass_step(body),
            capture="automatic",
            idempotency_key=f"late-{body['id']}",
            timeouts=core.sender.timeouts(5.0),
        )
    for _ in range(3):
        box.forward_all()
        till.read_notices()
        till.resolve()
    assert till.totals(body)[0] == "canceled"
    assert {each["status"] for each in till.books(body["reference"])} <= {"canceled", "refunded"}
    assert till.settled(body)


def test_details_are_bounded(till: Till) -> None:
    """Nine of them, or an enormous one, is refused and the payment still waits; what a vendor's may have passes."""
    body = till.waiting()
    for many in ({f"d{n}": "x" for n in range(9)}, {"redirectResult": "x" * 100_001}, {"redirectResult": 7}):
        problem(till.do(body, "complete", {"details": many}), 422, "invalid-request")
    problem(till.do(body, "complete", {"details": {f"d{n}": "x" * 90_000 for n in range(3)}}), 413, TOO_LARGE)
    problem(till.do(body, "capture", {"details": "x" * 90_000}), 413, TOO_LARGE)
    largest = {"threeds2.fingerprint": "x" * 100_000}
    assert till.done(body, "complete", {"details": largest})["status"] == "requires_action"
    assert till.totals(body) == ("requires_action", 0, 0)
