"""Circuit transitions: append-only rows, written by compare-and-set, followed by every process."""

from __future__ import annotations

import datetime as dt
import heapq
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from router.incidents import Incident
from router.ledger.engine import Database
from router.ledger.tables import circuit_transitions, from_micros, to_micros
from router.recoveries import Move, Recoveries, recoveries
from router.transitions import State, Transition, is_ordered

RECOVERIES_OF = 5000
"""Moves of a circuit that the figures of its recoveries are made of: half a day of nothing but failed rounds, and
years of usual ones. Some ten milliseconds."""


class CircuitLedger:
    """The circuits' queries."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._latest: dict[tuple[str, ...], sa.Select[Any]] = {}
        """By whose: a process asks for the same ones, five times a second."""

    def append(self, transition: Transition) -> bool:
        """Commit a transition; False when the circuit's last one is not what it was decided on.

        Another process wrote that version first, or wrote another one before it. Rows are never changed, so the
        one before may be looked at first.
        """
        try:
            with self._database.write() as connection:
                if transition.version > 1 and not self._is_next(connection, transition):
                    return False
                connection.execute(circuit_transitions.insert(), _to_row(transition))
        except sa.exc.IntegrityError:
            return False
        return True

    def _is_next(self, connection: sa.Connection, transition: Transition) -> bool:
        table = circuit_transitions
        query = table.select().where(
            table.c.provider == transition.provider, table.c.version == transition.version - 1
        )
        before = connection.execute(query).mappings().one_or_none()
        return before is not None and _from_row(before).identity == transition.follows

    def holds(self, transition: Transition) -> bool:
        """Whether this very transition is written, however the circuit went on: its commit's answer may be lost."""
        table = circuit_transitions
        query = table.select().where(table.c.provider == transition.provider, table.c.version == transition.version)
        return any(found.identity == transition.identity for found in self._read(query))

    def latest(self, providers: Iterable[str]) -> Sequence[Transition]:
        """The last transition of each of these circuits that ever had one."""
        names = tuple(providers)
        if not names:
            return []
        query = self._latest.get(names)
        if query is None:
            query = self._latest[names] = _last_of(names)
        with self._database.look() as connection:
            return [_from_row(row) for row in connection.execute(query).mappings()]

    def opening(self, incident: str) -> Transition | None:
        """The transition that an incident began with."""
        table = circuit_transitions
        found = self._read(table.select().where(table.c.incident == incident).order_by(table.c.version).limit(1))
        return found[0] if found else None

    def history(self, provider: str, *, limit: int, before: int | None = None) -> Sequence[Transition]:
        """A circuit's transitions, the newest first, older than the version `before`."""
        table = circuit_transitions
        query = table.select().where(table.c.provider == provider)
        if before is not None:
            query = query.where(table.c.version < before)
        return self._read(query.order_by(table.c.version.desc()).limit(limit))

    def recoveries(self, providers: Iterable[str], *, since: dt.datetime) -> Mapping[str, Recoveries]:
        """How well these circuits recovered since that moment, by their last RECOVERIES_OF moves at most."""
        table = circuit_transitions
        query = sa.select(table.c.state, table.c.at, table.c.evidence).where(table.c.at >= to_micros(since))
        newest = query.order_by(table.c.version.desc()).limit(RECOVERIES_OF)
        found = {}
        with self._database.read() as connection:
            for provider in providers:
                rows = connection.execute(newest.where(table.c.provider == provider)).all()
                found[provider] = recoveries(
                    Move(State(state), from_micros(at), is_ordered(State(state), evidence))
                    for state, at, evidence in reversed(rows)
                )
        return found

    def incidents(self, providers: Iterable[str], *, limit: int, before: str | None = None) -> Sequence[Incident]:
        """Incidents of these circuits, newest first, older than the incident `before`."""
        older_than = None
        if before is not None:
            opening = self.opening(before)
            if opening is None:
                return []
            older_than = opening.at, before
        ordered = heapq.merge(
            *(self._incidents_of(provider, older_than) for provider in providers),
            key=lambda each: (each.opening.at, each.id),
            reverse=True,
        )
        return list(itertools.islice(ordered, limit))

    def _incidents_of(self, provider: str, older_than: tuple[dt.datetime, str] | None) -> Iterator[Incident]:
        """One circuit's incidents, newest first; two steps down an index for each, however many rows it has."""
        table = circuit_transitions
        of_one = table.select().where(table.c.provider == provider, table.c.incident.is_not(None))
        newest = of_one.order_by(table.c.version.desc()).limit(1)
        if older_than is not None:
            newest = newest.where(table.c.at <= to_micros(older_than[0]))
        while found := self._read(newest):
            incident = found[0].incident or ""
            opening = self.opening(incident) or found[0]
            if older_than is None:
                yield Incident(opening, found[0])
            elif (opening.at, incident) < older_than:
                # Of what goes on at that moment, the end is later.
                last = self._read(
                    table.select().where(table.c.incident == incident).order_by(table.c.version.desc()).limit(1)
                )
                yield Incident(opening, last[0])
            newest = of_one.where(table.c.version < opening.version).order_by(table.c.version.desc()).limit(1)

    def _read(self, query: sa.Select[tuple[object, ...]]) -> Sequence[Transition]:
        with self._database.look() as connection:
            return [_from_row(row) for row in connection.execute(query).mappings()]


def _to_row(transition: Transition) -> dict[str, Any]:
    return {
        "provider": transition.provider,
        "version": transition.version,
        "state": transition.state.value,
        "failed_rounds": transition.failed_rounds,
        "actor": transition.actor,
        "reason": transition.reason,
        "evidence": dict(transition.evidence),
        "incident": transition.incident,
        "open_us": transition.open_time // dt.timedelta(microseconds=1),
        "share": transition.share,
        "suspect": transition.suspect,
        "until": None if transition.until is None else to_micros(transition.until),
        "since": None if transition.since is None else to_micros(transition.since),
        "at": to_micros(transition.at),
    }


def _last_of(providers: Iterable[str]) -> sa.Select[Any]:
    """One step down the index for each, however long the history is."""
    table = circuit_transitions
    each = [
        sa.select(table.select().where(table.c.provider == name).order_by(table.c.version.desc()).limit(1).subquery())
        for name in providers
    ]
    return sa.select(sa.union_all(*each).subquery())


def _from_row(row: sa.RowMapping) -> Transition:
    return Transition(
        provider=row["provider"],
        version=row["version"],
        state=State(row["state"]),
        failed_rounds=row["failed_rounds"],
        actor=row["actor"],
        reason=row["reason"],
        evidence=row["evidence"],
        incident=row["incident"],
        open_time=dt.timedelta(microseconds=row["open_us"]),
        share=row["share"],
        suspect=row["suspect"],
        until=None if row["until"] is None else from_micros(row["until"]),
        since=None if row["since"] is None else from_micros(row["since"]),
        at=from_micros(row["at"]),
    )
