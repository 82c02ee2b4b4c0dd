"""One send of a capture, void, refund or 3-D Secure completion, and what may be believed of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from providers.contract import Health, ModificationKind, ModificationOutcome, Money, Outcome, OutcomeKind
from router.ledger.operations import Operation, OperationKind, OperationState
from router.sending import LEAST_TIME_S, is_doubtful_completion
from tests.fakes.providers import ACTION, CAPTURED, DONE, REFUSED, UNKNOWN, FakeProvider, declined
from tests.unit.test_sending import ATTEMPT, DEADLINE_S, NOW, PENDING, boom, sender_of

NOT_TAKEN = Outcome(OutcomeKind.UNKNOWN, Health.IGNORED, "http_422", our_fault=True)
KEY_REFUSED = Outcome(OutcomeKind.UNKNOWN, Health.CREDENTIALS_REFUSED, "credentials_refused", our_fault=True)


class Modifier(FakeProvider):
    """Answers every capture, void and refund with this, and remembers which was asked and with what."""

    def __init__(self, answer: ModificationOutcome) -> None:
        super().__init__("stripe")
        self.answer = answer
        self.asked: list[tuple[Any, ...]] = []
        self.completed: list[tuple[Any, str]] = []

    def capture(self, *args: Any, **named: Any) -> ModificationOutcome:
        return self._note("capture", *args, named["idempotency_key"])

    def void(self, *args: Any, **named: Any) -> ModificationOutcome:
        return self._note("void", *args, named["idempotency_key"])

    def refund(self, *args: Any, **named: Any) -> ModificationOutcome:
        return self._note("refund", *args, named["idempotency_key"])

    def void_attempt(self, attempt_id: str, **named: Any) -> ModificationOutcome:
        return self._note("void_attempt", attempt_id, named["idempotency_key"])

    def complete(self, provider_reference: str | None, details: Any, **named: Any) -> Outcome:
        self.completed.append((details, named["idempotency_key"]))
        return super().complete(provider_reference, details, **named)

    def _note(self, *asked: Any) -> ModificationOutcome:
        self.asked.append(asked)
        return self.answer


def modification(kind: ModificationKind, *, our_fault: bool = False) -> ModificationOutcome:
    """An answer of that kind."""
    return ModificationOutcome(kind, Health.OK, "why", "mod_1", our_fault=our_fault)


def operation(kind: OperationKind = "capture", state: OperationState = "started") -> Operation:
    """Seven euros, about to be sent: for the first time, or again."""
    sends = 1 if state == "started" else 2  # this send counted
    return Operation("op_1", "pay_1", "att_1", kind, 700, "stripe", "op_1", state, "checkout", NOW, sends=sends)


@pytest.mark.parametrize(
    ("answer", "first", "again"),
    [
        (modification(ModificationKind.DONE), "done", "done"),
        (modification(ModificationKind.RECEIVED), "received", "received"),
        (modification(ModificationKind.REFUSED), "refused", "refused"),
        (modification(ModificationKind.UNKNOWN), "unknown", "unknown"),
        (modification(ModificationKind.NOT_EXECUTED), "unknown", "unknown"),
        (modification(ModificationKind.NOT_EXECUTED, our_fault=True), "refused", "unknown"),
    ],
    ids=lambda each: each if isinstance(each, str) else f"{each.kind}{'-ours' if each.our_fault else ''}",
)
def test_what_an_operations_send_says(answer: ModificationOutcome, first: str, again: str) -> None:
    """Our own mistake is final at the first send only: a later one proves nothing about the ones before."""
    attempt = dataclasses.replace(ATTEMPT, provider_reference="ref_1")
    sender = sender_of(Modifier(answer))
    told = sender.operate(operation(), attempt, "EUR", DEADLINE_S)
    assert (told.state, told.sends, told.finished_at is None) == (first, 1, first == "unknown")
    told = sender.operate(operation(state="unknown"), attempt, "EUR", DEADLINE_S)
    assert (told.state, told.sends, told.finished_at is None) == (again, 2, again == "unknown")


@pytest.mark.parametrize("kind", ["capture", "void", "refund"])
def test_an_operation_is_sent_by_the_providers_id_under_its_own_key(kind: OperationKind) -> None:
    """The same key each time; a void without the provider's id goes by our own, and is another call."""
    provider = Modifier(DONE)
    sender, attempt = sender_of(provider), dataclasses.replace(ATTEMPT, provider_reference="ref_1")
    sender.operate(operation(kind), attempt, "EUR", DEADLINE_S)
    sender.operate(operation(kind, "unknown"), attempt, "EUR", DEADLINE_S)
    money = () if kind == "void" else (Money(700, "EUR"),)
    assert provider.asked == [(kind, "ref_1", *money, "op_1")] * 2
    if kind == "void":
        sender.operate(operation(kind), ATTEMPT, "EUR", DEADLINE_S)
        assert provider.asked[-1] == ("void_attempt", "att_1", "op_1-by-our-id")


def test_a_late_unknown_takes_nothing_back() -> None:
    """What a webhook has said meanwhile stands."""
    sender = sender_of(Modifier(modification(ModificationKind.UNKNOWN)))
    told = sender.operate(operation(state="received"), ATTEMPT, "EUR", DEADLINE_S)
    assert told.state == "received"


@pytest.mark.parametrize("state", ["received", "done", "refused", "failed"])
def test_a_late_answer_does_not_reopen_what_ended(state: OperationState) -> None:
    """Neither its state, nor when it ended, nor why."""
    ended = dataclasses.replace(operation(state=state), finished_at=NOW, reason="told by a webhook")
    for kind in (ModificationKind.UNKNOWN, ModificationKind.NOT_EXECUTED):
        told = sender_of(Modifier(modification(kind))).operate(ended, ATTEMPT, "EUR", DEADLINE_S)
        assert (told.state, told.finished_at, told.reason) == (state, NOW, "told by a webhook")


