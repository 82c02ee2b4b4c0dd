"""The table of many weeks, its intervals and what it says of the figures to be held; and the command."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from router.cli import main
from router.routing_simulation.play import Played
from router.routing_simulation.runs import POLICIES, Job, play_week, play_weeks
from router.routing_simulation.table import as_csv, as_json, as_markdown, as_text, findings, mean_of, rows

WEEK = Played(payments=1000, approved=900, net_value=4000.0, switches=10, calls=1000, lost=1, turned_away=0, opened=0)


def weeks(**changed: Played) -> dict[int, dict[str, Played]]:
    """Two weeks: the oracle approves 900 of 1000, ours 893 and 892, last-125 889; by value is ahead in money."""
    base = {
        "oracle": WEEK,
        "own-approval": replace(WEEK, approved=893),
        "own-value": replace(WEEK, approved=880, net_value=4300.0),
        "last-125": replace(WEEK, approved=889),
        "best-single": replace(WEEK, approved=870, net_value=3900.0),
    } | changed
    return {1: base, 2: base | {"own-approval": replace(base["own-approval"], approved=892)}}


def test_the_interval_is_students() -> None:
    """Three figures with a deviation of 1: 4.303 / √3 on either side; one figure has none."""
    three = mean_of([1.0, 2.0, 3.0])
    assert three.mean == 2.0
    assert three.half == pytest.approx(2.4843, abs=1e-4)
    assert mean_of([5.0]) == (5.0, None)
    assert mean_of([float(each % 2) for each in range(60)]).half == pytest.approx(2.001 * 0.50422 / 60**0.5, abs=1e-3)


def test_a_row_says_mean_regret_and_worst_week() -> None:
    """Against the oracle in the same week."""
    row = {each.policy: each for each in rows(weeks())}["own-approval"]
    assert row.approval.mean == pytest.approx(89.25)
    assert row.regret is not None
    assert row.regret.mean == pytest.approx(0.75)
    assert row.worst == pytest.approx(0.8)
    assert row.switches.mean == 10
    assert row.value.mean == 4000


def test_every_figure_that_is_to_hold_holds_or_is_said_to_be_missed() -> None:
    """Each can fail by itself."""
    assert [each.holds for each in findings(weeks())] == [True] * 6
    for changed in (
        {"own-approval": replace(WEEK, approved=891)},
        {"own-approval": replace(WEEK, approved=893, switches=16)},
        {"last-125": replace(WEEK, approved=891)},
        {"own-value": replace(WEEK, net_value=3950.0)},
        {"best-single": replace(WEEK, net_value=4301.0)},
    ):
        assert [each.holds for each in findings(weeks(**changed))].count(False) == 1, changed
    assert "MISSED  its switches" in as_text(weeks(**{"own-approval": replace(WEEK, approved=893, switches=16)}))


def test_the_worst_week_can_be_missed_alone() -> None:
    """One bad week of many."""
    many = {seed: weeks()[1] for seed in range(1, 20)} | {
        20: {**weeks()[1], "own-approval": replace(WEEK, approved=887)}
    }
    assert [each.figure for each in findings(many) if not each.holds] == ["its worst week ≤ 1.2 pp"]


def test_without_the_oracle_there_is_no_regret() -> None:
    """And nothing is said of it."""
    alone = {1: {"own-approval": WEEK}}
    assert rows(alone)[0].regret is None
    assert findings(alone) == []
    assert "–" in as_text(alone)


def test_each_format_has_the_same_figures() -> None:
    """For a terminal, a page, a sheet and a program."""
    assert "0.75 ± 0.64" in as_text(weeks())
    assert "| pointsman, approval only | 89.25 ± 0.64 | 0.75 ± 0.64 | 0.80 |" in as_markdown(weeks())
    lines = list(csv.DictReader(io.StringIO(as_csv(weeks()))))
    assert len(lines) == 10
    assert (lines[1]["seed"], lines[1]["policy"], lines[1]["approved"]) == ("1", "own-approval", "893")
    told = json.loads(as_json(weeks()))
    assert len(told["rows"]) == 5
    assert all(each["holds"] for each in told["findings"])


def test_the_same_weeks_come_to_the_same_table_in_one_process_and_in_two() -> None:
    """Every policy by its name."""
    jobs = [Job(seed, 150, tuple(POLICIES), 0.10) for seed in (1, 2)]
    alone = dict(map(play_week, jobs))
    assert as_csv(dict(play_weeks(jobs, 2))) == as_csv(alone)
    assert [row.policy for row in rows(alone)] == list(POLICIES)


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command needs no ledger, and must not find one."""
    monkeypatch.setenv("ROUTER_RUN_DIR", str(tmp_path))


@pytest.mark.usefixtures("run_dir")
def test_the_command_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Figures on standard output, progress beside it."""
    words = "simulate-routing --seeds 1 --payments 300 --policies oracle,round-robin --processes 1 --format json"
    assert main(words.split()) == 0
    shown = capsys.readouterr()
    assert [row["policy"] for row in json.loads(shown.out)["rows"]] == ["round-robin", "oracle"]
    assert "week 1 of 1" in shown.err


@pytest.mark.usefixtures("run_dir")
@pytest.mark.parametrize(
    ("option", "given"),
    [
        ("policies", "oracle,luck"),
        ("seeds", "-7"),
        ("payments", "-7"),
        ("margin", "1.5"),
        ("margin", "nan"),
        ("processes", "-7"),
    ],
)
def test_a_wrong_option_is_named_and_its_value_is_not(
    option: str, given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, and nothing is played."""
    assert main(["simulate-routing", f"--{option}={given}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"pointsman: --{option}: ")
    assert given not in error
