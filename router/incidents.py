"""Incidents of a circuit: from its first opening until it has been closed for five minutes. Pure."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from router.transitions import INCIDENT_OVER_AFTER, State, Transition


@dataclass(frozen=True, slots=True)
class Incident:
    """From a circuit's first opening until it has been closed for five minutes."""

    opening: Transition
    last: Transition
    """Of those that belong to it."""

    @property
    def id(self) -> str:
        """Its name, of the provider and the opening's version."""
        return self.opening.incident or ""

    @property
    def closed_at(self) -> dt.datetime | None:
        """Since when the circuit is closed, for good as far as is known; None while it is not."""
        return self.last.began if self.last.state is State.CLOSED else None

    def ended_at(self, now: dt.datetime) -> dt.datetime | None:
        """When it was over; None while it goes on."""
        return ended_at(self.last, now)


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
