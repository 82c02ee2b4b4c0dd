"""What guarding a call costs: this breaker beside four libraries, in one process, by turns.

    make bench-breaker

Three loads: a call that does nothing, from one thread; the same from eight; and eight threads of calls of 20 ms,
where a breaker that holds a lock across the call shows. Every round runs all of them one after another, beginning
with another each time, so that whatever else the machine does hits all; ratios are of runs of one round.
"""

from __future__ import annotations

import argparse
import datetime as dt
import functools
import importlib
import itertools
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from router.breaker import Breaker, BreakerSettings, Verdict

THREADS = 8
SLOW_CALL_S = 0.02
OURS = "pointsman"
YARDSTICK = "pybreaker"
SINGLE_LIMIT = 1.1
"""Times pybreaker, one thread: what issue 3 asks."""
PARALLEL_LIMIT = 1.25
"""Times unguarded, eight threads of 20 ms; a lock across the call makes it eight."""

Call = Callable[[], object]
Guard = Callable[[Call], object]


def pointsman(failing: int = 0) -> Guard:
    """The way in which a send is guarded: admit, call, record; give back what was interrupted.

    With `failing`, one call in so many is recorded as failed, so that the windows are never calm.
    """
    breaker = Breaker("bench", BreakerSettings(), wall=lambda: dt.datetime.now(dt.UTC), actor="bench")
    admit, record, monotonic, ok = breaker.admit, breaker.record, time.monotonic, Verdict.OK

    def guard(call: Call) -> object:
        permit = admit(monotonic())
        if permit is None:
            raise RuntimeError("refused")
        try:
            answer = call()
        except BaseException:
            breaker.give_back(permit)
            raise
        record(permit, ok, monotonic())
        return answer

    if not failing:
        return guard
    fails = itertools.cycle([True, *[False] * (failing - 1)])

    def guard_failing(call: Call) -> object:
        if not next(fails):
            return guard(call)
        permit = admit(monotonic())
        return record(permit, Verdict.PROVIDER_ERROR, monotonic()) if permit else call()

    return guard_failing


def pybreaker() -> Guard:
    """Its lock is held across the call."""
    guard: Guard = _library("pybreaker").CircuitBreaker(fail_max=5, reset_timeout=30).call
    return guard


def circuitbreaker() -> Guard:
    """Counts a streak, without a lock."""
    guard: Guard = _library("circuitbreaker").CircuitBreaker().call
    return guard


def purgatory() -> Guard:
    """Guards by a context manager only."""
    breaker = _library("purgatory").SyncCircuitBreakerFactory().get_breaker("bench")

    def guard(call: Call) -> object:
        with breaker:
            return call()

    return guard


def interlock() -> Guard:
    """The nearest to ours in what it can do: rates over a window, slow calls."""
    library = _library("interlock")
    config = library.Config(slow_call_duration_threshold=3.0, slow_call_rate_threshold=0.3)
    guard: Guard = library.CircuitBreaker(name="bench", config=config).call
    return guard


def unguarded() -> Guard:
    """The call and nothing else."""
    return lambda call: call()


def _library(name: str) -> Any:
    return importlib.import_module(name)


GUARDS: dict[str, Callable[[], Guard]] = {
    "unguarded": unguarded,
    OURS: pointsman,
    f"{OURS}, 5% fail": functools.partial(pointsman, failing=20),
    YARDSTICK: pybreaker,
    "circuitbreaker": circuitbreaker,
    "purgatory": purgatory,
    "interlock-cb": interlock,
}


def nothing() -> None:
    """The call that is guarded."""


def one_thread(guard: Guard, calls: int) -> float:
    """Nanoseconds a call."""
    begun = time.perf_counter()
    for _ in range(calls):
        guard(nothing)
    return (time.perf_counter() - begun) / calls * 1e9


def many_threads(guard: Guard, call: Call, calls: int) -> float:
    """Seconds until each of the threads has made so many calls."""
    barrier = threading.Barrier(THREADS + 1)

    def work() -> None:
        barrier.wait()
        for _ in range(calls):
            guard(call)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    barrier.wait()
    begun = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begun


def main() -> int:
    """Measure and print; 1 when a limit is missed and `--check` asks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--calls", type=int, default=10_000, help="of a run by one thread")
    parser.add_argument("--slow-rounds", type=int, default=5, help="rounds of eight threads of 20 ms calls")
    parser.add_argument("--check", action="store_true", help="fail when a limit of issue 3 is missed")
    options = parser.parse_args()
    guards = {}
    for name, build in GUARDS.items():
        try:
            guards[name] = build()
        except ImportError as fault:
            sys.stderr.write(f"{name} is left out: {fault}\n")
    single: dict[str, list[float]] = {name: [] for name in guards}
    eight: dict[str, list[float]] = {name: [] for name in guards}
    slow: dict[str, list[float]] = {name: [] for name in guards}
    names = list(guards)
    for number in range(options.rounds + 1):
        for name in names:
            guard = guards[name]
            took = one_thread(guard, options.calls)
            each = many_threads(guard, nothing, options.calls // THREADS) / (options.calls // THREADS * THREADS)
            if number:  # the first round warms up
                single[name].append(took)
                eight[name].append(each * 1e9)
                if number <= options.slow_rounds:
                    slow[name].append(many_threads(guard, lambda: time.sleep(SLOW_CALL_S), 10))
        names.append(names.pop(0))
    return _report(single, eight, slow, check=options.check)


def _report(
    single: dict[str, list[float]], eight: dict[str, list[float]], slow: dict[str, list[float]], *, check: bool
) -> int:
    rounds = len(single[OURS])
    _say(f"Python {sys.version.split()[0]}; {rounds} rounds by turns; medians (best)\n")
    heads = ("", "1 thread, ns/call", f"x {YARDSTICK}", "8 threads, ns/call", "8 x 20 ms, x unguarded")
    _say("{:<20}{:>20}{:>13}{:>21}{:>25}".format(*heads))
    for name, took in single.items():
        beside = _ratio(took, single[YARDSTICK]) if YARDSTICK in single else float("nan")
        parallel = _ratio(slow[name], slow["unguarded"])
        _say(f"{name:<20}{_figures(took):>20}{beside:>13.2f}{_figures(eight[name]):>21}{parallel:>25.2f}")
    failed = []
    if YARDSTICK in single and _ratio(single[OURS], single[YARDSTICK]) > SINGLE_LIMIT:
        failed.append(f"slower than {SINGLE_LIMIT} x {YARDSTICK}")
    if _ratio(slow[OURS], slow["unguarded"]) > PARALLEL_LIMIT:
        failed.append("calls wait for each other")
    if failed:
        _say(f"\nmissed: {'; '.join(failed)}")
    return 1 if failed and check else 0


def _ratio(some: list[float], others: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(some, others, strict=True))


def _figures(values: list[float]) -> str:
    return f"{statistics.median(values):,.0f} ({min(values):,.0f})"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
