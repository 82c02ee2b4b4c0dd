"""How the console writes money, moments, durations and shares. Pure."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import Any

from providers.contract import Ineligible
from providers.currencies import iso_exponent

NOTHING = "–"


def money(minor: int | None, currency: str | None) -> str:
    """Minor units as people write them: `1999, "EUR"` as `19.99 EUR`, with thousands apart."""
    if minor is None or currency is None:
        return NOTHING
    try:
        decimals = iso_exponent(currency)
    except Ineligible:
        return f"{minor} {currency} (minor units)"
    sign, (whole, rest) = "−" if minor < 0 else "", divmod(abs(minor), 10**decimals)
    digits = f"{whole:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    return f"{sign}{digits}.{rest:0{decimals}d} {currency}" if decimals else f"{sign}{digits} {currency}"


def clock(moment: dt.datetime | None) -> str:
    """`14:02:11`, in UTC."""
    return NOTHING if moment is None else f"{moment.astimezone(dt.UTC):%H:%M:%S}"


def stamp(moment: dt.datetime | None) -> str:
    """`2026-11-21 14:02:11`, in UTC."""
    return NOTHING if moment is None else f"{moment.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S}"


def since(moment: str, now: dt.datetime) -> str:
    """RFC 3339 as `14:02:11`, and with its day where that is not today's."""
    began = dt.datetime.fromisoformat(moment)
    return clock(began) if began.astimezone(dt.UTC).date() == now.astimezone(dt.UTC).date() else stamp(began)


def iso(moment: dt.datetime) -> str:
    """RFC 3339 in UTC, to the millisecond, for `<time datetime>`."""
    return moment.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def duration(value: dt.timedelta | float | None) -> str:
    """`4 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    if value is None:
        return NOTHING
    seconds = value.total_seconds() if isinstance(value, dt.timedelta) else value
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s".replace(".0 s", " s")
    left, parts = int(seconds), []
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        number, left = divmod(left, length)
        if number:
            parts.append(f"{number} {unit}")
    return " ".join(parts[:2])


def milliseconds(micros: int | None) -> str:
    """`212 ms`, or `3.4 s` from ten seconds' thousandths on."""
    if micros is None:
        return NOTHING
    if micros >= 10_000_000:
        return f"{micros / 1_000_000:.1f} s"
    return f"{micros / 1000:.0f} ms"


def share(part: float | None, decimals: int = 1) -> str:
    """`0.9312` as `93.1%`; None as a dash."""
    return NOTHING if part is None else f"{part * 100:.{decimals}f}%"


def words(name: str | None) -> str:
    """A word of the machine's for a person: `half_open` as `half open`."""
    return NOTHING if not name else name.replace("_", " ")


def figures(evidence: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Evidence, name by name, each value as a person would write it."""
    return [(words(str(name)), _value(value)) for name, value in evidence.items()]


def _value(value: Any) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{words(str(name))}: {_value(each)}" for name, each in value.items()) or NOTHING
    if isinstance(value, list | tuple):
        return ", ".join(_value(each) for each in value) or NOTHING
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def day(moment: dt.datetime) -> str:
    """`2026-11-21`, in the moment's own zone."""
    return f"{moment:%Y-%m-%d}"


FILTERS = {
    "day": day,
    "money": money,
    "clock": clock,
    "stamp": stamp,
    "iso": iso,
    "since": since,
    "duration": duration,
    "milliseconds": milliseconds,
    "share": share,
    "words": words,
    "figures": figures,
}
