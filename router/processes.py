"""Starting processes that cannot outlive their parent, and ending every process they left behind.

A process is remembered as `psutil.Process`, which is its id *and* its time of creation: a number that the
system has given to somebody else in the meantime is never signalled.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from router.clock import Clock

_POLL_S = 0.02
_SAME_CREATION_S = 1.0
"""psutil derives a time of creation from the boot time, which moves a little as the clock is disciplined;
the system does not come round to the same process id within a second."""

_GONE_AFTER_KILL_S = 0.5
"""How long SIGKILL may take to show; longer only in an uninterruptible system call, which no signal ends."""

_LAUNCH = """\
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(0)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"cannot start {sys.argv[2]}: {error.strerror}")
"""
"""Becomes the program after asking for SIGTERM when the parent dies (`PR_SET_PDEATHSIG` is 1, see prctl(2);
it survives the exec). A program of its own, since `preexec_fn` is unsafe beside threads; costs 13 ms."""


class AlreadyRunningError(Exception):
    """Another supervisor keeps this run directory."""


def launch(argv: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a program in its own session, its stdin empty, its output ours, `env` added to our environment.

    On Linux it gets SIGTERM when the *thread* that called this dies, so call it from the main thread.
    A program that cannot be started says why on stderr and ends with status 1.
    """
    return subprocess.Popen(  # noqa: S603 - the command is the caller's own, not a user's
        [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), *argv],
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def has_ended(child: subprocess.Popen[bytes]) -> bool:
    """Whether the child is dead, without reaping it: until it is reaped its id, its group's too, is not reused."""
    if child.returncode is not None:
        return True
    try:
        return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def is_alive(process: psutil.Process) -> bool:
    """Whether this very process still runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def descendants(mains: Iterable[int]) -> dict[int, list[psutil.Process]]:
    """Every living descendant of each of our children `mains`, in one look at the process table (about 1 ms)."""
    found: dict[int, list[psutil.Process]] = {pid: [] for pid in mains}
    main_of = {pid: pid for pid in found}
    for process in psutil.Process().children(recursive=True):  # parents come before their children
        with contextlib.suppress(psutil.NoSuchProcess):
            main = main_of.get(process.pid) or main_of.get(process.ppid())
            if main is not None:
                main_of[process.pid] = main
                if process.pid != main and is_alive(process):
                    found[main].append(process)
    return found


def signal_all(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    """Signal each of these processes that still lives."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process.send_signal(number)


def kill_group(leader: int) -> None:
    """SIGKILL a process group. Only while its leader is not reaped, or a member is known to live."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def wait_gone(processes: Collection[psutil.Process], clock: Clock, timeout_s: float = _GONE_AFTER_KILL_S) -> bool:
    """Wait until none of these lives, at most `timeout_s` seconds; whether it came to that."""
    until = clock.monotonic() + timeout_s
    while any(is_alive(process) for process in processes):
        if clock.monotonic() >= until:
            return False
        clock.sleep(_POLL_S)
    return True


def write_whole(path: Path, content: object) -> None:
    """Write JSON so that a reader sees the old content or the new, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".new")
    draft.write_text(json.dumps(content) + "\n", encoding="utf-8")
    draft.replace(path)


@contextlib.contextmanager
def sole_keeper(lock_file: Path) -> Iterator[None]:
    """Hold a lock that the system frees however we end; `AlreadyRunningError`, naming the holder, if it is held."""
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with lock_file.open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip()
            message = f"already running (pid {holder}) in {lock_file.parent}: stop that one first"
            raise AlreadyRunningError(message) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


class Birth(NamedTuple):
    """What tells a process from a later one of the same id: seconds since the epoch, and its process group."""

    pid: int
    created: float
    group: int


def remember(path: Path, processes: Iterable[psutil.Process]) -> None:
    """Write down processes so that `end_remembered` can end them after we were killed ourselves."""
    births = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            births.append(Birth(process.pid, process.create_time(), os.getpgid(process.pid)))
    write_whole(path, births)


def end_remembered(path: Path, clock: Clock, *, grace_s: float) -> int:
    """End what an earlier run that was killed left running; how many processes that was.

    They, and whoever is in their process groups, get SIGTERM, and SIGKILL `grace_s` seconds later.
    """
    found = [(birth, process) for birth in _read_births(path) if (process := _still_there(birth))]
    left = {birth.pid: process for birth, process in found}
    groups = {birth.group for birth, _ in found} - {os.getpgrp()}
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):
            if os.getpgid(process.pid) in groups and is_alive(process):
                left[process.pid] = process
    signal_all(left.values(), signal.SIGTERM)
    if not wait_gone(left.values(), clock, grace_s):
        signal_all(left.values(), signal.SIGKILL)
        wait_gone(left.values(), clock)
    path.unlink(missing_ok=True)
    return len(left)


def _still_there(birth: Birth) -> psutil.Process | None:
    """The process that was written down, unless it is gone or its id belongs to another one now."""
    with contextlib.suppress(psutil.Error, OSError):
        process = psutil.Process(birth.pid)
        same = abs(process.create_time() - birth.created) < _SAME_CREATION_S
        if same and os.getpgid(birth.pid) == birth.group and is_alive(process):
            return process
    return None


def _read_births(path: Path) -> list[Birth]:
    """What `remember` wrote; nothing if there is none, or it cannot be read."""
    try:
        births = json.loads(path.read_text(encoding="utf-8"))
        return [Birth(int(pid), float(created), int(group)) for pid, created, group in births]
    except (OSError, ValueError, TypeError):
        return []
