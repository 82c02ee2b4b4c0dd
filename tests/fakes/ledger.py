"""Real ledgers in a temporary folder, and ones that are away when told to be."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from router.ledger.circuits import CircuitLedger
from router.ledger.engine import Database
from router.ledger.migrate import migrate
from router.ledger.payments import PaymentLedger
from router.ledger.records import Attempt, Payment
from router.ledger.tables import circuit_transitions
from router.ledger.unavailable import CommitUnknownError, LedgerUnavailableError
from router.transitions import Transition


@contextlib.contextmanager
def fresh_ledger(folder: Path) -> Iterator[Database]:
    """An empty SQLite ledger with this version's tables."""
    path = folder / "ledger.db"
    path.write_bytes(empty_ledger())
    database = Database(f"sqlite:///{path}")
    yield database
    database.close()


@functools.cache
def empty_ledger() -> bytes:
    """The file of an empty SQLite ledger with this version's tables: a copy is sooner made than the migrations."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        database = Database(f"sqlite:///{path}", pool_size=1)
        migrate(database)
        database.close()
        return path.read_bytes()


def circuit_rows(database: Database, provider: str = "stripe") -> Sequence[sa.RowMapping]:
    """Every transition of a provider's circuit, oldest first."""
    table = circuit_transitions
    with database.read() as connection:
        return (
            connection.execute(table.select().where(table.c.provider == provider).order_by(table.c.version))
            .mappings()
            .all()
        )


class FlakyStore:
    """Satisfies `TransitionStore` over a real ledger, while it is not `away`."""

    def __init__(self, database: Database) -> None:
        self._circuits = CircuitLedger(database)
        self.away = False
        self.reads = 0

    def append(self, transition: Transition) -> bool:
        self._check()
        return self._circuits.append(transition)

    def holds(self, transition: Transition) -> bool:
        self._check()
        return self._circuits.holds(transition)

    def latest(self, providers: Iterable[str]) -> Sequence[Transition]:
        self._check()
        self.reads += 1
        return self._circuits.latest(providers)

    def _check(self) -> None:
        if self.away:
            raise LedgerUnavailableError("OperationalError")


class MemoryStore:
    """Satisfies `TransitionStore` with no database."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, int], Transition] = {}

    def append(self, transition: Transition) -> bool:
        key, before = (transition.provider, transition.version), (transition.provider, transition.version - 1)
        if transition.version > 1 and (before not in self.rows or self.rows[before].identity != transition.follows):
            return False
        return self.rows.setdefault(key, transition) is transition

    def holds(self, transition: Transition) -> bool:
        row = self.rows.get((transition.provider, transition.version))
        return row is not None and row.identity == transition.identity

    def latest(self, providers: Iterable[str]) -> Sequence[Transition]:
        last: dict[str, Transition] = {}
        for (provider, _version), row in sorted(self.rows.items()):
            last[provider] = row
        return [last[name] for name in providers if name in last]


class MoodyLedger(PaymentLedger):
    """A payment ledger whose next calls fail: `refuse` many of a method before they commit, `forget` many after.

    A call that is forgotten has committed, and the caller is told that the ledger is away: a lost answer.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.refuse: Counter[str] = Counter()
        self.forget: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def create(self, payment: Payment, *, key: str, fingerprint: str, repeat: bool, first: Attempt | None) -> None:
        with self._mood("create"):
            super().create(payment, key=key, fingerprint=fingerprint, repeat=repeat, first=first)

    def change(self, *args: Any, **named: Any) -> Payment:
        with self._mood("change"):
            return super().change(*args, **named)

    def get(self, payment_id: str) -> tuple[Payment, Sequence[Attempt]] | None:
        with self._mood("get"):
            return super().get(payment_id)

    def touch(self, payment_id: str, now: dt.datetime) -> None:
        with self._mood("touch"):
            super().touch(payment_id, now)

    @contextlib.contextmanager
    def _mood(self, name: str) -> Iterator[None]:
        self.calls[name] += 1
        if self.refuse[name] > 0:
            self.refuse[name] -= 1
            raise LedgerUnavailableError("OperationalError")
        yield
        if self.forget[name] > 0:
            self.forget[name] -= 1
            raise CommitUnknownError("OperationalError")
