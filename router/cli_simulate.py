"""`pointsman simulate-routing`: ways to choose a provider, compared where the truth is known."""

from __future__ import annotations

import argparse
import os
import sys
import time

from router.cli_commands import Add, CommandError
from router.settings import Settings

PAYMENTS_AT_MOST = 5_000_000


def add_commands(add: Add) -> None:
    """Put the command beside the others."""
    about = "compare ways of choosing a provider on simulated weeks with drift, steps and outages"
    simulate = add("simulate-routing", _simulate, about)
    simulate.add_argument("--seeds", type=int, default=20, help="how many weeks (default 20)")
    simulate.add_argument(
        "--first-seed", type=int, default=1, help="of the first week; the others follow (default 1)"
    )
    simulate.add_argument("--payments", type=int, default=200_000, help="in a week (default 200000)")
    simulate.add_argument("--policies", help="by name, separated by commas (default: all)")
    simulate.add_argument("--margin", type=float, default=0.10, help="the merchant's, 0 to 1 (default 0.10)")
    simulate.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="default: one per processor")
    simulate.add_argument("--format", choices=("text", "markdown", "csv", "json"), default="text")


def _simulate(options: argparse.Namespace, _settings: Settings) -> int | None:
    from router.routing_simulation.runs import POLICIES, Job, play_weeks
    from router.routing_simulation.table import FORMATS

    chosen = list(POLICIES) if options.policies is None else [name.strip() for name in options.policies.split(",")]
    if not set(chosen) <= set(POLICIES):
        raise CommandError(f"--policies: each must be one of {', '.join(POLICIES)}")
    for name, at_most in (("seeds", 10_000), ("payments", PAYMENTS_AT_MOST), ("processes", 1_000)):
        if not 1 <= getattr(options, name) <= at_most:
            raise CommandError(f"--{name}: must be from 1 to {at_most}")
    if not 0 <= options.margin <= 1:
        raise CommandError("--margin: must be from 0 to 1")
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    jobs = [Job(seed, options.payments, chosen, options.margin) for seed in seeds]
    began = time.monotonic()
    weeks = {}
    for seed, played in play_weeks(jobs, options.processes):
        weeks[seed] = played
        # Not among the figures: they may be piped on.
        print(f"week {len(weeks)} of {len(jobs)}, {time.monotonic() - began:.0f} s", file=sys.stderr)
    print(FORMATS[options.format](weeks))
    return 0
