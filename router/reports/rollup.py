"""Keeps the rollup: the worker's loop, and making it anew.

Any number of workers may: each round is one commit, which only the first of them makes (`router.ledger.rollups`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import structlog

from router.clock import Clock
from router.ledger.rollup_cells import Contribution
from router.ledger.rollups import Rollups, Work
from router.report_measures import DAY_MINUTES, MINUTE_US
from router.reports.facts import facts

log = structlog.get_logger("router.reports.rollup")

BATCH = 250
"""Events, or payments, of one commit: on SQLite it keeps checkout's commits waiting, for some 15 ms."""
ROUNDS = 40
"""Batches of one round of the loop, so that a stop does not wait for a ledger of millions."""
TRIES = 50
"""Of a day's cells, while workers commit in between."""


@dataclass(frozen=True, slots=True)
class Done:
    """What one round did."""

    events: int = 0
    payments: int = 0
    """Looked at."""
    caught_up: bool = True
    """Nothing was left that could be read."""


class Rollup:
    """A worker loop."""

    def __init__(
        self,
        ledger: Rollups,
        clock: Clock,
        *,
        stopping: Callable[[], bool] = lambda: False,
        batch: int = BATCH,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._stopping = stopping
        self._batch = batch

    def run_once(self, rounds: int = ROUNDS) -> Done:
        """Bring the rollup up to date, by `rounds` commits at most. Raises LedgerUnavailableError."""
        events = payments = 0
        for _ in range(rounds):
            if self._stopping():
                break
            work = self._ledger.work(self._batch)
            if work is None:
                self._ledger.begin(self._clock.now())
                continue
            if _is_idle(work):
                return Done(events, payments)
            if not self._ledger.commit(work, _contributions(work), self._clock.now()):
                continue  # another worker was first: what is left is read anew
            events, payments = events + work.events, payments + len(work.payments)
        return Done(events, payments, caught_up=False)

    def rebuild(self, *, kept_from: dt.datetime | None = None) -> Iterator[tuple[str, int]]:
        """Look at every payment anew, and then at every cell: ("payments", how many) and ("cells", how many were
        wrong), as it goes on. Beside workers and web processes; reports stay as they are but for what was wrong.

        `kept_from`: where there is no rollup yet, leave out what was created before.
        """
        self._ledger.begin(self._clock.now(), kept_from=kept_from)
        self._ledger.sweep_again()
        seen, caught_up = 0, False
        while not caught_up:
            done = self.run_once()
            seen, caught_up = seen + done.payments, done.caught_up
            yield "payments", seen
        wrong = 0
        for day in self._ledger.days():
            for _ in range(TRIES):
                found = self._ledger.remake_day(day)
                if found is not None:
                    wrong += found
                    break
            else:
                log.warning("rollup_day_busy", day=day // DAY_MINUTES)
            yield "cells", wrong


def _is_idle(work: Work) -> bool:
    return work.then == work.state and not work.payments and not work.marks


def _contributions(work: Work) -> dict[str, Contribution]:
    """Of a payment of before what is kept, there is what moved since: a refund is of the day on which it is made."""
    kept_from = -(-(work.state.kept_from or 0) // MINUTE_US)
    return {
        each.id: Contribution(each.version, {key: sums for key, sums in facts(each).items() if key[0] >= kept_from})
        for each in work.payments
    }
