"""Keeps the feed's order when a ledger moves to another PostgreSQL server, where transaction ids begin again.

`event_feed` orders events by the ids of their transactions. A dump that is restored on another server, or a logical
replica that takes over, brings the old ids along, and the new server counts from where it is: events could be written
below positions that have been passed, and be skipped. So each process looks, when it starts and before it writes:
where the server is not the one that the ids came from, a base is added from then on that lifts every new id above
every old one.
"""

from __future__ import annotations

import sqlalchemy as sa
import structlog

from router.ledger.engine import Database
from router.ledger.tables import event_clock, payment_events, relays, webhook_endpoints

log = structlog.get_logger("router.ledger.event_clock")

UNNAMED = "unnamed"
"""A server that does not tell its identifier; then only ids from its future give a restored ledger away."""


def settle(database: Database) -> None:
    """See to it that new events come after all there are. To be called after `migrate`, before anything is written.

    Any number of processes may. Raises LedgerUnavailableError.
    """
    if database.is_sqlite:
        return
    with database.read() as connection:
        if _is_right(connection, _origin(connection)):
            return
    with database.write() as connection:
        # Who has inserted ends first, who inserts after it has the new default: nothing is written in between.
        connection.exec_driver_sql("LOCK TABLE payment_events, event_clock IN ACCESS EXCLUSIVE MODE")
        origin = _origin(connection)
        if _is_right(connection, origin):
            return  # another process was first
        known = connection.scalar(sa.select(event_clock.c.origin)) is not None
        base = 0 if not known and not _from_the_future(connection) else _highest(connection)
        connection.exec_driver_sql(
            "ALTER TABLE payment_events ALTER COLUMN xact"
            f" SET DEFAULT (pg_current_xact_id()::text::bigint + {int(base)})"
        )
        connection.execute(event_clock.delete())
        connection.execute(event_clock.insert(), {"id": 1, "origin": origin, "base": base})
    if base:
        log.warning("ledger_moved", cause="its events have another server's transaction ids", base=base)


def _is_right(connection: sa.Connection, origin: str) -> bool:
    return connection.scalar(sa.select(event_clock.c.origin)) == origin and not _from_the_future(connection)


def _from_the_future(connection: sa.Connection) -> bool:
    """Whether there is an event, or a position, with an id that this server has not handed out yet."""
    base = connection.scalar(sa.select(event_clock.c.base)) or 0
    next_id = connection.scalar(sa.text("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"))
    assert next_id is not None
    return _highest(connection) >= base + int(next_id)


def _highest(connection: sa.Connection) -> int:
    """The highest of all events, and of all positions: the events that they passed may be gone."""
    places = (payment_events, relays, webhook_endpoints)
    return max(0, *(connection.scalar(sa.select(sa.func.max(table.c.xact))) or 0 for table in places))


def _origin(connection: sa.Connection) -> str:
    """The server's own name for itself, which a copy of its files keeps and a new server does not have."""
    if not connection.scalar(sa.text("SELECT has_function_privilege('pg_control_system()', 'execute')")):
        return UNNAMED
    return str(connection.scalar(sa.text("SELECT system_identifier FROM pg_control_system()")))
