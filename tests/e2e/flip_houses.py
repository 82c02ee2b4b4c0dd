"""What tests of flips on real processes stand on: two web processes, two workers, their flags, their customers."""

from __future__ import annotations

import contextlib
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flags.definitions import definitions
from flags.document import new_document
from router.settings import PROVIDER_NAMES
from tests.e2e.house import House, eventually
from tests.e2e.lines import line_to_each
from tests.e2e.reckoning import Books, Ledger, disagreements
from tests.fakes.launchdarkly import FakeLaunchDarkly

FLIP_AFTER_S = 1.0
PACE_S = 0.03
PROCESSES = 4
"""Two web processes and two workers, each with a stream of its own."""
SETTLED_S = 60.0
"""From a provider's return: its circuit's wait, its probes, and the resolver."""


@contextlib.contextmanager
def house_on_launchdarkly(folder: Path, ld: FakeLaunchDarkly, **settings: str) -> Iterator[House]:
    """Their flags in the stand-in."""
    at = dict.fromkeys(("BASE_URI", "STREAM_URI", "EVENTS_URI", "API_URI"), ld.uri)
    at |= {"SDK_KEY": "sdk-key-of-this-test", "API_TOKEN": ld.token, "PROJECT": ld.project}
    at |= {"ENVIRONMENT": ld.environment}
    with flip_house(
        folder, **{f"ROUTER_LAUNCHDARKLY_{name}": value for name, value in at.items()}, **settings
    ) as house:
        yield house


@contextlib.contextmanager
def flip_house(folder: Path, **settings: str) -> Iterator[House]:
    """Two web processes and two workers; with no more settings their flags are in a file."""
    folder.mkdir(parents=True, exist_ok=True)
    usual = {
        "ROUTER_WEB_PROCESSES": "2",
        "ROUTER_FLIP_AFTER_SECONDS": str(FLIP_AFTER_S),
        "ROUTER_BREAKER_MINIMUM_CALLS": "4",
    }
    house = House(folder, **(usual | settings))
    with (folder / "second.log").open("w") as log:
        second = subprocess.Popen(
            [sys.executable, "-m", "router", "worker"], env=house.env, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield house
    finally:
        second.terminate()
        house.stop()
        with contextlib.suppress(subprocess.TimeoutExpired):
            second.wait(10)
        second.kill()


def all_flags() -> dict[str, dict[str, Any]]:
    """Every flag at its default, as a new project has them."""
    flags: dict[str, dict[str, Any]] = new_document(definitions(PROVIDER_NAMES).values())["flags"]
    return flags


@dataclass
class Shop:
    """Customers who order all the time; what they were answered: the status and the payment."""

    answers: list[tuple[int, dict[str, Any]]] = field(default_factory=list)

    def sells(self, count: int, within_s: float = 20) -> None:
        """Wait for so many more answers."""
        ended = len(self.answers)
        eventually(lambda: len(self.answers) >= ended + count, within_s)


@contextlib.contextmanager
def shopping(house: House) -> Iterator[Shop]:
    """A customer of each web process, until the end; then every one of them has been answered."""
    shop = Shop()
    stop = threading.Event()

    def order(line: House) -> None:
        while not stop.wait(PACE_S):
            shop.answers.append(line.pay())

    lines = line_to_each(house).values()
    customers = [threading.Thread(target=order, args=(line,), daemon=True) for line in lines]
    for each in customers:
        each.start()
    try:
        yield shop
    finally:
        stop.set()
        for each in customers:
            each.join(30)


def rows(house: House, query: str, *values: Any) -> list[sqlite3.Row]:
    """From the house's ledger, beside it."""
    with contextlib.closing(sqlite3.connect(house.run_dir / "ledger.db", timeout=10)) as ledger:
        ledger.row_factory = sqlite3.Row
        return ledger.execute(query, values).fetchall()


def in_force(house: House) -> bool:
    """Whether an override is."""
    return bool(rows(house, "SELECT 1 FROM primary_overrides WHERE ended_at IS NULL"))


def holds(check: Callable[[], object], within_s: float) -> bool:
    """Whether it does in time: a report says so, where a test would fail."""
    with contextlib.suppress(AssertionError):
        eventually(check, within_s)
        return True
    return False


def settled(house: House, shop: Shop) -> tuple[int, list[str]]:
    """Once nobody orders any more: payments in doubt, and what ledger, books and answers disagree in.

    A request that was with the provider when it broke may have been a charge: its payment is held, and is nobody
    else's, until the provider is back to say so (design §3.2). So it is brought back, where there is such a payment.
    """
    url = f"sqlite:///{house.run_dir / 'ledger.db'}"
    in_doubt = _unsettled(house)
    if in_doubt:
        for provider in PROVIDER_NAMES:
            house.control("PUT", f"/{provider}", {"mode": "ok"})
        holds(lambda: not _unsettled(house), SETTLED_S)
    ledger = Ledger.read(url)
    wrong = [f"{line}, not final" for line in ledger.unsettled()]
    wrong += disagreements(ledger, Books.read(house), [])
    lost = {answer.get("id") for _, answer in shop.answers} - {row["id"] for row in ledger.payments}
    return in_doubt, wrong + [f"{each}: checkout was told of it, and the ledger has none" for each in lost]


def _unsettled(house: House) -> int:
    query = "SELECT 1 FROM payments WHERE status IN ('processing', 'parked') OR resolve_at OR lease_until"
    return len(rows(house, query))


def spread(name: str, values: Sequence[float]) -> str:
    """A line of a table, in seconds."""
    if not values:
        return f"{name:<34}none"
    return f"{name:<34}median {statistics.median(values):6.3f} s   maximum {max(values):6.3f} s   of {len(values)}"


def wall(monotonic: float) -> float:
    """That moment on the wall clock, which the ledger goes by."""
    return time.time() - (time.monotonic() - monotonic)
