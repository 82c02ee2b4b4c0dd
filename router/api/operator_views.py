"""The HTTP contract's shapes of what runs the service: providers, circuits, incidents, flips, flags (design §6)."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

from pydantic import BaseModel, Field

from flags.changes import FlagChange
from flags.contract import RoutingFlags, SourceStatus
from providers.contract import AccountState
from router.accounts import Known
from router.api.views import moment
from router.health import ProviderHealth
from router.incidents import Incident, unfinished
from router.ledger.flips import Flip, Override
from router.ledger.parked import Waiting
from router.recoveries import Recoveries
from router.transitions import Snapshot, Transition
from router.value import Terms

State = Literal["closed", "open", "half_open", "slow_start", "forced_open", "bypass", "metrics_only"]


class WindowView(BaseModel):
    """The calls by which this process judges the provider now; those of other processes are counted in."""

    calls: int
    failures: int
    unreachable: int
    """Of the failures: refused, no such name, no connection in time."""
    slow: int
    """Of `slow_calls`: those that the rule on slow calls looks at, in flight for too long or ended."""
    slow_calls: int
    failure_rate: float | None
    minimum_calls: int
    failure_rate_threshold: float
    slow_call_seconds: float
    slow_rate_threshold: float


class BulkheadView(BaseModel):
    """Payments at this provider at once, in this process."""

    limit: int
    in_use: int


class RecoveryView(BaseModel):
    """How this circuit has come back so far."""

    half_open_rounds: int
    half_open_success_rate: float | None
    seconds_to_closed: float | None
    """Median from the last sign of failure to closed: no shorter than from the provider's recovery."""
    false_recovery_rate: float | None
    """Share of recoveries after which it opened again within five minutes."""


class WouldHaveOpenedView(BaseModel):
    """What would have opened a circuit that only measures."""

    reason: str
    at: str


class AccountView(BaseModel):
    """Our account at a provider."""

    state: AccountState
    reasons: list[str]
    """The vendor's words."""
    until: str | None
    """At risk: when it stops taking payments."""
    since: str
    learned_at: str


class ProviderView(BaseModel):
    """A provider as the router sees it."""

    name: str
    enabled: bool
    state: State
    suspect: bool
    since: str
    share: float
    """Of the payments that the decision would give it, while it recovers or is suspect."""
    reason: str | None
    """Of the circuit's last transition."""
    by: str | None
    until: str | None
    incident: str | None
    would_have_opened: WouldHaveOpenedView | None
    """In `metrics_only`, while its calls are such that it would not be closed."""
    availability: float = Field(description="expected share of calls that it answers, as decisions have it, 0 to 1")
    approval: float = Field(description="expected share of approvals, of a payment of which nothing else is known")
    window: WindowView
    bulkhead: BulkheadView
    tuning: dict[str, str]
    """Each threshold that fits the provider by itself, with its reason."""
    account: AccountView | None
    """Ours at the provider, as it was last learned; None: nothing is known of it."""
    recovery: RecoveryView | None
    """None: the ledger, which knows it, is away."""


class ProviderList(BaseModel):
    """Every configured provider."""

    providers: list[ProviderView]


class TransitionView(BaseModel):
    """One move of a circuit: the audit record."""

    provider: str
    version: int
    state: State
    share: float
    suspect: bool
    at: str
    by: str
    reason: str
    until: str | None
    incident: str | None
    evidence: dict[str, Any]


class TransitionList(BaseModel):
    """A page of a circuit's history, newest first; `next` is the cursor of the following page."""

    transitions: list[TransitionView]
    next: int | None


class IncidentView(BaseModel):
    """A provider's outage: from its circuit's first opening until it has been closed for five minutes."""

    id: str
    provider: str
    started_at: str
    closed_at: str | None
    """Since when the circuit is closed; null while it is not."""
    ended_at: str | None
    """Five minutes later; null while the incident goes on."""
    open_seconds: float
    """Time in it in which payments were kept away, wholly or in part."""
    reason: str
    evidence: dict[str, Any]
    """Figures of the first opening."""
    flip: str | None
    """The flip that it led to."""


class IncidentList(BaseModel):
    """A page of incidents, newest first; `next` is the cursor of the following page."""

    incidents: list[IncidentView]
    next: str | None


class OverrideView(BaseModel):
    """Every process sends to `to` whom the flag sends to `from`, until the flag says so itself."""

    flip: str
    from_value: str = Field(alias="from")
    to: str
    since: str


