"""Tells the alerts in the ledger to a webhook, for chat and paging: signed, once, and again until it is accepted.

The receiver checks the signature (`router.signing`) under the shared secret, and knows an alert that comes twice by
its `id`: it does only where a worker died between the two.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping

import structlog

from providers.contract import Timeouts
from providers.transport import SendFailed, Transport, sending_within
from router.clock import Clock
from router.ledger.alerts import Alert, AlertLedger
from router.signing import SIGNATURE, signature

log = structlog.get_logger("router.alerts")

AT_ONCE = 20
CONNECT_S = 3.0
READ_S = 7.0
LEASE = dt.timedelta(seconds=60)
"""Longer than a send can take: whoever died in one leaves the alert to the others after that."""
FIRST_WAIT_S = 5.0
LONGEST_WAIT_S = 3600.0
GIVEN_UP_AFTER = dt.timedelta(days=1)
"""Whoever hears of a flip a day late knows it from its effects."""

Post = Callable[[bytes, Mapping[str, str]], str | None]
"""Sends a body with its headers; answers why it was not accepted, None where it was. Never raises."""


def webhook(url: str) -> Post:
    """Over HTTP, within bounds however slowly the answer drips: one receiver must not hold the loop.

    A redirect is not followed: the address is a setting, and what is sent is signed.
    """
    transport = Transport(pool_size=1)

    def post(body: bytes, headers: Mapping[str, str]) -> str | None:
        try:
            with sending_within(Timeouts(CONNECT_S, READ_S)):
                answer = transport.send("POST", url, headers, body)
        except SendFailed as failed:
            return failed.fault.reason  # a word: the address may hold a secret of the receiver's
        return None if 200 <= answer.status < 300 else f"HTTP {answer.status}"

    return post


def body_of(alert: Alert) -> bytes:
    """What the receiver gets."""
    told = {
        "id": alert.id,
        "kind": alert.kind,
        "incident": alert.incident,
        "flip": alert.flip_id,
        "text": alert.text,
        "at": alert.at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "detail": dict(alert.detail),
    }
    return json.dumps(told, ensure_ascii=False).encode()


class AlertSender:
    """A worker loop."""

    def __init__(
        self, ledger: AlertLedger, post: Post, *, secret: str, clock: Clock, random: Callable[[], float]
    ) -> None:
        self._ledger = ledger
        self._post = post
        self._secret = secret
        self._clock = clock
        self._random = random

    def run_once(self) -> int:
        """Send what is due. Answers how many were accepted."""
        now = self._clock.now()
        due = self._ledger.due(now, limit=AT_ONCE)
        if due and now - due[0].at > GIVEN_UP_AFTER:
            # As after a webhook was set up late: all at once, so that what is new does not wait behind them.
            given_up = self._ledger.give_up(now - GIVEN_UP_AFTER, cause="nobody would hear it in time")
            log.warning("alerts_too_old", alerts=given_up)
            due = self._ledger.due(now, limit=AT_ONCE)
        return sum(self._send(alert) for alert in due)

    def _send(self, alert: Alert) -> bool:
        now = self._clock.now()
        if not self._ledger.take(alert, until=now + LEASE):
            return False  # another worker sends it
        body = body_of(alert)
        headers = {
            "Content-Type": "application/json",
            SIGNATURE: signature([self._secret], body, int(now.timestamp())),
        }
        refusal = self._post(body, headers)
        if refusal is None:
            self._ledger.sent(alert, at=self._clock.now())
            return True
        wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(alert.tries, 20)) * (0.75 + self._random() / 2)
        again_at: dt.datetime | None = now + dt.timedelta(seconds=wait_s)
        if again_at is not None and again_at - alert.at > GIVEN_UP_AFTER:
            again_at = None
            log.error("alert_given_up", alert=alert.id, kind=alert.kind, incident=alert.incident, cause=refusal)
        elif alert.tries == 0:
            log.warning("alert_not_sent", alert=alert.id, kind=alert.kind, incident=alert.incident, cause=refusal)
        self._ledger.not_sent(alert, again_at=again_at, cause=refusal)
        return False
