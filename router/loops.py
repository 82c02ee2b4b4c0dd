"""Runs a `run_once` again and again on a thread of its own, until told to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from router.ledger.unavailable import LedgerUnavailableError

log = structlog.get_logger("router.loops")


def _nobody() -> None:
    """The wait is one of `Loops.pause`, which a stop cuts short by itself."""


@dataclass(frozen=True, slots=True)
class Loop:
    """One loop: a round, how long to wait after it, and how a stop ends a wait for something else than a stop."""

    name: str
    run_once: Callable[[], object]
    wait: Callable[[], object]
    wake: Callable[[], object] = _nobody


class Loops:
    """Threads, one a loop. A round that fails is logged, and the next one is tried."""

    def __init__(self, ended: Callable[[str, str], None] = lambda _loop, _result: None) -> None:
        """`ended` is told of each round: its loop, and `ok`, `ledger_unavailable` or `failed`. It raises nothing."""
        self._ended = ended
        self._stop = threading.Event()
        self._loops: list[Loop] = []
        self._threads: list[threading.Thread] = []

    def add(self, loop: Loop) -> None:
        """One more loop; it begins with `start`."""
        self._loops.append(loop)
        self._threads.append(threading.Thread(target=self._run, args=(loop,), name=loop.name, daemon=True))

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self, within_s: float) -> bool:
        """Ask every loop to stop, and wait that long for the rounds under way; whether all have stopped.

        A thread that is still inside a provider's call then is left behind: what it does is on record as started.
        """
        self._stop.set()
        for loop in self._loops:
            loop.wake()
        until = time.monotonic() + within_s
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def are_alive(self) -> bool:
        """Whether every loop still has its thread: what a process's supervisor should know."""
        return all(thread.is_alive() for thread in self._threads)

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for: a long round looks at it between its parts."""
        return self._stop.is_set()

    def pause(self, seconds: float) -> Callable[[], object]:
        """A wait of that many seconds that `stop` cuts short."""
        return lambda: self._stop.wait(seconds)

    def _run(self, loop: Loop) -> None:
        failing = False
        while not self._stop.is_set():
            result = "failed"
            try:
                loop.run_once()
                failing, result = False, "ok"
            except LedgerUnavailableError as error:
                # Said once, not with every round: a database that is away is away for a while. Whoever is to be
                # woken hears of it from the circuits (`ProviderHealth.sync_once`), once a process and not a loop.
                if not failing:
                    log.info("ledger_unavailable", loop=loop.name, cause=str(error))
                failing, result = True, "ledger_unavailable"
            except Exception:
                # A loop must outlive any one round; the fault is reported, with its traceback.
                log.exception("round_failed", loop=loop.name)
            except BaseException:
                # An exit or interrupt that some library raises: on this thread it would end the loop alone, and
                # silently. The process goes on, which has customers; who wants it to end sends it a signal.
                log.critical("round_exited", loop=loop.name, exc_info=True)
            self._ended(loop.name, result)
            # A round may have taken the waking for the news that it was about; then this says what it was.
            if not self._stop.is_set():
                loop.wait()
