"""One process's figures in a file: the library reads what we write, and a full disk ends nothing."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.multiprocess import MultiProcessCollector

from router.measuring.cells import FIRST_BYTES, CellFile, key
from router.measuring.instruments import Counter, Histogram, Shelf
from router.measuring.lives import Life, read


def totals(path: Path) -> dict[str, float]:
    """Samples by name, as prometheus-client reads them."""
    return {
        sample.name: sample.value
        for metric in MultiProcessCollector.merge([str(path)])  # type: ignore[no-untyped-call]  # ships so
        for sample in metric.samples
    }


@pytest.mark.parametrize("length", range(1, 18))
def test_the_library_reads_every_length_of_name(tmp_path: Path, length: int) -> None:
    """Keys are padded so that values lie where a processor stores eight bytes at once."""
    path = tmp_path / "counter_one.db"
    file = CellFile(path)
    first = file.cell(key("a", "x" * length, {}, "é"))
    second = file.cell(key("b", "second", {}, ""))
    first.add(1.5)
    second.add(2.0)
    second.add(2.0)
    assert totals(path) == {"x" * length: 1.5, "second": 4.0}
    assert first.value == 1.5


def test_a_file_grows_and_earlier_figures_go_on(tmp_path: Path) -> None:
    """Who holds a figure holds it for the life of the process."""
    path = tmp_path / "counter_one.db"
    file = CellFile(path)
    cells = [file.cell(key("many", f"many_{number}", {}, "about")) for number in range(2000)]
    for number, cell in enumerate(cells):
        cell.add(number)
    assert path.stat().st_size > FIRST_BYTES
    assert totals(path) == {f"many_{number}": float(number) for number in range(2000)}


def test_the_room_is_taken_before_it_is_mapped(tmp_path: Path) -> None:
    """A hole in the file would be filled when it is counted in: with a full disk, that ends the process."""
    path = tmp_path / "counter_one.db"
    CellFile(path).cell(key("a", "a", {}, ""))
    assert path.stat().st_blocks * 512 >= FIRST_BYTES


def test_a_full_disk_leaves_the_count_to_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Payments go on, and the figures that have room, too."""
    shelf = Shelf(Life(tmp_path, "one"))
    counter = Counter(shelf, "seen", "", ("of",))
    counter.of("before").add(1.0)

    def full(*_args: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    histogram = Histogram(shelf, "took_seconds", "", bounds=(1.0,))
    histogram.of().observe(0.5)
    counter.of("before").add(1.0)
    assert {sample.value for metric in read(tmp_path) for sample in metric.samples} == {2.0}


def test_a_killed_process_leaves_what_it_counted(tmp_path: Path) -> None:
    """The very last count before SIGKILL included: memory that is a file outlives its process."""
    script = """
import os, signal, sys
from pathlib import Path
from router.measuring.instruments import Counter, Shelf
from router.measuring.lives import Life
cell = Counter(Shelf(Life(Path(sys.argv[1]), "one")), "seen", "").of()
for _ in range(1234):
    cell.add(1.0)
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, timeout=60)
    assert ended.returncode == -9
    assert [sample.value for metric in read(tmp_path) for sample in metric.samples] == [1234.0]


def test_a_histogram_has_a_value_in_the_bucket_whose_bound_it_is(tmp_path: Path) -> None:
    """Prometheus: `le` is less or equal; what is above them all is in +Inf; the sum is theirs."""
    histogram = Histogram(Shelf(Life(tmp_path, "one")), "took_seconds", "", ("what",), bounds=(0.1, 1.0))
    for value in (0.1, 0.11, 1.0, 1.1, 30.0):
        histogram.of("it").observe(value)
    found = {
        (sample.name, sample.labels.get("le")): sample.value for metric in read(tmp_path) for sample in metric.samples
    }
    assert found == {
        ("took_seconds_bucket", "0.1"): 1.0,
        ("took_seconds_bucket", "1.0"): 3.0,
        ("took_seconds_bucket", "+Inf"): 5.0,
        ("took_seconds_count", None): 5.0,
        ("took_seconds_sum", None): pytest.approx(32.31),
    }
