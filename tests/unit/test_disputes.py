"""A payment's disputes, told in any order."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import Any

import pytest

from router.disputes import told

NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)


def after(*news: tuple[str, str]) -> dict[str, Any]:
    """The disputes after this news of (id, stage)."""
    known: dict[str, Any] | None = None
    for dispute, stage in news:
        known = told(known, dispute, stage, f"{dispute}.{stage}", NOW) or known
    assert known is not None
    return known


def test_one_dispute_goes_from_opened_to_its_end() -> None:
    """The last stage is shown, with the provider's own word."""
    found = after(("d1", "opened"), ("d1", "won"))
    assert (found["reason"], found["notice"], list(found["each"])) == ("won", "d1.won", ["d1"])


@pytest.mark.parametrize("again", ["opened", "won"])
def test_what_is_known_is_no_news(again: str) -> None:
    """A doubled or late notice changes nothing."""
    assert told(after(("d1", "won")), "d1", again, "again", NOW) is None


def test_a_second_dispute_is_news_after_the_first_was_won() -> None:
    """It has a date to answer by, so it is what is shown."""
    found = after(("d1", "opened"), ("d1", "won"), ("d2", "opened"))
    assert (found["reason"], found["notice"]) == ("opened", "d2.opened")


@pytest.mark.parametrize(
    ("ends", "shown"), [(("won", "lost"), "lost"), (("lost", "won"), "lost"), (("won", "won"), "won")]
)
def test_when_all_are_over_the_one_that_cost_money_is_shown(ends: tuple[str, str], shown: str) -> None:
    """Lost before won."""
    assert after(("d1", ends[0]), ("d2", ends[1]))["reason"] == shown


def test_the_order_of_news_does_not_matter() -> None:
    """Every order of two disputes' lives ends the same."""
    news = [("d1", "opened"), ("d1", "won"), ("d2", "opened"), ("d2", "lost")]
    assert len({repr(sorted(after(*order)["each"].items())) for order in itertools.permutations(news)}) == 1
    assert {after(*order)["notice"] for order in itertools.permutations(news)} == {"d2.lost"}


def test_a_row_of_before_there_could_be_several_is_one_of_no_name() -> None:
    """It stays, beside what is told now."""
    old = {"reason": "won", "notice": "CHARGEBACK_REVERSED", "at": NOW.isoformat()}
    found = told(old, "d2", "opened", "NOTIFICATION_OF_CHARGEBACK", NOW)
    assert found is not None
    assert (found["reason"], found["each"][""]) == ("opened", old)
