"""Runs seeds, in this process or in several."""

from __future__ import annotations

import gc
import hashlib
import multiprocessing
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tests.simulation import checks
from tests.simulation.health import count_circuits
from tests.simulation.ledger import SimDatabase, open_ledger
from tests.simulation.record import EARS, Totals, listen
from tests.simulation.scenario import Scenario

BATCH = 100


@dataclass(frozen=True, slots=True)
class Result:
    """One seed's end."""

    seed: int
    violations: Sequence[str]
    trace: Sequence[tuple[float, str, str]]
    ledger: Sequence[str] = ()
    """What the ledger said in the end, of the payments that a violation names."""

    @property
    def digest(self) -> str:
        """The same for the same interleaving."""
        return hashlib.sha256(repr(self.trace).encode()).hexdigest()


def run_seed(seed: int, database: SimDatabase, totals: Totals) -> Result:
    """One seed, checked."""
    scenario = Scenario(seed, database, totals)
    EARS.violated, shown = scenario.world.violated, []
    try:
        scenario.run()
        checks.check(scenario)
        if scenario.world.violations:
            shown = _ledger(database, scenario.world.violations)
    finally:
        count_circuits(database, totals.counts)
        EARS.violated = database.scheduler = database.fault = None
        database.empty()
    totals.counts["seeds"] += 1
    totals.counts["steps"] += len(scenario.world.scheduler.trace)
    return Result(seed, scenario.world.violations, scenario.world.scheduler.trace, shown)


def _ledger(database: SimDatabase, violations: Sequence[str]) -> list[str]:
    """The rows of the payments that the violations name."""
    named = sorted(set(re.findall(r"pay_\d+", " ".join(violations))))
    queries = (
        "SELECT id, status, attempt_id, amount, amount_captured, amount_refunded, capture_pending, told, attention,"
        " lease_holder, resolve_at, resolve_tries FROM payments WHERE id = ?",
        "SELECT id, number, provider, outcome, reason, provider_reference, at_once, capture, sends FROM attempts"
        " WHERE payment_id = ? ORDER BY number",
        "SELECT id, attempt_id, kind, amount, state, reason, asked_by, sends FROM operations WHERE payment_id = ?",
        "SELECT version, type FROM payment_events WHERE payment_id = ? ORDER BY version",
    )
    return [str(row) for payment in named for query in queries for row in database.rows(query, payment)]


def run_batch(seeds: Sequence[int]) -> tuple[Totals, list[tuple[int, Sequence[str]]], float]:
    """Some seeds with a ledger of their own; what failed, without traces."""
    listen()
    # A seed leaves little behind; looking for it thousands of times costs a quarter of the time.
    gc.disable()
    totals, failed, begun = Totals(), [], time.process_time()
    with open_ledger() as database:
        for seed in seeds:
            result = run_seed(seed, database, totals)
            if result.violations:
                failed.append((seed, result.violations))
    gc.collect()
    return totals, failed, time.process_time() - begun


def run_all(seeds: Iterable[int], jobs: int) -> Iterator[tuple[Totals, list[tuple[int, Sequence[str]]], float]]:
    """Every seed, over that many processes; answers batch by batch."""
    wanted = list(seeds)
    batches = [wanted[start : start + BATCH] for start in range(0, len(wanted), BATCH)]
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, initializer=_settle_down, initargs=(context.Value("i", 0),)) as pool:
        yield from pool.imap_unordered(run_batch, batches)


def _settle_down(number: Any) -> None:
    """Keep this process on one processor: its threads take turns, and another processor costs a fifth more."""
    with number.get_lock():
        mine, number.value = number.value, number.value + 1
    if hasattr(os, "sched_setaffinity"):
        usable = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {usable[mine % len(usable)]})
