"""`make replay-honesty` in short: the intervals hold the truth, and no overlap is said to be none."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from bench.replay_honesty import ESTIMATORS, WITHOUT_OVERLAP, Tried, run
from router.replay.estimate import MEASURES

PAYMENTS, TRIALS = 1500, 25


@pytest.fixture(scope="module")
def found() -> Mapping[str, Tried]:
    """Twenty-five logs of one world, through each of three policies."""
    return run(PAYMENTS, TRIALS, seed=11)


def test_the_intervals_hold_the_truth(found: Mapping[str, Tried]) -> None:
    """Of each policy, measure and estimator, in 92% of the logs at least; told in 90% of them at least."""
    assert len(found) == 3
    for tried in found.values():
        assert (tried.trials, tried.untold <= 0.1 * TRIALS) == (TRIALS, True), tried.reasons
        held = {
            (estimator, measure): tried.share_held(estimator, measure)
            for estimator in ESTIMATORS
            for measure in MEASURES
        }
        assert min(held.values()) >= 0.92, held


def test_the_intervals_say_something(found: Mapping[str, Tried]) -> None:
    """Of a change that concerns a tenth of the payments: less than that tenth, either way."""
    for name in ("best-value, margin 2%, no exploration", "best-value, advantage 5 pp, primary third"):
        assert max(found[name].halves["doubly_robust", "approval"]) < 0.1


def test_without_overlap_nothing_is_told() -> None:
    """Logged by `primary-first` that explores nothing."""
    for tried in run(400, 2, seed=12, logged_by=WITHOUT_OVERLAP).values():
        assert (tried.trials, tried.untold) == (2, 2)
