"""*Flags*: what the router reads now, what it falls back to, and where a value is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, render_template

from flags.changes import FlagChange
from flags.contract import (
    AUTO_FLIP_ENABLED,
    CASCADE_ON_SOFT_DECLINE,
    MAINTENANCE_NOTICE,
    PRIMARY_PROVIDER,
    ROUTING_STRATEGY,
    ROUTING_TUNING,
    UNKNOWN_OUTCOME_POLICY,
    FlagContext,
    RoutingFlags,
    provider_enabled_key,
)
from flags.definitions import FlagDefinition, definitions, show
from router.api import operator_views
from router.console.parts import Parts, require

CHANGES_SHOWN = 30


@dataclass(frozen=True, slots=True)
class Row:
    """One flag."""

    flag: FlagDefinition
    read: str
    """What the router goes by for everyone, after its checks."""
    default: str
    is_default: bool
    wrong: tuple[str, ...]
    """What it serves to somebody and may not, and why; the default stands in for it."""
    last: FlagChange | None
    pins: Mapping[str, Any]


def add(pages: Blueprint, parts: Parts) -> None:
    """The page."""

    @pages.get("/flags")
    def flags() -> str:
        require("operate", "reports")
        at = parts.clock.now()
        read = parts.flags.read(FlagContext())
        rows = []
        for flag in definitions(parts.providers).values():
            last = next(iter(parts.flag_values.page(limit=1, key=flag.key)), None)
            rows.append(row_of(flag, read, last))
        return render_template(
            "console/flags.html",
            rows=rows,
            status=operator_views.flags_json(parts.flags.status(), at),
            overrides=parts.override.in_force,
            changes=parts.flag_values.page(limit=CHANGES_SHOWN),
            show=show,
        )


def row_of(flag: FlagDefinition, read: RoutingFlags, last: FlagChange | None) -> Row:
    """One flag, as it is read and as it is set."""
    value = _read(flag.key, read)
    default = dataclasses.asdict(type(read.tuning)()) if flag.key == ROUTING_TUNING else flag.default
    new = None if last is None else last.new
    wrong = tuple(f"{show(each)} is {why}" for each in _served(new) if (why := flag.problem(each)) is not None)
    pins = {} if new is None else new.get("pins", {})
    return Row(flag, _shown(value), _shown(default), value == default, wrong, last, pins)


def _read(key: str, read: RoutingFlags) -> Any:
    values = {
        PRIMARY_PROVIDER: read.primary,
        ROUTING_STRATEGY: read.strategy,
        ROUTING_TUNING: dataclasses.asdict(read.tuning),
        CASCADE_ON_SOFT_DECLINE: read.cascade_on_soft_decline,
        UNKNOWN_OUTCOME_POLICY: read.unknown_outcome_policy,
        AUTO_FLIP_ENABLED: read.auto_flip_enabled,
        MAINTENANCE_NOTICE: read.maintenance_notice,
    }
    return values[key] if key in values else _enabled(key, read)


def _enabled(key: str, read: RoutingFlags) -> bool:
    return all(on for name, on in read.enabled.items() if provider_enabled_key(name) == key)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {'–' if each is None else format(each, 'g')}" for name, each in value.items())
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if value != "" else "(empty)"


def _served(told: Mapping[str, Any] | None) -> Iterator[Any]:
    """The values that a definition serves to somebody now, by the audit's words on it."""
    if told is None:
        return
    if not told.get("on"):
        yield told.get("off")
        return
    serves = told.get("serves")
    if isinstance(serves, dict) and set(serves) == {"per_cent"}:
        yield from serves["per_cent"]
    else:
        yield serves
