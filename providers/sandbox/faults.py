"""How a provider misbehaves: the mode in force, its validation, and which call it hits."""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

MAX_LATENCY_MS = 600_000  # ten minutes: longer than any client waits, short enough that a test run ends
SLOW_LATENCY_MS = 3_000  # what `slow` means where nothing is said


class Mode(enum.StrEnum):
    """What happens to a call that is hit (design §9)."""

    OK = "ok"
    DOWN = "down"
    ERRORS = "errors"
    RATE_LIMITED = "rate_limited"
    SLOW = "slow"
    HANG = "hang"
    LOSE_REPLY = "lose_reply"
    DROP_REQUEST = "drop_request"
    GARBAGE = "garbage"
    DECLINE = "decline"


class CallKind(enum.Enum):
    """What a request is to the faults."""

    AUTHORIZE = "authorize"
    """Asks for an authorization: counted as one, and hit under `calls: authorize`."""
    COMPLETE = "complete"
    """Finishes one that waited for the customer: hit as an authorization is, not counted again."""
    OTHER = "other"


class BadFault(Exception):  # noqa: N818 - says what the body is
    """A control body that cannot be taken; `field` names what is wrong with it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class Fault:
    """The mode in force at one provider; the defaults are a healthy provider."""

    mode: Mode = Mode.OK
    rate: float = 1.0
    """Share of the calls that are hit, 0 to 1."""
    latency_ms: int = 0
    """Time before a call is acted on and answered. Under `slow` for the calls that are hit, else for all in scope."""
    decline_code: str | None = None
    """For `decline`: the vendor's own code (Stripe's decline_code, Adyen's refusalReasonCode); None: a plain one."""
    acts: bool = False
    """For `errors` and `garbage`: whether the provider charges first."""
    stored: bool = False
    """For `errors`: whether the error is what the idempotency key gives from then on, as a Stripe 500 is."""
    calls: str = "all"
    """`all`, or `authorize`: look-ups, cancels, captures, refunds and probes go on undisturbed."""

    def as_json(self) -> dict[str, Any]:
        """As the control port takes and shows it."""
        return asdict(self)

    @classmethod
    def parse(cls, body: Any) -> Fault:
        """From a control body; BadFault names the first field that is wrong."""
        values = read_fields(body, _CHECKS)
        if "mode" not in body:
            raise BadFault("mode", "is required")
        if values["mode"] is Mode.SLOW:
            values.setdefault("latency_ms", SLOW_LATENCY_MS)
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What happens to one call."""

    fault: Fault
    hit: bool
    latency_s: float

    @property
    def mode(self) -> Mode:
        """The mode as far as this call goes."""
        return self.fault.mode if self.hit else Mode.OK


class Faults:
    """Draws the verdict of every call of one provider, from the mode in force and seeded randomness."""

    def __init__(self, seed: int | None) -> None:
        self._seed = seed
        self.reset()

    def reset(self) -> None:
        """All well, and the same randomness again."""
        self.fault = Fault()
        self._random = random.Random(self._seed)  # noqa: S311 - which calls fail is no secret

    def judge(self, kind: CallKind) -> Verdict:
        """Whether this call is hit; drawn once, when the call comes in."""
        fault = self.fault
        in_scope = fault.calls == "all" or kind is not CallKind.OTHER
        hit = in_scope and (fault.rate >= 1 or self._random.random() < fault.rate)
        delayed = hit if fault.mode is Mode.SLOW else in_scope
        return Verdict(fault, hit, fault.latency_ms / 1000 if delayed else 0.0)


Check = Callable[[str, Any], Any]


def read_fields(body: Any, checks: Mapping[str, Check]) -> dict[str, Any]:
    """The fields of a control body, each by its check; BadFault names the first that is wrong."""
    if not isinstance(body, Mapping):
        raise BadFault("body", "must be a JSON object")
    for name in body:
        if name not in checks:
            raise BadFault(str(name), f"unknown field; known are {', '.join(checks)}")
    return {name: checks[name](name, value) for name, value in body.items()}


def one_of(words: type[enum.StrEnum]) -> Check:
    """A check: one of an enumeration's words."""

    def check(name: str, value: Any) -> enum.StrEnum:
        try:
            return words(value)
        except ValueError:
            raise BadFault(name, f"unknown {name}; known are {', '.join(words)}") from None

    return check


def whole(low: int, high: int, of: str = "") -> Check:
    """A check: an integer within bounds."""

    def check(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise BadFault(name, f"must be an integer{of} from {low} to {high}")
        return value

    return check


def _rate(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise BadFault(name, "must be a number from 0 to 1")
    return float(value)


def _code(name: str, value: Any) -> str | None:
    if value is not None and not (isinstance(value, str) and 0 < len(value) <= 64 and value.isprintable()):
        raise BadFault(name, "must be null or a string of 1 to 64 printable characters")
    return value


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadFault(name, "must be true or false")
    return value


def _calls(name: str, value: Any) -> str:
    if value not in ("all", "authorize"):
        raise BadFault(name, "must be all or authorize")
    return str(value)


_CHECKS = {
    "mode": one_of(Mode),
    "rate": _rate,
    "latency_ms": whole(0, MAX_LATENCY_MS, " of milliseconds"),
    "decline_code": _code,
    "acts": _flag,
    "stored": _flag,
    "calls": _calls,
}
