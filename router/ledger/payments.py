"""Payments and their attempts: every change is one commit, guarded by the payment's version and lease.

A change that another process got in before (it held the lease, or took it over) raises StaleError and writes
nothing: whoever is told so stops, and reads what the ledger says now.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from router.ledger import operations as operation_rows
from router.ledger.actual_fees import fee_values
from router.ledger.engine import Database
from router.ledger.operations import Operation
from router.ledger.prepared import Prepared, Reading
from router.ledger.records import (
    HOLDING_STATUSES,
    Attempt,
    KeyTakenError,
    NewKey,
    Payment,
    ReferenceInUseError,
    StaleError,
    from_row,
    to_row,
)
from router.ledger.tables import attempts, idempotency_keys, payment_events, payments, to_micros
from router.ledger.tables import operations as operation_table
from router.ledger.together import Given, Insert, Step, Together, Update, this_row

NEVER = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
"""Before anything was due."""


class PaymentLedger:
    """The payments' queries."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._statements = _Statements(database.engine.dialect)
        self._together = Together(database)
        self._read_back = Reading(_READ_BACK, database.engine.dialect)

    # ------------------------------------------------------------ writing

    def create(self, payment: Payment, *, key: str, fingerprint: str, repeat: bool, first: Attempt | None) -> None:
        """Commit a new payment, its key, and its first attempt as started.

        `repeat` lets the reference be used again. Raises KeyTakenError or ReferenceInUseError, and then has
        written nothing.
        """
        row = to_row({name: getattr(payment, name) for name in _PAYMENT_COLUMNS})
        row["order"] = self._database.seals.order(row["order"], payment.id)
        row["next_action"] = self._database.seals.action(row["next_action"], payment.id)
        new_key = NewKey(key, fingerprint)
        steps: list[Step] = [
            (_NEW_PAYMENT if repeat else _NEW_REFERENCE, {**row, "key": key}),
            _key_step(payment.merchant, new_key, payment.id, at=row["created_at"]),
            _event_step(payment.id, "created", row),
        ]
        if first is not None:
            steps.append((_NEW_ATTEMPT, self._new_attempt_row(first)))
        broken: sa.exc.IntegrityError | None = None
        try:
            if self._together.commit(steps) is not None:
                return
        except sa.exc.IntegrityError as error:
            # Two requests in the same instant, each past the other's conditions: the unique keys decide.
            broken = error
        # The holder first: on PostgreSQL each query sees its own moment, and a twin of this request that commits in
        # between must be told by its key, not taken for another order.
        with self._database.look() as connection:
            holder = None if repeat else self._statements.holder_of(connection, payment.merchant, payment.reference)
        if self.find_key(payment.merchant, key) is not None:
            raise KeyTakenError
        if holder is not None:
            raise ReferenceInUseError(holder)
        if broken is not None and not (_breaks(broken, *_REFERENCE) or _breaks(broken, *_KEY)):
            raise broken
        raise KeyTakenError  # whoever had the one or the other has just let go of it: the next try finds it free

    def change(
        self,
        payment: Payment,
        changes: Mapping[str, Any],
        *,
        event: str,
        now: dt.datetime,
        holder: str | None = None,
        finished: Sequence[Attempt] = (),
        read: Sequence[Attempt] = (),
        started: Attempt | None = None,
        asked: Operation | None = None,
        key: NewKey | None = None,
        operations: Sequence[Operation] = (),
        release_key: bool = False,
        note: Mapping[str, Any] | None = None,
    ) -> Payment:
        """Commit one transition of a payment, with what it finishes and starts. Answers the payment as it is then.

        `asked` is a new operation, `key` the idempotency key that checkout's call consumes, `note` what the event
        says beside the columns that it sets, `read` the attempts as this process read them: a fee that was settled
        since then, or before, stays.
        Compare-and-set: raises StaleError when the payment's version or lease holder is not what `payment` says, or
        a lease runs on it at that moment that is not `holder`'s, whoever loaded it and however it stood then;
        KeyTakenError when the key was consumed before; ReferenceInUseError when a payment that ended would be open
        again, and another has its reference by now. Then nothing is written. What is no usual payment's (one that is
        open again, a key given back, a fee told twice) takes a transaction of several statements.
        """
        values = to_row({**changes, "updated_at": now, "version": payment.version + 1})
        if values.get("next_action") is not None:
            values["next_action"] = self._database.seals.action(values["next_action"], payment.id)
        reopened = payment.status not in HOLDING_STATUSES and changes.get("status") in HOLDING_STATUSES
        if "status" in changes:
            held = payment.holds_reference or (reopened and not payment.order.get("allow_repeat_reference"))
            values["holds_reference"] = held and changes["status"] in HOLDING_STATUSES
            if payment.status == "parked" != changes["status"]:
                # What the worker does with it while it waits has no event, so the one that ends the waiting says
                # what becomes of it.
                values = dict.fromkeys(("next_try_at", "claimed_until", "dead_at")) | {"faults": 0} | values
        steps = [
            _change_step(payment, values, holder),
            _event_step(payment.id, event, values if note is None else {**values, "note": note}),
        ]
        rest: list[sa.Update | sa.Delete] = []
        """What is no usual payment's, and is written by Core in the same transaction."""
        before = {each.id: each for each in read}
        for attempt in finished:
            row = {**self._attempt_row(attempt, [*_FINISHED_COLUMNS, *_FEE]), "this": attempt.id}
            fee = _fee_kind(attempt, before.get(attempt.id))
            if fee is None:
                fees = fee_values(attempt, before.get(attempt.id))
                rest.append(attempts.update().where(attempts.c.id == attempt.id).values(fees))
            steps.append((fee or _ENDED_ATTEMPT, row))
        if started is not None:
            steps.append((_NEW_ATTEMPT, self._new_attempt_row(started)))
        steps.extend(operation_rows.step(operation, new=False) for operation in operations)
        if asked is not None:
            steps.append(operation_rows.step(asked, new=True))
        if key is not None:
            operation_id = None if asked is None else asked.id
            steps.append(_key_step(payment.merchant, key, payment.id, operation_id, at=values["updated_at"]))
        if release_key:
            rest.append(idempotency_keys.delete().where(idempotency_keys.c.payment_id == payment.id))
        with self._one_of_two(payment):
            if reopened or rest:
                changed = self._change_with(payment, steps, rest, reopened=reopened)
            else:
                changed = self._together.commit(steps)
        if changed is None:
            raise StaleError
        learned = from_row(self._read_back.of(changed))
        learned["next_action"] = self._database.seals.open_action(learned["next_action"], payment.id)
        documents = {name: changes[name] for name in changes if name in _DOCUMENTS}
        return dataclasses.replace(payment, **learned, **documents)

    def _change_with(
        self, payment: Payment, steps: Sequence[Step], rest: Sequence[sa.Update | sa.Delete], *, reopened: bool
    ) -> Sequence[Any] | None:
        """The steps, and what goes with them into the same transaction."""
        with self._database.write() as connection:
            if reopened:
                holder = self._statements.holder_of(connection, payment.merchant, payment.reference)
                # Its own: another process has reopened it first, which the compare-and-set finds.
                if holder not in (None, payment.id):
                    raise ReferenceInUseError(str(holder))
            changed = self._together.run(connection, steps)
            if changed is not None:
                for statement in rest:
                    connection.execute(statement)
            return changed

    def _attempt_row(self, attempt: Attempt, columns: Sequence[str]) -> dict[str, Any]:
        row = to_row({name: getattr(attempt, name) for name in columns})
        row["next_action"] = self._database.seals.action(attempt.next_action, attempt.payment_id)
        return row

    def _new_attempt_row(self, attempt: Attempt) -> dict[str, Any]:
        row = self._attempt_row(attempt, _ATTEMPT_COLUMNS)
        row["params"] = self._database.seals.json(attempt.params, f"params:{attempt.id}")
        return row

    @contextlib.contextmanager
    def _one_of_two(self, payment: Payment) -> Iterator[None]:
        """Of two requests that take a key or a reference in the same instant, the database lets one."""
        try:
            yield
        except sa.exc.IntegrityError as error:
            if _breaks(error, *_KEY):
                raise KeyTakenError from None
            if not _breaks(error, *_REFERENCE):
                raise  # two events of one version, say: a fault in the ledger, which no replay mends
            with self._database.read() as connection:
                holder = self._statements.holder_of(connection, payment.merchant, payment.reference)
            if holder in (None, payment.id):
                raise StaleError from None  # it has just ended, or is this one, reopened by another process
            raise ReferenceInUseError(str(holder)) from None

    def postpone(self, payment: Payment, next_try_at: dt.datetime, *, now: dt.datetime) -> None:
        """Commit when a parked payment is tried next; no transition, so neither version nor event.

        That it was looked at `now` is noted: a recovery before that does not wake it any more.
        """
        with self._database.write() as connection:
            connection.execute(
                payments.update()
                .where(payments.c.id == payment.id, payments.c.version == payment.version)
                .values(next_try_at=to_micros(next_try_at), claimed_until=None, faults=0, updated_at=to_micros(now))
            )

    # ------------------------------------------------------------ reading

    def order_of(self, payment: Payment) -> Mapping[str, Any]:
        """What checkout asked for, with its tokens. Raises UnreadableError."""
        return self._database.seals.open_order(payment.order, payment.id)

    def params_of(self, attempt: Attempt) -> Mapping[str, Any]:
        """What the attempt is sent with, exactly as the first time. Raises UnreadableError."""
        return self._database.seals.open_json(attempt.params, f"params:{attempt.id}")

    def find_key(self, merchant: str, key: str) -> tuple[str, str] | None:
        """The fingerprint and the payment id that a merchant's idempotency key was consumed by, if it was."""
        with self._database.look() as connection:
            return self._statements.key_of(connection, merchant, key)

    def load(self, payment_id: str) -> tuple[Payment, Sequence[Attempt], Sequence[Operation]] | None:
        """A payment with its attempts and operations, of one moment."""
        with self._database.read() as connection:
            found = self._get(connection, payment_id)
            return None if found is None else (*found, operation_rows.of_payment(connection, payment_id))

    def _payment(self, row: Mapping[Any, Any]) -> Payment:
        values = from_row(row)
        values["next_action"] = self._database.seals.open_action(values["next_action"], values["id"])
        return Payment(**values)

    def _attempt(self, row: Mapping[Any, Any]) -> Attempt:
        values = from_row(row)
        values["next_action"] = self._database.seals.open_action(values["next_action"], values["payment_id"])
        return Attempt(**values)

    def _get(self, connection: sa.Connection, payment_id: str) -> tuple[Payment, Sequence[Attempt]] | None:
        row = connection.execute(payments.select().where(payments.c.id == payment_id)).mappings().one_or_none()
        if row is None:
            return None
        tried = connection.execute(
            attempts.select().where(attempts.c.payment_id == payment_id).order_by(attempts.c.number)
        ).mappings()
        return self._payment(row), [self._attempt(each) for each in tried]

    def get(self, payment_id: str) -> tuple[Payment, Sequence[Attempt]] | None:
        """A payment and its attempts, in order, of one moment."""
        with self._database.read() as connection:
            return self._get(connection, payment_id)

    def ids_by_reference(self, merchant: str, reference: str, *, limit: int, before: str | None) -> Sequence[str]:
        """Ids of a merchant's payments with this reference, newest first, older than the id `before`."""
        query = sa.select(payments.c.id).where(payments.c.merchant == merchant, payments.c.reference == reference)
        if before is not None:
            query = query.where(payments.c.id < before)
        with self._database.read() as connection:
            # Ids begin with their time, so the newest is the greatest.
            return connection.scalars(query.order_by(payments.c.id.desc()).limit(limit)).all()

    def touch(self, payment_id: str, now: dt.datetime) -> None:
        """Commit that checkout has asked for this payment again: it still expects it."""
        with self._database.write() as connection:
            connection.execute(payments.update().where(payments.c.id == payment_id).values(contact_at=to_micros(now)))

    def due_unresolved(
        self, now: dt.datetime, *, limit: int, not_at: Sequence[str] = (), overdue: dt.datetime = NEVER
    ) -> Sequence[str]:
        """Ids of payments that nobody works on and whose outcome, or an operation's, is to be found out now.

        Of payments at the providers `not_at`, only those that have been due since `overdue`.
        """
        at = to_micros(now)
        # A lease that ran out was held by a process that is gone, or stopped: somebody else goes on.
        due = sa.or_(
            sa.and_(payments.c.resolve_at <= at, payments.c.lease_until.is_(None)),
            payments.c.lease_until <= at,
        )
        since = sa.func.coalesce(payments.c.resolve_at, payments.c.lease_until)
        query = sa.select(payments.c.id).where(due)
        if not_at:
            elsewhere = sa.or_(payments.c.provider.is_(None), payments.c.provider.not_in(not_at))
            query = query.where(sa.or_(elsewhere, since <= to_micros(overdue)))
        # The longest waiting first: where more is due than a round takes, all have their turn.
        query = query.order_by(since)
        with self._database.read() as connection:
            return connection.scalars(query.limit(limit)).all()

    def find_attempt(
        self, provider: str, *, ours: Sequence[str], provider_reference: str | None
    ) -> tuple[str, str] | None:
        """The payment and the attempt that a provider's notice is about.

        `ours`: ids of our own that it carries, of attempts or of operations; else by the provider's id.
        """
        tried = sa.select(attempts.c.payment_id, attempts.c.id).where(attempts.c.provider == provider)
        made = sa.select(operation_table.c.payment_id, operation_table.c.attempt_id)
        made = made.where(operation_table.c.provider == provider)
        queries = [
            query
            for each in ours
            for query in (tried.where(attempts.c.id == each), made.where(operation_table.c.id == each))
        ]
        if provider_reference is not None:
            queries.append(tried.where(attempts.c.provider_reference == provider_reference).limit(1))
        with self._database.read() as connection:
            for query in queries:
                found = connection.execute(query).one_or_none()
                if found is not None:
                    return found[0], found[1]
        return None


