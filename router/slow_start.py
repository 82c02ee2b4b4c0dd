"""A recovered provider's share of traffic, stage by stage: when it grows, and when it falls back. Pure."""

from __future__ import annotations

import enum
from typing import Protocol

_ROUNDING = 1e-9
WHOLE = 1.0
"""The share after the last stage: a closed circuit's."""
ONE_BY_CHANCE = 1
"""A single failed call is no sign yet, and no proof of health either: a probe tells."""


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
    @property
    def probe_success_rate(self) -> float: ...


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


def step(settings: StageSettings, *, age_s: float, calls: int, failures: int, limit: float | None = None) -> Step:
    """What to do with a stage of that age, in seconds, that saw these real calls, of the whole fleet.

    `limit` is the share of failures that opens this provider's circuit now; None: the settings'. The rule:

    - at any time: failures at the limit, of `stage_calls` or more, fall back;
    - before the stage's time is over it waits, whatever the traffic;
    - then, where no more failed than a half-open round would forgive (1 - `probe_success_rate`, 10%), it advances
      by `stage_calls` healthy calls, and where there were fewer a probe tells;
    - where more failed, it falls back; a single failure that is more than that asks for a probe.

    Time alone never advances a stage. Each process's own breaker falls back earlier, on two failures in a row.
    """
    limit = settings.failure_rate if limit is None else limit
    if failures and calls >= settings.stage_calls and failures / calls >= limit - _ROUNDING:
        return Step.FALL_BACK
    if age_s < settings.stage_s:
        return Step.WAIT
    if failures > calls * (1 - settings.probe_success_rate) + _ROUNDING:
        return Step.PROBE if failures <= ONE_BY_CHANCE else Step.FALL_BACK
    return Step.ADVANCE if calls - failures >= settings.stage_calls else Step.PROBE
