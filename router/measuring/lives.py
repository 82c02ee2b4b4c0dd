"""The directory of all processes' figures on one machine: a life's own files while it lasts, and what the dead left.

    <life>.alive                      locked (flock) for as long as the process lives; the system unlocks it
    counter_<life>.db, histogram_…    what it counted; kept when it dies
    gauge_<mode>_<life>.db            what it found of itself; nothing when it is dead
    dead.json                         which archive holds, and whose figures are in it
    counter_archive-<n>.db, …         the sums of those who died

Every start adds the dead to the archive, so that the directory stays as small as the machine has processes. The
moment at which a dead process's figures count there, and no more in their own files, is the replacing of `dead.json`:
whoever is killed in the middle has done nothing, or all. A reader takes no lock: it reads again where the directory
changed under its eyes.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from prometheus_client import Metric
from prometheus_client.multiprocess import MultiProcessCollector

from router.measuring.cells import CellFile, key

log = structlog.get_logger("router.measuring")

KEPT = ("counter", "histogram")
"""Types of which the dead count."""
MERGE_LOCK = "merge.lock"
MANIFEST = "dead.json"
READ_TRIES = 20
"""A merge takes milliseconds, and there is one a start."""
BROKEN = (RuntimeError, ValueError, IndexError, struct.error)
"""What reading a spoilt file raises."""
BEGINS_WITHIN_S = 3600.0
"""A process that has made its file and not locked it for so long was killed in between."""


_merge: Callable[..., Iterable[Metric]] = MultiProcessCollector.merge


@dataclass(frozen=True, slots=True)
class Dead:
    """What `dead.json` says."""

    archive: int = 0
    """0: there is none."""
    lives: tuple[str, ...] = ()
    """Whose figures are in it, as long as their own files may still be there."""


class Life:
    """This process's place in the directory, until it ends."""

    def __init__(self, folder: Path, name: str) -> None:
        """`name`: of no other life on this machine, ever; without underscores, which file names are parted by."""
        self.folder = folder
        self.name = name
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f"{name}.begins"
        self._descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        # Seen only when it is locked: nobody can take a process that begins for a dead one.
        draft.rename(folder / f"{name}.alive")

    def file(self, prefix: str) -> CellFile:
        """A new file of this type, `counter`, `histogram` or `gauge_<mode>`."""
        return CellFile(self.folder / f"{prefix}_{self.name}.db")

    def end(self) -> None:
        """What the system does when the process ends."""
        os.close(self._descriptor)


def read(folder: Path) -> Sequence[Metric]:
    """All processes' figures as one: sums of the living and the dead, gauges of the living. Raises OSError."""
    for _ in range(READ_TRIES):
        before = _manifest(folder)
        try:
            found = _merged(list(_counting(folder, before)), accumulate=True)
        except FileNotFoundError:
            continue  # a dead process's file has gone into the archive meanwhile
        if _manifest(folder) == before:
            return found
    raise OSError("the figures change faster than they can be read")


def bury(folder: Path) -> int:
    """Add to the archive what dead processes have counted, and remove their files. Answers how many they were.

    Where another process is at it, this one leaves it alone. Raises OSError, having lost nothing.
    """
    with (folder / MERGE_LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0
        known = _manifest(folder)
        _sweep(folder, known)  # what an earlier merge did not come to remove
        names = {name for each in folder.glob("*.db") if (name := _life(each)) and not name.startswith("archive-")}
        names |= {each.stem for each in folder.glob("*.alive")}
        dead = sorted(name for name in names if not _lives(folder, name))
        if not dead:
            return 0
        number = known.archive + 1
        for kind in KEPT:
            old = folder / f"{kind}_archive-{known.archive}.db"
            left = [*([old] if old.exists() else []), *(folder / f"{kind}_{name}.db" for name in dead)]
            _add_up(_readable(left), folder / f"{kind}_archive-{number}.db")
        _replace(folder / MANIFEST, {"archive": number, "lives": dead})
        _sweep(folder, _manifest(folder))
        return len(dead)


def _add_up(files: Iterable[Path], to: Path) -> None:
    to.unlink(missing_ok=True)
    archive = CellFile(to)
    try:
        for metric in _merged(list(files), accumulate=False):
            for sample in metric.samples:
                name = key(metric.name, sample.name, sample.labels, metric.documentation)
                archive.cell(name).set(sample.value)
    finally:
        archive.close()


def _merged(files: Sequence[Path], *, accumulate: bool) -> Sequence[Metric]:
    try:
        return list(_merge([str(each) for each in files], accumulate=accumulate))
    except BROKEN:
        # One file that a crash of the machine has spoilt must not hide all the others for ever.
        sound = [str(each) for each in files if _is_sound(each)]
        return list(_merge(sound, accumulate=accumulate))


def _is_sound(file: Path) -> bool:
    try:
        _merge([str(file)], accumulate=False)
    except BROKEN as error:
        log.error("figures_unreadable", file=file.name, cause=type(error).__name__)
        return False
    return True


def _readable(files: Iterable[Path]) -> Iterator[Path]:
    """Those that hold figures: one whose process died before its first is empty."""
    for each in files:
        with contextlib.suppress(OSError):
            if each.stat().st_size:
                yield each


def _counting(folder: Path, dead: Dead) -> Iterator[Path]:
    for each in sorted(folder.glob("*.db")):
        name = _life(each)
        kept = each.name.startswith(KEPT)
        if name.startswith("archive-"):
            counts = name == f"archive-{dead.archive}"
        else:
            counts = name not in dead.lives and (kept or _lives(folder, name))
        # A file that has just been made has no first page yet.
        if counts and each.stat().st_size:
            yield each


def _sweep(folder: Path, dead: Dead) -> None:
    for each in folder.glob("*.db"):
        name = _life(each)
        past = name.startswith("archive-") and name != f"archive-{dead.archive}"
        if past or name in dead.lives:
            each.unlink(missing_ok=True)
    for name in dead.lives:
        (folder / f"{name}.alive").unlink(missing_ok=True)
    for each in folder.glob("*.begins"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - each.stat().st_mtime > BEGINS_WITHIN_S:
                each.unlink()


def _lives(folder: Path, name: str) -> bool:
    try:
        descriptor = os.open(folder / f"{name}.alive", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two who look at once do not take each other for the process.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _life(file: Path) -> str:
    """Whose file it is."""
    return file.stem.rpartition("_")[2]


def _manifest(folder: Path) -> Dead:
    try:
        told = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return Dead(int(told["archive"]), tuple(told["lives"]))
    except FileNotFoundError:
        return Dead()


def _replace(path: Path, content: Mapping[str, object]) -> None:
    draft = path.with_name(f"{path.name}.new")
    with draft.open("w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
