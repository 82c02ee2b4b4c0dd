"""Settlement files in the ledger: imports that are whole or not there, and their lines.

A file is written in small commits, so that payments never wait for it. Until its last line is in, its state is
`importing` and nobody sees any of them; a process that dies leaves what the next import of that provider removes.
Each commit is a compare-and-set on the holder: a process that was paused past its lease stops.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from providers.settlement import SettlementLine
from router.ledger.engine import Database
from router.ledger.records import from_row, to_row
from router.ledger.tables import from_micros, to_micros
from router.ledger.tables import settlement_imports as imports
from router.ledger.tables import settlement_lines as lines

BATCH = 500
"""Lines of one commit: on SQLite, a few hundredths of a second for which no payment can be written."""
LEASE = dt.timedelta(seconds=60)
"""A commit takes milliseconds."""


class ImportRunningError(Exception):
    """Another file of this provider is being imported."""


class LeaseLostError(Exception):
    """Another process took this import over: this one was away for too long."""


class LineDiffersError(Exception):
    """A line says other than the same line of this file, or of an earlier one, did."""

    def __init__(self, number: int) -> None:
        super().__init__("the same line came before, with another amount")
        self.number = number


@dataclass(frozen=True, slots=True)
class Import:
    """One file."""

    id: str
    provider: str
    account: str
    name: str
    digest: str
    imported_by: str
    at: dt.datetime
    state: str = "importing"
    lines: int = 0
    new_lines: int = 0
    first_at: dt.datetime | None = None
    last_at: dt.datetime | None = None
    holder: str | None = None
    lease_until: dt.datetime | None = None


_SAME = ("kind", "type", "reference", "amount", "currency", "fee", "net", "net_currency")
"""What a line says for good; the payout that it is in may come later."""


class SettlementLedger:
    """Queries of an import."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def by_digest(self, provider: str, account: str, digest: str) -> Import | None:
        """The import of that very file, whatever its state."""
        return self._one(imports.c.provider == provider, imports.c.account == account, imports.c.digest == digest)

    def get(self, id: str) -> Import | None:
        """An import by its id."""
        return self._one(imports.c.id == id)

    def open_of(self, provider: str) -> Import | None:
        """The one that is not done."""
        return self._one(imports.c.provider == provider, imports.c.state != "done")

    def _one(self, *conditions: sa.ColumnElement[bool]) -> Import | None:
        with self._database.read() as connection:
            row = connection.execute(imports.select().where(*conditions)).mappings().one_or_none()
        return None if row is None else import_of(row)

    def begin(self, new: Import, *, now: dt.datetime) -> None:
        """Claim the provider for this file. Raises ImportRunningError."""
        row = to_row({name: getattr(new, name) for name in Import.__slots__})
        try:
            with self._database.write() as connection:
                connection.execute(imports.insert(), row | {"lease_until": to_micros(now + LEASE)})
        except sa.exc.IntegrityError:
            raise ImportRunningError from None

    def take_over(self, found: Import, *, holder: str, now: dt.datetime) -> None:
        """Be the one who ends what another process began, and left. Raises ImportRunningError while it has not."""
        left = sa.or_(imports.c.lease_until.is_(None), imports.c.lease_until <= to_micros(now))
        values = {"holder": holder, "lease_until": to_micros(now + LEASE)}
        with self._database.write() as connection:
            taken = imports.update().where(imports.c.id == found.id, imports.c.state == found.state, left)
            if connection.execute(taken.values(values)).rowcount != 1:
                raise ImportRunningError

    def stage(self, id: str, holder: str, batch: Sequence[SettlementLine], *, provider: str, now: dt.datetime) -> int:
        """Write lines that nobody sees yet; how many are new. Raises LineDiffersError, LeaseLostError."""
        rows: dict[str, dict[str, object]] = {}
        with self._database.write() as connection:
            hold(connection, id, holder, now)
            known = {
                row.id: row
                for row in connection.execute(
                    sa.select(lines.c.id, *(lines.c[name] for name in _SAME)).where(
                        lines.c.provider == provider, lines.c.id.in_([each.id for each in batch])
                    )
                )
            }
            for line in batch:
                row = _row(line) | {"provider": provider, "import_id": id}
                before = rows.get(line.id) or (known[line.id]._mapping if line.id in known else None)
                if before is None:
                    rows[line.id] = row
                elif any(before[name] != row[name] for name in _SAME):
                    raise LineDiffersError(line.number)
            if rows:
                connection.execute(lines.insert(), list(rows.values()))
        return len(rows)

    def discard(self, id: str, holder: str, *, now: dt.datetime) -> None:
        """Remove an import that cannot end, with what was written of it. Raises LeaseLostError."""
        some = sa.select(lines.c.id).where(lines.c.import_id == id).limit(BATCH)
        while True:
            with self._database.read() as connection:
                ids = connection.scalars(some).all()
            with self._database.write() as connection:
                hold(connection, id, holder, now)
                if not ids:
                    connection.execute(imports.delete().where(imports.c.id == id, imports.c.state == "importing"))
                    return
                connection.execute(lines.delete().where(lines.c.import_id == id, lines.c.id.in_(ids)))

    def complete(self, whole: Import, *, now: dt.datetime) -> None:
        """All lines are in: they count from now on, and are judged next. Raises LeaseLostError."""
        values = to_row(
            {
                "state": "judging",
                "lines": whole.lines,
                "new_lines": whole.new_lines,
                "first_at": whole.first_at,
                "last_at": whole.last_at,
            }
        )
        with self._database.write() as connection:
            hold(connection, whole.id, whole.holder or "", now)
            connection.execute(imports.update().where(imports.c.id == whole.id).values(values))

    def finish(self, id: str) -> None:
        """Every line is judged."""
        done = {"state": "done", "holder": None, "lease_until": None}
        with self._database.write() as connection:
            connection.execute(imports.update().where(imports.c.id == id).values(done))


def import_of(row: Mapping[Any, Any]) -> Import:
    """An import as its row has it."""
    return Import(**from_row(row) | {"at": from_micros(row["at"])})


def hold(connection: sa.Connection, id: str, holder: str, now: dt.datetime) -> None:
    """Go on holding an import. Raises LeaseLostError where another process does."""
    mine = imports.update().where(imports.c.id == id, imports.c.holder == holder, imports.c.state != "done")
    if connection.execute(mine.values(lease_until=to_micros(now + LEASE))).rowcount != 1:
        raise LeaseLostError


def batches(found: Iterable[SettlementLine]) -> Iterator[list[SettlementLine]]:
    """Lines by BATCH."""
    batch: list[SettlementLine] = []
    for each in found:
        batch.append(each)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _row(line: SettlementLine) -> dict[str, object]:
    return to_row({name: getattr(line, name) for name in SettlementLine.__slots__}) | {"at": to_micros(line.at)}
