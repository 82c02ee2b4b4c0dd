"""Alerts over a webhook: signed, sent by one worker, and again until they are accepted, for a day."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
import time
from collections.abc import Mapping

import pytest
from structlog.testing import capture_logs

from router import alerts
from router.alerts import AT_ONCE, GIVEN_UP_AFTER, LEASE, AlertSender, webhook
from router.clock import ManualClock
from router.ledger.alerts import Alert, AlertKind, AlertLedger
from router.ledger.engine import Database
from router.ledger.upkeep import Upkeep
from router.signing import SIGNATURE
from tests.fakes.threads import together
from tests.integration.raw_http import answering
from tests.unit.webhook_receiver import Receiver

SECRET = "whsec_test"


class Endpoint:
    """The receiver, in memory: refuses as long as it is told to."""

    def __init__(self) -> None:
        self.got: list[tuple[bytes, Mapping[str, str]]] = []
        self.refusal: str | None = None
        self.calls = 0

    def __call__(self, body: bytes, headers: Mapping[str, str]) -> str | None:
        self.calls += 1
        if self.refusal is None:
            self.got.append((body, headers))
        return self.refusal


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


def a_sender(database: Database, clock: ManualClock, endpoint: Endpoint) -> AlertSender:
    return AlertSender(AlertLedger(database), endpoint, secret=SECRET, clock=clock, random=lambda: 0.5)


def tell(database: Database, clock: ManualClock, number: int = 1) -> bool:
    """An alert of a flip of that number."""
    text = "stripe → adyen"
    alert = Alert(
        f"alert_{number}", "flip_confirmed", "inc_stripe_1", text, clock.now(), f"flip_{number}", {"to": "a"}
    )
    return AlertLedger(database).tell(alert)


def test_an_alert_is_sent_once_and_its_signature_proves_who_sent_it(
    database: Database, clock: ManualClock, endpoint: Endpoint
) -> None:
    """Over the time and the body, so that neither can be another's; told again, it is not sent again."""
    assert tell(database, clock)
    assert not tell(database, clock)
    sender = a_sender(database, clock, endpoint)
    assert (sender.run_once(), sender.run_once()) == (1, 0)
    ((body, headers),) = endpoint.got
    unix_s, signed = (part.partition("=")[2] for part in headers[SIGNATURE].split(","))
    assert signed == hmac.new(SECRET.encode(), f"{unix_s}.".encode() + body, hashlib.sha256).hexdigest()
    assert json.loads(body) == {
        "id": "alert_1",
        "kind": "flip_confirmed",
        "incident": "inc_stripe_1",
        "flip": "flip_1",
        "text": "stripe → adyen",
        "at": "2026-11-21T00:00:00.000Z",
        "detail": {"to": "a"},
    }


def test_an_alert_that_is_not_accepted_is_sent_again_less_and_less_often_for_a_day(
    database: Database, clock: ManualClock, endpoint: Endpoint
) -> None:
    """Then it is given up."""
    endpoint.refusal = "HTTP 500"
    tell(database, clock)
    sender = a_sender(database, clock, endpoint)
    for _ in range(2 * 24 * 60):
        sender.run_once()
        clock.advance(60)
    assert 25 <= endpoint.calls <= 40
    endpoint.refusal = None
    assert sender.run_once() == 0
    assert GIVEN_UP_AFTER.days == 1


def test_of_several_workers_one_sends(database: Database, clock: ManualClock, endpoint: Endpoint) -> None:
    """Ten alerts, four workers at one instant."""
    for number in range(10):
        tell(database, clock, number)
    together([a_sender(database, clock, endpoint).run_once for _ in range(4)])
    assert sorted(json.loads(body)["id"] for body, _ in endpoint.got) == [f"alert_{number}" for number in range(10)]


