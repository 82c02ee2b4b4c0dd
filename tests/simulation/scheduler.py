"""Runs many tasks as if at once, one at a time, in an order that a seed decides.

Every task has a thread, and one thread holds the baton. A task gives it on at each `step`: before and after every
commit, before every read, before and after every provider's call, and while it sleeps. Nothing else switches, so a
seed replays exactly. Time moves only when the scheduler goes on to the next thing that waits for it.
"""

from __future__ import annotations

import datetime as dt
import heapq
import itertools
import random
import threading
from collections.abc import Callable
from typing import Any

START = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
MOST_STEPS = 60_000
"""A seed takes some thousand; one that takes so many goes round in circles."""


class Killed(BaseException):
    """SIGKILL: unwinds a task whose process is gone; from then on each of its steps raises it again."""


class SimProcess:
    """An operating-system process: what is killed or paused together."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.paused_until = 0.0


class Task:
    """Something that runs in a process: a request, or a worker's loop."""

    __slots__ = ("body", "calls", "name", "process", "runner", "ticket", "troubled", "writes")

    def __init__(self, name: str, process: SimProcess, body: Callable[[], None]) -> None:
        self.name = name
        self.process = process
        self.body = body
        self.runner: _Runner | None = None
        self.ticket = 0
        """Which sleep it is in; 0: none."""
        self.writes = 0
        self.calls = 0
        self.troubled = False
        """A fault was injected into it."""


class _Runner(threading.Thread):
    """A thread that runs one task after another."""

    def __init__(self) -> None:
        super().__init__(daemon=True, name="simulated")
        self.gate = threading.Lock()
        self.gate.acquire()
        self.job: Callable[[], None] | None = None
        self.start()

    def run(self) -> None:
        while True:
            self.gate.acquire()
            job = self.job
            if job is None:
                return
            job()


_free: list[_Runner] = []


class Scheduler:
    """The baton, the clock and the seed. Satisfies `router.clock.Clock`."""

    def __init__(self, rng: random.Random, *, keep: float) -> None:
        self.rng = rng
        self.elapsed = 0.0
        self.trace: list[tuple[float, str, str]] = []
        self.aborting = False
        self.chaos: Callable[[Task, str], None] | None = None
        self.in_transaction = False
        self.on_open_transaction: Callable[[str], None] = lambda _label: None
        self._keep = keep
        self._steps = 0
        self._ready: list[Task] = []
        self._timers: list[tuple[float, int, Any]] = []
        self._numbers = itertools.count(1)
        self._tasks: list[Task] = []
        self._main = threading.Lock()
        self._main.acquire()
        self.current: Task = Task("nobody", SimProcess("none"), lambda: None)

    # ------------------------------------------------------------ the clock

    def now(self) -> dt.datetime:
        """The wall clock."""
        return START + dt.timedelta(seconds=self.elapsed)

    def monotonic(self) -> float:
        """Seconds since the beginning."""
        return self.elapsed

    def sleep(self, seconds: float) -> None:
        """Let the others go on for that long."""
        task = self.current
        self._check(task)
        self.trace.append((self.elapsed, task.name, "sleep"))
        if self.chaos is not None:
            self.chaos(task, "sleep")
        self._sleep_until(task, self.elapsed + max(0.0, seconds))

    # ------------------------------------------------------------ what tasks do

    def step(self, label: str) -> None:
        """A point where another task may go on, and where the process may be killed or paused."""
        task = self.current
        self._check(task)
        self._steps += 1
        if self._steps > MOST_STEPS:
            self.aborting = True
            raise Killed
        if self.in_transaction:
            self.on_open_transaction(label)
        self.trace.append((self.elapsed, task.name, label))
        if self.chaos is not None:
            self.chaos(task, label)
        if self.rng.random() < self._keep:
            return
        self._ready.append(task)
        self._give_on(task)

    @property
    def endless(self) -> bool:
        """Whether it went round in circles."""
        return self._steps > MOST_STEPS

    def note(self, text: str) -> None:
        """A line in the trace that is no step."""
        self.trace.append((self.elapsed, self.current.name, text))

    # ------------------------------------------------------------ what the world does

    def spawn(self, name: str, process: SimProcess, body: Callable[[], None]) -> None:
        """A new task."""
        task = Task(name, process, body)
        self._tasks.append(task)
        self._ready.append(task)

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something after that time, outside every task; it must not step."""
        heapq.heappush(self._timers, (self.elapsed + seconds, next(self._numbers), action))

    def kill(self, process: SimProcess) -> None:
        """End a process where it stands."""
        process.dead = True
        for task in self._tasks:
            if task.process is process and task.ticket:
                task.ticket = 0
                self._ready.append(task)

    def pause(self, process: SimProcess, seconds: float) -> None:
        """Stop a process for that long, whatever it is at."""
        process.paused_until = self.elapsed + seconds
        for task in self._tasks:
            task.troubled = task.troubled or task.process is process

    def run(self) -> None:
        """Until nothing is left to do."""
        if self._hand_over():
            self._main.acquire()

    # ------------------------------------------------------------ the baton

    def _check(self, task: Task) -> None:
        if task.process.dead or self.aborting:
            raise Killed

    def _sleep_until(self, task: Task, at: float) -> None:
        task.ticket = next(self._numbers)
        heapq.heappush(self._timers, (at, task.ticket, task))
        self._give_on(task)

    def _give_on(self, task: Task) -> None:
        following = self._next()
        if following is not task:
            self.current = following
            runner = task.runner
            assert runner is not None
            self._wake(following)
            runner.gate.acquire()
        self._check(task)

    def _next(self) -> Task:
        found = self._pick()
        assert found is not None, "the task that asks is waiting, so there is one"
        return found

    def _pick(self) -> Task | None:
        while True:
            if self._ready:
                number = int(self.rng.random() * len(self._ready))
                task = self._ready[number]
                self._ready[number] = self._ready[-1]
                self._ready.pop()
                if task.process.paused_until > self.elapsed and not task.process.dead and not self.aborting:
                    task.ticket = next(self._numbers)
                    heapq.heappush(self._timers, (task.process.paused_until, task.ticket, task))
                    continue
                return task
            if not self._timers:
                return None
            at, ticket, waiting = heapq.heappop(self._timers)
            if isinstance(waiting, Task):
                if waiting.ticket != ticket:
                    continue  # it was killed in its sleep
                waiting.ticket = 0
                self._ready.append(waiting)
            elif not self.aborting:
                self.elapsed = max(self.elapsed, at)
                waiting()
                continue
            self.elapsed = max(self.elapsed, at)

    def _wake(self, task: Task) -> None:
        if task.runner is None:
            task.runner = runner = _free.pop() if _free else _Runner()
            runner.job = lambda: self._work(task)
        task.runner.gate.release()

    def _work(self, task: Task) -> None:
        try:
            if not self.aborting:
                task.body()  # of a dead process it ends at its first step
        except Killed:
            pass
        self._tasks.remove(task)
        assert task.runner is not None
        _free.append(task.runner)
        if not self._hand_over():
            self._main.release()

    def _hand_over(self) -> bool:
        following = self._pick()
        if following is None:
            return False
        self.current = following
        self._wake(following)
        return True
