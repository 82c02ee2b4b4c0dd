"""Facts and cells: what the rollup is made of, written and read; `router.ledger.rollups` says how it stays exact."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from router.ledger.rollup_rows import among
from router.ledger.tables import report_cells, report_facts
from router.report_measures import DAY_MINUTES, DIMENSIONS, HOUR_MINUTES, NAMES, NARROW, Dimensions, Level

_SIZES = {Level.HOUR: HOUR_MINUTES, Level.DAY: DAY_MINUTES, Level.WIDE_DAY: DAY_MINUTES}
_FACT_COLUMNS = [report_facts.c[name] for name in ("payment_id", "version", "minute", *DIMENSIONS, *NAMES)]

FactKey = tuple[int, Dimensions]
"""The minute, and what the fact is grouped by."""
Sums = Sequence[int]
"""In the order of `router.report_measures.MEASURES`."""


class Contribution(NamedTuple):
    """What a payment adds, or added: its facts, as of this version."""

    version: int
    facts: Mapping[FactKey, Sums]


def contributions_of(connection: sa.Connection, ids: Collection[str]) -> Mapping[str, Contribution]:
    """What is on record of these payments, by id."""
    if not ids:
        return {}
    found: dict[str, Contribution] = {}
    facts: dict[FactKey, Sums]
    for row in connection.execute(sa.select(*_FACT_COLUMNS).where(among(connection, report_facts.c.payment_id, ids))):
        known = found.get(row[0])
        if known is None:
            facts = {}
            known = found[row[0]] = Contribution(row[1], facts)
        at = 3 + len(DIMENSIONS)
        known.facts[(row[2], Dimensions(*row[3:at]))] = list(row[at:])  # type: ignore[index]  # made above
    return found


def fact_rows(payment_id: str, told: Contribution) -> Iterator[dict[str, Any]]:
    """A payment's facts as rows of their table."""
    for (minute, dimensions), sums in told.facts.items():
        row = {"payment_id": payment_id, "version": told.version, "minute": minute, **dimensions._asdict()}
        yield row | dict(zip(NAMES, sums, strict=True))


def cell_row(level: int, minute: int, dimensions: Sequence[str], sums: Sums) -> dict[str, Any]:
    """A cell as a row of its table."""
    named = dict(zip(DIMENSIONS, dimensions, strict=True)) | dict(zip(NAMES, sums, strict=True))
    return {"level": level, "minute": minute} | named


def differences(changed: Mapping[str, Contribution], before: Mapping[str, Contribution]) -> Sequence[dict[str, Any]]:
    """What is to be added to each cell, in the order of their keys: two writers take locks in one order."""
    cells: dict[tuple[Any, ...], list[int]] = {}
    for each, told in changed.items():
        _add(cells, told, 1)
        if each in before:
            _add(cells, before[each], -1)
    return [cell_row(key[0], key[1], key[2:], sums) for key, sums in sorted(cells.items()) if any(sums)]


def _add(cells: dict[tuple[Any, ...], list[int]], told: Contribution, sign: int) -> None:
    for (minute, dimensions), sums in told.facts.items():
        signed = sums if sign > 0 else [-each for each in sums]
        for level, size in _SIZES.items():
            shown = dimensions if level is Level.WIDE_DAY else (*dimensions[: len(NARROW)], "", "", "")
            key = (level.value, minute // size * size, *shown)
            known = cells.get(key)
            cells[key] = list(signed) if known is None else list(map(int.__add__, known, signed))


def cells_of(connection: sa.Connection, begin: int, end: int) -> Mapping[tuple[Any, ...], Sums]:
    """The cells that begin in these minutes, by key; but for those of which nothing is left."""
    of_key = len(report_cells.primary_key)
    rows = connection.execute(
        report_cells.select().where(
            report_cells.c.level.in_([each.value for each in Level]),
            report_cells.c.minute >= begin,
            report_cells.c.minute < end,
        )
    )
    return {tuple(row[:of_key]): list(row[of_key:]) for row in rows if any(row[of_key:])}


def grouped(connection: sa.Connection, level: Level, begin: int, end: int) -> Iterator[tuple[tuple[Any, ...], Sums]]:
    """The facts of some minutes, as cells of a level."""
    facts, size = report_facts.c, _SIZES[level]
    minute = divided(facts.minute, size).op("*")(literal(size))
    wide = level is Level.WIDE_DAY
    dimensions = [facts[name] for name in (DIMENSIONS if wide else NARROW)]
    query = (
        sa.select(minute, *dimensions, *(sa.func.sum(facts[name]) for name in NAMES))
        .where(facts.minute >= begin, facts.minute < end)
        .group_by(minute, *dimensions)
    )
    many = 1 + len(dimensions)
    for row in connection.execute(query):
        key = tuple(row[:many]) if wide else (*row[:many], "", "", "")
        yield key, list(map(int, row[many:]))


def literal(number: int) -> sa.ColumnElement[int]:
    """Written into the query: of two parameters PostgreSQL does not know that they group by what is selected."""
    return sa.literal_column(str(int(number)), sa.Integer)


def divided(number: sa.ColumnElement[Any], by: int) -> sa.ColumnElement[Any]:
    """Whole division, which both databases write so; of what is never negative."""
    return sa.type_coerce(number.op("/", precedence=8)(literal(by)), sa.Integer)
