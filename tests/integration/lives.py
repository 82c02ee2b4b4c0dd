"""Whole lives of payments as the providers tell them, and the ledger put back to any point of one.

Every order of a life's notices is applied to the same rows, in one transaction with a savepoint before each notice.
Where two orders of the same notices have led to the very same rows, what comes after them is tried once, and counted
for both: what is applied knows nothing but the rows and the notice. Rows that differ are followed each on their own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from providers.contract import Notice, NoticeKind
from router.audit import verify
from router.clock import ManualClock, SequentialIds
from router.ledger.engine import Database
from router.ledger.inbox import Inbox
from router.ledger.journal import Journals
from router.ledger.payments import PaymentLedger
from router.ledger.tables import metadata
from router.notices import Notices
from tests.integration.desk import Desk, Letter

_BY_ORDER = {"id", "idempotency_key", "payment_id", "attempt_id", "started_at", "finished_at", "sends"}
"""Of an operation: ids of those that the provider told of are made as they come, and so are moments."""
_PAYMENT = (
    *("status", "amount_captured", "amount_refunded", "capture_pending", "provider", "attempt_id", "decline"),
    *("next_action", "attention"),
)

State = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Life:
    """A payment, and everything that its provider told of it."""

    payment_id: str
    letters: Sequence[Letter]
    notices: Sequence[Notice]
    """What moves the payment, without what says the same thing once more."""


def life(desk: Desk, payment_id: str, letters: Sequence[Letter]) -> Life:
    """The life that these letters tell."""
    now = desk.shop.core.clock.now()
    told: dict[object, Notice] = {}
    for provider, headers, body in letters:
        for each in desk.shop.core.providers[provider].read_webhook(headers, body, now=now):
            if each.kind is not NoticeKind.OTHER:
                # Stripe tells of a refund that is done twice, and of one that failed twice.
                name = each.name if each.kind in (NoticeKind.ATTEMPT, NoticeKind.DISPUTE) else ""
                told[each.kind, name, each.modification_reference, each.reason] = each
    return Life(payment_id, letters, list(told.values()))


def state(connection: sa.Connection, payment_id: str) -> State:
    """What must not depend on any order: the payment, its attempts and its operations."""
    tables = metadata.tables
    query = tables["payments"].select().where(tables["payments"].c.id == payment_id)
    row = connection.execute(query).mappings().one()
    found: State = {name: row[name] for name in _PAYMENT}
    found["dispute"] = (row["dispute"] or {}).get("reason")
    found["in doubt"] = row["resolve_at"] is not None
    for name in ("attempts", "operations"):
        rows = connection.execute(tables[name].select().where(tables[name].c.payment_id == payment_id)).mappings()
        left_out = _BY_ORDER if name == "operations" else {"finished_at"}
        kept = [{key: value for key, value in each.items() if key not in left_out} for each in rows]
        found[name] = sorted(kept, key=repr)
    return found


def figures(found: State) -> State:
    """The part of a state that checkout and finance see."""
    return {name: found[name] for name in (*_PAYMENT, "dispute", "in doubt")}


class OneTransaction(Database):
    """A ledger whose every read and write is part of one transaction that is never committed."""

    def __init__(self, url: str) -> None:
        super().__init__(url, pool_size=1)
        self.connection = self._writer.connect()
        self.connection.begin()

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        yield self.connection

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        yield self.connection

    def close(self) -> None:
        self.connection.close()
        super().close()


Ends = dict[str, tuple[tuple[str, ...], State]]
"""Every end that any order came to, each with one such order: there must be one."""


@dataclass(slots=True)
class Replay:
    """Applies a payment's notices in every order, from the ledger as it stands now."""

    database: OneTransaction
    payment_id: str
    doubled: bool
    notices: Notices = field(init=False)
    _known: dict[str, tuple[int, Ends]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ledger, clock = PaymentLedger(self.database), ManualClock(dt.datetime.now(dt.UTC))
        self.notices = Notices(
            inbox=Inbox(self.database),
            ledger=ledger,
            journals=Journals(ledger, deadline_s=10, clock=clock, ids=SequentialIds()),
            clock=clock,
        )

    def every_order(self, provider: str, notices: Sequence[Notice]) -> tuple[int, Ends]:
        """Try them all; how many orders there were, and what they came to."""
        return self._from_here(provider, tuple(notices), (), ())

    def _from_here(
        self, provider: str, left: tuple[Notice, ...], waiting: tuple[Notice, ...], order: tuple[Notice, ...]
    ) -> tuple[int, Ends]:
        now = state(self.database.connection, self.payment_id)
        here = repr(([each.id for each in left], [each.id for each in waiting], now))
        if here not in self._known:
            self._known[here] = self._go_on(provider, left, waiting, order) if left else (1, {})
            if not left:
                self._known[here][1][repr(now)] = self._end(provider, waiting, order), now
        return self._known[here]

    def _go_on(
        self, provider: str, left: tuple[Notice, ...], waiting: tuple[Notice, ...], order: tuple[Notice, ...]
    ) -> tuple[int, Ends]:
        orders, ends = 0, Ends()
        for number, notice in enumerate(left):
            savepoint = self.database.connection.begin_nested()
            still_waiting = self._apply(provider, (*waiting, notice, *([notice] * self.doubled)))
            rest = left[:number] + left[number + 1 :]
            more, found = self._from_here(provider, rest, still_waiting, (*order, notice))
            orders, ends = orders + more, found | ends
            savepoint.rollback()
        return orders, ends

    def _apply(self, provider: str, notices: tuple[Notice, ...]) -> tuple[Notice, ...]:
        """Apply these; what has to wait is tried again after everything that could be applied."""
        while True:
            waiting, applied = [], 0
            for notice in notices:
                result = self.notices.apply(provider, notice)
                applied += result == "applied"
                waiting += [notice] * (result is None)
            if not waiting or not applied:
                return tuple(waiting)
            notices = tuple(waiting)

    def _end(self, provider: str, waiting: tuple[Notice, ...], order: tuple[Notice, ...]) -> tuple[str, ...]:
        names = tuple(f"{each.name} {each.reason or ''}".strip() for each in order)
        assert not waiting, f"waits for ever after {names}: {[each.name for each in waiting]}"
        assert [found for each in verify(self.database) for found in each.differences] == [], names
        if self.doubled:
            # Everything once more, after all is over: late doubles.
            assert {self.notices.apply(provider, each) for each in order} == {"nothing new"}, names
        return names


def unanswered(desk: Desk, payment_id: str) -> None:
    """Put a payment back to where it stood while none of our calls had been answered, in a commit of the ledger's."""
    core = desk.shop.core
    loaded = core.ledger.load(payment_id)
    assert loaded is not None
    payment, attempts, operations = loaded
    lost: dict[str, Any] = {"provider_reference": None, "reason": None, "finished_at": None}
    nothing: dict[str, Any] = {"status": "processing", "amount_captured": 0, "amount_refunded": 0}
    nothing |= {"capture_pending": False, "decline": None, "next_action": None, "dispute": None}
    lost_too: dict[str, Any] = {"final_record": False, "was_approved": False, "was_canceled": False}
    in_doubt = {"attempt_id": attempts[-1].id, "resolve_at": core.clock.now()}
    core.ledger.change(
        payment,
        nothing | in_doubt,
        event="put_back",
        now=core.clock.now(),
        finished=[
            dataclasses.replace(each, **lost, **lost_too, outcome="unknown", capture=None, decline=None, health=None)
            for each in attempts
        ],
        operations=[dataclasses.replace(each, **lost, state="unknown") for each in operations],
    )


def copy_of(desk: Desk, payment_id: str) -> Callable[[], None]:
    """Remember a payment's rows; what is answered puts them back, and empties the inbox."""
    tables = [
        each for each in metadata.sorted_tables if {"payment_id"} & set(each.c.keys()) or each.name == "payments"
    ]

    def belongs(table: sa.Table) -> sa.ColumnElement[bool]:
        return (table.c.id if table.name == "payments" else table.c.payment_id) == payment_id

    with desk.shop.core.database.read() as connection:
        rows = {
            each.name: [dict(row) for row in connection.execute(each.select().where(belongs(each))).mappings()]
            for each in tables
        }

    def put_back() -> None:
        with desk.shop.core.database.write() as connection:
            connection.execute(metadata.tables["webhooks"].delete())
            for table in reversed(tables):
                connection.execute(table.delete().where(belongs(table)))
            for table in tables:
                if rows[table.name]:
                    connection.execute(table.insert(), rows[table.name])

    return put_back