_KEY = ("pk_idempotency_keys", "idempotency_keys.merchant, idempotency_keys.key")
_REFERENCE = ("uq_payments_held_reference", "payments.merchant, payments.reference")


def _breaks(error: sa.exc.IntegrityError, constraint: str, columns: str) -> bool:
    """Whether it is this constraint that was broken: PostgreSQL names it, SQLite its columns."""
    name = getattr(getattr(error.orig, "diag", None), "constraint_name", None)
    return name == constraint if name is not None else str(error.orig).endswith(f": {columns}")


# Plain strings: SQLAlchemy's own kind costs pydantic a dozen questions for each key of a document.
_PAYMENT_COLUMNS = [f"{column.name}" for column in payments.columns]
_ATTEMPT_COLUMNS = [f"{column.name}" for column in attempts.columns]
_FINISHED_COLUMNS = [
    "outcome",
    "reason",
    "health",
    "provider_reference",
    "decline",
    "next_action",
    "capture",
    "final_record",
    "was_approved",
    "was_canceled",
    "sends",
    "latency_us",
    "last_sent_at",
    "finished_at",
]


_KEY_COLUMNS = [f"{column.name}" for column in idempotency_keys.columns]
_EVENT_COLUMNS = ("payment_id", "version", "type", "changes", "at")
_DOCUMENTS = frozenset({"order", "flags", "decision"})
"""The payment's large columns. They are set with a version only, so whoever holds the version has them already, and
no change needs to read them back."""
_READ_BACK = [column for column in payments.columns if column.name not in _DOCUMENTS]


