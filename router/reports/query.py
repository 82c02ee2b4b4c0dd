"""What a report is asked for, checked: a period, its time zone, groups and filters. Pure.

A period is half-open, and begins and ends on whole minutes: facts are kept by the minute.
"""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from providers.currencies import ISO_EXPONENTS
from router.report_measures import DIMENSIONS, WIDE

TIMES = ("day", "hour")
GROUPS = (*TIMES, "provider", "currency", "country", "brand", "merchant", "decline_class")
"""All that a report may be grouped by; `decline-class` and `decline class` are understood too."""
EARLIEST = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
LONGEST = dt.timedelta(days=3660)
LONGEST_BY_HOUR = dt.timedelta(days=366)
FILTER_CHARS = 80
_COUNTRY = re.compile("[A-Z]{2}")


class QueryError(ValueError):
    """What is asked for cannot be; `field` says which part of it, and the text never repeats a value."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Query:
    """One report. Make it with `query`, which checks."""

    start: dt.datetime
    """The first moment that is in it, in UTC."""
    end: dt.datetime
    """The first that is not, in UTC."""
    zone: zoneinfo.ZoneInfo
    group_by: Sequence[str] = ("currency",)
    """Of GROUPS, time first, then as asked for; always with `currency`."""
    filters: Mapping[str, str] = field(default_factory=dict)
    """Dimension to the one value; "" is none. A caller that may see one merchant only puts it here."""

    @property
    def time(self) -> str | None:
        """`hour`, which has its day in it, `day` or None: the finest time that rows are grouped by."""
        return "hour" if "hour" in self.group_by else "day" if "day" in self.group_by else None

    @property
    def dimensions(self) -> Sequence[str]:
        """The groups that are no time."""
        return [each for each in self.group_by if each not in TIMES]

    @property
    def is_wide(self) -> bool:
        """Whether it needs what the cells of an hour do not tell apart."""
        return not {*self.group_by, *self.filters}.isdisjoint(WIDE)


def query(
    start: str,
    end: str,
    *,
    time_zone: str = "UTC",
    group_by: str | Sequence[str] = (),
    filters: Mapping[str, str] | None = None,
    now: dt.datetime,
) -> Query:
    """A checked query. Raises QueryError, which names the field: from, to, time_zone, group_by or a filter.

    `start` and `end`: a day such as 2026-10-01, midnight in the zone; or a time by ISO 8601, in the zone unless it
    says its own.
    """
    zone = _zone(time_zone)
    since, until = _moment("from", start, zone), _moment("to", end, zone)
    if since >= until:
        raise QueryError("from", "must be before to")
    if since < EARLIEST:
        raise QueryError("from", f"must not be before {EARLIEST:%Y-%m-%d}")
    if since > now:
        raise QueryError("from", "is in the future: there is nothing yet to report of")
    if until - since > LONGEST:
        raise QueryError("to", f"at most {LONGEST.days} days after from")
    groups = _groups(group_by)
    if "hour" in groups and until - since > LONGEST_BY_HOUR:
        raise QueryError("to", f"by the hour, at most {LONGEST_BY_HOUR.days} days after from")
    return Query(since, until, zone, groups, _filters(filters or {}))


def month(
    text: str,
    *,
    time_zone: str,
    group_by: str | Sequence[str] = (),
    filters: Mapping[str, str] | None = None,
    now: dt.datetime,
) -> Query:
    """The query of a calendar month such as 2026-10 in that zone. Raises QueryError."""
    try:
        first = dt.date.fromisoformat(f"{text}-01") if len(text) == 7 else None
        following = None if first is None else (first + dt.timedelta(days=31)).replace(day=1)
    except (ValueError, OverflowError):
        first = None
    if first is None or following is None:
        raise QueryError("month", "must be a month such as 2026-10")
    return query(
        first.isoformat(),
        following.isoformat(),
        time_zone=time_zone,
        group_by=group_by,
        filters=filters,
        now=now,
    )


def _zone(name: str) -> zoneinfo.ZoneInfo:
    try:
        # `localtime` and its like would mean another thing on another machine.
        if name != "UTC" and ("/" not in name or name.startswith(("/", "."))):
            raise ValueError
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise QueryError("time_zone", "must be a name of the IANA database, such as Europe/Berlin, or UTC") from None


def _moment(name: str, text: str, zone: zoneinfo.ZoneInfo) -> dt.datetime:
    try:
        found = dt.datetime.fromisoformat(text)
        # In UTC from here on: moments of one zone are compared, and subtracted, by what their clocks show.
        found = (found.replace(tzinfo=zone) if found.tzinfo is None else found).astimezone(dt.UTC)
    except (ValueError, OverflowError):
        raise QueryError(name, "must be a day such as 2026-10-01, or a time by ISO 8601") from None
    if found.second or found.microsecond:
        raise QueryError(name, "must be a whole minute")
    return found


def _groups(asked: str | Sequence[str]) -> Sequence[str]:
    names = asked.split(",") if isinstance(asked, str) else list(asked)
    found = [each.strip().lower().replace("-", "_").replace(" ", "_") for each in names if each.strip()]
    if not all(each in GROUPS for each in found):
        raise QueryError("group_by", f"only {', '.join(GROUPS)}, separated by commas")
    if len(set(found)) != len(found):
        raise QueryError("group_by", "names a group twice")
    times = [each for each in TIMES if each in found]
    others = [each for each in found if each not in TIMES]
    # Money of two currencies is never one sum.
    return (*times, *others, *([] if "currency" in others else ["currency"]))


def _filters(asked: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in asked.items():
        if name not in DIMENSIONS:
            raise QueryError("filter", f"only {', '.join(DIMENSIONS)}")
        if len(value) > FILTER_CHARS or not value.isprintable():
            raise QueryError(name, f"at most {FILTER_CHARS} characters, and no control characters")
        # Else a slip such as `eur` would be a report of nothing.
        if name == "currency" and value not in ISO_EXPONENTS:
            raise QueryError(name, "must be of ISO 4217, such as EUR")
        if name == "country" and value and not _COUNTRY.fullmatch(value):
            raise QueryError(name, "must be two capital letters, such as DE, or empty")
    return dict(asked)
