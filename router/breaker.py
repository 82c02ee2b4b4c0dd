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


WINDOW_CALLS = 20
"""Ten failures in a row are half of it: a full outage trips within ten calls, even after a long calm."""


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """How a circuit judges and recovers."""

    window_calls: int = WINDOW_CALLS
    """The last calls that count."""
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
    round_deadline_s: float = 45.0
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
    incident: str | None = None
    """The incident that this belongs to: from the first OPEN until the circuit has been CLOSED for five minutes."""
    open_time: dt.timedelta = dt.timedelta()
    """Time of the incident, before this transition, in which the circuit was not CLOSED."""

    def open_time_at(self, now: dt.datetime) -> dt.timedelta:
        """The incident's open time so far, this being the circuit's last transition."""
        return self.open_time + (dt.timedelta() if self.state is State.CLOSED else now - self.at)


INCIDENT_OVER_AFTER = dt.timedelta(minutes=5)
"""How long a circuit must have been CLOSED for its incident to be over (design §2)."""


def following(
    last: Transition | None,
    state: State,
    *,
    provider: str,
    at: dt.datetime,
    actor: str,
    reason: str,
    failed_rounds: int = 0,
    evidence: Mapping[str, Any] | None = None,
) -> Transition:
    """The transition after `last`, with its version and its incident carried on. Two processes that saw the same
    `last` name the same incident, so a circuit that closes for a moment and opens again adds to one incident.
    """
    version = 1 if last is None else last.version + 1
    goes_on = (
        last is not None
        and last.incident is not None
        and not (last.state is State.CLOSED and at - last.at >= INCIDENT_OVER_AFTER)
    )
    incident: str | None = f"inc_{provider}_{version}" if state is not State.CLOSED else None
    open_time = dt.timedelta()
    if goes_on and last is not None:
        incident, open_time = last.incident, last.open_time_at(at)
    return Transition(
        provider=provider,
        version=version,
        state=state,
        at=at,
        actor=actor,
        reason=reason,
        failed_rounds=failed_rounds,
        evidence=evidence or {},
        incident=incident,
        open_time=open_time,
    )


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
    window: Window
    last: Transition | None
    """What brought it here; None: it has never left CLOSED."""

    @property
    def failed_rounds(self) -> int:
        """Rounds of probes that failed since it opened."""
        return self.last.failed_rounds if self.last is not None else 0


class Breaker:
    """Thread-safe; the lock is held for arithmetic only, never across a call."""

    def __init__(self, provider: str, settings: BreakerSettings, *, now: dt.datetime) -> None:
        self.provider = provider
        self._settings = settings
        self._lock = threading.Lock()
        self._state = State.CLOSED
        self._since = now
        self._last: Transition | None = None
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
            transition = following(
                self._last,
                State.OPEN,
                provider=self.provider,
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
            last = self._last
            # Under one version the ledger's row is the truth: of two processes that opened at once, the one that
            # lost must know the moment and the incident that were written.
            if last is not None and (transition.version < last.version or transition == last):
                return False
            self._enter(transition)
            return True

    def snapshot(self) -> Snapshot:
        """The circuit now."""
        with self._lock:
            version = 0 if self._last is None else self._last.version
            return Snapshot(self.provider, self._state, version, self._since, self._window(), self._last)

    def _enter(self, transition: Transition) -> None:
        self._state = transition.state
        self._since = transition.at
        self._last = transition
        self._generation += 1
        if transition.state is State.CLOSED:
            # After closing the window starts empty: yesterday's failures say nothing of today.
            self._results.clear()
            self._failures = 0

    def _window(self) -> Window:
        return Window(len(self._results), self._failures, self._settings.minimum_calls, self._settings.failure_rate)
