"""What the worker does about doubt, late news and orphans, one step at a time: each with a clock that is moved."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import itertools
from pathlib import Path
from typing import Any

import pytest
import structlog

from providers.contract import (
    Health,
    LookUp,
    LookUpKind,
    ModificationKind,
    ModificationOutcome,
    Money,
    Notice,
    NoticeKind,
    Outcome,
    OutcomeKind,
)
from router import audit
from router.ledger.engine import Database
from router.ledger.journal import Journal
from router.ledger.operations import UNSEEN
from router.ledger.records import Payment, ReferenceInUseError
from router.modifications import Modifications
from router.notices import UNMATCHED_AFTER
from router.resolver import KEY_FORGOTTEN, KEY_LIVES, NOT_UNDONE, UNDONE_AT_MOST
from router.settling import IN_DOUBT
from tests.fakes.home import HOUR_S, Home
from tests.fakes.house import DEADLINE_S, an_order
from tests.fakes.ledger import fresh_ledger
from tests.fakes.providers import ACTION, AUTHORIZED, CAPTURED, DONE, REFUSED, UNKNOWN, declined

NO_LOOK_UP = LookUp(LookUpKind.UNSUPPORTED)
CANCELED = Outcome(OutcomeKind.CANCELED, Health.OK, provider_reference="ref_1")
RECEIVED = ModificationOutcome(ModificationKind.RECEIVED, Health.OK)
NOT_DONE = ModificationOutcome(ModificationKind.REFUSED, Health.OK, "unexpected_state")
IN_THE_DARK = ModificationOutcome(ModificationKind.UNKNOWN, Health.PROVIDER_ERROR)
NOTHING_CHARGED = dataclasses.replace(REFUSED, reason="acquirer_error", provider_reference="ref_1", final_record=True)


def round_of(home: Home, seconds: float = 61.0) -> None:
    """Some time later the resolver looks."""
    home.clock.advance(seconds)
    home.resolver.run_once()


def tell(home: Home, kind: NoticeKind, payment: Payment, *, number: int = 1, **more: Any) -> str | None:
    """The first provider tells something of that payment's attempt with that number."""
    attempt = home.now(payment)[1][number - 1]
    named = {"attempt_id": attempt.id, "provider_reference": "ref_1"} | more
    return home.notices.apply(attempt.provider, Notice(f"n-{kind}", kind, kind.value, **named))


def hung(home: Home) -> Payment:
    """A payment whose process died before it answered, and whose provider has no look-up."""
    home.stripe.outcomes.extend([UNKNOWN] * 3)
    home.stripe.look_ups.extend([NO_LOOK_UP] * 100)
    home.stripe.answer = RECEIVED
    payment = home.house.pay().payment
    loaded = home.ledger.load(payment.id)
    assert loaded is not None
    return home.ledger.change(loaded[0], {"told": False}, event="not answered", now=home.clock.now())


def sound(home: Home, database: Database) -> bool:
    return [each for progress in audit.verify(database) for each in progress.differences] == []


# ---------------------------------------------------------------- giving up


def test_a_payment_given_up_is_never_sent_again(home: Home, database: Database) -> None:
    """Checkout asks after all: our void is on its way, and must not meet a re-send of ours."""
    payment = hung(home)
    round_of(home, 1000)
    given_up, _, (void,) = home.now(payment)
    assert given_up.given_up_at is not None
    assert (void.kind, void.state, void.asked_by) == ("void", "received", UNSEEN)
    sends = len(home.stripe.calls)
    home.house.payments.get("m", payment.id)
    for _ in range(3):
        round_of(home)
    assert len(home.stripe.calls) == sends
    assert tell(home, NoticeKind.ATTEMPT, payment, outcome=CAPTURED) == "applied"
    assert home.status(payment) == "canceled"
    round_of(home)
    assert ("refund", "done") in [(each.kind, each.state) for each in home.now(payment)[2]]
    assert sound(home, database)


