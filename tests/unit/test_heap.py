"""What a process keeps of its memory, in processes of their own: it is theirs as a whole."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

HOLES = """
import psutil
from router import heap

heap.begin()
blocks = [bytearray(3000) for _ in range(20_000)]
kept = blocks[::50]  # the last block of the heap among them: nothing behind it can be given back
kept.append(blocks[-1])
del blocks
before = psutil.Process().memory_info().rss
heap.trim()
print(before - psutil.Process().memory_info().rss)
"""
SETTLED = """
import gc, weakref
from router import heap

class Thing: ...

gc.disable()
thing = Thing()
thing.itself, left = thing, weakref.ref(thing)
del thing
heap.settle()
print(gc.get_freeze_count(), int(left() is None))
"""
BUILDING = """
import gc
from router import heap

with heap.building():
    print(int(gc.isenabled()))
print(int(gc.isenabled()))
try:
    with heap.building():
        raise ValueError
except ValueError:
    print(int(gc.isenabled()))
"""


def _printed(program: str) -> list[int]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


def test_garbage_is_collected_again_once_a_process_is_built_or_cannot_be() -> None:
    assert _printed(BUILDING) == [0, 1, 1]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has other ways")
def test_holes_in_the_heap_are_given_back() -> None:
    """Of 60 MB that were freed, all but what the kept blocks' pages hold."""
    (given_back,) = _printed(HOLES)
    assert given_back > 40_000_000


def test_what_a_process_is_built_of_is_looked_through_no_more() -> None:
    """And what was garbage by then is gone first."""
    frozen, gone = _printed(SETTLED)
    assert frozen > 1000
    assert gone
