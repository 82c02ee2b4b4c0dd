"""What the console reads: bounded, along an index, and never changing anything.

Lists of payments step down `ix_payments_listed` once for each status and provider, so that a page costs the same
among a hundred payments and among a hundred million; figures of the last hours read one stretch of
`ix_attempts_started_at`.
"""

from __future__ import annotations

import datetime as dt
import heapq
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from router.clock import CROCKFORD
from router.ledger.engine import Database
from router.ledger.tables import attempts, from_micros, payment_events, payments, to_micros, webhooks

STATUSES = (
    "processing",
    "requires_action",
    "authorized",
    "captured",
    "declined",
    "parked",
    "failed",
    "canceled",
)
LATENCIES_OF = 2000
"""Newest attempts that p50 and p95 are of: a few milliseconds to read, and a p95 good to a few per cent."""
COUNTED_AT_MOST = 10_000
"""Parked payments are counted so far; more are `10000 or more`."""
MADE_BEFORE = dt.timedelta(minutes=1)
"""An id is made before its payment is created, and by milliseconds: the index is entered so much earlier."""
DETAILS_AT_MOST = 500
"""Events and webhooks of one payment that are shown: one has a dozen."""
_ULID_LENGTH = 26


@dataclass(frozen=True, slots=True)
class Count:
    """Attempts that began in one stretch of time, at one provider, with one outcome."""

    at: dt.datetime
    """When the stretch began."""
    provider: str
    outcome: str | None
    count: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """Payments that are parked, and since when the oldest of them is."""

    count: int
    oldest: dt.datetime | None

    @property
    def is_more(self) -> bool:
        """Whether not all of them were counted."""
        return self.count >= COUNTED_AT_MOST


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which payments are looked for; None: any."""

    merchant: str
    status: str | None = None
    provider: str | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    """Half-open: created from `since` on, before `until`."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A payment as a list shows it."""

    id: str
    reference: str
    status: str
    amount: int
    currency: str
    provider: str | None
    attention: str | None
    created_at: dt.datetime
    decline: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Event:
    """A transition of a payment."""

    version: int
    type: str
    changes: Mapping[str, Any]
    at: dt.datetime


@dataclass(frozen=True, slots=True)
class Letter:
    """A provider's notice of a payment."""

    provider: str
    name: str
    result: str | None
    received_at: dt.datetime
    applied_at: dt.datetime | None


