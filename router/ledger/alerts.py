"""Alerts: what a person is to hear, kept in the transaction of what it tells, until the webhook has taken it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy as sa

from router.ledger.engine import Database
from router.ledger.tables import alerts, from_micros, to_micros

AlertKind = Literal[
    "flip_confirmed",
    "flip_waits",
    "flip_needs_approval",
    "flip_failed",
    "flip_superseded",
    "flip_held",
    "no_target",
    "restored",
    "restore_failed",
    "parked_dead_letter",
    "webhook_disabled",
    "relay_stuck",
    "settlement_differs",
    "account_at_risk",
    "account_unable",
    "account_able",
    "sealed_unreadable",
]


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing that happened, once for all workers."""

    id: str
    """For the receiver to know it again: after a crash it may be sent twice."""
    kind: AlertKind
    incident: str
    text: str
    at: dt.datetime
    flip_id: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    tries: int = 0
    """Before this one."""
    is_answer: bool = False
    """Whether a person waits for it, who has asked for what it is about."""

    @property
    def occasion(self) -> str:
        """What is told once; each time that a person has asked is one."""
        of = f"{self.kind}:{self.flip_id or self.incident}"
        return f"{of}:{to_micros(self.at)}" if self.is_answer else of


def add(connection: sa.Connection, alert: Alert) -> bool:
    """Keep an alert in the caller's transaction; False where it has been told, or is about to be.

    Of two transactions that tell the same at one moment one fails with an integrity error, where nothing else
    keeps them apart.
    """
    if connection.scalar(sa.select(alerts.c.id).where(alerts.c.occasion == alert.occasion)) is not None:
        return False
    row = {
        "id": alert.id,
        "occasion": alert.occasion,
        "kind": alert.kind,
        "incident": alert.incident,
        "flip_id": alert.flip_id,
        "text": alert.text,
        "detail": dict(alert.detail),
        "at": to_micros(alert.at),
        "next_try_at": to_micros(alert.at),
    }
    connection.execute(alerts.insert(), row)
    return True


class AlertLedger:
    """The alerts' queries."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def tell(self, alert: Alert) -> bool:
        """Commit an alert that no other change belongs to; False where it has been told."""
        try:
            with self._database.write() as connection:
                return add(connection, alert)
        except sa.exc.IntegrityError:
            return False

    def is_told(self, kind: AlertKind, of: str) -> bool:
        """Whether this kind of alert has been told of that flip or incident."""
        query = sa.select(alerts.c.id).where(alerts.c.occasion == f"{kind}:{of}")
        with self._database.read() as connection:
            return connection.scalar(query) is not None

    def due(self, now: dt.datetime, *, limit: int) -> Sequence[Alert]:
        """Alerts to be sent now, oldest first."""
        query = alerts.select().where(alerts.c.next_try_at <= to_micros(now)).order_by(alerts.c.at).limit(limit)
        with self._database.read() as connection:
            return [_alert(row) for row in connection.execute(query).mappings()]

    def take(self, alert: Alert, *, until: dt.datetime) -> bool:
        """Be the one to send it now; nobody else tries until then. False: another worker was first."""
        still = (alerts.c.id == alert.id, alerts.c.tries == alert.tries, alerts.c.next_try_at.is_not(None))
        values = {"tries": alert.tries + 1, "next_try_at": to_micros(until)}
        return self._update(still, values)

    def sent(self, alert: Alert, *, at: dt.datetime) -> bool:
        """The receiver has it."""
        return self._update(_taken(alert), {"sent_at": to_micros(at), "next_try_at": None, "cause": None})

    def not_sent(self, alert: Alert, *, again_at: dt.datetime | None, cause: str) -> bool:
        """The receiver did not take it; None: it is given up."""
        next_try_at = None if again_at is None else to_micros(again_at)
        return self._update(_taken(alert), {"next_try_at": next_try_at, "cause": cause})

    def give_up(self, before: dt.datetime, *, cause: str) -> int:
        """Send no more of those that happened before that moment. Says how many."""
        waiting = (alerts.c.next_try_at.is_not(None), alerts.c.at < to_micros(before))
        with self._database.write() as connection:
            given_up = alerts.update().where(*waiting).values(next_try_at=None, cause=cause)
            return connection.execute(given_up).rowcount

    def all(self) -> Sequence[Alert]:
        """Every alert, oldest first."""
        with self._database.read() as connection:
            return [_alert(row) for row in connection.execute(alerts.select().order_by(alerts.c.at)).mappings()]

    def _update(self, still: tuple[sa.ColumnElement[bool], ...], values: Mapping[str, Any]) -> bool:
        with self._database.write() as connection:
            return connection.execute(alerts.update().where(*still).values(values)).rowcount == 1


def _taken(alert: Alert) -> tuple[sa.ColumnElement[bool], ...]:
    return alerts.c.id == alert.id, alerts.c.tries == alert.tries + 1, alerts.c.sent_at.is_(None)


def _alert(row: sa.RowMapping) -> Alert:
    return Alert(
        id=row["id"],
        kind=row["kind"],
        incident=row["incident"],
        text=row["text"],
        at=from_micros(row["at"]),
        flip_id=row["flip_id"],
        detail=row["detail"],
        tries=row["tries"],
    )
