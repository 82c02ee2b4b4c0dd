"""Incidents of a circuit: from its first opening until it has been closed for five minutes. Pure."""

from __future__ import annotations

import datetime as dt

from router.transitions import INCIDENT_OVER_AFTER, State, Transition


def begins_incident(transition: Transition) -> bool:
    """Whether an incident begins with this transition; it is named after it."""
    return transition.incident == f"inc_{transition.provider}_{transition.version}"


def ended_at(last: Transition, now: dt.datetime) -> dt.datetime | None:
    """When the incident that this last transition belongs to was over; None while it goes on."""
    if last.state is not State.CLOSED or now - last.began < INCIDENT_OVER_AFTER:
        return None
    return last.began + INCIDENT_OVER_AFTER


def unfinished(last: Transition | None, now: dt.datetime) -> str | None:
    """The incident that a circuit is in, this being its last transition."""
    return None if last is None or ended_at(last, now) is not None else last.incident
