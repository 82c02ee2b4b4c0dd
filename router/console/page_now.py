"""*Now*: how each provider is, whom the flag names, what waits, and the last hours as lanes."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, render_template, request

from flags.changes import FlagChange
from flags.contract import PRIMARY_PROVIDER, FlagContext
from router.api import operator_views
from router.console.history import RECENT
from router.console.lanes import WINDOWS, Timeline, Window
from router.console.parts import Parts, refuse, require
from router.console.timeline import percentile, timeline
from router.ledger.console import Count, Waiting
from router.ledger.flips import Flip
from router.ledger.unavailable import LedgerUnavailableError
from router.reconciliation.matching import DIFFERING

USUAL = "1h"
USUAL_OF_STAND_INS = "5m"
"""What is broken by a button is over in minutes."""
CHANGES_AT_MOST = 50
DIFFERENCES_OF = dt.timedelta(days=31)
"""Settlement files of so long ago count in the summary of what differs."""
WRITTEN_BY_US_WITHIN = dt.timedelta(seconds=30)
"""From the sending of a write until some process hears the change that it made."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A provider at this moment."""

    name: str
    circuit: Mapping[str, Any]
    """As `GET /v1/providers` has it."""
    is_primary: bool
    share: float | None
    approval: float | None
    answered: int
    p50_us: int | None
    p95_us: int | None


@dataclass(frozen=True, slots=True)
class Setter:
    """Who gave the primary flag the value that it has."""

    who: str
    at: dt.datetime
    flip: str | None = None


def add(pages: Blueprint, parts: Parts) -> None:
    """The page, and its part that refreshes itself."""

    @pages.get("/now")
    def now() -> str:
        require("operate", "reports")
        return render_template("console/now.html", windows=WINDOWS, **_seen(parts, _window(parts)))

    @pages.get("/now/live")
    def now_live() -> Response:
        require("operate", "reports")
        return Response(render_template("console/_now.html", **_seen(parts, _window(parts))))


def _window(parts: Parts) -> Window:
    name = request.args.get("window") or (USUAL if parts.stand_ins is None else USUAL_OF_STAND_INS)
    return WINDOWS[name] if name in WINDOWS else refuse(422, "This cannot be taken", "window: is not one of these")


def _seen(parts: Parts, window: Window) -> dict[str, Any]:
    """All that the page shows; while the ledger is away, what this process knows by itself."""
    at = parts.clock.now()
    read = parts.flags.read(FlagContext())
    routed, override = parts.override.apply(read)
    terms = parts.appraiser.typical(at)
    circuits = [operator_views.provider_json(parts.health, name, read, at, terms[name]) for name in parts.providers]
    drawn: Timeline | None = None
    waiting: Waiting | None = None
    differing = 0
    setter: Setter | None = None
    figures: Mapping[str, Mapping[str, int]] = {}
    latencies: Mapping[str, Sequence[int]] = {}
    try:
        flips = parts.flips.newest(limit=CHANGES_AT_MOST)
        changes = parts.flag_values.page(limit=CHANGES_AT_MOST, key=PRIMARY_PROVIDER)
        counts = parts.history.counts(window, at)
        latencies = parts.history.latencies(at)
        waiting = parts.ledger.parked()
        differing = parts.settlement_summaries.open_differences(DIFFERING, since=at - DIFFERENCES_OF)
        setter = who_set(changes, flips)
        drawn = timeline(
            window,
            at,
            parts.providers,
            counts=counts,
            moves={name: parts.circuit_story.moves(name, window.ends(at) - window.span) for name in parts.providers},
            changes=changes,
            primary=read.primary,
            flips=flips,
        )
        figures = recent(parts.history.counts(WINDOWS["15m"], at), at - RECENT)
    except LedgerUnavailableError:
        drawn = None
    total = sum(each["attempts"] for each in figures.values())
    standings = []
    for circuit in circuits:
        name = circuit["name"]
        of = figures.get(name, {})
        answered = of.get("answered", 0)
        took = latencies.get(name, ())
        standings.append(
            Standing(
                name=name,
                circuit=circuit,
                is_primary=name == routed.primary,
                share=of.get("attempts", 0) / total if total else None,
                approval=of["approved"] / answered if answered else None,
                answered=answered,
                p50_us=percentile(took, 0.5),
                p95_us=percentile(took, 0.95),
            )
        )
    return {
        "at": at,
        "window": window,
        "standings": standings,
        "read": read,
        "override": override,
        "overrides": parts.override.in_force,
        "setter": setter,
        "waiting": waiting,
        "differing": differing,
        "timeline": drawn,
        "flags_status": parts.flags.status(),
        "chart_height": 100,
    }


def recent(counts: Sequence[Count], since: dt.datetime) -> dict[str, dict[str, int]]:
    """By provider: attempts, issuers' answers and approvals since that moment."""
    found: dict[str, dict[str, int]] = {}
    for each in counts:
        if each.at < since:
            continue
        of = found.setdefault(each.provider, {"attempts": 0, "answered": 0, "approved": 0})
        of["attempts"] += each.count
        if each.outcome in ("approved", "canceled", "declined"):
            of["answered"] += each.count
        if each.outcome in ("approved", "canceled"):
            of["approved"] += each.count
    return found


def who_set(changes: Sequence[FlagChange], flips: Sequence[Flip]) -> Setter | None:
    """Who made the newest change of the primary: a flip of ours, its restore, or else a person. None: not known."""
    if not changes:
        return None
    newest = changes[0]
    if newest.old is None:
        return Setter("as it was when the router first saw it", newest.at)
    for flip in flips:
        for sent, by in ((flip.requested_at, "pointsman"), (flip.restore_sent_at, flip.restore_by or "pointsman")):
            if sent is not None and sent <= newest.at <= sent + WRITTEN_BY_US_WITHIN:
                return Setter(f"{by}, by flip" if by == "pointsman" else f"restored for {by}", newest.at, flip.id)
    return Setter("a person", newest.at)
