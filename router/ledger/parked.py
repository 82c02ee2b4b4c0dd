"""Parked payments as the workers see them: who is next, how fast, what cannot be worked on, how many wait.

A claim keeps other workers away and no more: that a payment is charged once is decided by the first commit of its
try, a compare-and-set like every other (`PaymentLedger.change`). So a claim needs no event and no version, and one
whose worker has died runs out.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from router import parked_ramp
from router.ledger import alerts
from router.ledger.alerts import Alert
from router.ledger.engine import Database
from router.ledger.payments import NEVER, append_event
from router.ledger.records import Payment, StaleError, from_row, to_row
from router.ledger.tables import parked_ramp as ramps
from router.ledger.tables import payment_events, payments, to_micros
from router.parked_ramp import Ramp

WAKE_BATCH = 1_000
"""Payments made due in one commit: some milliseconds, so that no payment waits long for the ledger."""
MERCHANTS_AT_ONCE = 200
"""Merchants looked at in one claim, each at the cost of a look into an index; the next claim goes on behind them."""
OUTAGES_APART = dt.timedelta(seconds=3)
"""What several workers see recover within so long is one recovery."""

STOPPED_FOR_MS = 2_000
"""The database ends a claim in which nothing happens for so long; between two of its queries are microseconds."""

_PARKED = sa.text("payments.status = 'parked'")
"""As the indexes have it: a bound value would not match them."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a worker may try now."""

    ids: Sequence[str]
    rate: float
    """Tries a second that all workers may make together."""
    again_at: dt.datetime
    """Before that nothing more is given out."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """How much is parked."""

    depth: int
    dead: int
    """Of these: waiting for a person."""
    oldest_at: dt.datetime | None
    """When the oldest was created."""


class ParkedLedger:
    """The parked payments' queries."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # ------------------------------------------------------------ whose turn it is

    def claim(
        self, now: dt.datetime, *, until: dt.datetime, limit: int, good: int, bad: int, most_per_s: float
    ) -> Claimed:
        """Take up to `limit` due payments, as many as the rate allows, each merchant in its turn.

        `good`, `bad`: tries that ended since the last claim, for the rate. The claims last until `until`.
        """
        with self._database.write() as connection:
            before, turn = _locked(connection, now)
            ramp = parked_ramp.heard(before, now, good=good, bad=bad, most_per_s=most_per_s)
            wanted = min(limit, parked_ramp.allowed(ramp, now))
            ids, last = _next(connection, now, wanted, turn) if wanted else ([], turn)
            if ids:
                # Parked still: a cancel may have been committed since the look, on PostgreSQL.
                claimed = payments.update().where(payments.c.id.in_(ids), _PARKED)
                connection.execute(claimed.values(claimed_until=to_micros(until)))
            ramp = parked_ramp.spent(ramp, now, len(ids))
            if (ramp, last) != (before, turn):  # else there is nothing to wait for the disk for
                _keep(connection, ramp, merchant=last)
        return Claimed(ids, ramp.rate, parked_ramp.next_at(ramp))

    def is_any_due(self, now: dt.datetime) -> bool:
        """Whether there is anything to claim, whoever has claimed it; costs no commit."""
        query = sa.select(payments.c.id).where(_PARKED, payments.c.next_try_at <= to_micros(now)).limit(1)
        with self._database.read() as connection:
            return connection.scalar(query) is not None

    def expired(self, now: dt.datetime, *, limit: int) -> Sequence[str]:
        """Ids of parked payments whose time is over, dead ones too, the first to expire first."""
        query = sa.select(payments.c.id).where(_PARKED, payments.c.expires_at <= to_micros(now))
        with self._database.read() as connection:
            return connection.scalars(query.order_by(payments.c.expires_at).limit(limit)).all()

    # ------------------------------------------------------------ after an outage

    def recovered(self, now: dt.datetime, *, since: dt.datetime, restart: bool) -> bool:
        """Payments can be taken again since then: what was last tried before is to be made due.

        `restart`: it was at this moment, so the rate begins anew, unless another worker has seen to it. Whether it
        does.
        """
        with self._database.write() as connection:
            ramp, last = _locked(connection, now)
            # Never back: a worker that begins must not make an earlier recovery of one that is being seen to.
            known = connection.scalar(sa.select(ramps.c.wake_at))
            restart = restart and now - ramp.restarted_at >= OUTAGES_APART
            _keep(
                connection,
                parked_ramp.beginning(now) if restart else ramp,
                merchant=last,
                wake_at=max(to_micros(since), known or 0),
            )
        return restart

    def wake(self, now: dt.datetime) -> int:
        """Make due a batch of what waits, and was last tried before a recovery. Says how many; 0: that is done."""
        at = to_micros(now)
        with self._database.read() as connection:
            wake_at = connection.scalar(sa.select(ramps.c.wake_at))
            if wake_at is None:
                return 0
            waiting = sa.select(payments.c.id).where(_PARKED, payments.c.next_try_at > at)
            # What has been tried since then has seen how the provider is.
            waiting = waiting.where(payments.c.updated_at <= wake_at).limit(WAKE_BATCH)
            ids = connection.scalars(waiting).all()
        with self._database.write() as connection:
            if ids:
                due = payments.update().where(payments.c.id.in_(ids), _PARKED, payments.c.next_try_at > at)
                connection.execute(due.values(next_try_at=at))
            else:
                connection.execute(ramps.update().where(ramps.c.wake_at == wake_at).values(wake_at=None))
        return len(ids)

    # ------------------------------------------------------------ what cannot be worked on

    def failed(
        self, payment_id: str, *, cause: str, now: dt.datetime, again_at: dt.datetime, at_most: int, alert_id: str
    ) -> bool:
        """Count an error of ours; at `at_most` in a row the payment waits for a person, who is told. Whether it does.

        `cause` is a word of ours: what an exception says may hold a customer's data.
        """
        with self._database.write() as connection:
            row = _locked_payment(connection, payment_id)
            if row is None or row["status"] != "parked" or row["dead_at"] is not None:
                return False  # the error came after a try had begun: the resolver has it
            faults = row["faults"] + 1
            values: dict[str, Any] = {"faults": faults, "claimed_until": None, "next_try_at": to_micros(again_at)}
            values["updated_at"] = to_micros(now)  # a wake that is under way is not to have it tried at once
            if faults < at_most:
                connection.execute(payments.update().where(payments.c.id == payment_id).values(values))
                return False
            died = {"dead_at": now, "next_try_at": None, "claimed_until": None, "faults": faults}
            _transition(connection, row, died, event="dead_lettered", now=now, note={"cause": cause})
            # One an hour: a fault of ours that fails every payment is one thing to hear of.
            hour = f"dead letters of {now:%Y-%m-%d %H}h"
            text = (
                f"{payment_id} of {row['merchant']} is parked and cannot be tried: {cause}, {faults} times in a row. "
                "`pointsman parked list` shows all, `pointsman parked redrive` has them tried again."
            )
            detail = {"payment": payment_id, "merchant": row["merchant"], "cause": cause}
            alert = Alert(alert_id, "parked_dead_letter", hour, text, now, detail=detail)
            # A savepoint: another worker may tell of the same hour in this instant.
            try:
                with connection.begin_nested():
                    alerts.add(connection, alert)
            except sa.exc.IntegrityError:
                pass
        return True

    def redrive(self, payment_id: str, *, merchant: str | None, by: str, now: dt.datetime) -> Payment | None:
        """Have a dead payment tried again, now. None: there is no such payment, of that merchant if one is named.

        Raises StaleError for one that waits for nobody.
        """
        with self._database.write() as connection:
            row = _locked_payment(connection, payment_id)
            if row is None or (merchant is not None and row["merchant"] != merchant):
                return None
            if row["status"] != "parked" or row["dead_at"] is None:
                raise StaleError
            again = {"dead_at": None, "faults": 0, "next_try_at": now, "claimed_until": None}
            values = _transition(connection, row, again, event="redriven", now=now, note={"by": by})
        return Payment(**from_row({**row, **values}))

    def dead(self, *, merchant: str | None, limit: int, after: str | None) -> Sequence[tuple[Payment, str | None]]:
        """Dead payments of a merchant, or of all, the oldest first, past the id `after`; each with its cause."""
        query = payments.select().where(_PARKED, payments.c.dead_at.is_not(None)).order_by(payments.c.id).limit(limit)
        if merchant is not None:
            query = query.where(payments.c.merchant == merchant)
        if after is not None:
            query = query.where(payments.c.id > after)
        with self._database.read() as connection:
            found = [Payment(**from_row(row)) for row in connection.execute(query).mappings()]
            return [(each, _cause(connection, each)) for each in found]

    # ------------------------------------------------------------ how much waits

    def waiting(self) -> Waiting:
        """How many payments are parked, and since when the oldest is."""
        # A dead one is the one that has no next try: so an index answers, whose rows are a twentieth of the table's.
        query = sa.select(
            sa.func.count(), sa.func.count(payments.c.next_try_at), sa.func.min(payments.c.created_at)
        ).where(_PARKED)
        with self._database.read() as connection:
            depth, alive, oldest = connection.execute(query).one()
        return Waiting(depth, depth - alive, **from_row({"oldest_at": oldest}))


