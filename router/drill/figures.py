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
IN_FLIGHT_S = 0.3
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
    """Payments that were sent to the provider while its circuit was open."""
    probes: int
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
    probes: int,
    not_final: int,
    late_s: float,
) -> Figures:
    """The figures of one provider's trouble. `transitions` oldest first; `sent`: when payments were sent to it."""
    moves = [each for each in transitions if each.at >= began]
    opens = [each for each in moves if each.state is State.OPEN]
    return Figures(
        script=script,
        payments=len(shopped),
        suspect_s=_after(began, (each.at for each in moves if each.suspect)),
        open_s=_after(began, (each.at for each in opens)),
        back_s=_after(mended, (each.at for each in moves if each.state is State.SLOW_START and each.at > mended)),
        closed_s=_closed_for_good(moves, mended),
        opened=len({each.incident for each in opens}) and sum(_from_calls(each) for each in opens),
        reopened=sum(each.at > mended and _from_calls(each) for each in opens),
        captured=sum(each.status == "captured" for each in shopped),
        processing=sum(each.status == "processing" for each in shopped),
        parked=sum(each.status == "parked" for each in shopped),
        failed=sum(each.status not in ("captured", "processing", "parked") for each in shopped),
        slowed=sum(each.took_s > SLOWED_S for each in shopped),
        called_open=sum(_while_open(each, moves) for each in sent),
        probes=probes,
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
    """Whether payments opened it; else a probe said that it is still broken."""
    return "calls" in opening.evidence


def _while_open(moment: dt.datetime, moves: Sequence[Transition]) -> bool:
    in_flight = dt.timedelta(seconds=IN_FLIGHT_S)
    state, since = State.CLOSED, None
    for each in moves:
        if each.at > moment:
            break
        # A round that failed is the same stretch of being kept away.
        if state is State.CLOSED or each.state not in (State.OPEN, State.HALF_OPEN):
            since = each.at
        state = each.state
    return state in (State.OPEN, State.HALF_OPEN) and since is not None and moment - since > in_flight


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
opened, re-op.  times that payments' calls opened the circuit; of those, after the recovery
202             unknown when answered: final later, at the same provider
calls           payments sent to the provider while its circuit was open
late            seconds by which the drill itself missed its pace, at worst"""


def table(rows: Sequence[Figures]) -> str:
    """The figures as people read them."""
    cells = [[title for _, title in _COLUMNS]] + [[_cell(getattr(row, name)) for name, _ in _COLUMNS] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(_COLUMNS))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def _cell(value: object) -> str:
    return "-" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)
