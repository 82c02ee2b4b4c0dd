"""Decides that the primary flag is moved, when its provider's circuit has been open too long.

Any number of workers may run it. The decision is a ledger row, one an incident, and with it begins the override that
every process obeys at once; what is slow, the flag store, is `flip_writing`'s. Where nothing may be decided, an alert
says so once an incident: no target, the limits, or a person who changed the flag first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import structlog

from flags.contract import PRIMARY_PROVIDER, FlagMover, FlagWriteError, RoutingFlags
from router.flip_cases import Cases, say
from router.flip_rules import Target, to_restore
from router.ledger.alerts import AlertKind
from router.ledger.flips import MACHINE, Flip, FlipState, RestoreRefusedError
from router.transitions import Transition

log = structlog.get_logger("router.flipper")

LOOK_AGAIN_S = 30.0
"""Where the flag's own stream does not say that the failing provider is the primary: a rollout may send it a part."""


class Flipper:
    """A worker loop."""

    def __init__(
        self,
        cases: Cases,
        *,
        mover: FlagMover | None,
        flip_after_s: float,
        restore: Literal["manual", "automatic"] = "manual",
        restore_after_s: float = 1800.0,
    ) -> None:
        """`mover`: only to ask, of a rollout; None where there is none."""
        self._cases = cases
        self._mover = mover
        self._flip_after_s = flip_after_s
        self._restore = restore
        self._restore_after_s = restore_after_s
        self._looked: dict[str, tuple[float, bool]] = {}

    def run_once(self) -> int:
        """Decide the flips, and the restores, that are due. Answers how many."""
        decided = sum(self._consider(provider) for provider in self._cases.providers)
        return decided + (self._restore == "automatic" and self._consider_restore())

    def _consider(self, provider: str) -> bool:
        cases = self._cases
        last = cases.health.snapshot(provider).last
        if last is None or last.incident is None or not last.is_failing:
            return False
        if cases.open_s(last) < self._flip_after_s or cases.flips.exists(last.incident):
            return False
        flags = cases.flags()
        if not flags.auto_flip_enabled or not self._is_served(provider, flags):
            return False
        targets = cases.targets(provider, flags)
        theirs = cases.persons_change(PRIMARY_PROVIDER, last.incident)
        if theirs is not None:
            # To whom it would have been is of no matter, but the record has a place for it.
            self._claim(last, targets or [Target(flags.primary, 0.0)], "superseded", cause=theirs)
            return False
        if not targets:
            why = f"{provider} is failing, and no other provider is healthy and enabled: the flag stays"
            self._tell("no_target", provider, last.incident, why)
            return False
        held = cases.held(cases.clock.now())
        if held is not None and cases.flips.exists(last.incident):
            return False  # by this incident's own flip, which another worker has decided at this moment
        if held is not None:
            self._tell("flip_held", provider, last.incident, f"no flip away from {provider}: {held}")
            return False
        return self._claim(last, targets, "overriding")

    def _is_served(self, provider: str, flags: RoutingFlags) -> bool:
        """Whether the flag sends anyone to this provider whom no rule catches, as far as can be known now."""
        if flags.primary == provider and not flags.primary_pinned:
            return True
        if self._mover is None:
            return False
        now = self._cases.clock.monotonic()
        looked_at, serves = self._looked.get(provider, (now - LOOK_AGAIN_S, False))
        if now - looked_at >= LOOK_AGAIN_S:
            try:
                state = self._mover.look(PRIMARY_PROVIDER)
                serves = state.is_on and state.serves.share_of(provider) > 0
            except FlagWriteError as error:
                log.info("flag_unreadable", flag=PRIMARY_PROVIDER, cause=str(error))
                serves = False
            self._looked[provider] = (now, serves)
        return serves

    def _claim(self, last: Transition, targets: Sequence[Target], state: FlipState, cause: str | None = None) -> bool:
        cases = self._cases
        assert last.incident is not None
        reason, evidence = self._case(last, last.incident, targets)
        flip = Flip(
            id=cases.ids.new("flip"),
            flag=PRIMARY_PROVIDER,
            from_value=last.provider,
            to_value=targets[0].provider,
            state=state,
            incident=last.incident,
            reason=reason,
            evidence=evidence,
            created_at=cases.clock.now(),
            cause=cause,
        )
        alert = None if cause is None else cases.alert("flip_superseded", flip.incident, cause, flip=flip)
        if not cases.flips.claim(flip, alert=alert, unless=cases.unless_held(flip.created_at)):
            return False
        if alert is not None:
            say(alert, last.provider)
        else:
            log.warning("flip", flag=flip.flag, to=flip.to_value, incident=flip.incident, reason=flip.reason)
        return True

    def _case(self, last: Transition, incident: str, targets: Sequence[Target]) -> tuple[str, Mapping[str, Any]]:
        """Why to flip now, in words and in figures."""
        open_s = self._cases.open_s(last)
        opening = self._cases.circuits.opening(incident) or last
        return f"circuit of {last.provider} not closed for {open_s:.0f} s: {opening.reason}", {
            "open_seconds": round(open_s, 3),
            "incident_started_at": opening.at.isoformat(),
            "window": dict(opening.evidence),
            "candidates": [{"provider": each.provider, "value": each.value} for each in targets],
        }

    def _tell(self, kind: AlertKind, provider: str, incident: str, text: str) -> None:
        """Once an incident, whichever worker sees it."""
        if self._cases.alerts.is_told(kind, incident):
            return
        alert = self._cases.alert(kind, incident, text)
        if self._cases.alerts.tell(alert):
            say(alert, provider)

    def _consider_restore(self) -> bool:
        cases = self._cases
        flip = to_restore(cases.flips.newest(limit=20))
        if flip is None or flip.from_value not in cases.providers:
            return False
        if flip.next_try_at is not None and flip.next_try_at > cases.clock.now():
            return False
        # A mark of suspicion that came or went is a transition too, so the age is that of being closed and trusted.
        if cases.health.age_s(flip.from_value) < self._restore_after_s:
            return False
        if cases.why_not_restored(flip.from_value) is not None:
            return False
        reason = f"{flip.from_value} has been closed for {self._restore_after_s:g} s"
        try:
            return cases.flips.ask_restore(flip.id, by=MACHINE, reason=reason, at=cases.clock.now()) is not None
        except RestoreRefusedError:
            return False  # another worker was first
