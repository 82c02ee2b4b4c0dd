"""What an operator reads in a provider's dashboard ends a doubt: `POST …/resolve`, with evidence, once."""

from __future__ import annotations

from typing import Any

import pytest

from providers.sandbox.server import Sandbox
from router.ledger.tables import payment_events
from tests.integration.shop import Shop
from tests.integration.till import AMOUNT, Till, conflict, problem

pytestmark = pytest.mark.either_database

EVIDENCE = "dashboard, read by Ada, ticket 4711"
OPERATIONS: dict[str, tuple[Any, tuple[str, int, int], tuple[str, int, int]]] = {
    "capture": ({"amount": 700}, ("captured", 700, 0), ("authorized", 0, 0)),
    "cancel": (None, ("canceled", 0, 0), ("authorized", 0, 0)),
    "refunds": ({"amount": 700}, ("captured", AMOUNT, 700), ("captured", AMOUNT, 0)),
}
"""What is asked, how the payment stands where it was done, and where it was not."""


@pytest.fixture
def till(operating_shop: tuple[Shop, str], sandbox: Sandbox) -> Till:
    """The desk, with both providers well, their books empty, and nothing in doubt from the test before."""
    till = Till(*operating_shop)
    till.change_all("resolve_at = NULL")
    return till


def told(outcome: str, **more: str) -> dict[str, str]:
    """An operator's word."""
    return {"outcome": outcome, "evidence": EVIDENCE, **more}


def doubtful(till: Till, mode: str = "lose_reply", **changed: Any) -> dict[str, Any]:
    """A payment in doubt, and a provider that is well again but has not been asked."""
    till.shop.fault(till.primary, mode)
    body: dict[str, Any] = till.shop.pay(**changed).json or {}
    till.shop.fault(till.primary, "ok")
    assert body["status"] == "processing"
    return body


def in_doubt(till: Till, what: str, mode: str) -> dict[str, Any]:
    """A payment whose operation is in doubt."""
    body = till.paid() if what == "refunds" else till.authorized()
    till.shop.fault(till.primary, mode)
    assert till.do(body, what, OPERATIONS[what][0]).status_code == 202
    till.shop.fault(till.primary, "ok")
    return body


def last_event(till: Till, body: dict[str, Any]) -> tuple[str, Any]:
    """The type and the note of a payment's latest event."""
    query = payment_events.select().where(payment_events.c.payment_id == body["id"])
    with till.shop.core.database.read() as connection:
        row = connection.execute(query.order_by(payment_events.c.number.desc()).limit(1)).mappings().one()
    return row["type"], row["changes"].get("note")


def left_alone(till: Till, body: dict[str, Any]) -> None:
    """The worker finds nothing more to do about it."""
    assert till.settled(body)
    before = till.row(body["id"])
    till.resolve()
    assert till.row(body["id"]) == before


# ---------------------------------------------------------------- who may, and with what


def test_it_needs_the_scope_operate_and_no_other(till: Till) -> None:
    """Checkout's key is refused and changes nothing; an operator's key resolves, and does nothing else."""
    keys = {
        scope: till.shop.add_key(f"{scope}-{till.shop.url}", merchant="default", scopes=(scope,))
        for scope in ("payments", "reports", "operate")
    }
    body = doubtful(till)
    before = till.trace()
    for scope in ("payments", "reports"):
        detail = problem(till.do(body, "resolve", told("declined"), api_key=keys[scope]), 403, "forbidden")["detail"]
        assert "operate" in detail
        assert "payments" not in detail
    assert till.trace() == before
    for what in ("capture", "cancel", "refunds", "complete"):
        problem(till.do(body, what, api_key=keys["operate"]), 403, "forbidden")
    now = till.done(body, "resolve", told("declined"), api_key=keys["operate"])
    assert now["status"] == "declined"


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({}, "outcome"),
        ({"outcome": "declined"}, "evidence"),
        ({"outcome": "declined", "evidence": ""}, "evidence"),
        ({"outcome": "declined", "evidence": "x" * 256}, "evidence"),
        ({"outcome": "declined", "evidence": 7}, "evidence"),
        ({"evidence": EVIDENCE}, "outcome"),
        ({"outcome": "captured", "evidence": EVIDENCE}, "outcome"),
        ({"outcome": "unknown", "evidence": EVIDENCE}, "outcome"),
        ({"outcome": None, "evidence": EVIDENCE}, "outcome"),
        ({"outcome": "declined", "evidence": EVIDENCE, "amount": 1}, "amount"),
    ],
)
def test_a_verdict_without_evidence_or_that_is_none_is_refused(till: Till, asked: dict[str, Any], field: str) -> None:
    """422 naming the field; the doubt stays."""
    body = doubtful(till)
    before = till.trace()
    errors = problem(till.do(body, "resolve", asked), 422, "invalid-request")["errors"]
    assert field in [each["field"] for each in errors]
    assert till.trace() == before
    assert till.totals(body) == ("processing", 0, 0)