class RestoreView(BaseModel):
    """Who asked for a flip to be undone, and what became of it."""

    by: str
    reason: str
    asked_at: str | None
    """Null where it was refused: `cause` of the flip says why."""
    restored_at: str | None


class FlipView(BaseModel):
    """An automatic change of the primary flag."""

    id: str
    flag: str
    from_value: str = Field(alias="from")
    to: str
    state: str
    incident: str
    reason: str
    evidence: dict[str, Any]
    created_at: str
    confirmed_at: str | None
    cause: str | None
    """Why it waits, failed, was superseded or is not restored."""
    served_before: dict[str, Any] | None
    """What the flag served before the write: `value`, or `weights` of a rollout in thousandths of a per cent."""
    pins: list[str]
    """Rules and targets that served the failing provider to some."""
    approval: str | None
    """The approval request that waits for a person."""
    tries: int
    next_try_at: str | None
    restore: RestoreView | None


class FlipList(BaseModel):
    """A page of flips, newest first; `next` is the cursor of the following page."""

    flips: list[FlipView]
    next: str | None


class FlagChangeView(BaseModel):
    """A change of a flag, or of a segment that one uses, by whoever made it; written once."""

    number: int
    kind: Literal["flag", "segment"]
    key: str
    version: int
    old: dict[str, Any] | None
    """`on`, `serves` (a value, or a rollout's `per_cent` by value), `off`, and how many `rules` and `targets`. With
    them: `pins`, by value the rules and targets that serve it; `rollout_by`, the kind of context that a rollout goes
    by; `fingerprint`, of all of its rules, targets and members, of which the words name a few. Null: it was not known
    before."""
    new: dict[str, Any] | None
    """Null: it was deleted."""
    at: str
    seen_by: str
    """The process that wrote it down."""


class FlagChangeList(BaseModel):
    """A page of changes, newest first; `next` is the cursor of the following page."""

    changes: list[FlagChangeView]
    next: int | None


class WaitingView(BaseModel):
    """How much is parked."""

    depth: int
    dead: int
    """Of these: an error of ours keeps them from being tried, and a person has to look."""
    oldest_seconds: float | None
    """Since the oldest was accepted; null: nothing is parked."""


class FlagsView(BaseModel):
    """How fresh the flags are that this process serves."""

    state: Literal["initializing", "valid", "interrupted", "off"]
    since: str
    detail: str | None
    serves: Literal["current", "last known", "defaults"]
    age_seconds: float | None
    """How long ago what is served was last known to be right; null: the defaults serve."""


def provider_json(
    health: ProviderHealth, name: str, flags: RoutingFlags, now: dt.datetime, terms: Terms
) -> dict[str, Any]:
    """A provider at that moment as ProviderView describes it, but for its recovery."""
    snapshot, readiness, bulkhead = health.snapshot(name), health.readiness(name), health.bulkhead(name)
    last, would_have = snapshot.last, health.would_have_opened(name)
    return {
        "name": name,
        "enabled": flags.is_enabled(name),
        "state": snapshot.state.value,
        "suspect": snapshot.suspect,
        "since": moment(snapshot.since),
        "share": readiness.share,
        "reason": None if last is None else last.reason,
        "by": None if last is None else last.actor,
        "until": None if snapshot.until is None else moment(snapshot.until),
        "incident": unfinished(last, now),
        "would_have_opened": None
        if would_have is None
        else {"reason": would_have.reason, "at": moment(would_have.at)},
        "availability": terms.availability,
        "approval": terms.approval,
        "window": _window_json(snapshot),
        "bulkhead": {"limit": bulkhead.permits, "in_use": bulkhead.in_use},
        "tuning": dict(health.tuning(name)),
    }


def account_json(known: Known | None) -> dict[str, Any] | None:
    """Our account at a provider."""
    if known is None:
        return None
    until = known.standing.until
    return {
        "state": known.standing.state.value,
        "reasons": list(known.standing.reasons),
        "until": None if until is None else moment(until),
        "since": moment(known.since),
        "learned_at": moment(known.learned_at),
    }


def _window_json(snapshot: Snapshot) -> dict[str, Any]:
    window, slow = snapshot.window, snapshot.slow
    return {
        "calls": window.calls,
        "failures": window.failures,
        "unreachable": window.unreachable,
        "slow": slow.slow,
        "slow_calls": slow.calls,
        "failure_rate": _rounded(window.failure_rate),
        "minimum_calls": window.minimum_calls,
        "failure_rate_threshold": window.failure_rate_threshold,
        "slow_call_seconds": window.slow_call_s,
        "slow_rate_threshold": window.slow_rate_threshold,
    }


