"""Pays parked payments when a provider can take them again, or ends those whose time is over."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from router.clock import Clock
from router.health import ProviderHealth
from router.ledger.payments import PaymentLedger
from router.ledger.unavailable import LedgerUnavailableError
from router.payments import Payments

log = structlog.get_logger("router.parked")

ROUND = 50
"""Payments tried a round; the next round takes up the rest."""


class Parked:
    """A worker loop. Any number may run: the first commit of a try is a compare-and-set."""

    def __init__(
        self,
        *,
        providers: Sequence[str],
        ledger: PaymentLedger,
        payments: Payments,
        health: ProviderHealth,
        clock: Clock,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._providers = providers
        self._ledger = ledger
        self._payments = payments
        self._health = health
        self._clock = clock
        self._stopping = stopping

    def run_once(self) -> int:
        """Try the payments whose time has come. Answers how many are not parked any more."""
        # With every circuit open a try could only park it again; what has expired is ended all the same.
        open_everywhere = not any(self._health.is_admitting(name) for name in self._providers)
        settled = 0
        for payment_id in self._ledger.due_parked(self._clock.now(), limit=ROUND, expired_only=open_everywhere):
            if self._stopping():
                break  # a round of slow providers could outlast the time a stop has
            try:
                answer = self._payments.retry_parked(payment_id)
            except LedgerUnavailableError:
                raise
            except Exception:
                # One payment that cannot be worked on must not hold up those behind it.
                log.exception("parked_not_tried", payment=payment_id)
                continue
            settled += answer is not None and answer.payment.status != "parked"
        return settled