class _Statements:
    """What is looked up for every payment, worded once."""

    def __init__(self, dialect: sa.Dialect) -> None:
        taken = idempotency_keys.c
        self._key_of = Prepared(sa.select(taken.fingerprint, taken.payment_id).where(_is_key(_named)), dialect)
        holder = sa.select(payments.c.id).where(_holds(_named)).limit(1)
        self._holder_of = Prepared(holder, dialect)

    def key_of(self, connection: sa.Connection, merchant: str, key: str) -> tuple[str, str] | None:
        """The fingerprint and the payment id that this key was consumed by."""
        row = self._key_of.row(connection, {"merchant": merchant, "key": key})
        return None if row is None else (row[0], row[1])

    def holder_of(self, connection: sa.Connection, merchant: str, reference: str) -> str | None:
        """The open or paid payment that has this reference."""
        row = self._holder_of.row(connection, {"merchant": merchant, "reference": reference})
        return None if row is None else str(row[0])


# ---------------------------------------------------------------- the rows of a commit (`together`)


def _named(name: str, kind: sa.types.TypeEngine[Any]) -> sa.BindParameter[Any]:
    return sa.bindparam(name, type_=kind)


def _holds(given: Given, table: Any = payments) -> sa.ColumnElement[bool]:
    """A payment that has this reference: any that is open or paid, whether or not the database keeps it to one."""
    words = [f"'{status}'" for status in sorted(HOLDING_STATUSES)]
    holding: list[sa.ColumnElement[str]] = [sa.literal_column(word) for word in words]
    mine = table.c
    return sa.and_(
        mine.merchant == given("merchant", mine.merchant.type),
        mine.reference == given("reference", mine.reference.type),
        mine.status.in_(holding),
    )