def _rounded(figure: float | None) -> float | None:
    return None if figure is None else round(figure, 4)


def recovery_json(record: Recoveries | None) -> dict[str, Any]:
    """How a circuit has come back, as RecoveryView describes it."""
    if record is None:
        return dict.fromkeys(RecoveryView.model_fields) | {"half_open_rounds": 0}
    return {
        "half_open_rounds": record.rounds,
        "half_open_success_rate": _rounded(record.success_rate),
        "seconds_to_closed": _rounded(record.to_closed_s),
        "false_recovery_rate": _rounded(record.false_rate),
    }


def transition_json(transition: Transition) -> dict[str, Any]:
    """A move of a circuit as TransitionView describes it."""
    return {
        "provider": transition.provider,
        "version": transition.version,
        "state": transition.state.value,
        "share": transition.share,
        "suspect": transition.suspect,
        "at": moment(transition.at),
        "by": transition.actor,
        "reason": transition.reason,
        "until": None if transition.until is None else moment(transition.until),
        "incident": transition.incident,
        "evidence": dict(transition.evidence),
    }


def incident_json(incident: Incident, flip: str | None, now: dt.datetime) -> dict[str, Any]:
    """An incident as IncidentView describes it."""
    opening, ended_at = incident.opening, incident.ended_at(now)
    return {
        "id": incident.id,
        "provider": opening.provider,
        "started_at": moment(opening.at),
        "closed_at": None if incident.closed_at is None else moment(incident.closed_at),
        "ended_at": None if ended_at is None else moment(ended_at),
        "open_seconds": round(incident.last.open_time_at(now).total_seconds(), 3),
        "reason": opening.reason,
        "evidence": dict(opening.evidence),
        "flip": flip,
    }


def override_json(override: Override) -> dict[str, Any]:
    """An override in force as OverrideView describes it."""
    return {
        "flip": override.flip,
        "from": override.from_value,
        "to": override.to_value,
        "since": moment(override.began_at),
    }


def flag_change_json(change: FlagChange) -> dict[str, Any]:
    """A change as FlagChangeView describes it."""
    return {
        "number": change.number,
        "kind": change.kind,
        "key": change.key,
        "version": change.version,
        "old": change.old,
        "new": change.new,
        "at": moment(change.at),
        "seen_by": change.seen_by,
    }


def flags_json(status: SourceStatus, now: dt.datetime) -> dict[str, Any]:
    """The state of the flags at that moment as FlagsView describes it."""
    age_s: float | None = 0.0
    if status.state != "valid":
        age_s = None if status.as_of is None else round(max(0.0, (now - status.as_of).total_seconds()), 3)
    return {
        "state": status.state,
        "since": moment(status.since),
        "detail": status.detail,
        "serves": status.serves,
        "age_seconds": age_s,
    }


def waiting_json(waiting: Waiting, now: dt.datetime) -> dict[str, Any]:
    """What is parked at that moment as WaitingView describes it."""
    oldest_s = None if waiting.oldest_at is None else round(max(0.0, (now - waiting.oldest_at).total_seconds()), 3)
    return {"depth": waiting.depth, "dead": waiting.dead, "oldest_seconds": oldest_s}


def flip_json(flip: Flip) -> dict[str, Any]:
    """A flip as FlipView describes it."""
    return {
        "id": flip.id,
        "flag": flip.flag,
        "from": flip.from_value,
        "to": flip.to_value,
        "state": flip.state,
        "incident": flip.incident,
        "reason": flip.reason,
        "evidence": dict(flip.evidence),
        "created_at": moment(flip.created_at),
        "confirmed_at": _moment(flip.confirmed_at),
        "cause": flip.cause,
        "served_before": None if flip.before is None else dict(flip.before),
        "pins": list(flip.pins or ()),
        "approval": flip.approval,
        "tries": flip.tries,
        "next_try_at": _moment(flip.next_try_at),
        "restore": None
        if flip.restore_by is None
        else {
            "by": flip.restore_by,
            "reason": flip.restore_reason,
            "asked_at": _moment(flip.restore_at),
            "restored_at": _moment(flip.restored_at),
        },
    }


def _moment(value: dt.datetime | None) -> str | None:
    return None if value is None else moment(value)
