"""Which operation news is about that carries no key of ours, as of what a person does in the dashboard."""

from __future__ import annotations

import datetime as dt

import pytest

from providers.contract import Money, Notice, NoticeKind
from router.ledger.operations import Operation
from router.ledger.records import Attempt
from router.notices import _operation

NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
ATTEMPT = Attempt("att_1", "pay_1", 1, "stripe", "att_1", {}, NOW, outcome="approved")
ASKED = Operation("op_1", "pay_1", "att_1", "refund", 9049, "stripe", "op_1", "started", "checkout", NOW)


@pytest.mark.parametrize(("amount", "found"), [(9049, ASKED), (4524, None)])
def test_a_refund_of_another_amount_is_not_the_one_that_we_asked(amount: int, found: Operation | None) -> None:
    """Ours was never sent, and a part was paid back by hand: the ledger must not say that all of it was."""
    told = Notice("evt_1", NoticeKind.REFUNDED, "refund", modification_reference="re_1", money=Money(amount, "EUR"))
    assert _operation([ASKED], ATTEMPT, "refund", told) is found
