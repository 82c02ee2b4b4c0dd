"""One payment's commits while a process works on it.

The usual payment costs two: one that creates it with its attempt started, one that ends it. A failover adds one,
which ends an attempt and starts the next together.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
import tenacity

from router.clock import Clock, Ids
from router.ledger.operations import Operation, OperationKind
from router.ledger.payments import PaymentLedger
from router.ledger.records import Attempt, KeyTakenError, NewKey, Payment, StaleError
from router.ledger.unavailable import CommitUnknownError, LedgerUnavailableError

log = structlog.get_logger("router.ledger.journal")

Heard = Callable[[Payment, Sequence[Attempt], Sequence[Attempt]], None]
"""What is to be done once attempts are on record otherwise than before: with the payment, and with its attempts as
they were on record and as they are now."""

Watched = Callable[[Payment | None, Payment], None]
"""Told of each commit: the payment before it, None where the commit made it, and as it is now. It raises nothing."""

COMMIT_PATIENCE_S = 5.0
"""For how long a commit after the first is tried again. One try can take 10 s more on a locked file; both together
are what a lease has over the request's deadline."""


def _nobody(_was: Payment | None, _now: Payment) -> None:
    """Nobody watches."""


def _left_by(found: Payment, before: Payment, changes: Mapping[str, Any], now: dt.datetime) -> bool:
    """Whether the payment is as the commit of these changes at that moment left it."""
    same_holder = found.lease_holder == changes.get("lease_holder", before.lease_holder)
    return found.version == before.version + 1 and found.updated_at == now and same_holder


class Journal:
    """Writes each step before the next is taken. `payment` and `attempts` are what the ledger holds."""

    def __init__(
        self,
        ledger: PaymentLedger,
        payment: Payment,
        attempts: Sequence[Attempt] = (),
        *,
        operations: Sequence[Operation] = (),
        new: NewKey | None = None,
        repeat_reference: bool = False,
        lease_holder: str,
        lease_s: float,
        clock: Clock,
        heard: Heard | None = None,
        watched: Watched | None = None,
    ) -> None:
        self.payment = payment
        self._watched = watched or _nobody
        self.attempts = list(attempts)
        self.operations = list(operations)
        self._new = new
        self._repeat_reference = repeat_reference
        self._ledger = ledger
        self._clock = clock
        self._lease_holder = lease_holder
        self._lease_s = lease_s
        self._heard = heard
        self._attempts_to_write: dict[str, Attempt] = {}
        self._operations_to_write: dict[str, Operation] = {}
        self._found: Operation | None = None
        self._note: Mapping[str, Any] | None = None
        self.on_record = list(attempts)
        """The attempts as the ledger has them: without what was learned and could not be written yet."""

    def _patiently(self, until: float) -> tenacity.Retrying:
        """A commit that has failed is tried again for some seconds: a provider's answer is worth waiting for."""
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(LedgerUnavailableError),
            stop=lambda _state: self._clock.monotonic() >= until,
            wait=tenacity.wait_random_exponential(multiplier=0.05, max=0.4),
            sleep=self._clock.sleep,
            reraise=True,
        )

    def start(self, attempt: Attempt) -> None:
        """Commit that this attempt is about to be sent, and how the one before it ended.

        Raises KeyTakenError or ReferenceInUseError on the first commit of a new payment, StaleError when this
        process no longer holds the payment, LedgerUnavailableError. After any of them nothing may be sent.
        """
        chosen: dict[str, Any] = {"status": "processing", "provider": attempt.provider, "attempt_id": attempt.id}
        if self._new is not None:
            self._create(dataclasses.replace(self.payment, **self._lease(), **chosen), self._new, attempt)
        else:
            self._change({**self._lease(), **chosen}, "attempt_started", started=attempt)
        self.attempts.append(attempt)
        self.on_record.append(attempt)

    def ask(self, operation: Operation, key: NewKey | None = None) -> None:
        """Commit that this operation is about to be sent. Raises as `start`; KeyTakenError for a consumed key."""
        self._change(self._lease(), f"{operation.kind}_started", asked=operation, key=key)
        self.operations.append(operation)

    def claim(
        self,
        key: NewKey | None = None,
        *,
        given_up_at: dt.datetime | None = None,
        contact_at: dt.datetime | None = None,
    ) -> None:
        """Commit that this process works on the payment from now on, and the key of the call that asks it to.

        Likewise that checkout is held to expect it no more, or was heard of, and what was learned. Raises StaleError
        if the payment has changed since it was loaded, or another process's lease of it runs, KeyTakenError for a
        consumed key.
        """
        more = {"given_up_at": given_up_at, "contact_at": contact_at}
        more = {name: at for name, at in more.items() if at is not None}
        self._change(self._lease() | more, "claimed", key=key)

    def learned(self, news: Attempt | Operation) -> None:
        """Remember how an attempt or an operation stands; the next commit writes it."""
        if isinstance(news, Attempt):
            self.attempts = [news if each.id == news.id else each for each in self.attempts]
            self._attempts_to_write[news.id] = news
        else:
            self.operations = [news if each.id == news.id else each for each in self.operations]
            self._operations_to_write[news.id] = news

    def found(self, operation: Operation) -> None:
        """Remember an operation that the provider told of and that nobody asked for here."""
        self.operations.append(operation)
        self._found = operation

    def noted(self, note: Mapping[str, Any]) -> None:
        """Remember what belongs to the next event of this payment, and to no column of it."""
        self._note = note

    def finish(
        self, changes: Mapping[str, Any], *, event: str, release_key: bool = False, key: NewKey | None = None
    ) -> None:
        """Commit where the payment stands now, and let go of it. Raises as `start`.

        `key` is consumed by it; `release_key` gives the payment's own key back.
        """
        let_go = {**changes, "lease_holder": None, "lease_until": None}
        if self._new is not None:
            self._create(dataclasses.replace(self.payment, **let_go), self._new, None)
        else:
            self._change(let_go, event, release_key=release_key, key=key, asked=self._found)

    def _lease(self) -> dict[str, Any]:
        until = self._clock.now() + dt.timedelta(seconds=self._lease_s)
        return {"lease_holder": self._lease_holder, "lease_until": until}

    def _create(self, payment: Payment, new: NewKey, first: Attempt | None) -> None:
        def create() -> None:
            self._ledger.create(
                payment, key=new.key, fingerprint=new.fingerprint, repeat=self._repeat_reference, first=first
            )

        try:
            create()
        except CommitUnknownError:
            if not self._is_made_after_all(payment, create):
                raise
        self.payment, self._new = payment, None
        self._watched(None, payment)

    def _is_made_after_all(self, payment: Payment, create: Callable[[], None]) -> bool:
        """Whether the payment is there, though its commit was lost from sight; it is written again where it is not.

        The connection may have died after the commit, or been dead before it. One that is still on its way cannot
        double it: whichever of the two comes second meets the other's id and key, and writes nothing. False: the
        ledger is away, and nobody knows. Raises as `create`.
        """
        with contextlib.suppress(LedgerUnavailableError):
            if self._is_ours(payment):
                return True
            try:
                create()
            except KeyTakenError:
                if not self._is_ours(payment):
                    raise
            return True
        return False

    def _is_ours(self, payment: Payment) -> bool:
        found = self._ledger.get(payment.id)
        return found is not None and found[0].lease_holder == payment.lease_holder

    def _change(self, changes: Mapping[str, Any], event: str, **more: Any) -> None:
        now, was = self._clock.now(), self.payment
        until = self._clock.monotonic() + COMMIT_PATIENCE_S
        unseen = False

        def change() -> Payment:
            nonlocal unseen
            try:
                return self._ledger.change(
                    self.payment,
                    changes,
                    event=event,
                    now=now,
                    holder=self._lease_holder,
                    finished=list(self._attempts_to_write.values()),
                    read=self.on_record,
                    operations=list(self._operations_to_write.values()),
                    note=self._note,
                    **more,
                )
            except CommitUnknownError:
                unseen = True
                raise

        try:
            try:
                try:
                    self.payment = change()
                except LedgerUnavailableError:
                    if self._clock.monotonic() >= until:
                        raise
                    self.payment = self._patiently(until)(change)
            except StaleError:
                # The first try may have been committed unseen; then the payment is as that commit left it.
                found = self._ledger.get(self.payment.id)
                if found is None or not _left_by(found[0], self.payment, changes, now):
                    raise
                self.payment = found[0]
        except LedgerUnavailableError as error:
            if unseen:
                raise CommitUnknownError(str(error)) from None
            raise
        self._watched(was, self.payment)
        before, self.on_record = self.on_record, list(self.attempts)
        news = bool(self._attempts_to_write)
        self._attempts_to_write, self._operations_to_write, self._note = {}, {}, None
        if news:
            self._tell(before)

    def _tell(self, before: Sequence[Attempt]) -> None:
        if self._heard is None:
            return
        try:
            self._heard(self.payment, before, self.on_record)
        except Exception:
            # Scores that miss an answer are a little poorer; the payment is on record, and goes on.
            log.exception("not_heard", payment=self.payment.id)


