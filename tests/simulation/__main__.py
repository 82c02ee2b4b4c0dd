"""`python -m tests.simulation`: many seeds, or one of them with its trace."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable

from tests.simulation.faults import Mode
from tests.simulation.health import HELD_BACK
from tests.simulation.ledger import open_ledger
from tests.simulation.record import Totals, listen
from tests.simulation.runner import run_all, run_seed
from tests.simulation.world import CRASH_POINTS

MOST_SHOWN = 10
ENOUGH_SEEDS = 1000
"""So many must hit every fault mode and every crash point."""


def main() -> int:
    """Run what is asked; 1 when a seed has failed."""
    parser = argparse.ArgumentParser(prog="simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many, from --first on")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, help="this one alone, with its trace")
    asked = parser.parse_args()
    if asked.seed is not None:
        return _one(asked.seed)
    begun, totals, failed, cpu_s = time.monotonic(), Totals(), [], 0.0
    for part, found, spent_s in run_all(range(asked.first, asked.first + asked.seeds), asked.jobs):
        totals.add(part)
        failed += found
        cpu_s += spent_s
        seconds = time.monotonic() - begun
        sys.stderr.write(f"{totals.counts['seeds']} seeds in {seconds:.0f} s, failed: {sorted(dict(failed))}\n")
    elapsed_s = time.monotonic() - begun
    never = _complete(totals.faults, [mode.value for mode in Mode if mode is not Mode.OK])
    never += _complete(totals.crashes, CRASH_POINTS)
    _complete(totals.counts, ("circuits opened", "slow starts", HELD_BACK))
    _show("what happened", totals.counts)
    _show("faults hit", totals.faults)
    _show("processes killed at", totals.crashes)
    _show("payments ended as", totals.statuses)
    rate, payments = totals.counts["seeds"] / elapsed_s, totals.counts["payments"] / totals.counts["seeds"]
    print(
        f"{elapsed_s:.1f} s on {asked.jobs} processes, {cpu_s:.1f} s of CPU:"
        f" {rate:.1f} seeds/s, {payments:.1f} payments a seed"
    )
    for seed, violations in sorted(failed)[:MOST_SHOWN]:
        print(f"FAILED: make simulate SEED={seed}")
        for violation in violations[:3]:
            print(f"    {violation}")
    print(f"{len(failed)} of {asked.seeds} seeds failed")
    if never:
        print(f"never hit: {', '.join(never)}")
    return 1 if failed or (never and asked.seeds >= ENOUGH_SEEDS) else 0


def _complete(counts: Counter[str], names: Iterable[str]) -> list[str]:
    """Let what was never met be shown too; answers it."""
    missing = [name for name in names if not counts[name]]
    counts.update(dict.fromkeys(missing, 0))
    return missing


def _show(title: str, counts: Counter[str]) -> None:
    print(f"{title}:")
    for name, count in sorted(counts.items(), key=lambda each: (-each[1], each[0])):
        print(f"  {count:>10,}  {name}")


def _one(seed: int) -> int:
    listen()
    with open_ledger() as database:
        result = run_seed(seed, database, Totals())
    for at_s, task, what in result.trace:
        print(f"{at_s:10.3f}  {task:<34} {what}")
    for row in result.ledger:
        print("LEDGER", row)
    for violation in result.violations:
        print("VIOLATED", violation)
    print(f"seed {seed}: {'failed' if result.violations else 'well'}, trace {result.digest[:16]}")
    return 1 if result.violations else 0


if __name__ == "__main__":
    sys.exit(main())
