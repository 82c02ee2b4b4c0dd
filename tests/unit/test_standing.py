"""Where a payment stands, computed from what was ever said of its attempts and operations, in whatever order."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.contract import Health, Outcome, OutcomeKind
from router import standing
from router.ledger.operations import IN_FORCE, RANK, UNSEEN, UNSETTLED, Operation, OperationKind, OperationState
from router.ledger.records import Attempt
from router.sending import learned
from tests.fakes.providers import declined

AMOUNT = 1999
NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
OUTCOMES = [each for each in standing.OUTCOME_RANK if each is not None]
STATES: list[OperationState] = ["started", "unknown", "received", "done", "refused", "failed"]
CAPTURES = (None, "pending", "done", "failed")
KINDS: list[OperationKind] = ["capture", "void", "refund"]


def attempt(number: int = 1, outcome: str | None = None, **more: Any) -> Attempt:
    """Attempt `att_1`, or of that number."""
    return Attempt(f"att_{number}", "pay_1", number, "stripe", f"att_{number}", {}, NOW, outcome=outcome, **more)


def operation(
    kind: OperationKind, state: OperationState = "done", amount: int = AMOUNT, *, of: int = 1, number: int = 1
) -> Operation:
    """Operation `op_1` of attempt 1, or of those numbers."""
    key = f"op_{number}"
    return Operation(key, "pay_1", f"att_{of}", kind, amount, "stripe", key, state, "checkout", NOW)


def stands(
    held: Attempt, *operations: Operation, mode: str = "manual", others: Sequence[Attempt] = ()
) -> dict[str, Any]:
    """The columns that follow."""
    return standing.columns(AMOUNT, mode, held, [held, *others], operations)


def total(found: dict[str, Any]) -> tuple[Any, ...]:
    """Status, captured, refunded, pending."""
    return found["status"], found["amount_captured"], found["amount_refunded"], found["capture_pending"]


# ---------------------------------------------------------------- the order of news

News = tuple[str, str]
"""What it is about (`attempt`, or an operation's id), and the outcome or state told."""


OUTCOME_OF = {
    each: declined()
    if each == "declined"
    # Of one attempt a provider tells either `unknown`, or by its own record that nothing came of it.
    else Outcome(OutcomeKind(each), Health.OK, provider_reference="ref_1", final_record=each == "not_executed")
    for each in OUTCOMES
}


def fold(news: Sequence[News], known: Attempt, operations: Sequence[Operation]) -> tuple[Attempt, list[Operation]]:
    """Hear the news one by one, as every teller does: only what says more is kept."""
    kept = {each.id: each for each in operations}
    for about, told in news:
        if about == "attempt":
            outcome = OUTCOME_OF[told]
            if standing.is_news(known, told, final_record=outcome.final_record):
                known = learned(known, outcome, NOW)
        elif standing.advances(kept[about].state, told):
            kept[about] = dataclasses.replace(kept[about], state=told)  # type: ignore[arg-type]  # drawn from STATES
    return known, list(kept.values())


operations_of_one = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, AMOUNT)), min_size=1, max_size=3).map(
    lambda found: [operation(kind, "started", amount, number=n) for n, (kind, amount) in enumerate(found, 1)]
)


@given(st.data(), operations_of_one, st.sampled_from(["manual", "automatic"]), st.booleans())
def test_the_order_of_news_never_matters(
    data: st.DataObject, operations: list[Operation], mode: str, at_once: bool
) -> None:
    """Any permutation of the news, with any of it doubled, ends in the same columns."""
    known = attempt(at_once=at_once, decline={"code": "x"})
    about = ["attempt", *(each.id for each in operations)]
    told = st.sampled_from(about).flatmap(
        lambda which: st.tuples(
            st.just(which),
            st.sampled_from(OUTCOMES if which == "attempt" else STATES),
        )
    )
    news = data.draw(st.lists(told, min_size=1, max_size=7))
    other = data.draw(st.permutations(news + data.draw(st.lists(st.sampled_from(news), max_size=3))))
    ends = []
    for told_so in (news, other):
        ended, done = fold(told_so, known, operations)
        ends.append((ended, standing.columns(AMOUNT, mode, ended, [ended], done)))
    assert ends[0] == ends[1]


@given(st.permutations(range(4)))
def test_a_whole_life_ends_the_same_in_every_order(order: list[int]) -> None:
    """Approved, captured, refunded, and the refund came back: 700 of it captured, nothing refunded."""
    life: list[News] = [("attempt", "approved"), ("op_1", "done"), ("op_2", "done"), ("op_2", "failed")]
    parts = [operation("capture", "started", 700), operation("refund", "started", 200, number=2)]
    ended, done = fold([life[each] for each in order], attempt(), parts)
    assert total(stands(ended, *done)) == ("captured", 700, 0, False)


