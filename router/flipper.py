"""Moves the primary flag by itself when its provider's circuit has been open too long.

Any number of workers may run it. The flip is claimed as a ledger row first, one an incident, so exactly one
worker acts, a crash between the claim and the write is made good by whoever runs next, and a person's change
during the incident is never answered by a second flip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import structlog

from flags.contract import PRIMARY_PROVIDER, FlagContext, FlagSource, FlagWriteError, FlagWriter, RoutingFlags
from providers.contract import Money
from providers.fees import FeeSchedule
from router import value
from router.clock import Clock, Ids
from router.health import ProviderHealth
from router.ledger.circuits import CircuitLedger
from router.ledger.flips import Flip, FlipLedger
from router.transitions import State

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
        open_s = last.open_time_at(now).total_seconds()
        if open_s < self._flip_after_s:
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
        opening = self._circuits.opening(last.incident) or last
        flip = Flip(
            id=self._ids.new("flip"),
            flag=PRIMARY_PROVIDER,
            from_value=provider,
            to_value=targets[0].provider,
            state="requested",
            incident=last.incident,
            reason=f"circuit of {provider} not closed for {open_s:.0f} s: {opening.reason}",
            evidence={
                "open_seconds": round(open_s, 3),
                "incident_started_at": opening.at.isoformat(),
                "window": dict(opening.evidence),
                "candidates": [{"provider": each.provider, "value": each.value} for each in targets],
            },
            created_at=now,
        )
        if self._flips.claim(flip):
            log.warning("flip", flag=flip.flag, to=flip.to_value, incident=flip.incident, reason=flip.reason)

    def _still_wanted(self, flip: Flip) -> bool:
        """Whether the incident goes on, its circuit is not closed, and the target is still one."""
        last = self._health.snapshot(flip.from_value).last
        if last is None or last.incident != flip.incident or last.state not in FAILING:
            return False
        flags = self._source.read(FlagContext())
        targets = {target.provider for target in self._targets(flip.from_value, flags)}
        return flags.auto_flip_enabled and flip.to_value in targets

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
        if not self._still_wanted(flip):
            # It could not be written while it mattered; written now it would be a flip that nobody can explain.
            self._flips.settle(flip.id, "superseded", at=self._clock.now())
            return 0
        comment = f"auto-failover: {flip.reason}, incident {flip.incident}"
        try:
            moved = self._writer.set(flip.flag, flip.to_value, expected=flip.from_value, comment=comment)
            # A worker that died between the write and its record left the flag as we want it.
            moved = moved or self._writer.current(flip.flag) == flip.to_value
        except FlagWriteError as error:
            if flip.id not in self._told:  # once, not with every round
                self._told.add(flip.id)
                log.error("flip_not_written", flip=flip.id, cause=str(error))
            return 0
        self._flips.settle(flip.id, "confirmed" if moved else "superseded", at=self._clock.now())
        return int(moved)
