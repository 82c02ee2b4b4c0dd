"""Both providers down, payments parked, providers back: what the drain does, on real processes.

`make parked` runs it at length, on SQLite and on PostgreSQL; the suite has a short version.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from providers.contract import ChargeRequest, Money, Timeouts
from router.app.core import build_providers
from router.ledger.engine import Database
from router.ledger.tables import payments
from router.parked_ramp import BURST_S, FLOOR_PER_S, STAGE_S
from router.settings import Settings
from tests.e2e.house import House, eventually
from tests.e2e.reckoning import Books, Ledger, disagreements

PROVIDERS = ("stripe", "adyen")
LATENCY_MS = 75
"""Of every call to a provider that is back."""
LOOK_S = 0.2
RAW_CALLS, RAW_AT_ONCE = 400, 32
IN_FLIGHT_S = 0.5
"""From a claim to the charge in the books: so much later may a second's calls arrive than they were given out."""
MOST_PER_S = 200.0
"""ROUTER_PARKED_PER_SECOND."""
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Drill:
    """How much of everything."""

    payments: int
    workers: int = 1
    kills: int = 0
    within_s: float = 60.0
    measures_sandbox: bool = False


@dataclass
class Report:
    """What happened, and what is wrong with it."""

    database: str
    drill: Drill
    answers: Counter[str] = field(default_factory=Counter)
    parked_s: float = 0.0
    drained_s: float | None = None
    """From the providers' return to the last capture."""
    per_second: Sequence[int] = ()
    """Charges that both providers took, second by second from the first one's; with no fault, their calls."""
    calls: int = 0
    killed: int = 0
    raw_per_s: float | None = None
    wrong: list[str] = field(default_factory=list)

    @property
    def drain_s(self) -> float:
        """From the first charge to the last, in whole seconds."""
        return max(1.0, float(len(self.per_second)))

    def lines(self) -> Iterator[str]:
        """The table."""
        drill = self.drill
        what = f"{drill.payments} payments, {drill.workers} workers, {self.killed} of {drill.kills} kills"
        yield f"{self.database:<12}{what}"
        yield f"  answers             {dict(self.answers)} in {self.parked_s:.1f} s"
        yield f"  all captured after  {'NOT IN TIME' if self.drained_s is None else f'{self.drained_s:.1f} s'}"
        yield f"  calls per second    {' '.join(map(str, self.per_second))}"
        yield f"  the ramp allows     {' '.join(str(round(most_in(each))) for each in range(len(self.per_second)))}"
        tail = sorted(self.per_second)[-5:]
        mean = sum(self.per_second) / self.drain_s
        best = sum(tail) / max(1, len(tail))
        yield f"  drain, payments/s   {mean:.0f} on average, {best:.0f} in its best five seconds"
        yield f"  authorizations      {self.calls} for {drill.payments} payments"
        if self.raw_per_s is not None:
            yield f"  the sandbox allows  {self.raw_per_s:.0f} calls/s, {RAW_AT_ONCE} at once, with no router"
        yield from (f"  WRONG {line}" for line in self.wrong)


def most_in(second: int) -> float:
    """As many calls as the ramp allows in that second after the first one, if every call succeeds."""
    # Of a step that falls into the second, or is given out late in the one before, the greater rate.
    rate = min(MOST_PER_S, FLOOR_PER_S * 2.0 ** int((second + 1) / STAGE_S))
    return rate * (1 + BURST_S + IN_FLIGHT_S)


def run_parked(folder: Path, database_url: str | None, drill: Drill, *, seed: int = 7) -> Report:
    """One run."""
    settings = {
        "ROUTER_WEB_PROCESSES": "1",
        "ROUTER_DEADLINE_SECONDS": "4",
        "ROUTER_LEASE_MARGIN_SECONDS": "1",
        "ROUTER_BREAKER_OPEN_WAIT_SECONDS": "1",
        "ROUTER_FLIP_AFTER_SECONDS": "3600",
    }
    if database_url is not None:
        settings["ROUTER_DATABASE_URL"] = database_url
    house = House(folder, **settings)
    url = database_url or f"sqlite:///{house.run_dir / 'ledger.db'}"
    report = Report(url.partition(":")[0].partition("+")[0], drill)
    try:
        with _workers(house, folder, drill.workers - 1) as others:
            _run(house, url, drill, report, others, random.Random(seed))
    finally:
        house.stop()
    return report


def _run(house: House, url: str, drill: Drill, report: Report, others: _Others, rng: random.Random) -> None:
    if drill.measures_sandbox:
        report.raw_per_s = sandbox_allows(house)
        house.control("DELETE", "")
    for provider in PROVIDERS:
        house.control("PUT", f"/{provider}", {"mode": "down"})
    begun = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        for status, answer in pool.map(lambda _: house.pay(), range(drill.payments)):
            report.answers[f"{status} {answer.get('status') or answer.get('type')}"] += 1
    report.parked_s = time.monotonic() - begun
    if report.answers != {"202 parked": drill.payments}:
        report.wrong.append(f"not every payment was parked: {dict(report.answers)}")
    depth = house.call("GET", "/readyz")[1]["parked"]["depth"]
    if depth != drill.payments:
        report.wrong.append(f"/readyz tells of {depth} parked")
    status = house.call("GET", "/v1/status")[1]["status"]
    if status != "parking":
        report.wrong.append(f"the status page says {status}")
    begun = time.monotonic()
    for provider in PROVIDERS:
        house.control("PUT", f"/{provider}", {"mode": "slow", "latency_ms": LATENCY_MS})
    killing = threading.Thread(target=_kill, args=(house, url, drill, report, others, rng), daemon=True)
    killing.start()
    with contextlib.suppress(AssertionError):
        eventually(lambda: _captured(url) == drill.payments, drill.within_s)
        report.drained_s = time.monotonic() - begun
    killing.join(30)
    _reckon(house, url, drill, report)


