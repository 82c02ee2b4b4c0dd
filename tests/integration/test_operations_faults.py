"""A provider that fails during a capture, cancel or refund: the answer says what is true, and it is done once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from providers.sandbox.server import Sandbox
from router.sending import SendTimes
from tests.integration.desk import OTHER, LetterBox, letter_box
from tests.integration.shop import HANG_READ_TIMEOUT_S, Shop
from tests.integration.till import AMOUNT, ANSWERED, Till, conflict

pytestmark = pytest.mark.either_database

FAULTS = {
    "down": {"mode": "down"},
    "limited": {"mode": "rate_limited"},
    "lost reply": {"mode": "lose_reply"},
    "cut before": {"mode": "drop_request"},
    "503": {"mode": "errors"},
    "503 that acted": {"mode": "errors", "acts": True},
    "200 that says nothing": {"mode": "garbage", "acts": True},
    "hang": {"mode": "hang"},
}
BEFORE = {"capture": ("authorized", 0, 0), "cancel": ("authorized", 0, 0), "refunds": ("captured", AMOUNT, 0)}
AFTER = {"capture": ("captured", 700, 0), "cancel": ("canceled", 0, 0), "refunds": ("captured", AMOUNT, 700)}
ASKED: dict[str, Any] = {"capture": {"amount": 700}, "cancel": None, "refunds": {"amount": 700}}
KINDS = {"capture": ("capture", 700), "cancel": ("void", AMOUNT), "refunds": ("refund", 700)}


@pytest.fixture
def till(operating_shop: tuple[Shop, str], sandbox: Sandbox) -> Till:
    """The desk, with both providers well, their books empty, and nothing in doubt from the test before."""
    till = Till(*operating_shop)
    till.change_all("resolve_at = NULL")
    return till


@pytest.fixture
def box(till: Till) -> Iterator[LetterBox]:
    with letter_box(till.shop) as box:
        yield box


def one_of_each(till: Till) -> dict[str, dict[str, Any]]:
    """A payment for each call."""
    return {"capture": till.authorized(), "cancel": till.authorized(), "refunds": till.paid()}


def ask(till: Till, bodies: dict[str, dict[str, Any]]) -> None:
    """Each call, while the provider is broken: 202, and nothing is said to have happened that nobody knows of."""
    for what, body in bodies.items():
        answer = till.do(body, what, ASKED[what], key=f"k-{body['id']}")
        assert answer.status_code == 202, answer.text
        now = answer.json or {}
        assert (now["status"], now["amount_captured"], now["amount_refunded"]) == BEFORE[what]
        assert till.totals(body) == BEFORE[what]
        assert till.operations(body["id"]) == [(KINDS[what][0], "unknown", KINDS[what][1])]


def ended(till: Till, bodies: dict[str, dict[str, Any]]) -> None:
    """Each was done once, in the books and in the ledger, and its key replays that."""
    for what, body in bodies.items():
        assert till.totals(body) == till.book(body) == AFTER[what]
        kind, amount = KINDS[what]
        (operation,) = till.operations(body["id"])
        assert operation in [(kind, ANSWERED[till.primary], amount), (kind, "done", amount)]
        assert till.settled(body)
        again = till.do(body, what, ASKED[what], key=f"k-{body['id']}")
        assert (again.status_code, again.headers["Idempotent-Replayed"]) == (200, "true")
    assert till.shop.charges(OTHER[till.primary]) == []


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_what_a_broken_provider_was_asked_is_done_once_when_it_is_well(
    till: Till, fault: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it had acted or not: rounds while it is broken change nothing, one afterwards ends all three."""
    bodies = one_of_each(till)
    till.shop.fault(till.primary, **fault)
    with monkeypatch.context() as patch:
        if fault["mode"] == "hang":  # is waited out; a busy machine's usual answers are not to be cut by it
            for sender in (till.shop.core.sender, till.shop.core.inquirer):
                patch.setattr(sender, "_times", SendTimes(connect_s=0.5, read_s=HANG_READ_TIMEOUT_S))
        ask(till, bodies)
        assert till.resolve() == 0
    for what, body in bodies.items():
        assert till.totals(body) == BEFORE[what]
    till.shop.fault(till.primary, "ok")
    assert till.resolve() == 3
    ended(till, bodies)
    assert till.resolve() == 0, "nothing is left to do"


