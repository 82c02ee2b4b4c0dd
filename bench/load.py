"""A light load generator, for machines without `wrk`: one process, one thread, keep-alive connections.

    python bench/load.py <JSON of a `Load`>

Closed loop: so many connections, each sends the next request when it has the answer. Open loop (`per_second`):
requests leave when they are due, whatever became of those before, and a latency counts from when it was due. Prints
one JSON object. Costs some 20 µs of processor time a request, beside whichever server it drives.
"""

from __future__ import annotations

import dataclasses
import json
import re
import selectors
import socket
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Load:
    """What to send, and how fast."""

    port: int
    path: str
    seconds: float
    body: str
    """`@@` in it is replaced by the request's number."""
    authorization: str = ""
    connections: int = 8
    per_second: float | None = None
    """Open loop; None: closed."""
    first: int = 0
    """Number of the first request: references and idempotency keys are made from it."""
    keep: bool = False
    """Whether each latency is answered, beside the quantiles."""


class _Line:
    """One connection; at most one request is under way on it."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.since = 0.0
        self.got = b""

    def send(self, data: bytes, since: float) -> None:
        self.since = since
        self.socket.sendall(data)

    def answered(self) -> bytes | None:
        """The whole answer, once it is here."""
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("the server closed a connection")
        got = self.got = self.got + data if self.got else data
        end = got.find(b"\r\n\r\n")
        length = _LENGTH.search(got, 0, end) if end >= 0 else None
        if length is None or len(got) < end + 4 + int(length[1]):
            return None
        self.got = b""
        return got


def run(load: Load) -> dict[str, Any]:
    """Send it. Latencies in milliseconds; `ends_at` is the number after the last request's."""
    head = (
        f"POST {load.path} HTTP/1.1\r\nHost: 127.0.0.1:{load.port}\r\nContent-Type: application/json\r\n"
        f"{f'Authorization: Bearer {load.authorization}' if load.authorization else 'X-Nobody: 1'}\r\n"
    )
    number = load.first

    def request() -> bytes:
        nonlocal number
        number += 1
        body = load.body.replace("@@", str(number))
        return f"{head}Idempotency-Key: bench-{number}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()

    selector = selectors.DefaultSelector()
    free: deque[_Line] = deque()

    def line() -> _Line:
        made = _Line(load.port)
        selector.register(made.socket, selectors.EVENT_READ, made)
        return made

    statuses: Counter[str] = Counter()
    taken: list[float] = []
    refused = ""
    free.extend(line() for _ in range(load.connections))
    begun = now = time.perf_counter()
    until, sent, under_way = begun + load.seconds, 0, 0
    gap = None if load.per_second is None else 1 / load.per_second
    while now < until or under_way:
        if gap is None:
            while free and now < until:
                free.pop().send(request(), now)
                under_way += 1
        else:
            while begun + sent * gap <= now < until:
                (free.popleft() if free else line()).send(request(), begun + sent * gap)
                sent, under_way = sent + 1, under_way + 1
        wait = None if gap is None else max(0.0, min(begun + sent * gap, until) - now)
        for key, _ in selector.select(5.0 if wait is None or now >= until else wait):
            each: _Line = key.data
            answer = each.answered()
            if answer is None:
                continue
            now = time.perf_counter()
            taken.append((now - each.since) * 1000)
            status = answer[9:12].decode()
            statuses[status] += 1
            if not status.startswith("2"):
                refused = answer.decode(errors="replace")
            under_way -= 1
            if gap is None and now < until:
                each.send(request(), now)
                under_way += 1
            else:
                free.append(each)
        now = time.perf_counter()
    took_s = now - begun
    taken.sort()
    at = {name: taken[min(len(taken) - 1, int(len(taken) * share))] for name, share in QUANTILES.items()}
    told = {"requests": len(taken), "per_second": len(taken) / took_s, "statuses": dict(statuses), **at}
    return told | {"refused": refused[-400:], "ends_at": number} | ({"all": taken} if load.keep else {})


QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}

if __name__ == "__main__":
    json.dump(run(Load(**json.loads(sys.argv[1]))), sys.stdout)


def words(load: Load) -> list[str]:
    """The command that runs it in a process of its own."""
    return [sys.executable, __file__, json.dumps(dataclasses.asdict(load))]
