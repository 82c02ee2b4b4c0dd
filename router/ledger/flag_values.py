"""The last known definitions of flags, and the audit of their changes: append-only, one row a change.

Every process tells what it hears, and any number of them hear the same. What counts is decided here, under the
row's lock, so that a change is written once and one that is late changes nothing:

- the same definition as the one known: nothing to write, whatever its version;
- a higher version is the next change;
- a version between the last change's and the one known, in which it was otherwise: some process missed it, but
  payments of the teller went by it. It is a change there and back, and what is known stays;
- a lower or equal version with another definition is late, or the environment was made anew. The teller asks again
  once it has held for a while what a full set told it (`Definition.settled`): then it counts by its time, and is
  written where the full set came after what is known was told. A flags file has no version that two processes
  would count alike, so all that it tells counts by its time.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from flags.changes import Definition, FlagChange, Name, describe, same_but_for_version
from router.ledger.engine import Database
from router.ledger.tables import flag_changes, flag_values, from_micros, to_micros
from router.ledger.unavailable import LedgerUnavailableError

TRIES = 5
"""Two processes that both bring what nobody knew: the later one looks again, and finds it known."""
HIGHEST_VERSION = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Heard:
    """What became of what a process told."""

    written: Sequence[FlagChange]
    """The changes that it was the first to tell."""
    contested: frozenset[Name]
    """What it holds in a version that is older than the one known, or in another definition of that version."""


@dataclass(slots=True)
class _Known:
    version: int
    data: Mapping[str, Any] | None
    revision: int
    at: int
    is_new: bool = False
    is_changed: bool = False


class FlagValueLedger:
    """The queries of known flags and their changes; `source` names the environment and holds no secret."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def known(self, source: str) -> Sequence[Definition]:
        """The last known definitions that were not deleted."""
        table = flag_values
        query = table.select().where(table.c.source == source, table.c.data.is_not(None))
        with self._database.read() as connection:
            return [
                Definition(row["kind"], row["key"], row["version"], row["data"], from_micros(row["at"]))
                for row in connection.execute(query).mappings()
            ]

    def saw(self, source: str, told: Sequence[Definition], *, by: str) -> Heard:
        """Commit what of this is news, in its order. Raises LedgerUnavailableError: then none of it is."""
        told = [each for each in told if _can_be_kept(each)]
        if not told:
            return Heard((), frozenset())
        for _ in range(TRIES):
            try:
                with self._database.write() as connection:
                    return _write(connection, source, told, by)
            except sa.exc.IntegrityError:  # another process brought it a moment before: now it is known
                continue
        raise LedgerUnavailableError("other processes write the same flags")

    def changes(self, key: str, since: dt.datetime) -> Sequence[FlagChange]:
        """A flag's changes that were seen since that moment, newest first."""
        table = flag_changes
        return self._read(
            table.select()
            .where(table.c.kind == "flag", table.c.key == key, table.c.at >= to_micros(since))
            .order_by(table.c.number.desc())
        )

    def page(self, *, limit: int, before: int | None = None, key: str | None = None) -> Sequence[FlagChange]:
        """Changes of every flag, or of this one, newest first, older than the number `before`."""
        query = flag_changes.select().order_by(flag_changes.c.number.desc()).limit(limit)
        if before is not None:
            query = query.where(flag_changes.c.number < before)
        if key is not None:
            query = query.where(flag_changes.c.key == key)
        return self._read(query)

    def _read(self, query: sa.Select[tuple[object, ...]]) -> Sequence[FlagChange]:
        with self._database.read() as connection:
            return [_change(row) for row in connection.execute(query).mappings()]


