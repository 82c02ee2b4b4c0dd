"""What others are told of an event: enough to act on, in a published form, and nothing of a customer or a card."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator, FormatChecker, ValidationError

from router import events
from router.api.views import PaymentView
from router.ledger.event_feed import TOLD_COLUMNS, FeedEvent, Position
from router.ledger.records import OPEN_STATUSES

AT = dt.datetime(2026, 11, 21, 2, 3, 4, 567890, tzinfo=dt.UTC)
FIRST: dict[str, Any] = {
    "merchant": "shop",
    "reference": "ORD-1",
    "status": "processing",
    "amount": 1999,
    "currency": "EUR",
    "amount_captured": 0,
    "amount_refunded": 0,
    "capture_pending": False,
    "provider": "stripe",
    "decline": None,
    "dispute": None,
}
VALIDATOR = Draft202012Validator(events.schema(), format_checker=FormatChecker())


def an_event(before: dict[str, Any], version: int = 2, **changes: Any) -> FeedEvent:
    """An event that changes these columns."""
    return FeedEvent(Position(9, 7), "pay_1", version, "settled", AT, before, FIRST | before | changes)


def told(event: FeedEvent) -> dict[str, Any]:
    """What is sent of it, which is what the schema says."""
    body: dict[str, Any] = json.loads(events.body_of(event))
    VALIDATOR.validate(body)
    return body


def test_an_event_in_full() -> None:
    """Every field, as it goes over the wire."""
    event = an_event(FIRST, 3, status="captured", amount_captured=1999, capture_pending=True)
    assert told(event) == {
        "specversion": "1.0",
        "id": "pay_1:3",
        "source": "/pointsman",
        "type": "pointsman.payment.captured",
        "subject": "pay_1",
        "time": "2026-11-21T02:03:04.567890Z",
        "datacontenttype": "application/json",
        "dataschema": "urn:pointsman:schema:payment-event:1",
        "data": {
            "payment": "pay_1",
            "version": 3,
            "reference": "ORD-1",
            "merchant": "shop",
            "status": "captured",
            "amount": 1999,
            "amount_captured": 1999,
            "amount_refunded": 0,
            "capture_pending": True,
            "currency": "EUR",
            "provider": "stripe",
            "decline_class": None,
        },
    }


@pytest.mark.parametrize(
    ("before", "changes", "word"),
    [
        ({}, {}, "created"),
        ({}, {"status": "parked"}, "parked"),
        ({}, {"status": "declined"}, "declined"),
        (FIRST, {"status": "captured", "amount_captured": 1999}, "captured"),
        (FIRST | {"status": "parked"}, {"status": "processing"}, "processing"),
        (FIRST, {"provider": "adyen"}, "updated"),
        (FIRST, {}, "updated"),
        (FIRST | {"status": "captured", "amount_captured": 5}, {"amount_captured": 9}, "captured"),
        (FIRST | {"status": "captured"}, {"amount_refunded": 5}, "refunded"),
        (FIRST | {"status": "captured", "amount_refunded": 5}, {"amount_refunded": 0}, "refund_undone"),
        (FIRST | {"status": "captured"}, {"dispute": {"reason": "chargeback"}}, "disputed"),
        (FIRST, {"status": "canceled", "dispute": {"reason": "chargeback"}}, "canceled"),
    ],
)
def test_the_type_says_what_happened(before: dict[str, Any], changes: dict[str, Any], word: str) -> None:
    """Where the payment went comes first; what is not told of it is an update."""
    event = an_event(before, 1 if not before else 2, **changes)
    assert told(event)["type"] == f"pointsman.payment.{word}"
    assert word in events.WORDS


@pytest.mark.parametrize("kind", ["dead_lettered", "redriven"])
def test_a_payment_that_waits_for_a_person_is_told_of(kind: str) -> None:
    """It stays parked, and only the router's word says that it will not be tried, or will be again."""
    event = dataclasses.replace(an_event(FIRST | {"status": "parked"}), kind=kind)
    assert told(event)["type"] == f"pointsman.payment.{kind}"
    assert kind in events.WORDS


@pytest.mark.parametrize("after", [{}, {"status": None}, {"status": "captured", "amount": "their words"}])
def test_what_no_version_has_written_is_untellable_and_not_a_fault(after: dict[str, Any]) -> None:
    """Whichever way it is wrong, the relays know it by one error, which says no value."""
    event = FeedEvent(Position(9, 7), "pay_1", 2, "settled", AT, {"status": None}, after)
    with pytest.raises(events.UntellableError) as caught:
        events.body_of(event)
    assert "their words" not in str(caught.value)


def test_of_a_decline_its_class_is_told_and_no_more() -> None:
    """The issuer's words may name the card's holder."""
    decline = {"class": "soft", "code": "do_not_honor", "message": "Ms Doe's card", "network_code": "05"}
    body = told(an_event(FIRST, status="declined", decline=decline))
    assert body["data"]["decline_class"] == "soft"
    assert "Doe" not in json.dumps(body)


def test_nothing_leaves_but_what_the_schema_names() -> None:
    """Whatever an event held besides."""
    more = {"order": {"customer": {"email": "a@b.c"}}, "flags": {"secret": 1}, "dispute": {"reason": "their words"}}
    text = json.dumps(told(an_event(FIRST | more)))
    for secret in ("a@b.c", "secret", "their words"):
        assert secret not in text
    assert set(told(an_event(FIRST))["data"]) - {"payment", "version", "decline_class"} <= TOLD_COLUMNS


def test_every_status_is_in_the_schema() -> None:
    """One that is added to the router is added for those who listen, too."""
    assert set(get_args(PaymentView.model_fields["status"].annotation)) == set(events.STATUSES)
    assert set(events.STATUSES) > OPEN_STATUSES


def test_a_status_that_is_not_known_does_not_hold_up_the_feed() -> None:
    """A later version's process may be writing beside this one."""
    assert told(an_event(FIRST, status="on_the_moon"))["type"] == "pointsman.payment.on_the_moon"


def test_the_schema_is_one_and_refuses_what_is_not_such_an_event() -> None:
    """It says something: each of these is broken in one place."""
    Draft202012Validator.check_schema(events.schema())
    good = told(an_event(FIRST))
    for name in ("id", "type", "subject", "time", "data"):
        with pytest.raises(ValidationError):
            VALIDATOR.validate({key: value for key, value in good.items() if key != name})
    for data in ({"amount": "19.99"}, {"status": None}, {"version": 0}):
        with pytest.raises(ValidationError):
            VALIDATOR.validate(good | {"data": good["data"] | data})
    with pytest.raises(ValidationError):
        VALIDATOR.validate(good | {"type": "captured"})
