"""The budget of re-sends: 500 tokens, 5 a retry, 10 after a timeout, 1 back for a first try that succeeds."""

from __future__ import annotations

from router.resend_budget import ResendBudget
from tests.fakes.threads import eager, together


def test_a_retry_costs_five() -> None:
    """A hundred from a full bucket, and no more."""
    budget = ResendBudget()
    assert budget.tokens == 500
    assert sum(budget.take(after_timeout=False) for _ in range(150)) == 100
    assert budget.tokens == 0


def test_a_retry_after_a_timeout_costs_ten() -> None:
    """Fifty from a full bucket."""
    budget = ResendBudget()
    assert sum(budget.take(after_timeout=True) for _ in range(150)) == 50


def test_a_first_try_success_returns_one() -> None:
    """Five of them pay for one retry; nine are not enough after a timeout."""
    budget = ResendBudget(0)
    assert not budget.take(after_timeout=False)
    budget = ResendBudget(10)
    budget.take(after_timeout=True)
    for _ in range(4):
        budget.first_try_succeeded()
    assert not budget.take(after_timeout=False)
    budget.first_try_succeeded()
    assert budget.take(after_timeout=False)


def test_empty_means_no_retry_and_takes_nothing() -> None:
    """What is too little for a retry after a timeout is left for another."""
    budget = ResendBudget(9)
    assert not budget.take(after_timeout=True)
    assert budget.tokens == 9
    assert budget.take(after_timeout=False)


def test_the_bucket_never_overflows() -> None:
    """A good week does not pay for a storm of re-sends."""
    budget = ResendBudget()
    for _ in range(1000):
        budget.first_try_succeeded()
    assert budget.tokens == 500


def test_thirty_two_threads_take_no_more_than_there_is() -> None:
    """Exactly a hundred of their 640 tries are paid for."""
    budget = ResendBudget()
    taken: list[bool] = []
    with eager():
        together([lambda: taken.extend(budget.take(after_timeout=False) for _ in range(20))] * 32)
    assert (sum(taken), budget.tokens) == (100, 0)
