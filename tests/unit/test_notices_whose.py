"""Which operation news is about that carries no key of ours, as of what a person does in the dashboard."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import pytest

from providers.contract import ModificationOutcome, Money, Notice, NoticeKind
from router.ledger.operations import UNSEEN, Operation, OperationKind, OperationState
from router.ledger.records import Attempt
from router.modifications import Modifications
from router.notices import _operation
from tests.fakes.home import Home
from tests.fakes.house import DEADLINE_S
from tests.fakes.providers import CAPTURED, DONE
from tests.unit.test_resolver import IN_THE_DARK, round_of

NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
ATTEMPT = Attempt("att_1", "pay_1", 1, "stripe", "att_1", {}, NOW, outcome="approved", provider_reference="ref_1")
NOTICES: dict[OperationKind, NoticeKind] = {
    "capture": NoticeKind.CAPTURED,
    "void": NoticeKind.VOID_FAILED,
    "refund": NoticeKind.REFUNDED,
}


def asked(kind: OperationKind, state: OperationState = "unknown", **more: Any) -> Operation:
    """The one operation that there is, of 90.49."""
    found = Operation("op_1", "pay_1", "att_1", kind, 9049, "stripe", "op_1", state, "checkout", NOW)
    return dataclasses.replace(found, **more)


def found(operation: Operation, *, attempt: Attempt = ATTEMPT, amount: int | None = 9049, **names: Any) -> bool:
    """Whether a notice with these names is taken to be about it."""
    money = None if amount is None else Money(amount, "EUR")
    told = Notice("evt_1", NOTICES[operation.kind], "x", provider_reference="ref_1", money=money, **names)
    return _operation([operation], attempt, operation.kind, told) is operation


@pytest.mark.parametrize("kind", NOTICES)
def test_what_carries_our_key_or_the_providers_id_is_ours(kind: OperationKind) -> None:
    """Whatever amount it says, and nothing else with a key is."""
    assert found(asked(kind), operation_key="op_1", amount=1)
    assert found(asked(kind, provider_reference="re_1"), modification_reference="re_1", amount=1)
    assert not found(asked(kind), operation_key="op_2")


@pytest.mark.parametrize("state", ["started", "unknown", "received", "refused", "done", "failed"])
def test_a_refund_without_our_key_is_not_ours(state: OperationState) -> None:
    """Of the same amount, too: both providers carry our key along with what we ask."""
    assert not found(asked("refund", state))
    assert not found(asked("refund", state), modification_reference="re_1")


@pytest.mark.parametrize(("amount", "ours"), [(9049, True), (None, True), (4524, False)])
def test_a_capture_without_our_key_is_ours_where_its_amount_may_be(amount: int | None, ours: bool) -> None:
    """Stripe names none: of a charge captured it says how much, and of a failed capture not even that."""
    assert found(asked("capture"), amount=amount) == ours


@pytest.mark.parametrize(
    ("asked_by", "reference", "attempt_id", "ours"),
    [
        (UNSEEN, None, "att_1", True),
        (UNSEEN, "ref_1", "att_1", True),
        ("checkout", None, "att_1", True),
        ("router: abandoned", None, "att_1", True),
        ("checkout", "ref_1", "att_1", False),
        ("router: orphan", "ref_1", "att_1", False),
        ("checkout", "ref_1", None, False),
        ("checkout", None, None, False),
        (UNSEEN, None, None, False),
    ],
)
def test_what_names_the_attempt_is_about_a_cancel_by_our_own_id(
    asked_by: str, reference: str | None, attempt_id: str | None, ours: bool
) -> None:
    """And a cancel by the provider's id carries our key, or is somebody else's."""
    held = dataclasses.replace(ATTEMPT, provider_reference=reference)
    assert found(asked("void", asked_by=asked_by), attempt=held, attempt_id=attempt_id) == ours


# ---------------------------------------------------------------- through the house


def test_a_refund_by_hand_beside_ours_in_doubt_is_counted_besides(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same amount; so no more is paid back than was taken, and neither is lost."""
    home.stripe.outcomes.append(CAPTURED)
    payment, books = home.house.pay().payment, {"by hand": 500}

    def refund(_reference: str, money: Money, *, idempotency_key: str, **_named: object) -> ModificationOutcome:
        first = len(books) == 1
        books[idempotency_key] = money.amount
        return IN_THE_DARK if first else DONE

    monkeypatch.setattr(home.stripe, "refund", refund)
    calls = Modifications(
        ledger=home.ledger,
        journals=home.journals,
        sender=home.resolver._sender,
        deadline_s=DEADLINE_S,
        clock=home.clock,
    )
    calls.refund("m", payment.id, 500, key="r1")
    by_hand = Notice("n", NoticeKind.REFUNDED, "refund", None, "ref_1", None, "re_hand", Money(500, "EUR"))
    assert home.notices.apply("stripe", by_hand) == "applied"
    (own,) = [each for each in home.now(payment)[2] if each.asked_by == "checkout"]
    assert own.state == "unknown"
    round_of(home)
    assert home.now(payment)[0].amount_refunded == 1000
    calls.refund("m", payment.id, None, key="r2")
    assert home.now(payment)[0].amount_refunded == sum(books.values()) == 1999
