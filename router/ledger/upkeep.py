"""What the ledger may forget, and what waits in it for too long."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import sqlalchemy as sa

from router.ledger.engine import Database
from router.ledger.records import OPEN_STATUSES
from router.ledger.tables import (
    alerts,
    attempts,
    idempotency_keys,
    payments,
    probes,
    provider_counts,
    to_micros,
    webhooks,
)


class Upkeep:
    """The housekeeping's queries. Each is bounded, and commits by itself."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def reap_keys(self, before: dt.datetime, *, limit: int) -> int:
        """Forget keys consumed before that moment, save those of payments open or in doubt. Says how many."""
        keys, at = idempotency_keys, to_micros(before)
        old = (
            sa.select(keys.c.merchant, keys.c.key)
            .join(payments, payments.c.id == keys.c.payment_id)
            .where(
                keys.c.created_at < at,
                payments.c.status.not_in(sorted(OPEN_STATUSES)),
                payments.c.resolve_at.is_(None),
                payments.c.lease_holder.is_(None),
            )
            .order_by(keys.c.created_at)
            .limit(limit)
        )
        # Found in a read of its own, so that no writer waits for the search. The age is asked again: a key that was
        # given back meanwhile may have been consumed anew.
        with self._database.read() as connection:
            found = connection.execute(old).all()
        if not found:
            return 0
        one = keys.delete().where(
            keys.c.merchant == sa.bindparam("of"), keys.c.key == sa.bindparam("word"), keys.c.created_at < at
        )
        with self._database.write() as connection:
            connection.execute(one, [{"of": merchant, "word": key} for merchant, key in found])
        return len(found)

    def reap_webhooks(self, before: dt.datetime, *, limit: int) -> int:
        """Forget notices that were applied before that moment. Says how many."""
        # Only among the oldest: to look for more would read the whole table, every time.
        oldest = (
            sa.select(webhooks.c.number, webhooks.c.applied_at).order_by(webhooks.c.number).limit(limit).subquery()
        )
        query = sa.select(oldest.c.number).where(oldest.c.applied_at < to_micros(before))
        with self._database.read() as connection:
            found = connection.scalars(query).all()
        if found:
            with self._database.write() as connection:
                connection.execute(webhooks.delete().where(webhooks.c.number.in_(found)))
        return len(found)

    def reap_counts(self, before: dt.datetime, *, limit: int) -> int:
        """Forget what processes counted and last wrote before that moment. Says how many rows."""
        table = provider_counts
        keys = list(table.primary_key)
        query = sa.select(*keys).where(table.c.updated_at < to_micros(before)).order_by(table.c.updated_at)
        with self._database.read() as connection:
            found = connection.execute(query.limit(limit)).all()
        if found:
            # The age is asked again: a process whose clock was set back may have written its row meanwhile.
            one = table.delete().where(
                *(key == sa.bindparam(f"of_{key.name}") for key in keys), table.c.updated_at < to_micros(before)
            )
            with self._database.write() as connection:
                connection.execute(
                    one, [{f"of_{name}": each for name, each in row._mapping.items()} for row in found]
                )
        return len(found)

    def reap_probes(self, before: dt.datetime, *, limit: int) -> int:
        """Forget synthetic probes that were sent before that moment. Says how many."""
        query = sa.select(probes.c.number).where(probes.c.at < to_micros(before)).order_by(probes.c.at).limit(limit)
        with self._database.read() as connection:
            found = connection.scalars(query).all()
        if found:
            with self._database.write() as connection:
                connection.execute(probes.delete().where(probes.c.number.in_(found)))
        return len(found)

    def reap_alerts(self, before: dt.datetime, *, limit: int) -> int:
        """Forget alerts of what happened before that moment, sent or not. Says how many."""
        query = sa.select(alerts.c.id).where(alerts.c.at < to_micros(before)).order_by(alerts.c.at).limit(limit)
        with self._database.read() as connection:
            found = connection.scalars(query).all()
        if found:
            with self._database.write() as connection:
                connection.execute(alerts.delete().where(alerts.c.id.in_(found)))
        return len(found)

    def abandoned(self, *, since: dt.timedelta, now: dt.datetime, limit: int) -> Sequence[str]:
        """Ids of payments that wait for their customer since then, or were to be looked at again by now."""
        # Not since the payment's last change: while another attempt is in doubt, that is a minute ago at most.
        until = attempts.c.finished_at + since // dt.timedelta(microseconds=1)
        query = (
            sa.select(payments.c.id)
            .join(attempts, attempts.c.id == payments.c.attempt_id)
            .where(
                # As the index has it: a bound value would not match it.
                sa.text("status = 'requires_action'"),
                payments.c.lease_holder.is_(None),
                sa.func.coalesce(payments.c.next_try_at, until) <= to_micros(now),
            )
            .order_by(attempts.c.finished_at)
            .limit(limit)
        )
        with self._database.read() as connection:
            return connection.scalars(query).all()

    def in_limbo(self, *, since: dt.datetime, over: str, limit: int) -> Sequence[str]:
        """Ids of payments whose authorization is from before that moment, and waits for another attempt in doubt.

        Only those that have no attention, or that one: what is more urgent, or more exact, is left alone.
        """
        query = (
            sa.select(payments.c.id)
            .join(attempts, attempts.c.id == payments.c.attempt_id)
            .where(
                payments.c.resolve_at.is_not(None),
                payments.c.status == "processing",
                payments.c.lease_holder.is_(None),
                sa.func.coalesce(payments.c.attention, over) == over,
                attempts.c.outcome == "approved",
                attempts.c.started_at <= to_micros(since),
            )
            .limit(limit)
        )
        with self._database.read() as connection:
            return connection.scalars(query).all()
