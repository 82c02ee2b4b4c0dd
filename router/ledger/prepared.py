"""Statements whose SQL is worded once: a payment runs a dozen, and wording each costs more than running it.

The statement is Core's, compiled for the database's dialect; its columns' types turn values into what the driver
takes and back, as Core would have them do. Only the work of wording it again for every execution is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import psycopg
import sqlalchemy as sa

Into = Callable[[Any], Any]


class Prepared:
    """One statement for one dialect. Thread-safe; it never changes.

    Values are given by the names of the statement's parameters; those that the statement holds itself (a limit) need
    not be.
    """

    def __init__(
        self,
        statement: sa.Select[Any] | sa.Insert | sa.Update,
        dialect: sa.Dialect,
        *,
        as_given: Collection[str] = (),
    ) -> None:
        """`as_given`: parameters whose values are what the driver takes already, a document as its JSON."""
        compiled = statement.compile(dialect=dialect)
        assert isinstance(compiled, sa.sql.compiler.SQLCompiler)
        self._sql, order = str(compiled), compiled.positiontup
        self._cursor: Callable[[Any], Any] = _cursor_of
        types = {name: bind.type for name, bind in compiled.binds.items()}
        into = _processors(types, dialect)
        if dialect.driver == "psycopg":
            self._sql, order = _numbered(self._sql)
            self._cursor = psycopg.RawCursor
            into |= {name: _in_words for name, each in types.items() if isinstance(each, sa.Integer)}
        self._fixed = {name: bind.value for name, bind in compiled.binds.items() if bind.value is not None}
        assert order is not None, "both drivers take values by their places"
        self._places = [(name, None if name in as_given else into.get(name)) for name in order]
        self._errors = dialect.loaded_dbapi.Error

    def run(self, connection: sa.Connection, values: Mapping[str, Any]) -> None:
        """Execute it; it answers no rows."""
        self._execute(connection, values)

    def row(self, connection: sa.Connection, values: Mapping[str, Any]) -> Sequence[Any] | None:
        """Its one row, in the driver's own values (`Reading` makes a record's of them); None: there is none."""
        rows: Sequence[Sequence[Any]] = self._execute(connection, values).fetchall()
        assert len(rows) < 2, "a statement about one row"
        return rows[0] if rows else None

    def many(self, connection: sa.Connection, rows: Iterable[Mapping[str, Any]]) -> None:
        """Execute it once for each of these values; it answers no rows."""
        taken = [self._taken(values) for values in rows]
        self._with_cursor(connection, lambda cursor: cursor.executemany(self._sql, taken))

    def _execute(self, connection: sa.Connection, values: Mapping[str, Any]) -> Any:
        taken = self._taken(values)
        return self._with_cursor(connection, lambda cursor: cursor.execute(self._sql, taken))

    def _taken(self, values: Mapping[str, Any]) -> list[Any]:
        """The values as the driver takes them."""
        given = {**self._fixed, **values} if self._fixed else values
        return [given[name] if into is None else into(given[name]) for name, into in self._places]

    def _with_cursor(self, connection: sa.Connection, execute: Callable[[Any], Any]) -> Any:
        driver = connection.connection.dbapi_connection
        assert driver is not None
        # The driver's own cursor: Core's result costs as much as the statement, and nothing of it is needed.
        cursor = self._cursor(driver)
        try:
            execute(cursor)
        except self._errors as error:
            raise as_core_says(connection, self._sql, error, driver, cursor) from error
        return cursor


def _cursor_of(driver: Any) -> Any:
    return driver.cursor()


_NAMED = re.compile(r"%\((\w+)\)s|%%")


def _numbered(text: str) -> tuple[str, list[str]]:
    """Psycopg's own way to write parameters as PostgreSQL's, and their order.

    Psycopg reads a statement anew for every execution where it is long, which costs more than executing it; one with
    the server's own parameters (its raw cursor's) it passes on.
    """
    order: list[str] = []

    def number(found: re.Match[str]) -> str:
        name = found[1]
        if name is None:
            return "%"
        if name not in order:
            order.append(name)
        return f"${order.index(name) + 1}"

    return _NAMED.sub(number, text), order


def _in_words(value: int | None) -> str | None:
    """A number whose type the statement says (`$1::BIGINT`): psycopg would name the least that it fits into, and the
    server then prepares the statement once for each.
    """
    return None if value is None else str(value)


def as_core_says(connection: sa.Connection, text: str, error: Any, driver: Any, cursor: Any) -> BaseException:
    """The driver's error as SQLAlchemy raises it; a connection that it ended leaves the pool."""
    dialect = connection.dialect
    # The server's last words (its severity FATAL) may be read before the end of the connection is. A pooler says them
    # in English only; what the server does may be done all the same.
    said_of_it = getattr(error, "diag", None)
    severity = getattr(said_of_it, "severity_nonlocalized", None) or getattr(said_of_it, "severity", None)
    gone = severity in ("FATAL", "PANIC") or dialect.is_disconnect(error, driver, cursor)
    if gone:
        connection.invalidate(error)
    said: BaseException = sa.exc.DBAPIError.instance(
        text,
        None,
        error,
        dialect.loaded_dbapi.Error,
        hide_parameters=True,
        connection_invalidated=gone,
        dialect=dialect,
    )
    return said


def _processors(types: Mapping[str, sa.types.TypeEngine[Any]], dialect: sa.Dialect) -> dict[str, Into]:
    found = {name: each.dialect_impl(dialect).bind_processor(dialect) for name, each in types.items()}
    return {name: each for name, each in found.items() if each is not None}


class Reading:
    """Rows of these columns, in this order, as Core would have read them."""

    def __init__(self, columns: Sequence[sa.Column[Any]], dialect: sa.Dialect) -> None:
        self._names = tuple(each.name for each in columns)
        found = [(each.name, each.type.dialect_impl(dialect).result_processor(dialect, None)) for each in columns]
        self._out = [(name, each) for name, each in found if each is not None]

    def of(self, row: Sequence[Any]) -> dict[str, Any]:
        """A row's values by their columns' names."""
        values = dict(zip(self._names, row, strict=True))
        for name, out in self._out:
            values[name] = out(values[name])
        return values
