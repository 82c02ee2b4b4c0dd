"""What a report may be asked for, and how its period is cut into what answers it."""

from __future__ import annotations

import datetime as dt

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
    for value in ("planet", "Mars", "etc", "soon", "xxx"):
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


def asked(zone: str, group_by: str, start: str = "2026-10-01", end: str = "2026-11-02T03:17") -> Query:
    return query(start, end, time_zone=zone, group_by=group_by, now=NOW)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe", "America/New_York"])
@pytest.mark.parametrize("group_by", ["", "day", "hour", "country", "day,brand", "hour,decline_class"])
@pytest.mark.parametrize("start", ["2026-10-01", "2026-10-24T22:13", "2026-10-25T00:30+00:00"])
def test_the_pieces_are_the_period_once_and_each_lies_in_one_row(zone: str, group_by: str, start: str) -> None:
    """Without a gap or an overlap; a cell begins and ends with a cell, and never spans two rows."""
    wanted = asked(zone, group_by, start)
    pieces = [piece for chunk in chunks(wanted) for piece in chunk]
    minutes = [minute for piece in pieces for minute in (piece.begin, piece.end)]
    assert (minutes[0], minutes[-1]) == (minute_of(wanted.start), minute_of(wanted.end))
    assert minutes[1:-1:2] == minutes[2:-1:2]
    assert minutes == sorted(minutes)
    for piece in pieces:
        size = {None: 1, Level.HOUR: 60, Level.DAY: 1440, Level.WIDE_DAY: 1440}[piece.level]
        assert piece.begin % size == piece.end % size == 0
        assert piece.level is None or (piece.level is Level.WIDE_DAY) == wanted.is_wide
        if piece.bucket is not None:
            for begin in range(piece.begin, min(piece.end, piece.begin + 3000), size):
                first, last = ((each + piece.offset) // piece.bucket for each in (begin, begin + size - 1))
                assert first == last
                local = dt.datetime.fromtimestamp(begin * 60, wanted.zone)
                text = labels(wanted, piece, first)[0].text
                hour = f"{local:%Y-%m-%dT%H}:00{local.isoformat()[-6:]}"
                assert text == (local.date().isoformat() if wanted.group_by[0] == "day" else hour)


def test_whole_hours_off_utc_take_cells_and_half_hours_facts() -> None:
    """Cells wherever they fit: else a month would be read payment by payment."""
    kinds = {
        zone: {piece.level for chunk in chunks(asked(zone, "day", end="2026-11-01")) for piece in chunk}
        for zone in ("UTC", "Europe/Berlin", "Asia/Kolkata")
    }
    assert kinds == {"UTC": {Level.DAY}, "Europe/Berlin": {Level.HOUR}, "Asia/Kolkata": {None}}
    whole = [piece for chunk in chunks(asked("Asia/Kolkata", "", end="2026-11-01")) for piece in chunk]
    assert [piece.level for piece in whole] == [None, Level.HOUR, Level.DAY, Level.HOUR, None]
    assert sum(piece.end - piece.begin for piece in whole if piece.level is None) == 60


def test_a_stretch_ends_where_the_clocks_change() -> None:
    """To the minute, also where the change is on the period's first or last minute."""
    zone = asked("Europe/Berlin", "").zone
    change = minute_of(dt.datetime(2026, 10, 25, 1, tzinfo=dt.UTC))
    for before in (0, 1, 59, 1440, 9999):
        for after in (1, 60, 5000):
            wanted = [(change - before, change, 120)] if before else []
            assert list(stretches(zone, change - before, change + after)) == [*wanted, (change, change + after, 60)]
    assert list(stretches(zone, change - 5000, change)) == [(change - 5000, change, 120)]