def test_a_replay_in_doubt_is_still_in_doubt(till: Till) -> None:
    """202 again with Idempotent-Replayed, and the provider hears of it from the worker only."""
    bodies = one_of_each(till)
    till.shop.fault(till.primary, "lose_reply")
    ask(till, bodies)
    before = till.trace()
    for what, body in bodies.items():
        again = till.do(body, what, ASKED[what], key=f"k-{body['id']}")
        assert (again.status_code, again.headers["Idempotent-Replayed"]) == (202, "true")
    assert till.trace() == before


def test_while_one_is_in_doubt_no_other_may_undo_it_or_do_it_again(till: Till) -> None:
    """Neither captured twice, nor captured and canceled, nor refunded beyond what was taken."""
    bodies = one_of_each(till)
    till.shop.fault(till.primary, "lose_reply")
    ask(till, bodies)
    till.shop.fault(till.primary, "ok")
    before = till.trace()
    for what in ("capture", "cancel"):
        for then in ("capture", "cancel"):
            conflict(till.do(bodies[what], then), "authorized")
    conflict(till.do(bodies["refunds"], "refunds", {"amount": AMOUNT - 700 + 1}), "captured")
    assert till.trace() == before
    # What is left besides the one in doubt may be refunded; its own doubt stays.
    answer = till.do(bodies["refunds"], "refunds", {"amount": AMOUNT - 700})
    assert (answer.status_code, (answer.json or {})["amount_refunded"]) == (202, AMOUNT - 700)
    till.resolve()
    assert till.totals(bodies["refunds"]) == ("captured", AMOUNT, AMOUNT)
    assert till.book(bodies["refunds"]) == ("refunded", AMOUNT, AMOUNT)


def test_a_worker_in_doubt_asks_less_and_less_often_and_then_a_person(till: Till) -> None:
    """The waits double; after an hour the payment asks for attention, and is still not given up."""
    body = till.authorized()
    till.shop.fault(till.primary, "drop_request")
    till.do(body, "capture")
    waits = []
    for _ in range(4):
        till.resolve()
        row = till.row(body["id"])
        waits.append(round((row["resolve_at"] - row["updated_at"]) / 1e6))
    assert waits == [1, 2, 4, 8]
    assert row["attention"] is None
    with till.shop.core.database.write() as connection:
        connection.exec_driver_sql(
            f"UPDATE operations SET started_at = started_at - 3700000000 WHERE payment_id = '{body['id']}'"
        )
    till.resolve()
    assert "resolve" in till.row(body["id"])["attention"]
    till.shop.fault(till.primary, "ok")
    assert till.resolve() == 1
    assert till.book(body) == ("captured", AMOUNT, 0)
    assert till.row(body["id"])["attention"] is None


def test_an_error_kept_for_its_key_is_ended_by_the_webhook(till: Till, box: LetterBox) -> None:
    """It acted, answered 503, and will for ever: what it tells by itself ends the doubt."""
    bodies = one_of_each(till)
    box.all_told()
    till.shop.fault(till.primary, "errors", acts=True, stored=True)
    ask(till, bodies)
    till.shop.fault(till.primary, "ok")
    assert till.resolve(2) == 0
    box.forward_all()
    till.read_notices()
    till.resolve()
    ended(till, bodies)


def test_webhooks_ahead_of_the_resolver_end_it_as_well(till: Till, box: LetterBox) -> None:
    """The reply was lost, the notification was not; afterwards the worker finds nothing to do."""
    bodies = one_of_each(till)
    till.shop.fault(till.primary, "lose_reply")
    ask(till, bodies)
    box.forward_all()
    till.read_notices()
    for what, body in bodies.items():
        assert till.totals(body) == AFTER[what]
    till.shop.fault(till.primary, "ok")
    till.resolve()
    ended(till, bodies)


def test_what_the_provider_refuses_did_not_happen(till: Till, box: LetterBox) -> None:
    """Somebody canceled it in the dashboard: no capture is shown, and the end is the provider's."""
    body = till.authorized()
    (attempt,) = body["attempts"]
    core = till.shop.core
    core.providers[till.primary].void(
        attempt["provider_reference"], idempotency_key=f"hand-{body['id']}", timeouts=core.sender.timeouts(5.0)
    )
    now = till.done(body, "capture")
    if till.primary == "stripe":  # says so at once; Adyen by webhook only
        assert (now["status"], now["amount_captured"]) == ("authorized", 0)
        assert till.operations(body["id"]) == [("capture", "refused", AMOUNT)]
    box.forward_all()
    till.read_notices()
    assert till.totals(body) == till.book(body) == ("canceled", 0, 0)
    assert till.settled(body)
    conflict(till.do(body, "capture"), "canceled")
