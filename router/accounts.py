"""What follows for payments from what a provider says of our account there.

An account that may take no payment gets none; one that is about to lose that right stands behind all others, as the
last resort: while it still can, it is better than no provider. The circuit cannot know either before payments fail.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from providers.contract import AccountStanding, AccountState
from router.clock import Clock

OLD_AFTER = dt.timedelta(minutes=30)
"""What was learned so long ago withholds no payment any more: nobody asks, and the account may be well again."""


@dataclass(frozen=True, slots=True)
class Known:
    """A provider's account as it was when it was last learned."""

    standing: AccountStanding
    since: dt.datetime
    """Of this state."""
    learned_at: dt.datetime


class Restriction(NamedTuple):
    """Why a provider is not asked, or is asked last."""

    why: str
    withheld: bool
    """True: not asked at all; False: only where no other can take the payment."""


def restriction(known: Known | None, now: dt.datetime, margin: dt.timedelta) -> Restriction | None:
    """What is held against a provider now; None: nothing. `margin`: so long before its deadline it comes last."""
    if known is None:
        return None
    state, until = known.standing.state, known.standing.until
    because = f" ({', '.join(known.standing.reasons)})" if known.standing.reasons else ""
    if state is AccountState.UNABLE:
        return Restriction(f"account takes no payments{because}", withheld=now - known.learned_at < OLD_AFTER)
    if state is AccountState.AT_RISK and until is not None and until - now <= margin:
        when = until.strftime("%Y-%m-%d %H:%M UTC")
        return Restriction(f"account may take no payments from {when}{because}: last resort", withheld=False)
    return None


class Accounts:
    """The accounts as this process knows them. Thread-safe: what is known is replaced as a whole."""

    def __init__(self, read: Callable[[], Mapping[str, Known]], *, margin: dt.timedelta, clock: Clock) -> None:
        self._read = read
        self._margin = margin
        self._clock = clock
        self._known: Mapping[str, Known] = {}

    def refresh(self) -> None:
        """Read the ledger. Raises LedgerUnavailableError: then what was known stands."""
        self._known = self._read()

    def known(self, provider: str) -> Known | None:
        """What is known of a provider's account; None: nothing."""
        return self._known.get(provider)

    def restriction(self, provider: str) -> Restriction | None:
        """What is held against a provider now."""
        known = self._known.get(provider)
        return None if known is None else restriction(known, self._clock.now(), self._margin)
