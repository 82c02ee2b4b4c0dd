"""What is asked of a payment that exists, when time runs out, answers are lost, or a person has to say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from flags.contract import RoutingFlags
from providers.contract import (
    Health,
    LookUp,
    LookUpKind,
    ModificationKind,
    ModificationOutcome,
    NoticeKind,
    Outcome,
    OutcomeKind,
)
from router import audit, doubts, standing
from router.ledger.attention import AttentionLedger
from router.ledger.engine import Database
from router.ledger.journal import Journal
from router.ledger.payments import PaymentLedger
from router.ledger.records import Payment
from router.ledger.tables import payment_events
from router.ledger.unavailable import CommitUnknownError, LedgerUnavailableError
from router.modifications import Modifications, StateConflictError, Verdict, WrongReferenceError
from router.payments import Answer, PaymentBusyError
from router.resolver import UNDONE_AT_MOST
from router.settling import IN_DOUBT
from tests.fakes.home import HOUR_S, VOIDING, Home
from tests.fakes.house import DEADLINE_S, an_order
from tests.fakes.ledger import MoodyLedger
from tests.fakes.providers import AUTHORIZED, CAPTURED, DONE, UNKNOWN, declined
from tests.unit.test_housekeeping import NOWHERE
from tests.unit.test_resolver import RECEIVED, tell

IN_THE_DARK = ModificationOutcome(ModificationKind.UNKNOWN, Health.PROVIDER_ERROR)
KEY_REFUSED = ModificationOutcome(
    ModificationKind.NOT_EXECUTED, Health.CREDENTIALS_REFUSED, "credentials_refused", our_fault=True
)
NOT_DONE = ModificationOutcome(ModificationKind.REFUSED, Health.OK, "unexpected_state")
DETAILS = {"redirectResult": "x"}
NOT_TAKEN = Outcome(OutcomeKind.UNKNOWN, Health.IGNORED, "http_422", our_fault=True)


class Till:
    """A home, and checkout's calls on what was paid there."""

    def __init__(self, database: Database, flags: RoutingFlags | None = None) -> None:
        self.home = Home(database, flags)
        self.stripe, self.clock = self.home.stripe, self.home.clock
        self.calls = self.calls_over(self.home.ledger)

    def calls_over(self, ledger: PaymentLedger) -> Modifications:
        return Modifications(
            ledger=ledger,
            journals=type(self.home.journals)(
                ledger, deadline_s=DEADLINE_S, clock=self.clock, ids=self.home.house.payments._ids
            ),
            sender=self.home.resolver._sender,
            deadline_s=DEADLINE_S,
            clock=self.clock,
        )

    def paid(self, *outcomes: Outcome, capture: str = "automatic") -> Payment:
        self.stripe.outcomes.extend(outcomes)
        return self.home.house.pay(an_order(capture=capture)).payment

    def complete(self, payment: Payment, key: str = "c", details: dict[str, str] | None = None) -> Answer:
        return self.calls.complete("m", payment.id, DETAILS if details is None else details, key=key)

    def resolve(self, payment: Payment, verdict: Any, reference: str | None = None, **more: Any) -> Answer:
        return self.calls.resolve("m", payment.id, verdict, "dashboard", reference, key=f"{verdict} {more}", **more)

    def round(self, seconds: float = 61.0) -> None:
        self.clock.advance(seconds)
        self.home.resolver.run_once()


@pytest.fixture
def till(database: Database) -> Till:
    return Till(database)


@pytest.fixture
def voiding(database: Database) -> Till:
    """Under the policy that authorizes only, and fails over on unknown."""
    return Till(database, VOIDING)


def sound(database: Database) -> bool:
    return [each for progress in audit.verify(database) for each in progress.differences] == []


