"""A house under load: its customers in a process of their own, what it takes, and whether the books agree."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from tests.e2e.house import House, eventually
from tests.e2e.reckoning import Books, Ledger
from tests.load.customers import Plan, Told

KEY = "the-key-of-this-test"


@dataclass(frozen=True, slots=True)
class Reckoned:
    """The ledger beside the providers' own books."""

    payments: int
    captured: int
    unsettled: list[str]
    wrong: list[str]
    """References of payments with another number of captured charges than their status says."""


class Town:
    """One house, and those who come to it."""

    def __init__(self, folder: Path, *, ledger_url: str | None = None, **settings: str) -> None:
        if ledger_url is not None:
            settings["ROUTER_DATABASE_URL"] = ledger_url
        self.house = House(folder, **settings)
        self.ledger_url = ledger_url or f"sqlite:///{self.house.run_dir / 'ledger.db'}"
        self._number = 0

    def customers(self, per_second: float, seconds: float) -> list[Told]:
        """So many come, in a process of their own; answers when the last has been told."""
        process = self.send(per_second, seconds)
        output, _ = process.communicate()
        return read(output)

    def send(self, per_second: float, seconds: float, key: str = KEY) -> subprocess.Popen[str]:
        """The same, while something else goes on; `read` its output."""
        self._number += 1
        where = urlsplit(self.house.url)
        prefix = f"load-{self._number}-{time.time_ns()}"
        plan = Plan(
            str(where.hostname),
            int(where.port or 0),
            KEY,
            per_second,
            seconds,
            prefix,
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.load.customers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(asdict(plan)))
        process.stdin.close()
        process.stdin = None
        return process

    def capacity(self, at_once: int = 16, seconds: float = 6.0) -> float:
        """Payments a second that so many customers get who each wait for the answer; after a warm-up."""
        done, stop = [0] * at_once, threading.Event()

        def shop(which: int) -> None:
            while not stop.is_set():
                assert self.house.pay()[0] in (201, 202, 503)
                done[which] += 1

        threads = [threading.Thread(target=shop, args=(which,)) for which in range(at_once)]
        for thread in threads:
            thread.start()
        time.sleep(seconds / 3)
        before, began = sum(done), time.monotonic()
        time.sleep(seconds)
        rate = (sum(done) - before) / (time.monotonic() - began)
        stop.set()
        for thread in threads:
            thread.join()
        return rate

    def both(self, mode: str, **more: Any) -> None:
        """So is every provider, from now on."""
        for provider in ("stripe", "adyen"):
            self.house.control("PUT", f"/{provider}", {"mode": mode, **more})

    def fill(self, at_once: int = 120, seconds: float = 8.0) -> None:
        """As many at once as there is room for, each for a while: what settings bound comes to its bound.

        The server's threads, the pools' connections and the worker's places for parked payments come when they are
        needed for the first time; what grows afterwards grows for another reason.
        """
        self.both("slow", latency_ms=300)
        self.capacity(at_once, seconds)
        self.both("down")
        self.capacity(8, 3.0)
        self.both("ok")
        eventually(lambda: not Ledger.read(self.ledger_url).unsettled(), 120)
        time.sleep(seconds)

    def takes(self) -> Mapping[str, Mapping[str, int]]:
        """What web and worker take now, all their processes together: bytes of memory, threads, descriptors."""
        found = {}
        for role in ("web", "worker"):
            processes = [psutil.Process(pid) for pid in self.house.pids()[role]]
            found[role] = {
                "rss": sum(each.memory_info().rss for each in processes),
                "threads": sum(each.num_threads() for each in processes),
                "descriptors": sum(each.num_fds() for each in processes),
                "connections": sum(len(each.net_connections("all")) for each in processes),
            }
        return found

    def reckon(self, within_s: float = 60.0) -> Reckoned:
        """The ledger beside the books, once nothing is under way any more."""
        eventually(lambda: not Ledger.read(self.ledger_url).unsettled(), within_s)
        ledger, books = Ledger.read(self.ledger_url), Books.read(self.house)
        wrong = []
        for payment in ledger.payments:
            charged = [
                each for each in books.charges.get(str(payment["reference"]), []) if each["status"] == "captured"
            ]
            if len(charged) != (payment["status"] == "captured"):
                wrong.append(str(payment["reference"]))
        known = {str(each["reference"]) for each in ledger.payments}
        wrong += [each for each in books.charges if each not in known]
        captured = sum(each["status"] == "captured" for each in ledger.payments)
        return Reckoned(len(ledger.payments), captured, ledger.unsettled(), wrong)


def read(output: str) -> list[Told]:
    """What the customers were told."""
    return [Told(**each) for each in json.loads(output)]


@contextmanager
def town(folder: Path, *, ledger_url: str | None = None, **settings: str) -> Iterator[Town]:
    """A house that is gone afterwards."""
    found = Town(folder, ledger_url=ledger_url, **settings)
    try:
        yield found
    finally:
        found.house.stop()
