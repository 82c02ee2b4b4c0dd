"""What came of the weeks: a row per policy, with 95% intervals over the seeds. Pure."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import NamedTuple

from router.routing_simulation.play import Played
from router.routing_simulation.runs import (
    BEST_SINGLE,
    BEST_SINGLE_VALUE,
    LAST,
    ORACLE,
    OWN_APPROVAL,
    OWN_VALUE,
    POLICIES,
)

Weeks = Mapping[int, Mapping[str, Played]]
"""By seed and policy."""

REGRET_AT_MOST = 0.80
WORST_AT_MOST = 1.2
SWITCHES_AT_MOST = 15.0
LAST_REGRET_AT_LEAST = 1.0

# Student's t, two-sided 95%, for 1 to 30 degrees of freedom; beyond them by Cornish and Fisher's first term.
_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


class Mean(NamedTuple):
    """Over seeds."""

    mean: float
    half: float | None
    """Half of the 95% interval; None with one seed."""

    def shown(self, digits: int) -> str:
        """`0.74 ± 0.05`."""
        return f"{self.mean:.{digits}f}" if self.half is None else f"{self.mean:.{digits}f} ± {self.half:.{digits}f}"


def mean_of(figures: Sequence[float]) -> Mean:
    """With Student's interval: the seeds' weeks are independent."""
    if len(figures) < 2:
        return Mean(fmean(figures), None)
    freedom = len(figures) - 1
    t = _T95[freedom - 1] if freedom <= len(_T95) else 1.96 + 2.37 / freedom
    return Mean(fmean(figures), t * stdev(figures) / math.sqrt(len(figures)))


@dataclass(frozen=True, slots=True)
class Row:
    """One policy."""

    policy: str
    about: str
    approval: Mean
    """Per cent of the payments."""
    regret: Mean | None
    """Percentage points below the oracle in the same week; None where the oracle did not play."""
    worst: float | None
    """The worst week's regret."""
    switches: Mean
    """Per thousand payments."""
    value: Mean
    """Net value of a thousand payments, major units."""
    lost: Mean
    """Of a thousand payments, those of which a failed call may have charged."""


def rows(weeks: Weeks) -> list[Row]:
    """In the order in which policies are named."""
    played = [name for name in POLICIES if all(name in week for week in weeks.values())]
    return [_row(name, list(weeks.values())) for name in played]


def _row(name: str, weeks: Sequence[Mapping[str, Played]]) -> Row:
    own = [week[name] for week in weeks]
    regrets = [week[ORACLE].approval - week[name].approval for week in weeks if ORACLE in week]
    return Row(
        name,
        POLICIES[name][0],
        mean_of([each.approval for each in own]),
        mean_of(regrets) if regrets else None,
        max(regrets) if regrets else None,
        mean_of([each.switches_per_1000 for each in own]),
        mean_of([each.value_per_1000 for each in own]),
        mean_of([1000 * each.lost / each.payments for each in own]),
    )


@dataclass(frozen=True, slots=True)
class Finding:
    """One of the figures that the router's own way is to be held to."""

    figure: str
    measured: str
    holds: bool


def findings(weeks: Weeks) -> list[Finding]:
    """As far as the policies that they are about have played."""
    found = []
    by_name = {row.policy: row for row in rows(weeks)}
    own, last = by_name.get(OWN_APPROVAL), by_name.get(LAST)
    if own is not None and own.regret is not None and own.worst is not None:
        found += [
            Finding(
                f"regret of approval only ≤ {REGRET_AT_MOST:.2f} pp",
                own.regret.shown(2),
                own.regret.mean <= REGRET_AT_MOST,
            ),
            Finding(f"its worst week ≤ {WORST_AT_MOST} pp", f"{own.worst:.2f}", own.worst <= WORST_AT_MOST),
            Finding(
                f"its switches ≤ {SWITCHES_AT_MOST:g} per thousand",
                own.switches.shown(1),
                own.switches.mean <= SWITCHES_AT_MOST,
            ),
        ]
    if last is not None and last.regret is not None:
        found.append(
            Finding(
                f"regret of last-125 ≥ {LAST_REGRET_AT_LEAST:.1f} pp",
                last.regret.shown(2),
                last.regret.mean >= LAST_REGRET_AT_LEAST,
            )
        )
    for other in (OWN_APPROVAL, BEST_SINGLE, BEST_SINGLE_VALUE):
        if OWN_VALUE in by_name and other in by_name:
            ahead = ahead_by(weeks, OWN_VALUE, other, lambda played: played.value_per_1000)
            # The whole interval, so that it is not luck.
            figure = f"net value per thousand ahead of {POLICIES[other][0]}"
            found.append(Finding(figure, ahead.shown(1), ahead.mean - (ahead.half or 0.0) > 0))
    return found


def ahead_by(weeks: Weeks, one: str, other: str, figure: Callable[[Played], float]) -> Mean:
    """By how much a figure of one policy is above another's, week by week."""
    return mean_of([figure(week[one]) - figure(week[other]) for week in weeks.values()])


# ---------------------------------------------------------------- as people and programs read it

_HEAD = (
    "policy",
    "approval %",
    "regret, pp",
    "worst week, pp",
    "switches per 1000",
    "net value per 1000",
    "lost per 1000",
)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.about,
        row.approval.shown(2),
        "–" if row.regret is None else row.regret.shown(2),
        "–" if row.worst is None else f"{row.worst:.2f}",
        row.switches.shown(1),
        row.value.shown(0),
        row.lost.shown(2),
    )


def as_text(weeks: Weeks) -> str:
    """Columns for a terminal."""
    lines = [_HEAD, *map(_cells, rows(weeks))]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    shown = [
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    ]
    return "\n".join([*shown, "", *_said(weeks)])


def as_markdown(weeks: Weeks) -> str:
    """A table for a page."""
    lines = [_HEAD, ("---",) * len(_HEAD), *map(_cells, rows(weeks))]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", *_said(weeks)])


def as_csv(weeks: Weeks) -> str:
    """A line per policy and seed, for whoever computes further."""
    out = io.StringIO()
    names = list(asdict(next(iter(next(iter(weeks.values())).values()))))
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["seed", "policy", *names])
    for seed, week in weeks.items():
        for policy, played in week.items():
            writer.writerow([seed, policy, *asdict(played).values()])
    return out.getvalue().rstrip("\n")


def as_json(weeks: Weeks) -> str:
    """Rows and findings; a figure with an interval is `[mean, half of the interval]`."""
    told = {"rows": [asdict(row) for row in rows(weeks)], "findings": [asdict(each) for each in findings(weeks)]}
    return json.dumps(told, ensure_ascii=False, indent=1)


def _said(weeks: Weeks) -> list[str]:
    return [f"{'holds ' if each.holds else 'MISSED'}  {each.figure}: {each.measured}" for each in findings(weeks)]


FORMATS: Mapping[str, Callable[[Weeks], str]] = {
    "text": as_text,
    "markdown": as_markdown,
    "csv": as_csv,
    "json": as_json,
}
