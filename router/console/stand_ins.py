"""The stand-in providers, as the console breaks and mends them. Only ever on this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import urllib3

ANSWER_S = 3.0
MODES: Mapping[str, str] = {
    "ok": "all well",
    "down": "connections refused",
    "errors": "503 to every call",
    "rate_limited": "429 to every call",
    "slow": "answers after three seconds",
    "hang": "takes the call and never answers",
    "lose_reply": "charges, then cuts the connection",
    "drop_request": "cuts the connection before acting",
    "garbage": "HTML in place of an answer",
    "decline": "declines every card",
}
"""What can go wrong, in words (design §9)."""


class SandboxAwayError(Exception):
    """The sandbox does not answer, or refuses; the message says which."""


@dataclass(frozen=True, slots=True)
class StandIn:
    """How one stand-in provider is."""

    name: str
    mode: str
    requests: int


@dataclass(frozen=True, slots=True)
class TestCard:
    """A card of the store: the vendors' published test tokens, never a card number."""

    __test__ = False  # no test, whatever pytest takes its name for

    name: str
    brand: str
    tokens: Mapping[str, Any]


_STORED_AT_ADYEN = "8415718415172204"


def _at_adyen(holder: str) -> Mapping[str, str]:
    return {"stored_payment_method_id": _STORED_AT_ADYEN, "shopper_reference": "shopper", "holder_name": holder}


CARDS: Mapping[str, TestCard] = {
    "visa": TestCard("Visa, approved", "visa", {"stripe": "pm_card_visa", "adyen": _STORED_AT_ADYEN}),
    "mastercard": TestCard(
        "Mastercard, approved", "mastercard", {"stripe": "pm_card_mastercard", "adyen": _STORED_AT_ADYEN}
    ),
    "cascade": TestCard(
        "Visa, declined by Stripe, approved by Adyen",
        "visa",
        {"stripe": "pm_card_visa_chargeDeclined", "adyen": _STORED_AT_ADYEN},
    ),
    "no-money": TestCard(
        "Visa, no money",
        "visa",
        {
            "stripe": "pm_card_visa_chargeDeclinedInsufficientFunds",
            "adyen": _at_adyen("NOT_ENOUGH_BALANCE"),
        },
    ),
    "3ds": TestCard(
        "Visa, wants 3-D Secure",
        "visa",
        {"stripe": "pm_card_threeDSecure2Required", "adyen": _at_adyen("REDIRECT_SHOPPER")},
    ),
}


class StandIns:
    """The sandbox's control port. Thread-safe."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/control"
        self._http = urllib3.PoolManager(retries=False, timeout=ANSWER_S)

    def all(self) -> list[StandIn]:
        """Each stand-in as it is. Raises SandboxAwayError."""
        return [
            StandIn(name, str(each["mode"]), int(each["requests"])) for name, each in self._ask("GET", "").items()
        ]

    def set(self, provider: str, mode: str) -> None:
        """Break one, or mend it. Raises SandboxAwayError."""
        self._ask("PUT", f"/{provider}", {"mode": mode})

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body)
        try:
            answer = self._http.request(method, self._url + path, body=data)
        except urllib3.exceptions.HTTPError:
            raise SandboxAwayError("the sandbox does not answer") from None
        if answer.status != 200:
            raise SandboxAwayError(f"the sandbox refuses ({answer.status})")
        found: dict[str, Any] = answer.json()
        return found