def test_a_worker_that_died_while_it_sent_leaves_the_alert_to_another(
    database: Database, clock: ManualClock, endpoint: Endpoint
) -> None:
    """It may come twice, under the same id."""

    def die(_body: bytes, _headers: Mapping[str, str]) -> str | None:
        raise SystemExit

    tell(database, clock)
    dying = AlertSender(AlertLedger(database), die, secret=SECRET, clock=clock, random=lambda: 0.5)
    with pytest.raises(SystemExit):
        dying.run_once()
    sender = a_sender(database, clock, endpoint)
    assert sender.run_once() == 0
    clock.advance(LEASE.total_seconds())
    assert sender.run_once() == 1


def test_over_http_only_a_2xx_is_an_acceptance() -> None:
    """A redirect is not followed, and an address where nobody listens is a refusal like any other."""
    receiver = Receiver()
    try:
        post = webhook(receiver.url)
        receiver.statuses.extend([204, 302, 500])
        assert [post(b"{}", {}) for _ in range(3)] == [None, "HTTP 302", "HTTP 500"]
    finally:
        receiver.close()
    assert webhook("http://127.0.0.1:1")(b"{}", {}) == "connection_refused"


def test_a_receiver_that_drips_does_not_hold_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes within the read timeout, and the answer never ends."""
    monkeypatch.setattr(alerts, "READ_S", 0.3)
    with answering(200, b" " * 10_000, drip_s=0.05) as url:
        started = time.monotonic()
        assert webhook(url)(b"{}", {}) == "read_timeout"
        assert time.monotonic() - started < 0.3 + 2


def test_a_webhook_that_is_set_up_late_gets_no_backlog(
    database: Database, clock: ManualClock, endpoint: Endpoint
) -> None:
    """Whoever hears of a flip a day late knows it from its effects; what is new does not wait behind what is old."""
    for number in range(2 * AT_ONCE):
        tell(database, clock, number)
    clock.advance(GIVEN_UP_AFTER.total_seconds() + 1)
    tell(database, clock, 99)
    sender = a_sender(database, clock, endpoint)
    with capture_logs() as logs:
        assert [sender.run_once() for _ in range(3)] == [1, 0, 0]
    assert [json.loads(body)["id"] for body, _ in endpoint.got] == ["alert_99"]
    assert [(each["event"], each["alerts"]) for each in logs] == [("alerts_too_old", 2 * AT_ONCE)]


def test_an_alert_of_a_day_is_still_sent(database: Database, clock: ManualClock, endpoint: Endpoint) -> None:
    """As after a night without a worker."""
    tell(database, clock)
    clock.advance(GIVEN_UP_AFTER.total_seconds())
    assert a_sender(database, clock, endpoint).run_once() == 1


def test_each_restore_that_failed_is_told(database: Database, clock: ManualClock) -> None:
    """A person asked for it, and waits for it; of a flip that is confirmed there is one alert."""

    def told(number: int, kind: AlertKind, *, asked: bool) -> bool:
        alert = Alert(f"alert_{number}", kind, "inc", "text", clock.now(), "flip_1", is_answer=asked)
        return AlertLedger(database).tell(alert)

    assert told(1, "restore_failed", asked=True)
    assert told(2, "flip_confirmed", asked=False)
    clock.advance(60)
    assert told(3, "restore_failed", asked=True)
    assert not told(4, "flip_confirmed", asked=False)


def test_old_alerts_are_forgotten(database: Database, clock: ManualClock) -> None:
    """By the moment at which it happened; so many at a time, the oldest first."""
    ledger, upkeep = AlertLedger(database), Upkeep(database)
    for number in (1, 2, 3):
        tell(database, clock, number)
        clock.advance(10)
    before = clock.now() - dt.timedelta(seconds=10)
    assert upkeep.reap_alerts(before, limit=1) == 1
    assert [each.id for each in ledger.all()] == ["alert_2", "alert_3"]
    assert (upkeep.reap_alerts(before, limit=9), upkeep.reap_alerts(before, limit=9)) == (1, 0)
    assert [each.id for each in ledger.all()] == ["alert_3"]
