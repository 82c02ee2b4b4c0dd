"""What Stripe's account object says of taking payments. Pure.

https://docs.stripe.com/api/accounts/object: `charges_enabled` says whether it may now; `requirements` what is asked
for and until when (`current_deadline`), `future_requirements` the same of rules that come into force later.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from providers.contract import AccountStanding, AccountState
from providers.faults import safe_word

WORDS = 10
"""An account that was just opened can lack dozens of things; ten say as much."""


def standing(account: object) -> AccountStanding | None:
    """None: that is no account."""
    if not isinstance(account, Mapping) or account.get("object") != "account":
        return None
    now, later = _part(account, "requirements"), _part(account, "future_requirements")
    disabled = now.get("disabled_reason")
    cards = _part(account, "capabilities").get("card_payments")
    if account.get("charges_enabled") is False or cards == "inactive":
        why = disabled or ("card_payments_inactive" if account.get("charges_enabled") else "charges_disabled")
        return AccountStanding(AccountState.UNABLE, (safe_word(why), *_words(now, "past_due"))[:WORDS])
    deadlines = [each for each in (_moment(now), _moment(later)) if each is not None]
    asked = [*([safe_word(disabled)] if disabled else []), *_words(now, "past_due")]
    if deadlines:
        asked += [*_words(now, "currently_due"), *_words(later, "currently_due")]
    if not asked and not deadlines:
        return AccountStanding(AccountState.ABLE)
    return AccountStanding(AccountState.AT_RISK, tuple(dict.fromkeys(asked))[:WORDS], min(deadlines, default=None))


def _part(account: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = account.get(name)
    return part if isinstance(part, Mapping) else {}


def _words(part: Mapping[str, Any], name: str) -> list[str]:
    asked = part.get(name)
    return [safe_word(each) for each in asked] if isinstance(asked, list) else []


def _moment(part: Mapping[str, Any]) -> dt.datetime | None:
    seconds = part.get("current_deadline")
    if isinstance(seconds, bool) or not isinstance(seconds, int) or not 0 < seconds < 2**33:
        return None
    return dt.datetime.fromtimestamp(seconds, dt.UTC)
