"""Checkout's webhook endpoints: whose they are, what they want, their secrets, and whether they are sent to."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from router.ledger import alerts
from router.ledger.alerts import Alert
from router.ledger.engine import Database
from router.ledger.event_feed import Position, beyond, in_order
from router.ledger.relays import MOST_COUNTED
from router.ledger.sealed import Seals
from router.ledger.tables import from_micros, payment_events, to_micros, webhook_deliveries, webhook_endpoints
from router.ledger.webhook_records import Endpoint

MOST_OF_A_MERCHANT = 20
"""Each reads the feed, and holds connections while it is slow."""
SEARCH_STEPS = 64
"""Halvings of the numbers that 64 bits can hold: more than any search takes."""
CLOCKS_DIFFER_BY = dt.timedelta(minutes=1)
"""Events are ordered by their commits, and dated by the clocks of several machines."""


class TooManyEndpointsError(Exception):
    """This merchant has as many endpoints as one may have."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What all endpoints together have not accepted yet."""

    pending: int
    """Put up and not accepted; MOST_COUNTED: as many or more."""
    oldest: dt.datetime | None
    """When the oldest of those was put up, of as many as are counted."""
    unread: int
    """Events behind the enabled endpoint that has come least far, its own or not; MOST_COUNTED: as many or more."""
    unread_since: dt.datetime | None
    """When the first of those happened."""
    failing: int
    """Enabled endpoints that accepted nothing when they were last tried."""
    disabled: int


class EndpointLedger:
    """The queries of those who manage endpoints. Each raises LedgerUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, endpoint: Endpoint, secret: str, *, begins: Position) -> None:
        """Commit a new endpoint, which is told of what follows that position. Raises TooManyEndpointsError."""
        table = webhook_endpoints
        live = sa.select(sa.func.count()).where(table.c.merchant == endpoint.merchant, table.c.state != "deleted")
        with self._database.write() as connection:
            if (connection.scalar(live) or 0) >= MOST_OF_A_MERCHANT:
                raise TooManyEndpointsError
            row = {
                "id": endpoint.id,
                "merchant": endpoint.merchant,
                "url": endpoint.url,
                "event_types": list(endpoint.event_types),
                "description": endpoint.description,
                "state": endpoint.state,
                "state_at": to_micros(endpoint.state_at),
                "secret": self._kept(secret, endpoint.id),
                "xact": begins.xact,
                "number": begins.number,
                "created_at": to_micros(endpoint.created_at),
            }
            connection.execute(table.insert(), row)

    def of(self, merchant: str | None, *, limit: int = 1000, after: str | None = None) -> Sequence[Endpoint]:
        """A merchant's endpoints, or everybody's, oldest first; those with ids after that one."""
        table = webhook_endpoints
        query = table.select().where(table.c.state != "deleted").order_by(table.c.id).limit(limit)
        if merchant is not None:
            query = query.where(table.c.merchant == merchant)
        if after is not None:
            query = query.where(table.c.id > after)
        with self._database.read() as connection:
            return [endpoint_of(row) for row in connection.execute(query).mappings()]

    def find(self, endpoint_id: str) -> Endpoint | None:
        """One endpoint; None: there is none of this id, or no more."""
        table = webhook_endpoints
        query = table.select().where(table.c.id == endpoint_id, table.c.state != "deleted")
        with self._database.read() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return None if row is None else endpoint_of(row)

    def rotate(self, endpoint_id: str, secret: str, *, now: dt.datetime, old_until: dt.datetime) -> bool:
        """Sign with this secret from now on, and with the present one too until then. An older one signs no more."""
        old = {"old_secret": webhook_endpoints.c.secret, "old_secret_until": to_micros(old_until)}
        if old_until <= now:
            old = {"old_secret": None, "old_secret_until": None}
        with self._database.write() as connection:
            return _change(connection, endpoint_id, {**old, "secret": self._kept(secret, endpoint_id)})

    def _kept(self, secret: str, endpoint_id: str) -> str:
        return self._database.seals.text(secret, f"endpoint:{endpoint_id}")

    def disable(self, endpoint_id: str, cause: str, *, now: dt.datetime) -> bool:
        """Send it nothing more; what it has not accepted waits."""
        with self._database.write() as connection:
            return set_disabled(connection, endpoint_id, cause, now=now)

    def enable(self, endpoint_id: str, *, now: dt.datetime) -> bool:
        """Send to it again, where it was left, and as if nothing had failed before."""
        at = to_micros(now)
        values = {"state": "enabled", "state_at": at, "cause": None}
        rows = webhook_deliveries
        with self._database.write() as connection:
            if not _change(connection, endpoint_id, {**values, **WELL}):
                return False
            pending = rows.update().where(rows.c.endpoint_id == endpoint_id, rows.c.state == "pending")
            connection.execute(pending.values(failures=0, failing_since=None, next_try_at=at))
        return True

    def delete(self, endpoint_id: str, *, now: dt.datetime) -> bool:
        """Forget address and secrets at once; housekeeping forgets the rest."""
        gone = {"state": "deleted", "state_at": to_micros(now), "cause": None, "url": "", "secret": ""}
        with self._database.write() as connection:
            return _change(connection, endpoint_id, {**gone, "old_secret": None, "old_secret_until": None})

    def resend(self, endpoint_id: str, since: dt.datetime) -> bool:
        """Send again, in order, whatever happened since then; and some of the minute before it."""
        rows, table = webhook_deliveries, webhook_endpoints
        with self._database.read() as connection:
            begins = _before(connection, since - CLOCKS_DIFFER_BY)
        with self._database.write() as connection:
            was = connection.execute(
                sa.select(table.c.xact, table.c.number).where(table.c.id == endpoint_id, table.c.state != "deleted")
            ).one_or_none()
            if was is None:
                return False
            if begins >= Position(*was):
                return True  # all of that is still to come
            place = sa.tuple_(rows.c.event_xact, rows.c.event_number)
            # They come again with the others, each behind what was before it.
            connection.execute(
                rows.delete().where(
                    rows.c.endpoint_id == endpoint_id,
                    rows.c.state == "pending",
                    place > sa.tuple_(begins.xact, begins.number),
                )
            )
            return _change(connection, endpoint_id, {"xact": begins.xact, "number": begins.number})

    def backlog(self) -> Backlog:
        """Of all endpoints together."""
        rows, table, events = webhook_deliveries, webhook_endpoints, payment_events.c
        pending = sa.select(rows.c.created_at).where(sa.text("state = 'pending'")).limit(MOST_COUNTED).subquery()
        waiting = sa.select(sa.func.count(), sa.func.min(pending.c.created_at))
        enabled, behind = table.c.state == "enabled", (table.c.xact, table.c.number)
        states = sa.select(
            sa.func.count().filter(enabled, table.c.failures > 0),
            sa.func.count().filter(table.c.state == "disabled"),
        ).select_from(table)
        with self._database.read() as connection:
            count, oldest = connection.execute(waiting).one()
            failing, disabled = connection.execute(states).one()
            last = connection.execute(sa.select(*behind).where(enabled).order_by(*behind).limit(1)).one_or_none()
            unread, since = 0, None
            if last is not None:
                follow = beyond(Position(*last), self._database)
                some = sa.select(events.number).where(follow).limit(MOST_COUNTED).subquery()
                unread = connection.scalar(sa.select(sa.func.count()).select_from(some)) or 0
                first = sa.select(events.at).where(follow).order_by(*in_order(self._database)).limit(1)
                since = connection.scalar(first)
        return Backlog(
            pending=count,
            oldest=None if oldest is None else from_micros(oldest),
            unread=unread,
            unread_since=None if since is None else from_micros(since),
            failing=failing,
            disabled=disabled,
        )


WELL: Mapping[str, Any] = {"failures": 0, "failing_since": None, "next_try_at": 0}


def secrets_in_force(row: sa.RowMapping, now: dt.datetime, seals: Seals) -> tuple[str, ...]:
    """What a delivery is signed with at that moment, the newest first. Raises UnreadableError."""
    of, old, until = f"endpoint:{row['id']}", row["old_secret"], row["old_secret_until"]
    olds = (seals.open_text(old, of),) if old is not None and until is not None and to_micros(now) < until else ()
    return (seals.open_text(row["secret"], of), *olds)


def set_disabled(
    connection: sa.Connection, endpoint_id: str, cause: str, *, now: dt.datetime, alert: Alert | None = None
) -> bool:
    """Disable it in the caller's transaction, and tell people; False: it was not enabled."""
    table = webhook_endpoints
    disabled = table.update().where(table.c.id == endpoint_id, table.c.state == "enabled")
    values = {"state": "disabled", "state_at": to_micros(now), "cause": cause}
    if connection.execute(disabled.values(values)).rowcount != 1:
        return False
    if alert is not None:
        alerts.add(connection, alert)
    return True


