"""Whether bytes wait on a socket, asked without letting another thread of this process go first.

`select.poll` lets go of the interpreter's lock for a call that waits for nothing: under load the thread gets it back
when the one that took it waits itself, or after 5 ms, and a payment asks three times. `ctypes.PyDLL` keeps it.
"""

from __future__ import annotations

import ctypes
import select
import sys
from collections.abc import Callable


class _Pollfd(ctypes.Structure):
    """Of `poll(2)`, in <poll.h>."""

    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


def _by_the_library() -> Callable[..., int] | None:
    if sys.platform != "linux":
        return None
    poll = ctypes.PyDLL(None).poll
    poll.argtypes, poll.restype = (ctypes.POINTER(_Pollfd), ctypes.c_ulong, ctypes.c_int), ctypes.c_int
    return poll


_poll = _by_the_library()


def has_something_to_say(descriptor: int) -> bool:
    """Whether bytes wait to be read, or the end: a well connection at rest is silent.

    True as well where the descriptor is none, or the question failed: at worst a well connection is made anew.
    """
    if descriptor < 0:
        return True  # closed here; `poll` would pass over it
    if _poll is not None:
        asked = _Pollfd(descriptor, select.POLLIN, 0)
        return bool(_poll(ctypes.byref(asked), 1, 0))
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
