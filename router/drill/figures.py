"""What an outage did, in figures: from what customers saw and what the ledger has. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from router.drill.shoppers import Shopped
from router.transitions import State, Transition

SLOWED_S = 1.0
"""An answer that takes longer than this is one that a customer has waited for."""
IN_FLIGHT = dt.timedelta(seconds=0.3)
"""After an opening: for so long may a process not have heard of it, and call."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One outage. Times are seconds; None: it did not happen."""

    script: str
    payments: int
    suspect_s: float | None
    """From the beginning of the trouble to the provider being marked as suspect."""
    open_s: float | None
    back_s: float | None
    """From the mending to slow start: the first customers' payments."""
    closed_s: float | None
    """From the mending to closed, for good."""
    opened: int
    """How often it opened."""
    reopened: int
    """Of those, after the provider was well again."""
    captured: int
    processing: int
    """Answered 202, outcome not known then."""
    parked: int
    failed: int
    """Declined, failed, refused, or not answered at all: what no customer should see."""
    slowed: int
    """Answered after more than a second."""
    called_open: int
    """Calls of any kind but probes that the provider got while its circuit was open."""
    probes: int
    settled: bool
    """Whether the provider was closed again, and not suspect, when the drill stopped waiting."""
    not_final: int
    """Accepted, and still without a final status when the drill stopped waiting."""
    late_s: float
    """By how much the drill itself missed its pace."""

    def to_json(self) -> dict[str, Any]:
        """As a line of the drill's JSON."""
        return asdict(self)


def figures(
    script: str,
    *,
    began: dt.datetime,
    mended: dt.datetime,
    shopped: Sequence[Shopped],
    transitions: Iterable[Transition],
    sent: Sequence[dt.datetime],
    counted: Sequence[tuple[dt.datetime, int]],
    probes: Sequence[dt.datetime],
    settled: bool,
    not_final: int,
    late_s: float,
) -> Figures:
    """The figures of one provider's trouble.

    `transitions` oldest first; `sent`: when payments were sent to it; `counted`: how many requests the stand-in had
    got at each moment at which it was asked; `probes`: when synthetic ones were sent.
    """
    moves = [each for each in transitions if each.at >= began]
    opens = [each for each in moves if each.state is State.OPEN]
    return Figures(
        script=script,
        payments=len(shopped),
        suspect_s=_after(began, (each.at for each in moves if each.suspect)),
        open_s=_after(began, (each.at for each in opens)),
        back_s=_after(mended, (each.at for each in moves if each.state is State.SLOW_START and each.at > mended)),
        closed_s=_closed_for_good(moves, mended) if settled else None,
        opened=len({each.incident for each in opens}) and sum(_from_calls(each) for each in opens),
        reopened=sum(each.at > mended and _from_calls(each) for each in opens),
        captured=sum(each.status == "captured" for each in shopped),
        processing=sum(each.status == "processing" for each in shopped),
        parked=sum(each.status == "parked" for each in shopped),
        failed=sum(each.status not in ("captured", "processing", "parked") for each in shopped),
        slowed=sum(each.took_s > SLOWED_S for each in shopped),
        called_open=_called_open(moves, sent, counted, probes),
        probes=len(probes),
        settled=settled,
        not_final=not_final,
        late_s=round(late_s, 3),
    )


def _after(moment: dt.datetime, when: Iterable[dt.datetime]) -> float | None:
    first = min(when, default=None)
    return None if first is None else round((first - moment).total_seconds(), 2)


def _closed_for_good(moves: Sequence[Transition], mended: dt.datetime) -> float | None:
    """Seconds after the mending, until it stayed closed; 0 when it was not anything else then."""
    if not moves or moves[-1].state is not State.CLOSED:
        return None if moves else 0.0
    began = moves[-1].began
    return max(0.0, round((began - mended).total_seconds(), 2))


def _from_calls(opening: Transition) -> bool:
    """Whether payments opened it; else a probe said that it is still broken, also where a stage had calls too."""
    return "calls" in opening.evidence and "probes" not in opening.evidence


def _called_open(
    moves: Sequence[Transition],
    sent: Sequence[dt.datetime],
    counted: Sequence[tuple[dt.datetime, int]],
    probes: Sequence[dt.datetime],
) -> int:
    """Calls to a provider that was to be left alone.

    The stand-in's own count has re-sends, look-ups and operations in it, and not a connection that it refused: there
    only the ledger knows of calls, of payments. The greater of the two, stretch by stretch.
    """
    total = 0
    for start, end in _kept_away(moves):
        by_ledger = sum(start < each <= end for each in sent)
        total += max(by_ledger, _by_count([each for each in counted if start < each[0] <= end], probes))
    return total


def _by_count(counted: Sequence[tuple[dt.datetime, int]], probes: Sequence[dt.datetime]) -> int:
    """Requests between the first of these samples and the last, without the probes that were sent between them.

    A round ends its stretch, and its probes are on record before they arrive: they may be sent before the last sample
    and counted after it. So what a sample before them shows is not taken back.
    """
    if not counted:
        return 0
    first, base = counted[0]
    return max(requests - base - sum(first < each <= at for each in probes) for at, requests in counted)


def _kept_away(moves: Sequence[Transition]) -> list[tuple[dt.datetime, dt.datetime]]:
    """From when to when no payment was to be sent: from each opening, once every process can have heard of it."""
    away = (State.OPEN, State.HALF_OPEN)
    stretches = []
    began: dt.datetime | None = None
    for each in moves:
        # A round that failed is the same stretch of being kept away.
        if each.state in away and began is None:
            began = each.at
        elif each.state not in away and began is not None:
            stretches.append((began + IN_FLIGHT, each.at))
            began = None
    if began is not None:
        stretches.append((began + IN_FLIGHT, dt.datetime.max.replace(tzinfo=dt.UTC)))
    return stretches


_COLUMNS = (
    ("script", "script"),
    ("payments", "paid"),
    ("suspect_s", "suspect"),
    ("open_s", "open"),
    ("back_s", "back"),
    ("closed_s", "closed"),
    ("opened", "opened"),
    ("reopened", "re-op."),
    ("captured", "captured"),
    ("processing", "202"),
    ("parked", "parked"),
    ("failed", "failed"),
    ("slowed", ">1 s"),
    ("called_open", "calls"),
    ("probes", "probes"),
    ("not_final", "not final"),
    ("late_s", "late"),
)
LEGEND = """\
suspect, open   seconds from the trouble's beginning
back, closed    seconds from the provider's recovery to the first payments (slow start), and to all of them
                (closed -: not within the time that the drill waits; the next script gets a fresh service)
opened, re-op.  times that payments' calls opened the circuit; of those, after the recovery
202             unknown when answered: final later, at the same provider
calls           requests of any kind but probes that the provider got between opening and slow start, by its own
                count: re-sends and look-ups too; where it refuses connections, payments that were sent to it
not final       payments without a final status when the drill stopped waiting: its exit code is 1 then
late            seconds by which the drill itself missed its pace, at worst"""


def table(rows: Sequence[Figures]) -> str:
    """The figures as people read them."""
    cells = [[title for _, title in _COLUMNS]] + [[_cell(getattr(row, name)) for name, _ in _COLUMNS] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(_COLUMNS))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def _cell(value: object) -> str:
    return "-" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)
