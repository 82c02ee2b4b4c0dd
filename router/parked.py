"""Pays parked payments when a provider can take them again, or ends those whose time is over.

    expire ──▶ is a provider well again? all who wait are due, and the rate begins anew     ledger.recovered, wake
           ──▶ claim: merchant by merchant, as many as the rate and the free places allow   ledger.claim
           ──▶ each on a thread: the way of any payment                                     payments.retry_parked
           ──▶ how they ended is told with the next claim, and sets the rate                parked_ramp

Any number of workers may run: claims keep them apart, and the first commit of a try is a compare-and-set.
"""

from __future__ import annotations

import datetime as dt
import functools
import threading
from collections.abc import Callable, Sequence

import structlog

from router.clock import Clock, Ids
from router.health import ProviderHealth
from router.ledger.parked import ParkedLedger
from router.ledger.unavailable import LedgerUnavailableError
from router.payments import Answer, Payments

log = structlog.get_logger("router.parked")

ROUND = 50
"""Payments ended a round because their time is over; the next round takes up the rest."""
CLAIM = dt.timedelta(seconds=10)
"""From a claim to the first commit of its try are milliseconds; a worker that died leaves its claims for so long."""
FAULTS_AT_MOST = 5
"""Errors of ours in a row; then a person has to look."""
LEAST_PAUSE_S = 0.02
OTHERS_PAUSE_S = 0.2
"""Where all that is due is claimed by others."""


def _on_a_thread(task: Callable[[], None]) -> None:
    # A daemon: a stop waits for it within bounds (`Parked.run_once`), and not for ever.
    threading.Thread(target=task, name="parked-try", daemon=True).start()


