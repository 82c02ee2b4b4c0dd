"""What the rollup tells: sums over its cells and facts, and how far it has come, all of one moment."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa

from router.ledger.event_feed import EventFeed, Position
from router.ledger.rollup_cells import Sums, divided, literal
from router.ledger.tables import from_micros, payment_events, report_cells, report_facts, report_marks, report_state
from router.report_measures import NAMES, Piece

Found = tuple[tuple[Any, ...], Sums]
"""A key, of the piece's bucket (its number since 1970, on the zone's clocks) or None and then the dimensions asked
for; and the sums."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the rollup has come."""

    behind_since: dt.datetime | None
    """The moment of the oldest change that is not in it; None: all are."""
    building: bool
    """Payments of before the rollup began are still being looked at: sums are too low."""
    kept_from: dt.datetime | None
    """There are no facts of before; None: none is left out."""

    @property
    def complete(self) -> bool:
        """Whether the figures are those of the payments as they are now."""
        return self.behind_since is None and not self.building


class State(NamedTuple):
    """The rollup's one row."""

    generation: int
    position: Position
    swept_to: str | None
    kept_from: int | None


class Moment:
    """The rollup as one snapshot has it."""

    def __init__(self, connection: sa.Connection, feed: EventFeed) -> None:
        self._connection = connection
        self._feed = feed

    def standing(self) -> Standing:
        """How far the rollup is."""
        state = state_of(self._connection)
        if state is None:
            return Standing(None, True, None)
        events, marks = payment_events.c, report_marks.c
        query = self._feed.readable(self._connection, state.position).with_only_columns(events.at).limit(1)
        oldest = self._connection.scalar(query)
        if oldest is None and self._connection.scalar(sa.select(marks.number).limit(1)) is not None:
            oldest = self._connection.scalar(sa.select(report_state.c.updated_at))
        return Standing(
            None if oldest is None else from_micros(oldest),
            state.swept_to is not None,
            None if state.kept_from is None else from_micros(state.kept_from),
        )

    def sums(self, piece: Piece, dimensions: Sequence[str], filters: Mapping[str, str]) -> Iterator[Found]:
        """Sums of a piece of the period by its bucket and these dimensions, for one value each of `filters`."""
        table = report_facts if piece.level is None else report_cells
        keys: list[sa.ColumnElement[Any]] = [table.c[each] for each in dimensions]
        if piece.bucket is not None:
            keys.insert(0, divided(table.c.minute.op("+")(literal(piece.offset + piece.nudge)), piece.bucket))
        query = (
            sa.select(*keys, *(sa.func.sum(table.c[name]).label(f"sum_{name}") for name in NAMES))
            .where(*_of_piece(table, piece), *(table.c[name] == value for name, value in filters.items()))
            .group_by(*keys)
        )
        many = len(keys)
        for row in self._connection.execute(query):
            key = row[:many] if piece.bucket is not None else (None, *row[:many])
            # PostgreSQL's sum of bigints is a numeric.
            yield tuple(key), list(map(int, row[many:]))

    def payments(
        self,
        begin: int,
        end: int,
        figure: str,
        filters: Mapping[str, str],
        *,
        after: str,
        limit: int,
    ) -> Sequence[tuple[str, str, int]]:
        """Of the payments with facts of these minutes: id, currency and what each adds to a measure, where that is
        not 0; by id, after the id `after`."""
        facts = report_facts.c
        adds = sa.func.sum(facts[figure])
        query = (
            sa.select(facts.payment_id, facts.currency, adds)
            .where(facts.minute >= begin, facts.minute < end, facts.payment_id > after)
            .where(*(facts[name] == value for name, value in filters.items()))
            .group_by(facts.payment_id, facts.currency)
            .having(adds != 0)
            .order_by(facts.payment_id)
            .limit(limit)
        )
        return [(row[0], row[1], int(row[2])) for row in self._connection.execute(query)]


def state_of(connection: sa.Connection) -> State | None:
    """The rollup's state; None before it has begun."""
    row = connection.execute(report_state.select()).one_or_none()
    return None if row is None else State(row.generation, Position(row.xact, row.number), row.swept_to, row.kept_from)


def _of_piece(table: sa.Table, piece: Piece) -> Iterator[sa.ColumnElement[bool]]:
    if piece.level is not None:
        yield table.c.level == piece.level.value
    yield table.c.minute >= piece.begin
    yield table.c.minute < piece.end
