"""Checkout, as the drill plays it: payments at an even pace, whatever becomes of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import urllib3

from router.clock import Clock, Ids

AT_ONCE = 256
"""Payments in flight: more than a hanging provider can hold up, so that the pace is kept."""
ANSWER_S = 60.0


@dataclass(frozen=True, slots=True)
class Shopped:
    """One payment as its customer saw it; times are seconds of the monotonic clock."""

    sent_at: float
    took_s: float
    code: int
    """HTTP; 0: no answer."""
    payment_id: str | None
    status: str | None


class Shoppers:
    """Posts payments at a pace until stopped. Thread-safe."""

    def __init__(self, base_url: str, api_key: str, *, clock: Clock, ids: Ids) -> None:
        self._url = f"{base_url}/v1/payments"
        self._headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
        self._clock = clock
        self._ids = ids
        self._http = urllib3.PoolManager(
            retries=False, maxsize=AT_ONCE, timeout=urllib3.Timeout(connect=2.0, read=ANSWER_S)
        )
        self._lock = threading.Lock()
        self._shopped: list[Shopped] = []
        self.late_s = 0.0
        """By how much the pace was missed at worst: the figures are of the router only while this is small."""

    def shop(self, per_second: float, stop: threading.Event) -> None:
        """Post until `stop` is set, and wait for the answers."""
        due = self._clock.monotonic()
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="shopper") as pool:
            while not stop.wait(max(0.0, due - self._clock.monotonic())):
                self.late_s = max(self.late_s, self._clock.monotonic() - due)
                pool.submit(self._pay)
                due += 1 / per_second

    def taken(self) -> list[Shopped]:
        """What came of the payments since the last time."""
        with self._lock:
            taken, self._shopped = self._shopped, []
        return taken

    def _pay(self) -> None:
        key = self._ids.new("drill")
        sent_at = self._clock.monotonic()
        code, answer = 0, {}
        try:
            reply = self._http.request(
                "POST", self._url, body=_order(key), headers={**self._headers, "Idempotency-Key": key}
            )
            code, answer = reply.status, json.loads(reply.data)
        except (urllib3.exceptions.HTTPError, ValueError):
            pass  # no answer, or none that can be read: it stays 0, or has its code and no status
        shopped = Shopped(
            sent_at, self._clock.monotonic() - sent_at, code, _text(answer, "id"), _text(answer, "status")
        )
        with self._lock:
            self._shopped.append(shopped)


def _text(answer: Mapping[str, Any], name: str) -> str | None:
    value = answer.get(name)
    return value if isinstance(value, str) else None


def _order(reference: str) -> bytes:
    tokens = {"stripe": "pm_card_visa", "adyen": "8415718415172204"}
    return json.dumps(
        {
            "reference": reference,
            "amount": 1999,
            "currency": "EUR",
            "payment_method": {"type": "card", "tokens": tokens, "card": {"brand": "visa", "country": "DE"}},
            "customer": {"id": "cus_drill", "country": "DE"},
            "return_url": "https://shop.example/return",
        }
    ).encode()
