"""A report as a file: JSON, CSV or a workbook. Streams: rows go by, and nothing but their totals is kept.

All three write the same values (`Row.values`, `Totals.rows`). Text that a spreadsheet could take for a formula is
written so that it cannot.
"""

from __future__ import annotations

import csv
import datetime as dt
import functools
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import IO, Any

from router.ledger.rollup_moment import Standing
from router.reports.figures import Column, Shape, Value
from router.reports.query import Query
from router.reports.rates import Rates
from router.reports.report import Sources, Totals, check_kept, columns_of, link, rows

FORMULA_SIGNS = "=+-@\t\r\n|%\uff1d\uff0b\uff0d\uff20"
"""What a text begins with that a spreadsheet would reckon with (OWASP, CSV injection); their wide forms too."""
_FORMULA = re.compile(rf"""(?:^|[;,\t])(?=[\s"']*[{re.escape(FORMULA_SIGNS)}])""")
"""Where a cell begins like that, or does once a line is cut at another separator."""
ROW, TOTAL = "row", "total"
"""What the first column of a CSV or a sheet says: totals follow the rows."""


class TooManyRowsError(Exception):
    """A workbook's sheet does not hold so many rows; a CSV does."""


@dataclass(frozen=True, slots=True)
class Streamed:
    """A report on its way into a file. `lines` can be read once, and then `totals`."""

    query: Query
    columns: Sequence[Column]
    standing: Standing
    made_at: dt.datetime
    lines: Iterator[list[Value]]
    totals: Callable[[], list[list[Value]]]
    rates: Rates | None = None
    comparison: dict[str, Any] | None = None
    """What routing earned beside always taking the primary (`router.replay`), if that was asked for."""

    def about(self) -> dict[str, Any]:
        """What the figures are of, for people and machines."""
        query, standing = self.query, self.standing
        return {
            "from": query.start.astimezone(query.zone).isoformat(),
            "to": query.end.astimezone(query.zone).isoformat(),
            "time_zone": query.zone.key,
            "group_by": list(query.group_by),
            "filters": dict(query.filters),
            "made_at": self.made_at.isoformat(timespec="seconds"),
            "complete": standing.complete,
            "behind_since": None if standing.behind_since is None else standing.behind_since.isoformat(),
            "kept_from": None if standing.kept_from is None else standing.kept_from.isoformat(),
            **({} if self.rates is None else {"rate_table": self.rates.name}),
        }


def streamed(
    query: Query,
    sources: Sources,
    *,
    made_at: dt.datetime,
    rates: Rates | None = None,
    comparison: dict[str, Any] | None = None,
) -> Streamed:
    """The report of one moment, of which nothing is read yet. Raises QueryError as `report` does."""
    totals, standing = Totals(query), sources.standing()
    check_kept(query, standing)

    def lines() -> Iterator[list[Value]]:
        for row in rows(query, sources):
            totals.add(row)
            yield row.values(rates)

    return Streamed(
        query,
        columns_of(query, rates),
        standing,
        made_at,
        lines(),
        lambda: totals.rows(rates),
        rates,
        comparison,
    )


def write_json(found: Streamed, out: IO[bytes]) -> None:
    """`{"rows": [{…, "link"}], "totals": […], "from", "to", "time_zone", …}`; fees are numbers in major units."""
    names = [each.name for each in found.columns]
    text = io.TextIOWrapper(out, "utf-8", write_through=False, newline="")

    def written(values: Sequence[Value], more: dict[str, Any]) -> str:
        shown = {name: _number(value) for name, value in zip(names, values, strict=True)}
        return json.dumps(shown | more, ensure_ascii=False, allow_nan=False)

    text.write(json.dumps(found.about(), ensure_ascii=False)[:-1])
    if found.comparison is not None:
        text.write(f', "against_the_primary": {json.dumps(found.comparison, ensure_ascii=False)}')
    text.write(', "rows": [')
    for number, values in enumerate(found.lines):
        text.write((",\n" if number else "\n") + written(values, {"link": link(found.query, values)}))
    text.write('\n], "totals": [')
    text.write(",".join("\n" + written(values, {}) for values in found.totals()))
    text.write("\n]}\n")
    text.detach()


def _number(value: Value) -> Value:
    return float(value) if isinstance(value, Decimal) else value


def write_csv(found: Streamed, out: IO[bytes]) -> None:
    """RFC 4180, UTF-8: a line of names, a line a row, and the totals; what is not known is empty."""
    text = io.TextIOWrapper(out, "utf-8", newline="")
    sheet = csv.writer(text)
    sheet.writerow(["kind", *(each.name for each in found.columns)])
    for values in found.lines:
        sheet.writerow([ROW, *map(cell, values)])
    for values in found.totals():
        sheet.writerow([TOTAL, *map(cell, values)])
    text.detach()


def cell(value: Value) -> str | int | float | Decimal:
    """A value as a CSV's cell: a text that begins like a formula has an apostrophe before it.

    So has what begins like one after a separator: where a country's spreadsheets separate by semicolons, a CSV's line
    is cut there, whatever quotes stand around it.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return _harmless(value)
    # A Decimal writes small numbers with an exponent.
    return f"{value:f}" if isinstance(value, Decimal) else value


@functools.lru_cache(maxsize=4096)
def _harmless(text: str) -> str:
    return _FORMULA.sub(r"\g<0>'", text)


NUMBER_FORMATS = {
    Shape.COUNT: "#,##0",
    Shape.MONEY: "#,##0",
    Shape.CONVERTED: "#,##0",
    Shape.FEE: "#,##0.0000",
    Shape.RATE: "0.00%",
    Shape.BASIS_POINTS: "0.00",
    Shape.MILLISECONDS: "0.0",
    Shape.SECONDS: "0.000",
}
