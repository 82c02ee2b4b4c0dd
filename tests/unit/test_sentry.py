"""Faults of ours reach Sentry, without what must not leave the process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sentry_sdk
import structlog
from flask import Flask
from pydantic import SecretStr
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from providers.contract import Health
from router.alerts import webhook
from router.clock import ManualClock
from router.settings import Settings
from router.telemetry import logs
from router.transitions import State
from tests.fakes.house import a_health, move, teach
from tests.fakes.ledger import MemoryStore
from tests.unit.webhook_receiver import Receiver

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
    logs.configure(Settings(sentry_dsn=SecretStr("https://key@127.0.0.1:1/1")), process="test")
    caught = Caught()
    sentry_sdk.get_client().transport = caught
    yield caught
    sentry_sdk.init()
    structlog.reset_defaults()


def test_the_set_up_warns_of_nothing(recwarn: pytest.WarningsRecorder) -> None:
    """An option that is deprecated may be gone with the next version, and its protection with it."""
    logs.configure(Settings(sentry_dsn=SecretStr("https://key@127.0.0.1:1/1")), process="test")
    sentry_sdk.init()
    structlog.reset_defaults()
    assert [
        str(each.message) for each in recwarn if "sentry" in str(each.filename).lower() or "pii" in str(each)
    ] == []


def test_no_kind_of_data_is_collected_by_itself(sentry: Caught) -> None:
    """Every kind that this version of the SDK knows: one that we do not name would be collected."""
    collected = sentry_sdk.get_client().options["data_collection"]
    allowed = {"provided_by_user": True, "frame_context_lines": 5}
    off = {"mode": "off"}
    assert {name: each for name, each in collected.items() if name not in allowed} == {
        "user_info": False,
        "cookies": off,
        "http_headers": {"request": off},
        "http_bodies": [],
        "url_query_params": off,
        "graphql": {"document": False, "variables": False},
        "gen_ai": {"inputs": False, "outputs": False},
        "database_query_data": False,
        "queues": False,
        "stack_frame_variables": False,
    }
    assert {name: collected[name] for name in allowed} == allowed
    assert sentry.events == []


def in_a(place: str) -> str:
    """Not written out, because a report shows the lines of source around the fault."""
    return "-".join(["in", "a", place])


def test_a_request_leaves_no_more_than_its_route(sentry: Caught) -> None:
    """No body, header, cookie, query, address or user, nor a variable of a frame."""
    app = Flask("shop")

    @app.post("/v1/payments")
    def fault() -> str:
        variable = in_a("variable")
        raise RuntimeError(f"a fault of ours: {len(variable)}")

    app.test_client().post(
        f"/v1/payments?coupon={in_a('query')}",
        json={"amount": in_a("body")},
        headers={"X-Card": in_a("header"), "X-Forwarded-For": in_a("address"), "Cookie": f"a={in_a('cookie')}"},
        environ_base={"REMOTE_ADDR": in_a("address")},
    )
    (event,) = sentry.events
    sent = repr({name: each for name, each in event.items() if name != "modules"})
    assert "in-a-" not in sent
    assert "vars" not in event["exception"]["values"][0]["stacktrace"]["frames"][-1]


def test_the_alert_webhooks_address_is_in_no_report(sentry: Caught) -> None:
    """Whoever has a chat's address may write into it. The SDK keeps every HTTP call as a breadcrumb by itself."""
    receiver, secret = Receiver(), in_a("path")
    try:
        receiver.statuses.append(500)
        assert webhook(f"{receiver.url}/services/{secret}")(b"{}", {}) == "HTTP 500"
    finally:
        receiver.close()
    structlog.get_logger().error("alert_given_up", kind="flip_confirmed")
    (event,) = sentry.events
    assert secret not in repr(event)


@pytest.mark.parametrize(
    "name", ["passwd", "credentials", "session", "x_real_ip", "Private_Key", "auth", "PHPSESSID"]
)
def test_what_sentrys_own_scrubber_knows_by_name_is_removed(sentry: Caught, name: str) -> None:
    """It is off, because the kinds of data are set."""
    structlog.get_logger().error("fault", **{name: "planted"}, nested=[{name: "planted"}])
    assert "planted" not in repr(sentry.events)


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
    """Grouped by the word, so that a thousand payments in one trouble are one issue, and one report a minute."""
    for payment in ("pay_1", "pay_2"):
        structlog.get_logger().error("answer_not_written", payment=payment)
    (event,) = sentry.events
    assert event["message"] == "answer_not_written"
    assert event["contexts"]["log"]["payment"] == "pay_1"
    assert event["fingerprint"] == ["{{ default }}", "answer_not_written"]


@pytest.mark.parametrize("word", ["provider_suspect", "circuit_opened"])
def test_two_providers_in_trouble_are_two_issues(sentry: Caught, word: str) -> None:
    """Whoever closes one must still hear of the other."""
    for provider in ("stripe", "adyen"):
        structlog.get_logger().error(word, provider=provider)
    assert [tuple(event["fingerprint"]) for event in sentry.events] == [
        ("{{ default }}", word, provider) for provider in ("stripe", "adyen")
    ]


def test_two_incidents_of_one_provider_are_two_reports_of_one_issue(sentry: Caught) -> None:
    """However soon the second follows: whoever closed the first must hear of it."""
    for incident in ("inc_stripe_1", "inc_stripe_2"):
        structlog.get_logger().error("circuit_opened", provider="stripe", incident=incident)
    first, second = sentry.events
    assert first["fingerprint"] == second["fingerprint"]
    assert [each["contexts"]["log"]["incident"] for each in (first, second)] == ["inc_stripe_1", "inc_stripe_2"]


def test_an_incident_is_reported_once_whatever_follows_in_it(sentry: Caught) -> None:
    """By the process whose opening was written, not by the one that opened as well; not with each failed round."""
    clock, store = ManualClock(), MemoryStore()
    first, second = (a_health(("stripe",), store=store, clock=clock, actor=name) for name in ("first", "second"))
    for health in (first, second):
        teach(health, Health.UNREACHABLE)
        health.sync_once()
    second.sync_once()
    for state in (State.HALF_OPEN, State.OPEN, State.HALF_OPEN, State.SLOW_START, State.CLOSED, State.OPEN):
        move(first, "stripe", state, clock)
        second.sync_once()
    (event,) = sentry.events
    assert (event["message"], event["level"]) == ("circuit_opened", "error")
    log = event["contexts"]["log"]
    assert (log["provider"], log["incident"]) == ("stripe", "inc_stripe_1")
    assert log["reason"] == "10 of the last 10 calls failed"


def test_credentials_that_are_refused_are_reported_as_what_they_are(sentry: Caught) -> None:
    """No payment would pass, and only a person can mend it."""
    health = a_health(("stripe",), store=MemoryStore(), clock=ManualClock())
    teach(health, Health.CREDENTIALS_REFUSED)
    health.sync_once()
    (event,) = sentry.events
    assert event["message"] == "circuit_opened"
    assert "credentials" in event["contexts"]["log"]["reason"]


def test_what_is_no_error_is_not_reported(sentry: Caught) -> None:
    """A circuit that moves is a warning; a payment is nothing at all."""
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
