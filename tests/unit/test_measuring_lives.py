"""The directory of figures: nothing that was counted is lost or counted twice, and it does not grow for ever."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path

import pytest

from router.measuring import lives
from router.measuring.instruments import Counter, Gauge, Histogram, Shelf
from router.measuring.lives import MANIFEST, MERGE_LOCK, Life, bury, read


class Process:
    """As much of a process as has figures."""

    def __init__(self, folder: Path, name: str) -> None:
        self.life = Life(folder, name)
        shelf = Shelf(self.life)
        self.seen = Counter(shelf, "seen", "about", ("of",))
        self.took = Histogram(shelf, "took_seconds", "about", bounds=(1.0, 2.0))
        self.threads = Gauge(shelf, "threads", "about", mode="livesum")

    def work(self, times: int = 1) -> None:
        """Something of each type."""
        for _ in range(times):
            self.seen.of("work").add(1.0)
            self.took.of().observe(1.5)
        self.threads.of().set(7.0)


def figures(folder: Path) -> dict[str, float]:
    """Samples by name, and by bucket."""
    return {
        sample.name + sample.labels.get("le", ""): sample.value
        for metric in read(folder)
        for sample in metric.samples
    }


def kept(count: float) -> dict[str, float]:
    """What so much work is in the end."""
    return {
        "seen_total": count,
        "took_seconds_bucket1.0": 0.0,
        "took_seconds_bucket2.0": count,
        "took_seconds_bucket+Inf": count,
        "took_seconds_count": count,
        "took_seconds_sum": 1.5 * count,
    }


def test_the_living_are_added_up(tmp_path: Path) -> None:
    """Any process answers for all of them."""
    for name in ("one", "two"):
        Process(tmp_path, name).work(2)
    assert figures(tmp_path) == kept(4.0) | {"threads": 14.0}


def test_the_dead_still_count_and_are_nothing_any_more(tmp_path: Path) -> None:
    """Counters of the dead stay; that it had seven threads is past, from the moment of its death."""
    one, two = Process(tmp_path, "one"), Process(tmp_path, "two")
    one.work(3)
    two.work(1)
    one.life.end()
    assert figures(tmp_path) == kept(4.0) | {"threads": 7.0}


def test_months_of_restarts_leave_one_archive(tmp_path: Path) -> None:
    """Each start adds the dead to it: no counter falls, and the directory is as small as after the first."""
    sizes = []
    for number in range(20):
        process = Process(tmp_path, f"life{number}")
        bury(tmp_path)
        process.work()
        assert figures(tmp_path) == kept(number + 1.0) | {"threads": 7.0}
        process.life.end()
        sizes.append(sum(1 for _ in tmp_path.iterdir()))
    assert sizes[1:] == [sizes[1]] * 19
    assert not list(tmp_path.glob("*life18*"))


def test_who_lives_is_not_buried(tmp_path: Path) -> None:
    """Not even by itself."""
    one = Process(tmp_path, "one")
    one.work()
    assert bury(tmp_path) == 0
    one.work()
    assert figures(tmp_path)["seen_total"] == 2.0


@pytest.mark.parametrize("broken", ["_add_up", "_replace", "_sweep"])
def test_a_merge_that_is_killed_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Before, between and after: what the next one finds is the same sums."""
    first = Process(tmp_path, "first")
    first.work(1)
    first.life.end()
    bury(tmp_path)
    one = Process(tmp_path, "one")
    one.work(5)
    one.life.end()
    whole, calls = getattr(lives, broken), 0

    def killed(*args: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        whole(*args)
        if broken == "_replace":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(lives, broken, killed)
        with pytest.raises(KeyboardInterrupt):
            bury(tmp_path)
    assert figures(tmp_path) == kept(6.0)
    bury(tmp_path)
    assert figures(tmp_path) == kept(6.0)
    two = Process(tmp_path, "two")
    two.work(1)
    two.life.end()
    bury(tmp_path)
    assert figures(tmp_path) == kept(7.0)
    assert len(list(tmp_path.glob("*.db"))) == 2


def test_two_who_start_at_once_bury_once(tmp_path: Path) -> None:
    """The second leaves it to the first, and does not wait."""
    one = Process(tmp_path, "one")
    one.work()
    one.life.end()
    with (tmp_path / MERGE_LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert bury(tmp_path) == 0
    assert bury(tmp_path) == 1
    assert figures(tmp_path) == kept(1.0)


def test_a_scrape_during_a_merge_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that it has listed are gone when it opens them, or are in the archive already: it looks again."""
    one = Process(tmp_path, "one")
    one.work(4)
    one.life.end()
    inner: Callable[..., object] = lives._merge
    looks = 0

    def merge(files: list[str], accumulate: bool = True) -> object:
        nonlocal looks
        looks += 1
        if looks == 1:
            bury(tmp_path)
        return inner(files, accumulate=accumulate)

    monkeypatch.setattr(lives, "_merge", merge)
    assert figures(tmp_path) == kept(4.0)
    assert looks > 1


def test_one_spoilt_file_does_not_hide_the_others(tmp_path: Path) -> None:
    """As after a power cut in the middle of its pages; nor does it keep the dead from being buried."""
    one, two = Process(tmp_path, "one"), Process(tmp_path, "two")
    one.work()
    two.work(2)
    spoilt = tmp_path / "counter_one.db"
    spoilt.write_bytes((1 << 20).to_bytes(4, "little") + b"\xff" * 200)
    assert figures(tmp_path)["seen_total"] == 2.0
    one.life.end()
    assert bury(tmp_path) == 1
    assert not spoilt.exists()
    assert figures(tmp_path)["took_seconds_count"] == 3.0


def test_a_process_that_died_before_it_counted_leaves_nothing(tmp_path: Path) -> None:
    """Its files are empty, or are not there."""
    life = Life(tmp_path, "one")
    life.file("counter").close()
    assert figures(tmp_path) == {}
    life.end()
    assert bury(tmp_path) == 1
    assert not list(tmp_path.glob("*_one.db"))
    assert (tmp_path / MANIFEST).exists()


def test_a_name_is_taken_once(tmp_path: Path) -> None:
    """Two processes in one file would write over each other."""
    Life(tmp_path, "one").file("counter")
    second = Life(tmp_path, "one")
    with pytest.raises(FileExistsError):
        second.file("counter")
