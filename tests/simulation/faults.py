"""What can go wrong with one send, and how often: drawn by the seed for every call."""

from __future__ import annotations

import enum
import random
from collections import Counter
from collections.abc import Sequence

from providers import faults
from providers.contract import Health
from providers.faults import Fault


class Mode(enum.StrEnum):
    """What happens to one call."""

    OK = "ok"
    SLOW = "slow"
    DOWN = "down"
    LIMITED = "rate_limited"
    CREDENTIALS = "credentials_refused"
    REJECTED = "rejected"
    ERROR = "error_untouched"
    ERROR_ACTED = "error_acted"
    ERROR_STORED = "error_acted_and_stored"
    ERROR_STORED_IDLE = "error_untouched_and_stored"
    LOST = "reply_lost"
    DROPPED = "request_dropped"
    HANG = "hang_acts_late"
    HANG_FOREVER = "hang_never_acts"
    GARBAGE = "garbage_acted"
    GARBAGE_IDLE = "garbage_untouched"


BEFORE: dict[Mode, Fault] = {
    Mode.DOWN: Fault(True, Health.UNREACHABLE, "connection_refused"),
    Mode.LIMITED: faults.RATE_LIMITED,
    Mode.CREDENTIALS: faults.CREDENTIALS_REFUSED,
    Mode.REJECTED: faults.of_status(400),
    Mode.ERROR: faults.of_status(503),
    Mode.ERROR_STORED_IDLE: faults.of_status(500),
    Mode.DROPPED: Fault(False, Health.PROVIDER_ERROR, "connection_reset"),
    Mode.GARBAGE_IDLE: faults.SENSELESS_ANSWER,
}
"""The provider does nothing, and this is what is seen."""
AFTER: dict[Mode, Fault] = {
    Mode.ERROR_ACTED: faults.of_status(503),
    Mode.ERROR_STORED: faults.of_status(500),
    Mode.LOST: Fault(False, Health.PROVIDER_ERROR, "connection_reset"),
    Mode.GARBAGE: faults.SENSELESS_ANSWER,
}
"""The provider acts, and this is what is seen."""
TIMED_OUT = Fault(False, Health.PROVIDER_ERROR, "read_timeout")
STORED = (Mode.ERROR_STORED, Mode.ERROR_STORED_IDLE)

_FAULTS = [each for each in Mode if each is not Mode.OK]
_OURS = (Mode.CREDENTIALS, Mode.REJECTED)
_FLAPPING = (Mode.LOST, Mode.HANG, Mode.ERROR_ACTED, Mode.DOWN, Mode.DOWN, Mode.LIMITED, Mode.CREDENTIALS)
"""What an outage looks like that begins in the middle of a payment: it was taken, and then nobody answers."""
_OUTAGES = [each for each in _FAULTS if each not in _OURS]


class Weather:
    """Which faults are in force at which provider."""

    def __init__(self, rng: random.Random, hits: Counter[str], *, rate: float) -> None:
        self._rng = rng
        self._hits = hits
        self.rate = rate
        """Share of calls that fail by themselves, outages apart."""
        self._outages: dict[str, tuple[Sequence[Mode], float, bool]] = {}
        self._losing: set[str] = set()
        self.over = False

    def break_down(self, provider: str) -> str:
        """Begin an outage: one mode, or any."""
        rng = self._rng
        single: list[Sequence[Mode]] = [[each] for each in (*_OUTAGES, Mode.DOWN, Mode.LOST, Mode.HANG)]
        modes = rng.choice([*single, _OUTAGES, _FLAPPING, _FLAPPING, _FLAPPING])
        share, authorizations_only = rng.choice([1.0, 1.0, 0.5]), rng.random() < 0.4
        self._outages[provider] = (modes, share, authorizations_only)
        scope = "authorizations" if authorizations_only else "all"
        return f"{provider} breaks: {'/'.join(modes)}, {share}, {scope}"

    def lose_authorizations(self, provider: str) -> None:
        """Begin an outage in which nobody hears what became of an authorization, and all else goes on."""
        self._outages[provider] = (
            [self._rng.choice((Mode.LOST, Mode.LOST, Mode.LOST, Mode.DROPPED, Mode.HANG_FOREVER))],
            1.0,
            True,
        )
        self._losing.add(provider)

    def is_losing(self, provider: str) -> bool:
        """Whether nobody hears what becomes of this provider's authorizations."""
        return provider in self._losing and not self.over

    def mend(self, provider: str) -> None:
        """End an outage."""
        self._outages.pop(provider, None)
        self._losing.discard(provider)

    def draw(self, provider: str, call: str) -> Mode:
        """What happens to this call."""
        if self.over:
            return Mode.OK
        rng = self._rng
        modes, share, authorizations_only = self._outages.get(provider, ((), 0.0, False))
        in_scope = call == "authorize" or not authorizations_only
        if share and in_scope and rng.random() < share:
            hit = rng.choice(modes)
        elif rng.random() < self.rate:
            hit = rng.choice(_FAULTS)
        else:
            return Mode.OK
        if provider != "stripe" and hit in STORED:  # Adyen keeps no error for a key
            hit = Mode.ERROR_ACTED if hit is Mode.ERROR_STORED else Mode.ERROR
        self._hits[hit.value] += 1
        return hit
