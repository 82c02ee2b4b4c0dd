"""Flips: what the machine did to the primary flag, and how far it got."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from router.ledger.engine import Database
from router.ledger.tables import flips, from_micros, to_micros

FlipState = Literal["requested", "confirmed", "superseded", "failed"]
"""requested: to be written, while its incident lasts · confirmed: the flag holds it · superseded: a person got there
first, or the incident was over first · failed."""


@dataclass(frozen=True, slots=True)
class Flip:
    """An automatic change of the primary flag."""

    id: str
    flag: str
    from_value: str
    to_value: str
    state: FlipState
    incident: str
    reason: str
    evidence: Mapping[str, Any]
    created_at: dt.datetime
    confirmed_at: dt.datetime | None = None


class FlipLedger:
    """The flips' queries."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, flip: Flip) -> bool:
        """Commit a requested flip; False when this incident already has one, so that exactly one worker acts."""
        row = {name: getattr(flip, name) for name in _COLUMNS}
        try:
            with self._database.write() as connection:
                connection.execute(flips.insert(), {**row, "created_at": to_micros(flip.created_at)})
        except sa.exc.IntegrityError:
            return False
        return True

    def settle(self, flip_id: str, state: FlipState, *, at: dt.datetime, as_written: Flip | None = None) -> None:
        """Commit how a requested flip ended, and what was written where; a flip that has ended stays as it is."""
        confirmed = to_micros(at) if state == "confirmed" else None
        values: dict[str, Any] = {"state": state, "confirmed_at": confirmed}
        if as_written is not None:
            values |= {name: getattr(as_written, name) for name in ("to_value", "reason", "evidence")}
        with self._database.write() as connection:
            connection.execute(
                flips.update().where(flips.c.id == flip_id, flips.c.state == "requested").values(values)
            )

    def retarget(self, flip: Flip, to_value: str) -> bool:
        """Commit another target of a requested flip; False when it has ended, or another worker was first."""
        still = (flips.c.id == flip.id, flips.c.state == "requested", flips.c.to_value == flip.to_value)
        with self._database.write() as connection:
            return connection.execute(flips.update().where(*still).values(to_value=to_value)).rowcount == 1

    def exists(self, incident: str) -> bool:
        """Whether this incident has had its flip."""
        with self._database.read() as connection:
            return connection.scalar(sa.select(flips.c.id).where(flips.c.incident == incident).limit(1)) is not None

    def of(self, incidents: Iterable[str]) -> Mapping[str, str]:
        """The flips of these incidents: the incident's id to the flip's."""
        query = sa.select(flips.c.incident, flips.c.id).where(flips.c.incident.in_(sorted(incidents)))
        with self._database.read() as connection:
            return {row.incident: row.id for row in connection.execute(query)}

    def requested(self) -> Sequence[Flip]:
        """Flips that were decided and not written yet."""
        return self._read(flips.select().where(flips.c.state == "requested").order_by(flips.c.id))

    def page(self, *, limit: int, before: str | None) -> Sequence[Flip]:
        """Flips, newest first, older than the id `before`."""
        query = flips.select() if before is None else flips.select().where(flips.c.id < before)
        return self._read(query.order_by(flips.c.id.desc()).limit(limit))

    def _read(self, query: sa.Select[tuple[object, ...]]) -> Sequence[Flip]:
        with self._database.read() as connection:
            return [_flip(row) for row in connection.execute(query).mappings()]


_COLUMNS = [column.name for column in flips.columns]


def _flip(row: Mapping[Any, Any]) -> Flip:
    values = dict(row)
    values["created_at"] = from_micros(values["created_at"])
    values["confirmed_at"] = None if values["confirmed_at"] is None else from_micros(values["confirmed_at"])
    return Flip(**values)
