"""Keeps the processes of `make run` alive, and ends them all: no orphan keeps a port, none outlives us.

One round (`run_once`) buries the children that died, with everything they left behind, starts those that are
due, and publishes the process ids by role in `pids.json`; `run` only repeats it until it is told to stop.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import psutil
import urllib3

from router.clock import Clock
from router.processes import (
    descendants,
    end_remembered,
    has_ended,
    is_alive,
    kill_group,
    launch,
    remember,
    signal_all,
    sole_keeper,
    wait_gone,
    write_whole,
)

_LOOK_S = 0.2
"""Between two rounds: a death is noticed, and `pids.json` follows, within this time. A round costs 1 to 2 ms."""

_STOP_LOOK_S = 0.05

_SETTLED_AFTER_S = 5.0
"""A child that lived this long did start: its next death is news, and is answered without backing off."""

_LONGEST_DELAY_S = 1.0
"""Two seconds are promised for a child to be back: 0.2 to notice, this to wait, and 0.8 to start up."""

_KILLED_FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT)
"""Not the program's own failure, so however often it happens nothing is gained by waiting longer."""

_DOUBLED_SIGNAL_S = 0.3
"""`timeout`, and a shell that ends its process group, deliver one signal twice; a person is slower than this."""


@dataclass(frozen=True)
class Child:
    """A program to keep running: its role in `pids.json`, its command, and what to add to the environment."""

    role: str
    argv: Sequence[str]
    env: Mapping[str, str]


@dataclass(frozen=True)
class Round:
    """What one round did: how many children it started, and how many it found dead."""

    started: int
    ended: int


@dataclass(eq=False)
class _Kept:
    """One child and what became of it so far; `due` and `started_at` are in the clock's monotonic seconds."""

    child: Child
    process: subprocess.Popen[bytes] | None = None
    kin: dict[int, psutil.Process] = field(default_factory=dict)
    due: float = 0.0
    started_at: float = 0.0
    failures: int = 0


