"""One merchant's flood leaves room for the others, and costs a house of one merchant nothing."""

from __future__ import annotations

import heapq
import random
import threading
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.limits.shares import ALPHA, LATELY_S, Entry, Places


def test_a_merchant_alone_takes_every_place_and_not_one_more() -> None:
    places = Places(24)
    assert [places.enter("books", 0) for _ in range(25)] == [Entry.TAKEN] * 24 + [Entry.FULL]
    assert (places.in_use, places.of("books")) == (24, 24)


def test_beside_another_that_asked_lately_a_flood_leaves_a_fifth() -> None:
    places = Places(25)
    places.enter("toys", 0)
    places.leave("toys")
    found = [places.enter("books", LATELY_S) for _ in range(30)]
    assert found.count(Entry.TAKEN) == 20
    assert found[-1] is Entry.OVER_SHARE
    assert places.enter("toys", LATELY_S) is Entry.TAKEN
    for _ in range(20):
        places.leave("books")
    places.leave("toys")
    # Long after, it is alone again.
    assert [places.enter("books", 3 * LATELY_S) for _ in range(26)].count(Entry.TAKEN) == 25


@pytest.mark.parametrize("merchants", [2, 3, 5, 8])
def test_merchants_that_all_flood_have_four_fifths_of_an_equal_share_at_least(merchants: int) -> None:
    places = Places(60)
    for now in range(100):
        for each in range(merchants):
            places.enter(str(each), now)
    for each in range(merchants):
        assert places.of(str(each)) >= 0.8 * 60 / merchants - 1
    assert places.in_use < 60
    assert places.enter("newcomer", 100) is Entry.TAKEN


@pytest.mark.parametrize("permits", [1, 2, 3, 4, 5])
def test_of_few_places_the_last_is_for_one_that_has_none(permits: int) -> None:
    places = Places(permits)
    places.enter("toys", 0)
    places.leave("toys")
    taken = [places.enter("books", 1) for _ in range(9)].count(Entry.TAKEN)
    assert taken == max(1, permits - 1)
    assert (places.enter("toys", 1) is Entry.TAKEN) == (permits > 1)


def test_a_place_given_back_twice_is_refused() -> None:
    places = Places(2)
    places.enter("books", 0)
    places.enter("toys", 0)
    places.leave("books")
    with pytest.raises(ValueError, match="no place"):
        places.leave("books")
    assert places.in_use == 1


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 30), st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=200))
def test_whatever_comes_the_places_are_never_overdrawn_and_are_used(
    permits: int, steps: list[tuple[int, bool]]
) -> None:
    """Never more than there are; nobody with none is turned away while one is free; no refusal with half free."""
    places, held = Places(permits), Counter[str]()
    for now, (number, enters) in enumerate(steps):
        merchant = str(number)
        if enters:
            free = permits - sum(held.values())
            entry = places.enter(merchant, float(now))
            held[merchant] += entry is Entry.TAKEN
            assert (entry is Entry.FULL) == (free == 0)
            if free and not held[merchant] - (entry is Entry.TAKEN):
                assert entry is Entry.TAKEN
            if entry is Entry.OVER_SHARE:
                assert free == 1 or free <= held[merchant] / ALPHA
        elif held[merchant]:
            places.leave(merchant)
            held[merchant] -= 1
        assert places.in_use == sum(held.values()) <= permits
        assert {name: places.of(name) for name in held} == dict(held)


def test_threads_take_and_give_back_as_many_as_there_are() -> None:
    places, most, lock = Places(8), [0], threading.Lock()

    def call(merchant: str) -> None:
        for now in range(2000):
            if places.enter(merchant, float(now)) is Entry.TAKEN:
                with lock:
                    most[0] = max(most[0], places.in_use)
                places.leave(merchant)

    threads = [threading.Thread(target=call, args=(name,)) for name in "aabbccdd"]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert places.in_use == 0
    assert most[0] <= 8


def _simulated(flood_per_s: float, *, latency_s: float, seed: int) -> tuple[int, int, float]:
    """Two minutes of a web process of 32 threads and 24 places. A quiet shop: refused, paid, p99 s of its requests.

    A request waits for a thread; one that is refused holds it for 2 ms, one that is paid for the provider's latency.
    """
    chance, places = random.Random(seed), Places(24)
    arrivals: list[tuple[float, str]] = []
    for name, per_s in (("quiet", 5.0), ("flood", flood_per_s)):
        at = 0.0
        while per_s and (at := at + chance.expovariate(per_s)) < 120:
            arrivals.append((at, name))
    threads = [0.0] * 32
    leaving: list[tuple[float, str]] = []
    refused, times = 0, []
    for at, name in sorted(arrivals):
        begins = max(at, heapq.heappop(threads))
        while leaving and leaving[0][0] <= begins:
            places.leave(heapq.heappop(leaving)[1])
        taken = places.enter(name, begins) is Entry.TAKEN
        ends = begins + (chance.expovariate(1 / latency_s) if taken else 0.002)
        heapq.heappush(threads, ends)
        if taken:
            heapq.heappush(leaving, (ends, name))
        if name == "quiet" and at > 5:
            refused += not taken
            times.append(ends - at)
    return refused, len(times), sorted(times)[int(len(times) * 0.99)]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_flood_costs_a_quiet_shop_neither_a_payment_nor_its_p99(seed: int) -> None:
    """500 payments/s, five times what 24 places can do in 0.25 s each, beside 5/s."""
    calm, _, usual = _simulated(0, latency_s=0.25, seed=seed)
    refused, paid, p99 = _simulated(500, latency_s=0.25, seed=seed)
    assert calm == refused == 0
    assert paid > 400
    assert p99 < usual + 0.25
