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

from router.ledger.rollup_moment import Found, Standing
from router.report_measures import HOUR_MINUTES, Piece
from router.reports.figures import COLUMNS, Column, Shape, Sums, Value, add, figures, is_nothing, nothing
from router.reports.pieces import EPOCH, MINUTE, chunks, labels, minute_of, stretches
from router.reports.query import Query, QueryError
from router.reports.rates import Rates

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

    def payments(
        self, begin: int, end: int, figure: str, filters: Mapping[str, str], *, after: str, limit: int
    ) -> Sequence[tuple[str, str, int]]:
        """Payments of these minutes: id, currency and what each adds to the figure; by id, after the id `after`."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its groups, and the sums that its figures are made of."""

    groups: tuple[str, ...]
    """As `Query.group_by`; "" is none."""
    currency: str | None
    sums: Sums

    def values(self, rates: Rates | None = None) -> list[Value]:
        """Groups, then figures, then what they are in the table's currency: as `columns_of`."""
        shown: list[Value] = [*(each or None for each in self.groups), *figures(self.sums, self.currency)]
        return shown if rates is None else [*shown, *rates.values(self.sums, self.currency)]


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


def columns_of(query: Query, rates: Rates | None = None) -> Sequence[Column]:
    """The columns of a query's rows: its groups, every figure, and what the table converts."""
    groups = [Column(each, Shape.TEXT, _GROUP_ABOUT[each], "") for each in query.group_by]
    return (*groups, *COLUMNS, *(() if rates is None else rates.columns()))


class Totals:
    """Totals of the rows that went by: one a currency, and one of all."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self._by_currency: dict[str, list[int]] = {}

    def add(self, row: Row) -> None:
        """One more row."""
        assert row.currency is not None
        add(self._by_currency.setdefault(row.currency, nothing()), row.sums)

    def rows(self, rates: Rates | None = None) -> list[list[Value]]:
        """Values by currency; last, of several currencies, what can be added up across them: counts, and what a table
        of rates has converted."""
        of_each = [self._row(currency, sums) for currency, sums in sorted(self._by_currency.items())]
        found = [each.values(rates) for each in of_each]
        if len(of_each) > 1:
            whole = nothing()
            for each in of_each:
                add(whole, each.sums)
            shown = self._row(None, whole).values()
            found.append(shown if rates is None else [*shown, *rates.total(found)])
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
                for shift, times in piece.adds:
                    when = () if bucket is None else labels(query, piece, bucket + shift)
                    signed = sums if times == 1 else [times * each for each in sums]
                    known = found.get((when, *key))
                    if known is None:
                        found[(when, *key)] = list(signed)
                    else:
                        add(known, signed)
        for (when, *key), sums in sorted(found.items()):
            if not is_nothing(sums):
                yield Row((*(each.text for each in when), *key), key[at], sums)


def check_kept(query: Query, standing: Standing) -> None:
    """Raises QueryError for a period that begins before what the reports know of."""
    if standing.kept_from is not None and query.start < standing.kept_from:
        kept = standing.kept_from.astimezone(query.zone)
        raise QueryError("from", f"reports keep payments from {kept.isoformat(timespec='minutes')} on")


def payments_behind(
    query: Query, figure: str, sources: Sources, *, after: str, limit: int
) -> Sequence[tuple[str, str, int]]:
    """The payments that a figure of `SUMMED` is made of: id, currency, and what each adds; by id, after `after`.

    Raises QueryError for a period that begins before what is kept.
    """
    check_kept(query, sources.standing())
    begin, end = minute_of(query.start), minute_of(query.end)
    return sources.payments(begin, end, figure, query.filters, after=after, limit=limit)


def report(query: Query, sources: Sources, rates: Rates | None = None) -> Report:
    """The whole report; with `rates`, beside each currency's money what it is in another.

    Raises TooManyRowsError, and QueryError for a period that begins before what is kept.
    """
    check_kept(query, sources.standing())
    totals, shown = Totals(query), []
    for row in rows(query, sources):
        totals.add(row)
        shown.append(row.values(rates))
        if len(shown) > MOST_ROWS:
            raise TooManyRowsError
    return Report(query, columns_of(query, rates), shown, totals.rows(rates), sources.standing())


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
        told = dt.datetime.fromisoformat(label)
        begin, ahead = minute_of(told), told.utcoffset()
        # Where clocks change within the hour (Lord Howe), it is the part with the label's offset.
        parts = stretches(query.zone, begin, begin + HOUR_MINUTES)
        since, until = next((since, until) for since, until, offset in parts if offset * MINUTE == ahead)
        begins, ends = EPOCH + since * MINUTE, EPOCH + until * MINUTE
    else:
        day = dt.date.fromisoformat(label)
        begins = dt.datetime.combine(day, dt.time(), query.zone)
        ends = dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), query.zone)
    begins, ends = begins.astimezone(dt.UTC), ends.astimezone(dt.UTC)
    return max(begins, query.start), min(ends, query.end)
