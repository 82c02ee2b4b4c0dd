"""The reports' rollup: the rows that it is made of, its facts and cells, and sums over them.

**How it stays exact.** What a payment adds is a function of its rows as they are now (`router.reports.facts`), and
what it added last is on record as its facts, with the payment's version. Whoever brings the rollup up to date reads,
in one snapshot, the state, the events that follow its position, those payments' rows and their facts; and then
commits, if the state's generation is still the one that was read: the facts anew, the difference added to the cells,
and the position. So each change is in all of them or in none, whoever is killed when; two workers do not add one
change twice; and to look at a payment once more changes nothing. The feed (`router.ledger.event_feed`) skips no late
commit, and a payment's rows change only with an event of it, or with a mark (`mark`).

**Where a change lands.** At the minute of the payment's creation, however late it comes, so a period's figures are
its own payments'; only `captured_in_period` and `refunded_in_period` are at the minute in which the money moved.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from router.ledger.engine import Database
from router.ledger.event_feed import EventFeed, Position
from router.ledger.tables import (
    attempts,
    from_micros,
    operations,
    payment_events,
    payments,
    report_cells,
    report_facts,
    report_marks,
    report_state,
    to_micros,
)
from router.report_measures import DAY_MINUTES, DIMENSIONS, HOUR_MINUTES, NAMES, NARROW, Dimensions, Level, Piece

_THE_STATE = 1
FIRST_PAYMENT = ""
"""Before every payment's id."""
_SIZES = {Level.HOUR: HOUR_MINUTES, Level.DAY: DAY_MINUTES, Level.WIDE_DAY: DAY_MINUTES}

FactKey = tuple[int, Dimensions]
"""The minute, and what the fact is grouped by."""
Sums = Sequence[int]
"""In the order of `router.report_measures.MEASURES`."""
Found = tuple[tuple[Any, ...], Sums]
"""A key, of the piece's bucket (its number since 1970, on the zone's clocks) or None and then the dimensions asked
for; and the sums."""


class RawAttempt(NamedTuple):
    """What the reports need of an attempt's row; moments in microseconds."""

    payment_id: str
    id: str
    number: int
    provider: str
    outcome: str | None
    was_approved: bool
    decline: Mapping[str, Any] | None
    fee_actual: int | None
    fee_currency: str | None
    latency_us: int | None
    started_at: int
    finished_at: int | None


class RawOperation(NamedTuple):
    """The same of an operation's."""

    payment_id: str
    attempt_id: str
    kind: str
    amount: int
    state: str
    started_at: int
    finished_at: int | None


class RawPayment(NamedTuple):
    """The same of a payment's, with its attempts by number and its operations."""

    id: str
    version: int
    merchant: str
    status: str
    amount: int
    currency: str
    amount_captured: int
    amount_refunded: int
    provider: str | None
    attempt_id: str | None
    decline: Mapping[str, Any] | None
    dispute: Mapping[str, Any] | None
    tries: int
    order: Mapping[str, Any]
    decision: Mapping[str, Any]
    created_at: int
    attempts: Sequence[RawAttempt] = ()
    operations: Sequence[RawOperation] = ()


class Contribution(NamedTuple):
    """What a payment adds, or added: its facts, as of this version."""

    version: int
    facts: Mapping[FactKey, Sums]


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


class Work(NamedTuple):
    """What is to be looked at next, as one snapshot has it."""

    state: State
    """As it was read."""
    then: State
    """As it is to be once this work is committed."""
    payments: Sequence[RawPayment]
    before: Mapping[str, Contribution]
    """By payment id, what is on record of them."""
    marks: Sequence[int]
    """Numbers of the marks that this work answers."""
    events: int


