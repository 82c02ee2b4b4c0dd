"""One process's figures in memory-mapped files, in the format of prometheus-client's multiprocess mode.

That library's own writer is not used. It is bound to an environment variable at its import, so that a process has
one directory for ever; and it maps sparse files: where the disk is full, the next count ends the process (SIGBUS).
Here the room is taken before it is mapped, and what finds no room is counted in this process only.

Format (`prometheus_client.mmap_dict`, held by a test): int32 of the bytes in use, 4 bytes of nothing; then for each
figure an int32 with the length of its key, the key padded with spaces so that a multiple of 8 follows, its value
and a time as doubles. The key is JSON: [family, sample, labels, help].
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import threading
from collections.abc import Mapping
from pathlib import Path

FIRST_BYTES = 64 * 1024
"""About 400 figures; most processes have fewer of each type."""
_HEADER = 8
_LENGTH = struct.Struct("i")


def key(family: str, sample: str, labels: Mapping[str, str], about: str) -> str:
    """What a figure is found by."""
    return json.dumps([family, sample, dict(labels), about], sort_keys=True)


def entry(name: str, value: float = 0.0) -> bytes:
    """A figure as it is written."""
    told = name.encode()
    padded = told + b" " * (8 - (len(told) + _LENGTH.size) % 8)
    return _LENGTH.pack(len(told)) + padded + struct.pack("dd", value, 0.0)


class Cell:
    """One figure. Another process may read it at any moment, and sees a whole one."""

    __slots__ = ("_lock", "_place", "_view")

    def __init__(self, view: memoryview[float], place: int) -> None:
        self._view = view
        self._place = place
        self._lock = threading.Lock()

    def add(self, amount: float) -> None:
        """More of it."""
        with self._lock:
            # One aligned store of eight bytes: the figure is the old one or the new one, whenever the process ends.
            self._view[self._place] += amount

    def set(self, value: float) -> None:
        """It is this now."""
        self._view[self._place] = value

    @property
    def value(self) -> float:
        """As it stands."""
        return float(self._view[self._place])


class CellFile:
    """The figures of one type. Thread-safe; only ever grows, and only one process writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        self._used = _HEADER
        self._room = 0
        self._map: mmap.mmap | None = None
        self._view: memoryview[float] | None = None

    def cell(self, name: str) -> Cell:
        """A new figure, 0. Raises OSError where there is no room for it; then nothing has changed."""
        told = entry(name)
        with self._lock:
            if self._used + len(told) > self._room:
                self._grow(self._used + len(told))
            assert self._map is not None
            assert self._view is not None
            end = self._used + len(told)
            self._map[self._used : end] = told
            # Last, so that who reads meanwhile finds no half of it.
            self._used = end
            self._map[: _LENGTH.size] = _LENGTH.pack(end)
            return Cell(self._view, (end - 16) // 8)

    def _grow(self, wanted: int) -> None:
        room = max(FIRST_BYTES, self._room)
        while room < wanted:
            room *= 2
        # Not a hole: the write into one that finds the disk full ends the process.
        os.posix_fallocate(self._descriptor, 0, room)
        grown = mmap.mmap(self._descriptor, room)
        if self._map is None:
            grown[:_HEADER] = _LENGTH.pack(_HEADER).ljust(_HEADER, b"\0")
        # Earlier cells keep the map that they have: it is the same memory.
        self._map, self._view, self._room = grown, memoryview(grown).cast("d"), room

    def close(self) -> None:
        """Write it down for good, and let the descriptor go; cells that somebody still has stay mapped."""
        if self._map is not None:
            self._map.flush()
        os.close(self._descriptor)


def alone() -> Cell:
    """A figure that no other process sees: what is left where there is no room for a file."""
    return Cell(memoryview(bytearray(8)).cast("d"), 0)
