"""The disk is full, under a router with its ledger in SQLite, and with its logs and process ids on the same disk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import pytest
import urllib3

from router.processes import is_alive
from tests.e2e.disk import Disk, fillable
from tests.e2e.house import House, eventually
from tests.e2e.reckoning import Books, Ledger, charged_once, reckon
from tests.e2e.shoppers import Answer, Shoppers, Shopping, plain, turns

pytestmark = pytest.mark.processes

REFUSALS = 60
"""Each is a line in the log: the log too comes to the end of the disk, within its first few dozen lines."""
FINAL_WITHIN_S = 60.0
"""Nobody's help, however busy the machine; it takes a few seconds."""


@dataclass
class Town:
    """A router on a disk of its own."""

    disk: Disk
    house: House

    @property
    def url(self) -> str:
        """Of its ledger."""
        return f"sqlite:///{self.house.run_dir / 'ledger.db'}"

    def ask(self, wanted: list[Shopping], *, connections: int = 8) -> Shoppers:
        """Clients that have begun to ask for these."""
        key = self.house.env["ROUTER_API_KEY"]
        shoppers = Shoppers(self.house.url, key, turns(wanted), connections=connections, read_s=30)
        shoppers.start()
        return shoppers

    def asked(self) -> int:
        """How many requests the primary has had."""
        return int(self.house.control("GET", "/stripe")["requests"])

    def pay(self, shopping: Shopping) -> Answer:
        """One request for it, whatever comes of it."""
        status, body = self.house.call("POST", "/v1/payments", shopping.body, **{"Idempotency-Key": shopping.key})
        shopping.answers.append(Answer("pay", status, body))
        return shopping.answers[-1]

    def processes(self, role: str) -> list[psutil.Process]:
        """Who works for that role, as the system has it: no list of them can be written."""
        found = []
        for main in psutil.Process(self.house.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if main.cmdline()[-1:] == [role]:
                    found += main.children() if role == "web" else [main]
        return [each for each in found if is_alive(each)]


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Web and worker, whose leases are short."""
    with fillable(tmp_path_factory.mktemp("disk")) as disk:
        house = House(
            disk.folder,
            ROUTER_DEADLINE_SECONDS="5",
            ROUTER_LEASE_MARGIN_SECONDS="1",
            ROUTER_BREAKER_MINIMUM_CALLS="1000",
            ROUTER_PARKED_RETRY_SECONDS="0.5",
        )
        try:
            yield Town(disk, house)
        finally:
            house.stop()


def test_new_payments_are_refused_while_the_disk_is_full(town: Town) -> None:
    """503 and nothing charged, also when the log cannot be written; afterwards the same requests are paid."""
    wanted = plain(REFUSALS)
    before, pids = town.asked(), town.house.pids()
    town.disk.fill(town.house)
    try:
        answers = [town.pay(each) for each in wanted]
        assert {(each.status, each.problem) for each in answers} == {(503, "ledger-unavailable")}
        assert town.asked() == before, "a provider has heard of it"
        assert town.house.call("GET", "/healthz") == (200, {"status": "ok"})
        eventually(lambda: town.house.call("GET", "/readyz")[0] == 503, 10)
    finally:
        town.disk.free(town.house)
    shoppers = town.ask(wanted)
    shoppers.join(60)
    assert {(each.answers[-1].status, each.answers[-1].body["status"]) for each in wanted} == {(201, "captured")}
    eventually(lambda: town.house.call("GET", "/readyz")[0] == 200, 10)
    assert town.house.pids() == pids, "a full disk must not need a restart"
    ledger = reckon(town.house, town.url, wanted, within_s=FINAL_WITHIN_S)
    charged_once(wanted, ledger, Books.read(town.house))


def test_who_dies_on_a_full_disk_is_started_again_on_it(town: Town) -> None:
    """The supervisor starts them though it cannot write whom; payments are refused until there is room."""
    wanted, roles = plain(4), ("web", "worker")
    before = {role: town.processes(role) for role in roles}
    town.disk.fill(town.house)
    try:
        kill([*before["web"], *before["worker"]])
        eventually(lambda: all(replaced(before[role], town.processes(role)) for role in roles), 30)
        eventually(lambda: _answers(town), 30)
        answer = town.pay(wanted[0])
        assert (answer.status, answer.problem) == (503, "ledger-unavailable")
    finally:
        town.disk.free(town.house)
    town.ask(wanted).join(60)
    for role in roles:
        living = {each.pid for each in town.processes(role)}
        eventually(lambda living=living, role=role: living <= set(town.house.pids()[role]), 10)  # type: ignore[misc]
    ledger = reckon(town.house, town.url, wanted, within_s=FINAL_WITHIN_S)
    charged_once(wanted, ledger, Books.read(town.house))


def kill(processes: list[psutil.Process]) -> None:
    """SIGKILL."""
    for process in processes:
        process.kill()


def _answers(town: Town) -> bool:
    with contextlib.suppress(urllib3.exceptions.HTTPError):
        return town.house.call("GET", "/healthz")[0] == 200
    return False


def replaced(before: list[psutil.Process], now: list[psutil.Process]) -> bool:
    """Whether there are as many others."""
    return len(now) == len(before) and not set(now) & set(before)


def test_answers_that_could_not_be_written_are_found_out_when_there_is_room(town: Town) -> None:
    """The disk fills while the provider works for web and worker: `processing`, and each ends charged once."""
    house = town.house
    for provider in ("stripe", "adyen"):
        house.control("PUT", f"/{provider}", {"mode": "down"})
        house.control("PUT", f"/{provider}/webhooks", {"mode": "hold"})  # or they would tell before anybody asks
    pids = house.pids()
    parked, wanted = plain(2), plain(4)
    assert {town.pay(each).body["status"] for each in parked} == {"parked"}

    before = town.asked()
    house.control("PUT", "/stripe", {"mode": "slow", "latency_ms": 1500})
    eventually(lambda: town.asked() > before, 30)  # the worker tries the first of the parked
    shoppers = town.ask(wanted)
    eventually(lambda: town.asked() >= before + 1 + len(wanted), 30)
    town.disk.fill(house)
    try:
        shoppers.join(60)
        # On a very slow machine the first are answered before the last one's disk is full.
        in_doubt = {each.reference for each in wanted if each.answers[0].body["status"] == "processing"}
        assert in_doubt
        asked = town.asked()
        house.control("PUT", "/stripe", {"mode": "ok"})
        assert unfinished(town) >= in_doubt
    finally:
        town.disk.free(house)

    eventually(lambda: not Ledger.read(town.url).unsettled(), FINAL_WITHIN_S)
    assert town.asked() > asked, "the worker has asked the provider"
    for provider in ("stripe", "adyen"):
        house.control("PUT", f"/{provider}/webhooks", {"mode": "ok"})
    ledger = reckon(house, town.url, [*parked, *wanted], within_s=FINAL_WITHIN_S)
    charged_once([*parked, *wanted], ledger, Books.read(house))
    assert house.pids() == pids, "a full disk must not need a restart"


def unfinished(town: Town) -> set[str]:
    """References of the payments that the ledger has, and not their end; read from the full disk."""
    with_end = ("captured", "declined", "canceled", "failed")
    return {row["reference"] for row in Ledger.read(town.url).payments if row["status"] not in with_end}
