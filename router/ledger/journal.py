"""One payment's commits while a process works on it.

The usual payment costs two: one that creates it with its attempt started, one that ends it. A failover adds one,
which ends an attempt and starts the next together.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import tenacity

from router.clock import Clock
from router.ledger.payments import Attempt, Payment, PaymentLedger, StaleError
from router.ledger.unavailable import LedgerUnavailableError


@dataclasses.dataclass(frozen=True, slots=True)
class NewKey:
    """The idempotency key that a new payment consumes, and whether its reference may repeat another's."""

    key: str
    fingerprint: str
    repeat_reference: bool


COMMIT_PATIENCE_S = 5.0
"""For how long a commit after the first is tried again. One try can take 10 s more on a locked file; both together
are what a lease has over the request's deadline."""


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
        new: NewKey | None,
        lease_holder: str,
        lease_s: float,
        clock: Clock,
    ) -> None:
        self.payment = payment
        self.attempts = list(attempts)
        self._new = new
        self._ledger = ledger
        self._clock = clock
        self._lease_holder = lease_holder
        self._lease_s = lease_s
        self._unwritten: Attempt | None = None

    def _patiently(self) -> tenacity.Retrying:
        """A commit that fails is tried again for some seconds: a provider's answer is worth waiting for."""
        until = self._clock.monotonic() + COMMIT_PATIENCE_S
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
        lease: dict[str, Any] = {
            "lease_holder": self._lease_holder,
            "lease_until": self._clock.now() + dt.timedelta(seconds=self._lease_s),
        }
        if self._new is not None:
            first = dataclasses.replace(self.payment, **lease, provider=attempt.provider)
            self._create(first, self._new, attempt)
        else:
            self._change({**lease, "status": "processing", "provider": attempt.provider}, "attempt_started", attempt)
        self.attempts.append(attempt)

    def ended(self, attempt: Attempt) -> None:
        """Remember how the last attempt ended; the next commit writes it."""
        self._unwritten = attempt

    def finish(self, changes: Mapping[str, Any], *, event: str, release_key: bool = False) -> None:
        """Commit where the payment stands now, and let go of it. Raises as `start`."""
        let_go = {**changes, "lease_holder": None, "lease_until": None}
        if self._new is not None:
            self._create(dataclasses.replace(self.payment, **let_go), self._new, None)
        else:
            self._change(let_go, event, None, release_key=release_key)

    def _create(self, payment: Payment, new: NewKey, first: Attempt | None) -> None:
        try:
            self._ledger.create(
                payment, key=new.key, fingerprint=new.fingerprint, repeat=new.repeat_reference, first=first
            )
        except LedgerUnavailableError:
            # The connection may have died after the commit: then the payment is there, and it is ours.
            found = self._ledger.get(payment.id)
            if found is None or found[0].lease_holder != payment.lease_holder:
                raise
        self.payment, self._new = payment, None

    def _change(
        self, changes: Mapping[str, Any], event: str, started: Attempt | None, *, release_key: bool = False
    ) -> None:
        now = self._clock.now()
        try:
            self.payment = self._patiently()(
                self._ledger.change,
                self.payment,
                changes,
                event=event,
                now=now,
                finished=self._unwritten,
                started=started,
                release_key=release_key,
            )
        except StaleError:
            # The first try may have been committed unseen; then the payment is as that commit left it.
            found = self._ledger.get(self.payment.id)
            if found is None or not _left_by(found[0], self.payment, changes, now):
                raise
            self.payment = found[0]
        if self._unwritten is not None:
            self.attempts[-1] = self._unwritten
            self._unwritten = None
