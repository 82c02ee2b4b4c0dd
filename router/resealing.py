"""Seals the whole ledger under the first key, while the service runs: `pointsman keys rotate`.

In small commits, each a compare-and-set on the value itself. There is no state but the rows: killed at any moment it
is begun again, passes over what is done, and goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from router.clock import Clock
from router.ledger.sealed_rows import PLACES, SealedRows

BATCH = 200
"""Rows of one commit: milliseconds, for which a payment on SQLite waits."""
PAUSE_S = 0.01
"""Between two commits: payments that wait for the file have their turn."""
PASSES = 5
"""What others change at the same moment is looked at again; after so many passes a person asks why."""
SHOWN = 20


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it has come."""

    place: str
    rows: int
    """Looked at, in this place."""
    changed: int
    """Sealed anew, in all places."""
    missed: int
    unreadable: int
    examples: Sequence[str]
    """Of what could not be opened: where, and why."""
    is_done: bool = False
    """Of the last one: everything that can be is sealed under the first key."""


def reseal(
    ledger: SealedRows, clock: Clock, *, batch: int = BATCH, stopping: Callable[[], bool] = lambda: False
) -> Generator[Progress]:
    """Every place, until a pass has missed nothing. Raises LedgerUnavailableError."""
    changed = 0
    for _ in range(PASSES):
        missed, unreadable, examples = 0, 0, list[str]()
        for place in PLACES:
            after: Any = None
            rows = 0
            while not stopping():
                found = ledger.reseal(place, after, limit=batch)
                if found.last is None:
                    break
                after = found.last
                rows, changed, missed = rows + found.rows, changed + found.changed, missed + found.missed
                unreadable += len(found.unreadable)
                examples += [f"{place.name} {key}: {why}" for key, why in found.unreadable[: SHOWN - len(examples)]]
                yield Progress(place.name, rows, changed, missed, unreadable, examples)
                if found.changed:
                    clock.sleep(PAUSE_S)
        if stopping():
            return
        if not missed:
            yield Progress("all", 0, changed, 0, unreadable, examples, is_done=True)
            return


def keys_in_use(ledger: SealedRows, *, batch: int = 1000) -> Mapping[str, Mapping[str, int]]:
    """How many values of each place are sealed under which key, by the key's id. Raises LedgerUnavailableError."""
    found: dict[str, Counter[str]] = {}
    for place in PLACES:
        after: Any = None
        while True:
            after, counted = ledger.keys(place, after, limit=batch)
            for key_id, number in counted.items():
                found.setdefault(key_id, Counter())[place.name] += number
            if after is None:
                break
    return found
