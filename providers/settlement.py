"""What a provider's settlement file says, line by line, in the router's terms; and how such a file is read.

A file is read as a stream: one line is in memory, however long the file. Whatever is wrong with it ends the reading
with a `SettlementFileError` that names the line and the column, never the value.
"""

from __future__ import annotations

import csv
import datetime as dt
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from providers.currencies import ISO_EXPONENTS

Kind = Literal["capture", "refund", "dispute", "fee", "payout", "adjustment"]
MATCHED_KINDS: Sequence[Kind] = ("capture", "refund")
"""Lines that stand for something in the ledger; the others are kept apart."""

LONGEST_LINE = 256 * 1024
"""Characters; a line of either vendor has a few hundred. One that never ends must not fill the memory."""
HIGHEST_AMOUNT = 10**15
"""Of an amount in minor units: what the ledger's columns hold, with room for sums of thousands of them."""
LATEST_YEAR = 2200
_NUMBER = re.compile(r"(-?)([0-9]{1,18})(?:\.([0-9]{1,12}))?")
"""No thousands, no comma, no exponent, no currency sign: a file made for another locale is refused, not guessed."""
_OWN_ID = re.compile(r"[a-z]{2,6}_[0-9A-Za-z]{1,40}")
"""What the router's own ids look like."""


class Lines(Protocol):
    """An open file: all that is asked of it."""

    def readline(self, limit: int, /) -> bytes:
        """The next line, or as much of it; nothing at the end."""


class SettlementFileError(Exception):
    """A settlement file that cannot be imported: the line and the column that are wrong, and why; never the value."""

    def __init__(self, line: int, column: str | None, why: str) -> None:
        where = f"line {line}" if column is None else f"line {line}, {column}"
        super().__init__(f"{where}: {why}")
        self.line = line
        self.column = column
        self.why = why


@dataclass(frozen=True, slots=True)
class SettlementLine:
    """One line. Money is integer minor units by ISO 4217, positive where it comes to the merchant."""

    number: int
    """Its line in the file, where it begins; the heading is 1."""
    id: str
    """The provider's own name of it, unique at that provider: by it a line is known again."""
    kind: Kind
    type: str
    """The provider's own word for the kind."""
    reference: str | None
    """Of the payment (a capture, a dispute) or of the refund, as the provider calls it."""
    modification: str | None
    """Of the capture at the provider, where it has a reference of its own."""
    own: str | None
    """Our own id of the attempt, or of the refund, where the file tells it."""
    amount: int
    currency: str
    """As the customer was charged."""
    fee: int
    """Kept by the provider of this line; in minor units of `net_currency`, as `net` is."""
    net: int
    net_currency: str
    at: dt.datetime
    batch: str | None
    """The payout, or the batch, that it was paid with."""


class Row:
    """One row of a file, by column; each reader raises a SettlementFileError that names the column."""

    __slots__ = ("_cells", "_columns", "number")

    def __init__(self, columns: Mapping[str, int], cells: Sequence[str], number: int) -> None:
        self._columns = columns
        self._cells = cells
        self.number = number

    def wrong(self, column: str, why: str) -> SettlementFileError:
        """The refusal of one cell."""
        return SettlementFileError(self.number, column, why)

    def has(self, column: str) -> bool:
        """Whether the file has that column."""
        return column in self._columns

    def text(self, column: str) -> str | None:
        """What stands there, without blanks around it; None where nothing does, or there is no such column."""
        index = self._columns.get(column)
        return None if index is None else self._cells[index].strip() or None

    def needed(self, column: str) -> str:
        """What must stand there."""
        found = self.text(column)
        if found is None:
            raise self.wrong(column, "is empty")
        return found

    def pattern(self, column: str, pattern: re.Pattern[str], what: str) -> str | None:
        """What stands there, in the shape that it must have."""
        found = self.text(column)
        if found is not None and pattern.fullmatch(found) is None:
            raise self.wrong(column, f"is not {what}")
        return found

    def own(self, column: str) -> str | None:
        """An id of ours; None where what stands there is none: it is not ours to judge, nor to keep."""
        found = self.text(column)
        return found if found is not None and _OWN_ID.fullmatch(found) else None

    def currency(self, column: str) -> str:
        """Three letters of ISO 4217, in whichever case."""
        found = self.needed(column).upper()
        if found not in ISO_EXPONENTS:
            raise self.wrong(column, "is not a currency of ISO 4217")
        return found

    def number_in(self, column: str) -> tuple[int, int]:
        """A decimal number as its digits and how many of them are decimals; an empty cell is 0."""
        found = self.text(column)
        if found is None:
            return 0, 0
        match = _NUMBER.fullmatch(found)
        if match is None:
            raise self.wrong(column, "is not a number such as 12.34")
        sign, whole, decimals = match.groups()
        digits = int(whole + (decimals or ""))
        return -digits if sign else digits, len(decimals or "")

    def amount(self, column: str, currency: str) -> int:
        """Major units, as minor units, exactly: one that is finer than its currency is refused."""
        digits, places = self.number_in(column)
        minor, rest = divmod(digits * _unit(ISO_EXPONENTS[currency]), _unit(places))
        if rest:
            raise self.wrong(column, "has more decimals than its currency")
        return self.bounded(column, minor)

    def bounded(self, column: str, minor: int) -> int:
        """Minor units that the ledger can hold."""
        if abs(minor) > HIGHEST_AMOUNT:
            raise self.wrong(column, "is too large")
        return minor

    def moment(self, column: str, zone: dt.tzinfo = dt.UTC) -> dt.datetime:
        """`2026-10-31 23:59:59` in that time zone, as UTC."""
        text = self.needed(column)
        try:
            found = dt.datetime.fromisoformat(text)
        except ValueError:
            raise self.wrong(column, "is not a moment such as 2026-10-31 23:59:59") from None
        if not 2000 <= found.year < LATEST_YEAR:
            raise self.wrong(column, "is not of this century or the next")
        return (found if found.tzinfo is not None else found.replace(tzinfo=zone)).astimezone(dt.UTC)


