"""One half-open round: how many probes are sent, at how many at once, and what they say together. Pure.

A round is one for the whole fleet: whoever wrote the transition to HALF_OPEN has its whole budget, and nobody else
has any. `now` is of the monotonic clock, in seconds. Not thread-safe: one loop owns a round.
"""

from __future__ import annotations

import enum
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

_ROUNDING = 1e-9
"""0.9 of ten is nine, whatever a float makes of it."""


class ProbeSettings(Protocol):
    """What a round reads of `BreakerSettings`."""

    @property
    def probes(self) -> int: ...
    @property
    def probes_at_once(self) -> int: ...
    @property
    def probe_success_rate(self) -> float: ...
    @property
    def probe_lease_s(self) -> float: ...
    @property
    def round_deadline_s(self) -> float: ...
    @property
    def slow_call_s(self) -> float: ...
    @property
    def slow_rate(self) -> float: ...


class Decision(enum.StrEnum):
    """What a round comes to."""

    CLOSE = "close"
    """The provider works again."""
    REOPEN = "reopen"


@dataclass(frozen=True, slots=True)
class Ticket:
    """Leave for one probe; its round tells a late result from a current one."""

    round: int
    """The version of the transition that began the round."""
    nth: int
    """From 1; ignored probes have a number too."""
    sent_at: float
    """Monotonic seconds."""


class ProbeRound:
    """Sends exactly `probes` in total, `probes_at_once` at most at a time, and decides as soon as it is certain."""

    def __init__(self, settings: ProbeSettings, now: float, *, version: int = 0, sent: int = 0) -> None:
        """`sent`: how many probes have been sent for this version already: their numbers are used."""
        self.version = version
        self.reason: str | None = None
        """Why it was decided so; None before."""
        self._settings = settings
        self._deadline = now + settings.round_deadline_s
        self._needed = math.ceil(settings.probes * settings.probe_success_rate - _ROUNDING)
        # As everywhere: a rate that equals the threshold trips. A threshold of nothing would trip without a call.
        self._slow_limit = max(1, math.ceil(settings.probes * settings.slow_rate - _ROUNDING))
        self._in_flight: dict[int, Ticket] = {}
        self._numbered = sent
        self._decided_at: float | None = None
        self._succeeded = 0
        self._failed = 0
        self._slow = 0
        self._ignored = 0
        self._lost = 0
        self._decision: Decision | None = None

    def may_send(self, now: float) -> Ticket | None:
        """Leave to send the next probe now, or None: decided, the budget is used, or enough are under way."""
        self._advance(now)
        if self._decision is not None or len(self._in_flight) >= self._settings.probes_at_once:
            return None
        if self._settled + len(self._in_flight) >= self._settings.probes:
            return None
        self._numbered += 1
        ticket = Ticket(self.version, self._numbered, now)
        self._in_flight[ticket.nth] = ticket
        return ticket

    def settle(
        self, ticket: Ticket, healthy: bool | None, slow: bool, now: float, *, reason: str | None = None
    ) -> bool:
        """Learn how a probe ended; `now` is when it did. None: it says nothing, and its place may be used again.

        False: it changed nothing, being of an earlier round, past its lease or settled before, or too late.
        """
        self._advance(now)
        # A ticket of an earlier round is not the one under way with its number.
        if self._in_flight.get(ticket.nth) != ticket or self._decision is not None:
            return False
        del self._in_flight[ticket.nth]
        if healthy is None:
            self._ignored += 1
            return True
        self._slow += slow
        if healthy:
            self._succeeded += 1
        else:
            self._fail(ticket, reason or "unhealthy")
        self._decide(now)
        return True

    def verdict(self, now: float) -> Decision | None:
        """What the round comes to, once that is certain; it does not change afterwards."""
        self._advance(now)
        return self._decision

    def is_older_than(self, seconds: float, now: float) -> bool:
        """Whether its verdict is."""
        return self._decided_at is not None and now - self._decided_at > seconds

    @property
    def sent(self) -> int:
        """How many probes have been sent for its version, and the number of the last."""
        return self._numbered

    def figures(self) -> Mapping[str, int]:
        """What the probes came to, for the record."""
        return {
            "probes": self._settings.probes,
            "sent": self._numbered,
            "succeeded": self._succeeded,
            "failed": self._failed,
            "slow": self._slow,
            "ignored": self._ignored,
            "never_returned": self._lost,
        }

    @property
    def _settled(self) -> int:
        return self._succeeded + self._failed

    def _advance(self, now: float) -> None:
        """Whatever time itself decides: leases, calls that hang past the slow threshold, the deadline."""
        if self._decision is not None:
            return
        # In the order in which they happened, however late this is asked.
        for ticket in list(self._in_flight.values()):
            ended_at = ticket.sent_at + self._settings.probe_lease_s
            if ended_at <= min(now, self._deadline):
                del self._in_flight[ticket.nth]
                self._lost += 1
                self._slow += self._settings.probe_lease_s >= self._settings.slow_call_s
                self._fail(ticket, f"did not return within {self._settings.probe_lease_s:g} s")
        self._decide(min(now, self._deadline))
        if self._decision is None and now >= self._deadline:
            self._decision, self._decided_at = Decision.REOPEN, self._deadline
            self.reason = f"the round was not finished within {self._settings.round_deadline_s:g} s"

    def _fail(self, ticket: Ticket, reason: str) -> None:
        self._failed += 1
        if self._failed > self._settings.probes - self._needed and self.reason is None:
            self.reason = f"probe {ticket.nth} failed: {reason}"

    def _decide(self, now: float) -> None:
        settings = self._settings
        # One that hangs counts as slow at that moment, not when it ends.
        overdue = sum(now - each.sent_at >= settings.slow_call_s for each in self._in_flight.values())
        slow = self._slow + overdue
        not_yet_known = settings.probes - self._settled - overdue
        if self._failed > settings.probes - self._needed:
            self._decision = Decision.REOPEN
        elif slow >= self._slow_limit:
            self._decision = Decision.REOPEN
            self.reason = f"{slow} of {settings.probes} probes were slow"
            self._slow = slow
        elif self._succeeded >= self._needed and slow + not_yet_known < self._slow_limit:
            self._decision = Decision.CLOSE
            self.reason = f"{self._succeeded} probes succeeded"
        self._decided_at = None if self._decision is None else now


def jitter_of(provider: str, version: int) -> float:
    """Where in its jitter a wait lies, in [0, 1): the same in every process, with nothing to agree on."""
    return zlib.crc32(f"{provider}:{version}".encode()) / 2**32
