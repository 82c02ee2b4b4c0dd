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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from router.ledger.engine import Database
from router.ledger.event_feed import EventFeed, Position
from router.ledger.prepared import Prepared
from router.ledger.rollup_cells import (
    Contribution,
    cell_row,
    cells_of,
    contributions_of,
    differences,
    divided,
    fact_rows,
    grouped,
)
from router.ledger.rollup_moment import Moment, State, state_of
from router.ledger.rollup_rows import RawPayment, raw_payments
from router.ledger.tables import (
    payment_events,
    payments,
    report_cells,
    report_facts,
    report_marks,
    report_state,
    to_micros,
)
from router.report_measures import DAY_MINUTES, NAMES, Level

_THE_STATE = 1
FIRST_PAYMENT = ""
"""Before every payment's id."""


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
        self._one_more_fact = Prepared(report_facts.insert(), database.engine.dialect)

    # ------------------------------------------------------------ keeping it

    def begin(self, now: dt.datetime, *, kept_from: dt.datetime | None = None) -> None:
        """Make the state, if there is none: from now on by the feed, and all that was before by a sweep."""
        with self._database.read() as connection:
            if state_of(connection) is not None:
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
            state = state_of(connection)
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
            before = contributions_of(connection, ids)
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
        deltas = differences(changed, work.before)
        state = work.then._replace(generation=work.state.generation + 1)
        with self._database.write() as connection:
            values = {**_columns(state), "updated_at": to_micros(now)}
            guarded = report_state.update().where(report_state.c.generation == work.state.generation)
            if not connection.execute(guarded.values(values)).rowcount:
                return False
            gone = [each for each in changed if each in work.before]
            if gone:
                connection.execute(report_facts.delete().where(report_facts.c.payment_id.in_(gone)))
            rows = [row for each, told in changed.items() for row in fact_rows(each, told)]
            if rows:
                self._one_more_fact.many(connection, rows)
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
                day = divided(table.c.minute, DAY_MINUTES)
                found |= set(connection.scalars(sa.select(day).distinct()))
        return [each * DAY_MINUTES for each in sorted(found)]

    def remake_day(self, day: int) -> int | None:
        """Make the cells of one day of UTC anew from its facts; how many were not what they must be.

        None: another commit to the facts came between reading and writing. Then nothing is written; ask again.
        """
        begin, end = day, day + DAY_MINUTES
        with self._database.read() as connection:
            state = state_of(connection)
            before = cells_of(connection, begin, end)
            wanted = {
                (level.value, *key): sums
                for level in Level
                for key, sums in grouped(connection, level, begin, end)
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
            rows = [cell_row(key[0], key[1], key[2:], wanted[key]) for key in wrong if key in wanted]
            if rows:
                connection.execute(report_cells.insert(), rows)
        return len(wrong)

    # ------------------------------------------------------------ asking it

    @contextlib.contextmanager
    def moment(self) -> Iterator[Moment]:
        """Sums of one moment."""
        with self._database.read() as connection:
            yield Moment(connection, self._feed)


def mark(connection: sa.Connection, payment_ids: Iterable[str]) -> None:
    """Have the reports look at these payments anew: for whoever changes an attempt or an operation without an event
    of its payment. To be called in the transaction that changes them."""
    rows = [{"payment_id": each} for each in payment_ids]
    if rows:
        connection.execute(report_marks.insert(), rows)


def _ids_after(connection: sa.Connection, after: str, limit: int) -> Sequence[str]:
    query = sa.select(payments.c.id).where(payments.c.id > after).order_by(payments.c.id).limit(limit)
    return connection.scalars(query).all()


def _columns(state: State) -> dict[str, Any]:
    return {
        "generation": state.generation,
        "xact": state.position.xact,
        "number": state.position.number,
        "swept_to": state.swept_to,
    }