class Parked:
    """A worker loop."""

    def __init__(
        self,
        *,
        providers: Sequence[str],
        ledger: ParkedLedger,
        payments: Payments,
        health: ProviderHealth,
        clock: Clock,
        ids: Ids,
        at_once: int = 16,
        most_per_s: float = 200.0,
        retry_s: float = 15.0,
        is_enabled: Callable[[str], bool] = lambda _provider: True,
        stopping: Callable[[], bool] = lambda: False,
        start: Callable[[Callable[[], None]], None] = _on_a_thread,
    ) -> None:
        """`at_once`: tries of this worker at the same time; `most_per_s`: of all workers.

        `is_enabled`: whether the team lets a provider take payments, one of no particular merchant's. `start` runs a
        try; it may run it at once.
        """
        self._providers = providers
        self._ledger = ledger
        self._payments = payments
        self._health = health
        self._clock = clock
        self._ids = ids
        self._at_once = at_once
        self._most_per_s = most_per_s
        self._retry = dt.timedelta(seconds=retry_s)
        self._is_enabled = is_enabled
        self._stopping = stopping
        self._start = start
        self._able: frozenset[str] | None = None
        """The providers that took payments in the last round; None: there was none yet."""
        self._waking = True
        self._lock = threading.Lock()
        self._under_way = self._settled = self._good = self._bad = 0
        self._away: LedgerUnavailableError | None = None
        self._pause_s: float | None = None
        """Until there is more to do; None: as long as the loop likes."""
        self._full = False
        self._news = threading.Event()

    def run_once(self) -> int:
        """One round. Answers how many payments have left the parking since. Raises LedgerUnavailableError."""
        self._pause_s, self._full = None, False
        now = self._clock.now()
        self._expire(now)
        self._see_recoveries(now)
        # With every circuit open a try could only park it again. Flags do not count: they may say otherwise of one.
        if any(self._health.is_admitting(each) for each in self._providers) and not self._stopping():
            self._take_up(self._clock.now())
        if self._stopping():
            self._finish()
        with self._lock:
            settled, self._settled = self._settled, 0
            away, self._away = self._away, None
        if away is not None:
            raise away
        return settled

    def wait(self, timeout_s: float) -> None:
        """Wait until there is more to do, or the time is over."""
        pause_s = timeout_s if self._pause_s is None else min(timeout_s, self._pause_s)
        self._news.wait(pause_s)
        self._news.clear()
        if self._stopping():
            self._finish()

    def wake(self) -> None:
        """End such a wait now."""
        self._news.set()

    # ------------------------------------------------------------ within

    def _expire(self, now: dt.datetime) -> None:
        """End those whose time is over, also while nobody can be asked."""
        for payment_id in self._ledger.expired(now, limit=ROUND):
            if self._stopping():
                break  # a round of slow commits could outlast the time a stop has
            try:
                answer = self._payments.retry_parked(payment_id)
            except LedgerUnavailableError:
                raise
            except Exception:
                # One payment that cannot be worked on must not hold up those behind it.
                log.exception("parked_not_tried", payment=payment_id)
                continue
            with self._lock:
                self._settled += answer is not None and answer.payment.status != "parked"

    def _see_recoveries(self, now: dt.datetime) -> None:
        """Notice providers that take payments again, by their circuits or the team's word."""
        able = frozenset(
            each for each in self._providers if self._health.is_admitting(each) and self._is_enabled(each)
        )
        before = self._able
        if before is None:
            # What recovered before this process began has its moment on record, if it ever failed.
            moved = [self._health.snapshot(each).last for each in able]
            since = max((each.at for each in moved if each is not None), default=None)
            if since is not None:
                self._ledger.recovered(now, since=since, restart=False)
        elif able - before:
            self._ledger.recovered(now, since=now, restart=True)
            self._waking = True
        self._able = able  # not before it is on record: a ledger that is away must not make it forgotten
        # Whichever worker saw it may have died in the middle: so each goes on, as long as there is something left.
        if self._waking and able:
            self._waking = self._ledger.wake(now) > 0

    def _take_up(self, now: dt.datetime) -> None:
        with self._lock:
            free, good, bad = self._at_once - self._under_way, self._good, self._bad
        if free <= 0:
            self._full, self._pause_s = True, None
            return
        if not (good or bad) and not self._ledger.is_any_due(now):
            return
        with self._lock:
            self._good, self._bad = self._good - good, self._bad - bad
        claimed = self._ledger.claim(
            now, until=now + CLAIM, limit=free, good=good, bad=bad, most_per_s=self._most_per_s
        )
        for payment_id in claimed.ids:
            with self._lock:
                self._under_way += 1
            try:
                self._start(functools.partial(self._try, payment_id))
            except RuntimeError:  # no thread is to be had: the place is free again, and the claim runs out
                with self._lock:
                    self._under_way -= 1
                raise
        until_next_s = max(LEAST_PAUSE_S, (claimed.again_at - now).total_seconds())
        self._pause_s = until_next_s if claimed.ids else max(until_next_s, OTHERS_PAUSE_S)
        self._full = len(claimed.ids) == free

    def _try(self, payment_id: str) -> None:
        began = self._clock.now()
        try:
            answer = self._payments.retry_parked(payment_id)
            self._learn(answer, began)
        except LedgerUnavailableError as error:
            self._away = error  # its claim runs out, and it is tried then
        except Exception as error:
            log.exception("parked_not_tried", payment=payment_id)
            self._count_fault(payment_id, type(error).__name__)
        finally:
            with self._lock:
                self._under_way -= 1
                # Not for each place by itself: a claim is a commit.
                enough = self._full and self._under_way <= self._at_once * 3 // 4
            if enough or self._stopping():
                self._news.set()

    def _learn(self, answer: Answer | None, began: dt.datetime) -> None:
        if answer is None:
            return  # canceled, or another worker's
        payment = answer.payment
        with self._lock:
            self._settled += payment.status != "parked"
            if payment.status not in ("parked", "processing"):
                # Canceled meanwhile, or expired: that says nothing of a provider.
                self._good += any(each.started_at >= began for each in answer.attempts)
            elif payment.updated_at >= began:  # else nobody was asked
                self._bad += 1

    def _count_fault(self, payment_id: str, cause: str) -> None:
        now = self._clock.now()
        try:
            died = self._ledger.failed(
                payment_id,
                cause=cause,
                now=now,
                again_at=now + self._retry,
                at_most=FAULTS_AT_MOST,
                alert_id=self._ids.new("alert"),
            )
        except LedgerUnavailableError as error:
            self._away = error
            return
        if died:
            log.error("parked_dead_letter", payment=payment_id, cause=cause)

    def _finish(self) -> None:
        """Wait for the tries under way: a stop that cuts one off leaves a doubt. Who stops us bounds this."""
        while True:
            with self._lock:
                if not self._under_way:
                    return
            self._news.wait(0.05)
            self._news.clear()
