"""Logs and error reports hold no card number, key or token, wherever in an event one was put."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import redirect_stderr
from typing import Any

import pytest
import structlog

from router.order import Order
from router.settings import Settings
from router.telemetry import logs
from router.telemetry.faults import Reporter
from router.telemetry.scrubbing import REMOVED, Scrubber

PAN = "4111111111111111"
TOKEN = "pm_planted_token"
KEY = "planted-api-key"
PLANTED = (PAN, "4111 1111 1111 1111", TOKEN, KEY)
BODY = {
    "reference": f"order {PAN}",
    "amount": 1999,
    "currency": "EUR",
    "payment_method": {"type": "card", "tokens": {"stripe": TOKEN, "adyen": {"stored_payment_method_id": TOKEN}}},
}


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the service logs, as it is set up in production."""
    out = io.StringIO()
    level = logging.getLogger().level
    with redirect_stderr(out):
        logs.configure(Settings(log_format="json"), process="test")
    yield out
    structlog.reset_defaults()
    logging.getLogger().setLevel(level)


class _Sdk:
    """An object that shows everything when it is printed."""

    def __repr__(self) -> str:
        return f"<Sdk card={PAN}>"


EVENTS: list[dict[str, Any]] = [
    {"body": BODY},
    {"order": json.dumps(BODY | {"payment_method": None})},
    {"headers": {"Authorization": f"Bearer {KEY}", "X-API-Key": KEY, "Cookie": KEY}},
    {"authorization": KEY, "api_key": KEY, "client_secret": KEY, "password": KEY, "sentry_dsn": KEY},
    {"params": {"payment_method": TOKEN}, "tokens": [TOKEN]},
    {"note": "4111 1111 1111 1111", "list": [PAN, (PAN,)], "number": int(PAN), "float": float(PAN)},
    {f"name {PAN}": 1},
    {"nested": {PAN: {"deep": [{PAN: PAN}]}}},
    {"bytes": PAN.encode(), "set": {PAN}, "object": _Sdk()},
    {"error": ValueError(f"no such card: {PAN}")},
]


@pytest.mark.parametrize("event", EVENTS, ids=range(len(EVENTS)))
def test_nothing_planted_is_logged(log: io.StringIO, event: dict[str, Any]) -> None:
    """In a value, a name, bytes, a set, an exception, or an object's own words."""
    structlog.get_logger("test").error("something", **event)
    assert "something" in log.getvalue()
    assert not [each for each in PLANTED if each in log.getvalue()]


def test_a_traceback_is_logged_without_what_its_message_holds(log: io.StringIO) -> None:
    """The exception's text is scrubbed like any other."""
    try:
        raise ValueError(f"{PAN} was declined")
    except ValueError:
        structlog.get_logger("test").exception("fault")
    assert "fault" in log.getvalue()
    assert PAN not in log.getvalue()


def test_what_is_harmless_is_logged_as_it_is(log: io.StringIO) -> None:
    """Ids, reasons, figures: an event that says nothing helps nobody."""
    structlog.get_logger("test").info("circuit", provider="stripe", calls=20, rate=0.5, payment="pay_01m7y28hams3x8")
    event = json.loads(log.getvalue())
    assert (event["provider"], event["calls"], event["rate"], event["payment"]) == (
        *("stripe", 20, 0.5),
        "pay_01m7y28hams3x8",
    )
    assert (event["event"], event["level"]) == ("circuit", "info")


def test_scrubbing_keeps_the_shape() -> None:
    """Names and harmless values stay; what must go is replaced by a word that says so."""
    assert Scrubber().value({"a": 1, "b": [True, None, "x"], "api_key": "k", "c": {"note": PAN}}) == {
        "a": 1,
        "b": [True, None, "x"],
        "api_key": REMOVED,
        "c": {"note": REMOVED},
    }


def test_an_error_report_leaves_without_card_numbers_and_keys() -> None:
    """A whole event as Sentry's SDK would send it."""
    event: dict[str, Any] = {
        "request": {
            "headers": {"Authorization": f"Bearer {KEY}", "Idempotency-Key": "k"},
            "query_string": f"reference={PAN}",
            "url": f"https://router.example/v1/payments/{PAN}",
            "cookies": KEY,
        },
        "exception": {"values": [{"type": "ValueError", "value": f"bad {PAN}", "stacktrace": {"frames": []}}]},
        "breadcrumbs": {"values": [{"message": f"sent {PAN}", "data": {"api_key": KEY}}]},
        "extra": {"body": BODY},
    }
    sent = json.dumps(Reporter(Scrubber()).before_send(event, {}))  # type: ignore[arg-type]  # a TypedDict of the SDK's
    assert not [each for each in PLANTED if each in sent]
    assert "Idempotency-Key" in sent


def test_an_order_is_not_logged_with_its_tokens(log: io.StringIO) -> None:
    """A model put into an event by mistake shows no token."""
    order = Order.model_validate(BODY | {"reference": "ORD-1"})
    structlog.get_logger("test").error("mistake", order=order, method=order.payment_method)
    assert TOKEN not in log.getvalue()
