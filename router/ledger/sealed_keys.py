"""Which keys the ledger needs, and which process has which: by their ids."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from router.ledger.engine import Database
from router.ledger.tables import from_micros, sealing_keys, sealing_processes, to_micros

GONE_AFTER = dt.timedelta(seconds=30)
"""A process that has told nothing for six rounds has ended, or is cut off from the ledger and writes nothing."""
FORGOTTEN_AFTER = dt.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class KeyUse:
    """A key that something of the ledger was sealed under."""

    id: str
    first_used_at: dt.datetime
    retired_at: dt.datetime | None
    lost_at: dt.datetime | None

    @property
    def is_needed(self) -> bool:
        """Whether a process must have it to start."""
        return self.retired_at is None and self.lost_at is None


class SealedKeys:
    """The queries. Each raises LedgerUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> Sequence[KeyUse]:
        """Every key that was ever used, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(sealing_keys.select().order_by(sealing_keys.c.first_used_at, sealing_keys.c.id))
            return [
                KeyUse(row.id, from_micros(row.first_used_at), _at(row.retired_at), _at(row.lost_at)) for row in rows
            ]

    def use(self, key_id: str, *, now: dt.datetime) -> None:
        """Commit that this key is needed from now on, before anything is sealed under it."""
        known = sa.select(sealing_keys.c.retired_at, sealing_keys.c.lost_at).where(sealing_keys.c.id == key_id)
        with self._database.read() as connection:
            if connection.execute(known).one_or_none() == (None, None):
                return  # on record already: a process that starts beside a full disk need not write it again
        again = {"retired_at": None, "lost_at": None}
        insert = self._insert(sealing_keys).values(id=key_id, first_used_at=to_micros(now))
        with self._database.write() as connection:
            connection.execute(insert.on_conflict_do_update(index_elements=["id"], set_=again))

    def retire(self, key_id: str, *, now: dt.datetime) -> None:
        """Commit that nothing is sealed under it any more."""
        self._set(key_id, {"retired_at": to_micros(now)})

    def lose(self, key_id: str, *, now: dt.datetime) -> bool:
        """Commit that a key is lost for good, and a start needs it no more. False: it was never used."""
        return self._set(key_id, {"lost_at": to_micros(now)})

    def tell(self, process: str, key_ids: Sequence[str], *, now: dt.datetime) -> None:
        """Commit which keys this process has, the one that it seals with first."""
        values = {"key_ids": list(key_ids), "at": to_micros(now)}
        insert = self._insert(sealing_processes).values(process=process, **values)
        with self._database.write() as connection:
            connection.execute(
                sealing_processes.delete().where(sealing_processes.c.at < to_micros(now - FORGOTTEN_AFTER))
            )
            connection.execute(insert.on_conflict_do_update(index_elements=["process"], set_=values))

    def leave(self, process: str) -> None:
        """Commit that this process has ended."""
        with self._database.write() as connection:
            connection.execute(sealing_processes.delete().where(sealing_processes.c.process == process))

    def processes(self, *, now: dt.datetime) -> Mapping[str, Sequence[str]]:
        """The processes that live, and the keys that each has."""
        table = sealing_processes
        query = table.select().where(table.c.at > to_micros(now - GONE_AFTER)).order_by(table.c.process)
        with self._database.read() as connection:
            return {row.process: tuple(row.key_ids) for row in connection.execute(query)}

    def _set(self, key_id: str, values: Mapping[str, Any]) -> bool:
        with self._database.write() as connection:
            found = connection.execute(sealing_keys.update().where(sealing_keys.c.id == key_id).values(values))
        return found.rowcount == 1

    def _insert(self, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
        return sqlite.insert(table) if self._database.is_sqlite else postgresql.insert(table)


def _at(micros: int | None) -> dt.datetime | None:
    return None if micros is None else from_micros(micros)