class Sent:
    """A provider's call that remembers that it was made, and answers this."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.times = 0

    def __call__(self, *_args: Any, **_named: Any) -> Any:
        self.times += 1
        return self.answer


def paused_after(monkeypatch: pytest.MonkeyPatch, commit: str, meanwhile: Callable[[], object]) -> None:
    """The process is stopped just after that commit, for the first time that it makes it."""
    original = getattr(Journal, commit)

    def slow(self: Journal, *args: Any, **named: Any) -> None:
        original(self, *args, **named)
        monkeypatch.setattr(Journal, commit, original)
        meanwhile()

    monkeypatch.setattr(Journal, commit, slow)


# ---------------------------------------------------------------- a process that is paused past its lease


def test_a_refund_settled_while_its_process_was_paused_is_not_sent_when_it_wakes(
    till: Till, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker sent it, an operator said that nothing was done, checkout asked anew: that one is the only refund."""
    payment = till.paid(CAPTURED)
    monkeypatch.setattr(till.stripe, "refund", lost := Sent(IN_THE_DARK))
    done = Sent(DONE)

    def an_hour() -> None:
        till.round(HOUR_S)
        till.resolve(payment, "not_executed")
        monkeypatch.setattr(till.stripe, "refund", done)
        till.calls.refund("m", payment.id, 500, key="again")

    paused_after(monkeypatch, "ask", an_hour)
    with pytest.raises(PaymentBusyError):
        till.calls.refund("m", payment.id, 500, key="first")
    assert (lost.times, done.times) == (1, 1)
    assert till.home.now(payment)[0].amount_refunded == 500
    assert sound(database)


