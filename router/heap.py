"""A process's memory: few of the C library's arenas, no collecting of what lives as long as the process, and what a
busy minute took given back.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator

M_ARENA_MAX = -8
"""Of `mallopt(3)`, in <malloc.h>."""
ARENAS = 2
TRIM_INTERVAL_S = 30.0
"""Half a millisecond each time, of one thread that needs no interpreter."""


def begin() -> None:
    """To be called before a process has threads.

    glibc gives threads heaps of their own, eight for each core, that each keep what was ever used of them: with
    sixty threads memory grows for as long as it takes each of them to have had its largest request. Python's own
    lock lets hardly two threads allocate at once, so that nobody waits for one of two.
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library has other ways
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS)


@contextlib.contextmanager
def building() -> Iterator[None]:
    """Around a process's imports and its building, of which nothing is garbage: to look for some takes a seventh of
    its start.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def settle() -> None:
    """To be called once a process is built: what is there now stays for its life.

    Looked through for garbage with all that came since, it held every payment under way up for a tenth of a second,
    once in some hundred.
    """
    gc.collect()
    gc.freeze()


def trim() -> None:
    """Give the system back what the C library keeps of what was freed.

    By itself it gives back the end of a heap only. A minute in which many threads worked at once leaves holes behind
    it, and the next such minute, whose blocks are of other sizes, makes the heap longer.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
