"""Synthetic payments for `make run`: a few a second, a readable line for each, so that an outage can be watched."""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import urllib3
from iso4217 import Currency

from router.clock import Clock, Ids

_DECLINE_SHARE = 0.08
"""About one in twelve cards has no money: enough to see a decline every few seconds at two payments a second."""

_ANSWER_S = 30.0
"""Longer than the router gives a payment (`ROUTER_DEADLINE_SECONDS`, 25), so that it is the router that gives up."""

_AT_ONCE = 60
"""Two payments a second, each waiting for its answer as long as one may: customers do not queue up behind one
another, and with a provider that hangs a circuit opens only if several calls hang."""

_LONGEST_WORD = 60
"""A line stays a line whatever an answer holds."""

_STORED_AT_ADYEN = "8415718415172204"
_COUNTRIES = {"EUR": ("DE", "FR", "NL", "ES", "IT"), "USD": ("US",), "GBP": ("GB",)}
_BRANDS = {"visa": "pm_card_visa", "mastercard": "pm_card_mastercard"}


@dataclass(frozen=True)
class Round:
    """What one round came to: whether the router answered at all, and the payment's status or the refusal's type."""

    answered: bool
    result: str


class DemoTraffic:
    """Posts synthetic payments to a router and says what became of each.

    `per_second` is the pace, 0 for none; `base_url` such as `http://127.0.0.1:8080`. Only vendors' published
    test tokens are sent, never a card number.
    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        per_second: float,
        say: Callable[[str], None],
        clock: Clock,
        ids: Ids,
        rng: random.Random,
    ) -> None:
        self._url = f"{base_url.rstrip('/')}/v1/payments"
        self._api_key = api_key
        self._per_second = per_second
        self._say = say
        self._clock = clock
        self._ids = ids
        self._rng = rng
        self._http = urllib3.PoolManager(
            maxsize=_AT_ONCE,
            retries=False,
            timeout=urllib3.Timeout(connect=1.0, read=_ANSWER_S),
            headers={"User-Agent": "demo"},
        )

    def run(self, stop: threading.Event) -> None:
        """Post payments at the pace until `stop` is set, whatever the ones before wait for; `_AT_ONCE` at most."""
        if self._per_second <= 0:
            return
        interval_s = 1 / self._per_second
        places = threading.BoundedSemaphore(_AT_ONCE)
        due = self._clock.monotonic()
        while not stop.wait(max(0.0, due - self._clock.monotonic())):
            due = max(due + interval_s, self._clock.monotonic())
            if places.acquire(blocking=False):
                # Nobody waits for it at the end: Ctrl-C promises to be done within five seconds.
                threading.Thread(target=self._visit, args=(self._payment(), places), name="demo", daemon=True).start()

    def _visit(self, payment: Mapping[str, Any], places: threading.BoundedSemaphore) -> None:
        try:
            self._post(payment)
        finally:
            places.release()

    def run_once(self) -> Round:
        """Post one payment and say what became of it, in one line; never raises for the router's faults."""
        return self._post(self._payment())

    def _post(self, payment: Mapping[str, Any]) -> Round:
        now, started = self._clock.now(), self._clock.monotonic()
        answer: Mapping[str, Any] | None = None
        try:
            reply = self._http.request(
                "POST",
                self._url,
                json=payment,
                headers={
                    "Authorization": f"Bearer {self._api_key}",
                    "Idempotency-Key": self._ids.new("demo"),
                    "Content-Type": "application/json",
                },
            )
            answer = _mapping(reply.data)
            result, outcome = _read(reply.status, answer)
        except urllib3.exceptions.NewConnectionError:
            result, outcome = "", "router is not answering"
        except urllib3.exceptions.TimeoutError:
            result, outcome = "", "router did not answer in time"
        except urllib3.exceptions.HTTPError:
            result, outcome = "", "router cut the connection"
        took_ms = (self._clock.monotonic() - started) * 1000
        amount = format_minor(payment["amount"], payment["currency"])
        self._say(f"{now:%H:%M:%S}  {amount:>11}  {outcome}  {took_ms:.0f} ms")
        return Round(answered=answer is not None, result=result)

    def _payment(self) -> dict[str, Any]:
        """A payment as a shop might ask for: mostly small, in three currencies, now and then without the money."""
        currency = self._rng.choice(sorted(_COUNTRIES))
        country = self._rng.choice(_COUNTRIES[currency])
        brand = self._rng.choice(sorted(_BRANDS))
        customer = f"cus_demo_{self._rng.randint(1, 500)}"
        tokens: dict[str, Any] = {"stripe": _BRANDS[brand], "adyen": _STORED_AT_ADYEN}
        if self._rng.random() < _DECLINE_SHARE:
            tokens = {
                "stripe": "pm_card_visa_chargeDeclinedInsufficientFunds",
                "adyen": {
                    "stored_payment_method_id": _STORED_AT_ADYEN,
                    "shopper_reference": customer,
                    "holder_name": "NOT_ENOUGH_BALANCE",
                },
            }
            brand = "visa"
        return {
            "reference": "DEMO-" + self._ids.new("ref").removeprefix("ref_").upper(),
            "amount": int(self._rng.triangular(299, 19_999, 1_999)),
            "currency": currency,
            "capture": "automatic",
            "payment_method": {
                "type": "card",
                "tokens": tokens,
                "card": {
                    "brand": brand,
                    "country": country,
                    "funding": self._rng.choice(("credit", "debit")),
                },
            },
            "customer": {"id": customer, "country": country},
            "return_url": "https://shop.example/return",
        }


