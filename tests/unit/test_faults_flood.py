"""A fault that happens a thousand times a second is one report a minute, and none of them is forgotten."""

from __future__ import annotations

import gzip
import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import sentry_sdk
import structlog
from pydantic import SecretStr

from router.clock import ManualClock
from router.settings import Settings
from router.telemetry import logs
from router.telemetry.faults import MOST_A_MINUTE, Flood

PAN = "4111111111111111"


def test_one_kind_is_let_through_once_in_its_time_with_what_was_held_back() -> None:
    """The first at once; then one a minute, which tells how many it stands for."""
    clock = ManualClock()
    flood = Flood(clock.monotonic)
    assert flood.admit("a") == 0
    for _ in range(1000):
        clock.advance(0.001)
        assert flood.admit("a") is None
    clock.advance(60)
    assert flood.admit("a") == 1000
    clock.advance(60)
    assert flood.admit("a") == 0


def test_one_kind_does_not_hold_back_another() -> None:
    """Two faults at once are two reports."""
    flood = Flood(ManualClock().monotonic)
    assert [flood.admit(kind) for kind in ("a", "b", "a", "b")] == [0, 0, None, None]


def test_all_kinds_together_are_bounded_and_each_is_told_of_later() -> None:
    """A dead database breaks everything: Sentry's quota is not to be spent in a minute."""
    clock = ManualClock()
    flood = Flood(clock.monotonic)
    answers = [flood.admit(number) for number in range(MOST_A_MINUTE + 5)]
    assert answers == [0] * MOST_A_MINUTE + [None] * 5
    clock.advance(60)
    assert flood.admit(MOST_A_MINUTE) == 1


def test_what_is_remembered_is_bounded() -> None:
    """Kinds that are made from something endless do not fill the memory; the oldest is forgotten first."""
    clock = ManualClock()
    flood = Flood(clock.monotonic, most_kinds=3, most_a_minute=100)
    for kind in "abcd":
        flood.admit(kind)
    assert len(flood._kinds) == 3
    assert flood.admit("d") is None
    assert flood.admit("a") == 0


@dataclass(slots=True)
class Sink:
    """Sentry's end: a real HTTP server that keeps the events of the envelopes that it is sent."""

    url: str = ""
    raw: list[bytes] = field(default_factory=list)

    @property
    def events(self) -> list[dict[str, Any]]:
        """Events, in the order in which they came."""
        lines = [line for body in self.raw for line in body.splitlines()]
        return [each for each in map(json.loads, lines) if "event_id" in each and "level" in each]


@pytest.fixture
def sink() -> Iterator[Sink]:
    """The service's own set-up, with the SDK's own transport, over a socket."""
    found = Sink()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            found.raw.append(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found.url = f"http://key@127.0.0.1:{server.server_address[1]}/1"
    logs.configure(Settings(sentry_dsn=SecretStr(found.url)), process="test")
    yield found
    sentry_sdk.init()
    structlog.reset_defaults()
    server.shutdown()
    server.server_close()


def _fault() -> None:
    card = {"number": PAN}
    raise ValueError(f"no such card: {card['number']}, with {'-'.join(['sk', 'live', 'planted'])}")


def test_a_thousand_faults_are_one_report_over_the_wire(sink: Sink) -> None:
    """By Sentry's own client and transport: one event, scrubbed, without a frame's variables."""
    for _ in range(1000):
        try:
            _fault()
        except ValueError:
            structlog.get_logger().exception("fault", endpoint="payments", api_key="planted")
    sentry_sdk.flush(5)
    (event,) = sink.events
    assert event["exception"]["values"][0]["value"] == "no such card: [removed], with sk-live-planted"
    told = event["contexts"]["log"]
    assert (told["endpoint"], told["api_key"], told["suppressed"]) == ("payments", "[removed]", 0)
    assert not [frame for frame in event["exception"]["values"][0]["stacktrace"]["frames"] if "vars" in frame]
    assert PAN.encode() not in b"".join(sink.raw)


def test_declines_and_refusals_are_no_reports(sink: Sink) -> None:
    """What is no error, whoever logs it; and an error that a library logs is one."""
    structlog.get_logger().info("payment", status="declined")
    structlog.get_logger().warning("webhook_refused", provider="stripe")
    logging.getLogger("urllib3").warning("Retrying %s", PAN)
    logging.getLogger("opentelemetry.sdk").error("cannot export")
    logging.getLogger("stripe").error("broken %s", PAN)
    sentry_sdk.flush(5)
    (event,) = sink.events
    assert event["message"] == "broken [removed]"


def test_what_no_one_caught_is_reported_and_logged_without_its_card_number(
    sink: Sink, capsys: pytest.CaptureFixture[str]
) -> None:
    """A thread that dies prints no traceback of its own."""
    thread = threading.Thread(target=_fault, name="relay")
    thread.start()
    thread.join()
    sentry_sdk.flush(5)
    (event,) = sink.events
    assert event["exception"]["values"][0]["type"] == "ValueError"
    assert event["contexts"]["log"]["thread"] == "relay"
    assert PAN not in capsys.readouterr().err
