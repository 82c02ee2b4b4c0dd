"""Where scores learn: each issuer's answer once, after the commit that makes it known; each call of ours once."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import pytest
from structlog.testing import capture_logs

from providers.contract import DeclineClass, Health
from router.clock import ManualClock
from router.health import ProviderHealth
from router.learning import Lessons, is_answer, issuer_said, segment_of
from router.ledger.engine import Database
from router.ledger.records import Attempt, Payment
from router.scores import Scores
from router.segments import Segment
from tests.fakes.counts import MemoryCounts
from tests.fakes.house import House, a_health, an_order, build_house, teach
from tests.fakes.ledger import MemoryStore, MoodyLedger
from tests.fakes.providers import REFUSED, UNKNOWN, FakeProvider, declined

NAMES = ("stripe", "adyen")
START = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
ORDER = {"payment_method": {"type": "card", "card": {"brand": "visa", "country": "DE"}}}
NOBODYS = Segment("", "", "<50", "card")
"""Of the tests' usual order, which tells nothing of its card."""


def an_attempt(number: int = 1, provider: str = "stripe", **known: Any) -> Attempt:
    attempt = Attempt(f"att_{number}", "pay_1", number, provider, "k", {}, START)
    return dataclasses.replace(attempt, **known)


def a_payment() -> Payment:
    return Payment("pay_1", "m", "ORD-1", "processing", 1999, "EUR", ORDER, {}, {}, START, START, START, 1)


def no(code: str = "do_not_honor", decline_class: str = "soft") -> dict[str, str]:
    return {"class": decline_class, "code": code}


def heard(scores: Scores) -> list[tuple[str, bool]]:
    """The answers that were learned since the last time."""
    return [(each.provider, bool(each.good)) for each in scores.take_heard() if each.segment is not None]


# ---------------------------------------------------------------- what is an answer


@pytest.mark.parametrize(
    ("code", "decline_class", "answers"),
    [
        ("do_not_honor", "soft", True),
        ("insufficient_funds", "soft", True),
        ("issuer_not_available", "soft", True),
        ("expired_card", "hard", True),
        ("fraudulent", "fraud", True),
        ("authentication_required", "authentication", True),
        ("shopper_cancelled", "authentication", False),
        ("payment_intent_authentication_failure", "authentication", False),
        ("incorrect_cvc", "invalid", False),
        ("do_not_honor", "invalid", False),
        ("excessive_retries", "hard", False),
    ],
)
def test_a_decline_that_is_not_the_issuers_is_no_answer(code: str, decline_class: str, answers: bool) -> None:
    """Nor is one that would be the same at every provider: our data, the customer's step, our own excess."""
    assert is_answer(no(code, decline_class)) is answers
    said = issuer_said(an_attempt(outcome="declined", decline=no(code, decline_class)))
    assert said is (False if answers else None)


@pytest.mark.parametrize("outcome", [None, "unknown", "not_executed", "requires_action", "canceled"])
def test_an_attempt_without_an_answer_teaches_nothing(outcome: str | None) -> None:
    """Whatever its provider's fault was."""
    assert issuer_said(an_attempt(outcome=outcome)) is None


def test_an_approval_that_was_voided_was_one() -> None:
    """We undid it; the issuer had said yes."""
    assert issuer_said(an_attempt(outcome="canceled", was_approved=True)) is True


def test_a_payments_segment_is_its_orders() -> None:
    """As the ledger keeps it, with or without a card."""
    assert segment_of(ORDER, 1999) == Segment("visa", "DE", "<50", "card")
    assert segment_of({"payment_method": {"type": "card", "card": None}}, 5) == Segment("", "", "<10", "card")
    assert segment_of({}, 5) == Segment("", "", "<10", "")


# ---------------------------------------------------------------- once an attempt


@pytest.mark.parametrize(
    ("before", "after", "learned"),
    [
        ({}, {"outcome": "approved"}, [True]),
        ({"outcome": "unknown"}, {"outcome": "approved"}, [True]),
        ({"outcome": "requires_action"}, {"outcome": "declined", "decline": no()}, [False]),
        ({"outcome": "approved"}, {"outcome": "approved", "capture": "done"}, []),
        ({"outcome": "approved"}, {"outcome": "canceled", "was_approved": True}, []),
        ({"outcome": "declined", "decline": no()}, {"outcome": "approved", "was_approved": True}, []),
        ({"outcome": "canceled"}, {"outcome": "canceled", "was_approved": True}, [True]),
        (
            {"outcome": "declined", "decline": no("shopper_cancelled", "authentication")},
            {"outcome": "approved"},
            [True],
        ),
    ],
)
def test_an_attempts_answer_counts_when_it_is_first_on_record(
    before: dict[str, Any], after: dict[str, Any], learned: list[bool]
) -> None:
    """What becomes of it later changes nothing."""
    scores = Scores(NAMES)
    lessons = Lessons(scores, ManualClock())
    lessons.heard(a_payment(), [an_attempt(**before)], [an_attempt(**after)])
    assert heard(scores) == [("stripe", each) for each in learned]


def test_only_the_first_answer_of_a_payment_counts() -> None:
    """Who is asked after a decline gets the cards that were just refused, and is not to look worse for it."""
    scores = Scores(NAMES)
    lessons = Lessons(scores, ManualClock())
    first = an_attempt(1, outcome="declined", decline=no())
    lessons.heard(a_payment(), [an_attempt(1)], [first])
    second = an_attempt(2, "adyen")
    lessons.heard(a_payment(), [first, second], [first, dataclasses.replace(second, outcome="approved")])
    assert heard(scores) == [("stripe", False)]


