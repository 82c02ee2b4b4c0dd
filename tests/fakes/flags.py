"""A flag source, and a flag store, in memory."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from flags.contract import (
    Approval,
    ApprovalNeededError,
    FlagChangedError,
    FlagContext,
    FlagState,
    FlagUnavailableError,
    RoutingFlags,
    Serves,
    SourceStatus,
)
from router.clock import ManualClock
from router.flip_rules import as_told


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


@dataclass(frozen=True)
class Told:
    """One line of the audit."""

    old: Mapping[str, Any] | None
    new: Mapping[str, Any] | None
    at: dt.datetime


class FakeStore:
    """A flag store: satisfies `FlagMover`, and what its stream tells is `source`, at once while it is not `stalled`.

    `people` change it with `set`. Faults: `faults` are raised by the next calls, one each; `fault` by every call.
    """

    def __init__(self, clock: ManualClock, primary: str = "stripe") -> None:
        self.clock = clock
        self.serves = Serves(primary)
        self.is_on = True
        self.off: Any = "stripe"
        self.pins: dict[str, tuple[str, ...]] = {}
        self.version = 1
        self.source = _Stream(self)
        self.audit: list[Told] = []
        self.moves: list[tuple[Serves, str]] = []
        self.moved_pins: list[tuple[str, str] | None] = []
        self.looks = 0
        self.calls = 0
        self.faults: list[BaseException] = []
        self.fault: BaseException | None = None
        self.needs_approval = False
        self.asked: dict[str, Serves] = {}
        self.asked_pins: dict[str, tuple[str, str] | None] = {}
        self.descriptions: dict[str, str] = {}
        self.answered: dict[str, Approval] = {}
        self._requests = itertools.count(1)
        self.withdrawn: list[str] = []
        self.before_move: Callable[[], object] | None = None
        self.lost_answers = 0
        """So many writes are done, and their answers lost."""
        self._lock = threading.Lock()

    @property
    def primary(self) -> Any:
        return self.serves.value if self.is_on else self.off

    def set(self, to: Serves | str) -> None:
        """A person's hand, or ours."""
        old = self._described()
        self.serves = to if isinstance(to, Serves) else Serves(to)
        self.version += 1
        self.audit.append(Told(old, self._described(), self.clock.now()))

    def approve(self, request: str) -> None:
        """A person approves it: the store changes the flag."""
        pins = self.asked_pins.pop(request)
        if pins is not None:
            self.pins[pins[1]] = self.pins.get(pins[1], ()) + self.pins.pop(pins[0], ())
        self.answered[request] = "approved"
        self.set(self.asked.pop(request))

    def decline(self, request: str) -> None:
        """A person declines it."""
        del self.asked[request]
        self.answered[request] = "declined"

    def changes(self, _key: str, since: dt.datetime) -> list[Told]:
        return [each for each in reversed(self.audit) if each.at >= since]

    def look(self, key: str) -> FlagState:
        self.looks += 1
        self._check()
        return self._state()

    def move(
        self, key: str, to: Serves, *, seen: FlagState, comment: str, pins: tuple[str, str] | None = None
    ) -> FlagState:
        if self.before_move is not None:
            self.before_move()
        self._check()
        with self._lock:
            if seen.mark != self._state().mark:
                raise FlagChangedError("the flag was changed")
            if self.needs_approval:
                raise ApprovalNeededError("approval is needed")
            self.set(to)
            self.moves.append((to, comment))
            self.moved_pins.append(pins)
            if self.lost_answers:
                self.lost_answers -= 1
                raise FlagUnavailableError("no answer")
            return self._state()

    def ask_approval(self, key: str, to: Serves, *, comment: str, pins: tuple[str, str] | None = None) -> str:
        self._check()
        request = f"request-{next(self._requests)}"
        self.asked[request] = to
        self.asked_pins[request] = pins
        self.descriptions[request] = comment
        if self.lost_answers:
            self.lost_answers -= 1
            raise FlagUnavailableError("no answer")
        return request

    def approval(self, key: str, request: str) -> Approval:
        self._check()
        return "pending" if request in self.asked else self.answered.get(request, "gone")

    def pending_approvals(self, key: str, *, comment: str) -> list[str]:
        self._check()
        return [each for each in self.asked if self.descriptions[each] == comment]

    def withdraw(self, key: str, request: str) -> None:
        self._check()
        self.asked.pop(request, None)
        self.withdrawn.append(request)

    def close(self) -> None:
        """Nothing is held."""

    def _check(self) -> None:
        self.calls += 1
        fault = self.faults.pop(0) if self.faults else self.fault
        if fault is not None:
            raise fault

    def _state(self) -> FlagState:
        return FlagState(str(self.version), self.is_on, self.serves, self.off, dict(self.pins))

    def _described(self) -> dict[str, Any]:
        return {"on": self.is_on, "serves": as_told(self.serves), "rules": 0, "targets": 0}


class _Stream(FakeFlags):
    """What the store's stream tells; while it is `stalled`, what it told last."""

    def __init__(self, store: FakeStore) -> None:
        super().__init__()
        self._store = store
        self._last: Any = store.primary
        self.stalled = False
        self.state: Literal["initializing", "valid", "interrupted", "off"] = "valid"

    def read(self, context: FlagContext) -> RoutingFlags:
        if not self.stalled:
            weights = self._store.serves.weights
            self._last = max(weights, key=lambda name: weights[name]) if weights else self._store.primary
        return dataclasses.replace(super().read(context), primary=self._last)

    def status(self) -> SourceStatus:
        return SourceStatus(self.state, dt.datetime(2026, 11, 21, tzinfo=dt.UTC))