LEASE_MARGIN_S = 15.0
"""A process holds a payment for its deadline and this much more: for its last commit, tried again."""


class Journals:
    """Opens journals, each under a lease of its own."""

    def __init__(
        self,
        ledger: PaymentLedger,
        *,
        deadline_s: float,
        clock: Clock,
        ids: Ids,
        margin_s: float = LEASE_MARGIN_S,
        heard: Heard | None = None,
        watched: Watched | None = None,
    ) -> None:
        self._watched = watched
        self._ledger = ledger
        self._lease_s = deadline_s + margin_s
        self._heard = heard
        self._clock = clock
        self._ids = ids

    def new(self, payment: Payment, key: NewKey, *, repeat: bool) -> Journal:
        """The journal of a payment that is not written yet."""
        return self._open(payment, new=key, repeat_reference=repeat)

    def open(self, payment: Payment, attempts: Sequence[Attempt], operations: Sequence[Operation] = ()) -> Journal:
        """The journal of a payment as it was loaded. While another's lease runs, its first commit is refused."""
        return self._open(payment, attempts=attempts, operations=operations)

    def operation(
        self, journal: Journal, attempt: Attempt, kind: OperationKind, amount: int, *, asked_by: str
    ) -> Operation:
        """A new capture, void or refund, not written yet; its own id is its key at the provider."""
        operation_id = self._ids.new("op")
        return Operation(
            id=operation_id,
            payment_id=journal.payment.id,
            attempt_id=attempt.id,
            kind=kind,
            amount=amount,
            provider=attempt.provider,
            idempotency_key=operation_id,
            state="started",
            asked_by=asked_by,
            started_at=self._clock.now(),
        )

    def _open(self, payment: Payment, **more: Any) -> Journal:
        return Journal(
            self._ledger,
            payment,
            **more,
            lease_holder=self._ids.new("lease"),
            lease_s=self._lease_s,
            clock=self._clock,
            heard=self._heard,
            watched=self._watched,
        )
