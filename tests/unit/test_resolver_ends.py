"""A payment that checkout cancels, or whose customer has gone, takes no money, whatever else of it is in doubt."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from providers.contract import Health, LookUp, LookUpKind, ModificationKind, ModificationOutcome, NoticeKind
from router.clock import ManualClock
from router.ledger.engine import Database
from router.ledger.operations import Operation
from router.ledger.records import Payment
from router.modifications import StateConflictError
from router.sending import Sender
from tests.fakes.home import HOUR_S, Home
from tests.fakes.house import TIMES, an_order
from tests.fakes.providers import ACTION, AUTHORIZED, DONE, REFUSED, UNKNOWN, FakeProvider, declined
from tests.unit.test_housekeeping import FOUND_WAITING
from tests.unit.test_resolver import (
    CANCELED,
    IN_THE_DARK,
    NO_LOOK_UP,
    RECEIVED,
    modifications,
    round_of,
    sound,
    tell,
    voided_unseen,
)
from tests.unit.test_sending import ATTEMPT

NOT_THERE = LookUp(LookUpKind.UNAVAILABLE, reason="http_503")
ANSWERED, LOST, BY_WEBHOOK, LATE = (
    "answered",
    "answer lost, sent again",
    "answer lost, told by webhook",
    "no time left",
)


@pytest.fixture
def captured(voiding: Home, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the first provider is asked to capture."""
    asked: list[str] = []

    def capture(reference: str, *_args: Any, **_named: Any) -> ModificationOutcome:
        asked.append(reference)
        return DONE

    monkeypatch.setattr(voiding.stripe, "capture", capture)
    return asked


def never_in_time(monkeypatch: pytest.MonkeyPatch, sender: Sender, home: Home) -> None:
    """Whatever is to be sent of an operation, its deadline is over."""
    real = sender.operate

    def late(operation: Operation, attempt: Any, currency: str, _deadline: float) -> Operation:
        return real(operation, attempt, currency, home.clock.monotonic())

    monkeypatch.setattr(sender, "operate", late)


# ---------------------------------------------------------------- beside another attempt in doubt


@pytest.mark.parametrize("how", [ANSWERED, LOST, BY_WEBHOOK, LATE])
@pytest.mark.parametrize("mode", ["automatic", "manual"])
def test_a_canceled_payment_is_not_charged_at_the_provider_that_is_in_doubt(
    voiding: Home, database: Database, captured: list[str], monkeypatch: pytest.MonkeyPatch, how: str, mode: str
) -> None:
    """The first is unknown, the second waits for the customer; the cancel ends it, however late its void is known."""
    voiding.stripe.outcomes.extend([UNKNOWN] * 3)
    voiding.adyen.outcomes.append(ACTION)
    payment = voiding.house.pay(an_order(capture=mode)).payment
    assert payment.status == "requires_action"
    checkout = modifications(voiding)
    if how in (LOST, BY_WEBHOOK):
        voiding.adyen.answer = IN_THE_DARK
    with monkeypatch.context() as patch:
        if how == LATE:
            never_in_time(patch, checkout._sender, voiding)
        answer = checkout.cancel("m", payment.id, key="cancel")
    assert answer.payment.status == ("canceled" if how == ANSWERED else "requires_action")
    voiding.adyen.answer = DONE
    if how == BY_WEBHOOK:
        assert tell(voiding, NoticeKind.ATTEMPT, payment, number=2, outcome=CANCELED) == "applied"
    voiding.stripe.outcomes.append(AUTHORIZED)
    for _ in range(5):
        round_of(voiding)
    assert (voiding.status(payment), len(voiding.stripe.calls), captured) == ("canceled", 3, [])
    assert sound(voiding, database)


def test_an_approval_that_comes_while_a_cancel_is_in_doubt_is_undone(home: Home, database: Database) -> None:
    """Of a first attempt that was taken not to be executed. The payment ends canceled, as it was asked."""
    home.stripe.outcomes.append(REFUSED)
    home.adyen.outcomes.append(AUTHORIZED)
    payment = home.house.pay(an_order(capture="manual")).payment
    home.adyen.answer = IN_THE_DARK
    modifications(home).cancel("m", payment.id, key="cancel")
    home.adyen.answer = DONE
    tell(home, NoticeKind.ATTEMPT, payment, outcome=AUTHORIZED, provider_reference="ref_9")
    for _ in range(3):
        round_of(home)
    now, attempts, _ = home.now(payment)
    assert (now.status, [each.outcome for each in attempts]) == ("canceled", ["canceled", "canceled"])
    assert sound(home, database)


