"""A recovered provider's share: when it grows, and when it falls back."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from router.breaker import BreakerSettings
from router.slow_start import WHOLE, Step, first_share, next_share, step

SETTINGS = BreakerSettings(stages=(0.10, 0.25, 0.50), stage_s=10.0, stage_calls=5, failure_rate=0.5)


def test_the_stages_are_gone_through_in_order_and_all_of_it_comes_last() -> None:
    """10%, 25%, 50%, 100%."""
    shares = [first_share(SETTINGS)]
    while shares[-1] != WHOLE:
        shares.append(next_share(SETTINGS, shares[-1]))
    assert shares == [0.10, 0.25, 0.50, 1.0]


def test_without_stages_all_of_it_comes_at_once() -> None:
    """Slow start can be turned off."""
    none = dataclasses.replace(SETTINGS, stages=())
    assert first_share(none) == next_share(none, 0.1) == WHOLE


@pytest.mark.parametrize(("share", "then"), [(0.05, 0.10), (0.3, 0.5), (0.1 + 1e-12, 0.25), (0.9, WHOLE)])
def test_a_share_of_other_settings_goes_on_with_the_next_greater_stage(share: float, then: float) -> None:
    """A process with new settings takes over from one with old ones; a share never shrinks."""
    assert next_share(SETTINGS, share) == then


@pytest.mark.parametrize(
    ("age_s", "calls", "failures", "then"),
    [
        (0.0, 0, 0, Step.WAIT),
        (9.99, 1000, 0, Step.WAIT),  # traffic alone does not hurry it
        (10.0, 5, 0, Step.ADVANCE),
        (10.0, 4, 0, Step.PROBE),  # thin traffic
        (10.0, 0, 0, Step.PROBE),
        (10.0, 10, 1, Step.ADVANCE),  # a tenth, as of probes
        (10.0, 9, 1, Step.PROBE),  # one that failed is no sign, and more than a tenth
        (10.0, 5, 1, Step.PROBE),
        (10.0, 1, 1, Step.PROBE),
        (10.0, 20, 2, Step.ADVANCE),
        (10.0, 19, 2, Step.FALL_BACK),
        (10.0, 50, 24, Step.FALL_BACK),  # below the limit, and nearly half
        (10.0, 4, 2, Step.FALL_BACK),
        (9.99, 50, 24, Step.WAIT),
        (0.0, 4, 4, Step.WAIT),  # too few to tell here; a breaker has seen two in a row
        (0.0, 6, 3, Step.FALL_BACK),  # a rate that equals the threshold
        (0.0, 7, 3, Step.WAIT),
        (99.0, 10, 5, Step.FALL_BACK),  # enough healthy calls, and as many failures
    ],
)
def test_what_a_stage_comes_to(age_s: float, calls: int, failures: int, then: Step) -> None:
    """By its age, and by the whole fleet's calls in it."""
    assert step(SETTINGS, age_s=age_s, calls=calls, failures=failures) is then


def test_no_minimum_of_calls_is_not_a_division_by_nothing() -> None:
    """Time alone then advances a stage that saw no failure."""
    assert step(dataclasses.replace(SETTINGS, stage_calls=0), age_s=10, calls=0, failures=0) is Step.ADVANCE


def test_a_stage_falls_back_at_once_at_the_providers_own_limit() -> None:
    """Not at half of the calls, where a quarter opens it otherwise; a person's limit of all is obeyed too."""
    told: dict[str, Any] = {"age_s": 0.0, "calls": 20, "failures": 5}
    assert step(SETTINGS, **told, limit=0.25) is Step.FALL_BACK
    assert step(SETTINGS, **told, limit=0.26) is Step.WAIT
    assert step(SETTINGS, **{**told, "failures": 19}, limit=1.0) is Step.WAIT
