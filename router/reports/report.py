"""A report: rows of figures, in order, with totals. What the console's page, the API and the command all use.

    query = router.reports.query.query("2026-10-01", "2026-11-01", time_zone="Europe/Berlin",
                                       group_by=["day", "provider"], filters={"merchant": "shop"}, now=clock.now())
    with Rollups(database).moment() as sources:  # router.ledger.rollups; one snapshot
        found = report(query, sources)           # rows in memory; at most MOST_ROWS, else TooManyRowsError
    found.columns             # groups first, then figures: name, shape (text, count, money, fee, rate…), about, part
    found.rows                # one list of values a row, as `columns`; found.records() as dicts
    found.totals              # one a currency, and one of all of them (currency None) without money; likewise lists
    found.standing.complete   # False: the rollup is behind, or being built; `behind_since` says from when on

Amounts are integers in minor units of the row's currency, fees Decimals in major units, rates 0 to 1 or None where
there is nothing to divide by. `link(query, row)` is the address of the payments that a row is made of.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlencode

from router.ledger.rollups import Found, Standing
from router.report_measures import Piece
from router.reports.figures import COLUMNS, Column, Shape, Sums, Value, add, figures, is_nothing, nothing
from router.reports.pieces import chunks, labels
from router.reports.query import Query

MOST_ROWS = 20_000
"""Of a report in memory: 10 MB. A file is streamed, however long."""
_GROUP_ABOUT = {
    "day": "of the stated time zone",
    "hour": "its beginning, with its offset from UTC",
    "provider": "that the payment ended with; of attempts, their own",
    "currency": "of the payment; money is never added up across currencies",
    "country": "of the card",
    "brand": "of the card",
    "merchant": "",
    "decline_class": "of the payment's decline; of attempts, their own",
}


class TooManyRowsError(Exception):
    """A report has more rows than are held in memory; a file of it can be had."""


class Sources(Protocol):
    """One moment of the ledger."""

    def standing(self) -> Standing:
        """How far the rollup is, in that moment."""

    def sums(self, piece: Piece, dimensions: Sequence[str], filters: Mapping[str, str]) -> Iterator[Found]:
        """Sums of a piece of the period, grouped; a key may come twice."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its groups, and the sums that its figures are made of."""

    groups: tuple[str, ...]
    """As `Query.group_by`; "" is none."""
    currency: str | None
    sums: Sums

    def values(self) -> list[Value]:
        """Groups, then figures: as `columns_of`."""
        return [*(each or None for each in self.groups), *figures(self.sums, self.currency)]


@dataclass(frozen=True, slots=True)
class Report:
    """A report in memory."""

    query: Query
    columns: Sequence[Column]
    rows: Sequence[list[Value]]
    totals: Sequence[list[Value]]
    """As the rows; groups but the currency are None."""
    standing: Standing

    def records(self) -> Iterator[dict[str, Value]]:
        """The rows by column name."""
        for row in self.rows:
            yield dict(zip([each.name for each in self.columns], row, strict=True))


def columns_of(query: Query) -> Sequence[Column]:
    """The columns of a query's rows: its groups, then every figure."""
    return (*(Column(each, Shape.TEXT, _GROUP_ABOUT[each], "") for each in query.group_by), *COLUMNS)


class Totals:
    """Totals of the rows that went by: one a currency, and one of all."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self._by_currency: dict[str, list[int]] = {}

    def add(self, row: Row) -> None:
        """One more row."""
        assert row.currency is not None
        add(self._by_currency.setdefault(row.currency, nothing()), row.sums)

    def rows(self) -> list[Row]:
        """By currency; last, of several currencies, what can be added up across them."""
        found = [self._row(currency, sums) for currency, sums in sorted(self._by_currency.items())]
        if len(found) > 1:
            whole = nothing()
            for each in found:
                add(whole, each.sums)
            found.append(self._row(None, whole))
        return found

    def _row(self, currency: str | None, sums: Sums) -> Row:
        groups = tuple((currency or "") if each == "currency" else "" for each in self._query.group_by)
        return Row(groups, currency, sums)


def rows(query: Query, sources: Sources) -> Iterator[Row]:
    """The rows of one moment in order: by time, then by the groups as they were asked for.

    Streams: a chunk of the period at a time (`pieces.chunks`), whose rows are in memory together.
    """
    dimensions = query.dimensions
    at = dimensions.index("currency")
    for pieces in chunks(query):
        found: dict[tuple[Any, ...], list[int]] = {}
        for piece in pieces:
            for (bucket, *key), sums in sources.sums(piece, dimensions, query.filters):
                when = () if bucket is None else labels(query, piece, bucket)
                known = found.get((when, *key))
                if known is None:
                    found[(when, *key)] = list(sums)
                else:
                    add(known, sums)
        for (when, *key), sums in sorted(found.items()):
            if not is_nothing(sums):
                yield Row((*(each.text for each in when), *key), key[at], sums)


def report(query: Query, sources: Sources) -> Report:
    """The whole report. Raises TooManyRowsError."""
    totals, shown = Totals(query), []
    for row in rows(query, sources):
        totals.add(row)
        shown.append(row.values())
        if len(shown) > MOST_ROWS:
            raise TooManyRowsError
    columns = columns_of(query)
    return Report(query, columns, shown, [each.values() for each in totals.rows()], sources.standing())


def link(query: Query, row: Sequence[Value]) -> str:
    """The address that lists the payments of one row, as `values` has it."""
    since, until = query.start, query.end
    chosen = dict(query.filters)
    for name, value in zip(query.group_by, row, strict=False):
        if name in ("day", "hour"):
            since, until = _within(query, name, str(value))
        else:
            chosen[name] = str(value or "")
    period = {"from": since.isoformat(), "to": until.isoformat(), "time_zone": query.zone.key}
    return "/v1/reports/payments?" + urlencode(period | chosen)


def _within(query: Query, name: str, label: str) -> tuple[dt.datetime, dt.datetime]:
    """The part of the period that a row of this day or hour is of."""
    if name == "hour":
        begins = dt.datetime.fromisoformat(label)
        ends = begins + dt.timedelta(hours=1)
    else:
        day = dt.date.fromisoformat(label)
        begins = dt.datetime.combine(day, dt.time(), query.zone)
        ends = dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), query.zone)
    begins, ends = begins.astimezone(dt.UTC), ends.astimezone(dt.UTC)
    return max(begins, query.start), min(ends, query.end)
