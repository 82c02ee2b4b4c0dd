"""Latency buckets: where a latency falls, and what comes back out."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.histogram import LAST_BUCKET, bucket_of, latency_of, log_moments, quantile

SECONDS = st.floats(0.001, 90.0)


@given(SECONDS)
def test_a_bucket_stands_for_its_latencies_within_five_percent(latency_s: float) -> None:
    """Half a bucket's width is a factor of the root of 1.1."""
    assert latency_of(bucket_of(latency_s)) == pytest.approx(latency_s, rel=0.05)


@given(SECONDS, SECONDS)
def test_slower_calls_are_in_later_buckets(one: float, other: float) -> None:
    """Or in the same."""
    assert (bucket_of(one) <= bucket_of(other)) or one > other


@pytest.mark.parametrize("latency_s", [0.0, -1.0, 0.0005, math.nan])
def test_nonsense_is_in_the_first_bucket(latency_s: float) -> None:
    """A clock that misbehaves must not raise where a payment ends."""
    assert bucket_of(latency_s) == 0


@pytest.mark.parametrize("latency_s", [100.0, 1e9, math.inf])
def test_the_longest_calls_share_the_last_bucket(latency_s: float) -> None:
    """There is no bucket after it."""
    assert bucket_of(latency_s) == LAST_BUCKET


@given(st.lists(SECONDS, min_size=1, max_size=200), st.floats(0.01, 1.0))
def test_a_quantile_is_at_most_a_tenth_above_the_true_one(latencies: list[float], share: float) -> None:
    """And never below it."""
    histogram: dict[int, int] = {}
    for each in latencies:
        histogram[bucket_of(each)] = histogram.get(bucket_of(each), 0) + 1
    needed = share * len(latencies)
    true = next(each for n, each in enumerate(sorted(latencies), 1) if n >= needed)
    found = quantile(histogram, share)
    assert found is not None
    assert true <= found * (1 + 1e-9)
    assert found <= true * 1.1 * (1 + 1e-9)


def test_no_calls_have_no_quantile_and_no_moments() -> None:
    """Neither has an empty hour."""
    assert quantile({}, 0.99) is None
    assert log_moments({}) is None


def test_moments_are_of_the_log() -> None:
    """Two buckets as far apart as ten steps of 1.1."""
    found = log_moments({50: 1, 60: 1})
    assert found is not None
    assert found[0] == pytest.approx(math.log(latency_of(55)))
    assert found[1] == pytest.approx(5 * math.log(1.1))