def test_where_nothing_is_in_doubt_nothing_is_resolved(till: Till) -> None:
    """409 naming the state, whatever it is."""
    bodies = [till.paid(), till.authorized(), till.waiting()]
    canceled = till.authorized()
    till.done(canceled, "cancel")
    before = till.trace()
    for body in (*bodies, canceled):
        for verdict in ("approved", "declined", "canceled", "not_executed"):
            asked = told(verdict, provider_reference="pi_1")
            conflict(till.do(body, "resolve", asked), till.totals(body)[0])
    assert till.trace() == before


# ---------------------------------------------------------------- an attempt in doubt


@pytest.mark.parametrize("capture", ["automatic", "manual"])
def test_approved_is_the_payment_of_the_providers_books(till: Till, capture: str) -> None:
    """With the provider's reference, which later operations go by; nothing is sent for the verdict itself."""
    body = doubtful(till, capture=capture)
    (charge,) = till.books(body["reference"])
    asked = till.shop.control("GET", "/control")
    now = till.done(body, "resolve", told("approved", provider_reference=charge["id"]))
    assert till.shop.control("GET", "/control") == asked
    assert now["status"] == {"automatic": "captured", "manual": "authorized"}[capture]
    assert now["attempts"][0]["provider_reference"] == charge["id"]
    assert now["attempts"][0]["reason"] == "operator", "the evidence is not for checkout"
    assert till.totals(body) == till.book(body)
    left_alone(till, body)
    if capture == "manual":
        till.done(body, "capture")
    till.done(body, "refunds", {"amount": 700})
    assert till.totals(body) == till.book(body) == ("captured", AMOUNT, 700)


def test_approved_without_a_reference_is_refused(till: Till) -> None:
    """Nobody could capture or refund it."""
    body = doubtful(till)
    conflict(till.do(body, "resolve", told("approved")), "processing")
    assert till.totals(body) == ("processing", 0, 0)


@pytest.mark.parametrize(
    ("verdict", "status"), [("declined", "declined"), ("canceled", "canceled"), ("not_executed", "failed")]
)
def test_every_other_verdict_ends_it_with_nothing_taken(till: Till, verdict: str, status: str) -> None:
    """It is final, never sent again, and the reference is free."""
    body = doubtful(till, "drop_request")
    now = till.done(body, "resolve", told(verdict))
    assert (now["status"], now["amount_captured"]) == (status, 0)
    assert now["attempts"][0]["outcome"] == verdict
    left_alone(till, body)
    assert till.books(body["reference"]) == []
    event, note = last_event(till, body)
    assert event == "resolved_by_operator"
    assert note == {
        "attempt": now["attempts"][0]["id"],
        "outcome": verdict,
        "evidence": EVIDENCE,
        "by": "default: bootstrap key",
    }
    conflict(till.do(body, "resolve", told(verdict)), status)
    assert till.shop.pay(reference=body["reference"]).status_code == 201


def test_a_verdict_is_idempotent_by_its_key(till: Till) -> None:
    """A replay answers; another verdict, or the same with other evidence, is another request."""
    body = doubtful(till, "drop_request")
    key = f"k-{body['id']}"
    till.done(body, "resolve", told("declined"), key=key)
    again = till.do(body, "resolve", told("declined"), key=key)
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (200, "true")
    for asked in (told("canceled"), told("declined") | {"evidence": "another"}):
        problem(till.do(body, "resolve", asked, key=key), 422, "idempotency-key-reused")
    assert till.totals(body) == ("declined", 0, 0)


# ---------------------------------------------------------------- an operation in doubt


@pytest.mark.parametrize("what", OPERATIONS)
def test_an_operation_that_was_done_is_done(till: Till, what: str) -> None:
    """The books have it, its answer was lost: counted once, and not sent again."""
    body = in_doubt(till, what, "lose_reply")
    asked = till.shop.control("GET", "/control")
    verdict = "canceled" if what == "cancel" else "approved"
    till.done(body, "resolve", told(verdict))
    assert till.totals(body) == till.book(body) == OPERATIONS[what][1]
    left_alone(till, body)
    assert till.shop.control("GET", "/control") == asked


@pytest.mark.parametrize("verdict", ["not_executed", "declined"])
@pytest.mark.parametrize("what", OPERATIONS)
def test_an_operation_that_was_not_done_can_be_asked_for_again(till: Till, what: str, verdict: str) -> None:
    """The books do not have it: nothing of it is left, and a new one is done once."""
    body = in_doubt(till, what, "drop_request")
    till.done(body, "resolve", told(verdict))
    assert till.totals(body) == till.book(body) == OPERATIONS[what][2]
    left_alone(till, body)
    till.done(body, what, OPERATIONS[what][0])
    assert till.totals(body) == till.book(body) == OPERATIONS[what][1]


@pytest.mark.parametrize("what", ["capture", "refunds"])
def test_a_capture_or_refund_that_was_canceled_took_nothing(till: Till, what: str) -> None:
    """`canceled` of it is the dashboard's word for one that never moved money: not to be counted as done."""
    body = in_doubt(till, what, "drop_request")
    till.done(body, "resolve", told("canceled"))
    now = till.totals(body)
    assert now[1:] == till.book(body)[1:] == OPERATIONS[what][2][1:]
    left_alone(till, body)
