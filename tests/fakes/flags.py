"""A flag source and a flag writer in memory."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

from flags.contract import PRIMARY_PROVIDER, FlagContext, FlagWriteError, RoutingFlags, SourceStatus


class FakeFlags:
    """Satisfies `FlagSource`: serves `flags`."""

    def __init__(self, flags: RoutingFlags | None = None) -> None:
        self.flags = flags or RoutingFlags()
        self.contexts: list[FlagContext] = []
        self.during: Callable[[], object] | None = None
        """Runs inside every read."""

    def read(self, context: FlagContext) -> RoutingFlags:
        self.contexts.append(context)
        if self.during is not None:
            self.during()
        return self.flags

    def status(self) -> SourceStatus:
        return SourceStatus("valid", dt.datetime(2026, 11, 21, tzinfo=dt.UTC))

    def close(self) -> None:
        """Nothing to stop."""


class FakeFlagWriter:
    """Satisfies `FlagWriter` over `values`; `writes` are those that changed something."""

    def __init__(self, primary: str = "stripe") -> None:
        self.values: dict[str, Any] = {PRIMARY_PROVIDER: primary}
        self.writes: list[tuple[str, Any, str]] = []
        self.tries = 0
        self.fault: str | None = None
        """Why the store cannot be read or written, when it cannot."""
        self.before_set: Callable[[], object] | None = None

    def current(self, key: str) -> Any:
        if self.fault is not None:
            raise FlagWriteError(self.fault)
        return self.values[key]

    def set(self, key: str, value: Any, *, expected: Any | None, comment: str) -> bool:
        self.tries += 1
        if self.before_set is not None:
            self.before_set()
        if self.fault is not None:
            raise FlagWriteError(self.fault)
        if expected is not None and self.values[key] != expected:
            return False
        self.values[key] = value
        self.writes.append((key, value, comment))
        return True
