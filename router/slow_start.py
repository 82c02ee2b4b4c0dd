"""A recovered provider's share of traffic, stage by stage: when it grows, and when it falls back. Pure."""

from __future__ import annotations

import enum
from typing import Protocol

_ROUNDING = 1e-9
WHOLE = 1.0
"""The share after the last stage: a closed circuit's."""


class StageSettings(Protocol):
    """What slow start reads of `BreakerSettings`."""

    @property
    def stages(self) -> tuple[float, ...]: ...
    @property
    def stage_s(self) -> float: ...
    @property
    def stage_calls(self) -> int: ...
    @property
    def failure_rate(self) -> float: ...


class Step(enum.StrEnum):
    """What to do with a stage now."""

    WAIT = "wait"
    PROBE = "probe"
    """Its time is over and real calls were too few to tell: one probe tells."""
    ADVANCE = "advance"
    FALL_BACK = "fall_back"


def first_share(settings: StageSettings) -> float:
    """The first stage's share of what the router would send; WHOLE: no stages, so the circuit closes at once."""
    return settings.stages[0] if settings.stages else WHOLE


def next_share(settings: StageSettings, share: float) -> float:
    """The share after this one; WHOLE after the last stage.

    A share that is no stage of ours, as a process with other settings wrote it, goes on with the next greater one.
    """
    return min((stage for stage in settings.stages if stage > share + _ROUNDING), default=WHOLE)


def step(settings: StageSettings, *, age_s: float, calls: int, failures: int) -> Step:
    """What to do with a stage of that age, in seconds, that saw these real calls, of the whole fleet.

    A provider gets no share for its looks: a stage that most calls fail in falls back at once, and time alone never
    advances one. Each process's own breaker falls back earlier, on two failures in a row.
    """
    if calls >= settings.stage_calls and failures / max(1, calls) >= settings.failure_rate:
        return Step.FALL_BACK
    if age_s < settings.stage_s:
        return Step.WAIT
    return Step.ADVANCE if calls - failures >= settings.stage_calls else Step.PROBE
