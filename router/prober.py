"""Sends synthetic probes without waiting for them, each on record before it goes out."""

from __future__ import annotations

import dataclasses
import datetime as dt
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from providers.contract import Health, ProbeResult, Provider, Timeouts
from router.clock import Clock
from router.ledger.probes import Probe
from router.probing import Ticket

log = structlog.get_logger("router.prober")

UNDER_WAY_AT_MOST = 16
"""A probe that hangs keeps its thread until its call times out: several rounds' worth of two at once, and no more."""

Start = Callable[[Callable[[], None]], object]
"""Begins a task without waiting for it."""


class ProbeStore(Protocol):
    """Where probes are on record: the ledger."""

    def begin(self, probe: Probe) -> bool:
        """Commit that it is about to be sent; False when another process has sent it."""

    def finish(self, probe: Probe) -> None:
        """Commit how it ended."""


@dataclass(frozen=True, slots=True)
class Returned:
    """A probe that has ended."""

    provider: str
    ticket: Ticket
    healthy: bool | None
    """None: it says nothing of the provider."""
    reason: str | None
    began_at: float
    """Monotonic seconds, as is `ended_at`."""
    ended_at: float
    fault: BaseException | None = None
    """An interrupt or exit, to be raised again."""


def on_a_thread(task: Callable[[], None]) -> None:
    """A thread of its own, which does not keep the process from ending: a pool's would, and would queue."""
    threading.Thread(target=task, name="probe", daemon=True).start()


class Prober:
    """One process's probes. One loop sends and collects; they end on threads of their own."""

    def __init__(
        self,
        providers: Mapping[str, Provider],
        store: ProbeStore,
        *,
        actor: str,
        timeouts: Timeouts,
        clock: Clock,
        start: Start = on_a_thread,
    ) -> None:
        self._providers = providers
        self._store = store
        self._actor = actor
        self._timeouts = timeouts
        self._clock = clock
        self._start = start
        self._ended: deque[tuple[Probe, Returned]] = deque()
        self._unwritten: deque[Probe] = deque()
        self._news = threading.Event()
        self._lock = threading.Lock()
        self._under_way = 0

    def send(self, provider: str, ticket: Ticket) -> bool:
        """Send it; False: not sent, as another process has sent this one, or too many of ours hang.

        Raises LedgerUnavailableError: not on record, so not sent.
        """
        with self._lock:
            if self._under_way >= UNDER_WAY_AT_MOST:
                log.warning("probes_hang", provider=provider, under_way=self._under_way)
                return False
        probe = Probe(provider, ticket.round, ticket.nth, self._actor, self._clock.now())
        if not self._store.begin(probe):
            return False
        with self._lock:
            self._under_way += 1
        try:
            self._start(lambda: self._call(probe, ticket))
        except BaseException:
            with self._lock:
                self._under_way -= 1
            raise
        return True

    def returned(self) -> Sequence[Returned]:
        """The probes that have ended since the last time, in the order in which they did."""
        self._news.clear()
        ended: list[Returned] = []
        while self._ended:
            probe, returned = self._ended.popleft()
            self._unwritten.append(probe)
            ended.append(returned)
        return sorted(ended, key=lambda each: each.ended_at)

    def write(self) -> None:
        """Commit how they ended. Raises LedgerUnavailableError; what is left is kept for the next time."""
        while self._unwritten:
            self._store.finish(self._unwritten[0])
            self._unwritten.popleft()

    def wait_for_news(self, timeout_s: float) -> None:
        """Wait until a probe has ended, or the time is over."""
        self._news.wait(timeout_s)

    def wake(self) -> None:
        """End such a wait now."""
        self._news.set()

    def _call(self, probe: Probe, ticket: Ticket) -> None:
        began_at = self._clock.monotonic()
        result, fault = ProbeResult(Health.IGNORED), None
        try:
            result = self._providers[probe.provider].probe(timeouts=self._timeouts)
        except Exception as error:
            # A fault of ours says nothing of the provider.
            log.exception("probe_raised", provider=probe.provider)
            result = ProbeResult(Health.IGNORED, f"raised {type(error).__name__}")
        except BaseException as error:  # noqa: BLE001 - carried to the loop, which raises it again
            fault = error
        ended_at = self._clock.monotonic()
        healthy = None if result.health is Health.IGNORED else result.healthy
        reason = result.reason or (None if healthy else result.health.value)
        latency = dt.timedelta(seconds=ended_at - began_at)
        with self._lock:
            self._under_way -= 1
        self._ended.append(
            (
                dataclasses.replace(probe, healthy=healthy, reason=reason, latency=latency),
                Returned(probe.provider, ticket, healthy, reason, began_at, ended_at, fault),
            )
        )
        self._news.set()
