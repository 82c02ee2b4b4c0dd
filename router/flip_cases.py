"""What the flip's two loops ask of the rest of the house: who could take over, is the incident over, may we write."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from flags.contract import FlagContext, FlagSource, RoutingFlags
from router import appraisal, value
from router.appraisal import Appraiser
from router.clock import Clock, Ids
from router.flip_rules import (
    HOUR,
    ChangesOf,
    Limits,
    Target,
    audit_since,
    held,
    in_words,
    is_told,
    no_changes,
    persons_change,
    serves_of,
    told_in_words,
)
from router.health import ProviderHealth
from router.incidents import unfinished
from router.ledger.alerts import Alert, AlertKind, AlertLedger
from router.ledger.circuits import CircuitLedger
from router.ledger.flips import Flip, FlipLedger, Unless
from router.transitions import State, Transition

log = structlog.get_logger("router.flips")

OURS_AMONG = 50
"""Flips by which changes of the flag are told from a person's: more than a long incident can hold."""


@dataclass(frozen=True)
class Cases:
    """The facts of flips, each from where it is known."""

    providers: Sequence[str]
    health: ProviderHealth
    circuits: CircuitLedger
    flips: FlipLedger
    alerts: AlertLedger
    source: FlagSource
    appraiser: Appraiser
    clock: Clock
    ids: Ids
    limits: Limits = field(default_factory=Limits)
    changes: ChangesOf = no_changes

    def flags(self) -> RoutingFlags:
        """The flags as the router itself is served them."""
        return self.source.read(FlagContext())

    def targets(self, failing: str, flags: RoutingFlags) -> Sequence[Target]:
        """Enabled providers that nothing speaks against, the most valuable first."""
        # A flip moves every payment, so they are compared on a typical one.
        terms = self.appraiser.typical(self.clock.now())
        at_stake = value.stakes(flags.tuning.margin, value.in_major_units(appraisal.TYPICAL), terms.values())
        well = [
            Target(name, round(value.value(terms[name], at_stake), 4))
            for name in self.providers
            if name != failing and flags.is_enabled(name) and self.health.is_well(name)
        ]
        return sorted(well, key=lambda target: (-target.value, target.provider))

    def open_s(self, last: Transition) -> float:
        """Seconds of the incident in which its circuit, which fails, was not closed; by a clock that cannot step."""
        return last.open_time.total_seconds() + self.health.age_s(last.provider)

    def last(self, provider: str) -> Transition | None:
        """The circuit as the ledger has it: who lags behind must not take an incident for one that is over."""
        return next(iter(self.circuits.latest([provider])), None)

    def is_over(self, flip: Flip, last: Transition | None) -> bool:
        """Whether the flip's incident is, this being the circuit's last transition."""
        return unfinished(last, self.clock.now()) != flip.incident

    def held(self, now: dt.datetime) -> str | None:
        """Why the machine may not write now."""
        unless = self.unless_held(now)
        return unless.held(self.flips.writes(unless.since))

    def unless_held(self, now: dt.datetime) -> Unless:
        """The same, for the ledger to look at as it decides: two workers may both have found that it may."""
        horizon = max(HOUR, dt.timedelta(seconds=self.limits.cooldown_s))
        return Unless(now - horizon, lambda moves: held(moves, now, self.limits))

    def persons_change(self, flag: str, incident: str) -> str | None:
        """In words, how a person changed the flag during the incident; None: nobody did."""
        opening = self.circuits.opening(incident)
        if opening is None:
            return None
        changes = self.changes(flag, opening.at)
        if not changes:
            return None
        ours = self.flips.newest(limit=OURS_AMONG)
        theirs = persons_change(self.changes(flag, audit_since(opening.at, ours)), ours, opening.at)
        if theirs is None:
            return None
        old, new = (None if each is None else each.get("serves") for each in (theirs.old, theirs.new))
        moved = f"from {told_in_words(old)} to {told_in_words(new)}"
        what = moved if old != new else "its rules, its targets or whether it is on"
        return f"a person changed {flag} at {theirs.at:%H:%M:%S} ({what}), and their word holds for this incident"

    def is_told(self, flip: Flip) -> bool:
        """Whether a stream has told what the flip wrote."""
        return is_told(self.changes(flip.flag, flip.created_at), flip)

    def why_not_restored(self, provider: str) -> str | None:
        """Why the machine may not send payments to this provider again now, by the ledger; None: it may."""
        flags, last = self.flags(), self.last(provider)
        if last is not None and (last.state is not State.CLOSED or last.suspect):
            return f"{provider} is {'suspect' if last.state is State.CLOSED else last.state.value}"
        incident = unfinished(last, self.clock.now())
        if incident is not None:
            # Should it open again, the incident has had its flip.
            return f"the incident {incident} is not over"
        if not flags.auto_flip_enabled:
            return "flips were switched off by the flag payments-auto-flip-enabled"
        if not flags.is_enabled(provider):
            return f"{provider} is disabled"
        return self.held(self.clock.now())

    def alert(self, kind: AlertKind, incident: str, text: str, *, flip: Flip | None = None) -> Alert:
        """An alert of this moment."""
        detail = {} if flip is None else _detail(flip)
        flip_id = None if flip is None else flip.id
        return Alert(self.ids.new("alert"), kind, incident, text, self.clock.now(), flip_id, detail)


def say(alert: Alert, provider: str) -> None:
    """Tell Sentry what was committed; a flip that went well is an event too: payments have moved."""
    about = {"provider": provider, "incident": alert.incident, "flip": alert.flip_id, "cause": alert.text}
    log.error(alert.kind, **about)


def _detail(flip: Flip) -> Mapping[str, object]:
    before = None if flip.before is None else in_words(serves_of(flip.before))
    return {
        "flag": flip.flag,
        "from": flip.from_value,
        "to": flip.to_value,
        "state": flip.state,
        "reason": flip.reason,
        "cause": flip.cause,
        "served_before": before,
        "pins": list(flip.pins or ()),
        "approval": flip.approval,
    }
