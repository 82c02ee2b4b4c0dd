"""One provider's circuit, seen from one process. Pure: no I/O, no clock of its own; `now` is passed in.

The rules are those of resilience4j, with gobreaker's generations, so that a late answer never moves a circuit
that has moved on. CLOSED to OPEN is decided here, at once, on this process's own window. OPEN to HALF_OPEN and
on is decided by the worker, with synthetic probes; every process follows the ledger's transitions (`adopt`).
"""

from __future__ import annotations

import datetime as dt
import enum
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class State(enum.StrEnum):
    """What a circuit lets through."""

    CLOSED = "closed"
    """Every payment."""
    OPEN = "open"
    """Nothing."""
    HALF_OPEN = "half_open"
    """The worker's synthetic probes, and no payment."""


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """How a circuit judges and recovers."""

    window_calls: int = 20
    """The last calls that count. Twenty notice a full outage within minimum_calls calls even after a long calm."""
    minimum_calls: int = 10
    """Fewer calls than this never trip; a minimum above the window is capped by it."""
    failure_rate: float = 0.5
    """A share of failures equal to this, or above it, trips."""
    open_wait_s: float = 10.0
    """Seconds a circuit stays open before the first round of probes."""
    wait_multiplier: float = 1.5
    maximum_wait_s: float = 15.0
    """Seconds between rounds of probes, however many failed: what a recovered provider waits at most."""
    probes: int = 5
    """Synthetic probes of a round; one that fails re-opens the circuit."""
    round_deadline_s: float = 30.0
    """A half-open round unfinished after this many seconds re-opens: the worker that ran it is gone."""

    def wait_s(self, failed_rounds: int) -> float:
        """Seconds to wait in OPEN after that many failed rounds."""
        longest = max(self.open_wait_s, self.maximum_wait_s)
        # The exponent is capped: a week of failed rounds must not overflow a float.
        return min(self.open_wait_s * self.wait_multiplier ** min(failed_rounds, 32), longest)


@dataclass(frozen=True, slots=True)
class Transition:
    """A circuit's change of state: a ledger row, and the audit record of who or what, when and why."""

    provider: str
    version: int
    state: State
    at: dt.datetime
    actor: str
    """The process that decided."""
    reason: str
    failed_rounds: int = 0
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """The window's figures."""


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave for one call; `generation` tells a late answer from a current one."""

    provider: str
    generation: int


@dataclass(frozen=True, slots=True)
class Window:
    """Figures of the calls that count now."""

    calls: int
    failures: int
    minimum_calls: int
    failure_rate_threshold: float

    @property
    def failure_rate(self) -> float | None:
        """Share of failures; None before the first call."""
        return self.failures / self.calls if self.calls else None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A circuit at one moment, never torn."""

    provider: str
    state: State
    version: int
    since: dt.datetime
    failed_rounds: int
    window: Window


class Breaker:
    """Thread-safe; the lock is held for arithmetic only, never across a call."""

    def __init__(self, provider: str, settings: BreakerSettings, *, now: dt.datetime) -> None:
        self.provider = provider
        self._settings = settings
        self._lock = threading.Lock()
        self._state = State.CLOSED
        self._version = 0
        self._since = now
        self._failed_rounds = 0
        self._generation = 0
        self._results: deque[bool] = deque(maxlen=settings.window_calls)
        self._failures = 0

    def admit(self) -> Permit | None:
        """A permit for a customer's payment, or None while the circuit is not closed."""
        with self._lock:
            return Permit(self.provider, self._generation) if self._state is State.CLOSED else None

    def record(self, permit: Permit, *, failed: bool, now: dt.datetime, actor: str) -> Transition | None:
        """Learn how an admitted call ended. The transition that this causes, if it does, is already in force here.

        The answer to a call that was admitted in another generation changes nothing.
        """
        with self._lock:
            if permit.generation != self._generation or self._state is not State.CLOSED:
                return None
            if len(self._results) == self._results.maxlen:
                self._failures -= self._results[0]
            self._results.append(failed)
            self._failures += failed
            window = self._window()
            needed = min(self._settings.minimum_calls, self._settings.window_calls)
            rate = window.failure_rate or 0.0
            if window.calls < needed or rate < self._settings.failure_rate:
                return None
            evidence = {"calls": window.calls, "failures": window.failures, "failure_rate": round(rate, 4)}
            transition = Transition(
                provider=self.provider,
                version=self._version + 1,
                state=State.OPEN,
                at=now,
                actor=actor,
                reason=f"{window.failures} of the last {window.calls} calls failed",
                evidence=evidence,
            )
            self._enter(transition)
            return transition

    def adopt(self, transition: Transition) -> bool:
        """Follow a transition that the ledger holds; one that is not newer than ours changes nothing."""
        with self._lock:
            if transition.version < self._version:
                return False
            if transition.version == self._version and transition.state is self._state:
                return False
            self._enter(transition)
            return True

    def snapshot(self) -> Snapshot:
        """The circuit now."""
        with self._lock:
            return Snapshot(
                self.provider, self._state, self._version, self._since, self._failed_rounds, self._window()
            )

    def _enter(self, transition: Transition) -> None:
        self._state = transition.state
        self._version = transition.version
        self._since = transition.at
        self._failed_rounds = transition.failed_rounds
        self._generation += 1
        if transition.state is State.CLOSED:
            # After closing the window starts empty: yesterday's failures say nothing of today.
            self._results.clear()
            self._failures = 0

    def _window(self) -> Window:
        return Window(len(self._results), self._failures, self._settings.minimum_calls, self._settings.failure_rate)
