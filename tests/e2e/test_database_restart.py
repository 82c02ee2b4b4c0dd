"""The database is restarted under a running router: a real PostgreSQL, thrown down while payments are under way."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import urllib3

from tests.e2e.house import House, eventually
from tests.e2e.reckoning import Books, Ledger, charged_once, reckon
from tests.e2e.shoppers import Shoppers, Shopping, plain, shopping_list, turns
from tests.integration.postgres import Server, served

pytestmark = pytest.mark.processes

DEADLINE_S, MARGIN_S = 3.0, 1.0
"""A request's, and what a lease has over it: short, so that what is left behind is soon taken over."""
FINAL_WITHIN_S = 60.0
"""Nobody's help, however busy the machine; it takes a few seconds."""


@dataclass
class Town:
    """A router over a database of its own."""

    server: Server
    url: str
    house: House

    def shoppers(self, wanted: list[Shopping], rng: random.Random | None = None) -> Shoppers:
        """Clients that ask for these, a fifth of them twice where there is a choice."""
        requests = turns(wanted, 0.2, rng)
        return Shoppers(self.house.url, self.house.env["ROUTER_API_KEY"], requests, connections=8, read_s=30)

    def asked(self, provider: str = "stripe") -> int:
        """How many requests the provider has had."""
        return int(self.house.control("GET", f"/{provider}")["requests"])


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Two web processes and a worker, over a server whose commits survive its crash, as in production."""
    with served(synchronous_commit="on") as server:
        url = server.databases.create()
        house = House(
            tmp_path_factory.mktemp("house"),
            ROUTER_DATABASE_URL=url,
            ROUTER_WEB_PROCESSES="2",
            ROUTER_DEADLINE_SECONDS=str(DEADLINE_S),
            ROUTER_LEASE_MARGIN_SECONDS=str(MARGIN_S),
            ROUTER_BREAKER_MINIMUM_CALLS="1000",
            ROUTER_PARKED_RETRY_SECONDS="0.5",
        )
        try:
            yield Town(server, url, house)
        finally:
            house.stop()


@pytest.fixture(autouse=True)
def same_processes(town: Town) -> Iterator[None]:
    """The providers are well at first; web and worker come through with the processes that they had."""
    for provider in ("stripe", "adyen"):
        town.house.control("PUT", f"/{provider}", {"mode": "ok"})
    before = town.house.pids()
    yield
    assert town.house.pids() == before, "a restarted database must not need a restarted router"
    log = town.house.log.read_text()
    assert "round_failed" not in log, "a loop took a missing ledger for a fault of its own"
    assert "] fault " not in log, "a view answered 500"


def told(wanted: list[Shopping]) -> set[tuple[int | None, str | None]]:
    """What the clients were told, in the end."""
    return {(each.answers[-1].status, each.answers[-1].body.get("status")) for each in wanted}


def refused(town: Town) -> Mapping[str, str] | None:
    """The headers of a new payment's refusal, once the ledger is away; the provider never hears of that payment."""
    (shopping,) = plain(1)
    answer = urllib3.request(
        "POST",
        f"{town.house.url}/v1/payments",
        body=json.dumps(shopping.body),
        headers={"Authorization": "Bearer the-key-of-this-test", "Idempotency-Key": shopping.key},
        retries=False,
        timeout=30,
    )
    problem = json.loads(answer.data)
    assert answer.status == 503, problem
    assert problem["type"].endswith(":ledger-unavailable")
    assert int(answer.headers["Retry-After"]) >= 1
    assert Books.read(town.house).charges.get(shopping.reference, []) == []
    return answer.headers


def restart_when(town: Town, how: signal.Signals, happens: Callable[[], Any], back_when: Callable[[], Any]) -> None:
    """Throw the database down as soon as something happens, and start it again as soon as something else does."""
    eventually(happens, 30)
    town.server.stop(how)
    try:
        eventually(back_when, 30)
    finally:
        town.server.start()


