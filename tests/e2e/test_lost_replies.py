"""The primary charges and its answer is lost: the same provider's charge counts, or it is proved void first."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.house import House, eventually

pytestmark = pytest.mark.processes

OTHER = {"stripe": "adyen", "adyen": "stripe"}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house that does not wait long for an answer, and whose circuits stay closed."""
    house = House(
        tmp_path_factory.mktemp("house"),
        ROUTER_WEB_PROCESSES="2",
        ROUTER_READ_TIMEOUT_SECONDS="2",
        ROUTER_BREAKER_MINIMUM_CALLS="1000",
    )
    yield house
    house.stop()


class Watch(threading.Thread):
    """Polls both providers' books of one payment as fast as they answer."""

    def __init__(self, house: House, reference: str, primary: str) -> None:
        super().__init__(name="watch", daemon=True)
        self._house, self._reference, self._primary = house, reference, primary
        self._over = threading.Event()
        self.polls = 0
        self.captures_seen: set[int] = set()
        self.early: list[str] = []
        """Polls at which the second was captured and the first was not yet canceled."""

    def run(self) -> None:
        """Until told to stop."""
        while not self._over.is_set():
            # The second first: if it is captured now, the first one's authorization must be gone by any later look.
            second = self._house.charges(OTHER[self._primary], self._reference)
            first = self._house.charges(self._primary, self._reference)
            self.polls += 1
            self.captures_seen.add(sum(each["amount_captured"] > 0 for each in first + second))
            if any(each["amount_captured"] for each in second) and any(
                each["status"] != "canceled" for each in first
            ):
                self.early.append(str(first))

    def stop(self) -> None:
        """Look a little longer, then stop."""
        enough = self.polls + 20
        until = time.monotonic() + 5
        while self.polls < enough and time.monotonic() < until and self.is_alive():
            time.sleep(0.02)
        self._over.set()
        self.join(5)


def lose_replies(house: House, primary: str, policy: str) -> None:
    """Every authorization at the primary is charged, and its answer cut; the other provider is well."""
    house.control("DELETE", "")
    for key, value in (("payments-primary-provider", primary), ("payments-unknown-outcome-policy", policy)):
        house.set_flag(key, value)
    eventually(lambda: all(obeys(house, primary, policy) for _ in range(8)), 5)
    house.control("PUT", f"/{primary}", {"mode": "lose_reply", "calls": "authorize"})


def obeys(house: House, primary: str, policy: str) -> bool:
    """Whether the process that takes a payment pays it at the primary: under `void-and-fail-over` in two calls."""
    before = house.control("GET", f"/{primary}")["requests"]
    provider = house.pay()[1]["provider"]
    calls = house.control("GET", f"/{primary}")["requests"] - before
    return bool(provider == primary and calls == (1 if policy == "hold" else 2))


def paid(house: House, payment_id: str) -> dict[str, Any] | None:
    """The payment once it is captured."""
    payment: dict[str, Any] = house.call("GET", f"/v1/payments/{payment_id}")[1]
    return payment if payment["status"] == "captured" else None


@pytest.mark.parametrize("primary", ["stripe", "adyen"])
@pytest.mark.parametrize("mended", [True, False], ids=["mended", "never mended"])
def test_a_lost_answer_is_found_out_at_the_same_provider(house: House, primary: str, mended: bool) -> None:
    """202 while it is not known, then captured there, with one charge in its books and none in the other's."""
    lose_replies(house, primary, "hold")
    reference = f"ORD-lost-{primary}-{mended}"
    status, payment = house.pay(reference=reference)
    assert (status, payment["status"]) == (202, "processing")
    if mended:
        house.control("PUT", f"/{primary}", {"mode": "ok"})

    payment = eventually(lambda: paid(house, payment["id"]), 15)
    assert (payment["provider"], payment["amount_captured"]) == (primary, 1999)
    (charge,) = house.charges(primary, reference)
    assert (charge["status"], charge["amount_captured"]) == ("captured", 1999)
    assert house.charges(OTHER[primary], reference) == []


@pytest.mark.parametrize("primary", ["stripe", "adyen"])
@pytest.mark.parametrize("webhooks", ["ok", "late"])
def test_an_orphan_is_void_before_the_second_provider_captures(house: House, primary: str, webhooks: str) -> None:
    """Captured at the second, canceled at the first, and no poll of the books ever saw two captures."""
    lose_replies(house, primary, "void-and-fail-over")
    if webhooks == "late":
        house.control("PUT", f"/{primary}/webhooks", {"delay_ms": 1500})
    reference = f"ORD-orphan-{primary}-{webhooks}"
    watch = Watch(house, reference, primary)
    watch.start()
    status, payment = house.pay(reference=reference)
    assert (status, payment["status"]) == (202, "processing")

    payment = eventually(lambda: paid(house, payment["id"]), 20)
    watch.stop()
    assert (payment["provider"], payment["amount_captured"]) == (OTHER[primary], 1999)
    (orphan,) = house.charges(primary, reference)
    (charge,) = house.charges(OTHER[primary], reference)
    assert (orphan["status"], orphan["amount_captured"]) == ("canceled", 0)
    assert (charge["status"], charge["amount_captured"]) == ("captured", 1999)
    assert watch.captures_seen <= {0, 1}, f"two captures, in {watch.polls} polls"
    assert not watch.early, f"captured before the void was confirmed: {watch.early[0]}"
    assert watch.polls > 20


def test_nothing_is_captured_while_no_notice_confirms_the_void(house: House) -> None:
    """Adyen has canceled and its notices are held up: the second authorization waits for them, uncaptured."""
    lose_replies(house, "adyen", "void-and-fail-over")
    house.control("PUT", "/adyen/webhooks", {"mode": "hold"})
    watch = Watch(house, "ORD-untold", "adyen")
    watch.start()
    status, payment = house.pay(reference="ORD-untold")
    assert (status, payment["status"]) == (202, "processing")
    asked = house.control("GET", "/adyen")["requests"]
    eventually(lambda: house.control("GET", "/adyen")["requests"] >= asked + 4, 20)  # rounds of finding out
    assert house.call("GET", f"/v1/payments/{payment['id']}")[1]["status"] == "processing"
    assert [each["status"] for each in house.charges("adyen", "ORD-untold")] == ["canceled"]
    assert [each["status"] for each in house.charges("stripe", "ORD-untold")] == ["authorized"]

    house.control("PUT", "/adyen/webhooks", {"mode": "ok"})
    payment = eventually(lambda: paid(house, payment["id"]), 20)
    watch.stop()
    assert payment["provider"] == "stripe"
    assert watch.captures_seen <= {0, 1}
    assert not watch.early
