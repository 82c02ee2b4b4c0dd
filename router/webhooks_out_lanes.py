"""The threads that send webhooks: one looks for what is due, others send, and the slow have theirs to themselves."""

from __future__ import annotations

import queue
import threading

from router.loops import Loop, Loops
from router.webhooks_out import Due, Relay

LOOK_INTERVAL_S = 0.25
WAIT_S = 0.25
"""How long an idle thread takes to see a stop."""
WELL_THREADS = 4
POORLY_THREADS = 8
"""Each is held by one endpoint for a round: 5 s, and 10 s more where its last send hangs. An endpoint that begins to
hang holds one of the first kind, once; from then on, while it fails or is slow, one of the second kind."""


class Lanes:
    """Hands endpoints that are due to threads. One a process."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._lock = threading.Lock()
        self._taken: set[str] = set()
        self._well: queue.SimpleQueue[Due] = queue.SimpleQueue()
        self._poorly: queue.SimpleQueue[Due] = queue.SimpleQueue()

    def look_once(self) -> int:
        """Queue every endpoint that is due and not queued. Says how many."""
        queued = 0
        for due in self._relay.due():
            with self._lock:
                if due.candidate.endpoint.id in self._taken:
                    continue
                self._taken.add(due.candidate.endpoint.id)
            (self._poorly if due.is_poorly else self._well).put(due)
            queued += 1
        return queued

    def send_well(self) -> int:
        """Wait a moment for an endpoint that is well, and send to it. Says how many events it accepted."""
        return self._send(self._well)

    def send_poorly(self) -> int:
        """Likewise for one that fails or is slow."""
        return self._send(self._poorly)

    def _send(self, waiting: queue.SimpleQueue[Due]) -> int:
        try:
            due = waiting.get(timeout=WAIT_S)
        except queue.Empty:
            return 0
        try:
            # What was found when it was queued may be old: the claim refuses a position that has moved.
            return self._relay.round(due)
        finally:
            with self._lock:
                self._taken.discard(due.candidate.endpoint.id)


def add_lanes(loops: Loops, relay: Relay) -> None:
    """Put the threads among a worker's loops."""
    lanes = Lanes(relay)
    loops.add(Loop("webhooks-out", lanes.look_once, loops.pause(LOOK_INTERVAL_S)))
    for number in range(WELL_THREADS):
        loops.add(Loop(f"webhooks-well-{number}", lanes.send_well, _at_once))
    for number in range(POORLY_THREADS):
        loops.add(Loop(f"webhooks-poorly-{number}", lanes.send_poorly, _at_once))


def _at_once() -> None:
    """The round itself waits."""
