"""Checkout's requests at a given rate, whatever becomes of them: `python -m tests.load.customers` on standard input.

Open loop: a customer comes when it is time, not when another is done, as real ones do; a closed loop asks less of
a slow server and flatter it (coordinated omission, https://www.scylladb.com/2021/04/22/on-coordinated-omission/). A
process of its own, so that it shares no interpreter with what it measures.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from typing import Any

import httptools

GIVE_UP_S = 30.0


@dataclass(slots=True)
class Plan:
    """What to ask for."""

    host: str
    port: int
    key: str
    per_second: float
    seconds: float
    prefix: str
    """Of references and idempotency keys: two runs must not meet."""


@dataclass(slots=True)
class Told:
    """One request's answer."""

    at: float
    """Seconds after the first that it was due."""
    took: float
    """Seconds from when it was due until it was answered."""
    status: int | str
    """Or what happened instead of an answer."""
    problem: str | None = None
    again: bool = False
    """A reused connection was closed before any answer, and the request was sent again under the same key."""
    hasty: bool = False
    """A refusal with a time to come back after."""


class _Answer:
    """httptools' callbacks of one answer."""

    def __init__(self) -> None:
        self.done = False
        self.close = False
        self.retry_after = False
        self.body = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"connection" and value.lower() == b"close":
            self.close = True
        elif name.lower() == b"retry-after":
            self.retry_after = True

    def on_body(self, part: bytes) -> None:
        self.body += part

    def on_message_complete(self) -> None:
        self.done = True


class _ClosedUnasked(Exception):  # noqa: N818 - says what happened
    """The connection ended before a byte of the answer."""


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(slots=True)
class Customers:
    """All of them, over pooled connections."""

    plan: Plan
    told: list[Told] = field(default_factory=list)
    idle: deque[Connection] = field(default_factory=deque)

    async def come(self) -> None:
        """Each when it is time, then wait for the last answers."""
        plan, tasks = self.plan, set()
        began = time.perf_counter()
        for number in range(int(plan.per_second * plan.seconds)):
            due = began + number / plan.per_second
            wait = due - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(self._pay(number, began, due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        while tasks:
            await asyncio.wait(tasks)

    async def _pay(self, number: int, began: float, due: float) -> None:
        again, problem, retry_after = False, None, False
        status: int | str = "unknown"
        request = self._request(number)
        try:
            async with asyncio.timeout(GIVE_UP_S):
                while True:
                    reused, connection = await self._connection(fresh=again)
                    try:
                        answer, code = await self._exchange(connection, request)
                    except (_ClosedUnasked, ConnectionError):
                        connection[1].close()
                        # An idle connection may be closed at any moment (RFC 9112, 9.5): pooled clients ask again.
                        if reused and not again:
                            again = True
                            continue
                        raise
                    break
            status = code
            retry_after = answer.retry_after
            if code >= 400:
                problem = str(json.loads(answer.body)["type"]).rpartition(":")[2]
        except TimeoutError:
            status = "timeout"
        except (_ClosedUnasked, OSError, ValueError, httptools.HttpParserError) as error:
            status = type(error).__name__.lstrip("_")
        self.told.append(Told(due - began, time.perf_counter() - due, status, problem, again, retry_after))

    async def _connection(self, *, fresh: bool) -> tuple[bool, Connection]:
        while self.idle and not fresh:
            connection = self.idle.pop()
            if not connection[0].at_eof():
                return True, connection
            connection[1].close()
        return False, await asyncio.open_connection(self.plan.host, self.plan.port)

    async def _exchange(self, connection: Connection, request: bytes) -> tuple[_Answer, int]:
        reader, writer = connection
        answer = _Answer()
        parser = httptools.HttpResponseParser(answer)
        writer.write(request)
        heard = False
        while not answer.done:
            part = await reader.read(65536)
            if not part:
                if not heard:
                    raise _ClosedUnasked
                raise ConnectionError
            heard = True
            parser.feed_data(part)
        if answer.close:
            writer.close()
        else:
            self.idle.append(connection)
        return answer, int(parser.get_status_code())

    def _request(self, number: int) -> bytes:
        name = f"{self.plan.prefix}-{number}"
        order: dict[str, Any] = {
            "reference": name,
            "amount": 1000 + number % 1000,
            "currency": "EUR",
            "payment_method": {
                "type": "card",
                "tokens": {"stripe": "pm_card_visa", "adyen": "8415718415172204"},
                "card": {"brand": "visa", "country": "DE", "funding": "credit"},
            },
            "customer": {"id": "cus_1", "country": "DE"},
            "return_url": "https://shop.example/return",
        }
        body = json.dumps(order).encode()
        head = (
            f"POST /v1/payments HTTP/1.1\r\nHost: {self.plan.host}\r\nAuthorization: Bearer {self.plan.key}\r\n"
            f"Idempotency-Key: {name}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


def summary(told: list[Told]) -> dict[str, Any]:
    """Counts by answer, and the latencies of what was paid and of what was refused, milliseconds."""
    paid = [each.took for each in told if each.status in (201, 202)]
    refused = [each for each in told if each.status in (429, 503)]
    return {
        "asked": len(told),
        "answers": dict(Counter(f"{each.status}{' ' + each.problem if each.problem else ''}" for each in told)),
        "paid_ms": quantiles(paid),
        "refused_ms": quantiles([each.took for each in refused]),
        "refused_without_retry_after": sum(not each.hasty for each in refused),
        "sent_again": sum(each.again for each in told),
    }


def quantiles(seconds: list[float]) -> dict[str, float] | None:
    """p50, p99 and the longest in milliseconds; None of nothing."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    last = len(ordered) - 1
    shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {name: round(ordered[int(share * last)] * 1000, 1) for name, share in shares.items()}


if __name__ == "__main__":
    customers = Customers(Plan(**json.load(sys.stdin)))
    asyncio.run(customers.come())
    json.dump([asdict(each) for each in customers.told], sys.stdout)