def format_minor(minor: int, currency: str) -> str:
    """Minor units as people write them, `1999, "EUR"` as `19.99 EUR`, by the decimals of ISO 4217."""
    decimals = Currency(currency).exponent or 0
    whole, rest = divmod(minor, 10**decimals)
    return f"{whole}.{rest:0{decimals}d} {currency}" if decimals else f"{whole} {currency}"


def _mapping(body: bytes) -> Mapping[str, Any] | None:
    """A JSON object, or None for anything else."""
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _read(status: int, answer: Mapping[str, Any] | None) -> tuple[str, str]:
    """An answer's result, in a word, and in words for a person."""
    if answer is None:
        return "unreadable", f"unreadable answer (HTTP {status})"
    if status >= 400:
        kind = _word(re.split("[:/]", str(answer.get("type", "")))[-1] or answer.get("title"))
        return kind, f"refused ({status} {kind})"
    result = _word(answer.get("status"))
    provider = _word(answer.get("provider")) if answer.get("provider") else "-"
    path = _path(answer)
    return result, f"{result:<10}  {provider:<8}" + (f"  ({path})" if path else "")


def _path(answer: Mapping[str, Any]) -> str:
    """The way through the providers, `stripe: connection_refused → adyen`; empty if the first one approved."""
    attempts = answer.get("attempts")
    if not isinstance(attempts, list) or not all(isinstance(attempt, dict) for attempt in attempts):
        return ""
    if len(attempts) == 1 and attempts[0].get("outcome") == "approved":
        return ""
    decline = answer.get("decline")
    code = decline.get("code") if isinstance(decline, dict) else None  # the payment's, so the last attempt's
    steps = [_step(attempt, None) for attempt in attempts[:-1]] + [_step(attempt, code) for attempt in attempts[-1:]]
    return " → ".join(steps)


def _step(attempt: Mapping[str, Any], code: object) -> str:
    provider = _word(attempt.get("provider"))
    if attempt.get("outcome") == "approved":
        return provider
    return f"{provider}: {_word(attempt.get('reason') or code or attempt.get('outcome'))}"


def _word(value: object) -> str:
    """Something an answer holds, fit for a terminal: printable, and short."""
    return "".join(letter for letter in str(value) if letter.isprintable())[:_LONGEST_WORD]
