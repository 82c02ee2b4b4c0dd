"""What a report may be asked for, and how its period is cut into what answers it."""

from __future__ import annotations

import datetime as dt
from collections import Counter

import pytest

from router.report_measures import Level
from router.reports.pieces import chunks, labels, minute_of, stretches
from router.reports.query import Query, QueryError, month, query

NOW = dt.datetime(2026, 12, 31, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("field", "changed"),
    [
        ("from", {"start": "soon"}),
        ("from", {"start": "2026-11-01", "end": "2026-10-01"}),
        ("from", {"end": "2026-10-01"}),
        ("from", {"start": "1999-12-31"}),
        ("from", {"start": "2027-01-01", "end": "2027-02-01"}),
        ("from", {"start": "2026-10-01T00:00:30"}),
        ("from", {"start": "9999-12-31T23:00:00-23:00"}),
        ("to", {"end": "2026-13-01"}),
        ("to", {"end": "2036-11-01"}),
        ("to", {"end": "2027-11-01", "group_by": "hour"}),
        ("time_zone", {"time_zone": "Mars/Olympus"}),
        ("time_zone", {"time_zone": "../../etc/passwd"}),
        ("time_zone", {"time_zone": "localtime"}),
        ("time_zone", {"time_zone": ""}),
        ("group_by", {"group_by": "day,planet"}),
        ("group_by", {"group_by": "day,provider,day"}),
        ("filter", {"filters": {"planet": "x"}}),
        ("country", {"filters": {"country": "x" * 81}}),
        ("brand", {"filters": {"brand": "a\nb"}}),
        ("currency", {"filters": {"currency": "eur"}}),
        ("currency", {"filters": {"currency": ""}}),
        ("country", {"filters": {"country": "Germany"}}),
    ],
)
def test_a_query_that_cannot_be_names_its_field_and_no_value(field: str, changed: dict[str, object]) -> None:
    """Who asked is told which part is wrong; what was sent is not repeated."""
    usual: dict[str, object] = {"start": "2026-10-01", "end": "2026-11-01"}
    asked = usual | changed
    with pytest.raises(QueryError) as refused:
        query(**asked, now=NOW)  # type: ignore[arg-type]  # whatever comes over HTTP
    assert refused.value.field == field
    assert str(refused.value).startswith(f"{field}: ")
    for value in ("planet", "Mars", "etc", "soon", "xxx", "eur", "Germany"):
        assert value not in str(refused.value)


def test_days_are_the_zones_and_the_end_is_not_included() -> None:
    """Midnight in Berlin, in summer and in winter; a time with its own offset keeps it."""
    found = query("2026-10-01", "2026-11-01", time_zone="Europe/Berlin", now=NOW)
    assert (found.start.isoformat(), found.end.isoformat()) == (
        "2026-09-30T22:00:00+00:00",
        "2026-10-31T23:00:00+00:00",
    )
    own = query("2026-10-01T00:00:00+05:30", "2026-10-02T12:00", time_zone="Asia/Tokyo", now=NOW)
    assert (own.start.isoformat(), own.end.isoformat()) == ("2026-09-30T18:30:00+00:00", "2026-10-02T03:00:00+00:00")
    # The hour that Berlin has twice is a period, though its clocks show the same.
    twice = query("2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00", time_zone="Europe/Berlin", now=NOW)
    assert twice.end - twice.start == dt.timedelta(hours=1)


def test_time_comes_first_and_currency_always() -> None:
    """In whatever order they are asked for, with dashes or spaces too."""
    assert query("2026-10-01", "2026-10-02", group_by="Decline-Class, hour,day", now=NOW).group_by == (
        *("day", "hour"),
        *("decline_class", "currency"),
    )
    assert query("2026-10-01", "2026-10-02", now=NOW).group_by == ("currency",)


def test_a_month_is_a_calendar_month_of_the_zone() -> None:
    """December ends in the next year."""
    found = month("2025-12", time_zone="America/New_York", now=NOW)
    assert (found.start.isoformat(), found.end.isoformat()) == (
        "2025-12-01T05:00:00+00:00",
        "2026-01-01T05:00:00+00:00",
    )
    for text in ("2026-1", "2026-13", "october", "2026-10-01", "9999-12"):
        with pytest.raises(QueryError, match=r"^month: "):
            month(text, time_zone="UTC", now=NOW)


