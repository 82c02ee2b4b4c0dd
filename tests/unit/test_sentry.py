"""Faults of ours reach Sentry, without what must not leave the process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sentry_sdk
import structlog
from pydantic import SecretStr
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from router import telemetry
from router.settings import Settings

PAN = "4111111111111111"


class Caught(Transport):
    """Keeps what would be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[dict[str, Any]] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        for item in envelope.items:
            event = item.get_event()
            if event is not None:
                self.events.append(dict(event))


@pytest.fixture
def sentry() -> Iterator[Caught]:
    """The service's own set-up, with a transport that keeps the events."""
    telemetry.configure(Settings(sentry_dsn=SecretStr("https://key@127.0.0.1:1/1")), process="test")
    caught = Caught()
    sentry_sdk.get_client().transport = caught
    yield caught
    sentry_sdk.init()
    structlog.reset_defaults()


def test_an_error_that_is_logged_is_reported_once(sentry: Caught) -> None:
    """With its traceback, and with what was logged beside it."""
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        structlog.get_logger().exception("fault", endpoint="payments")
    (event,) = sentry.events
    assert event["exception"]["values"][0]["type"] == "ZeroDivisionError"
    assert event["contexts"]["log"]["endpoint"] == "payments"


def test_an_error_without_an_exception_is_reported_by_its_word(sentry: Caught) -> None:
    """Grouped by the word, so that a thousand payments in one trouble are one issue."""
    for payment in ("pay_1", "pay_2"):
        structlog.get_logger().error("answer_not_written", payment=payment)
    assert [event["message"] for event in sentry.events] == ["answer_not_written"] * 2
    assert len({tuple(event["fingerprint"]) for event in sentry.events}) == 1


def test_what_is_no_error_is_not_reported(sentry: Caught) -> None:
    """An opening circuit is a warning; a payment is nothing at all."""
    structlog.get_logger().warning("circuit", provider="stripe")
    structlog.get_logger().info("payment", status="declined")
    assert sentry.events == []


def test_no_card_number_key_or_local_variable_leaves_the_process(sentry: Caught) -> None:
    """Whatever stood in the log line, in the exception's text, or in the frames."""
    secret = PAN
    try:
        raise ValueError(f"card {secret}")
    except ValueError:
        structlog.get_logger().exception("fault", note=PAN, api_key="-".join(["sk", "live", "planted"]))
    sent = repr(sentry.events)
    assert len(sentry.events) == 1
    assert PAN not in sent
    assert "sk-live-planted" not in sent