def _reference_taken(given: Given) -> sa.ColumnElement[bool]:
    others = payments.alias("others")
    return sa.exists(sa.select(others.c.id).where(_holds(given, others)))


def _is_key(given: Given) -> sa.ColumnElement[bool]:
    taken = idempotency_keys.c
    return sa.and_(
        taken.merchant == given("merchant", taken.merchant.type), taken.key == given("key", taken.key.type)
    )


def _key_taken(given: Given) -> sa.ColumnElement[bool]:
    return sa.exists(sa.select(idempotency_keys.c.key).where(_is_key(given)))


_NEW_PAYMENT = Insert(payments, _PAYMENT_COLUMNS, unless=[_key_taken])
_NEW_REFERENCE = Insert(payments, _PAYMENT_COLUMNS, unless=[_key_taken, _reference_taken])
_NEW_KEY = Insert(idempotency_keys, _KEY_COLUMNS)
_NEW_EVENT = Insert(payment_events, _EVENT_COLUMNS)
_NEW_ATTEMPT = Insert(attempts, _ATTEMPT_COLUMNS)
_ENDED_ATTEMPT = Update(attempts, _FINISHED_COLUMNS, where=[this_row(attempts)])
_NOBODY_TOLD = sa.and_(attempts.c.fee_actual.is_(None), attempts.c.fee_currency.is_(None))
_FEE = ("fee_actual", "fee_currency")
_ENDED_WITH_FEE = Update(
    attempts, [*_FINISHED_COLUMNS, *_FEE], where=[this_row(attempts)], only_over=dict.fromkeys(_FEE, _NOBODY_TOLD)
)


