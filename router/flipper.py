"""Moves the primary flag by itself when its provider's circuit has been open too long.

Any number of workers may run it. The flip is claimed as a ledger row first, one an incident, so exactly one
worker acts, a crash between the claim and the write is made good by whoever runs next, and a person's change
during the incident is never answered by a second flip. A flip that cannot be written at once, or is not wanted for a
moment, waits: it is dropped only when a person moved the flag or switched flips off, or when the incident is over.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import structlog

from flags.contract import PRIMARY_PROVIDER, FlagContext, FlagSource, FlagWriteError, FlagWriter, RoutingFlags
from providers.contract import Money
from providers.fees import FeeSchedule
from router import value
from router.clock import Clock, Ids
from router.health import ProviderHealth
from router.incidents import unfinished
from router.ledger.circuits import CircuitLedger
from router.ledger.flips import Flip, FlipLedger, FlipState
from router.transitions import State, Transition

log = structlog.get_logger("router.flipper")

FAILING = frozenset({State.OPEN, State.HALF_OPEN})
"""In slow start a provider recovers: its time counts, and the flag waits. An operator's order is no outage."""
TYPICAL = Money(5_000, "EUR")
"""A flip moves every payment, so targets are compared on a typical one."""


@dataclass(frozen=True, slots=True)
class Target:
    """A provider that the flag could be moved to, with what speaks for it."""

    provider: str
    value: float


class Flipper:
    """A worker loop."""

    def __init__(
        self,
        *,
        providers: Sequence[str],
        health: ProviderHealth,
        circuits: CircuitLedger,
        flips: FlipLedger,
        source: FlagSource,
        writer: FlagWriter,
        fees: Mapping[str, FeeSchedule],
        flip_after_s: float,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._providers = providers
        self._health = health
        self._circuits = circuits
        self._flips = flips
        self._source = source
        self._writer = writer
        self._fees = fees
        self._flip_after_s = flip_after_s
        self._clock = clock
        self._ids = ids
        self._told: set[str] = set()

    def run_once(self) -> int:
        """Decide flips that are due, and write those that were decided. Answers how many flags were moved."""
        for provider in self._providers:
            self._consider(provider)
        return sum(self._apply(flip) for flip in self._flips.requested())

    def _consider(self, provider: str) -> None:
        last = self._health.snapshot(provider).last
        if last is None or last.incident is None or last.state not in FAILING:
            return
        now = self._clock.now()
        if self._open_s(last) < self._flip_after_s:
            return
        flags = self._source.read(FlagContext())
        if not flags.auto_flip_enabled or self._flips.exists(last.incident):
            return
        try:
            served = self._writer.current(PRIMARY_PROVIDER)
        except FlagWriteError as error:
            log.error("flag_unreadable", flag=PRIMARY_PROVIDER, cause=str(error))
            return
        targets = self._targets(provider, flags)
        if served != provider or not targets:
            return
        reason, evidence = self._case(last, last.incident, targets)
        flip = Flip(
            id=self._ids.new("flip"),
            flag=PRIMARY_PROVIDER,
            from_value=provider,
            to_value=targets[0].provider,
            state="requested",
            incident=last.incident,
            reason=reason,
            evidence=evidence,
            created_at=now,
        )
        if self._flips.claim(flip):
            log.warning("flip", flag=flip.flag, to=flip.to_value, incident=flip.incident, reason=flip.reason)

    def _case(self, last: Transition, incident: str, targets: Sequence[Target]) -> tuple[str, Mapping[str, Any]]:
        """Why to flip now, in words and in figures."""
        open_s = self._open_s(last)
        opening = self._circuits.opening(incident) or last
        return f"circuit of {last.provider} not closed for {open_s:.0f} s: {opening.reason}", {
            "open_seconds": round(open_s, 3),
            "incident_started_at": opening.at.isoformat(),
            "window": dict(opening.evidence),
            "candidates": [{"provider": each.provider, "value": each.value} for each in targets],
        }

    def _targets(self, failing: str, flags: RoutingFlags) -> Sequence[Target]:
        """Enabled providers that nothing speaks against, the most valuable first."""
        found = [
            Target(name, float(round(self._worth(name, flags), 4)))
            for name in self._providers
            if name != failing and flags.is_enabled(name) and self._health.is_well(name)
        ]
        return sorted(found, key=lambda target: (-target.value, target.provider))

    def _worth(self, provider: str, flags: RoutingFlags) -> Decimal:
        schedule = self._fees.get(provider)
        return value.by_fees(TYPICAL, schedule, margin=flags.tuning.margin, international=False).value

    def _apply(self, flip: Flip) -> int:
        """Write a flip if it is wanted now. If it only is not now, it waits for as long as its incident lasts."""
        # As the ledger has it: a process that lags behind must not take an incident for one that is over.
        last = next(iter(self._circuits.latest([flip.from_value])), None)
        try:
            served = self._writer.current(flip.flag)
        except FlagWriteError as error:
            return self._not_written(flip, error)
        if served != flip.from_value:
            # A person's change; or a worker that died between the write and its record left the flag as we want it.
            return self._settle(flip, served, {flip.to_value})
        flags, now = self._source.read(FlagContext()), self._clock.now()
        if last is None or unfinished(last, now) != flip.incident or not flags.auto_flip_enabled:
            # Written now, it would be a flip that nobody can explain.
            self._flips.settle(flip.id, "superseded", at=now)
            return 0
        targets = self._targets(flip.from_value, flags)
        if last.state not in FAILING or not targets:
            return 0
        named = {flip.to_value}
        if flip.to_value not in {each.provider for each in targets}:
            # On record before it is written, as the first was.
            if not self._flips.retarget(flip, targets[0].provider):
                return 0  # another worker has
            flip = dataclasses.replace(flip, to_value=targets[0].provider)
            named.add(flip.to_value)
        reason, evidence = self._case(last, flip.incident, targets)
        flip = dataclasses.replace(flip, reason=reason, evidence=evidence)
        comment = f"auto-failover: {flip.reason}, incident {flip.incident}"
        try:
            moved = self._writer.set(flip.flag, flip.to_value, expected=flip.from_value, comment=comment)
            served = flip.to_value if moved else self._writer.current(flip.flag)
        except FlagWriteError as error:
            return self._not_written(flip, error)
        return self._settle(flip, served, named)

    def _settle(self, flip: Flip, served: str, named: set[str]) -> int:
        """Put on record what the flag serves: a value that this flip has named, or a person's."""
        moved = served in named
        state: FlipState = "confirmed" if moved else "superseded"
        settled = dataclasses.replace(flip, to_value=served) if moved else flip
        self._flips.settle(flip.id, state, at=self._clock.now(), as_written=settled if moved else None)
        return int(moved)

    def _open_s(self, last: Transition) -> float:
        """Seconds of the incident in which its circuit, which fails, was not closed; by a clock that cannot step."""
        return last.open_time.total_seconds() + self._health.age_s(last.provider)

    def _not_written(self, flip: Flip, error: FlagWriteError) -> int:
        if flip.id not in self._told:  # once, not with every round
            self._told.add(flip.id)
            log.error("flip_not_written", flip=flip.id, cause=str(error))
        return 0