def test_payments_go_on_after_two_restarts(town: Town) -> None:
    """Payments, captures, cancels, refunds through an immediate stop and a crash: each charged once, none lost."""
    rng = random.Random(20261121)
    wanted = shopping_list(60, rng)
    shoppers = town.shoppers(wanted, rng)

    def refusals() -> int:
        return sum(each.problem == "ledger-unavailable" for shopping in wanted for each in shopping.answers)

    shoppers.start()
    for how, share in ((signal.SIGQUIT, 0.2), (signal.SIGKILL, 0.6)):
        before = refusals()
        restart_when(
            town,
            how,
            lambda share=share: shoppers.done >= share * len(wanted),  # type: ignore[misc]
            lambda before=before: refusals() > before + 4 or not shoppers.busy,  # type: ignore[misc]
        )
    shoppers.join(60)

    assert shoppers.faults == []
    assert refusals() >= 10, "the ledger was not away while payments came"
    reckon(town.house, town.url, wanted, within_s=FINAL_WITHIN_S)


def test_new_payments_are_refused_while_it_is_away(town: Town) -> None:
    """503 with Retry-After, and nothing charged; the process lives, is not ready, and is when the ledger is back."""
    town.server.stop(signal.SIGQUIT)
    try:
        for _ in range(8):
            refused(town)
        assert town.house.call("GET", "/healthz") == (200, {"status": "ok"})
        status, ready = town.house.call("GET", "/readyz")
        assert (status, ready["ready"]) == (503, False)
    finally:
        town.server.start()
    wanted = plain(8)
    shoppers = town.shoppers(wanted)
    shoppers.start()
    shoppers.join(60)
    assert told(wanted) == {(201, "captured")}
    assert not any(each.problem for shopping in wanted for each in shopping.answers), "pools still held the dead"
    eventually(lambda: town.house.call("GET", "/readyz")[0] == 200, 10)
    reckon(town.house, town.url, wanted, within_s=FINAL_WITHIN_S)


def test_a_restart_between_the_first_commit_and_the_answer_is_waited_out(town: Town) -> None:
    """The provider works, the database is restarted meanwhile: the customer gets the outcome, charged once."""
    town.house.control("PUT", "/stripe", {"mode": "slow", "latency_ms": 1000})
    wanted, before = plain(4), town.asked()
    shoppers = town.shoppers(wanted)
    shoppers.start()
    restart_when(town, signal.SIGQUIT, lambda: town.asked() >= before + len(wanted), lambda: True)
    shoppers.join(60)
    # Where the machine is so busy that the database is not back in time, 202, and the worker ends it.
    assert told(wanted) <= {(201, "captured"), (202, "processing")}
    assert all(len(each.answers) == 1 for each in wanted), "nobody was asked to send again"
    ledger = reckon(town.house, town.url, wanted, within_s=FINAL_WITHIN_S)
    charged_once(wanted, ledger, Books.read(town.house))


def test_an_answer_that_could_not_be_written_is_found_out_though_the_database_crashes_again(town: Town) -> None:
    """202 while the ledger stays away; then the worker asks the provider, and in the midst of it comes the next."""
    town.house.control("PUT", "/stripe/webhooks", {"mode": "hold"})  # or they would tell before it asks
    town.house.control("PUT", "/stripe", {"mode": "slow", "latency_ms": 600})
    wanted, before = plain(4), town.asked()
    shoppers = town.shoppers(wanted)
    shoppers.start()
    restart_when(town, signal.SIGKILL, lambda: town.asked() >= before + len(wanted), lambda: not shoppers.busy)
    # On a very slow machine the first are answered before the last one's crash.
    in_doubt = {each.reference for each in wanted if each.answers[-1].body["status"] == "processing"}
    assert in_doubt, told(wanted)
    assert told(wanted) <= {(202, "processing"), (201, "captured")}
    again = town.asked()

    restart_when(town, signal.SIGQUIT, lambda: town.asked() > again, lambda: True)
    eventually(lambda: Ledger.read(town.url).unsettled() == [], FINAL_WITHIN_S)
    town.house.control("PUT", "/stripe/webhooks", {"mode": "ok"})
    ledger = reckon(town.house, town.url, wanted, within_s=FINAL_WITHIN_S)
    charged_once(wanted, ledger, Books.read(town.house))
    attempts = {each["payment_id"]: each for each in ledger.attempts}
    resent = [attempts[row["id"]]["sends"] for row in ledger.payments if row["reference"] in in_doubt]
    assert min(resent) >= 2, "found out by the worker"
