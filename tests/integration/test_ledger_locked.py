"""Another process holds SQLite's file for long, as a backup may: payments are refused, and nothing is forgotten."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from providers.sandbox.server import Sandbox
from router.app.loops import create_worker
from router.ledger import engine, journal
from router.resolver import Resolver
from tests.e2e.house import eventually
from tests.integration.shop import Shop, Spy, open_shop, order

BUSY_MS, PATIENCE_S = 40, 0.3
"""How long SQLite waits for a lock here, and a commit after the first goes on: instead of seconds."""
REFUSALS = 24
HOLD = """
import sqlite3, sys
ledger = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
ledger.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def locked(ledger: Path) -> Iterator[None]:
    """Another process has the file for itself."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(ledger)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield


@pytest.fixture
def spies() -> list[Spy]:
    """Holds the one before Stripe, once there is a shop."""
    return []


@pytest.fixture
def shop(sandbox: Sandbox, tmp_path: Path, spies: list[Spy], monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """A router with its worker, whose leases are over soon."""
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_MS", BUSY_MS)
    monkeypatch.setattr(journal, "COMMIT_PATIENCE_S", PATIENCE_S)
    settings: dict[str, Any] = {"deadline_seconds": 2, "lease_margin_seconds": 0.1, "web_threads": REFUSALS}
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    with open_shop(url, sandbox, tmp_path, spies={"stripe": spies}, **settings) as shop:
        worker = create_worker(shop.core)
        worker.start()
        try:
            yield shop
        finally:
            assert worker.stop(10), "a loop hangs"


def test_a_long_backup_delays_payments_and_loses_none(
    shop: Shop, spies: list[Spy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New ones get 503 and are not charged, one under way is `processing`; the worker ends it after the backup."""
    rounds: list[object] = []
    resolve = Resolver.resolve

    def counted(resolver: Resolver, payment_id: str) -> bool:
        rounds.append(payment_id)
        return resolve(resolver, payment_id)

    monkeypatch.setattr(Resolver, "resolve", counted)
    under_way = order()
    waiting = [order() for _ in range(REFUSALS)]
    with contextlib.ExitStack() as backup:
        spies[0].after.append(lambda *_: backup.enter_context(locked(tmp_path / "ledger.db")))
        answer = shop.pay(under_way, key="under-way")
        spies[0].after.clear()
        assert (answer.status_code, (answer.json or {})["status"]) == (202, "processing")
        asked = shop.control("GET", "/control/stripe")["requests"]

        with ThreadPoolExecutor(REFUSALS) as pool:
            numbers = range(len(waiting))
            refusals = list(pool.map(lambda number: shop.pay(waiting[number], key=f"waiting-{number}"), numbers))
        assert {each.status_code for each in refusals} == {503}
        assert all((each.json or {})["type"].endswith(":ledger-unavailable") for each in refusals)
        assert all(int(each.headers["Retry-After"]) >= 1 for each in refusals)
        assert shop.read((answer.json or {})["id"])["status"] == "processing", "what is there can be read"
        # The backup takes longer than the lease: the worker has tried to take the payment over, in vain.
        eventually(lambda: len(rounds) >= 2, 30)
        assert shop.control("GET", "/control/stripe")["requests"] == asked, "nobody is asked who cannot be written"

    eventually(lambda: shop.read((answer.json or {})["id"])["status"] == "captured", 30)
    for number, body in enumerate(waiting):
        assert shop.pay(body, key=f"waiting-{number}").status_code == 201
    for body in (under_way, *waiting):
        assert shop.charged(body["reference"]) == [("stripe", "captured", 1999)]
    (attempt,) = shop.rows(
        "SELECT sends FROM attempts JOIN payments p ON p.attempt_id = attempts.id WHERE p.id = :id",
        id=(answer.json or {})["id"],
    )
    assert attempt["sends"] >= 2
