"""Deliveries to webhook endpoints: put up from the feed, sent by one worker an endpoint, recorded with their end."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
import structlog

from router.ledger.engine import Database
from router.ledger.event_feed import Position
from router.ledger.sealed import UnreadableError
from router.ledger.tables import from_micros, to_micros, webhook_deliveries, webhook_endpoints
from router.ledger.webhook_endpoints import WELL, endpoint_of, secrets_in_force, set_disabled
from router.ledger.webhook_records import (
    Candidate,
    Claimed,
    Delivery,
    DeliveryState,
    NewDelivery,
    Recorded,
    Result,
    Standing,
)

log = structlog.get_logger("router.ledger.webhook_deliveries")


class DeliveryLedger:
    """The queries of those who send. Each raises LedgerUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def candidates(self, now: dt.datetime) -> Sequence[Candidate]:
        """Endpoints that may be sent to now, whether or not there is anything for them. The longest idle first."""
        at, table, rows = to_micros(now), webhook_endpoints, webhook_deliveries
        pending = (rows.c.endpoint_id == table.c.id, sa.text("webhook_deliveries.state = 'pending'"))
        count = sa.select(sa.func.count()).where(*pending).correlate(table).scalar_subquery()
        due = sa.exists().where(*pending, rows.c.next_try_at <= at).correlate(table)
        query = (
            sa.select(table, count.label("pending"), due.label("is_due"))
            .where(table.c.state == "enabled", _free(at), table.c.next_try_at <= at)
            .order_by(sa.func.coalesce(table.c.lease_until, 0), table.c.id)
        )
        with self._database.read() as connection:
            found = connection.execute(query).mappings().all()
        return [
            Candidate(endpoint_of(row), Position(row["xact"], row["number"]), row["pending"], bool(row["is_due"]))
            for row in found
        ]

    def claim(
        self,
        candidate: Candidate,
        holder: str,
        *,
        now: dt.datetime,
        until: dt.datetime,
        new: Sequence[NewDelivery],
        up_to: Position,
    ) -> Claimed | None:
        """Be the one that sends to it until then, and put up what the feed has for it. None: another one is.

        What was put up before, and is to be sent again, is put up anew. The position moves in the same commit.
        """
        at, table = to_micros(now), webhook_endpoints
        still = (
            table.c.id == candidate.endpoint.id,
            table.c.state == "enabled",
            table.c.next_try_at <= at,
            table.c.xact == candidate.position.xact,
            table.c.number == candidate.position.number,
            _free(at),
        )
        values = {"holder": holder, "lease_until": to_micros(until), "xact": up_to.xact, "number": up_to.number}
        with self._database.write() as connection:
            row = connection.execute(table.update().where(*still).values(values).returning(table)).mappings().first()
            if row is None:
                return None
            _put_up(connection, row["id"], new, at)
        # Not under the write: on SQLite payments would wait for it. What changes now is what people do.
        with self._database.read() as connection:
            pending = _pending(connection, row["id"])
        try:
            secrets = secrets_in_force(row, now, self._database.seals)
        except UnreadableError as error:
            log.error("webhook_secret_unreadable", endpoint=row["id"], cause=str(error))
            return None  # what it is to be told waits; whoever has the key sends it when the lease has run out
        return Claimed(endpoint_of(row), secrets, pending)

    def record(self, claimed: Claimed, holder: str, recorded: Recorded, *, now: dt.datetime) -> bool:
        """Commit what came of a round, and let others send to the endpoint. False: the lease was another's by then.

        What was accepted is accepted all the same; of the endpoint's standing the other one knows better.
        """
        rows, table = webhook_deliveries, webhook_endpoints
        with self._database.write() as connection:
            values = {"holder": None, "lease_until": to_micros(now), **_columns(recorded.standing)}
            mine = table.update().where(table.c.id == claimed.endpoint.id, table.c.holder == holder)
            held = connection.execute(mine.values(values)).rowcount == 1
            accepted = [_ended(each) for each in recorded.results if each.reason is None]
            if accepted:
                connection.execute(_ACCEPT, accepted)
            for each in recorded.results if held else ():
                if each.reason is not None:
                    connection.execute(rows.update().where(*_still(each.delivery)).values(_refused(each)))
            if not held:
                return False
            for each_later in recorded.postponed:
                connection.execute(
                    rows.update().where(*_still(each_later)).values(next_try_at=to_micros(each_later.next_try_at))
                )
            if recorded.standing is not None:
                self._stand(connection, claimed, recorded.standing, now)
        return True

    def page(
        self, endpoint_id: str, state: DeliveryState | None, *, limit: int, before: int | None
    ) -> Sequence[Delivery]:
        """An endpoint's deliveries, the latest put up first; without their bodies."""
        rows = webhook_deliveries
        query = rows.select().where(rows.c.endpoint_id == endpoint_id).order_by(rows.c.number.desc()).limit(limit)
        if state is not None:
            query = query.where(rows.c.state == state)
        if before is not None:
            query = query.where(rows.c.number < before)
        with self._database.read() as connection:
            return [_delivery(row) for row in connection.execute(query).mappings()]

    def reap(self, before: dt.datetime, *, limit: int) -> int:
        """Forget deliveries that ended before that moment, and what is left of deleted endpoints. Says how many."""
        rows, table = webhook_deliveries, webhook_endpoints
        old = sa.select(rows.c.number).where(rows.c.ended_at < to_micros(before)).order_by(rows.c.ended_at)
        gone = sa.select(table.c.id).where(table.c.state == "deleted")
        orphans = sa.select(rows.c.number).where(rows.c.endpoint_id.in_(gone))
        with self._database.read() as connection:
            found = [*connection.scalars(old.limit(limit)), *connection.scalars(orphans.limit(limit))][:limit]
            done = connection.scalars(
                gone.where(~sa.exists().where(rows.c.endpoint_id == table.c.id).correlate(table)).limit(limit)
            ).all()
        if found or done:
            with self._database.write() as connection:
                if found:
                    connection.execute(rows.delete().where(rows.c.number.in_(found), rows.c.ended_at.is_not(None)))
                    connection.execute(rows.delete().where(rows.c.number.in_(found), rows.c.endpoint_id.in_(gone)))
                if done:
                    # Whoever is sending to it has its lease: it may put something up yet.
                    idle = sa.or_(table.c.holder.is_(None), table.c.lease_until < to_micros(before))
                    connection.execute(table.delete().where(table.c.id.in_(done), idle))
        return len(found)

    @staticmethod
    def _stand(connection: sa.Connection, claimed: Claimed, standing: Standing, now: dt.datetime) -> None:
        rows = webhook_deliveries
        if standing.all_again_at is not None:
            later = to_micros(standing.all_again_at)
            waiting = (
                rows.c.endpoint_id == claimed.endpoint.id,
                rows.c.state == "pending",
                rows.c.next_try_at > later,
            )
            connection.execute(rows.update().where(*waiting).values(next_try_at=later))
        if standing.disabled is not None:
            set_disabled(connection, claimed.endpoint.id, standing.disabled, now=now, alert=standing.alert)