class Supervisor:
    """Runs children until it is told to stop.

    `run_dir` gets `pids.json`, `{"web": [main, children…], …}`, while it runs. A dead child is started again
    after `restart_delay_s` seconds, after up to a second if it keeps ending as soon as it starts. On a stop each
    child has `stop_grace_s` seconds. `say` gets one readable line per event.
    """

    def __init__(
        self,
        children: Sequence[Child],
        *,
        run_dir: Path,
        clock: Clock,
        say: Callable[[str], None],
        restart_delay_s: float = 0.2,
        stop_grace_s: float = 4.0,
    ) -> None:
        self.stopping = threading.Event()
        """Set as soon as the stop begins: for what else the process does, such as synthetic traffic."""
        self._kept = [_Kept(child) for child in children]
        self._run_dir = run_dir
        self._pids_file = run_dir / "pids.json"
        self._births_file = run_dir / "processes.json"
        self._clock = clock
        self._tell = say
        self._restart_delay_s = restart_delay_s
        self._stop_grace_s = stop_grace_s
        self._published: dict[str, list[int]] | None = None
        self._asked_at: float | None = None
        self._at_once = False

    def run(self) -> None:
        """Keep the children running until SIGINT, SIGTERM or SIGHUP, then end them; SIGINT again ends them at once.

        From the main thread only (signals, and children that die with it). Raises `AlreadyRunningError` (of
        `router.processes`) if another supervisor has this run directory. What a killed predecessor left running
        is ended first.
        """
        with sole_keeper(self._run_dir / "supervisor.lock"), self._signals():
            left = end_remembered(self._births_file, self._clock, grace_s=self._stop_grace_s)
            if left:
                self._say(f"ended {_count(left, 'process')} that an earlier run had left behind")
            try:
                while self._asked_at is None:
                    self.run_once()
                    self._clock.sleep(_LOOK_S)
            finally:
                self.stop()

    def run_once(self) -> Round:
        """One round: bury who died, start who is due, publish the process ids."""
        now = self._clock.monotonic()
        dead = [kept for kept in self._kept if kept.process is not None and has_ended(kept.process)]
        for kept in dead:
            self._bury(kept, now)
        due = [kept for kept in self._kept if kept.process is None and now >= kept.due]
        for kept in due:
            self._start(kept, now)
        for kept in self._kept:
            self._settle(kept, now)
        self._look()
        self._publish()
        return Round(started=len(due), ended=len(dead))

    def _start(self, kept: _Kept, now: float) -> None:
        try:
            kept.process = launch(kept.child.argv, kept.child.env)
        except OSError as error:
            kept.due = now + _LONGEST_DELAY_S
            self._say(f"{kept.child.role} could not be started: {error.strerror}")
            return
        kept.started_at = now
        if kept.failures < 2:
            self._say(f"{kept.child.role} started (pid {kept.process.pid})")

    def _settle(self, kept: _Kept, now: float) -> None:
        """A child that was failing and has lived long enough is well again."""
        if kept.process is not None and kept.failures and now - kept.started_at >= _SETTLED_AFTER_S:
            if kept.failures > 1:
                self._say(f"{kept.child.role} stays up again (pid {kept.process.pid})")
            kept.failures = 0

    def _bury(self, kept: _Kept, now: float) -> None:
        """A child died by itself or by somebody's hand: end its orphans, and say when it is to be started again."""
        orphans = sum(is_alive(process) for process in kept.kin.values())
        status = self._end(kept)
        if status in _KILLED_FROM_OUTSIDE or now - kept.started_at >= _SETTLED_AFTER_S:
            kept.failures = 0
        else:
            kept.failures += 1
        delay_s = min(self._restart_delay_s * 2 ** max(0, kept.failures - 1), _LONGEST_DELAY_S)
        kept.due = now + delay_s
        if kept.failures < 2:
            ended = f", {_count(orphans, 'orphan')} ended" if orphans else ""
            self._say(f"{kept.child.role} {_manner(status)}{ended}; starting it again")
        elif kept.failures == 2:
            self._say(
                f"{kept.child.role} ends as soon as it starts ({_manner(status)}): trying on, at least every "
                f"{_LONGEST_DELAY_S:g} s, and silent until it stays up"
            )

    def _end(self, kept: _Kept) -> int:
        """SIGKILL whatever is left of a child, then reap it; its exit status.

        In this order: until the child is reaped, its process group's number cannot become somebody else's.
        """
        assert kept.process is not None
        kill_group(kept.process.pid)
        signal_all(kept.kin.values(), signal.SIGKILL)
        wait_gone(kept.kin.values(), self._clock)
        status = kept.process.wait()
        kept.process = None
        kept.kin.clear()
        return status

    def _look(self) -> None:
        """Remember every descendant seen; one whose parent has died cannot be found any more, only remembered."""
        found = descendants([kept.process.pid for kept in self._kept if kept.process is not None])
        for kept in self._kept:
            if kept.process is not None:
                kept.kin.update({process.pid: process for process in found[kept.process.pid]})
                kept.kin = {pid: process for pid, process in kept.kin.items() if is_alive(process)}

    def _publish(self) -> None:
        """Write the process ids if they changed: first for our successor, then for everybody."""
        pids: dict[str, list[int]] = {kept.child.role: [] for kept in self._kept}
        for kept in self._kept:
            if kept.process is not None:
                pids[kept.child.role] += [kept.process.pid, *sorted(kept.kin)]
        if pids == self._published:
            return
        processes = []
        for pid in itertools.chain.from_iterable(pids.values()):
            with contextlib.suppress(psutil.NoSuchProcess):
                processes.append(psutil.Process(pid))
        try:
            remember(self._births_file, processes)
            write_whole(self._pids_file, pids)
        except OSError as error:
            # A full disk: the children matter more than the list of them, which the next round writes anew.
            if self._published != {}:
                self._say(f"{self._pids_file.name} cannot be written: {error.strerror}")
            self._published = {}
            return
        self._published = pids

    def stop(self) -> None:
        """SIGTERM to every child, its grace, then SIGKILL to all that is left."""
        self.stopping.set()
        until = self._clock.monotonic() + self._stop_grace_s
        for kept in self._living():
            assert kept.process is not None
            os.kill(kept.process.pid, signal.SIGTERM)
        self._say("stopping")
        while self._living() and self._clock.monotonic() < until and not self._at_once:
            self._clock.sleep(_STOP_LOOK_S)
            self._look()
            for kept in self._living():
                assert kept.process is not None
                if has_ended(kept.process):
                    self._end(kept)
        for kept in self._living():
            self._say(f"{kept.child.role} did not stop: killed")
            self._end(kept)
        self._pids_file.unlink(missing_ok=True)
        self._births_file.unlink(missing_ok=True)
        self._say("stopped")

    def _living(self) -> list[_Kept]:
        return [kept for kept in self._kept if kept.process is not None]

    def _say(self, line: str) -> None:
        """Say it if anybody still listens: a closed terminal must not keep us from ending the children."""
        with contextlib.suppress(OSError):
            self._tell(line)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Turn the signals that mean "stop" into `_asked_at` and `_at_once`."""

        def asked(number: int, _frame: FrameType | None) -> None:
            now = self._clock.monotonic()
            if self._asked_at is None:
                self._asked_at = now
            elif number == signal.SIGINT and now - self._asked_at > _DOUBLED_SIGNAL_S:
                self._at_once = True

        before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def wait_until_ready(url: str, clock: Clock, timeout_s: float, stop: threading.Event | None = None) -> bool:
    """Ask `url` until it answers 2xx, at most `timeout_s` seconds or until `stop` is set; whether it did."""
    until = clock.monotonic() + timeout_s
    with urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(connect=0.5, read=2.0)) as http:
        while clock.monotonic() < until and not (stop and stop.is_set()):
            with contextlib.suppress(urllib3.exceptions.HTTPError):
                if 200 <= http.request("GET", url).status < 300:
                    return True
            clock.sleep(0.05)
    return False


def _manner(status: int) -> str:
    """How a process died, in words, from the status that `subprocess` gives."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def _count(number: int, noun: str) -> str:
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{number} {noun if number == 1 else plural}"
