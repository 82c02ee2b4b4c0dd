"""A disk that can be filled: a small file system of its own where one may be mounted, else a limit on every file.

A full tmpfs answers ENOSPC to a write, as any full disk does. Where mounting is not permitted (it wants root),
RLIMIT_FSIZE of the router's processes answers EFBIG to each of their writes instead, which needs no privilege.
"""

from __future__ import annotations

import contextlib
import resource
import sqlite3
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.e2e.house import House

SIZE_MIB = 24
"""A run's directory holds a few; the rest is filled in some milliseconds."""


class Disk(ABC):
    """Where a house keeps everything that it writes: ledger, logs, process ids."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, house: House) -> None:
        """From now on nothing more can be written."""
        # Else the next commits would find room in what the log of writes took up earlier.
        with contextlib.closing(sqlite3.connect(house.run_dir / "ledger.db", timeout=10)) as ledger:
            busy = ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            assert not busy, "the ledger's log could not be cut"
        self._fill(house)

    @abstractmethod
    def _fill(self, house: House) -> None: ...

    @abstractmethod
    def free(self, house: House) -> None:
        """There is room again."""


class SmallDisk(Disk):
    """A tmpfs of a few megabytes."""

    def _fill(self, house: House) -> None:
        with (self.folder / "ballast").open("wb", buffering=0) as ballast:
            for size in (1 << 20, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while True:
                        ballast.write(bytes(size))

    def free(self, house: House) -> None:
        (self.folder / "ballast").unlink()


class LimitedFiles(Disk):
    """A limit that no write of the house's processes stays under."""

    def _fill(self, house: House) -> None:
        self._limit(house, 1)

    def free(self, house: House) -> None:
        self._limit(house, resource.RLIM_INFINITY)

    def _limit(self, house: House, soft: int) -> None:
        main = psutil.Process(house.process.pid)
        # The supervisor first: whom it starts from now on inherits it.
        for process in (main, *main.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.rlimit(psutil.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))


@contextlib.contextmanager
def fillable(folder: Path) -> Iterator[Disk]:
    """A disk as real as this machine allows."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "full-disk", str(folder)]
    try:
        permitted = subprocess.run(mount, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        permitted = False
    if not permitted:
        yield LimitedFiles(folder)
        return
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
