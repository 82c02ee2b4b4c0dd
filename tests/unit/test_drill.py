"""The drill's figures, and what it does about a script that does not settle."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from router import cli_circuits
from router.clock import ManualClock, SequentialIds
from router.drill import run as drill_run
from router.drill.figures import Figures, figures, table
from router.drill.run import Drill
from router.drill.scripts import SCRIPTS, Script
from router.settings import Settings
from router.transitions import State, Transition, following

BEGAN = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)


def at(seconds: float) -> dt.datetime:
    return BEGAN + dt.timedelta(seconds=seconds)


def moves(*steps: tuple[float, State]) -> list[Transition]:
    """A circuit's, so many seconds after the trouble began."""
    found: list[Transition] = []
    for seconds, state in steps:
        last = found[-1] if found else None
        found.append(following(last, state, provider="stripe", at=at(seconds), actor="w", reason="r"))
    return found


OUTAGE = moves(
    (1, State.OPEN),
    (11, State.HALF_OPEN),
    (12, State.OPEN),
    (22, State.HALF_OPEN),
    (23, State.SLOW_START),
    (53, State.CLOSED),
)


def row(
    transitions: Sequence[Transition] = tuple(OUTAGE),
    *,
    sent: Sequence[float] = (),
    counted: Sequence[tuple[float, int]] = (),
    probes: Sequence[float] = (),
    settled: bool = True,
) -> Figures:
    return figures(
        "outage",
        began=BEGAN,
        mended=at(20),
        shopped=[],
        transitions=transitions,
        sent=[at(each) for each in sent],
        counted=[(at(moment), requests) for moment, requests in counted],
        probes=[at(each) for each in probes],
        settled=settled,
        not_final=0,
        late_s=0.0,
    )


def test_calls_while_open_are_what_the_stand_in_counted_without_probes() -> None:
    """Re-sends, look-ups and operations too, of which the ledger's attempts say nothing."""
    counted = [(0.5, 90), (1.2, 99), (1.4, 100), (11.5, 107), (22.9, 112), (23.5, 140), (60, 900)]
    found = row(counted=counted, sent=[0.9, 1.1, 5.0], probes=[11.1, 22.1, 22.2, 22.3, 22.4, 33.0])
    assert (found.called_open, found.probes) == (112 - 100 - 5, 6)


def test_probes_that_no_sample_has_counted_are_not_taken_off() -> None:
    """Five calls reached the broken provider; the round that ended its stretch is over before the next sample."""
    counted = [(1.4, 100), (5.0, 105), (11.05, 105), (21.9, 105), (23.1, 140)]
    probes = [0.5, 11.01, 11.02, 22.1, 22.2, 22.3, 22.4, 22.5]
    assert row(counted=counted, probes=probes).called_open == 5


def test_an_opening_by_a_stages_probe_is_none_by_calls() -> None:
    """Though the stage had calls too, and its figures are on record."""
    stage = OUTAGE[:5]
    for evidence, reopened in (({"calls": 3, "failures": 0, "probes": 1}, 0), ({"calls": 3, "failures": 3}, 1)):
        again = following(
            stage[-1], State.OPEN, provider="stripe", at=at(33), actor="w", reason="r", evidence=evidence
        )
        assert row([*stage, again]).reopened == reopened


def test_where_connections_are_refused_payments_that_were_sent_count() -> None:
    """The stand-in cannot count what it never got; what was on its way at the opening is no call of an open one."""
    assert row(counted=[(1.4, 0), (22.9, 0)], sent=[0.9, 1.2, 1.31, 11.5, 23.0, 23.1]).called_open == 3
    assert row(sent=[5.0]).called_open == 1


def test_each_stretch_counts_by_itself_and_one_that_does_not_end_counts_to_the_last() -> None:
    """Payments in slow start and closed are none of them."""
    again = [*OUTAGE, following(OUTAGE[-1], State.OPEN, provider="stripe", at=at(60), actor="w", reason="r")]
    counted = [(1.5, 0), (22.5, 2), (30, 500), (60.5, 1000), (70, 1003)]
    assert row(again, counted=counted).called_open == 2 + 3


def test_a_provider_that_did_not_settle_is_not_closed() -> None:
    """Its row says `-`, though its last move may have been to closed, and suspect."""
    assert row().closed_s == 33.0
    assert row(settled=False).closed_s is None
    title, cells = (line.split() for line in table([row(settled=False)]).splitlines())
    assert cells[title.index("closed")] == "-"


class Stage:
    """Plays no script: answers each with a row, and notes on which service it ran."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.unsettled: set[str] = set()
        self.not_final: set[str] = set()
        self.played: list[tuple[int, str]] = []
        self.warmed_up: list[list[str]] = []
        self.houses = 0
        monkeypatch.setattr(drill_run, "_house", self.house)
        monkeypatch.setattr(drill_run, "_play", self.play)
        monkeypatch.setattr(drill_run, "_warm_up", self.warm_up)

    @contextlib.contextmanager
    def house(self, *_args: object) -> Iterator[argparse.Namespace]:
        self.houses += 1
        yield argparse.Namespace(url="http://127.0.0.1:1")

    def warm_up(self, scripts: Sequence[Script], *_args: object) -> None:
        self.warmed_up.append([each.name for each in scripts])

    def play(self, script: Script, *_args: object) -> list[Figures]:
        self.played.append((self.houses, script.name))
        found = row(settled=script.name not in self.unsettled)
        return [dataclasses.replace(found, script=script.name, not_final=int(script.name in self.not_final))]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def test_after_a_script_that_did_not_settle_the_next_one_gets_a_fresh_service(stage: Stage) -> None:
    """Warmed up again; each script is played once, and each row is in the table."""
    stage.unsettled, stage.not_final = {"long-outage"}, {"hang"}
    said: list[str] = []
    clock = ManualClock()
    found = drill_run.run(Drill(SCRIPTS[:5]), clock=clock, ids=SequentialIds(), say=said.append)
    names = [script.name for script in SCRIPTS[:5]]
    assert [each.script for each in found] == names
    assert stage.played == list(zip([1, 1, 2, 2, 3], names, strict=True))
    assert [warmed[0] for warmed in stage.warmed_up] == ["outage", "errors", "partial"]
    assert [line.split(":")[0] for line in said if "did not settle" in line] == ["long-outage", "hang"]


@pytest.mark.parametrize(("not_final", "code"), [(set(), 0), ({"errors"}, 1)])
def test_the_exit_code_says_whether_every_payment_ended(
    stage: Stage, capsys: pytest.CaptureFixture[str], not_final: set[str], code: int
) -> None:
    """A script that a machine runs must not read tables."""
    stage.not_final = not_final
    options: dict[str, Any] = {"scripts": ["errors", "hang"], "web_processes": 1, "per_second": None, "json": None}
    assert cli_circuits._drill(argparse.Namespace(**options), Settings()) == code
    assert "not final" in capsys.readouterr().out
