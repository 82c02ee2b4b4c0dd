"""Rates that processes count together in a Redis: none has more than all may; without it, payments go on."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from limits.storage import MemoryStorage

from router.limits.rate import Pace
from router.limits.shared import AWAY_S, REFUSED_S, SharedRates, redis_storage

PACE = Pace(100, 500)
"""500 in any 5 s."""


class BrokenStorage(MemoryStorage):
    """Counts how often it is asked, and fails while told to."""

    broken = False
    asked = 0

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        return super().incr(key, expiry, amount)

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        self.asked += 1
        if self.broken:
            raise ConnectionError
        return super().acquire_sliding_window_entry(key, limit, expiry, amount)


def test_a_slice_serves_many_requests() -> None:
    storage = BrokenStorage()
    rates = SharedRates(storage, processes=1)
    assert all(rates.take("a", PACE, 0.0) == 0 for _ in range(100))
    # Of 1, 2, 4 and 8, then of 10 each.
    assert storage.asked == 13


def test_processes_together_get_what_one_may() -> None:
    storage = BrokenStorage()
    house = [SharedRates(storage, processes=2) for _ in range(2)]
    passed = [sum(rates.take("a", PACE, 0.0) == 0 for _ in range(400)) for rates in house]
    # What the first has left of its last slice is its own. And the window's beginning may fall between two of them,
    # which lets the first part of the next one in.
    assert 490 <= sum(passed) <= 510
    assert house[0].take("b", PACE, 0.0) == 0


def test_a_trickle_at_many_processes_uses_up_little_of_what_all_may() -> None:
    """What is left of a slice is lost: six processes' trickles, 24 requests a second, once used up 1,000 a second."""
    storage = BrokenStorage()
    house = [SharedRates(storage, processes=6) for _ in range(6)]
    pace = Pace(1000, 20_000)
    assert all(rates.take("a", pace, second / 4) == 0 for second in range(88) for rates in house)
    with_one = SharedRates(storage, processes=1)
    left = sum(with_one.take("a", pace, 0.0) == 0 for _ in range(20_000))
    assert left > 18_000


def test_a_refused_flood_does_not_flood_the_store() -> None:
    storage = BrokenStorage()
    rates = SharedRates(storage, processes=1)
    while rates.take("a", PACE, 0.0) == 0:
        pass
    asked = storage.asked
    assert all(rates.take("a", PACE, REFUSED_S / 2) > 0 for _ in range(100))
    assert storage.asked == asked


def test_while_the_store_is_away_each_goes_by_its_part_and_asks_now_and_then() -> None:
    told: list[bool] = []
    storage = BrokenStorage()
    storage.broken = True
    rates = SharedRates(storage, processes=2, told=told.append)
    assert sum(rates.take("a", PACE, 0.0) == 0 for _ in range(500)) == 250
    assert (storage.asked, told) == (1, [True])
    storage.broken = False
    assert rates.take("a", PACE, AWAY_S) == 0
    assert told == [True, False]


def test_what_is_given_back_may_be_taken_again() -> None:
    rates = SharedRates(BrokenStorage(), processes=1)
    for _ in range(2000):
        assert rates.take("a", PACE, 0.0) == 0
        rates.give_back("a", PACE)


# ---------------------------------------------------------------- a real Redis


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Debian's redis-server, alone in a directory."""
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("no redis-server on this machine: `apt-get install redis-server`")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            assert time.monotonic() < until, "redis-server does not start"
            time.sleep(0.05)
    yield f"redis://127.0.0.1:{port}/0", process
    process.kill()
    process.wait()


def test_over_a_real_redis_processes_share_and_its_end_refuses_nothing(
    redis: tuple[str, subprocess.Popen[bytes]],
) -> None:
    """Two clients of their own, as two processes have; then the server is killed in the middle of it."""
    url, process = redis
    pace, house, passed = Pace(10, 600), [], [0, 0]
    told: list[bool] = []
    house = [SharedRates(redis_storage(url), processes=2, told=told.append) for _ in range(2)]

    def come(number: int) -> None:
        passed[number] = sum(house[number].take("a", pace, 0.0) == 0 for _ in range(500))

    threads = [threading.Thread(target=come, args=(number,)) for number in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert told == []  # the store was asked, and answered
    # What one has left of its last slice of 12, the other does not get; and the window may turn between.
    assert 600 - 12 <= sum(passed) <= 600 + 2 * 12
    process.kill()
    process.wait()
    begun = time.monotonic()
    assert house[0].take("new", pace, 1.0) == 0
    assert house[0].take("new", pace, 1.1) == 0
    assert time.monotonic() - begun < 5
    assert told == [True]
