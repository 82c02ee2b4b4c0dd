"""What a run remembers: counts, and what the router's log said that it must not say."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog


@dataclass(slots=True)
class Totals:
    """What happened, over all seeds of a run."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    crashes: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)

    def add(self, other: Totals) -> None:
        """Take in another process's totals."""
        for mine, theirs in zip(self.parts(), other.parts(), strict=True):
            mine.update(theirs)

    def parts(self) -> tuple[Counter[str], ...]:
        """Every counter."""
        return (self.counts, self.faults, self.crashes, self.statuses)


_CAUGHT = ("not_resolved", "parked_not_tried", "adapter_failed", "notice_failed", "not_tidied")


class Ears:
    """The router's log while a simulation runs: faults that a loop would only log are violations."""

    def __init__(self) -> None:
        self.violated: Callable[[str], None] | None = None
        """Told of each; None: nobody listens."""

    def exception(self, event: str, **named: Any) -> None:
        """A fault that was caught to keep a loop alive."""
        if self.violated is not None and event in _CAUGHT:
            self.violated(f"{event}: {named}: {sys.exc_info()[1]!r}")

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_args, **_named: None

    def bind(self, **_named: Any) -> Ears:
        """As structlog's loggers do."""
        return self

    new = unbind = try_unbind = bind


EARS = Ears()


def listen() -> None:
    """Let the router log to the simulation alone."""
    structlog.configure(wrapper_class=lambda *_args, **_named: EARS, cache_logger_on_first_use=False)  # type: ignore[arg-type]