class ConsoleLedger:
    """The console's queries."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # ------------------------------------------------------------ now

    def counts(self, since: dt.datetime, until: dt.datetime, *, width: dt.timedelta) -> Sequence[Count]:
        """Attempts that began from `since` on, before `until`, by stretches of `width` since 1970."""
        step = width // dt.timedelta(microseconds=1)
        # In the text, not as parameters: each `?` would be another expression to PostgreSQL's GROUP BY.
        stretch = (attempts.c.started_at - attempts.c.started_at % sa.literal_column(str(step))).label("stretch")
        query = (
            sa.select(stretch, attempts.c.provider, attempts.c.outcome, sa.func.count().label("n"))
            .where(attempts.c.started_at >= to_micros(since), attempts.c.started_at < to_micros(until))
            .group_by(stretch, attempts.c.provider, attempts.c.outcome)
        )
        with self._database.read() as connection:
            return [
                Count(from_micros(row.stretch), row.provider, row.outcome, row.n) for row in connection.execute(query)
            ]

    def latencies(self, since: dt.datetime) -> Mapping[str, Sequence[int]]:
        """By provider, in ascending order: microseconds that the newest attempts since then took, of those known."""
        query = (
            sa.select(attempts.c.provider, attempts.c.latency_us)
            .where(attempts.c.started_at >= to_micros(since))
            .order_by(attempts.c.started_at.desc())
            .limit(LATENCIES_OF)
        )
        found: dict[str, list[int]] = {}
        with self._database.read() as connection:
            for provider, latency_us in connection.execute(query):
                if latency_us is not None:
                    found.setdefault(provider, []).append(latency_us)
        return {provider: sorted(each) for provider, each in found.items()}

    def parked(self) -> Waiting:
        """Payments that wait for a provider."""
        few = sa.select(payments.c.created_at).where(sa.text("status = 'parked'")).limit(COUNTED_AT_MOST).subquery()
        with self._database.read() as connection:
            count, oldest = connection.execute(sa.select(sa.func.count(), sa.func.min(few.c.created_at))).one()
        return Waiting(int(count), None if oldest is None else from_micros(oldest))

    # ------------------------------------------------------------ lists

    def page(self, wanted: Wanted, *, limit: int, before: str | None = None) -> Sequence[Listed]:
        """Payments, newest first, older than the id `before`."""
        table = payments.c
        floor = None if wanted.since is None else _first_id(wanted.since - MADE_BEFORE)
        ceiling = None if wanted.until is None else _first_id(wanted.until)
        with self._database.read() as connection:
            ids: list[Sequence[str]] = []
            for status in STATUSES if wanted.status is None else (wanted.status,):
                of_one = sa.and_(table.merchant == wanted.merchant, table.status == status)
                named = [wanted.provider] if wanted.provider else [None, *_providers(connection, of_one)]
                for provider in named:
                    same = table.provider.is_(None) if provider is None else table.provider == provider
                    query = sa.select(table.id).where(of_one, same)
                    if wanted.since is not None:
                        query = query.where(table.id >= floor, table.created_at >= to_micros(wanted.since))
                    if wanted.until is not None:
                        query = query.where(table.id < ceiling, table.created_at < to_micros(wanted.until))
                    if before is not None:
                        query = query.where(table.id < before)
                    ids.append(connection.scalars(query.order_by(table.id.desc()).limit(limit)).all())
            newest = list(itertools.islice(heapq.merge(*ids, reverse=True), limit))
            return _listed(connection, newest)

    def named(self, merchant: str, word: str, *, limit: int) -> Sequence[Listed]:
        """Payments with this reference, id, attempt's id or provider's id, newest first."""
        tries = sa.select(attempts.c.payment_id)
        with self._database.read() as connection:
            found = set(
                connection.scalars(
                    sa.select(payments.c.id)
                    .where(payments.c.merchant == merchant, payments.c.reference == word)
                    .order_by(payments.c.id.desc())
                    .limit(limit)
                )
            )
            found.update(connection.scalars(sa.select(payments.c.id).where(payments.c.id == word)))
            found.update(connection.scalars(tries.where(attempts.c.id == word)))
            for provider in _seen_providers(connection):
                same = attempts.c.provider == provider, attempts.c.provider_reference == word
                found.update(connection.scalars(tries.where(*same).limit(limit)))
            return _listed(connection, sorted(found, reverse=True)[:limit], merchant=merchant)

    # ------------------------------------------------------------ one payment

    def events(self, payment_id: str) -> Sequence[Event]:
        """A payment's transitions, in order."""
        query = payment_events.select().where(payment_events.c.payment_id == payment_id)
        with self._database.read() as connection:
            return [
                Event(row.version, row.type, row.changes, from_micros(row.at))
                for row in connection.execute(query.order_by(payment_events.c.version).limit(DETAILS_AT_MOST))
            ]

    def letters(self, payment_id: str) -> Sequence[Letter]:
        """What the providers told of a payment, in the order in which it came."""
        query = webhooks.select().where(webhooks.c.payment_id == payment_id).order_by(webhooks.c.number)
        with self._database.read() as connection:
            return [
                Letter(
                    row.provider,
                    row.name,
                    row.result,
                    from_micros(row.received_at),
                    None if row.applied_at is None else from_micros(row.applied_at),
                )
                for row in connection.execute(query.limit(DETAILS_AT_MOST))
            ]


def _first_id(moment: dt.datetime) -> str:
    """The least id that a payment made at that moment, or later, can have: ids begin with their milliseconds."""
    number = max(0, to_micros(moment) // 1000) << 80
    letters = []
    for _ in range(_ULID_LENGTH):
        number, digit = divmod(number, 32)
        letters.append(CROCKFORD[digit])
    return "pay_" + "".join(reversed(letters))


def _providers(connection: sa.Connection, of_one: sa.ColumnElement[bool]) -> list[str]:
    """The providers of a merchant's payments of one status: a step down the index for each."""
    found: list[str] = []
    least = sa.select(sa.func.min(payments.c.provider)).where(of_one, payments.c.provider.is_not(None))
    name = connection.scalar(least)
    while name is not None:
        found.append(name)
        name = connection.scalar(least.where(payments.c.provider > name))
    return found


def _seen_providers(connection: sa.Connection) -> list[str]:
    """Every provider that an attempt knows by its own id: a step down the index for each."""
    found: list[str] = []
    least = sa.select(sa.func.min(attempts.c.provider))
    name = connection.scalar(least)
    while name is not None:
        found.append(name)
        name = connection.scalar(least.where(attempts.c.provider > name))
    return found


def _listed(connection: sa.Connection, ids: Sequence[str], *, merchant: str | None = None) -> Sequence[Listed]:
    if not ids:
        # With none to look up, a database goes by the merchant, through all of its payments.
        return []
    table = payments.c
    columns = [table[name] for name in ("id", "reference", "status", "amount", "currency", "provider", "attention")]
    query = sa.select(*columns, table.created_at, table.decline).where(table.id.in_(ids))
    if merchant is not None:
        query = query.where(table.merchant == merchant)
    rows = connection.execute(query.order_by(table.id.desc())).mappings()
    return [Listed(**{**row, "created_at": from_micros(row["created_at"])}) for row in rows]