def _write(connection: sa.Connection, source: str, told: Sequence[Definition], by: str) -> Heard:
    known = _locked(connection, source, {each.name for each in told})
    rows: list[dict[str, Any]] = []
    contested: set[Name] = set()
    for each in told:
        have = known.get(each.name)
        version = min(each.version, HIGHEST_VERSION)
        contested.discard(each.name)
        if have is None:
            if each.data is None:
                continue
            have = known[each.name] = _Known(version, None, 0, 0, is_new=True)
        elif same_but_for_version(have.data, each.data):
            if version > have.version:
                have.version, have.is_changed = version, True
            continue
        elif not each.settled and _last_change(connection, source, each.name, rows) < version < have.version:
            there = _row(source, each, have, (describe(each.kind, have.data), describe(each.kind, each.data)), by)
            have.revision += 1
            back = {**there, "old": there["new"], "new": there["old"], "version": have.version}
            rows += [there | {"version": version}, back | {"revision": have.revision + 1}]
            have.revision, have.is_changed = have.revision + 1, True
            continue
        elif not (to_micros(each.at) > have.at if each.settled else version > have.version):
            contested.add(each.name)
            continue
        words = (describe(each.kind, have.data), describe(each.kind, each.data))
        rows.append(_row(source, each, have, words, by) | {"version": version})
        have.version, have.data, have.at = version, each.data, to_micros(each.at)
        have.revision, have.is_changed = have.revision + 1, True
    for name, have in sorted(known.items()):
        if have.is_changed:
            _keep(connection, source, name, have)
    # Only those that are written are read back, each with its number.
    insert = flag_changes.insert().returning(flag_changes)
    written = [_change(connection.execute(insert, row).mappings().one()) for row in rows]
    return Heard(written, frozenset(contested))


def _row(source: str, told: Definition, have: _Known, words: tuple[Any, Any], by: str) -> dict[str, Any]:
    return {
        "source": source,
        "kind": told.kind,
        "key": told.key,
        "revision": have.revision + 1,
        "old": words[0],
        "new": words[1],
        "at": to_micros(told.at),
        "seen_by": by,
    }


def _last_change(connection: sa.Connection, source: str, name: Name, unwritten: Sequence[Mapping[str, Any]]) -> int:
    """The version of the last change on record or about to be."""
    kind, key = name
    for row in reversed(unwritten):
        if (row["kind"], row["key"]) == name:
            return int(row["version"])
    mine = (flag_changes.c.source == source, flag_changes.c.kind == kind, flag_changes.c.key == key)
    query = sa.select(flag_changes.c.version).where(*mine).order_by(flag_changes.c.revision.desc()).limit(1)
    # None on record: what is known was so from the beginning.
    return int(connection.execute(query).scalar() or HIGHEST_VERSION)


def _locked(connection: sa.Connection, source: str, names: set[Name]) -> dict[Name, _Known]:
    """What is known of these, which no other process changes now. One order for all: none wait in a ring."""
    table = flag_values
    query = (
        table.select()
        .where(table.c.source == source, table.c.key.in_(sorted({key for _, key in names})))
        .order_by(table.c.kind, table.c.key)
        .with_for_update()
    )
    return {
        (row["kind"], row["key"]): _Known(row["version"], row["data"], row["revision"], row["at"])
        for row in connection.execute(query).mappings()
    }


def _keep(connection: sa.Connection, source: str, name: Name, have: _Known) -> None:
    kind, key = name
    values = {"version": have.version, "data": have.data, "revision": have.revision, "at": have.at}
    if have.is_new:
        connection.execute(flag_values.insert(), {"source": source, "kind": kind, "key": key, **values})
        return
    mine = (flag_values.c.source == source, flag_values.c.kind == kind, flag_values.c.key == key)
    connection.execute(flag_values.update().where(*mine).values(values))


def _can_be_kept(definition: Definition) -> bool:
    """Whether a database takes it: a file written by hand may hold what JSON does not have."""
    try:
        json.dumps(definition.data, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return "\x00" not in definition.key


def _change(row: sa.RowMapping) -> FlagChange:
    return FlagChange(
        number=row["number"],
        kind=row["kind"],
        key=row["key"],
        version=row["version"],
        old=row["old"],
        new=row["new"],
        at=from_micros(row["at"]),
        seen_by=row["seen_by"],
    )
