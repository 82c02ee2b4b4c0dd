"""Figures of how well a circuit recovers."""

from __future__ import annotations

import datetime as dt

import pytest

from router.recoveries import Recoveries, recoveries
from router.transitions import ORDERED, RELEASED, State, Transition

START = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
STATES = {
    "O": State.OPEN,
    "H": State.HALF_OPEN,
    "S": State.SLOW_START,
    "C": State.CLOSED,
    "F": State.FORCED_OPEN,
    "B": State.BYPASS,
    "R": State.CLOSED,
    "o": State.OPEN,
    "h": State.HALF_OPEN,
}
TOLD = {"R": {ORDERED: "reset"}, "o": {RELEASED: "forced_open"}, "h": {RELEASED: "forced_open"}}


def history(story: str) -> list[Transition]:
    """`O0 H10 S11`: states, with the seconds at which they began; R is a reset, o and h a release and its probes."""
    return [
        Transition(
            "stripe",
            version,
            STATES[each[0]],
            START + dt.timedelta(seconds=float(each[1:])),
            "w",
            "why",
            evidence=TOLD.get(each[0], {}),
        )
        for version, each in enumerate(story.split(), 1)
    ]


@pytest.mark.parametrize(
    ("story", "rounds", "succeeded", "false", "to_closed_s"),
    [
        ("", 0, 0, 0, None),
        ("O0 H10 S11 S21 S31 C41", 1, 1, 0, 41.0),
        ("O0 H10 O11 H26 S27 C57", 2, 1, 0, 46.0),  # from the failed round on
        ("O0 H10 C11 O400 H410 C411", 2, 2, 0, 11.0),
        ("O0 H10 C11 O310.9", 1, 1, 1, 11.0),  # within five minutes of closing
        ("O0 H10 C11 O311", 1, 1, 0, 11.0),
        ("O0 H10 C11 C100 O310.9", 1, 1, 1, 11.0),  # marked suspect meanwhile: closed since 11
        ("O0 H10 S11 O12", 1, 1, 1, None),  # from slow start
        ("O0 H10 S11 S21 O300 H310 S311 C341", 2, 2, 1, 41.0),
        ("O0 H10", 0, 0, 0, None),  # not decided yet
        ("O0 H10 F12 S30 O31", 0, 0, 0, None),  # an operator's doing
        ("O0 H10 S11 B12 C20 O21", 1, 1, 0, None),
        ("F0 o3600 h3600.3 S3601 C3631", 0, 0, 0, None),  # planned work, and no outage at all
        ("O0 F5 o3600 h3600.3 S3601 C3631", 0, 0, 0, None),  # nor is it the hour's end
        ("F0 o10 h11 O12 H22 S23 C53", 1, 1, 0, 41.0),  # what the probes found is one
        ("O0 R5 O6 H16 C17", 1, 1, 0, 11.0),  # a reset is no recovery, nor was there one that proved false
        ("O0 H10 R11 O12", 0, 0, 0, None),
        ("O0 H10 S11 R12 O13", 1, 1, 0, None),
        ("H10 S11 C41", 1, 1, 0, None),  # the opening is older than what was looked at
        ("O0 H10 C20 O1000 H1010 C1040 O2000 H2010 C2030", 3, 3, 0, 30.0),  # the median
    ],
)
def test_the_figures(story: str, rounds: int, succeeded: int, false: int, to_closed_s: float | None) -> None:
    """Rounds, those that succeeded, recoveries that were none, and the seconds until closed."""
    assert recoveries(history(story)) == Recoveries(rounds, succeeded, false, to_closed_s)


def test_rates_are_none_where_there_is_nothing_to_divide_by() -> None:
    """And shares otherwise."""
    assert (recoveries([]).success_rate, recoveries([]).false_rate) == (None, None)
    figures = recoveries(history("O0 H10 O11 H26 S27 O30"))
    assert (figures.success_rate, figures.false_rate) == (0.5, 1.0)
