"""Circuit transitions: append-only rows, written by compare-and-set, followed by every process."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from router.breaker import State, Transition
from router.ledger.engine import Database
from router.ledger.tables import circuit_transitions, from_micros, to_micros


class CircuitLedger:
    """The circuits' queries."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, transition: Transition) -> bool:
        """Commit a transition; False when another process wrote that version of this circuit first."""
        try:
            with self._database.write() as connection:
                connection.execute(
                    circuit_transitions.insert(),
                    {
                        "provider": transition.provider,
                        "version": transition.version,
                        "state": transition.state.value,
                        "failed_rounds": transition.failed_rounds,
                        "actor": transition.actor,
                        "reason": transition.reason,
                        "evidence": dict(transition.evidence),
                        "incident": transition.incident,
                        "open_us": transition.open_time // dt.timedelta(microseconds=1),
                        "at": to_micros(transition.at),
                    },
                )
        except sa.exc.IntegrityError:
            return False
        return True

    def latest(self, providers: Iterable[str]) -> Sequence[Transition]:
        """The last transition of each of these circuits that ever had one."""
        table = circuit_transitions
        # One step down the index for each, however long the history is: this is asked several times a second.
        return [
            transition
            for provider in providers
            for transition in self._read(
                table.select().where(table.c.provider == provider).order_by(table.c.version.desc()).limit(1)
            )
        ]

    def opening(self, incident: str) -> Transition | None:
        """The transition that an incident began with."""
        table = circuit_transitions
        found = self._read(table.select().where(table.c.incident == incident).order_by(table.c.version).limit(1))
        return found[0] if found else None

    def _read(self, query: sa.Select[tuple[object, ...]]) -> Sequence[Transition]:
        with self._database.read() as connection:
            return [
                Transition(
                    provider=row["provider"],
                    version=row["version"],
                    state=State(row["state"]),
                    failed_rounds=row["failed_rounds"],
                    actor=row["actor"],
                    reason=row["reason"],
                    evidence=row["evidence"],
                    incident=row["incident"],
                    open_time=dt.timedelta(microseconds=row["open_us"]),
                    at=from_micros(row["at"]),
                )
                for row in connection.execute(query).mappings()
            ]
