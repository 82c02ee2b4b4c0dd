"""A report as a workbook: a sheet a part, typed cells, a frozen header. Streams, row by row, to temporary files.

Texts are written as texts and numbers as numbers, so that nothing is a formula; amounts are in minor units as
everywhere, and rates are numbers that are shown as per cent.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import IO, Any

import xlsxwriter

from router.reports.figures import PARTS, Column, Value
from router.reports.files import NUMBER_FORMATS, ROW, TOTAL, Streamed

MOST_ROWS = 1_000_000
"""A sheet ends at 1,048,576."""
TITLES = {
    "volume": "Payments",
    "approval": "Approval",
    "money": "Money",
    "costs": "Costs",
    "recovery": "Recovery",
    "declines": "Declines",
    "latency": "Latency",
    "converted": "Converted",
}
GROUP_WIDTH, FIGURE_WIDTH = 18, 16


class TooManyRowsError(Exception):
    """A sheet does not hold so many rows; a CSV does."""


class _Sheet:
    """One part."""

    def __init__(self, book: Any, part: str, columns: Sequence[Column], chosen: Sequence[int]) -> None:
        self._sheet = book.add_worksheet(TITLES[part])
        self._chosen = chosen
        self._shapes = [columns[each].shape for each in chosen]
        self._formats = {
            (shape, bold): book.add_format({"num_format": number_format, "bold": bold})
            for shape, number_format in NUMBER_FORMATS.items()
            for bold in (False, True)
        }
        self._bold, self._plain = book.add_format({"bold": True}), book.add_format()
        head = book.add_format({"bold": True, "bottom": 1, "text_wrap": True, "valign": "top"})
        groups = sum(columns[each].part == "" for each in chosen)
        self._sheet.freeze_panes(1, groups + 1)
        self._sheet.set_column(0, groups, GROUP_WIDTH)
        self._sheet.set_column(groups + 1, len(chosen), FIGURE_WIDTH)
        for at, name in enumerate(["kind", *(columns[each].name for each in chosen)]):
            self._sheet.write_string(0, at, name, head)
        self._next = 1

    def write(self, kind: str, values: Sequence[Value]) -> None:
        """One more row."""
        if self._next > MOST_ROWS:
            raise TooManyRowsError
        bold = kind == TOTAL
        self._sheet.write_string(self._next, 0, kind, self._bold if bold else self._plain)
        for at, (which, shape) in enumerate(zip(self._chosen, self._shapes, strict=True), 1):
            value = values[which]
            if value is None:
                continue
            if isinstance(value, str):
                self._sheet.write_string(self._next, at, value, self._bold if bold else self._plain)
            else:
                self._sheet.write_number(self._next, at, float(value), self._formats[shape, bold])
        self._next += 1


def write_xlsx(found: Streamed, out: IO[bytes]) -> None:
    """Write it. Raises TooManyRowsError."""
    with tempfile.TemporaryDirectory(prefix="pointsman-report-") as folder:
        options = {"constant_memory": True, "tmpdir": folder, "strings_to_formulas": False, "strings_to_urls": False}
        book = xlsxwriter.Workbook(out, options)
        # Its own moment would make two workbooks of one report differ.
        book.set_properties({"created": found.made_at.replace(tzinfo=None)})
        _about(book, found)
        columns = found.columns
        groups = [number for number, each in enumerate(columns) if each.part == ""]
        sheets = []
        for part in PARTS:
            figures = [number for number, each in enumerate(columns) if each.part == part]
            if figures:
                sheets.append(_Sheet(book, part, columns, [*groups, *figures]))
        for values in found.lines:
            for sheet in sheets:
                sheet.write(ROW, values)
        for values in found.totals():
            for sheet in sheets:
                sheet.write(TOTAL, values)
        book.close()


def _about(book: Any, found: Streamed) -> None:
    """The first sheet: what the figures are of, what each column means, and the comparison if there is one."""
    sheet = book.add_worksheet("About")
    bold, row = book.add_format({"bold": True}), 0
    sheet.set_column(0, 0, 34)
    sheet.set_column(1, 4, 24)
    told: dict[str, Any] = {**found.about(), "amounts": "integers in minor units of the row's currency"}
    told["fees"] = "in major units of the row's currency"
    for name, value in told.items():
        sheet.write_string(row, 0, name, bold)
        shown = ", ".join(f"{key} = {each}" for key, each in value.items()) if isinstance(value, dict) else value
        sheet.write_string(row, 1, ", ".join(shown) if isinstance(shown, list) else str(shown))
        row += 1
    for line in _compared(found.comparison or {}):
        row += 1
        for at, value in enumerate(line):
            if isinstance(value, str):
                sheet.write_string(row, at, value)
            else:
                sheet.write_number(row, at, value)
    row += 2
    for each in found.columns:
        sheet.write_string(row, 0, each.name, bold)
        sheet.write_string(row, 1, f"{each.about} ({each.shape.value})" if each.about else each.shape.value)
        row += 1


def _compared(comparison: dict[str, Any]) -> list[list[str | float]]:
    """What the change from always taking the primary is, with its interval."""
    lines: list[list[str | float]] = []
    for currency, told in (comparison.get("currencies") or {}).items():
        if not told["can_tell"]:
            lines.append([f"against the primary, {currency}", "cannot tell: " + "; ".join(told["why_not"])])
            continue
        for measure, estimates in told["estimates"].items():
            lines.append([f"always the primary, {currency}", f"change of {measure}", *estimates["change"].values()])
    return lines