def test_an_answer_after_one_that_said_nothing_counts() -> None:
    """A failover, or a decline for invalid data, says nothing of the card."""
    for kind in ({"outcome": "not_executed"}, {"outcome": "declined", "decline": no("invalid_cvc", "invalid")}):
        scores = Scores(NAMES)
        first, second = an_attempt(1, **kind), an_attempt(2, "adyen")
        after = [first, dataclasses.replace(second, outcome="declined", decline=no())]
        Lessons(scores, ManualClock()).heard(a_payment(), [first, second], after)
        assert heard(scores) == [("adyen", False)]


# ---------------------------------------------------------------- through the journal


@pytest.fixture
def ledger(database: Database) -> MoodyLedger:
    return MoodyLedger(database)


@pytest.fixture
def scores() -> Scores:
    return Scores(NAMES)


@pytest.fixture
def house(database: Database, ledger: MoodyLedger, scores: Scores) -> House:
    house = build_house(database, [FakeProvider("stripe"), FakeProvider("adyen")], ledger=ledger)
    house.payments._journals._heard = Lessons(scores, house.clock).heard
    return house


def test_a_payments_answer_is_learned_after_its_commit(house: House, scores: Scores) -> None:
    """In its segment, at its moment."""
    house.pay()
    at = house.clock.now().timestamp()
    assert scores.read(NOBODYS, at)["stripe"].answers == 1
    assert heard(scores) == [("stripe", True)]
    order = an_order(amount=150_000)
    order = order.model_copy(update={"payment_method": order.payment_method.model_copy(update={"card": None})})
    house.pay(order)
    assert scores.read(NOBODYS._replace(band="more"), at)["stripe"].answers == 1


def test_a_cascade_and_a_failover_teach_one_answer_each(house: House, scores: Scores) -> None:
    """The decline, and not what the next provider made of it; the approval that came after a refused connection."""
    house.providers["stripe"].outcomes.append(declined())
    assert len(house.pay().attempts) == 2
    assert heard(scores) == [("stripe", False)]
    house.providers["stripe"].outcomes.append(REFUSED)
    assert len(house.pay().attempts) == 2
    assert heard(scores) == [("adyen", True)]


def test_a_decline_for_invalid_data_teaches_nothing(house: House, scores: Scores) -> None:
    """The customer mistyped; it is not the provider's approval rate."""
    house.providers["stripe"].outcomes.append(declined(DeclineClass.INVALID, cascade=False))
    assert house.pay().payment.status == "declined"
    assert heard(scores) == []


def test_a_commit_whose_answer_was_lost_is_learned_once(house: House, ledger: MoodyLedger, scores: Scores) -> None:
    """It is committed unseen, found so by the second try, and was heard."""
    house.providers["stripe"].during = lambda _call: ledger.forget.update(["change"])
    assert house.pay().payment.status == "captured"
    assert heard(scores) == [("stripe", True)]


def test_what_is_not_on_record_is_not_learned(house: House, ledger: MoodyLedger, scores: Scores) -> None:
    """The ledger stays away: the resolver will find the answer, and teach it then."""
    house.providers["stripe"].during = lambda _call: ledger.refuse.update({"change": 10_000})
    house.pay()
    assert heard(scores) == []


def test_an_unknown_attempt_teaches_when_its_answer_is_known(house: House, scores: Scores) -> None:
    """Not before."""
    house.providers["stripe"].outcomes.extend([UNKNOWN] * 4)
    assert house.pay().payment.status == "processing"
    assert heard(scores) == []


def test_scores_that_cannot_learn_cost_no_payment(house: House) -> None:
    """The payment is on record, and is answered; the fault is reported."""

    def fails(*_args: object) -> None:
        raise ZeroDivisionError

    house.payments._journals._heard = fails
    with capture_logs() as logs:
        assert house.pay().payment.status == "captured"
    assert [each["event"] for each in logs if each["log_level"] == "error"] == ["not_heard"]


# ---------------------------------------------------------------- calls


def a_process(store: MemoryCounts, scores: Scores | None, clock: ManualClock, actor: str) -> ProviderHealth:
    health: ProviderHealth = a_health(NAMES, store=MemoryStore(), clock=clock, actor=actor, counts=store)
    if scores is not None:
        health._heard = scores.hear_calls
    return health


def test_a_process_hears_its_own_calls_once_and_nobody_elses(scores: Scores) -> None:
    """The others' come by the scores' own table, which a restart survives; by both ways they would count twice."""
    clock, store = ManualClock(), MemoryCounts()
    ours, theirs = a_process(store, scores, clock, "web:1"), a_process(store, None, clock, "web:2")
    for health in (ours, theirs):
        teach(health, Health.OK, 7)
        teach(health, Health.PROVIDER_ERROR, 2)
        teach(health, Health.IGNORED, 3)
        teach(health, Health.CREDENTIALS_REFUSED, 1)
        health.watch_once()
        health.exchange_once()
    ours.exchange_once()
    ours.watch_once()
    assert [(each.provider, each.good, each.bad) for each in scores.take_heard()] == [("stripe", 7, 2)]
    found = scores.availability("stripe", clock.now().timestamp())
    assert found == pytest.approx((7 + 50 * 0.999) / 59)
