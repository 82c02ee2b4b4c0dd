"""A product team moves the primary, again and again: how soon each process follows, and that none misses it."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from flags.contract import PRIMARY_PROVIDER
from tests.e2e.flip_houses import PROCESSES, holds, rows, spread
from tests.e2e.house import House, eventually
from tests.e2e.lines import line_to_each
from tests.fakes.launchdarkly import FakeLaunchDarkly

IN_A_ROW = 3
"""So many payments in a row by the new primary."""
PAUSE_S = 0.005
WRITTEN_S = 3.0
"""A change is brought to the ledger within a quarter of a second by whoever hears of it."""
LOST_AFTER_S = 75.0
"""The SDK waits up to 30 s before it opens a dropped stream again, and as long again where that fails."""


UP = "on a stream that stays"
CUT = "on a stream that is cut just after"
DOWN = "while streams are away"


@dataclass
class Toggles:
    """From each toggle until each web process had answered a payment by it, the payment's own time included."""

    times: int
    seconds: dict[str, list[float]] = field(default_factory=lambda: {UP: [], CUT: [], DOWN: []})
    drops: int = 0
    """Each ended the streams of all processes, the workers' too."""
    lost: int = 0
    """By a web process."""
    audited: int = 0
    """Changes that the ledger's audit has."""

    @property
    def wrong(self) -> list[str]:
        """What is not as promised."""
        lost = [f"{self.lost} toggles lost"] if self.lost else []
        return lost + ([f"{self.audited} changes on record"] if self.audited != self.times else [])

    def lines(self) -> Iterator[str]:
        """The table."""
        yield f"{self.times} toggles, {self.drops} drops of all streams, {self.lost} lost, {self.audited} on record"
        for how, seconds in self.seconds.items():
            yield spread(how, seconds)


def toggle(house: House, ld: FakeLaunchDarkly, times: int, *, drops: int = 0) -> Toggles:
    """Move the primary so often; with the first `drops` of every second toggles the streams are dropped.

    By turns just before the toggle, so that no stream can tell it, and just after it.
    """
    eventually(lambda: ld.streams == PROCESSES, 30)
    eventually(lambda: _changes(house), 30)  # the first full set is on record
    found, known = Toggles(times=times), _changes(house)
    lines = list(line_to_each(house).values())
    with ThreadPoolExecutor(len(lines)) as pool:
        for number in range(times):
            wanted = {"adyen": "stripe", "stripe": "adyen"}[ld.serves(PRIMARY_PROVIDER)]
            dropping = number % 2 == 0 and found.drops < drops
            first = dropping and found.drops % 2 == 0
            found.drops += dropping
            if dropping:
                # All of them, or a drop would not be one for whoever has no stream yet.
                eventually(lambda: ld.streams == PROCESSES, LOST_AFTER_S)
            if first:
                ld.drop_streams()
            how, begun = UP if ld.streams == PROCESSES else DOWN, time.monotonic()
            ld.person_sets(PRIMARY_PROVIDER, wanted)
            if dropping and not first:
                how = CUT
                ld.drop_streams()
            took = list(pool.map(lambda line, want=wanted, at=begun: _follows(line, want, at), lines))
            found.lost += sum(each is None for each in took)
            found.seconds[how] += [each for each in took if each is not None]
            # A process that was away for this toggle and hears the next one first must not find it unwritten.
            holds(functools.partial(_has, house, known + number + 1), WRITTEN_S)
    eventually(lambda: ld.streams == PROCESSES, LOST_AFTER_S)
    found.audited = _changes(house) - known
    return found


def _follows(line: House, wanted: str, begun: float) -> float | None:
    """Seconds until this process's payments go by the new primary; None: it never heard of it."""
    row, since = 0, begun
    while time.monotonic() - begun < LOST_AFTER_S:
        if line.pay()[1]["decision"]["primary"] != wanted:
            row = 0
            time.sleep(PAUSE_S)
            continue
        row, since = row + 1, since if row else time.monotonic()
        if row == IN_A_ROW:
            return since - begun
    return None


def _has(house: House, changes: int) -> bool:
    return _changes(house) >= changes


def _changes(house: House) -> int:
    found: Sequence[object] = rows(house, "SELECT 1 FROM flag_changes WHERE key = ?", PRIMARY_PROVIDER)
    return len(found)