# ---------------------------------------------------------------- whose turn it is


def _next(connection: sa.Connection, now: dt.datetime, wanted: int, last: str) -> tuple[list[str], str]:
    """Ids of due payments that nobody has claimed, dealt out merchant by merchant, and whose turn it was last.

    Where none of those looked at has any, that is the last one looked at: the next claim looks behind it.
    """
    found: dict[str, list[str]] = {}
    seen = last
    for merchant in _merchants(connection, last):
        seen = merchant
        ids = _due(connection, merchant, now, wanted)
        if ids:
            found[merchant] = ids
        if len(found) >= wanted:
            break
    dealt: list[str] = []
    for turn in range(wanted):
        for merchant, ids in found.items():
            if turn < len(ids) and len(dealt) < wanted:
                dealt.append(ids[turn])
                last = merchant
    return dealt, last if dealt else seen


def _merchants(connection: sa.Connection, last: str) -> Iterator[str]:
    """Merchants that have parked payments, from the one behind `last` on, once around."""
    first: str | None = None
    at, around = last, False
    for _ in range(MERCHANTS_AT_ONCE):
        # One look into the index for each merchant, however many payments it has.
        query = sa.select(payments.c.merchant).where(_PARKED, payments.c.merchant > at)
        merchant = connection.scalar(query.order_by(payments.c.merchant).limit(1))
        if merchant is None and around:
            return
        if merchant is None:
            at, around = "", True
            continue
        if merchant == first or (around and merchant > last):
            return
        first = first or merchant
        yield merchant
        at = merchant


