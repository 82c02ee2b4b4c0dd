"""Latencies as a log histogram: calls per bucket, each bucket a tenth wider than the one before. Pure.

A count of 120 small integers holds a day's latencies within 5%, adds up over processes and hours by adding the
counts, and costs one logarithm a call.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

SHORTEST_S = 0.001
"""What is faster is in the first bucket."""
GROWTH = 1.1
LAST_BUCKET = 120
"""From 93 s on: far above any read timeout."""
_LOG_SHORTEST = math.log(SHORTEST_S)
_LOG_GROWTH = math.log(GROWTH)


def bucket_of(latency_s: float) -> int:
    """The bucket of a latency in seconds, 0 to 120; nonsense (negative, NaN) is in the first."""
    if not latency_s > SHORTEST_S:
        return 0
    return int(min(LAST_BUCKET, (math.log(latency_s) - _LOG_SHORTEST) / _LOG_GROWTH))


def log_latency_of(bucket: int) -> float:
    """Natural log of the seconds in the middle of a bucket; at most 5% from any latency in it."""
    return _LOG_SHORTEST + (bucket + 0.5) * _LOG_GROWTH


def latency_of(bucket: int) -> float:
    """Seconds in the middle of a bucket (geometric); at most 5% from any latency in it."""
    return math.exp(log_latency_of(bucket))


def quantile(histogram: Mapping[int, int], share: float) -> float | None:
    """Seconds that this share of the calls, or a little more, stays below: the upper edge of a bucket, at most 10%
    above the true quantile. None without calls.
    """
    below, needed = 0, share * sum(histogram.values())
    if needed <= 0:
        return None
    bucket = 0
    for bucket, calls in sorted(histogram.items()):  # noqa: B007 - the bucket it stops at is the answer
        below += calls
        if below >= needed:
            break
    return SHORTEST_S * GROWTH ** (bucket + 1)


def log_moments(histogram: Mapping[int, int]) -> tuple[float, float] | None:
    """Mean and standard deviation of the natural log of the latencies. None without calls."""
    calls = sum(histogram.values())
    if calls == 0:
        return None
    mean = sum(n * log_latency_of(bucket) for bucket, n in histogram.items()) / calls
    variance = sum(n * (log_latency_of(bucket) - mean) ** 2 for bucket, n in histogram.items()) / calls
    return mean, math.sqrt(variance)
