"""The override of the primary flag that is in force, as this process knows it: in force whatever the flag store does.

Followed from the ledger several times a second; while that is away, what was seen last holds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import structlog

from flags.contract import RoutingFlags
from router.ledger.flips import Override

log = structlog.get_logger("router.local_override")


class LocalOverride:
    """One process's view. Thread-safe: what is in force is replaced as a whole."""

    def __init__(self, in_force: Callable[[], Sequence[Override]]) -> None:
        self._ask = in_force
        self._in_force: Sequence[Override] = ()

    def refresh(self) -> int:
        """Follow the ledger. Answers whether anything changed. Raises LedgerUnavailableError: all stays as it was."""
        found = self._ask()
        if found == self._in_force:
            return 0
        for each in found:
            if each not in self._in_force:
                log.info("override_begins", flip=each.flip, instead_of=each.from_value, primary=each.to_value)
        for each in self._in_force:
            if each.flip not in {other.flip for other in found}:
                log.info("override_ends", flip=each.flip, instead_of=each.from_value, primary=each.to_value)
        self._in_force = found
        return 1

    @property
    def in_force(self) -> Sequence[Override]:
        """Newest first."""
        return self._in_force

    def apply(self, flags: RoutingFlags) -> tuple[RoutingFlags, str | None]:
        """The flags for one payment with the override in them, and in words what it changed (None: nothing).

        Whom a rule or a target has placed stays there: a flip would not move them either.
        """
        if flags.primary_pinned:
            return flags, None
        for each in self._in_force:
            if each.from_value == flags.primary:
                why = f"primary in place of {each.from_value} ({each.flip})"
                return dataclasses.replace(flags, primary=each.to_value), why
        return flags, None
