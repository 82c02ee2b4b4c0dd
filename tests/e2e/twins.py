"""Two requests with one key at the same instant, again and again, over real HTTP and two web processes."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import urllib3

from tests.e2e.house import House
from tests.e2e.shoppers import ADYEN_TOKEN

AT_ONCE = 2
LATENCIES_MS = (15, 0)
"""Of the provider, by turns: so long that the second request comes while the first is under way, or not."""


@dataclass
class Rounds:
    """What came of it."""

    count: int
    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """The table."""
        answers = " · ".join(f"{name} {count}" for name, count in sorted(self.answers.items()))
        yield f"{'rounds':<22}{self.count}, {AT_ONCE} requests with one key at the same instant"
        yield f"{'answers':<22}{answers}"
        yield f"{'rounds gone wrong':<22}{len(self.wrong)}"
        yield from (f"  {line}" for line in self.wrong)


def run_twins(house: House, count: int) -> Rounds:
    """`count` rounds; each must leave one charge in the providers' books, and agreeing answers."""
    rounds = Rounds(count)
    gate = threading.Barrier(AT_ONCE)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for number in range(count):
            house.control("PUT", "/stripe", {"mode": "ok", "latency_ms": LATENCIES_MS[number % 2]})
            answers = list(pool.map(lambda _, n=number: _ask(house, n, gate), range(AT_ONCE)))
            rounds.answers[" and ".join(sorted(str(status) for status, _ in answers))] += 1
            rounds.wrong += [f"round {number}: {line}" for line in _against(house, number, answers)]
    house.control("PUT", "/stripe", {"mode": "ok"})
    return rounds


def _reference(number: int) -> str:
    return f"TWIN-{number}"


def _ask(house: House, number: int, gate: threading.Barrier) -> tuple[int, dict[str, Any]]:
    body = {
        "reference": _reference(number),
        "amount": 1000 + number,
        "currency": "EUR",
        "payment_method": {"type": "card", "tokens": {"stripe": "pm_card_visa", "adyen": ADYEN_TOKEN}},
        "return_url": "https://shop.example/return",
    }
    headers = {"Authorization": f"Bearer {house.env['ROUTER_API_KEY']}", "Idempotency-Key": f"twin-{number}"}
    # A new connection each time: which of the two processes takes it is left to chance.
    with urllib3.PoolManager(retries=False, timeout=20) as http:
        http.request("GET", f"{house.url}/healthz")  # connected, so that both send at the same instant
        gate.wait(20)
        answer = http.request("POST", f"{house.url}/v1/payments", body=json.dumps(body), headers=headers)
        return answer.status, json.loads(answer.data)


def _against(house: House, number: int, answers: list[tuple[int, dict[str, Any]]]) -> Iterator[str]:
    charges = [each for name in ("stripe", "adyen") for each in house.charges(name, _reference(number))]
    if [(each["status"], each["amount"]) for each in charges] != [("captured", 1000 + number)]:
        yield f"the books have {charges}"
    paid = [body for status, body in answers if status == 201]
    if not paid or len({body["id"] for body in paid}) != 1:
        yield f"answered {answers}"
    for status, body in answers:
        if status not in (201, 409) or (status == 409 and not body["type"].endswith("request-in-progress")):
            yield f"answered {status} {body}"