def _fee_kind(attempt: Attempt, read: Attempt | None) -> Update | None:
    """How an attempt's end is written with its fee, in the two usual cases; None: `fee_values` has what to write.

    A fee that was not told anew is left alone; one that was, where nothing was read that a file could stand for, is
    written over nothing only.
    """
    told = (attempt.fee_actual, attempt.fee_currency)
    was = None if read is None else (read.fee_actual, read.fee_currency)
    if told == was:
        return _ENDED_ATTEMPT
    return _ENDED_WITH_FEE if was == (None, None) else None


def _key_step(merchant: str, new: NewKey, payment_id: str, operation_id: str | None = None, *, at: int) -> Step:
    """An idempotency key is consumed."""
    row = {
        "merchant": merchant,
        "key": new.key,
        "fingerprint": new.fingerprint,
        "payment_id": payment_id,
        "operation_id": operation_id,
        "created_at": at,
    }
    return _NEW_KEY, row


def _event_step(payment_id: str, kind: str, changes: Mapping[str, Any]) -> Step:
    return _NEW_EVENT, _event(payment_id, kind, changes)


@functools.cache
def _change_kind(was_free: bool, by_nobody: bool, names: tuple[str, ...]) -> Update:
    """The compare-and-set of these columns. `was_free`: loaded without a lease on it; `by_nobody`: no lease of ours
    counts. There are as many as kinds of transitions: some dozens.
    """
    mine = payments.c

    def same(given: Given) -> sa.ColumnElement[bool]:
        holder = given("known_holder", mine.lease_holder.type)
        holds = mine.lease_holder.is_(None) if was_free else mine.lease_holder == holder
        version = mine.version == given("known_version", mine.version.type)
        return sa.and_(mine.id == given("known_id", mine.id.type), version, holds)

    def free(given: Given) -> sa.ColumnElement[bool]:
        ours = [] if by_nobody else [mine.lease_holder == given("holder", mine.lease_holder.type)]
        at = given("at", mine.lease_until.type)
        return sa.or_(mine.lease_until.is_(None), mine.lease_until <= at, *ours)

    return Update(payments, names, where=[same, free], read=_READ_BACK)


def _change_step(payment: Payment, values: Mapping[str, Any], holder: str | None) -> Step:
    """Set these columns where the payment is as it was loaded and nobody else's lease runs; its row is read back."""
    kind = _change_kind(payment.lease_holder is None, holder is None, tuple(values))
    known = {"known_id": payment.id, "known_version": payment.version, "known_holder": payment.lease_holder}
    return kind, {**values, **known, "at": values["updated_at"], "holder": holder}


def append_event(connection: sa.Connection, payment_id: str, kind: str, changes: Mapping[str, Any]) -> None:
    """Add a payment's event to the caller's transaction: what it sets, its version and moment among it."""
    connection.execute(payment_events.insert(), _event(payment_id, kind, changes))


def _event(payment_id: str, kind: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "payment_id": payment_id,
        "version": changes["version"],
        "type": kind,
        "changes": changes,
        "at": changes["updated_at"],
    }