def endpoint_of(row: sa.RowMapping) -> Endpoint:
    """The endpoint of a row."""
    return Endpoint(
        id=row["id"],
        merchant=row["merchant"],
        url=row["url"],
        event_types=tuple(row["event_types"]),
        description=row["description"],
        state=row["state"],
        state_at=from_micros(row["state_at"]),
        created_at=from_micros(row["created_at"]),
        cause=row["cause"],
        failures=row["failures"],
        failing_since=None if row["failing_since"] is None else from_micros(row["failing_since"]),
        next_try_at=from_micros(row["next_try_at"]) if row["failures"] else None,
        old_secret_until=None if row["old_secret_until"] is None else from_micros(row["old_secret_until"]),
    )


def _change(connection: sa.Connection, endpoint_id: str, values: Mapping[str, Any]) -> bool:
    table = webhook_endpoints
    one = table.update().where(table.c.id == endpoint_id, table.c.state != "deleted")
    return connection.execute(one.values(values)).rowcount == 1


def _before(connection: sa.Connection, moment: dt.datetime) -> Position:
    """Before the first event of that moment or later, found by halving: events are numbered about as they are dated.

    There is no index by date: it would cost every payment, for a question that is asked once a year.
    """
    events, at = payment_events.c, to_micros(moment)
    low, high = 0, connection.scalar(sa.select(sa.func.max(events.number))) or 0
    # What is numbered up to `low` is older; what is numbered from `high` + 1 on is not.
    for _ in range(SEARCH_STEPS):
        if low >= high:
            break
        middle = (low + high + 1) // 2
        row = sa.select(events.number, events.at).where(events.number <= middle, events.number > low)
        found = connection.execute(row.order_by(events.number.desc()).limit(1)).one_or_none()
        if found is None or found.at < at:
            low = middle  # none between, or the last between is older
        else:
            high = found.number - 1
    first = sa.select(events.xact, events.number).where(events.number > low).order_by(events.number).limit(1)
    found_first = connection.execute(first).one_or_none()
    if found_first is None:
        last = connection.execute(
            sa.select(events.xact, events.number).order_by(events.xact.desc(), events.number.desc()).limit(1)
        ).one_or_none()
        return Position(-1, 0) if last is None else Position(*last)
    return Position(found_first.xact, found_first.number - 1)
