"""The way of a payment when time runs out, the ledger goes away, or another process gets in between."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from router.ledger.engine import Database
from router.ledger.records import Attempt, Payment, ReferenceInUseError
from router.ledger.tables import payment_events
from router.ledger.unavailable import CommitUnknownError, LedgerUnavailableError
from router.order import Order
from router.payments import IdempotencyKeyReusedError, RequestInProgressError
from tests.fakes.house import DEADLINE_S, House, an_order, build_house
from tests.fakes.ledger import MoodyLedger
from tests.fakes.providers import CAPTURED, REFUSED, UNKNOWN, Call, FakeProvider
from tests.fakes.threads import together


@pytest.fixture
def ledger(database: Database) -> MoodyLedger:
    return MoodyLedger(database)


@pytest.fixture
def stripe() -> FakeProvider:
    return FakeProvider("stripe")


@pytest.fixture
def adyen() -> FakeProvider:
    return FakeProvider("adyen")


@pytest.fixture
def house(database: Database, ledger: MoodyLedger, stripe: FakeProvider, adyen: FakeProvider) -> House:
    return build_house(database, [stripe, adyen], ledger=ledger)


def stored(house: House, payment: Payment) -> tuple[Payment, list[Attempt]]:
    """The payment as the ledger holds it."""
    found = house.ledger.get(payment.id)
    assert found is not None
    return found[0], list(found[1])


def events(database: Database) -> list[str]:
    """The types of every payment event, in order."""
    with database.read() as connection:
        return list(connection.scalars(sa.select(payment_events.c.type).order_by(payment_events.c.number)))


# ---------------------------------------------------------------- time


@pytest.mark.parametrize(("left_s", "tried"), [(0.99, False), (1.0, True), (-5.0, False)])
def test_no_attempt_is_started_with_less_than_a_second_left(
    house: House, stripe: FakeProvider, adyen: FakeProvider, left_s: float, tried: bool
) -> None:
    """A provider's answer could not come in time: the payment parks instead, with the first attempt on record."""
    stripe.outcomes.append(REFUSED)
    stripe.during = lambda _call: house.clock.advance(DEADLINE_S - left_s)
    answer = house.pay()
    assert bool(adyen.calls) is tried
    assert answer.payment.status == ("captured" if tried else "parked")
    assert [attempt.provider for attempt in answer.attempts] == ["stripe", "adyen"][: 1 + tried]


def test_a_call_is_given_no_more_time_than_is_left(house: House, stripe: FakeProvider, adyen: FakeProvider) -> None:
    """The first has the settings' timeouts; the second, with four seconds left, has them cut."""
    stripe.outcomes.append(REFUSED)
    stripe.during = lambda _call: house.clock.advance(DEADLINE_S - 4)
    house.pay()
    assert (stripe.calls[0].timeouts.connect_s, stripe.calls[0].timeouts.read_s) == (1, 10)
    assert (adyen.calls[0].timeouts.connect_s, adyen.calls[0].timeouts.read_s) == (1, 3)


