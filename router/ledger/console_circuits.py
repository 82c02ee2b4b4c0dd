"""The circuits' moves as the console draws them: without their evidence, and without the rounds that only repeat.

A long outage has four rounds of probes a minute, each two rows; what began and ended it must not be lost among them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from router.ledger.engine import Database
from router.ledger.tables import circuit_transitions, from_micros
from router.transitions import State, Transition

MOVES_AT_MOST = 300
"""Of one circuit, with every round of probes: half an hour of an outage, and days of a healthy provider."""
TURNS_AT_MOST = 300
"""Older ones, without the rounds: a flapping circuit makes some ten an hour."""
LOOKED_THROUGH = 20_000
"""Rows among which the older ones are looked for: two days of nothing but failed rounds, some ten milliseconds."""


@dataclass(frozen=True, slots=True)
class IncidentMoves:
    """What a circuit did in one incident."""

    turns: Sequence[Transition]
    """In order, without the rounds of probes that failed."""
    failed_rounds: int
    """How many rounds those were."""
    is_more: bool
    """Whether turns were left out: the ones in the middle of a long incident."""


class CircuitStory:
    """The queries."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def moves(self, provider: str, since: dt.datetime) -> Sequence[Transition]:
        """A circuit's moves back to that moment and one before it, the newest first; of the older ones the turns.

        The last one's version is 1 where nothing was before it; it is later than `since`, with another version,
        where there were more than can be shown.
        """
        table = circuit_transitions.c
        newest = _MOVES.where(table.provider == provider).order_by(table.version.desc())
        with self._database.read() as connection:
            found = _read(connection, newest.limit(MOVES_AT_MOST))
            if len(found) == MOVES_AT_MOST and found[-1].at > since:
                # Whether an opening only repeats can be told by the move before it alone: it is looked at again.
                while len(found) > 1 and found[-1].state is State.OPEN:
                    found.pop()
                oldest = found[-1].version
                within = table.version.between(oldest - LOOKED_THROUGH, oldest - 1)
                found += _read(connection, newest.where(within, ~_IS_REPEATED).limit(TURNS_AT_MOST))
        enough = next((place for place, each in enumerate(found) if each.at <= since), len(found))
        return found[: enough + 1]

    def of_incident(self, incident: str) -> IncidentMoves:
        """What a circuit did in an incident, however long ago that was, and however long it lasted."""
        table, half = circuit_transitions.c, TURNS_AT_MOST // 2
        turns = _MOVES.where(table.incident == incident, ~_IS_REPEATED)
        rounds = sa.select(sa.func.count()).where(table.incident == incident, table.state == "open", _IS_REPEATED)
        with self._database.read() as connection:
            first = _read(connection, turns.order_by(table.version).limit(half))
            last = _read(connection, turns.order_by(table.version.desc()).limit(half))[::-1]
            failed = connection.scalar(rounds) or 0
        known = first[-1].version if first else 0
        further = [each for each in last if each.version > known]
        return IncidentMoves([*first, *further], failed, len(first) == half and len(further) == half)


_MOVES = sa.select(
    *(circuit_transitions.c[name] for name in ("provider", "version", "state", "at", "actor", "reason")),
    *(circuit_transitions.c[name] for name in ("failed_rounds", "incident", "share", "suspect")),
)
_BEFORE = circuit_transitions.alias("before")
_IS_REPEATED = sa.or_(
    circuit_transitions.c.state == "half_open",
    # An opening counts as a round that failed only after a round: a relapse in slow start is news.
    sa.and_(
        circuit_transitions.c.state == "open",
        sa.exists()
        .where(
            _BEFORE.c.provider == circuit_transitions.c.provider,
            _BEFORE.c.version == circuit_transitions.c.version - 1,
            _BEFORE.c.state == "half_open",
        )
        .correlate(circuit_transitions),
    ),
)
"""One more round of probes, or its failure."""


def _read(connection: sa.Connection, query: sa.Select[tuple[object, ...]]) -> list[Transition]:
    return [
        Transition(**{**row, "state": State(row["state"]), "at": from_micros(row["at"])})
        for row in connection.execute(query).mappings()
    ]
