"""Raw flag values become one checked `RoutingFlags`; a wrong value becomes its default and is reported once.

A product team types these values by hand, in a hurry, during an outage: nothing they type may break a payment,
and nothing they type may be ignored in silence.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flags.contract import (
    AUTO_FLIP_ENABLED,
    CASCADE_ON_SOFT_DECLINE,
    MAINTENANCE_NOTICE,
    PRIMARY_PROVIDER,
    ROUTING_STRATEGY,
    ROUTING_TUNING,
    UNKNOWN_OUTCOME_POLICY,
    RoutingFlags,
    RoutingTuning,
    provider_enabled_key,
)
from flags.definitions import definitions, show, tuning_problem

REMEMBERED_REPORTS = 500
"""Reports kept so as not to repeat them: under 2 kB each at most, so 1 MB; a flag has a handful of wrong values."""

REPORTS_PER_TUNING = 20
"""Wrong keys reported of one value: there are five right ones, and nobody reads past twenty."""

REMEMBERED_TUNINGS = 64
"""Parsed tunings kept; a flag has a few variations, and each update of it brings new objects."""


@dataclass(frozen=True, slots=True)
class WrongValue:
    """A flag holds something that it may not; `str` is the sentence for a log or an alert."""

    key: str
    reason: str
    value: str
    """The value as JSON, cut to 80 characters."""

    def __str__(self) -> str:
        return f"flag {self.key}: {self.reason}; the value is {self.value}"


Report = Callable[[WrongValue], None]


class ValueChecker:
    """Turns raw values into `RoutingFlags`. Never raises; safe for threads; a few microseconds."""

    def __init__(self, providers: Sequence[str], report: Report) -> None:
        self._definitions = definitions(providers)
        self._enabled_keys = {name: provider_enabled_key(name) for name in providers}
        self._report = report
        self._lock = threading.Lock()
        self._reported: dict[tuple[str, str, str], None] = {}
        self._last_wrong: dict[str, Any] = {}
        self._tunings: dict[int, tuple[Any, RoutingTuning]] = {}
        self.keys = tuple(self._definitions)
        """Every flag that `check` wants a value of."""
        self.defaults = self.check({key: flag.default for key, flag in self._definitions.items()})
        """What is served while nothing is known."""

    def check(self, raw: Mapping[str, Any], *, primary_pinned: bool = False) -> RoutingFlags:
        """The flags, each value checked. A value of None is a flag that is missing, or off with nothing to serve."""
        primary = self._value(PRIMARY_PROVIDER, raw)
        return RoutingFlags(
            primary=primary,
            enabled={name: self._value(key, raw) for name, key in self._enabled_keys.items()},
            strategy=self._value(ROUTING_STRATEGY, raw),
            tuning=self._tuning(raw.get(ROUTING_TUNING)),
            cascade_on_soft_decline=self._value(CASCADE_ON_SOFT_DECLINE, raw),
            unknown_outcome_policy=self._value(UNKNOWN_OUTCOME_POLICY, raw),
            auto_flip_enabled=self._value(AUTO_FLIP_ENABLED, raw),
            maintenance_notice=self._value(MAINTENANCE_NOTICE, raw),
            # A rule that serves what may not be served has chosen nothing: the default is everyone's.
            primary_pinned=primary_pinned and primary == raw.get(PRIMARY_PROVIDER),
        )

    def _value(self, key: str, raw: Mapping[str, Any]) -> Any:
        value = raw.get(key)
        flag = self._definitions[key]
        problem = flag.problem(value)
        if problem is None:
            return value
        # The same object as last time needs no description: a wrong value must not cost every payment its time.
        if self._last_wrong.get(key, self) is not value:
            self._last_wrong[key] = value
            self._tell(key, value, problem, f"its default {show(flag.default)} is used")
        return flag.default

    def _tuning(self, raw: Any) -> RoutingTuning:
        known = self._tunings.get(id(raw))
        if known is not None and known[0] is raw:  # the SDK hands out one shared object until the flag changes
            return known[1]
        tuning = self._parsed(raw)
        if len(self._tunings) >= REMEMBERED_TUNINGS:
            self._tunings.clear()
        self._tunings[id(raw)] = (raw, tuning)
        return tuning

    def _parsed(self, raw: Any) -> RoutingTuning:
        if not isinstance(raw, dict):
            self._tell(ROUTING_TUNING, raw, "not a JSON object", "the defaults are used")
            return RoutingTuning()
        usable: dict[str, float] = {}
        told = 0
        for name, number in raw.items():
            problem = tuning_problem(name, number)
            if problem is None:
                usable[name] = float(number)
            elif told < REPORTS_PER_TUNING:
                told += 1
                self._tell(ROUTING_TUNING, {name: number}, f"{show(name)} {problem}", "it is ignored")
        return RoutingTuning(**usable)

    def _tell(self, key: str, value: Any, problem: str, consequence: str) -> None:
        if value is None:
            problem = "missing, or switched off with no value to serve"
        shown = show(value)
        seen = (key, problem, shown)
        with self._lock:
            if seen in self._reported:
                return
            if len(self._reported) >= REMEMBERED_REPORTS:
                del self._reported[next(iter(self._reported))]
            self._reported[seen] = None
        with contextlib.suppress(Exception):  # a payment does not fail because a log did
            self._report(WrongValue(key, f"{problem}; {consequence}", shown))