def test_a_process_that_was_held_up_before_its_call_does_not_make_it(
    house: House, ledger: MoodyLedger, stripe: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit took all of the time: the attempt is on record as not executed, and nothing was sent."""
    create = ledger.create

    def slow_create(payment: Payment, *, key: str, fingerprint: str, repeat: bool, first: Attempt | None) -> None:
        create(payment, key=key, fingerprint=fingerprint, repeat=repeat, first=first)
        house.clock.advance(DEADLINE_S - 0.4)

    monkeypatch.setattr(ledger, "create", slow_create)
    answer = house.pay()
    assert stripe.calls == []
    (attempt,) = answer.attempts
    assert (attempt.outcome, attempt.reason, attempt.health) == ("not_executed", "no_time_left", "ignored")
    assert answer.payment.status == "parked"
    assert house.health.learned == []


# ---------------------------------------------------------------- another process


def test_a_process_whose_payment_was_taken_over_writes_nothing_and_answers_what_the_ledger_says(
    house: House, stripe: FakeProvider, adyen: FakeProvider, database: Database
) -> None:
    """Paused past its lease, it must not overwrite what the new holder is finding out."""
    stripe.during = lambda call: _take_over(house, call)
    answer = house.pay()
    payment, attempts = stored(house, answer.payment)
    assert answer.payment == payment
    assert (payment.status, payment.lease_holder) == ("processing", "another")
    assert attempts[0].outcome is None
    assert events(database) == ["created", "taken_over"]


def test_a_process_whose_payment_was_taken_over_starts_no_further_attempt(
    house: House, stripe: FakeProvider, adyen: FakeProvider
) -> None:
    """Its provider refused, and it would fail over: the compare-and-set before the second call stops it."""
    stripe.outcomes.append(REFUSED)
    stripe.during = lambda call: _take_over(house, call)
    answer = house.pay()
    assert adyen.calls == []
    assert [attempt.provider for attempt in stored(house, answer.payment)[1]] == ["stripe"]


def test_a_lease_that_another_holds_stops_a_process_even_at_the_same_version(
    house: House, stripe: FakeProvider, database: Database
) -> None:
    """The compare-and-set is on both."""

    def swap_holder(_call: Call) -> None:
        with database.write() as connection:
            connection.exec_driver_sql("UPDATE payments SET lease_holder = 'another'")

    stripe.during = swap_holder
    assert house.pay().payment.status == "processing"


def _take_over(house: House, call: Call) -> None:
    found = house.ledger.get(call.payment_id)
    assert found is not None
    taken = {"lease_holder": "another"}
    house.ledger.change(found[0], taken, event="taken_over", now=house.clock.now(), holder=found[0].lease_holder)


# ---------------------------------------------------------------- the ledger is away


def test_without_a_ledger_nothing_is_sent(house: House, ledger: MoodyLedger, stripe: FakeProvider) -> None:
    """The first commit failed: checkout is told so, and nobody was called."""
    ledger.refuse["create"] = 1
    with pytest.raises(LedgerUnavailableError):
        house.pay(key="once")
    assert stripe.calls == []
    assert house.pay(key="once").payment.status == "captured"


def test_an_answer_that_can_be_written_only_at_the_third_try_is_written(
    house: House, ledger: MoodyLedger, database: Database
) -> None:
    """A moment without the database costs a moment, not the answer."""
    ledger.refuse["change"] = 2
    assert house.pay().payment.status == "captured"
    assert events(database) == ["created", "captured"]


def test_an_answer_that_cannot_be_written_leaves_the_payment_processing(
    house: House, ledger: MoodyLedger, stripe: FakeProvider, adyen: FakeProvider
) -> None:
    """The ledger says that the attempt was started; saying `captured` now and `processing` later helps nobody."""
    ledger.refuse["change"] = 99
    began = house.clock.now()
    with capture_logs() as logs:
        answer = house.pay(key="once")
    assert (answer.payment.status, answer.payment.amount_captured) == ("processing", 0)
    assert [attempt.outcome for attempt in answer.attempts] == [None]
    assert ledger.calls["change"] > 4, "some seconds' patience"
    assert (house.clock.now() - began).total_seconds() < 7
    assert [entry["event"] for entry in logs] == ["answer_not_written"]
    ledger.refuse.clear()
    payment, (attempt,) = stored(house, answer.payment)
    assert (payment.status, attempt.outcome) == ("processing", None)
    with pytest.raises(RequestInProgressError):
        house.pay(Order.model_validate(payment.order), key="once")
    assert (len(stripe.calls), len(adyen.calls)) == (1, 0)


def test_a_failover_that_cannot_be_written_is_not_made(
    house: House, ledger: MoodyLedger, stripe: FakeProvider, adyen: FakeProvider
) -> None:
    """The second attempt must be on record before its call: the ledger is away, so there is none."""
    stripe.outcomes.append(REFUSED)
    ledger.refuse["change"] = 99
    assert house.pay().payment.status == "processing"
    assert adyen.calls == []


def test_a_commit_that_went_through_unseen_is_not_made_twice(
    house: House, ledger: MoodyLedger, database: Database
) -> None:
    """The database committed and its answer was lost; the retry is told by the version; the ledger is believed."""
    ledger.forget["change"] = 1
    answer = house.pay()
    assert (answer.payment.status, answer.attempts[0].outcome) == ("captured", "approved")
    assert events(database) == ["created", "captured"]


def test_a_failover_whose_commit_went_through_unseen_goes_on(
    house: House, ledger: MoodyLedger, stripe: FakeProvider, adyen: FakeProvider
) -> None:
    """The payment is as our own commit left it, and still ours: the second provider is asked, once."""
    stripe.outcomes.append(REFUSED)
    ledger.forget["change"] = 1
    answer = house.pay()
    assert (answer.payment.status, answer.payment.provider) == ("captured", "adyen")
    assert (len(stripe.calls), len(adyen.calls)) == (1, 1)


def test_a_first_commit_that_went_through_unseen_is_ours(
    house: House, ledger: MoodyLedger, stripe: FakeProvider, database: Database
) -> None:
    """A payment that is on record as started must not be left there for ever: it is charged, once."""
    ledger.forget["create"] = 1
    answer = house.pay(key="once")
    assert answer.payment.status == "captured"
    assert len(stripe.calls) == 1
    assert events(database) == ["created", "captured"]


@pytest.mark.parametrize("committed", [True, False])
def test_a_first_commit_of_which_nothing_can_be_known_is_not_said_to_be_undone(
    house: House, ledger: MoodyLedger, stripe: FakeProvider, committed: bool
) -> None:
    """Not even whether it is there can be read: it may be, and then a worker charges it. Else nothing ever will."""
    if committed:
        ledger.forget["create"] = ledger.refuse["get"] = 1
    else:
        ledger.refuse["create"] = 1
    with pytest.raises(LedgerUnavailableError) as failed:
        house.pay(key="once")
    assert isinstance(failed.value, CommitUnknownError) is committed
    assert (ledger.find_key("m", "once") is not None, stripe.calls) == (committed, [])


def test_a_provider_that_has_answered_is_never_reported_as_not_called(
    house: House, ledger: MoodyLedger, stripe: FakeProvider
) -> None:
    """A commit went through unseen, then the ledger could not even be read: `nothing was charged` would be false."""
    ledger.forget["change"] = 1
    ledger.refuse["get"] = 1
    answer = house.pay()
    assert len(stripe.calls) == 1
    assert answer.payment.status == "processing"


# ---------------------------------------------------------------- keys and references


def test_a_finished_key_answers_the_payment_as_it_stands(house: House, stripe: FakeProvider) -> None:
    """The same body again: the same payment, one charge."""
    order = an_order()
    first = house.pay(order, key="once")
    again = house.pay(order, key="once")
    assert (again.payment.id, again.replayed, first.replayed) == (first.payment.id, True, False)
    assert len(stripe.calls) == 1


def test_another_body_under_the_same_key_is_refused(house: House, stripe: FakeProvider) -> None:
    """A key names one request."""
    house.pay(key="once")
    with pytest.raises(IdempotencyKeyReusedError):
        house.pay(an_order(amount=2000), key="once")
    assert len(stripe.calls) == 1


def test_the_same_request_while_the_first_is_under_way_is_told_so(house: House, stripe: FakeProvider) -> None:
    """A client's retry that overtakes the first answer does not charge."""
    order, refusals = an_order(), []

    def again(_call: Call) -> None:
        with pytest.raises(RequestInProgressError) as refusal:
            house.pay(order, key="once")
        refusals.append(refusal.value)

    stripe.during = again
    assert house.pay(order, key="once").payment.status == "captured"
    assert (len(refusals), len(stripe.calls)) == (1, 1)


def test_a_request_that_was_overtaken_between_its_look_and_its_commit_answers_the_others_payment(
    house: House, stripe: FakeProvider
) -> None:
    """Both saw a free key; the unique key decides, and the loser has sent nothing."""
    order = an_order()

    def overtake() -> None:
        house.flags.during = None
        house.pay(order, key="once")

    house.flags.during = overtake
    answer = house.pay(order, key="once")
    assert (answer.replayed, answer.payment.status, len(stripe.calls)) == (True, "captured", 1)


def test_sixteen_requests_with_one_key_charge_once(house: House, stripe: FakeProvider) -> None:
    """Real threads: one pays, the others are told that it is under way, or get its payment."""
    order = an_order()
    ended: list[str] = []

    def request() -> None:
        try:
            ended.append(house.pay(order, key="once").payment.status)
        except RequestInProgressError:
            ended.append("in progress")

    together([request] * 16)
    assert len(ended) == 16
    assert set(ended) <= {"captured", "in progress"}
    assert len(stripe.calls) == 1


def test_a_double_click_under_two_keys_pays_once(house: House, stripe: FakeProvider) -> None:
    """The reference is taken while the first is paid, unless checkout says that it may repeat."""
    order = an_order()
    first = house.pay(order)
    with pytest.raises(ReferenceInUseError) as refusal:
        house.pay(order)
    assert refusal.value.payment_id == first.payment.id
    assert len(stripe.calls) == 1
    stripe.outcomes.append(CAPTURED)
    assert house.pay(order.model_copy(update={"allow_repeat_reference": True})).payment.status == "captured"


def test_a_payment_in_doubt_is_read_while_nothing_can_be_written(
    house: House, ledger: MoodyLedger, stripe: FakeProvider
) -> None:
    """On a full disk checkout's asking is not noted, and is answered: by id, by reference and by its key."""
    stripe.outcomes.extend([UNKNOWN] * 3)
    order = an_order()
    payment = house.pay(order, key="k").payment
    assert payment.status == "processing"
    house.clock.advance(120)
    ledger.refuse["touch"] = 3
    answer = house.payments.get("m", payment.id)
    assert answer is not None
    assert answer.payment == payment
    answers, _ = house.payments.by_reference("m", payment.reference, limit=10, before=None)
    assert [each.payment for each in answers] == [payment]
    assert house.pay(order, key="k").payment == payment
    assert ledger.refuse["touch"] == 0
    house.payments.get("m", payment.id)
    assert stored(house, payment)[0].contact_at == house.clock.now()