@given(operations_of_one, st.randoms(use_true_random=False))
def test_the_order_of_the_operations_rows_never_matters(operations: list[Operation], random: Any) -> None:
    """Only what they are."""
    states = [dataclasses.replace(each, state=random.choice(STATES)) for each in operations]
    held = attempt(outcome="approved")
    assert stands(held, *states) == stands(held, *reversed(states))


def test_news_ranks() -> None:
    """An older word never undoes a newer one; nothing is news twice."""
    for told in OUTCOMES:
        assert not standing.is_news(attempt(outcome=told), told)
    ranks = ["unknown", "requires_action", "declined", "approved"]
    for before, after in itertools.pairwise(ranks):
        assert standing.is_news(attempt(outcome=before), after)
        assert not standing.is_news(attempt(outcome=after), before)
    assert not standing.is_news(attempt(outcome="unknown"), "not_executed")
    assert not standing.is_news(attempt(outcome="not_executed"), "unknown")
    assert sorted(RANK, key=RANK.__getitem__) == ["started", "unknown", "received", "refused", "done", "failed"]
    for before, after in itertools.product(STATES, STATES):
        assert standing.advances(before, after) == (RANK[after] > RANK[before])


@pytest.mark.parametrize("known", [None, *OUTCOMES])
def test_nothing_by_the_providers_own_record_ends_a_doubt(known: str | None) -> None:
    """What an unknown send left open, a step of the customer's, and a cancel in vain; what is decided stays so."""
    held = attempt(outcome=known)
    assert standing.is_news(held, "not_executed", final_record=True) == (known not in ("declined", "approved"))
    final = dataclasses.replace(held, outcome="not_executed", final_record=True)
    assert {each for each in OUTCOMES if standing.is_news(final, each)} == {"declined", "approved", "canceled"}


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (["declined", "canceled"], "declined"),
        (["not_executed", "requires_action"], "not_executed"),
        (["not_executed", "requires_action", "canceled"], "not_executed"),
        (["requires_action", "canceled"], "canceled"),
        (["declined", "approved", "canceled"], "canceled"),
        (["unknown", "requires_action", "declined", "approved"], "approved"),
        (["not_executed", "requires_action", "declined", "approved", "canceled"], "canceled"),
    ],
)
def test_what_a_provider_says_comes_to_one_end_in_every_order(told: list[str], expected: str) -> None:
    """A cancel ends what was approved, whichever is told first; what never held anything is not called canceled."""
    ends = {
        repr(fold([("attempt", each) for each in order], attempt(), [])[0]) for order in itertools.permutations(told)
    }
    assert len(ends) == 1
    assert fold([("attempt", each) for each in told], attempt(), [])[0].outcome == expected


# ---------------------------------------------------------------- columns


@pytest.mark.parametrize(
    ("held", "operations", "expected"),
    [
        (attempt(outcome="approved"), [], ("authorized", 0, 0, False)),
        (attempt(outcome="approved", at_once=True, capture="done"), [], ("captured", AMOUNT, 0, False)),
        (attempt(outcome="approved", at_once=True, capture="pending"), [], ("captured", AMOUNT, 0, True)),
        (attempt(outcome="approved", at_once=True, capture="failed"), [], ("authorized", 0, 0, False)),
        (attempt(outcome="approved"), [("capture", "done", 700)], ("captured", 700, 0, False)),
        (attempt(outcome="approved"), [("capture", "received", 700)], ("captured", 700, 0, True)),
        (attempt(outcome="approved"), [("capture", "started", 700)], ("authorized", 0, 0, False)),
        (attempt(outcome="approved"), [("capture", "unknown", 700)], ("authorized", 0, 0, False)),
        (attempt(outcome="approved"), [("capture", "refused", 700)], ("authorized", 0, 0, False)),
        (attempt(outcome="approved"), [("capture", "failed", 700)], ("authorized", 0, 0, False)),
        (attempt(outcome="approved"), [("void", "received", AMOUNT)], ("canceled", 0, 0, False)),
        (attempt(outcome="approved"), [("void", "unknown", AMOUNT)], ("authorized", 0, 0, False)),
        (attempt(outcome="approved"), [("void", "failed", AMOUNT)], ("authorized", 0, 0, False)),
        (attempt(outcome="requires_action"), [("void", "done", AMOUNT)], ("canceled", 0, 0, False)),
        (attempt(outcome="requires_action"), [], ("requires_action", 0, 0, False)),
        (attempt(outcome="canceled"), [], ("canceled", 0, 0, False)),
        (attempt(outcome="canceled", at_once=True, capture="done"), [], ("canceled", 0, 0, False)),
        (attempt(outcome="unknown"), [], ("processing", 0, 0, False)),
        (attempt(), [], ("processing", 0, 0, False)),
        (
            attempt(outcome="approved", at_once=True, capture="done"),
            [("refund", "done", 700), ("refund", "received", 200), ("refund", "failed", 5), ("refund", "unknown", 9)],
            ("captured", AMOUNT, 900, False),
        ),
    ],
)  # fmt: skip
def test_what_a_payment_is(held: Attempt, operations: list[Any], expected: tuple[Any, ...]) -> None:
    """Only what is received or done has moved money."""
    rows = [operation(*each, number=number) for number, each in enumerate(operations, 1)]
    assert total(stands(held, *rows)) == expected


