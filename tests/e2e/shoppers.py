"""Checkout as it behaves in a bad hour: sends again under the same key, asks twice at once, captures and refunds."""

from __future__ import annotations

import itertools
import json
import queue
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import urllib3

FollowUp = Literal["capture", "cancel", "refunds"]
PATIENCE_S = 90.0
"""How long a client goes on for an answer; the chaos around it ends before."""
AGAIN_AFTER_S = 0.15
HARD_TOKEN = "pm_card_visa_chargeDeclinedLostCard"
SOFT_TOKEN = "pm_card_visa_chargeDeclinedInsufficientFunds"
ADYEN_TOKEN = "8415718415172204"


@dataclass(frozen=True)
class Answer:
    """What one request came to; no status where the connection was cut."""

    call: str
    status: int | None
    body: dict[str, Any]

    @property
    def problem(self) -> str | None:
        """The kind of a refusal."""
        return str(self.body["type"]).rpartition(":")[2] if "type" in self.body else None


@dataclass
class Shopping:
    """One payment that a customer wants, and everything that its clients were told."""

    number: int
    body: dict[str, Any]
    follow_up: FollowUp | None = None
    amount: int | None = None
    """Of the follow-up, where it is for a part."""
    patient: bool = True
    """Whether checkout sends again after a cut connection; else the customer has left."""
    answers: list[Answer] = field(default_factory=list)

    @property
    def key(self) -> str:
        """Its idempotency key."""
        return f"chaos-{self.number}"

    @property
    def reference(self) -> str:
        """Its order."""
        return str(self.body["reference"])


def shopping_list(count: int, rng: random.Random) -> list[Shopping]:
    """Payments of all kinds: most are captured at once, some declined, some captured, canceled, refunded later."""
    wanted = []
    for number in range(count):
        lot, stripe, capture = rng.random(), "pm_card_visa", "automatic"
        follow_up: FollowUp | None = None
        amount = 1000 + number
        if lot < 0.08:
            stripe = rng.choice((HARD_TOKEN, SOFT_TOKEN))
        elif lot < 0.30:
            capture, follow_up = "manual", rng.choice(("capture", "capture", "cancel"))
        elif lot < 0.45:
            follow_up = "refunds"
        body = {
            "reference": f"CHAOS-{number}",
            "amount": amount,
            "currency": "EUR",
            "capture": capture,
            "payment_method": {"type": "card", "tokens": {"stripe": stripe, "adyen": ADYEN_TOKEN}},
            "customer": {"id": f"cus_{number % 50}", "country": "DE"},
            "return_url": "https://shop.example/return",
        }
        part = amount // 3 if follow_up in ("capture", "refunds") and rng.random() < 0.5 else None
        wanted.append(Shopping(number, body, follow_up, part, patient=rng.random() >= 0.08))
    return wanted


_plain_numbers = itertools.count(1000)


def plain(count: int) -> list[Shopping]:
    """Payments that are captured at once, with numbers of their own."""
    wanted = []
    for number in itertools.islice(_plain_numbers, count):
        body = {
            "reference": f"PLAIN-{number}",
            "amount": number,
            "currency": "EUR",
            "payment_method": {"type": "card", "tokens": {"stripe": "pm_card_visa", "adyen": ADYEN_TOKEN}},
            "customer": {"id": "cus_1", "country": "DE"},
            "return_url": "https://shop.example/return",
        }
        wanted.append(Shopping(number, body))
    return wanted


@dataclass(frozen=True)
class Request:
    """One turn of a client: a payment, or the same once more."""

    shopping: Shopping
    again: bool


def turns(wanted: Sequence[Shopping], share: float = 0.0, rng: random.Random | None = None) -> list[Request]:
    """Every payment once, and that share of them twice: at the same instant, or a little later."""
    found = [Request(each, again=False) for each in wanted]
    if rng is None:
        return found
    for shopping in rng.sample(list(wanted), round(len(wanted) * share)):
        here = next(index for index, each in enumerate(found) if each.shopping is shopping)
        found.insert(here + (1 if rng.random() < 0.6 else rng.randint(2, 20)), Request(shopping, again=True))
    return found


class Shoppers:
    """Clients that work through the turns, each over a connection of its own."""

    def __init__(
        self, url: str, api_key: str, requests: Sequence[Request], *, connections: int, read_s: float
    ) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
        self._left: queue.SimpleQueue[Request] = queue.SimpleQueue()
        for request in requests:
            self._left.put(request)
        self._read_s = read_s
        self._lock = threading.Lock()
        self.done = 0
        """Turns finished."""
        self._threads = [threading.Thread(target=self._work, name=f"shopper-{n}") for n in range(connections)]
        self.faults: list[str] = []
        """What broke a client: nothing should."""

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def join(self, within_s: float) -> None:
        """Wait for every client."""
        until = time.monotonic() + within_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        assert not any(thread.is_alive() for thread in self._threads), "clients did not come to an end"

    @property
    def busy(self) -> bool:
        """Whether there is anything left to do."""
        return any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        timeout = urllib3.Timeout(connect=2, read=self._read_s)
        with urllib3.PoolManager(maxsize=1, retries=False, timeout=timeout) as http:
            while True:
                try:
                    request = self._left.get_nowait()
                except queue.Empty:
                    return
                try:
                    self._shop(http, request)
                except Exception as error:  # noqa: BLE001 - a client that dies unseen would hide what it saw
                    self.faults.append(f"{request.shopping.reference}: {error!r}")
                with self._lock:
                    self.done += 1

    def _shop(self, http: urllib3.PoolManager, request: Request) -> None:
        shopping = request.shopping
        answer = self._until_answered(http, shopping, "pay", "/v1/payments", shopping.body, shopping.key)
        if answer is None or request.again or shopping.follow_up is None:
            return
        ripe = "captured" if shopping.follow_up == "refunds" else "authorized"
        if answer.body.get("status") == ripe:
            call, amount = shopping.follow_up, shopping.amount
            body = {} if amount is None else {"amount": amount}
            path = f"/v1/payments/{answer.body['id']}/{call}"
            self._until_answered(http, shopping, call, path, body, f"{shopping.key}-{call}")

    def _until_answered(
        self, http: urllib3.PoolManager, shopping: Shopping, call: str, path: str, body: Any, key: str
    ) -> Answer | None:
        """Send, and again while there is no answer; None where checkout gives up."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            answer = self._send(http, call, path, body, key)
            shopping.answers.append(answer)
            if answer.status is None and not shopping.patient:
                return None
            if answer.status is not None and answer.problem not in (
                "request-in-progress",
                "ledger-unavailable",
                "outcome-unknown",
            ):
                return answer
            time.sleep(AGAIN_AFTER_S)
        return None

    def _send(self, http: urllib3.PoolManager, call: str, path: str, body: Any, key: str) -> Answer:
        headers = self._headers | {"Idempotency-Key": key}
        try:
            found = http.request("POST", self._url + path, body=json.dumps(body), headers=headers)
            return Answer(call, found.status, json.loads(found.data))
        except (urllib3.exceptions.HTTPError, ValueError):
            return Answer(call, None, {})