def _free(at: int) -> sa.ColumnElement[bool]:
    table = webhook_endpoints
    return sa.or_(table.c.holder.is_(None), table.c.lease_until <= at)


def _still(delivery: Delivery) -> tuple[sa.ColumnElement[bool], ...]:
    """It is there, and waits. By more than its number: SQLite gives that of a deleted row to the next one."""
    rows = webhook_deliveries
    same = (rows.c.endpoint_id == delivery.endpoint_id, rows.c.event_id == delivery.event_id)
    return rows.c.number == delivery.number, *same, rows.c.state == "pending"


def _put_up(connection: sa.Connection, endpoint_id: str, new: Sequence[NewDelivery], at: int) -> None:
    if not new:
        return
    rows = webhook_deliveries
    keys = rows.c.payment_id, rows.c.version, rows.c.number
    of_these = (rows.c.endpoint_id == endpoint_id, rows.c.payment_id.in_(sorted({each.payment_id for each in new})))
    there = {(row[0], row[1]): row[2] for row in connection.execute(sa.select(*keys).where(*of_these))}
    fresh = []
    for each in new:
        again = {"body": each.body, "state": "pending", "next_try_at": at}
        number = there.get((each.payment_id, each.version))
        if number is not None:
            anew = {**again, "failures": 0, "failing_since": None, "ended_at": None}
            connection.execute(rows.update().where(rows.c.number == number).values(anew))
            continue
        fresh.append(
            {
                "endpoint_id": endpoint_id,
                "event_id": each.event_id,
                "type": each.type,
                "payment_id": each.payment_id,
                "version": each.version,
                "event_xact": each.position.xact,
                "event_number": each.position.number,
                "created_at": at,
                **again,
            }
        )
    if fresh:
        connection.execute(rows.insert(), fresh)


