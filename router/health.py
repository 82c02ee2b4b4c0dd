"""The providers' health as one process knows it: a circuit each, shared through the ledger.

A payment asks and tells here without waiting for anything: `admit`, `learn`. `Followed by the ledger` is a
matter of `sync_once`, which a thread of every process calls several times a second.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import structlog

from providers.contract import Health as HealthSignal
from router.breaker import Breaker, BreakerSettings, Permit, Snapshot, State, Transition
from router.clock import Clock

SYNC_INTERVAL_S = 0.2
"""Design: processes of one machine follow a transition within 250 ms; reading a few rows takes a few of them."""

log = structlog.get_logger("router.health")

# Whether a send's health signal counts as a failure of the provider; None: it says nothing.
_FAILED: Mapping[HealthSignal, bool | None] = {
    HealthSignal.OK: False,
    HealthSignal.UNREACHABLE: True,
    HealthSignal.PROVIDER_ERROR: True,
    HealthSignal.CREDENTIALS_REFUSED: None,
    HealthSignal.IGNORED: None,
}


class TransitionStore(Protocol):
    """Where transitions are shared: the ledger."""

    def append(self, transition: Transition) -> bool:
        """Commit; False when that version exists."""

    def latest(self, providers: Iterable[str]) -> Sequence[Transition]:
        """The last transition of each of these circuits."""


class ProviderHealth:
    """Every provider's circuit in this process. Thread-safe."""

    def __init__(
        self, providers: Iterable[str], settings: BreakerSettings, *, store: TransitionStore, clock: Clock, actor: str
    ) -> None:
        self.settings = settings
        self.actor = actor
        self._clock = clock
        self._store = store
        self._breakers = {name: Breaker(name, settings, now=clock.now()) for name in providers}
        # Transitions decided here that the ledger does not hold yet. They are in force already.
        self._unwritten: deque[Transition] = deque()
        self._wake = threading.Event()

    def admit(self, provider: str) -> Permit | None:
        """A permit for a payment to call this provider, or None while its circuit is not closed."""
        return self._breakers[provider].admit()

    def learn(self, permit: Permit, signal: HealthSignal) -> None:
        """Learn what the call that this permit allowed says of the provider."""
        failed = _FAILED[signal]
        if failed is None:
            return
        breaker = self._breakers[permit.provider]
        transition = breaker.record(permit, failed=failed, now=self._clock.now(), actor=self.actor)
        if transition is not None:
            log.warning("circuit", provider=transition.provider, state=transition.state, reason=transition.reason)
            self._unwritten.append(transition)
            self._wake.set()

    def snapshot(self, provider: str) -> Snapshot:
        """A provider's circuit now."""
        return self._breakers[provider].snapshot()

    def is_closed(self, provider: str) -> bool:
        """Whether payments may call this provider."""
        return self.snapshot(provider).state is State.CLOSED

    def sync_once(self) -> int:
        """Write what was decided here, follow what others wrote. Answers how many circuits changed.

        Raises LedgerUnavailableError; what could not be written is kept for the next call.
        """
        while self._unwritten:
            # A version that exists already is another process's decision: it is adopted below.
            self._store.append(self._unwritten[0])
            self._unwritten.popleft()
        changed = 0
        for transition in self._store.latest(self._breakers):
            breaker = self._breakers.get(transition.provider)
            if breaker is not None and breaker.adopt(transition):
                changed += 1
                log.info("circuit", provider=transition.provider, state=transition.state, reason=transition.reason)
        return changed

    def propose(self, transition: Transition) -> bool:
        """Write a transition decided by the worker and follow it; False when another process was first."""
        written = self._store.append(transition)
        if written:
            self._breakers[transition.provider].adopt(transition)
        return written

    def wait_for_news(self, timeout_s: float) -> None:
        """Wait until something was decided here, or the time is over."""
        self._wake.wait(timeout_s)
        self._wake.clear()