@pytest.mark.parametrize(("asked_by", "state"), [("checkout", "refused"), ("router", "unknown")])
def test_our_mistake_ends_what_checkout_asked_for_and_not_what_the_router_needs(asked_by: str, state: str) -> None:
    """A key refused for a minute must not leave an automatic payment uncaptured for ever: that one is sent again."""
    asked = dataclasses.replace(operation(), asked_by=asked_by)
    answer = modification(ModificationKind.NOT_EXECUTED, our_fault=True)
    assert sender_of(Modifier(answer)).operate(asked, ATTEMPT, "EUR", DEADLINE_S).state == state
    again = dataclasses.replace(asked, sends=2)
    assert sender_of(Modifier(answer)).operate(again, ATTEMPT, "EUR", DEADLINE_S).state == "unknown"
    assert sender_of(Modifier(DONE)).operate(again, ATTEMPT, "EUR", DEADLINE_S).state == "done"


@pytest.mark.parametrize("left_s", [LEAST_TIME_S / 2 - 0.01, 0.0, -3600.0])
def test_after_its_deadline_nothing_is_sent(left_s: float) -> None:
    """A process that was paused past its lease wakes: what it was about to send may have been settled without it."""
    provider = Modifier(DONE)
    sender, attempt = sender_of(provider), dataclasses.replace(ATTEMPT, provider_reference="ref_1")
    for kind in ("capture", "void", "refund"):
        for asked in (operation(kind), operation(kind, "unknown")):
            not_sent = dataclasses.replace(asked, sends=asked.sends - 1)
            assert sender.operate(asked, attempt, "EUR", left_s) == not_sent
    assert sender.operate(operation("void"), ATTEMPT, "EUR", left_s).sends == 0
    assert sender.resend(ATTEMPT, left_s)[0] == ATTEMPT
    assert sender.complete(attempt, {}, left_s).kind is OutcomeKind.UNKNOWN
    assert (provider.asked, provider.calls, list(provider.completed)) == ([], [], [])
    sender.operate(operation(), attempt, "EUR", LEAST_TIME_S / 2 + 0.01)
    assert provider.asked


@pytest.mark.parametrize("later", [CAPTURED, ACTION, declined(), REFUSED])
@pytest.mark.parametrize("lost", [1, 2])
def test_a_completion_whose_answer_is_lost_is_repeated(lost: int, later: Outcome) -> None:
    """The same details under the same key, until the provider says how the payment stands."""
    provider = Modifier(DONE)
    provider.completions.extend([UNKNOWN] * lost + [later])
    assert sender_of(provider).complete(ATTEMPT, {"a": "1"}, DEADLINE_S) == later
    assert len(provider.completed) == lost + 1
    assert len({key for _details, key in provider.completed}) == 1


@pytest.mark.parametrize(
    ("answers", "doubtful"),
    [
        ([UNKNOWN, UNKNOWN, UNKNOWN], True),
        ([UNKNOWN, NOT_TAKEN, NOT_TAKEN], True),
        ([NOT_TAKEN], False),
        ([KEY_REFUSED], True),
        ([PENDING], True),
    ],
    ids=["lost", "lost, then turned away", "turned away", "our key is refused", "pending"],
)
def test_what_leaves_a_completion_in_doubt(answers: list[Outcome], doubtful: bool) -> None:
    """Details that the provider turns away at once have done nothing; all the rest may have, or can be sent again."""
    provider = Modifier(DONE)
    provider.completions.extend(answers)
    outcome = sender_of(provider).complete(ATTEMPT, {}, DEADLINE_S)
    assert (len(provider.completed), is_doubtful_completion(outcome)) == (len(answers), doubtful)
    assert outcome == answers[0]


@pytest.mark.parametrize("kind", ["capture", "void", "refund"])
def test_an_adapter_that_raises_may_have_moved_money(kind: OperationKind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown, so that it is asked again under the same key."""
    provider = Modifier(DONE)
    monkeypatch.setattr(provider, kind, boom)
    attempt = dataclasses.replace(ATTEMPT, provider_reference="ref_1")
    told = sender_of(provider).operate(operation(kind), attempt, "EUR", DEADLINE_S)
    assert (told.state, told.reason) == ("unknown", "adapter_failed")


def test_a_completion_names_its_attempt_and_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same details are a re-send, others another step; an adapter that raises has told nothing."""
    provider, asked = FakeProvider("stripe"), list[dict[str, Any]]()

    def complete(*_args: Any, **named: Any) -> Outcome:
        asked.append(named)
        return CAPTURED

    monkeypatch.setattr(provider, "complete", complete)
    sender = sender_of(provider)
    for details in ({"a": "1", "b": "2"}, {"b": "2", "a": "1"}, {"a": "2"}):
        assert sender.complete(ATTEMPT, details, DEADLINE_S) == CAPTURED
    keys = [each["idempotency_key"] for each in asked]
    assert keys[0] == keys[1] != keys[2]
    assert all(len(key) <= 64 and key.startswith("att_1-") for key in keys)
    assert {(each["attempt_id"], each["capture"]) for each in asked} == {("att_1", "automatic")}
    monkeypatch.setattr(provider, "complete", boom)
    assert sender.complete(ATTEMPT, {}, DEADLINE_S).kind is OutcomeKind.UNKNOWN
