"""The outages that are drilled. Pure: when which provider does what, by the sandbox's own fault modes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LATENCY_MS = 80
"""How long the stand-ins take for a call when all is well."""
WELL: Mapping[str, Any] = {"mode": "ok", "latency_ms": LATENCY_MS}
DOWN: Mapping[str, Any] = {"mode": "down"}


@dataclass(frozen=True, slots=True)
class Change:
    """From this moment on, in seconds from the script's beginning, a provider behaves so."""

    at_s: float
    provider: str
    fault: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Script:
    """One outage: `changes` in order of time; the provider is well again from `mended_at_s` on."""

    name: str
    about: str
    changes: Sequence[Change]
    mended_at_s: float
    per_second: float = 50.0
    """Payments."""
    needs_baseline: bool = False
    """Seen only by a router that knows what is normal for its providers."""

    @property
    def providers(self) -> Sequence[str]:
        """Those that are in trouble, in order of it."""
        return list(dict.fromkeys(each.provider for each in self.changes))


def _outage(name: str, about: str, fault: Mapping[str, Any], seconds: float, **more: Any) -> Script:
    changes = [Change(0.0, "stripe", fault), Change(seconds, "stripe", WELL)]
    return Script(name, about, changes, seconds, **more)


def _flapping() -> Script:
    """Down for four seconds of every twelve: never long enough to be dead, never well."""
    changes = [
        Change(second, "stripe", fault)
        for start in range(0, 60, 12)
        for second, fault in ((float(start), DOWN), (start + 4.0, WELL))
    ]
    return Script("flapping", "connections refused for 4 s of every 12, five times", changes, changes[-1].at_s)


SCRIPTS: tuple[Script, ...] = (
    _outage("outage", "every connection refused", DOWN, 30.0),
    _outage("long-outage", "the same for three minutes", DOWN, 180.0),
    _outage("errors", "every call answered 503, before it acts", {"mode": "errors", "acts": False}, 30.0),
    _outage("hang", "every call acts and is never answered", {"mode": "hang"}, 30.0),
    _outage(
        "partial",
        "30% of the calls answered 503, at 5 payments/s",
        {"mode": "errors", "rate": 0.3, "latency_ms": LATENCY_MS},
        60.0,
        per_second=5.0,
        needs_baseline=True,
    ),
    _outage(
        "brownout",
        "10% of the calls answered 503, and all take twice as long",
        {"mode": "errors", "rate": 0.1, "latency_ms": 2 * LATENCY_MS},
        90.0,
        per_second=5.0,
        needs_baseline=True,
    ),
    _outage(
        "slow",
        "every call takes three times as long",
        {"mode": "ok", "latency_ms": 3 * LATENCY_MS},
        60.0,
        per_second=5.0,
        needs_baseline=True,
    ),
    _flapping(),
    Script(
        "both",
        "both providers refuse every connection, the second from 5 s on",
        [
            Change(0.0, "stripe", DOWN),
            Change(5.0, "adyen", DOWN),
            Change(30.0, "stripe", WELL),
            Change(30.0, "adyen", WELL),
        ],
        30.0,
        per_second=20.0,
    ),
)
