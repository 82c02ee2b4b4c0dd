"""What circuits write to the ledger and follow from it: states, transitions and incidents. Pure."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from router.windows import SlowWindow, Window


class State(enum.StrEnum):
    """What a circuit lets through."""

    CLOSED = "closed"
    """Every payment."""
    OPEN = "open"
    """Nothing."""
    HALF_OPEN = "half_open"
    """The worker's synthetic probes, and no payment."""
    SLOW_START = "slow_start"
    """A growing share of what the router would send."""
    FORCED_OPEN = "forced_open"
    """Nothing, by an operator's word, whatever the time."""
    BYPASS = "bypass"
    """Every payment, by an operator's word; nothing is counted."""
    METRICS_ONLY = "metrics_only"
    """Every payment, by an operator's word; calls count and never trip."""


ADMITTING = frozenset({State.CLOSED, State.SLOW_START, State.BYPASS, State.METRICS_ONLY})
"""Payments pass."""
NOT_OPEN_TIME = frozenset({State.CLOSED, State.FORCED_OPEN, State.BYPASS, State.METRICS_ONLY})
"""States that add no open time to an incident: payments pass, or an operator keeps them away, which is no outage."""
OVERRIDES = frozenset({State.FORCED_OPEN, State.BYPASS, State.METRICS_ONLY})
"""States that only an operator enters."""

INCIDENT_OVER_AFTER = dt.timedelta(minutes=5)
"""How long a circuit must have been CLOSED for its incident to be over (design §2)."""


ORDERED = "ordered"
"""In the evidence of a transition that is like one of the machine's own, and was an operator's order: which."""
RELEASED = "released"
"""In the evidence of the transition that ended an override, and of the first round of probes after it: which."""


@dataclass(frozen=True, slots=True)
class Transition:
    """A circuit's change: a ledger row, and the audit record of who or what, when and why."""

    provider: str
    version: int
    state: State
    at: dt.datetime
    actor: str
    """The process or person that decided."""
    reason: str
    failed_rounds: int = 0
    """Rounds of probes that failed since the circuit opened."""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """The window's figures."""
    incident: str | None = None
    """The incident that this belongs to: from the first OPEN until the circuit has been CLOSED for five minutes."""
    open_time: dt.timedelta = dt.timedelta()
    """Time of the incident, before this transition, in which payments were kept away, wholly or in part."""
    share: float = 1.0
    """Of what the router would send: slow start's stage; 1.0 elsewhere."""
    suspect: bool = False
    """Marked by early warning; only a CLOSED circuit can be."""
    until: dt.datetime | None = None
    """When an operator's override ends by itself."""
    since: dt.datetime | None = None
    """When the state began, where that was before this transition (`began` has it in any case)."""
    follows: tuple[State, dt.datetime, str] | None = field(default=None, compare=False, repr=False)
    """Which transition this was decided on (its `identity`); None: there was none. Not written, but checked when
    this is: a version that is free is not yet one that follows what its author saw."""

    @property
    def is_ordered(self) -> bool:
        """Whether an operator ordered it, or it only follows from an order, rather than the machine found it."""
        return is_ordered(self.state, self.evidence)

    @property
    def is_released(self) -> bool:
        """Whether payments are kept away only because an operator's order, now over, did so: nobody knows yet."""
        return self.state in (State.OPEN, State.HALF_OPEN) and RELEASED in self.evidence

    @property
    def is_failing(self) -> bool:
        """Whether payments are kept away because the provider failed, by its calls or its probes.

        In slow start it recovers: its time counts, and the flag waits. An operator's order is no outage.
        """
        return self.state in (State.OPEN, State.HALF_OPEN) and not self.is_released

    @property
    def identity(self) -> tuple[State, dt.datetime, str]:
        """What tells it from another transition of the same version."""
        return self.state, self.at, self.actor

    @property
    def began(self) -> dt.datetime:
        """When the state began; a mark or a stage inside it does not begin it anew."""
        return self.since or self.at

    def open_time_at(self, now: dt.datetime) -> dt.timedelta:
        """The incident's open time so far, this being the circuit's last transition."""
        if self.state in NOT_OPEN_TIME or self.is_released:
            return self.open_time
        # A wall clock that was set back takes nothing away.
        return self.open_time + max(dt.timedelta(), now - self.at)


def is_ordered(state: State, evidence: Mapping[str, Any]) -> bool:
    """Whether a transition into this state, with this evidence, was an operator's order, or such an order's end."""
    return state in OVERRIDES or ORDERED in evidence or RELEASED in evidence


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
    share: float = 1.0,
    suspect: bool = False,
    until: dt.datetime | None = None,
    age_s: float | None = None,
    anew: bool = False,
) -> Transition:
    """The transition after `last` (None: the circuit never left CLOSED), its version and incident carried on.

    Two processes that saw the same `last` name the same incident, so a circuit that closes for a moment and opens
    again adds to one incident. `age_s`: how long `last` has stood, by a clock that cannot step; without it, by the
    wall clock. `anew`: the state begins now, though it may be the same; what was counted in it is forgotten.
    Raises ValueError for CLOSED to HALF_OPEN, and for a transition that changes nothing.
    """
    before = State.CLOSED if last is None else last.state
    suspect = suspect and state is State.CLOSED
    if before is State.CLOSED and state is State.HALF_OPEN:
        raise ValueError(f"{provider}: a closed circuit has nothing to probe for")
    news = anew or state is not before
    if not news and not _changes(last, state, share=share, suspect=suspect, until=until, reason=reason):
        raise ValueError(f"{provider}: {state.value} already")
    version = 1 if last is None else last.version + 1
    # Open after an operator's order is over only means that it is not probed yet.
    failing = state is State.OPEN and before not in OVERRIDES
    incident = f"inc_{provider}_{version}" if failing else None
    if state is State.HALF_OPEN and last is not None and last.is_released:
        # Until one of its probes has failed, or all were well, the release is all that is known.
        evidence = {RELEASED: last.evidence[RELEASED], **(evidence or {})}
    open_time = dt.timedelta()
    if last is not None and last.incident is not None and not _is_over(last, at):
        stood_until = at if age_s is None else last.at + dt.timedelta(seconds=age_s)
        incident, open_time = last.incident, last.open_time_at(stood_until)
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
        share=share,
        suspect=suspect,
        until=until,
        since=None if last is None or news else last.began,
        follows=None if last is None else last.identity,
    )


def _is_over(last: Transition, at: dt.datetime) -> bool:
    return last.state is State.CLOSED and at - last.began >= INCIDENT_OVER_AFTER


def _changes(
    last: Transition | None, state: State, *, share: float, suspect: bool, until: dt.datetime | None, reason: str
) -> bool:
    """Whether a transition into the state that the circuit is in says anything new."""
    if last is None:
        return suspect
    if state is State.CLOSED:
        return suspect != last.suspect
    if state is State.SLOW_START:
        return share != last.share
    return state in OVERRIDES and (until, reason) != (last.until, last.reason)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A circuit at one moment, never torn."""

    provider: str
    state: State
    version: int
    since: dt.datetime
    """When the state began."""
    share: float
    suspect: bool
    until: dt.datetime | None
    window: Window
    slow: SlowWindow
    last: Transition | None
    """What brought it here; None: it has never left CLOSED."""

    @property
    def failed_rounds(self) -> int:
        """Rounds of probes that failed since it opened."""
        return self.last.failed_rounds if self.last is not None else 0