def test_a_decline_is_kept_with_the_payment() -> None:
    """And goes with an approval."""
    assert stands(attempt(outcome="declined", decline={"code": "x"}))["decline"] == {"code": "x"}
    assert stands(attempt(outcome="approved", decline={"code": "x"}))["decline"] is None
    assert stands(attempt(outcome="not_executed")) == {}


def test_an_approval_whose_capture_is_the_routers_is_not_yet_checkouts() -> None:
    """Processing until it is captured; authorized where that failed, or where checkout captures by itself."""
    held = attempt(outcome="approved")
    assert stands(held, mode="automatic")["status"] == "processing"
    assert stands(held, operation("capture", "unknown"), mode="automatic")["status"] == "processing"
    assert stands(held, operation("capture", "refused"), mode="automatic")["status"] == "authorized"
    assert stands(held, operation("capture", "done"), mode="automatic")["status"] == "captured"
    assert stands(held, mode="manual")["status"] == "authorized"


@pytest.mark.parametrize("outcome", ["approved", "requires_action", "unknown", None])
def test_while_another_authorization_may_exist_it_is_processing(outcome: str | None) -> None:
    """Until that one is proved void, by its own outcome or by a void or refund that is done."""
    held, orphan = attempt(outcome="approved"), attempt(2, outcome)
    assert stands(held, others=[orphan])["status"] == "processing"
    assert stands(held, operation("void", "received", of=2), others=[orphan])["status"] == "processing"
    assert stands(held, operation("void", of=2), others=[orphan])["status"] == "authorized"
    for gone in ("canceled", "declined", "not_executed"):
        assert stands(held, others=[attempt(2, gone)])["status"] == "authorized"


def test_what_waits_for_the_customer_says_what_is_to_be_done() -> None:
    """What its own attempt was told, and nothing once it is over or another attempt is decisive."""
    action = {"type": "redirect", "url": "u"}
    waiting = attempt(2, "requires_action", next_action=action)
    assert stands(waiting)["next_action"] == action
    assert stands(attempt(outcome="approved"), others=[waiting])["next_action"] is None
    assert stands(dataclasses.replace(waiting, outcome="approved"))["next_action"] is None


@pytest.mark.parametrize(("parts", "left"), [((500,), True), ((500, 1498), True), ((500, 1499), False)])
def test_an_orphan_is_released_when_all_of_it_is_paid_back(parts: tuple[int, ...], left: bool) -> None:
    """In either order of capture and refund: a part leaves the rest taken."""
    refunds = [operation("refund", amount=each, of=2, number=n) for n, each in enumerate(parts, 1)]
    held, orphan = attempt(outcome="approved"), attempt(2, "approved", at_once=True, capture="done")
    assert bool(standing.orphans(AMOUNT, "att_1", [held, orphan], refunds)) == left
    assert standing.comes_too_late(AMOUNT, [orphan], refunds) == left
    assert not standing.is_resolved(AMOUNT, [held, orphan], refunds, {"status": "captured"}) or not left


def test_a_refund_ahead_of_its_capture_releases_nothing() -> None:
    """Nothing is known to be taken, so nothing is known to be paid back."""
    orphan = attempt(2, "approved")
    assert standing.orphans(AMOUNT, "att_1", [orphan], [operation("refund", amount=500, of=2)]) == [orphan]


def test_a_void_by_our_own_id_counts_only_when_it_is_confirmed() -> None:
    """It may have come ahead of the authorization."""
    held = attempt(outcome="approved")
    blind = dataclasses.replace(operation("void", "received"), asked_by=UNSEEN)
    assert stands(held, blind)["status"] == "processing"
    assert stands(held, dataclasses.replace(blind, state="failed"))["status"] == "authorized"
    assert standing.comes_too_late(AMOUNT, [held], [blind])
    assert stands(held, dataclasses.replace(blind, state="done"))["status"] == "canceled"