@pytest.mark.parametrize("lost", [False, True])
def test_a_cancel_after_a_cascade_ends_canceled_whenever_it_is_known(home: Home, lost: bool) -> None:
    """Not declined: that was another provider's word, before."""
    home.stripe.outcomes.append(declined())
    home.adyen.outcomes.append(ACTION)
    payment = home.house.pay(an_order(capture="manual")).payment
    assert payment.status == "requires_action"
    home.adyen.answer = IN_THE_DARK if lost else DONE
    modifications(home).cancel("m", payment.id, key="cancel")
    home.adyen.answer = DONE
    for _ in range(3):
        round_of(home)
    assert home.status(payment) == "canceled"


def test_a_cancel_that_meets_a_decline_ends_the_doubt_beside_it_too(
    voiding: Home, database: Database, captured: list[str]
) -> None:
    """There was nothing to void any more; that checkout wants no money taken still stands."""
    voiding.stripe.outcomes.extend([UNKNOWN] * 3)
    voiding.adyen.outcomes.append(ACTION)
    payment = voiding.house.pay().payment
    voiding.adyen.answer = IN_THE_DARK
    modifications(voiding).cancel("m", payment.id, key="cancel")
    tell(voiding, NoticeKind.ATTEMPT, payment, number=2, outcome=declined(cascade=False))
    voiding.stripe.outcomes.append(AUTHORIZED)
    for _ in range(5):
        round_of(voiding)
    assert (len(voiding.stripe.calls), captured) == (3, [])
    assert voiding.status(payment) in ("declined", "canceled")
    assert sound(voiding, database)