def _due(connection: sa.Connection, merchant: str, now: dt.datetime, limit: int) -> list[str]:
    at = to_micros(now)
    unclaimed = sa.or_(payments.c.claimed_until.is_(None), payments.c.claimed_until <= at)
    query = (
        sa.select(payments.c.id)
        .where(_PARKED, payments.c.merchant == merchant, payments.c.next_try_at <= at, unclaimed)
        .order_by(payments.c.next_try_at, payments.c.id)
        .limit(limit)
        # SQLite knows no such thing, and needs none: it has one writer.
        .with_for_update(skip_locked=True)
    )
    return list(connection.scalars(query).all())


# ---------------------------------------------------------------- the ramp's row


def _locked(connection: sa.Connection, now: dt.datetime) -> tuple[Ramp, str]:
    """The ramp, which nobody else changes before this transaction ends, and whose turn it was last."""
    if connection.dialect.name == "postgresql":
        # A worker that is stopped in the middle of this transaction must not stop the others with it.
        connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = {STOPPED_FOR_MS}")
    query = ramps.select().with_for_update()
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        first = dataclasses.replace(parked_ramp.beginning(now), restarted_at=NEVER)
        begun = {**_row(first), "id": 1, "wake_at": None, "merchant": ""}
        if connection.dialect.name == "postgresql":
            from sqlalchemy.dialects.postgresql import insert

            connection.execute(insert(ramps).values(begun).on_conflict_do_nothing())
        else:
            connection.execute(ramps.insert(), begun)
        row = connection.execute(query).mappings().one()
    columns: Mapping[str, Any] = from_row(row)
    return Ramp(**{name: columns[name] for name in _RAMP_COLUMNS}), row["merchant"]


_RAMP_COLUMNS = ("rate", "began_at", "spent_until", "restarted_at", "good", "bad")


def _row(ramp: Ramp) -> dict[str, Any]:
    return to_row({name: getattr(ramp, name) for name in _RAMP_COLUMNS})


def _keep(connection: sa.Connection, ramp: Ramp, **more: Any) -> None:
    connection.execute(ramps.update().values(_row(ramp) | more))


# ---------------------------------------------------------------- one payment


def _locked_payment(connection: sa.Connection, payment_id: str) -> sa.RowMapping | None:
    query = payments.select().where(payments.c.id == payment_id).with_for_update()
    return connection.execute(query).mappings().one_or_none()


def _transition(
    connection: sa.Connection,
    row: sa.RowMapping,
    changes: Mapping[str, Any],
    *,
    event: str,
    now: dt.datetime,
    note: Mapping[str, Any],
) -> dict[str, Any]:
    """Commit one transition of a payment that is parked and stays so: a compare-and-set, with its event."""
    values = to_row({**changes, "updated_at": now, "version": row["version"] + 1})
    still = (payments.c.id == row["id"], payments.c.version == row["version"], _PARKED)
    if connection.execute(payments.update().where(*still).values(values)).rowcount != 1:
        raise StaleError
    append_event(connection, row["id"], event, {**values, "note": note})
    return values


def _cause(connection: sa.Connection, payment: Payment) -> str | None:
    query = (
        sa.select(payment_events.c.changes)
        .where(payment_events.c.payment_id == payment.id, payment_events.c.type == "dead_lettered")
        .order_by(payment_events.c.version.desc())
        .limit(1)
    )
    changes = connection.scalar(query)
    return None if changes is None else (changes.get("note") or {}).get("cause")