def _reckon(house: House, url: str, drill: Drill, report: Report) -> None:
    with contextlib.suppress(AssertionError):
        eventually(lambda: not Ledger.read(url).unsettled(), 20)
    ledger, books = Ledger.read(url), Books.read(house)
    if report.drained_s is None:
        report.wrong.append(f"after {drill.within_s:.0f} s {_captured(url)} of {drill.payments} are captured")
    report.wrong += [f"not final: {line}" for line in ledger.unsettled()[:5]]
    report.wrong += disagreements(ledger, books, [])[:5]
    charges = [each for rows in books.charges.values() for each in rows]
    if len(charges) != drill.payments:
        report.wrong.append(f"{len(charges)} charges in the books")
    report.calls = len(charges)
    report.per_second = _seconds(charges)
    for second, calls in enumerate(report.per_second):
        if calls > most_in(second):
            report.wrong.append(f"{calls} calls in second {second}, and the ramp allows {most_in(second):.0f}")


def _seconds(charges: Sequence[Any]) -> list[int]:
    at = sorted(dt.datetime.fromisoformat(each["created_at"]).timestamp() for each in charges)
    if not at:
        return []
    counted = Counter(int(each - at[0]) for each in at)
    return [counted[second] for second in range(max(counted) + 1)]


def _captured(url: str) -> int:
    database = Database(url, pool_size=1)
    try:
        with database.read() as connection:
            query = sa.select(sa.func.count()).where(payments.c.status == "captured")
            return int(connection.scalar(query) or 0)
    finally:
        database.close()
        time.sleep(LOOK_S)


# ---------------------------------------------------------------- the workers


@dataclass
class _Others:
    """Workers beside the house's own."""

    house: House
    log: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        ports = {name: self.house.env[f"ROUTER_SANDBOX_{name.upper()}_PORT"] for name in PROVIDERS}
        urls = {f"ROUTER_{name.upper()}_BASE_URL": f"http://127.0.0.1:{port}" for name, port in ports.items()}
        with self.log.open("a") as log:
            self.running.append(
                subprocess.Popen(
                    [sys.executable, "-m", "router", "worker"],
                    env=self.house.env | urls,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )

    def kill(self, number: int) -> None:
        worker = self.running.pop(number)
        worker.kill()
        worker.wait()


@contextlib.contextmanager
def _workers(house: House, folder: Path, count: int) -> Iterator[_Others]:
    others = _Others(house, folder / "other-workers.log")
    try:
        for _ in range(count):
            others.start()
        yield others
    finally:
        while others.running:
            others.kill(0)


def _kill(house: House, url: str, drill: Drill, report: Report, others: _Others, rng: random.Random) -> None:
    """SIGKILL a worker whenever one more part of the payments is captured; it is started again."""
    for number in range(drill.kills):
        share = (number + 0.5) / (drill.kills + 1)
        with contextlib.suppress(AssertionError):
            eventually(lambda share=share: _captured(url) >= share * drill.payments, drill.within_s)  # type: ignore[misc]
        if others.running and rng.random() < 0.5:
            others.kill(0)
            others.start()
        else:
            pids = eventually(lambda: house.pids()["worker"], 5)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pids[0], signal.SIGKILL)
        report.killed += 1


# ---------------------------------------------------------------- beside it


def sandbox_allows(house: House) -> float:
    """Authorizations a second that the stand-in Stripe answers, with nothing between the adapter and it."""
    house.control("PUT", "/stripe", {"mode": "slow", "latency_ms": LATENCY_MS})
    port = house.env["ROUTER_SANDBOX_STRIPE_PORT"]
    stripe = build_providers(
        Settings(run_dir=house.run_dir, stripe_base_url=f"http://127.0.0.1:{port}", web_threads=RAW_AT_ONCE)
    )["stripe"]

    def charge(number: int) -> None:
        attempt = f"att_raw_{next(_numbers)}_{number}"
        request = ChargeRequest(
            attempt_id=attempt,
            payment_id=attempt,
            reference=attempt,
            money=Money(1999, "EUR"),
            capture="automatic",
            method="card",
            token="pm_card_visa",
            return_url="https://shop.example/return",
        )
        stripe.authorize(stripe.render(request), idempotency_key=attempt, timeouts=Timeouts(1.0, 5.0))

    with ThreadPoolExecutor(RAW_AT_ONCE) as pool:
        begun = time.monotonic()
        list(pool.map(charge, range(RAW_CALLS)))
        took_s = time.monotonic() - begun
    stripe.close()
    return RAW_CALLS / took_s