@pytest.mark.parametrize("how", [ANSWERED, LOST, LATE, "found canceled", "found declined"])
def test_a_customer_who_has_gone_is_not_charged_at_the_provider_that_is_in_doubt(
    voiding: Home, database: Database, captured: list[str], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The first provider is away for the whole hour; when it is back, nobody expects the payment any more."""
    voiding.stripe.outcomes.extend([UNKNOWN] * 3)
    voiding.stripe.look_ups.extend([NOT_THERE] * 1000)
    voiding.adyen.outcomes.append(ACTION)
    payment = voiding.house.pay().payment
    for _ in range(70):
        round_of(voiding)
    found = {
        "found canceled": LookUp(LookUpKind.FOUND, CANCELED),
        "found declined": LookUp(LookUpKind.FOUND, declined(cascade=False)),
    }
    voiding.adyen.look_ups.append(found.get(how, FOUND_WAITING))
    if how == LOST:
        voiding.adyen.answer = IN_THE_DARK
    with monkeypatch.context() as patch:
        if how == LATE:
            never_in_time(patch, voiding.housekeeping._sender, voiding)
        voiding.housekeeping.run_once()
    voiding.adyen.answer = DONE
    voiding.stripe.outcomes.append(AUTHORIZED)
    for _ in range(5):
        round_of(voiding)
        voiding.housekeeping.run_once()
    assert (len(voiding.stripe.calls), captured) == (3, [])
    assert voiding.status(payment) in ("canceled", "processing")
    assert sound(voiding, database)


# ---------------------------------------------------------------- while checkout does expect it


def found_by_the_resolver(voiding: Home) -> Payment:
    """A payment that waits for its customer, of which the request that made it never told checkout."""
    voiding.stripe.outcomes.append(ACTION)
    payment = voiding.house.pay().payment
    found = voiding.ledger.load(payment.id)
    assert found is not None
    voiding.ledger.change(found[0], {"told": False}, event="its process died", now=voiding.clock.now())
    return payment


def test_a_step_that_checkout_completes_shows_that_the_payment_is_expected(voiding: Home) -> None:
    """Though the payment is old, and was never answered."""
    payment = found_by_the_resolver(voiding)
    voiding.clock.advance(1000)
    voiding.stripe.completions.append(AUTHORIZED)
    assert modifications(voiding).complete("m", payment.id, {"x": "y"}, key="c").payment.status == "processing"
    round_of(voiding, 1)
    assert voiding.status(payment) == "captured"


def test_a_payment_that_checkout_asks_for_while_its_customer_acts_is_expected(voiding: Home) -> None:
    """The approval comes by webhook, long after it was created."""
    payment = found_by_the_resolver(voiding)
    for _ in range(100):
        voiding.clock.advance(10)
        voiding.house.payments.get("m", payment.id)
    tell(voiding, NoticeKind.ATTEMPT, payment, outcome=AUTHORIZED)
    round_of(voiding, 1)
    assert voiding.status(payment) == "captured"


# ---------------------------------------------------------------- voids by our own id


def received_as(reference: str) -> ModificationOutcome:
    return ModificationOutcome(ModificationKind.RECEIVED, Health.OK, provider_reference=reference)


def asked_twice(voiding: Home, first: ModificationOutcome, second: ModificationOutcome) -> Payment:
    """The first attempt is in doubt, and asked to be void in two rounds; then the second is declined."""
    voiding.stripe.look_ups.extend([NO_LOOK_UP] * 500)
    voiding.stripe.outcomes.extend([UNKNOWN] * 50)
    voiding.adyen.outcomes.extend([UNKNOWN] * 4 + [declined(cascade=False)])
    payment = voiding.house.pay().payment
    for answer in (first, second):
        voiding.stripe.answer = answer
        round_of(voiding)
    assert len(voiding.stripe.voided) == 2
    now, attempts, _ = voiding.now(payment)
    assert now.attempt_id == attempts[0].id
    return payment


def void_failed(voiding: Home, payment: Payment, reference: str) -> None:
    tell(
        voiding,
        NoticeKind.VOID_FAILED,
        payment,
        modification_reference=reference,
        reason="original_payment_not_found",
        provider_reference=None,
    )


@pytest.mark.parametrize(
    ("first", "second", "failed"),
    [
        (received_as("VOID1"), IN_THE_DARK, "VOID1"),
        (IN_THE_DARK, received_as("VOID2"), "VOID2"),
        (received_as("VOID1"), received_as("VOID2"), "VOID2"),
        (received_as("VOID1"), ModificationOutcome(ModificationKind.REFUSED, Health.OK, "busy"), "VOID2"),
    ],
)
def test_nothing_is_captured_or_sent_again_while_one_of_several_voids_may_come(
    voiding: Home,
    captured: list[str],
    first: ModificationOutcome,
    second: ModificationOutcome,
    failed: str,
) -> None:
    """That one of them failed says nothing of the other: checkout would see it captured, and then declined."""
    payment = asked_twice(voiding, first, second)
    if second.kind is not ModificationKind.REFUSED:
        void_failed(voiding, payment, failed)
        void_failed(voiding, payment, failed)  # told twice, it is one failure
    sends = len(voiding.stripe.calls)
    round_of(voiding)
    assert len(voiding.stripe.calls) == sends
    assert tell(voiding, NoticeKind.ATTEMPT, payment, outcome=AUTHORIZED) == "applied"
    round_of(voiding)
    assert (voiding.status(payment), captured) == ("processing", [])
    tell(voiding, NoticeKind.ATTEMPT, payment, outcome=CANCELED)
    assert (voiding.status(payment), voiding.now(payment)[0].amount_captured) == ("declined", 0)


def test_when_all_of_them_have_failed_it_is_captured(voiding: Home, database: Database, captured: list[str]) -> None:
    """In whatever order they are told."""
    payment = asked_twice(voiding, received_as("VOID1"), received_as("VOID2"))
    assert tell(voiding, NoticeKind.ATTEMPT, payment, outcome=AUTHORIZED) == "applied"
    void_failed(voiding, payment, "VOID2")
    void_failed(voiding, payment, "VOID1")
    round_of(voiding)
    assert (voiding.status(payment), captured) == ("captured", ["ref_1"])
    assert sound(voiding, database)


@pytest.mark.parametrize("approved", [True, False])
def test_a_void_that_was_never_sent_holds_up_nothing(
    voiding: Home, database: Database, captured: list[str], monkeypatch: pytest.MonkeyPatch, approved: bool
) -> None:
    """There was no time left for it; then the other provider declines, and this one is all there is."""
    voiding.stripe.look_ups.extend([NO_LOOK_UP] * 500)
    voiding.stripe.outcomes.extend([UNKNOWN] * 4)
    voiding.adyen.outcomes.extend([UNKNOWN] * 3 + [declined(cascade=False)])
    payment = voiding.house.pay().payment
    with monkeypatch.context() as patch:
        never_in_time(patch, voiding.resolver._sender, voiding)
        round_of(voiding)
    assert voiding.stripe.voided == []
    if approved:
        assert tell(voiding, NoticeKind.ATTEMPT, payment, outcome=AUTHORIZED) == "applied"
    else:
        voiding.stripe.outcomes.append(AUTHORIZED)
    for _ in range(3):
        round_of(voiding)
    assert (voiding.status(payment), captured) == ("captured", ["ref_1"])
    assert sound(voiding, database)


def test_the_approval_that_nothing_threatens_is_kept_while_the_other_may_be_void(
    voiding: Home, database: Database
) -> None:
    """The first was approved while a void of it is on its way; the second was approved since."""
    voiding.stripe.look_ups.extend([NO_LOOK_UP] * 500)
    voiding.stripe.answer = RECEIVED
    voiding.stripe.outcomes.extend([UNKNOWN] * 50)
    voiding.adyen.outcomes.extend([UNKNOWN] * 4 + [AUTHORIZED])
    payment = voiding.house.pay().payment
    round_of(voiding)
    tell(voiding, NoticeKind.ATTEMPT, payment, outcome=AUTHORIZED)
    round_of(voiding)
    assert [each.outcome for each in voiding.now(payment)[1]] == ["approved", "approved"]
    tell(voiding, NoticeKind.ATTEMPT, payment, outcome=CANCELED)
    for _ in range(3):
        round_of(voiding)
    now, attempts, _ = voiding.now(payment)
    assert (now.status, now.provider, [each.outcome for each in attempts]) == (
        "captured",
        "adyen",
        ["canceled", "approved"],
    )
    assert sound(voiding, database)


def test_a_person_must_say_whether_the_authorization_stands(voiding: Home) -> None:
    """`approved` could mean either: that the void was done, or that the payment is authorized."""
    payment = voided_unseen(voiding)
    tell(voiding, NoticeKind.ATTEMPT, payment, outcome=AUTHORIZED)
    round_of(voiding, HOUR_S + 100)
    before = voiding.now(payment)
    with pytest.raises(StateConflictError, match="`not_executed` if it stands"):
        modifications(voiding).resolve("m", payment.id, "approved", "dashboard: Authorised", "ref_1", key="o")
    assert voiding.now(payment) == before


# ---------------------------------------------------------------- one send


def test_a_re_send_that_the_provider_has_taken_up_is_looked_up_by_its_id_from_then_on() -> None:
    """Pending is no result, and no reason to send it again and again."""
    provider = FakeProvider("stripe")
    provider.outcomes.append(dataclasses.replace(UNKNOWN, provider_reference="ref_7"))
    sender = Sender({"stripe": provider}, TIMES, clock=ManualClock(), random=lambda: 0.5)
    attempt, _ = sender.resend(dataclasses.replace(ATTEMPT, outcome="unknown"), 20.0)
    assert (attempt.outcome, attempt.provider_reference) == ("unknown", "ref_7")


def test_a_void_that_was_asked_by_our_own_id_is_asked_anew_once_the_provider_has_told_its_own(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The customer finished while the cancel was in doubt: its old answer must not stand for this authorization's."""
    home.stripe.outcomes.append(dataclasses.replace(ACTION, provider_reference=None))
    payment = home.house.pay(an_order(capture="manual")).payment
    keys: list[tuple[str, str]] = []

    def void_attempt(attempt_id: str, *, idempotency_key: str, **_named: object) -> ModificationOutcome:
        keys.append((attempt_id, idempotency_key))
        return IN_THE_DARK

    def void(reference: str, *, idempotency_key: str, **_named: object) -> ModificationOutcome:
        keys.append((reference, idempotency_key))
        return DONE

    monkeypatch.setattr(home.stripe, "void_attempt", void_attempt)
    monkeypatch.setattr(home.stripe, "void", void)
    modifications(home).cancel("m", payment.id, key="cancel")
    home.stripe.completions.append(AUTHORIZED)
    modifications(home).complete("m", payment.id, {"x": "y"}, key="c")
    round_of(home)
    (asked_blindly, key), (reference, another) = keys
    assert asked_blindly.startswith("att_")
    assert (reference, key == another, home.status(payment)) == ("ref_1", False, "canceled")