def asked(zone: str, group_by: str, start: str = "2026-10-01", end: str = "2026-10-26T03:17") -> Query:
    return query(start, end, time_zone=zone, group_by=group_by, now=NOW)


SIZES = {None: 1, Level.HOUR: 60, Level.DAY: 1440, Level.WIDE_DAY: 1440}
ZONES = (
    *("UTC", "Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe", "America/New_York"),
    *("Asia/Tokyo", "Pacific/Auckland", "Pacific/Kiritimati", "Etc/GMT+12"),
)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("group_by", ["", "day", "hour", "country", "day,brand", "hour,decline_class"])
@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2026-10-23", "2026-10-26"),
        ("2026-10-24T22:13", "2026-10-26T03:17"),
        ("2026-10-25T00:30+00:00", "2026-10-26"),
    ],
)
def test_every_minute_is_in_its_own_row_once(zone: str, group_by: str, start: str, end: str) -> None:
    """Whatever cells are counted with and facts are moved or taken away: in no other row, and none of outside."""
    wanted = asked(zone, group_by, start, end)
    found: Counter[tuple[int, object]] = Counter()
    for chunk in chunks(wanted):
        for piece in chunk:
            size = SIZES[piece.level]
            assert piece.begin < piece.end
            assert piece.begin % size == piece.end % size == 0
            assert piece.level is None or (piece.level is Level.WIDE_DAY) == wanted.is_wide
            for cell in range(piece.begin, piece.end, size):
                # As the ledger has it: by the first minute of a cell, all of it.
                bucket = None if piece.bucket is None else (cell + piece.offset + piece.nudge) // piece.bucket
                for shift, times in piece.adds:
                    when = None if bucket is None else labels(wanted, piece, bucket + shift)[0].text
                    for minute in range(cell, cell + size):
                        found[minute, when] += times
    rows = {(minute, _row(wanted, minute)) for minute in range(minute_of(wanted.start), minute_of(wanted.end))}
    assert {key for key, times in found.items() if times} == rows
    assert {found[key] for key in rows} == {1}


def _row(wanted: Query, minute: int) -> str | None:
    """Which row a minute is in, by the zone's clocks."""
    local = dt.datetime.fromtimestamp(minute * 60, wanted.zone)
    if wanted.time is None:
        return None
    return local.date().isoformat() if wanted.time == "day" else f"{local:%Y-%m-%dT%H}:00{local.isoformat()[-6:]}"


@pytest.mark.parametrize(
    ("zone", "group_by", "hours"),
    [
        ("UTC", "day", 0),
        ("Europe/Berlin", "day", 0),
        ("Asia/Kolkata", "day", 33 / 2),
        ("Asia/Kolkata", "", 1),
        # What is left at both ends, and on the day on which the clocks change.
        ("UTC", "day,country", 0),
        ("Europe/Berlin", "country", 3),
        ("Europe/Berlin", "day,country", 31 * 2 + 8),
        ("Asia/Tokyo", "day,country", 31 * 9 + 50),
    ],
)
def test_a_month_is_not_read_payment_by_payment(zone: str, group_by: str, hours: float) -> None:
    """Of its 744 hours, so many are of facts: the others are of cells."""
    pieces = [piece for chunk in chunks(asked(zone, group_by, end="2026-11-01")) for piece in chunk]
    assert sum(each.end - each.begin for each in pieces if each.level is None) <= hours * 60


def test_a_stretch_ends_where_the_clocks_change() -> None:
    """To the minute, also where the change is on the period's first or last minute."""
    zone = asked("Europe/Berlin", "").zone
    change = minute_of(dt.datetime(2026, 10, 25, 1, tzinfo=dt.UTC))
    for before in (0, 1, 59, 1440, 9999):
        for after in (1, 60, 5000):
            wanted = [(change - before, change, 120)] if before else []
            assert list(stretches(zone, change - before, change + after)) == [*wanted, (change, change + after, 60)]
    assert list(stretches(zone, change - 5000, change)) == [(change - 5000, change, 120)]
