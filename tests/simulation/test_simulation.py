"""A short run of the simulation: the same that `make simulate` does for thousands of seeds."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import structlog

from tests.simulation.faults import Mode
from tests.simulation.ledger import SimDatabase, open_ledger
from tests.simulation.mutants import CAUGHT_BY, NAMES
from tests.simulation.record import Totals, listen
from tests.simulation.runner import run_seed

SEEDS = range(1, 21)
"""As many as take some ten seconds; thousands are `make simulate`'s."""
HUNTED = 200
"""Seeds until a mutant has escaped; the known one is tried first, and is right until the router's steps change."""


@pytest.fixture(scope="module")
def ledger() -> Iterator[SimDatabase]:
    """One ledger for all the seeds, and the router's log turned to the simulation."""
    before = structlog.get_config()
    listen()
    # A seed leaves little behind; looking for it costs a quarter of the time.
    gc.disable()
    with open_ledger() as database:
        yield database
    gc.enable()
    structlog.configure(**before)


def test_no_payment_is_charged_twice_and_none_is_lost(ledger: SimDatabase) -> None:
    """Whatever the seed breaks, books and ledger agree in the end, and every fault was met."""
    totals = Totals()
    failed = {
        result.seed: result.violations for seed in SEEDS if (result := run_seed(seed, ledger, totals)).violations
    }
    assert not failed, "replay one with `make simulate SEED=…`"
    assert totals.counts["payments"] >= 10 * len(SEEDS)
    assert set(totals.faults) == {mode.value for mode in Mode if mode is not Mode.OK}
    assert {"before commit", "after commit"} <= set(totals.crashes)


def test_a_seed_replays_exactly(ledger: SimDatabase) -> None:
    """The same seed twice is the same interleaving, step by step; another seed is another."""
    first, second, other = (run_seed(seed, ledger, Totals()) for seed in (7, 7, 8))
    assert first.digest == second.digest
    assert first.digest != other.digest


@pytest.mark.parametrize("name", NAMES)
def test_a_router_broken_on_purpose_is_caught(name: str, ledger: SimDatabase) -> None:
    """Each mutant is caught by a seed, and the router itself passes that seed."""
    with NAMES[name]():
        seeds = (CAUGHT_BY[name], *range(1, HUNTED))
        caught = next((seed for seed in seeds if run_seed(seed, ledger, Totals()).violations), None)
    assert caught is not None, f"none of {HUNTED} seeds catches it"
    assert not run_seed(caught, ledger, Totals()).violations
