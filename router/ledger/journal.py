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
from router.ledger.engine import LedgerUnavailableError
from router.ledger.payments import Attempt, Payment, PaymentLedger


@dataclasses.dataclass(frozen=True, slots=True)
class NewKey:
    """The idempotency key that a new payment consumes, and whether its reference may repeat another's."""

    key: str
    fingerprint: str
    repeat_reference: bool


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
        # A commit that fails is tried again a few times within a second: after a provider has answered, its
        # answer is worth waiting for a moment. A commit that went through unseen is told by the version.
        self._patiently = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(LedgerUnavailableError),
            stop=tenacity.stop_after_attempt(4),
            wait=tenacity.wait_random_exponential(multiplier=0.05, max=0.4),
            sleep=clock.sleep,
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
            self._create(dataclasses.replace(self.payment, **lease), self._new, attempt)
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
        self._ledger.create(
            payment, key=new.key, fingerprint=new.fingerprint, repeat=new.repeat_reference, first=first
        )
        self.payment, self._new = payment, None

    def _change(
        self, changes: Mapping[str, Any], event: str, started: Attempt | None, *, release_key: bool = False
    ) -> None:
        self.payment = self._patiently(
            self._ledger.change,
            self.payment,
            changes,
            event=event,
            now=self._clock.now(),
            finished=self._unwritten,
            started=started,
            release_key=release_key,
        )
        if self._unwritten is not None:
            self.attempts[-1] = self._unwritten
            self._unwritten = None
