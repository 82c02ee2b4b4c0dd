"""Notices of the providers: stored before they are acknowledged, once each, applied afterwards."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
import structlog

from providers.contract import Decline, DeclineClass, Health, Money, Notice, NoticeKind, Outcome, OutcomeKind
from router.ledger.engine import Database
from router.ledger.sealed import UnreadableError
from router.ledger.tables import attempts, from_micros, to_micros, webhooks
from router.sealing import is_sealed

log = structlog.get_logger("router.ledger.inbox")


@dataclass(frozen=True, slots=True)
class Stored:
    """A notice that waits to be applied."""

    number: int
    provider: str
    notice: Notice
    tries: int
    received_at: dt.datetime


class Inbox:
    """The notices' queries."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def store(self, provider: str, notices: Sequence[Notice], *, now: dt.datetime) -> int:
        """Commit the notices that are new, in their order; answers how many. Doubles are dropped."""
        stored = 0
        with self._database.write() as connection:
            for notice in notices:
                known = sa.select(webhooks.c.number).where(
                    webhooks.c.provider == provider, webhooks.c.notice_id == notice.id
                )
                if connection.scalar(known) is not None:
                    continue
                row = {
                    "provider": provider,
                    "notice_id": notice.id,
                    "name": notice.name,
                    "notice": self._sealed(provider, notice.id, _stored(notice)),
                    "received_at": to_micros(now),
                    "tries": 0,
                    "next_try_at": to_micros(now),
                }
                try:
                    with connection.begin_nested():
                        connection.execute(webhooks.insert(), row)
                    stored += 1
                except sa.exc.IntegrityError:
                    pass  # the same notice, stored by another process in the same instant
        return stored

    def due(self, now: dt.datetime, *, limit: int) -> Sequence[Stored]:
        """Notices that wait and whose time has come; one that had to wait goes behind those that came since."""
        query = (
            webhooks.select()
            .where(webhooks.c.applied_at.is_(None), webhooks.c.next_try_at <= to_micros(now))
            .order_by(webhooks.c.next_try_at, webhooks.c.number)
            .limit(limit)
        )
        with self._database.read() as connection:
            rows = connection.execute(query).mappings().all()
        found = []
        for row in rows:
            try:
                notice = _notice(self._opened(row["provider"], row["notice_id"], row["notice"]))
            except UnreadableError as error:
                log.error("notice_unreadable", provider=row["provider"], notice=row["notice_id"], cause=str(error))
                continue  # it stays due: its key may come back
            found.append(
                Stored(row["number"], row["provider"], notice, row["tries"], from_micros(row["received_at"]))
            )
        return found

    def _sealed(self, provider: str, notice_id: str, values: dict[str, Any]) -> dict[str, Any]:
        """What the customer is to do can hold a client secret."""
        outcome = values["outcome"]
        if outcome is not None and outcome["next_action"] is not None:
            action = self._database.seals.json(outcome["next_action"], f"notice:{provider}:{notice_id}")
            return {**values, "outcome": {**outcome, "next_action": action}}
        return values

    def _opened(self, provider: str, notice_id: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
        outcome = values["outcome"]
        if outcome is None or not is_sealed(outcome.get("next_action")):
            return values
        action = self._database.seals.open_json(outcome["next_action"], f"notice:{provider}:{notice_id}")
        return {**values, "outcome": {**outcome, "next_action": action}}

    def applied(self, number: int, result: str, *, now: dt.datetime, payment_id: str | None = None) -> None:
        """Commit that a notice needs no more work, what came of it, and whose it was."""
        values = {"applied_at": to_micros(now), "result": result, "payment_id": payment_id}
        with self._database.write() as connection:
            connection.execute(webhooks.update().where(webhooks.c.number == number).values(values))

    def later(self, stored: Stored, again: dt.datetime) -> None:
        """Commit that a notice is to be tried again then."""
        with self._database.write() as connection:
            connection.execute(
                webhooks.update()
                .where(webhooks.c.number == stored.number)
                .values(tries=stored.tries + 1, next_try_at=to_micros(again))
            )

    def wake(self, now: dt.datetime) -> int:
        """Make those due that wait for an attempt which is known by now, by the provider's id; says how many."""
        reference = webhooks.c.notice["provider_reference"].as_string()
        known = sa.exists().where(
            attempts.c.provider == webhooks.c.provider, attempts.c.provider_reference == reference
        )
        query = sa.select(webhooks.c.number).where(
            webhooks.c.applied_at.is_(None), webhooks.c.next_try_at > to_micros(now), known
        )
        # Found in a read of its own: most of the time there are none, and no writer waits.
        with self._database.read() as connection:
            found = connection.scalars(query).all()
        if found:
            with self._database.write() as connection:
                due = webhooks.update().where(webhooks.c.number.in_(found)).values(next_try_at=to_micros(now))
                connection.execute(due)
        return len(found)


def _stored(notice: Notice) -> dict[str, Any]:
    """A notice as its row has it. What a version before this one does not know is left out where it says nothing.

    In a rolling upgrade such a version reads the rows of this one, and one that it cannot read stops its inbox.
    """
    values = dataclasses.asdict(notice)
    if values["outcome"] is not None and values["outcome"]["fee"] is None:
        del values["outcome"]["fee"]
    return values


def _known(values: Mapping[str, Any], kind: type[Notice] | type[Outcome]) -> dict[str, Any]:
    """What this version knows of it; a later one may have written more."""
    return {each.name: values[each.name] for each in dataclasses.fields(kind) if each.name in values}


def _notice(values: Mapping[str, Any]) -> Notice:
    money, outcome = values["money"], values["outcome"]
    return Notice(
        **{
            **_known(values, Notice),
            "kind": NoticeKind(values["kind"]),
            "money": None if money is None else Money(**money),
            "outcome": None if outcome is None else _outcome(outcome),
        }
    )


def _outcome(values: Mapping[str, Any]) -> Outcome:
    decline, fee = values["decline"], values.get("fee")
    if decline is not None:
        decline = Decline(**{**decline, "decline_class": DeclineClass(decline["decline_class"])})
    return Outcome(
        **{
            **_known(values, Outcome),
            "kind": OutcomeKind(values["kind"]),
            "health": Health(values["health"]),
            "decline": decline,
            "fee": None if fee is None else Money(**fee),
        }
    )
