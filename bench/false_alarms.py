"""Does a healthy provider stay in use, and is a sick one noticed? Both in simulated time, from seeds.

    make bench-alarms [CALLS=1000000] [RUNS=9]

First table: a million healthy calls per line, through the real breaker, once with the settings' thresholds and once
with the tuned ones, and the early warning. A circuit that opens is a defect, and ends this with status 1; an alarm of
the early warning costs a little weight, and is counted. Second table: median seconds, over seeds, from the beginning
of a fault to the first of suspect and open. The provider has been watched for a quarter of an hour before.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from bench.stream import Provider, Stream, Weather, counts_of
from router.breaker import BreakerSettings

CORRELATIONS = (0.0, 0.3, 0.5, 0.7, 0.9)
BASE_RATES = (0.001, 0.005, 0.02)
# Above the bounds of 1 s the slow threshold is the p99 itself, which is the case that could open a healthy circuit.
HEALTHY = Provider(median_s=0.6)
HEALTHY_CALLS_PER_S = 50.0
WATCHED_S = 900.0
HISTORY_CALLS = 20_000


def healthy(provider: Provider, calls: int, seed: int, settings: BreakerSettings) -> Stream:
    """So many calls at a provider that is well."""
    stream = Stream(provider, HEALTHY_CALLS_PER_S, seed, settings)
    well = Weather(provider.failing)
    stream.run(calls / HEALTHY_CALLS_PER_S, lambda _: well)
    return stream


def creep(since_s: float) -> Weather:
    """From 0.5% to 30% in twenty minutes."""
    return Weather(min(0.30, 0.005 + 0.295 * since_s / 1200))


FAULTS: Mapping[str, tuple[float, Callable[[float], Weather]]] = {
    "hard outage": (60, lambda _: Weather(1.0, refusing=True)),
    "30% failing": (120, lambda _: Weather(0.30)),
    "creep to 30% in 20 min": (1500, creep),
    "3x slower": (120, lambda _: Weather(0.005, slower=3.0)),
    "brownout: 10% errors, 2x slower": (300, lambda _: Weather(0.10, slower=2.0)),
}
"""Seconds to watch at most, and the weather."""


def noticed(
    provider: Provider, calls_per_s: float, fault: str, seed: int, settings: BreakerSettings
) -> tuple[float, float]:
    """Seconds from the fault to *suspect* and to *open*; infinite when it was not noticed."""
    horizon_s, weather = FAULTS[fault]
    past = Stream(provider, HEALTHY_CALLS_PER_S, seed + 1000, settings)
    stream = Stream(provider, calls_per_s, seed, settings)
    stream.warning.load(counts_of(past.samples(HISTORY_CALLS)), 0.0, hours_ago=1)
    well = Weather(provider.failing)
    stream.run(WATCHED_S, lambda _: well)
    stream.warning.reset()
    stream.suspected_at.clear()
    tuned = next(heard for heard in stream.breakers if heard.tuned)
    tuned.opened_at.clear()
    began = stream.now
    stream.run(horizon_s, weather, until=lambda: bool(tuned.opened_at and stream.suspected_at))
    return _first(stream.suspected_at) - began, _first(tuned.opened_at) - began


def _first(moments: list[float]) -> float:
    return moments[0] if moments else math.inf


def table_of_healthy(calls: int, seed: int, settings: BreakerSettings) -> int:
    """Print it; answers how often a circuit opened."""
    print(f"{calls:,} healthy calls a line, median {HEALTHY.median_s} s, sigma {HEALTHY.sigma}, seed {seed}\n")
    print(
        "| correlation | base failures | opens | opens, tuned | suspect | share suspect "
        "| dispersion | slow call | failures of 20 |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    opens = 0
    for correlation in CORRELATIONS:
        for failing in BASE_RATES:
            provider = replace(HEALTHY, correlation=correlation, failing=failing)
            stream = healthy(provider, calls, seed, settings)
            fixed, tuned = (len(heard.opened_at) for heard in stream.breakers)
            opens += fixed + tuned
            thresholds = stream.warning.thresholds(stream.now)
            dispersion = stream.warning.evidence().get("latency_dispersion", 1.0)
            cells = (
                f"{correlation:.1f}" if correlation else "0 (i.i.d.)",
                f"{failing:.1%}",
                fixed,
                tuned,
                len(stream.suspected_at),
                f"{stream.suspect_calls / stream.calls:.3%}",
                dispersion,
                f"{thresholds.slow_call_s:.2f} s",
                thresholds.failures_needed[-1],
            )
            print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)
            for heard in stream.breakers:
                for at, reason in zip(heard.opened_at, heard.reasons, strict=True):
                    print(f"  opened at {at:.0f} s: {reason}")
    return opens


def table_of_faults(runs: int, seed: int, settings: BreakerSettings, provider: Provider) -> None:
    """Print it."""
    print(
        f"\nMedian seconds over {runs} seeds, median latency {provider.median_s} s, sigma {provider.sigma}, "
        f"correlation {provider.correlation}, base failures {provider.failing:.1%}\n"
    )
    print("| fault | calls/s | noticed | slowest | suspect | open |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    for fault in FAULTS:
        for calls_per_s in (5.0, 50.0):
            found = [noticed(provider, calls_per_s, fault, seed + i, settings) for i in range(runs)]
            either = [min(pair) for pair in found]
            suspect, opened = (statistics.median(each) for each in zip(*found, strict=True))
            cells = (statistics.median(either), max(either), suspect, opened)
            shown = " | ".join("never" if math.isinf(each) else f"{each:.1f}" for each in cells)
            print(f"| {fault} | {calls_per_s:g} | {shown} |", flush=True)


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=9, help="seeds per fault")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    settings, began = BreakerSettings(), time.monotonic()
    for correlation in (0.0, 0.7):
        table_of_faults(options.runs, options.seed, settings, Provider(correlation=correlation))
    print()
    opens = table_of_healthy(options.calls, options.seed, settings)
    print(f"\n{opens} opens; {time.monotonic() - began:.0f} s")
    return 1 if opens else 0


if __name__ == "__main__":
    sys.exit(main())