@pytest.mark.parametrize("pause_s", [DEADLINE_S - 0.3, DEADLINE_S + 60.0])
@pytest.mark.parametrize("what", ["capture", "void", "refund"])
def test_what_was_not_sent_in_time_is_sent_by_the_worker_once(
    till: Till, what: str, pause_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else has seen to it: it is on record as started, and the resolver does it."""
    payment = till.paid(CAPTURED) if what == "refund" else till.paid(AUTHORIZED, capture="manual")
    sent = Sent(DONE)
    monkeypatch.setattr(till.stripe, what, sent)
    paused_after(monkeypatch, "ask", lambda: till.clock.advance(pause_s))
    match what:
        case "capture":
            answer = till.calls.capture("m", payment.id, None, key="k")
        case "void":
            answer = till.calls.cancel("m", payment.id, key="k")
        case _:
            answer = till.calls.refund("m", payment.id, None, key="k")
    assert (sent.times, answer.payment.resolve_at is not None) == (0, True)
    till.round()
    assert sent.times == 1
    assert [each.state for each in till.home.now(payment)[2]] == ["done"]


@pytest.mark.parametrize("commit", ["claim", "ask"])
def test_a_worker_that_is_paused_past_its_lease_sends_nothing_when_it_wakes(
    till: Till, commit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The resolver's re-send of an operation, and housekeeping's void: another worker has done both meanwhile."""
    if commit == "claim":
        payment = till.paid(CAPTURED)
        monkeypatch.setattr(till.stripe, "refund", Sent(IN_THE_DARK))
        till.calls.refund("m", payment.id, 500, key="k")
        monkeypatch.setattr(till.stripe, "refund", sent := Sent(DONE))
        run: Callable[[], object] = till.home.resolver.run_once
        till.clock.advance(61)
    else:
        payment = till.home.awaiting()
        till.stripe.look_ups.extend([LookUp(LookUpKind.FOUND, NOWHERE)] * 9)
        monkeypatch.setattr(till.stripe, "void", sent := Sent(DONE))
        run = till.home.housekeeping.run_once
        till.clock.advance(HOUR_S + 1)

    def an_hour() -> None:
        till.round(HOUR_S)
        assert sent.times == 1

    paused_after(monkeypatch, commit, an_hour)
    run()
    assert sent.times == 1
    assert till.home.status(payment) == ("captured" if commit == "claim" else "canceled")


def test_a_busy_payment_is_not_taken_for_the_same_request(till: Till, database: Database) -> None:
    """Another key: "the first request with this key" would be untrue."""
    payment = till.paid(CAPTURED)
    journal = till.home.journals.open(*_loaded(till, payment))
    journal.claim()
    with pytest.raises(PaymentBusyError):
        till.calls.refund("m", payment.id, 500, key="another")


def _loaded(till: Till, payment: Payment) -> Any:
    loaded = till.home.ledger.load(payment.id)
    assert loaded is not None
    return loaded


# ---------------------------------------------------------------- a completion whose answer is lost


def test_a_lost_completion_is_in_doubt_until_the_same_call_ends_it(till: Till, database: Database) -> None:
    """Within the request it is sent three times; afterwards each replay sends it again, under the same step's key."""
    payment = till.home.awaiting(NOWHERE)
    till.stripe.completions.extend([UNKNOWN] * 4)
    till.stripe.look_ups.extend([LookUp(LookUpKind.UNSUPPORTED)] * 9)
    answer = till.complete(payment)
    assert (answer.payment.status, answer.payment.resolve_at is not None) == ("requires_action", True)
    for _ in range(3):
        till.round()
    waiting, (attempt,), _ = till.home.now(payment)
    assert (waiting.resolve_at is not None, standing.is_completing(attempt)) == (True, True)
    answer = till.complete(payment)
    assert (answer.payment.status, answer.payment.resolve_at, answer.replayed) == ("captured", None, False)
    assert till.complete(payment).replayed
    assert (len(till.stripe.completions), sound(database)) == (0, True)


@pytest.mark.parametrize(
    ("told", "status", "in_doubt"),
    [(CAPTURED, "captured", False), (declined(), "declined", False), (NOWHERE, "requires_action", False)],
)
def test_the_providers_record_ends_the_doubt(till: Till, told: Outcome, status: str, in_doubt: bool) -> None:
    """Where it can be looked up: it was taken, or it was not."""
    payment = till.home.awaiting()
    till.stripe.completions.extend([UNKNOWN] * 3)
    till.complete(payment)
    till.stripe.look_ups.append(LookUp(LookUpKind.FOUND, told))
    till.round()
    now, (attempt,), _ = till.home.now(payment)
    assert (now.status, standing.is_completing(attempt), now.resolve_at) == (status, in_doubt, None)


def test_a_process_that_dies_while_it_completes_leaves_the_doubt_behind(till: Till, database: Database) -> None:
    """Written before it is sent: the same call sends it again when the lease is over."""
    payment = till.home.awaiting(NOWHERE)
    ledger = MoodyLedger(database)
    dying = till.calls_over(ledger)

    class KilledError(Exception):
        """Nothing is written any more."""

    def die(*_args: Any, **_named: Any) -> Outcome:
        raise KilledError

    sender = till.home.resolver._sender
    original, sender.complete = sender.complete, die  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        dying.complete("m", payment.id, DETAILS, key="c")
    sender.complete = original  # type: ignore[method-assign]
    till.stripe.look_ups.extend([LookUp(LookUpKind.UNSUPPORTED)] * 9)
    till.round()
    assert till.home.now(payment)[0].resolve_at is not None
    assert till.complete(payment).payment.status == "captured"


def test_only_the_step_that_is_in_doubt_is_sent_again(till: Till) -> None:
    """An earlier one was answered: its customer has been asked for the next one since."""
    payment = till.home.awaiting(NOWHERE)
    till.stripe.completions.append(NOWHERE)
    till.complete(payment, "first", {"fingerprint": "1"})
    till.stripe.completions.extend([UNKNOWN] * 3)
    till.complete(payment, "second", {"challenge": "2"})
    assert till.complete(payment, "first", {"fingerprint": "1"}).replayed
    assert till.complete(payment, "second", {"challenge": "2"}).payment.status == "captured"


def test_details_that_are_turned_away_leave_no_doubt(till: Till) -> None:
    """They did nothing: the customer can still take the step, and the same call is a replay."""
    payment = till.home.awaiting(NOWHERE)
    till.stripe.completions.append(NOT_TAKEN)
    answer = till.complete(payment)
    assert (answer.payment.status, answer.payment.resolve_at) == ("requires_action", None)
    assert till.complete(payment).replayed


# ---------------------------------------------------------------- our own key is refused


def test_an_automatic_capture_is_made_when_our_key_is_believed_again(
    voiding: Till, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 401 for a minute is no reason to leave an automatic payment `authorized` for ever."""
    voiding.stripe.outcomes.append(AUTHORIZED)
    monkeypatch.setattr(voiding.stripe, "capture", refused := Sent(KEY_REFUSED))
    payment = voiding.home.house.pay().payment
    assert payment.status == "processing"
    voiding.round()
    assert (refused.times, voiding.home.status(payment)) == (2, "processing")
    for _ in range(61):
        voiding.round()
    assert voiding.home.now(payment)[0].attention, "a person is told"
    monkeypatch.setattr(voiding.stripe, "capture", done := Sent(DONE))
    voiding.round()
    assert (done.times, voiding.home.status(payment)) == (1, "captured")
    assert sound(database)


def test_a_capture_that_checkout_asked_for_is_answered_refused(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkout is there to ask again."""
    payment = till.paid(AUTHORIZED, capture="manual")
    monkeypatch.setattr(till.stripe, "capture", Sent(KEY_REFUSED))
    answer = till.calls.capture("m", payment.id, None, key="1")
    assert (answer.payment.status, answer.payment.resolve_at) == ("authorized", None)
    monkeypatch.setattr(till.stripe, "capture", Sent(DONE))
    assert till.calls.capture("m", payment.id, None, key="2").payment.status == "captured"


# ---------------------------------------------------------------- a person's word


def test_with_two_things_in_doubt_a_verdict_says_of_which(voiding: Till, database: Database) -> None:
    """Without it: refused, with the ids to choose from, and nothing is changed."""
    voiding.stripe.outcomes.extend([UNKNOWN] * 3)
    voiding.home.adyen.outcomes.extend([UNKNOWN] * 3)
    payment = voiding.home.house.pay().payment
    before = voiding.home.now(payment)
    ids = [each.id for each in before[1]]
    with pytest.raises(StateConflictError) as refused:
        voiding.resolve(payment, "canceled")
    assert refused.value.in_doubt == ids
    with pytest.raises(StateConflictError) as refused:
        voiding.resolve(payment, "canceled", about="att_of_another")
    assert refused.value.in_doubt == ids
    assert voiding.home.now(payment) == before
    voiding.resolve(payment, "canceled", about=ids[0])
    assert [each.outcome for each in voiding.home.now(payment)[1]] == ["canceled", "unknown"]
    voiding.resolve(payment, "declined")
    assert voiding.home.status(payment) == "declined"
    assert sound(database)


def test_an_operation_in_doubt_beside_an_attempt_in_doubt_is_named_too(till: Till) -> None:
    """Two refunds: each has its own answer."""
    payment = till.paid(CAPTURED)
    till.stripe.refund = Sent(IN_THE_DARK)  # type: ignore[method-assign]
    for key in ("1", "2"):
        till.calls.refund("m", payment.id, 500, key=key)
    first, second = (each.id for each in till.home.now(payment)[2])
    with pytest.raises(StateConflictError) as refused:
        till.resolve(payment, "approved")
    assert refused.value.in_doubt == [first, second]
    till.resolve(payment, "approved", about=second)
    till.resolve(payment, "not_executed", about=first)
    now, _, operations = till.home.now(payment)
    assert (now.amount_refunded, [each.state for each in operations]) == (500, ["refused", "done"])


def test_a_reference_that_cannot_be_the_vendors_is_refused(till: Till) -> None:
    """A mistyped one would be captured, or refunded, for ever in vain."""
    payment = till.paid(*[UNKNOWN] * 3)
    with pytest.raises(WrongReferenceError):
        till.resolve(payment, "approved", "not a reference")
    assert till.resolve(payment, "approved", "pi_1").payment.status == "captured"


def test_an_orphan_that_its_provider_will_not_release_is_a_persons_to_end(voiding: Till, database: Database) -> None:
    """Its voids are refused and there is no look-up; `canceled`, read in the dashboard, lets the payment go on."""
    voiding.stripe.outcomes.extend([UNKNOWN] * 3 + [AUTHORIZED])
    voiding.stripe.answer = NOT_DONE
    voiding.stripe.look_ups.extend([LookUp(LookUpKind.UNSUPPORTED)] * 99)
    voiding.home.adyen.outcomes.append(AUTHORIZED)
    payment = voiding.home.house.pay().payment
    for _ in range(UNDONE_AT_MOST + 3):
        voiding.round()
    now, (orphan, _), _ = voiding.home.now(payment)
    assert (now.status, orphan.outcome) == ("processing", "approved")
    ((queued, *_rest),) = AttentionLedger(database).page(merchant="m", limit=9, after=None)
    assert queued == now
    (doubt,) = doubts.of_payment(*_loaded(voiding, payment))
    assert (doubt.id, doubt.state) == (orphan.id, "approved")
    with pytest.raises(StateConflictError):
        voiding.resolve(payment, "approved", "pi_1")
    voiding.resolve(payment, "canceled")
    voiding.round()
    assert voiding.home.status(payment) == "captured"
    assert AttentionLedger(database).page(merchant=None, limit=9, after=None) == []
    assert sound(database)


def taken_up(till: Till) -> Payment:
    """An orphan whose void was received, and whose notice never came: an hour later somebody has to look."""
    till.stripe.outcomes.extend([UNKNOWN] * 3 + [AUTHORIZED])
    till.stripe.answer = RECEIVED
    till.stripe.look_ups.extend([LookUp(LookUpKind.UNSUPPORTED)] * 99)
    till.home.adyen.outcomes.append(AUTHORIZED)
    payment = till.home.house.pay().payment
    till.round(2)
    assert doubts.of_payment(*_loaded(till, payment)) == []
    till.round(HOUR_S + 61)
    assert till.home.now(payment)[0].attention == IN_DOUBT
    return payment


def test_an_orphan_whose_release_was_taken_up_and_never_told_is_a_persons_to_end(voiding: Till) -> None:
    """It was released, as the dashboard says: the payment goes on."""
    payment = taken_up(voiding)
    (doubt,) = doubts.of_payment(*_loaded(voiding, payment))
    assert (doubt.id, doubt.state) == (voiding.home.now(payment)[1][0].id, "approved")
    voiding.resolve(payment, "canceled")
    _, (orphan, _), (void,) = voiding.home.now(payment)
    assert (orphan.outcome, void.state, void.reason) == ("canceled", "done", "operator")
    voiding.round()
    assert voiding.home.status(payment) == "captured"


def test_an_orphan_that_was_not_released_after_all_is_released_anew(voiding: Till) -> None:
    """The dashboard shows it as it was: its provider is asked again."""
    payment = taken_up(voiding)
    voiding.resolve(payment, "approved")
    voiding.stripe.answer = DONE
    voiding.round()
    voiding.round()
    now, (orphan, _), operations = voiding.home.now(payment)
    assert (now.status, orphan.outcome) == ("captured", "canceled")
    assert [each.state for each in operations] == ["refused", "done", "done"]


@pytest.mark.parametrize(("verdict", "refunds"), [("canceled", ["done"]), ("approved", ["refused", "done"])])
def test_a_late_approval_whose_refund_was_taken_up_and_never_told_is_a_persons_to_end(
    till: Till, monkeypatch: pytest.MonkeyPatch, verdict: Verdict, refunds: list[str], database: Database
) -> None:
    """Of a payment that is closed: it was paid back, or it is asked anew."""
    answers = [RECEIVED, DONE]
    monkeypatch.setattr(till.stripe, "refund", lambda *_args, **_named: answers.pop(0))
    till.stripe.look_ups.extend([LookUp(LookUpKind.UNSUPPORTED)] * 99)
    payment = till.paid(*[UNKNOWN] * 3)
    till.resolve(payment, "not_executed")
    tell(till.home, NoticeKind.ATTEMPT, payment, outcome=AUTHORIZED)
    for _ in range(3):
        till.round(HOUR_S + 1)
    (doubt,) = doubts.of_payment(*_loaded(till, payment))
    till.resolve(payment, verdict, about=doubt.id)
    till.round()
    now, _, operations = till.home.now(payment)
    assert (now.status, now.resolve_at, now.attention) == ("failed", None, None)
    assert [each.state for each in operations] == refunds
    assert sound(database)


def test_evidence_is_kept_and_not_shown_to_checkout(till: Till, database: Database) -> None:
    """In the payment's event, with who gave it; the ledger's check bears it."""
    payment = till.paid(*[UNKNOWN] * 3)
    answer = till.resolve(payment, "declined", by="m: Ada's key")
    (attempt,) = answer.attempts
    assert attempt.reason == "operator"
    with database.read() as connection:
        changes = list(connection.scalars(sa.select(payment_events.c.changes).order_by(payment_events.c.number)))
    told = {"attempt": attempt.id, "outcome": "declined", "evidence": "dashboard", "by": "m: Ada's key"}
    assert [each.get("note") for each in changes] == [None, None, told]
    assert sound(database)


# ---------------------------------------------------------------- the operator's queue


def test_the_queue_is_the_merchants_own_and_the_oldest_comes_first(till: Till, database: Database) -> None:
    """Only what the machine cannot end: an hour of doubt; what is settled leaves it."""
    ledger, queue = till.home.ledger, AttentionLedger(database)
    payments: list[Answer] = []
    for merchant in ("m", "n", "m"):
        till.stripe.outcomes.extend([UNKNOWN] * 3)
        payments.append(till.home.house.payments.create(an_order(), merchant=merchant, key="k" + str(len(payments))))
    till.stripe.outcomes.extend([UNKNOWN] * 99)
    assert queue.page(merchant=None, limit=9, after=None) == []
    till.round(HOUR_S + 1)
    ids = [each.payment.id for each in payments]
    assert [each[0].id for each in queue.page(merchant=None, limit=9, after=None)] == ids
    assert [each[0].id for each in queue.page(merchant="m", limit=9, after=None)] == [ids[0], ids[2]]
    assert [each[0].id for each in queue.page(merchant=None, limit=1, after=ids[0])] == [ids[1]]
    found = ledger.load(ids[0])
    assert found is not None
    (doubt,) = doubts.of_payment(*found)
    assert (doubt.state, doubt.since) == ("unknown", found[1][0].started_at)
    till.resolve(payments[0].payment, "declined")
    assert [each[0].id for each in queue.page(merchant="m", limit=9, after=None)] == [ids[2]]


def test_an_operator_who_looks_is_not_checkout_who_asks(till: Till) -> None:
    """What checkout has given up on is not kept alive by support."""
    payment = till.paid(*[UNKNOWN] * 3)
    till.clock.advance(600)
    assert till.home.house.payments.get("m", payment.id, by_checkout=False) is not None
    assert till.home.now(payment)[0].contact_at == payment.contact_at
    till.home.house.payments.get("m", payment.id)
    assert till.home.now(payment)[0].contact_at == till.clock.now()


# ---------------------------------------------------------------- a ledger that goes away in the middle of a commit


@pytest.mark.parametrize("mood", ["refuse", "forget"])
def test_a_refund_whose_recording_failed_is_said_to_be_undone_only_where_it_is(
    till: Till, database: Database, mood: str
) -> None:
    """The first try may have been committed unseen, and then the worker makes the refund."""
    payment = till.paid(CAPTURED)
    ledger = MoodyLedger(database)
    if mood == "forget":
        ledger.forget["change"] = 1
        ledger.refuse["get"] = 1  # not even whether it is there can be read
    else:
        ledger.refuse["change"] = 999
    with pytest.raises(LedgerUnavailableError) as failed:
        till.calls_over(ledger).refund("m", payment.id, 500, key="k")
    assert isinstance(failed.value, CommitUnknownError) is (mood == "forget")
    till.round()
    assert till.home.now(payment)[0].amount_refunded == (500 if mood == "forget" else 0)