def test_doubt_is_as_old_as_the_oldest_thing_that_is_open() -> None:
    """Not as old as the payment: a refund of an old one is in doubt since it was asked for."""
    day = dt.timedelta(days=1)
    held = attempt(outcome="approved", finished_at=NOW)
    refund = dataclasses.replace(operation("refund", "unknown"), started_at=NOW + day)
    assert standing.in_doubt_since(AMOUNT, "att_1", [held], []) is None
    assert standing.in_doubt_since(AMOUNT, "att_1", [held], [refund]) == NOW + day
    assert standing.in_doubt_since(AMOUNT, "att_1", [held, attempt(2, "unknown")], [refund]) == NOW
    late = attempt(2, "approved", finished_at=NOW + 2 * day)
    assert standing.in_doubt_since(AMOUNT, "att_1", [held, late], []) == NOW + 2 * day


def test_another_attempts_money_is_not_this_ones() -> None:
    """Nor is what is refunded of an orphan."""
    found = stands(attempt(outcome="approved"), operation("capture", of=2), operation("refund", of=2, number=2))
    assert total(found)[1:] == (0, 0, False)


@given(st.sampled_from(OUTCOMES), st.sampled_from(CAPTURES), operations_of_one, st.randoms(use_true_random=False))
def test_a_promise_covers_whatever_may_turn_out(
    outcome: str, capture: str | None, operations: list[Operation], random: Any
) -> None:
    """However the ones in doubt end, no more is captured or refunded than was promised."""
    held = attempt(outcome=outcome, capture=capture)
    now = [dataclasses.replace(each, state=random.choice(STATES)) for each in operations]
    later = [
        dataclasses.replace(each, state=random.choice(IN_FORCE)) if each.state in UNSETTLED else each for each in now
    ]
    assert standing.refunded(held, later) == standing.promised("refund", held, now)
    at_once = AMOUNT if outcome == "approved" and capture in ("done", "pending") else 0
    assert standing.captured(AMOUNT, held, later) == at_once + standing.promised("capture", held, now)


# ---------------------------------------------------------------- which attempt it stands on


@given(st.permutations([attempt(n, each) for n, each in enumerate([None, *OUTCOMES], 1)]))
def test_the_decisive_attempt_does_not_depend_on_their_order(attempts: list[Attempt]) -> None:
    """An approval before all else, then a wait, a doubt, a decline."""
    left = list(attempts)
    found = []
    while (chosen := standing.decisive("processing", None, left)) is not None:
        found.append(chosen.outcome)
        left.remove(chosen)
    assert found == ["approved", "requires_action", "unknown", None, "declined", "canceled"]
    assert [each.outcome for each in left] == ["not_executed"]


def test_of_equals_the_chosen_one_and_then_the_latest() -> None:
    """A payment does not change hands without a reason."""
    three = [attempt(n, "approved") for n in (1, 2, 3)]
    assert standing.decisive("processing", "att_1", three) == three[0]
    assert standing.decisive("processing", None, three) == three[2]


def test_a_closed_or_declined_payment_is_not_reopened() -> None:
    """An approval that comes too late is another's to undo."""
    late = [attempt(1, "declined"), attempt(2, "approved")]
    for closed in sorted(standing.CLOSED):
        assert standing.decisive(closed, "att_2", late) is None
    assert standing.decisive("declined", "att_1", late) == late[0]
    assert [each.id for each in standing.orphans(AMOUNT, "att_1", late, [])] == ["att_2"]
    assert standing.comes_too_late(AMOUNT, late, [])
    assert standing.comes_too_late(AMOUNT, late, [operation("void", "unknown", of=2)])
    assert not standing.comes_too_late(AMOUNT, late, [operation("void", "received", of=2)])


def test_a_void_that_was_only_taken_up_does_not_undo_what_is_captured() -> None:
    """It came too late to release it; one that is done is believed."""
    late = [attempt(2, "approved", at_once=True, capture="done")]
    assert standing.comes_too_late(AMOUNT, late, [operation("void", "received", of=2)])
    assert not standing.comes_too_late(AMOUNT, late, [operation("void", "done", of=2)])


def test_a_parked_payment_is_not_ended_by_a_cancel_of_what_held_nothing() -> None:
    """Its next try may be approved; an approval of an earlier one decides it."""
    assert standing.decisive("parked", None, [attempt(1, "canceled"), attempt(2, "not_executed")]) is None
    held = attempt(2, "approved")
    assert standing.decisive("parked", None, [attempt(1, "canceled"), held]) is held


@given(st.sampled_from(STATES))
def test_nothing_is_resolved_while_an_operation_is_in_doubt(state: OperationState) -> None:
    """Nor while the payment is processing, or an orphan may hold money."""
    held = attempt(outcome="approved")
    known = {"status": "captured", "attempt_id": "att_1"}
    assert standing.is_resolved(AMOUNT, [held], [operation("capture", state)], known) == (state not in UNSETTLED)
    assert not standing.is_resolved(AMOUNT, [held], [], known | {"status": "processing"})
    assert not standing.is_resolved(AMOUNT, [held, attempt(2, "approved")], [], known)