class Rollups:
    """Reads and writes the rollup. Each method raises LedgerUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._feed = EventFeed(database)

    # ------------------------------------------------------------ keeping it

    def begin(self, now: dt.datetime, *, kept_from: dt.datetime | None = None) -> None:
        """Make the state, if there is none: from now on by the feed, and all that was before by a sweep."""
        with self._database.read() as connection:
            if _state(connection) is not None:
                return
        position = self._feed.head()  # before the sweep reads a payment: nothing falls between the two
        row = {
            "id": _THE_STATE,
            "generation": 0,
            "xact": position.xact,
            "number": position.number,
            "swept_to": FIRST_PAYMENT,
            "kept_from": None if kept_from is None else to_micros(kept_from),
            "updated_at": to_micros(now),
        }
        with self._database.write() as connection:
            connection.execute(self._insert(report_state).on_conflict_do_nothing(), row)

    def sweep_again(self) -> bool:
        """Have every payment looked at anew, beside the feed; whether there is a state to say so."""
        table = report_state
        with self._database.write() as connection:
            values = {"swept_to": FIRST_PAYMENT, "generation": table.c.generation + 1}
            return bool(connection.execute(table.update().values(values)).rowcount)

    def work(self, limit: int) -> Work | None:
        """What to look at next: what the feed tells, then marks, then a stretch of the sweep. None: no state."""
        with self._database.read() as connection:
            state = _state(connection)
            if state is None:
                return None
            then, events = state, 0
            ids: dict[str, None] = {}
            told = connection.execute(self._readable(connection, state.position, limit)).all()
            if told:
                then = then._replace(position=Position(told[-1].xact, told[-1].number))
                events = len(told)
                ids = dict.fromkeys(each.payment_id for each in told)
            marked = connection.execute(report_marks.select().order_by(report_marks.c.number).limit(limit)).all()
            ids |= dict.fromkeys(each.payment_id for each in marked)
            if state.swept_to is not None and len(told) < limit:
                swept = _ids_after(connection, state.swept_to, limit)
                ids |= dict.fromkeys(swept)
                then = then._replace(swept_to=swept[-1] if len(swept) == limit else None)
            found = raw_payments(connection, ids)
            before = _contributions(connection, ids)
        return Work(state, then, found, before, [each.number for each in marked], events)

    def _readable(self, connection: sa.Connection, position: Position, limit: int) -> sa.Select[Any]:
        query = self._feed.readable(connection, position)
        events = payment_events.c
        return query.with_only_columns(events.xact, events.number, events.payment_id).limit(limit)

    def commit(self, work: Work, contributions: Mapping[str, Contribution], now: dt.datetime) -> bool:
        """Write what these payments add now in place of what they added; False: another was first, and all stays."""
        changed = {
            each: told
            for each, told in contributions.items()
            if each not in work.before or work.before[each].facts != told.facts
        }
        deltas = _differences(changed, work.before)
        state = work.then._replace(generation=work.state.generation + 1)
        with self._database.write() as connection:
            values = {**_columns(state), "updated_at": to_micros(now)}
            guarded = report_state.update().where(report_state.c.generation == work.state.generation)
            if not connection.execute(guarded.values(values)).rowcount:
                return False
            gone = [each for each in changed if each in work.before]
            if gone:
                connection.execute(report_facts.delete().where(report_facts.c.payment_id.in_(gone)))
            rows = [row for each, told in changed.items() for row in _fact_rows(each, told)]
            if rows:
                connection.execute(report_facts.insert(), rows)
            if deltas:
                connection.execute(self._added(), deltas)
            if work.marks:
                connection.execute(report_marks.delete().where(report_marks.c.number.in_(work.marks)))
        return True

    def _insert(self, table: sa.Table) -> Any:
        return (sqlite.insert if self._database.is_sqlite else postgresql.insert)(table)

    def _added(self) -> Any:
        statement = self._insert(report_cells)
        sums = {name: report_cells.c[name] + statement.excluded[name] for name in NAMES}
        key = [column.name for column in report_cells.primary_key]
        return statement.on_conflict_do_update(index_elements=key, set_=sums)

    # ------------------------------------------------------------ checking it

    def days(self) -> Sequence[int]:
        """The first minute of each day of UTC of which there are facts or cells, in order."""
        found: set[int] = set()
        with self._database.read() as connection:
            for table in (report_facts, report_cells):
                day = _divided(table.c.minute, DAY_MINUTES)
                found |= set(connection.scalars(sa.select(day).distinct()))
        return [each * DAY_MINUTES for each in sorted(found)]

    def remake_day(self, day: int) -> int | None:
        """Make the cells of one day of UTC anew from its facts; how many were not what they must be.

        None: another commit to the facts came between reading and writing. Then nothing is written; ask again.
        """
        begin, end = day, day + DAY_MINUTES
        with self._database.read() as connection:
            state = _state(connection)
            before = _cells(connection, begin, end)
            wanted = {
                (level.value, *key): sums
                for level in Level
                for key, sums in _grouped(connection, level, begin, end)
                if any(sums)
            }
        wrong = sorted(key for key in before.keys() | wanted.keys() if before.get(key) != wanted.get(key))
        if not wrong or state is None:
            return 0
        with self._database.write() as connection:
            guarded = report_state.update().where(report_state.c.generation == state.generation)
            if not connection.execute(guarded.values(generation=state.generation + 1)).rowcount:
                return None
            for key in wrong:
                matches = [column == value for column, value in zip(report_cells.primary_key, key, strict=True)]
                connection.execute(report_cells.delete().where(*matches))
            rows = [_cell_row(key[0], key[1], key[2:], wanted[key]) for key in wrong if key in wanted]
            if rows:
                connection.execute(report_cells.insert(), rows)
        return len(wrong)

    # ------------------------------------------------------------ asking it

    @contextlib.contextmanager
    def moment(self) -> Iterator[Moment]:
        """Sums of one moment."""
        with self._database.read() as connection:
            yield Moment(connection, self._feed)


class Moment:
    """The rollup as one snapshot has it."""

    def __init__(self, connection: sa.Connection, feed: EventFeed) -> None:
        self._connection = connection
        self._feed = feed

    def standing(self) -> Standing:
        """How far the rollup is."""
        state = _state(self._connection)
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
            keys.insert(0, _divided(table.c.minute.op("+")(_number(piece.offset + piece.nudge)), piece.bucket))
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


def mark(connection: sa.Connection, payment_ids: Iterable[str]) -> None:
    """Have the reports look at these payments anew: for whoever changes an attempt or an operation without an event
    of its payment. To be called in the transaction that changes them."""
    rows = [{"payment_id": each} for each in payment_ids]
    if rows:
        connection.execute(report_marks.insert(), rows)


# ---------------------------------------------------------------- the rows that it is made of


_PAYMENT_COLUMNS = [payments.c[name] for name in RawPayment._fields if name not in ("attempts", "operations")]
_ATTEMPT_COLUMNS = [attempts.c[name] for name in RawAttempt._fields]
_OPERATION_COLUMNS = [operations.c[name] for name in RawOperation._fields]


def raw_payments(connection: sa.Connection, ids: Collection[str]) -> Sequence[RawPayment]:
    """These payments as they are in this snapshot, by id."""
    if not ids:
        return []
    wanted = list(ids)
    tried: dict[str, list[RawAttempt]] = {}
    of_these = attempts.c.payment_id.in_(wanted)
    for row in connection.execute(sa.select(*_ATTEMPT_COLUMNS).where(of_these).order_by(attempts.c.number)):
        tried.setdefault(row[0], []).append(RawAttempt._make(row))
    done: dict[str, list[RawOperation]] = {}
    for row in connection.execute(sa.select(*_OPERATION_COLUMNS).where(operations.c.payment_id.in_(wanted))):
        done.setdefault(row[0], []).append(RawOperation._make(row))
    rows = connection.execute(sa.select(*_PAYMENT_COLUMNS).where(payments.c.id.in_(wanted)).order_by(payments.c.id))
    return [RawPayment._make((*row, tried.get(row[0], ()), done.get(row[0], ()))) for row in rows]


def _ids_after(connection: sa.Connection, after: str, limit: int) -> Sequence[str]:
    query = sa.select(payments.c.id).where(payments.c.id > after).order_by(payments.c.id).limit(limit)
    return connection.scalars(query).all()


def _state(connection: sa.Connection) -> State | None:
    row = connection.execute(report_state.select()).one_or_none()
    return None if row is None else State(row.generation, Position(row.xact, row.number), row.swept_to, row.kept_from)


def _columns(state: State) -> dict[str, Any]:
    return {
        "generation": state.generation,
        "xact": state.position.xact,
        "number": state.position.number,
        "swept_to": state.swept_to,
    }


# ---------------------------------------------------------------- facts and cells


_FACT_COLUMNS = [report_facts.c[name] for name in ("payment_id", "version", "minute", *DIMENSIONS, *NAMES)]


def _contributions(connection: sa.Connection, ids: Collection[str]) -> Mapping[str, Contribution]:
    if not ids:
        return {}
    found: dict[str, Contribution] = {}
    facts: dict[FactKey, Sums]
    for row in connection.execute(sa.select(*_FACT_COLUMNS).where(report_facts.c.payment_id.in_(list(ids)))):
        known = found.get(row[0])
        if known is None:
            facts = {}
            known = found[row[0]] = Contribution(row[1], facts)
        at = 3 + len(DIMENSIONS)
        known.facts[(row[2], Dimensions(*row[3:at]))] = list(row[at:])  # type: ignore[index]  # made above
    return found


def _fact_rows(payment_id: str, told: Contribution) -> Iterator[dict[str, Any]]:
    for (minute, dimensions), sums in told.facts.items():
        row = {"payment_id": payment_id, "version": told.version, "minute": minute, **dimensions._asdict()}
        yield row | dict(zip(NAMES, sums, strict=True))


def _cell_row(level: int, minute: int, dimensions: Sequence[str], sums: Sums) -> dict[str, Any]:
    named = dict(zip(DIMENSIONS, dimensions, strict=True)) | dict(zip(NAMES, sums, strict=True))
    return {"level": level, "minute": minute} | named


def _differences(changed: Mapping[str, Contribution], before: Mapping[str, Contribution]) -> Sequence[dict[str, Any]]:
    """What is to be added to each cell, in the order of their keys: two writers take locks in one order."""
    cells: dict[tuple[Any, ...], list[int]] = {}
    for each, told in changed.items():
        _add(cells, told, 1)
        if each in before:
            _add(cells, before[each], -1)
    return [_cell_row(key[0], key[1], key[2:], sums) for key, sums in sorted(cells.items()) if any(sums)]


def _add(cells: dict[tuple[Any, ...], list[int]], told: Contribution, sign: int) -> None:
    for (minute, dimensions), sums in told.facts.items():
        signed = sums if sign > 0 else [-each for each in sums]
        for level, size in _SIZES.items():
            shown = dimensions if level is Level.WIDE_DAY else (*dimensions[: len(NARROW)], "", "", "")
            key = (level.value, minute // size * size, *shown)
            known = cells.get(key)
            cells[key] = list(signed) if known is None else list(map(int.__add__, known, signed))


def _cells(connection: sa.Connection, begin: int, end: int) -> Mapping[tuple[Any, ...], Sums]:
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


def _grouped(connection: sa.Connection, level: Level, begin: int, end: int) -> Iterator[tuple[tuple[Any, ...], Sums]]:
    """The facts of some minutes, as cells of a level."""
    facts, size = report_facts.c, _SIZES[level]
    minute = _divided(facts.minute, size).op("*")(_number(size))
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


def _number(number: int) -> sa.ColumnElement[int]:
    """Written into the query: of two parameters PostgreSQL does not know that they group by what is selected."""
    return sa.literal_column(str(int(number)), sa.Integer)


def _divided(number: sa.ColumnElement[Any], by: int) -> sa.ColumnElement[Any]:
    """Whole division, which both databases write so; of what is never negative."""
    return sa.type_coerce(number.op("/", precedence=8)(_number(by)), sa.Integer)


def _of_piece(table: sa.Table, piece: Piece) -> Iterator[sa.ColumnElement[bool]]:
    if piece.level is not None:
        yield table.c.level == piece.level.value
    yield table.c.minute >= piece.begin
    yield table.c.minute < piece.end