def rounded(digits: int, places: int, currency: str) -> int:
    """A number as minor units, half away from zero: costs are quoted finer than money is paid."""
    scaled, unit = abs(digits) * _unit(ISO_EXPONENTS[currency]), _unit(places)
    minor = (2 * scaled + unit) // (2 * unit)
    return -minor if digits < 0 else minor


def _unit(places: int) -> int:
    return int(10**places)


def read_lines(
    stream: Lines, required: Sequence[str], line_of: Callable[[Row], SettlementLine]
) -> Iterator[SettlementLine]:
    """Every line of a CSV file with a heading: UTF-8, commas, RFC 4180. Raises SettlementFileError."""
    text = _Text(stream)
    rows = csv.reader(text, strict=True)
    columns: dict[str, int] = {}
    begins = 1
    while True:
        text.begin(begins)
        try:
            cells = next(rows)
        except StopIteration:
            break
        except csv.Error as error:
            # Its text is the library's own, and never quotes the file.
            raise SettlementFileError(begins, None, f"is not CSV ({error})") from None
        if not columns:
            columns = _heading(cells, required)
        elif cells:
            if len(cells) != len(columns):
                found = f"has {len(cells)} columns where the heading has {len(columns)}"
                raise SettlementFileError(begins, None, found)
            yield line_of(Row(columns, cells, begins))
        begins = rows.line_num + 1
    if not columns:
        raise SettlementFileError(1, None, "the file is empty")


def _heading(cells: Sequence[str], required: Iterable[str]) -> dict[str, int]:
    columns = {name.strip(): index for index, name in enumerate(cells)}
    missing = [name for name in required if name not in columns]
    if missing:
        raise SettlementFileError(1, missing[0], "the column is missing")
    if len(columns) != len(cells):
        raise SettlementFileError(1, None, "a column comes twice")
    return columns


class _Text:
    """The file's lines as text. Raises SettlementFileError where one is no UTF-8, or a row of them does not end."""

    def __init__(self, stream: Lines) -> None:
        self._stream = stream
        self._number = 0
        self._begins = 1
        self._taken = 0

    def begin(self, number: int) -> None:
        """A row begins at that line: in quotes it may go on over several."""
        self._begins, self._taken = number, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        raw = self._stream.readline(LONGEST_LINE)
        if not raw:
            raise StopIteration
        self._number += 1
        self._taken += len(raw)
        if self._taken > LONGEST_LINE or (len(raw) == LONGEST_LINE and not raw.endswith(b"\n")):
            raise SettlementFileError(self._begins, None, "is too long to be a line of such a file")
        if b"\0" in raw:
            raise SettlementFileError(self._number, None, "has a zero byte: this is no text")
        try:
            return raw.decode("utf-8-sig" if self._number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise SettlementFileError(self._number, None, "is not UTF-8") from None
