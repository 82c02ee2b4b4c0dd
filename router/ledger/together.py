"""What is committed together: on PostgreSQL one statement, which is its own transaction; on SQLite one after another.

A transaction of five statements is seven journeys to PostgreSQL and back. Each wakes a process there and one here,
and gives the interpreter to another thread on the way: together they cost more than what is written. SQLite has no
journeys, and no `INSERT` in a `WITH`.

The first step decides. Where it finds no row to write (a compare-and-set that another process was ahead of, a key
that is taken) nothing is written by the others either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from router.ledger.engine import Database
from router.ledger.prepared import Prepared

Given = Callable[[str, sa.types.TypeEngine[Any]], sa.BindParameter[Any]]
"""The parameter of that name: a step's own, whatever other steps of its kind are beside it."""
Condition = Callable[[Given], sa.ColumnElement[bool]]
_ONE: sa.ColumnElement[int] = sa.literal_column("1")


def this_row(table: sa.Table) -> Condition:
    """That its id is the parameter `this`."""
    return lambda given: table.c.id == given("this", table.c.id.type)


class Insert:
    """Inserts of one row with these columns."""

    def __init__(self, table: sa.Table, names: Sequence[str], *, unless: Sequence[Condition] = ()) -> None:
        """`unless`: what must not hold for the row to be written."""
        self.table = table
        self.read = (next(iter(table.primary_key)),)
        self._columns = [table.c[name] for name in names]
        self._unless = unless

    def words(self, given: Given, only_if: sa.ColumnElement[bool] | None) -> sa.Insert:
        """The statement; `only_if` is what it depends on beside its own condition."""
        row = {column.name: given(column.name, column.type) for column in self._columns}
        conditions = [sa.not_(each(given)) for each in self._unless]
        if only_if is not None:
            conditions.append(only_if)
        insert = self.table.insert().inline()
        if not conditions:
            return insert.values(row)
        return insert.from_select(list(row), sa.select(*row.values()).where(*conditions), include_defaults=False)


class Update:
    """Updates of these columns in the rows that the conditions say."""

    def __init__(
        self,
        table: sa.Table,
        names: Sequence[str],
        *,
        where: Sequence[Condition],
        read: Sequence[sa.Column[Any]] = (),
        only_over: Mapping[str, sa.ColumnElement[bool]] | None = None,
    ) -> None:
        """`read`: the columns that the row is read back with, where this is the first step. `only_over`: columns that
        are set only where the row, as it is, meets this, and else stay.
        """
        self.table = table
        self.read = tuple(read)
        self._columns = [table.c[name] for name in names]
        self._where = where
        self._only_over = only_over or {}

    def words(self, given: Given, only_if: sa.ColumnElement[bool] | None) -> sa.Update:
        """As `Insert.words`."""
        row: dict[str, Any] = {column.name: given(column.name, column.type) for column in self._columns}
        for name, condition in self._only_over.items():
            row[name] = sa.case((condition, row[name]), else_=self.table.c[name])
        conditions = [each(given) for each in self._where]
        if only_if is not None:
            conditions.append(only_if)
        return self.table.update().where(*conditions).values(row)


Kind = Insert | Update
Step = tuple[Kind, Mapping[str, Any]]
"""One row to be written, with its values by the names that its kind gives parameters."""


class Together:
    """Words each kind of commit once. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._dialect = database.engine.dialect
        self._one: dict[tuple[Kind, bool], Prepared] = {}
        self._joined: dict[tuple[Kind, ...], Prepared] = {}

    def commit(self, steps: Sequence[Step]) -> Sequence[Any] | None:
        """Commit them; the first one's row, None where there was none and so nothing is written.

        Raises LedgerUnavailableError, of its kind CommitUnknownError where nobody knows whether it was committed;
        integrity errors pass.
        """
        if self._database.is_sqlite:
            with self._database.write() as connection:
                return self.run(connection, steps)
        kinds = tuple(kind for kind, _ in steps)
        joined = self._joined.get(kinds)
        if joined is None:
            joined = self._joined[kinds] = Prepared(_join(kinds), self._dialect)
        values = {f"{at}_{name}": each for at, (_, row) in enumerate(steps) for name, each in row.items()}
        with self._database.write_at_once() as connection:
            return joined.row(connection, values)

    def run(self, connection: sa.Connection, steps: Sequence[Step]) -> Sequence[Any] | None:
        """The same in the caller's transaction, one after another."""
        row = self._statement(steps[0][0], first=True).row(connection, _alone(steps[0][1]))
        if row is not None:
            for kind, values in steps[1:]:
                self._statement(kind, first=False).run(connection, _alone(values))
        return row

    def _statement(self, kind: Kind, *, first: bool) -> Prepared:
        found = self._one.get((kind, first))
        if found is None:
            words = kind.words(_given(0), None)
            found = Prepared(words.returning(*kind.read) if first else words, self._dialect)
            self._one[kind, first] = found
        return found


def _alone(values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"0_{name}": each for name, each in values.items()}


def _given(at: int) -> Given:
    return lambda name, kind: sa.bindparam(f"{at}_{name}", type_=kind)


def _join(kinds: Sequence[Kind]) -> sa.Select[Any]:
    """All of them as one statement, which answers the first one's row.

    PostgreSQL promises no order of the parts: that each asks whether the first has a row has it come first. It must
    ask of any row, and of none of its own: such a question is asked again where a row was changed meanwhile, and a
    part that writes cannot be.
    """
    first = kinds[0].words(_given(0), None).returning(*kinds[0].read).cte("first")
    written = sa.exists(sa.select(_ONE).select_from(first))
    others = [kind.words(_given(at), written).cte(f"step_{at}") for at, kind in enumerate(kinds) if at]
    return sa.select(*first.c).add_cte(*others)
