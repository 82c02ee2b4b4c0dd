"""The main job on real processes: a payment is routed, charged and failed over; the flag flips; all recovers."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import urllib3

from tests.e2e.house import House, eventually

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house with two web processes and quick breakers."""
    house = House(tmp_path_factory.mktemp("house"), ROUTER_WEB_PROCESSES="2", ROUTER_BREAKER_OPEN_WAIT_SECONDS="1")
    yield house
    house.stop()


@pytest.fixture
def flipping(tmp_path: Path) -> Iterator[House]:
    """A house of its own that flips after three seconds: incidents outlive a test."""
    house = House(tmp_path, ROUTER_BREAKER_OPEN_WAIT_SECONDS="1", ROUTER_FLIP_AFTER_SECONDS="3")
    yield house
    house.stop()


@pytest.fixture
def house(started: House) -> House:
    """The house, all well: providers up, circuits closed, Stripe the primary."""
    started.control("DELETE", "")
    eventually(lambda: {started.state(name) for name in ("stripe", "adyen") for _ in range(4)} == {"closed"}, 20)
    set_primary(started, "stripe")
    return started


def set_primary(house: House, provider: str) -> None:
    """Set the flag, and wait until every web process obeys."""
    house.set_flag("payments-primary-provider", provider)
    served_by(house, provider, within_s=1.5)


def served_by(house: House, provider: str, within_s: float) -> None:
    """Wait until ten payments in a row, which two processes share, go to this provider."""
    eventually(lambda: {house.pay()[1]["provider"] for _ in range(10)} == {provider}, within_s)


def test_a_payment_is_captured_by_the_primary_with_one_charge_in_its_books(house: House) -> None:
    """201, captured, and the primary's books hold exactly one charge of that amount and reference."""
    status, payment = house.pay(reference="ORD-first", amount=4321)

    assert (status, payment["status"], payment["provider"]) == (201, "captured", "stripe")
    (charge,) = house.charges("stripe", "ORD-first")
    assert (charge["amount"], charge["currency"].upper(), charge["status"]) == (4321, "EUR", "captured")
    assert house.charges("adyen", "ORD-first") == []


@pytest.mark.parametrize("mode", ["down", "rate_limited"])
def test_an_outage_of_the_primary_costs_no_payment_and_ends_its_calls(house: House, mode: str) -> None:
    """Fifty payments, all captured by the other; once the circuit is open the broken provider is not asked at all."""
    house.control("PUT", "/stripe", {"mode": mode, "calls": "authorize" if mode == "rate_limited" else "all"})
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: house.pay(), range(50)))

    assert Counter((status, each["status"], each["provider"]) for status, each in answers) == {
        (201, "captured", "adyen"): 50
    }
    house.control("PUT", "/stripe", {"mode": mode})  # now the probes fail too, so the circuit stays open
    eventually(lambda: all(house.state("stripe") != "closed" for _ in range(6)), 5)
    asked = house.control("GET", "/stripe")["authorizations"]
    assert all(house.pay()[1]["attempts"][0]["provider"] == "adyen" for _ in range(10))
    assert house.control("GET", "/stripe")["authorizations"] == asked
    stripe = house.call("GET", "/v1/providers")[1]["providers"][0]
    assert stripe["since"].endswith("Z")


def test_a_circuit_open_too_long_flips_the_primary_and_closes_by_itself_afterwards(flipping: House) -> None:
    """The flags file, the flip's record and the payments agree; the mended provider's circuit closes unaided."""
    house = flipping
    house.control("PUT", "/stripe", {"mode": "down"})
    for _ in range(20):
        house.pay()
    flips = eventually(lambda: [each for each in flips_of(house) if each["state"] == "confirmed"], 8)

    assert len(flips_of(house)) == len(flips) == 1
    (flip,) = flips
    assert (flip["flag"], flip["from"], flip["to"]) == ("payments-primary-provider", "stripe", "adyen")
    assert "stripe" in flip["reason"]
    assert 3 <= flip["evidence"]["open_seconds"] < 6
    assert flip["confirmed_at"] >= flip["created_at"]
    flag = json.loads(house.flags_file.read_text())["flags"]["payments-primary-provider"]
    assert flag["variations"][flag["fallthrough"]["variation"]] == "adyen"
    eventually(lambda: house.pay()[1]["decision"]["primary"] == "adyen", 1)

    house.control("PUT", "/stripe", {"mode": "ok"})
    eventually(lambda: house.state("stripe") == "closed", 20)
    assert house.pay()[1]["provider"] == "adyen", "the flag stays where the flip put it"


def flips_of(house: House) -> list[dict[str, Any]]:
    """What the router changed by itself."""
    found: list[dict[str, Any]] = house.call("GET", "/v1/flips")[1]["flips"]
    return found


def test_every_web_process_follows_a_flag_within_a_second(house: House) -> None:
    """`pointsman flags set` and a hand edit of the file are obeyed by both processes, with no restart."""
    pids = house.pids()["web"]
    house.command("flags", "set", "payments-primary-provider", "adyen")
    served_by(house, "adyen", within_s=1)

    document = json.loads(house.flags_file.read_text())
    flag = document["flags"]["payments-primary-provider"]
    flag["fallthrough"]["variation"] = flag["variations"].index("stripe")
    house.flags_file.write_text(json.dumps(document))
    served_by(house, "stripe", within_s=1)
    assert house.pids()["web"] == pids
    assert len(pids) == 3, "granian's main and two workers"


def test_a_wrong_flag_value_is_refused_by_the_command(house: House) -> None:
    """The command names what is allowed, and changes nothing."""
    before = house.flags_file.read_bytes()
    done = house.command("flags", "set", "payments-primary-provider", "paypal")

    assert done.returncode == 1
    assert "stripe or adyen" in done.stderr
    assert house.flags_file.read_bytes() == before


@pytest.mark.parametrize("role", ["web", "worker"])
def test_a_killed_process_is_back_within_two_seconds(house: House, role: str) -> None:
    """SIGKILL of the main: its children are gone, a new one serves, the providers' books stay single."""
    old = house.pids()[role]
    os.kill(old[0], signal.SIGKILL)
    eventually(lambda: house.pids()[role][:1] not in ([], old[:1]), 2)
    if role == "web":
        # Started again within two seconds; how long it then imports is the machine's (1.1 s on a quiet one).
        eventually(lambda: ready(house), 10)
        assert house.pay(reference="ORD-after-kill")[0] == 201
        assert len(house.charges("stripe", "ORD-after-kill")) == 1
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in old), 2)


def ready(house: House) -> bool:
    """Whether the router answers."""
    try:
        return house.call("GET", "/readyz")[0] == 200
    except urllib3.exceptions.HTTPError:
        return False


def test_ctrl_c_stops_everything_within_five_seconds(tmp_path: Path) -> None:
    """Even with a payment in flight at a provider that hangs; no process and no port is left."""
    house = House(tmp_path, ROUTER_DEMO_TRAFFIC_PER_SECOND="5")
    eventually(lambda: house.log.read_text().count("captured") >= 3, 5)
    pids = [pid for role in house.pids().values() for pid in role]
    house.control("PUT", "/stripe", {"mode": "hang"})
    eventually(lambda: house.control("GET", "/stripe")["requests"] > 0, 2)

    assert house.stop() < 5
    assert house.process.returncode == 0
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