def test_giving_up_is_committed_before_the_first_void(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks at the ledger while the void is under way knows of both."""
    payment, seen = hung(home), []

    def look(attempt_id: str, **_named: object) -> ModificationOutcome:
        loaded = home.ledger.load(payment.id)
        assert loaded is not None
        seen.append((loaded[0].given_up_at is not None, [each.state for each in loaded[2]], attempt_id))
        return RECEIVED

    monkeypatch.setattr(home.stripe, "void_attempt", look)
    round_of(home, 1000)
    round_of(home)
    assert [each[:2] for each in seen] == [(True, ["started"])] * 2


def test_each_asking_to_void_has_a_key_of_its_own_and_there_is_one_operation(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the same key the provider would repeat its answer, and do nothing."""
    payment, keys = hung(home), []

    def look(_attempt_id: str, *, idempotency_key: str, **_named: object) -> ModificationOutcome:
        keys.append(idempotency_key)
        return RECEIVED

    monkeypatch.setattr(home.stripe, "void_attempt", look)
    round_of(home, 1000)
    for _ in range(4):
        round_of(home)
    assert len(set(keys)) == len(keys) == 5
    (void,) = home.now(payment)[2]
    assert void.sends == 5


def test_a_worker_that_was_stopped_past_its_lease_voids_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Meanwhile another one has found out that it is authorized: the technical cancel would take it away."""
    payment, stopped = hung(home), False

    def look(_attempt_id: str, **_named: object) -> LookUp:
        nonlocal stopped
        if not stopped:
            stopped = True
            home.clock.advance(100)
            loaded = home.ledger.load(payment.id)
            assert loaded is not None
            journal = home.journals.open(*loaded)
            journal.claim()
            journal.finish({}, event="another worker")
        return NO_LOOK_UP

    monkeypatch.setattr(home.stripe, "look_up", look)
    round_of(home, 1000)
    assert home.stripe.voided == []


def test_a_step_that_was_abandoned_gives_up_the_doubt_beside_it(voiding: Home) -> None:
    """The customer has gone: what was in doubt at the first provider is not sent again, hours later."""
    voiding.stripe.outcomes.extend([UNKNOWN] * 3)
    voiding.adyen.outcomes.append(ACTION)
    payment = voiding.house.pay().payment
    assert payment.status == "requires_action"
    voiding.adyen.look_ups.append(LookUp(LookUpKind.FOUND, ACTION))
    voiding.clock.advance(HOUR_S)
    voiding.housekeeping.run_once()
    sends = len(voiding.stripe.calls)
    voiding.stripe.look_ups.append(LookUp(LookUpKind.FOUND, AUTHORIZED))
    for _ in range(3):
        round_of(voiding)
    ended, attempts, _ = voiding.now(payment)
    assert (ended.status, [each.outcome for each in attempts]) == ("canceled", ["canceled", "canceled"])
    assert len(voiding.stripe.calls) == sends


# ---------------------------------------------------------------- what is found and told


@pytest.mark.parametrize("where", ["re-send", "look-up"])
def test_a_step_of_the_customers_that_is_found_later_can_be_taken(home: Home, database: Database, where: str) -> None:
    """The payment says what is to be done, as if it had been answered at once."""
    home.stripe.outcomes.extend([UNKNOWN] * 3 + ([ACTION] if where == "re-send" else [UNKNOWN]))
    home.stripe.look_ups.append(LookUp(LookUpKind.FOUND, ACTION))
    payment = home.house.pay().payment
    round_of(home)
    now = home.now(payment)[0]
    assert (now.status, now.next_action) == ("requires_action", ACTION.next_action)
    assert sound(home, database)


def test_what_an_orphan_waits_for_is_not_the_payments(voiding: Home, database: Database) -> None:
    """Its customer must not be sent to the step of an attempt that is being released."""
    voiding.stripe.outcomes.extend([UNKNOWN] * 3)
    voiding.adyen.outcomes.append(AUTHORIZED)
    payment = voiding.house.pay().payment
    assert tell(voiding, NoticeKind.ATTEMPT, payment, outcome=ACTION) == "applied"
    now = voiding.now(payment)[0]
    assert (now.status, now.next_action) == ("processing", None)
    assert sound(voiding, database)


@pytest.mark.parametrize("teller", ["re-send", "look-up", "notice"])
def test_the_providers_own_error_ends_a_doubt(home: Home, teller: str) -> None:
    """Its record says that nothing was charged; a refused re-send would say nothing at all."""
    home.stripe.outcomes.extend([UNKNOWN] * 3)
    payment = home.house.pay().payment
    match teller:
        case "re-send":
            home.stripe.outcomes.extend([REFUSED, NOTHING_CHARGED])
        case "look-up":
            home.stripe.outcomes.extend([REFUSED] * 2)
            home.stripe.look_ups.extend([LookUp(LookUpKind.NOT_FOUND), LookUp(LookUpKind.FOUND, NOTHING_CHARGED)])
        case _:
            home.stripe.outcomes.append(REFUSED)
    round_of(home)
    assert home.status(payment) == "processing"
    if teller == "notice":
        assert tell(home, NoticeKind.ATTEMPT, payment, outcome=NOTHING_CHARGED) == "applied"
    else:
        round_of(home)
    ended, (attempt,), _ = home.now(payment)
    assert (ended.status, attempt.outcome, ended.resolve_at) == ("failed", "not_executed", None)


NOTHING_LEFT = dataclasses.replace(NOTHING_CHARGED, health=Health.PROVIDER_ERROR)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ((declined(cascade=False), CANCELED), ("declined", "declined")),
        ((ACTION, NOTHING_LEFT), ("failed", "not_executed")),
        ((ACTION, NOTHING_LEFT, CANCELED), ("failed", "not_executed")),
        ((declined(cascade=False), ACTION, CANCELED), ("declined", "declined")),
        ((ACTION, CANCELED), ("canceled", "canceled")),
        ((declined(cascade=False), AUTHORIZED, CANCELED), ("canceled", "canceled")),
    ],
    ids=lambda told: "-".join(str(getattr(each, "kind", each)) for each in told),
)
def test_what_never_held_anything_ends_alike_in_every_order_of_news(
    tmp_path: Path, told: tuple[Outcome, ...], expected: tuple[str, str]
) -> None:
    """A cancel besides changes neither why it was declined, nor that nothing came of it."""
    ends = []
    for number, order in enumerate(itertools.permutations(told)):
        (folder := tmp_path / str(number)).mkdir()
        with fresh_ledger(folder) as database:
            home = Home(database)
            home.stripe.outcomes.extend([UNKNOWN] * 3)
            payment = home.house.pay().payment
            for each in order:
                tell(home, NoticeKind.ATTEMPT, payment, outcome=each)
            now, (attempt,), operations = home.now(payment)
            ends.append((now.status, attempt.outcome, now.decline, now.attention, now.resolve_at, operations))
            assert sound(home, database)
    assert ends == [ends[0]] * len(ends)
    assert ends[0][:2] == expected


@pytest.mark.parametrize("decline_first", [True, False])
def test_a_cancel_that_was_asked_for_here_stands_beside_a_decline(home: Home, decline_first: bool) -> None:
    """Checkout was told that it is canceled; in whatever order its provider says what."""
    home.stripe.outcomes.append(ACTION)
    payment = home.house.pay().payment
    home.stripe.answer = IN_THE_DARK
    modifications(home).cancel("m", payment.id, key="k")
    told = [declined(cascade=False), CANCELED]
    for each in told if decline_first else reversed(told):
        tell(home, NoticeKind.ATTEMPT, payment, outcome=each)
    now, (attempt,), (void,) = home.now(payment)
    assert (now.status, attempt.outcome, void.state) == ("canceled", "declined", "done")


def test_a_parked_payment_outlives_the_cancel_of_an_intent_that_held_nothing(home: Home) -> None:
    """Its next try is approved."""
    home.stripe.outcomes.append(NOTHING_LEFT)
    home.adyen.outcomes.append(REFUSED)
    payment = home.house.pay().payment
    assert home.status(payment) == "parked"
    tell(home, NoticeKind.ATTEMPT, payment, outcome=CANCELED)
    now, attempts, _ = home.now(payment)
    assert (now.status, attempts[0].outcome) == ("parked", "not_executed")
    assert now.next_try_at == payment.next_try_at


def test_what_was_captured_at_once_and_then_canceled_was_not_captured(home: Home, database: Database) -> None:
    """No amount stays on a payment that nobody took."""
    payment = home.house.pay().payment
    assert tell(home, NoticeKind.ATTEMPT, payment, outcome=CANCELED) == "applied"
    now = home.now(payment)[0]
    assert (now.status, now.amount_captured) == ("canceled", 0)
    assert sound(home, database)


# ---------------------------------------------------------------- a payment that was told to be declined


def told_declined(home: Home, reference: str = "ORD-X", **more: Any) -> Payment:
    home.stripe.outcomes.append(ACTION)
    payment = home.house.pay(an_order(reference=reference, **more)).payment
    tell(home, NoticeKind.ATTEMPT, payment, outcome=declined(cascade=False))
    assert home.status(payment) == "declined"
    return payment


def test_a_late_approval_of_a_declined_payment_reopens_it_with_an_alert(home: Home, database: Database) -> None:
    """Nobody else has its reference, and from now on nobody can."""
    payment = told_declined(home)
    with structlog.testing.capture_logs() as log:
        assert tell(home, NoticeKind.ATTEMPT, payment, outcome=CAPTURED) == "applied"
    assert ("declined_and_then_approved", "error") in [(each["event"], each["log_level"]) for each in log]
    now = home.now(payment)[0]
    assert (now.status, now.holds_reference) == ("captured", True)
    with pytest.raises(ReferenceInUseError):
        home.house.pay(an_order(reference="ORD-X"))
    assert sound(home, database)


@pytest.mark.parametrize("late", [CAPTURED, AUTHORIZED])
def test_a_reference_is_not_paid_twice_by_a_late_approval(home: Home, database: Database, late: Outcome) -> None:
    """The customer has paid with another payment: the late one is undone by itself, and stays declined."""
    mode = {"capture": "manual"} if late is AUTHORIZED else {}
    payment = told_declined(home, **mode)
    other = home.house.pay(an_order(reference="ORD-X")).payment
    assert other.status == "captured"
    with structlog.testing.capture_logs() as log:
        assert tell(home, NoticeKind.ATTEMPT, payment, outcome=late) == "applied"
    assert "paid_by_another" in [each["event"] for each in log]
    round_of(home)
    now, _, operations = home.now(payment)
    assert (now.status, now.amount_captured, now.resolve_at) == ("declined", 0, None)
    assert now.decline is not None
    kind = "void" if late is AUTHORIZED else "refund"
    assert [(each.kind, each.state) for each in operations] == [(kind, "done")]
    assert home.status(other) == "captured"
    assert sound(home, database)


# ---------------------------------------------------------------- orphans


def paid_at_the_second(home: Home) -> Payment:
    """The first provider was out of reach, so the second one has it; then the first turns out to have it as well."""
    home.stripe.outcomes.append(REFUSED)
    return home.house.pay().payment


@pytest.mark.parametrize("approval_first", [True, False])
def test_an_orphan_that_was_refunded_in_part_is_refunded_for_the_rest(home: Home, approval_first: bool) -> None:
    """In either order, and the payment that was taken twice is taken once in the end."""
    payment = paid_at_the_second(home)
    part: dict[str, Any] = {"money": Money(500, "EUR"), "modification_reference": "re_1"}
    if approval_first:
        home.stripe.answer = NOT_DONE
        tell(home, NoticeKind.ATTEMPT, payment, outcome=CAPTURED)
    tell(home, NoticeKind.REFUNDED, payment, **part)
    round_of(home)
    now, attempts, operations = home.now(payment)
    assert attempts[0].outcome == "approved"
    assert sorted(each.amount for each in operations if each.attempt_id == attempts[0].id) == [500, 1499]
    assert (now.status, now.resolve_at, now.amount_refunded) == ("captured", None, 0)


def test_a_refund_by_hand_of_all_of_an_orphan_is_enough(home: Home) -> None:
    """Nothing is refunded besides."""
    payment = paid_at_the_second(home)
    tell(home, NoticeKind.REFUNDED, payment, money=Money(1999, "EUR"), modification_reference="re_1")
    round_of(home)
    assert [each.amount for each in home.now(payment)[2]] == [1999]
    assert home.now(payment)[0].resolve_at is None


def orphaned(home: Home) -> Payment:
    """Authorized at both; the first one's void is refused."""
    home.stripe.outcomes.extend([UNKNOWN] * 3 + [AUTHORIZED])
    home.adyen.outcomes.append(AUTHORIZED)
    home.stripe.answer = NOT_DONE
    return home.house.pay().payment


def test_an_orphan_that_is_gone_already_is_found_so(voiding: Home) -> None:
    """Canceled in the dashboard, and the webhook was lost: its void is refused, and the look-up knows why."""
    payment = orphaned(voiding)
    voiding.stripe.look_ups.append(LookUp(LookUpKind.FOUND, CANCELED))
    for _ in range(2):
        round_of(voiding)
    ended, attempts, _ = voiding.now(payment)
    assert (ended.status, attempts[0].outcome, ended.resolve_at) == ("captured", "canceled", None)
    assert voiding.stripe.voided == ["ref_1"]


def test_an_orphan_that_cannot_be_released_is_put_before_an_operator(voiding: Home) -> None:
    """After five voids, and not before; what somebody does at the provider is found all the same."""
    payment = orphaned(voiding)
    voiding.stripe.look_ups.extend([LookUp(LookUpKind.FOUND, AUTHORIZED)] * 20)
    for _ in range(UNDONE_AT_MOST - 1):
        round_of(voiding)
    assert voiding.now(payment)[0].attention is None
    for _ in range(4):
        round_of(voiding)
    now = voiding.now(payment)[0]
    assert (now.status, now.amount_captured, now.attention) == ("processing", 0, NOT_UNDONE)
    assert len(voiding.stripe.voided) == UNDONE_AT_MOST
    voiding.stripe.look_ups.clear()
    voiding.stripe.look_ups.append(LookUp(LookUpKind.FOUND, CANCELED))
    round_of(voiding)
    ended = voiding.now(payment)[0]
    assert (ended.status, ended.attention) == ("captured", None)


# ---------------------------------------------------------------- operations that stay in doubt


def modifications(home: Home) -> Modifications:
    return Modifications(
        ledger=home.ledger,
        journals=home.journals,
        sender=home.resolver._sender,
        deadline_s=DEADLINE_S,
        clock=home.clock,
    )


@pytest.mark.parametrize(
    ("kind", "found", "ended"),
    [
        ("capture", CAPTURED, "captured"),
        ("capture", AUTHORIZED, "authorized"),
        ("capture", CANCELED, "canceled"),
        ("void", CANCELED, "canceled"),
        ("void", AUTHORIZED, "authorized"),
    ],
)
def test_an_operation_whose_key_is_forgotten_is_looked_up(
    home: Home, monkeypatch: pytest.MonkeyPatch, kind: str, found: Outcome, ended: str
) -> None:
    """A re-send would be a new one; the provider's record of the payment says whether it was done."""
    home.stripe.outcomes.append(AUTHORIZED)
    payment = home.house.pay(an_order(capture="manual")).payment
    monkeypatch.setattr(home.stripe, kind, lambda *_args, **_named: IN_THE_DARK)
    if kind == "capture":
        modifications(home).capture("m", payment.id, None, key="k")
    else:
        modifications(home).cancel("m", payment.id, key="k")
    monkeypatch.setattr(home.stripe, kind, lambda *_args, **_named: pytest.fail("sent again"))
    home.stripe.look_ups.extend([LookUp(LookUpKind.UNAVAILABLE), LookUp(LookUpKind.FOUND, found)])
    home.clock.advance(KEY_LIVES.total_seconds())
    round_of(home)
    assert home.now(payment)[0].attention == KEY_FORGOTTEN
    round_of(home)
    now = home.now(payment)[0]
    assert (now.status, now.attention, now.resolve_at) == (ended, None, None)


def test_a_refund_whose_key_is_forgotten_is_put_before_an_operator(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The payment's record does not say which refunds there were."""
    payment = home.house.pay().payment
    monkeypatch.setattr(home.stripe, "refund", lambda *_args, **_named: IN_THE_DARK)
    modifications(home).refund("m", payment.id, 500, key="k")
    home.clock.advance(KEY_LIVES.total_seconds())
    home.stripe.look_ups.append(LookUp(LookUpKind.FOUND, CAPTURED))
    round_of(home)
    now, _, (refund,) = home.now(payment)
    assert (now.attention, refund.state) == (KEY_FORGOTTEN, "unknown")


def test_doubt_about_an_old_payment_is_young(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator is asked after an hour of doubt, not at once because the payment is three days old."""
    payment = home.house.pay().payment
    home.clock.advance(3 * 24 * HOUR_S)
    monkeypatch.setattr(home.stripe, "refund", lambda *_args, **_named: IN_THE_DARK)
    modifications(home).refund("m", payment.id, 100, key="k")
    round_of(home, 3500)
    assert home.now(payment)[0].attention is None
    round_of(home, 101)
    assert home.now(payment)[0].attention == IN_DOUBT
    monkeypatch.setattr(home.stripe, "refund", lambda *_args, **_named: DONE)
    round_of(home)
    assert home.now(payment)[0].attention is None


def test_late_news_of_a_capture_that_failed_is_not_taken_for_the_next_one(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stripe names no operation: the one in doubt is sent again, and not believed because of the one before it."""
    home.stripe.outcomes.append(AUTHORIZED)
    payment = home.house.pay(an_order(capture="manual")).payment
    modifications(home).capture("m", payment.id, None, key="first")
    tell(home, NoticeKind.CAPTURE_FAILED, payment)
    monkeypatch.setattr(home.stripe, "capture", lambda *_args, **_named: IN_THE_DARK)
    modifications(home).capture("m", payment.id, None, key="second")
    assert tell(home, NoticeKind.CAPTURED, payment, money=Money(1999, "EUR")) == "nothing new"
    assert [each.state for each in home.now(payment)[2]] == ["failed", "unknown"]
    assert home.status(payment) == "authorized"


# ---------------------------------------------------------------- a capture that nobody wants any more


class Killed(BaseException):
    """The process dies."""


def capture_cut_short(home: Home, monkeypatch: pytest.MonkeyPatch) -> Payment:
    """Authorized; the process died with the capture committed, and perhaps sent."""
    home.stripe.outcomes.append(AUTHORIZED)
    with monkeypatch.context() as dying:
        ask = Journal.ask

        def ask_and_die(journal: Journal, *args: Any, **named: Any) -> None:
            ask(journal, *args, **named)
            raise Killed

        dying.setattr(Journal, "ask", ask_and_die)
        with pytest.raises(Killed):
            home.house.pay(key="k")
    found = home.ledger.find_key("m", "k")
    assert found is not None
    loaded = home.ledger.get(found[1])
    assert loaded is not None
    monkeypatch.setattr(home.stripe, "capture", lambda *_args, **_named: pytest.fail("captured for nobody"))
    return loaded[0]


def kinds(home: Home, payment: Payment) -> list[tuple[str, str]]:
    return [(each.kind, each.state) for each in home.now(payment)[2]]


@pytest.mark.parametrize(
    ("found", "undone"),
    [
        (LookUp(LookUpKind.FOUND, CAPTURED), [("capture", "done"), ("refund", "done")]),
        (LookUp(LookUpKind.FOUND, AUTHORIZED), [("capture", "refused"), ("void", "done")]),
        (LookUp(LookUpKind.FOUND, CANCELED), [("capture", "refused")]),
        (LookUp(LookUpKind.NOT_FOUND), [("capture", "refused"), ("void", "done")]),
        (NO_LOOK_UP, [("capture", "refused"), ("void", "done")]),
    ],
    ids=["captured", "authorized", "canceled", "not found", "no look-up"],
)
def test_the_capture_of_a_payment_given_up_is_not_sent_again(
    voiding: Home, database: Database, monkeypatch: pytest.MonkeyPatch, found: LookUp, undone: list[tuple[str, str]]
) -> None:
    """An hour later nobody wants the money taken: what was done is found out and undone, and then it has ended."""
    payment = capture_cut_short(voiding, monkeypatch)
    voiding.stripe.look_ups.append(LookUp(LookUpKind.UNAVAILABLE))
    round_of(voiding, HOUR_S)
    assert (voiding.status(payment), kinds(voiding, payment)) == ("canceled", [("capture", "started")])
    voiding.stripe.look_ups.extend([found] * 10)
    for _ in range(3):
        round_of(voiding)
    assert kinds(voiding, payment) == undone
    assert voiding.now(payment)[0].resolve_at is None
    assert sound(voiding, database)


def test_while_the_provider_cannot_say_whether_it_captured_nothing_is_voided(
    voiding: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record will say; until then capture and void must not meet there. After an hour a person is asked."""
    payment = capture_cut_short(voiding, monkeypatch)
    voiding.stripe.look_ups.extend([LookUp(LookUpKind.UNAVAILABLE)] * 200)
    round_of(voiding, 1000)
    for _ in range(60):
        round_of(voiding)
    assert voiding.stripe.voided == []
    assert voiding.now(payment)[0].attention == IN_DOUBT


def test_a_void_beside_a_capture_that_came_first_ends_in_a_refund(
    voiding: Home, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no look-up; the void's answer is lost, and the capture's notice comes: the void is dropped."""
    payment = capture_cut_short(voiding, monkeypatch)
    voiding.stripe.look_ups.extend([NO_LOOK_UP] * 100)
    voiding.stripe.answer = IN_THE_DARK
    for seconds in (HOUR_S, 61):
        round_of(voiding, seconds)
    assert kinds(voiding, payment) == [("capture", "started"), ("void", "unknown")]
    tell(voiding, NoticeKind.CAPTURED, payment, money=Money(1999, "EUR"))
    for _ in range(2):
        round_of(voiding)
    assert kinds(voiding, payment) == [("capture", "done"), ("void", "refused"), ("refund", "done")]
    assert len(voiding.stripe.voided) == 1
    assert voiding.now(payment)[0].resolve_at is None
    assert sound(voiding, database)


def test_a_capture_that_was_under_way_when_it_was_looked_up_is_refunded(
    voiding: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First found authorized, then the void is refused, because the capture arrived in between."""
    payment = capture_cut_short(voiding, monkeypatch)
    voiding.stripe.look_ups.append(LookUp(LookUpKind.FOUND, AUTHORIZED))
    voiding.stripe.look_ups.extend([LookUp(LookUpKind.FOUND, CAPTURED)] * 10)
    voiding.stripe.answer = NOT_DONE
    for seconds in (HOUR_S, 61, 61, 61):
        round_of(voiding, seconds)
    assert kinds(voiding, payment) == [("capture", "done"), ("void", "refused"), ("refund", "done")]
    assert voiding.now(payment)[0].resolve_at is None


# ---------------------------------------------------------------- a void that may yet come true


def voided_unseen(home: Home, **order: Any) -> Payment:
    """The first provider was asked to void what it may not have; then the second declined, and the first is all."""
    home.stripe.look_ups.extend([NO_LOOK_UP] * 500)
    home.stripe.answer = RECEIVED
    home.stripe.outcomes.extend([UNKNOWN] * 4)
    home.adyen.outcomes.extend([UNKNOWN] * 3 + [declined(cascade=False)])
    payment = home.house.pay(an_order(**order)).payment
    round_of(home)
    assert home.now(payment)[0].attempt_id == home.now(payment)[1][0].id
    assert [(each.asked_by, each.state) for each in home.now(payment)[2]] == [(UNSEEN, "received")]
    return payment


def test_what_may_yet_be_void_is_not_sent_again(voiding: Home) -> None:
    """The void is under way: nobody has said how it ended. After an hour a person is asked."""
    payment, sends = voided_unseen(voiding), len(voiding.stripe.calls)
    for _ in range(60):
        round_of(voiding)
    assert len(voiding.stripe.calls) == sends
    now = voiding.now(payment)[0]
    assert (now.status, now.attention) == ("processing", IN_DOUBT)


@pytest.mark.parametrize("state", ["received", "unknown"])
def test_what_may_yet_be_void_is_not_captured(
    voiding: Home, database: Database, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """Checkout would see it captured and then declined. Once the void is told to have failed, it is captured."""
    payment = voided_unseen(voiding)
    (void,) = voiding.now(payment)[2]
    if state == "unknown":
        journal = voiding.journals.open(*voiding.now(payment))
        journal.learned(dataclasses.replace(void, state="unknown"))
        journal.finish({}, event="its answer was lost")
    captured: list[str] = []

    def capture(reference: str, *_args: Any, **_named: Any) -> ModificationOutcome:
        captured.append(reference)
        return DONE

    monkeypatch.setattr(voiding.stripe, "capture", capture)
    assert tell(voiding, NoticeKind.ATTEMPT, payment, outcome=AUTHORIZED) == "applied"
    for _ in range(60):
        round_of(voiding)
    now = voiding.now(payment)[0]
    assert (now.status, captured, now.attention) == ("processing", [], IN_DOUBT)
    tell(voiding, NoticeKind.VOID_FAILED, payment, operation_key=void.idempotency_key)
    round_of(voiding)
    assert (voiding.status(payment), captured) == ("captured", ["ref_1"])
    assert sound(voiding, database)


@pytest.mark.parametrize(("verdict", "ended"), [("not_executed", "captured"), ("canceled", "declined")])
def test_a_person_can_say_how_the_void_ended(voiding: Home, database: Database, verdict: Any, ended: str) -> None:
    """Its notice was lost: what the dashboard says of it decides, and the payment ends."""
    payment = voided_unseen(voiding)
    (void,) = voiding.now(payment)[2]
    assert tell(voiding, NoticeKind.ATTEMPT, payment, outcome=AUTHORIZED) == "applied"
    round_of(voiding, HOUR_S)
    modifications(voiding).resolve("m", payment.id, verdict, "dashboard", None, key="o", about=void.id)
    round_of(voiding)
    now = voiding.now(payment)[0]
    assert (now.status, now.resolve_at, now.attention) == (ended, None, None)
    assert sound(voiding, database)


def test_an_authorization_that_may_yet_be_void_is_not_checkouts_to_capture(voiding: Home) -> None:
    """Nor is it said to be authorized, before it is known how the void ended."""
    payment = voided_unseen(voiding, capture="manual")
    assert tell(voiding, NoticeKind.ATTEMPT, payment, outcome=AUTHORIZED) == "applied"
    round_of(voiding)
    assert voiding.status(payment) == "processing"
    (void,) = voiding.now(payment)[2]
    tell(voiding, NoticeKind.VOID_FAILED, payment, operation_key=void.idempotency_key)
    assert voiding.status(payment) == "authorized"


def test_a_void_whose_notice_was_lost_is_looked_up(voiding: Home, database: Database) -> None:
    """An hour after it was received; then the other authorization is captured."""
    payment = orphaned(voiding)
    voiding.stripe.answer = RECEIVED
    voiding.stripe.look_ups.append(LookUp(LookUpKind.FOUND, CANCELED))
    round_of(voiding)
    round_of(voiding, 3600)
    assert (voiding.status(payment), voiding.stripe.looked_up) == ("processing", [])
    round_of(voiding)
    ended, attempts, operations = voiding.now(payment)
    assert (ended.status, attempts[0].outcome, ended.resolve_at) == ("captured", "canceled", None)
    assert [(each.kind, each.state) for each in operations] == [("void", "done"), ("capture", "done")]
    assert sound(voiding, database)


# ---------------------------------------------------------------- what was held back


def test_what_was_held_back_and_is_then_rejected_as_our_mistake_has_ended(
    home: Home, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was sent once, and never happened: checkout may ask for another."""
    payment = home.house.pay().payment
    monkeypatch.setattr(home.resolver._sender, "_operating", lambda _provider: contextlib.nullcontext(False))
    modifications(home).refund("m", payment.id, 500, key="k")
    round_of(home)
    assert [(each.state, each.sends) for each in home.now(payment)[2]] == [("started", 0)]
    monkeypatch.setattr(home.resolver._sender, "_operating", lambda _provider: contextlib.nullcontext(True))
    mistake = ModificationOutcome(ModificationKind.NOT_EXECUTED, Health.IGNORED, "http_400", our_fault=True)
    monkeypatch.setattr(home.stripe, "refund", lambda *_args, **_named: mistake)
    home.clock.advance(KEY_LIVES.total_seconds())
    round_of(home)
    now, _, (refund,) = home.now(payment)
    assert (refund.state, refund.sends, now.resolve_at) == ("refused", 1, None)
    assert sound(home, database)


def test_a_send_is_counted_before_it_is_made(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that dies in it leaves an operation that may have been sent, and not one that never was."""
    payment = home.house.pay().payment
    monkeypatch.setattr(home.resolver._sender, "_operating", lambda _provider: contextlib.nullcontext(False))
    modifications(home).refund("m", payment.id, 500, key="k")
    monkeypatch.setattr(home.resolver._sender, "_operating", lambda _provider: contextlib.nullcontext(True))
    seen: list[int] = []

    def look(*_args: Any, **_named: Any) -> ModificationOutcome:
        loaded = home.ledger.load(payment.id)
        assert loaded is not None
        seen.extend(each.sends for each in loaded[2])
        return IN_THE_DARK

    monkeypatch.setattr(home.stripe, "refund", look)
    for _ in range(2):
        round_of(home)
    assert seen == [1, 2]


# ---------------------------------------------------------------- notices ahead of what they are about


def waiting(database: Database) -> list[tuple[str | None, int]]:
    with database.read() as connection:
        rows = connection.exec_driver_sql("SELECT result, tries FROM webhooks ORDER BY number")
        return [(row[0], row[1]) for row in rows]


def test_a_failed_capture_that_names_our_attempt_is_heard_while_it_is_in_doubt(home: Home) -> None:
    """Adyen names the payment by its own id, which nobody knows yet, and by ours."""
    home.stripe.outcomes.extend([UNKNOWN] * 3)
    payment = home.house.pay().payment
    attempt = home.now(payment)[1][0]
    failed = Notice(
        "n1", NoticeKind.CAPTURE_FAILED, "CAPTURE_FAILED", provider_reference="psp", operation_key=attempt.id
    )
    assert home.notices.apply("stripe", failed) == "applied"
    tell(home, NoticeKind.ATTEMPT, payment, outcome=CAPTURED, provider_reference="psp")
    now, (attempt,), _ = home.now(payment)
    assert (now.status, now.amount_captured, attempt.capture) == ("authorized", 0, "failed")


def test_a_notice_that_names_an_operation_of_ours_is_about_its_payment(home: Home) -> None:
    """By the operation's own key, where the provider's id of the payment is another than we know."""
    home.stripe.outcomes.append(AUTHORIZED)
    payment = home.house.pay(an_order(capture="manual")).payment
    modifications(home).capture("m", payment.id, None, key="k")
    (capture,) = home.now(payment)[2]
    failed = Notice("n1", NoticeKind.CAPTURE_FAILED, "CAPTURE", operation_key=capture.idempotency_key)
    assert home.notices.apply("stripe", failed) == "applied"
    assert home.status(payment) == "authorized"


def test_a_notice_that_is_hours_ahead_is_applied_once_its_attempt_is_known(home: Home, database: Database) -> None:
    """It waits longer and longer, and is due at once when it can be understood."""
    home.stripe.outcomes.extend([UNKNOWN] * 3)
    payment = home.house.pay().payment
    early = Notice(
        "n1", NoticeKind.REFUNDED, "refund", provider_reference="ref_1", money=Money(1999, "EUR"), reason=None
    )
    home.inbox.store("stripe", [early], now=home.clock.now())
    for _ in range(2 * 3600):
        home.clock.advance(1)
        home.notices.run_once()
    ((result, tries),) = waiting(database)
    assert result is None
    assert tries < 40
    tell(home, NoticeKind.ATTEMPT, payment, outcome=CAPTURED)
    home.clock.advance(5)
    home.notices.run_once()
    assert waiting(database)[0][0] == "applied"
    assert home.now(payment)[0].amount_refunded == 1999


def test_a_notice_that_nobody_knows_is_given_up_after_days(home: Home, database: Database) -> None:
    """With a word in the log; until then a re-delivery of it is no second one."""
    home.inbox.store(
        "stripe", [Notice("n1", NoticeKind.CAPTURED, "x", provider_reference="theirs")], now=home.clock.now()
    )
    home.notices.run_once()
    home.clock.advance(UNMATCHED_AFTER / dt.timedelta(seconds=1))
    home.notices.run_once()
    assert waiting(database)[0][0] is None
    home.clock.advance(301)
    home.notices.run_once()
    assert waiting(database)[0][0] == "unmatched"
