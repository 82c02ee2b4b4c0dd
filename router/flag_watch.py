"""What product teams change is written down: by whichever process hears of it first, once.

The SDK's thread only notes a change (`flags.watching`); this loop, in every web process and worker, brings the notes
to the ledger. While the ledger is away the notes wait.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from flags.changes import Definition, Name
from router.clock import Clock
from router.ledger.flag_values import FlagValueLedger
from router.ledger.unavailable import LedgerUnavailableError

log = structlog.get_logger("router.flag_watch")

AT_ONCE = 100
"""Changes in one transaction: some milliseconds under the lock."""
SETTLE_S = 30.0
"""How long a full set is held before it counts against higher versions: an edge of LaunchDarkly may be seconds late,
and then the patches that it lacked have come."""


class _Change(Protocol):
    @property
    def number(self) -> int: ...
    @property
    def definition(self) -> Definition: ...


class ChangeStore(Protocol):
    """Where changes wait: `flags.watching.WatchedStore`."""

    @property
    def told_whole_at(self) -> dt.datetime | None: ...
    def pending(self) -> Sequence[_Change]: ...
    def written(self, number: int) -> None: ...
    def dropped(self) -> int: ...
    def settled(self, name: Name) -> Definition | None: ...


@dataclass(frozen=True, slots=True)
class Round:
    """What one round did."""

    told: int
    written: int


class FlagWatch:
    """Brings one process's changes of flags to the ledger."""

    def __init__(
        self, store: ChangeStore, ledger: FlagValueLedger, *, source: str, seen_by: str, clock: Clock
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._source = source
        self._seen_by = seen_by
        self._clock = clock
        self._contested: set[Name] = set()

    def run_once(self) -> Round:
        """Write what waits. Raises LedgerUnavailableError: then it waits on."""
        if dropped := self._store.dropped():
            log.warning("flag_changes_dropped", changes=dropped, cause="the ledger was away for long")
        told = written = 0
        # As many as there are now: what a busy stream adds meanwhile is the next round's.
        waiting = self._store.pending()
        for begin in range(0, len(waiting), AT_ONCE):
            some = waiting[begin : begin + AT_ONCE]
            told += len(some)
            written += self._tell([each.definition for each in some])
            self._store.written(some[-1].number)
        held = self._held()
        return Round(told + len(held), written + (self._tell(held) if held else 0))

    def _held(self) -> Sequence[Definition]:
        """What is older here than what is known, although a full set told it some time ago."""
        whole_at = self._store.told_whole_at
        if not self._contested or whole_at is None:
            return ()
        if self._clock.now() - whole_at < dt.timedelta(seconds=SETTLE_S):
            return ()
        names, self._contested = sorted(self._contested), set()
        return [each for each in map(self._store.settled, names) if each is not None]

    def _tell(self, told: Sequence[Definition]) -> int:
        try:
            heard = self._ledger.saw(self._source, told, by=self._seen_by)
        except LedgerUnavailableError:
            self._contested |= {each.name for each in told if each.settled}
            raise
        except Exception:
            # What no database takes would else be told again for ever, and nothing after it.
            log.exception("flag_changes_lost", flags=sorted({each.key for each in told}))
            return 0
        for change in heard.written:
            log.info("flag_changed", key=change.key, kind=change.kind, old=change.old, new=change.new)
        self._contested -= {each.name for each in told}
        # What has settled and is contested still was told before what is known: it is late, for good.
        self._contested |= heard.contested - {each.name for each in told if each.settled}
        return len(heard.written)
