"""Several threads at one instant."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence


def together(actions: Sequence[Callable[[], object]]) -> None:
    """Run each action on a thread of its own, all from the same instant; raises what the first of them raised."""
    barrier = threading.Barrier(len(actions))
    faults: list[BaseException] = []

    def run(action: Callable[[], object]) -> None:
        try:
            barrier.wait(10)
            action()
        except BaseException as fault:  # noqa: BLE001 - carried over to the test's own thread
            faults.append(fault)

    threads = [threading.Thread(target=run, args=(action,), daemon=True) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "a thread did not end"
    if faults:
        raise faults[0]


@contextlib.contextmanager
def eager() -> Iterator[None]:
    """Threads are switched a thousand times as often as usual, so that a race shows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
