"""What docs/choosing.md tells finance of a choice by value is what the code does."""

from __future__ import annotations

from pathlib import Path

from flags.contract import RoutingTuning
from flags.definitions import TUNING_BOUNDS
from router.policy import EXPLORED
from router.value import Terms, line, stakes

PAGE = (Path(__file__).parents[2] / "docs/choosing.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## Choosing by value\n")[1].split("\n## ")[0]


def test_the_example_is_the_line_that_a_decision_prints() -> None:
    """Finance computes it again."""
    terms = Terms(0.8731, 0.9990, 0.64, 0.05)
    assert line("adyen", terms, stakes(0.1, 60.0, [terms])) in SECTION


def test_each_number_of_the_tuning_is_told_with_its_bounds_and_default() -> None:
    """As the flag is checked."""
    rows = {
        cells[1].strip(" `"): cells for cells in (row.split("|") for row in SECTION.splitlines()) if len(cells) == 6
    }
    for key, (low, high) in TUNING_BOUNDS.items():
        default = getattr(RoutingTuning(), key)
        shown = rows[key]
        assert shown[2].strip() == (f"{high:g}" if low == 0 else f"{high:g}, from {low:g}")
        assert float(shown[3].split()[0]) == (EXPLORED if default is None else default)
