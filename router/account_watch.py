"""A worker loop: asks each provider how our account stands, and tells a person before payments fail of it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import get_args

import structlog

from providers.contract import AccountStanding, AccountState, Provider, Timeouts
from router.accounts import Known
from router.clock import Clock, Ids
from router.ledger.accounts import AccountLedger
from router.ledger.alerts import Alert, AlertKind

log = structlog.get_logger("router.accounts")

SOONER = 5
"""So many times as often is asked about an account that is not well: its end is waited for. And after no answer."""
_KINDS: Mapping[AccountState, AlertKind] = {
    AccountState.ABLE: "account_able",
    AccountState.AT_RISK: "account_at_risk",
    AccountState.UNABLE: "account_unable",
}
assert set(_KINDS.values()) <= set(get_args(AlertKind))


class AccountWatch:
    """Asks when it is time; of all workers one does."""

    def __init__(
        self,
        providers: Mapping[str, Provider],
        ledger: AccountLedger,
        *,
        every_s: float,
        timeouts: Timeouts,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._providers = providers
        self._ledger = ledger
        self._every = dt.timedelta(seconds=every_s)
        self._timeouts = timeouts
        self._clock = clock
        self._ids = ids

    def run_once(self) -> int:
        """Ask those whose time has come. Answers of how many something was learned. Raises LedgerUnavailableError."""
        known = self._ledger.known()
        return sum(self._ask(name, known.get(name)) for name in self._providers)

    def _ask(self, name: str, known: Known | None) -> bool:
        now = self._clock.now()
        if not self._ledger.take(name, now=now, again_at=now + self._every / SOONER):
            return False
        standing = self._providers[name].account(timeouts=self._timeouts)
        if standing is None:
            # Not asked, not answered, or not for this key: what was known stands, and grows old.
            return False
        changed = known is None or known.standing.state is not standing.state
        since = self._clock.now() if known is None or changed else known.since
        # The first look at an account that is well is no news.
        news = changed and not (known is None and standing.state is AccountState.ABLE)
        alert = self._alert(name, standing, since) if news else None
        wait = self._every if standing.state is AccountState.ABLE else self._every / SOONER
        learned = Known(standing, since, self._clock.now())
        self._ledger.learned(name, learned, again_at=now + wait, alert=alert)
        if alert is not None:
            log.warning("account", provider=name, state=standing.state.value, reasons=list(standing.reasons))
        return True

    def _alert(self, name: str, standing: AccountStanding, since: dt.datetime) -> Alert:
        because = f": {', '.join(standing.reasons)}" if standing.reasons else ""
        until = "" if standing.until is None else f" by {standing.until.strftime('%Y-%m-%d %H:%M UTC')}"
        text = {
            AccountState.ABLE: f"the account at {name} may take payments again",
            AccountState.AT_RISK: f"{name} asks for something of our account{until}, or payments may end{because}",
            AccountState.UNABLE: f"the account at {name} may take no payments{because}",
        }[standing.state]
        return Alert(
            id=self._ids.new("alert"),
            kind=_KINDS[standing.state],
            incident=f"account:{name}:{since.isoformat()}",
            text=text,
            at=since,
            detail={
                "provider": name,
                "reasons": list(standing.reasons),
                "until": None if standing.until is None else standing.until.isoformat(),
            },
        )