def _pending(connection: sa.Connection, endpoint_id: str) -> Sequence[Delivery]:
    rows = webhook_deliveries
    query = rows.select().where(rows.c.endpoint_id == endpoint_id, sa.text("state = 'pending'"))
    found = connection.execute(query.order_by(rows.c.payment_id, rows.c.version)).mappings()
    return [_delivery(row) for row in found]


def _columns(standing: Standing | None) -> dict[str, Any]:
    if standing is None:
        return {}
    if not standing.failures:
        return dict(WELL)
    return {
        "failures": standing.failures,
        "failing_since": None if standing.failing_since is None else to_micros(standing.failing_since),
        "next_try_at": 0 if standing.next_try_at is None else to_micros(standing.next_try_at),
    }


_ACCEPT = (
    webhook_deliveries.update()
    .where(
        webhook_deliveries.c.number == sa.bindparam("of_number"),
        webhook_deliveries.c.endpoint_id == sa.bindparam("of_endpoint"),
        webhook_deliveries.c.event_id == sa.bindparam("of_event"),
        webhook_deliveries.c.state == "pending",
    )
    .values(
        state="accepted",
        body=None,
        failures=0,
        failing_since=None,
        last_reason=None,
        attempts=webhook_deliveries.c.attempts + 1,
        last_at=sa.bindparam("sent_at"),
        ended_at=sa.bindparam("sent_at"),
        last_status=sa.bindparam("answer"),
        latency_us=sa.bindparam("took_us"),
    )
)
"""As `_still`, for many at once: payments wait for each statement of a commit."""


def _ended(result: Result) -> dict[str, Any]:
    return {
        "of_number": result.delivery.number,
        "of_endpoint": result.delivery.endpoint_id,
        "of_event": result.delivery.event_id,
        "sent_at": to_micros(result.at),
        "answer": result.status,
        "took_us": int(result.latency_s * 1_000_000),
    }


def _refused(result: Result) -> dict[str, Any]:
    rows = webhook_deliveries
    sent = {
        "attempts": rows.c.attempts + 1,
        "failures": rows.c.failures + 1,
        "failing_since": to_micros(result.delivery.failing_since or result.at),
        "last_at": to_micros(result.at),
        "last_status": result.status,
        "last_reason": result.reason,
        "latency_us": int(result.latency_s * 1_000_000),
    }
    if result.again_at is None:
        return sent | {"state": "given_up", "ended_at": to_micros(result.at), "body": None}
    return sent | {"next_try_at": to_micros(result.again_at)}


def _delivery(row: sa.RowMapping) -> Delivery:
    return Delivery(
        number=row["number"],
        endpoint_id=row["endpoint_id"],
        event_id=row["event_id"],
        type=row["type"],
        payment_id=row["payment_id"],
        version=row["version"],
        state=row["state"],
        attempts=row["attempts"],
        failures=row["failures"],
        failing_since=None if row["failing_since"] is None else from_micros(row["failing_since"]),
        next_try_at=from_micros(row["next_try_at"]),
        created_at=from_micros(row["created_at"]),
        body=row["body"],
        last_at=None if row["last_at"] is None else from_micros(row["last_at"]),
        last_status=row["last_status"],
        last_reason=row["last_reason"],
        latency_ms=None if row["latency_us"] is None else row["latency_us"] // 1000,
        ended_at=None if row["ended_at"] is None else from_micros(row["ended_at"]),
    )
