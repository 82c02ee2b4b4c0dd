"""Every flag of the product in one table: what it may hold, what it falls back to, what it means.

File creation, checking, the command line and `flags bootstrap` all read this table (design §7).
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from flags.contract import (
    AUTO_FLIP_ENABLED,
    CASCADE_ON_SOFT_DECLINE,
    MAINTENANCE_NOTICE,
    PRIMARY_PROVIDER,
    ROUTING_STRATEGY,
    ROUTING_TUNING,
    UNKNOWN_OUTCOME_POLICY,
    FlagWriteError,
    provider_enabled_key,
)

Kind = Literal["boolean", "string", "json"]

TUNING_BOUNDS: dict[str, tuple[float, float]] = {
    "margin": (0, 1),
    "explore": (0, 0.1),
    "switch_advantage_pp": (0, 100),
    "approval_half_life_h": (0.1, 720),
    "holdout": (0, 0.2),
}
"""The keys of `payments-routing-tuning` with their least and greatest value; `RoutingTuning` has the units."""


@dataclass(frozen=True, slots=True)
class FlagDefinition:
    """One flag: its kind, what it may hold and what is served where nothing usable is known."""

    key: str
    kind: Kind
    default: Any
    description: str
    variations: tuple[Any, ...]
    """The values a new flag is created with; for a boolean or a closed string these are all that is allowed."""
    off: Any
    """What the flag serves while it is switched off: for a switch, false."""
    closed: bool = True
    """Whether only the variations are allowed; false for free text and JSON."""

    @property
    def allowed(self) -> str:
        """What may be set, in words for a person."""
        if self.kind == "boolean":
            return "true or false"
        if self.kind == "json":
            bounds = ", ".join(f"{name} ({low:g} to {high:g})" for name, (low, high) in TUNING_BOUNDS.items())
            return f"a JSON object with any of: {bounds}"
        return " or ".join(self.variations) if self.closed else "any text"

    def problem(self, value: Any) -> str | None:
        """Why the flag may not hold this value, or None where it may."""
        if self.kind == "boolean":
            return None if isinstance(value, bool) else "not true or false"
        if self.kind == "json":
            return "; ".join(tuning_problems(value)) or None
        if not isinstance(value, str):
            return "not a string"
        return f"not one of {', '.join(self.variations)}" if self.closed and value not in self.variations else None

    def parse(self, text: str) -> Any:
        """The typed value that a person wrote on the command line.

        Raises FlagWriteError, naming what is allowed, for text that this flag may not hold.
        """
        value: Any = text
        if self.kind == "boolean":
            value = {"true": True, "false": False}.get(text.strip().lower(), text)
        elif self.kind == "json":
            try:
                value = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise FlagWriteError(f"{self.key} takes {self.allowed}; this is not JSON") from error
        self.check(value)
        return value

    def check(self, value: Any) -> None:
        """Raise FlagWriteError, naming what is allowed, where the flag may not hold this value."""
        problem = self.problem(value)
        if problem is not None:
            raise FlagWriteError(f"{self.key} takes {self.allowed}; {show(value)} is {problem}")


def definitions(providers: Sequence[str]) -> dict[str, FlagDefinition]:
    """Every flag by its key, for the providers that are configured, in the order a person reads them.

    The primary's default is `stripe`, or the first provider where Stripe is not configured.
    Raises ValueError when there is no provider.
    """
    if not providers:
        raise ValueError("there must be at least one provider")
    primary = "stripe" if "stripe" in providers else providers[0]
    table = [
        _string(PRIMARY_PROVIDER, primary, providers, "The provider tried first while it is healthy."),
        *(
            _switch(provider_enabled_key(name), f"Whether {name} may take new payments; false stops them at once.")
            for name in providers
        ),
        _string(
            ROUTING_STRATEGY,
            "primary-first",
            ("primary-first", "best-value"),
            "Whether the primary leads or the expected value of each provider does.",
        ),
        FlagDefinition(
            key=ROUTING_TUNING,
            kind="json",
            default={},
            description="Numbers that tune routing; a key that is left out keeps its default.",
            variations=({},),
            off={},
            closed=False,
        ),
        _switch(CASCADE_ON_SOFT_DECLINE, "Whether a soft decline may be tried at the next provider."),
        _string(
            UNKNOWN_OUTCOME_POLICY,
            "hold",
            ("hold", "void-and-fail-over"),
            "What to do with an attempt whose answer does not come in time.",
        ),
        _switch(AUTO_FLIP_ENABLED, "Whether the router may change the primary by itself during an outage."),
        FlagDefinition(
            key=MAINTENANCE_NOTICE,
            kind="string",
            default="",
            description="A notice for checkout's pages, shown by /v1/status; empty for none.",
            variations=("",),
            off="",
            closed=False,
        ),
    ]
    return {flag.key: flag for flag in table}


def definition(key: str, providers: Sequence[str]) -> FlagDefinition:
    """One flag by its key. Raises FlagWriteError, naming the nearest keys, where there is no such flag."""
    table = definitions(providers)
    if key in table:
        return table[key]
    near = difflib.get_close_matches(key, table, n=3, cutoff=0.5) or list(table)
    raise FlagWriteError(f"there is no flag {show(key)}; did you mean {' or '.join(near)}?")


def tuning_problems(value: Any) -> list[str]:
    """What is wrong with a value of `payments-routing-tuning`, a sentence for each wrong key."""
    if not isinstance(value, dict):
        return ["not a JSON object"]
    found = ((key, tuning_problem(key, number)) for key, number in value.items())
    return [f"{key} {problem}" for key, problem in found if problem is not None]


def tuning_problem(key: str, value: Any) -> str | None:
    """Why one key of the tuning cannot be used, or None where it can."""
    if key not in TUNING_BOUNDS:
        return "is not a known key"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "is not a number"
    low, high = TUNING_BOUNDS[key]
    if not low <= value <= high or math.isnan(value):
        return f"is outside {low:g} to {high:g}"
    return None


def show(value: Any) -> str:
    """A value as a person would write it, at most 80 characters; flags are not secret."""
    if isinstance(value, str):
        value = value[:80]
    try:
        text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else text[:79] + "…"


def _switch(key: str, description: str) -> FlagDefinition:
    return FlagDefinition(key, "boolean", default=True, description=description, variations=(True, False), off=False)


def _string(key: str, default: str, allowed: Sequence[str], description: str) -> FlagDefinition:
    return FlagDefinition(key, "string", default, description, variations=tuple(allowed), off=default)
