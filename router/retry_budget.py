"""How often a card may be tried: the networks' limits on retries, counted across providers. Pure.

Networks fine a merchant that keeps trying a declined card, whichever provider it tries it at. So the limits are the
router's to keep, per card: Visa's 15 tries in 30 days of one amount, Mastercard's 10 in 24 hours and 35 in 30 days,
and what an issuer said of the card (facts/providers.md). Only tries that reached the network count. An approval is
not among them: no network limits how often a customer may *pay*, and a card used for coffee every day must not be
refused at the sixteenth cup. A card without a fingerprint cannot be counted, and has no budget.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from providers.brands import letters

Network = Literal["visa", "mastercard"]

COUNTED = ("declined", "requires_action", "unknown")
"""Outcomes that use the budget up: a network was asked, or may have been, and did not approve."""
_DAY = dt.timedelta(days=1)
_HOUR = dt.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Limit:
    """At most so many tries of a card within that time."""

    tries: int
    within: dt.timedelta
    of_one_amount: bool
    text: str


# Visa's newest rules say 20; 15 keeps within the older ones too.
LIMITS: Mapping[Network | None, Sequence[Limit]] = {
    "visa": (Limit(15, 30 * _DAY, True, "Visa allows 15 tries of a card and amount in 30 days"),),
    "mastercard": (
        Limit(10, _DAY, False, "Mastercard allows 10 tries of a card in 24 hours"),
        Limit(35, 30 * _DAY, False, "Mastercard allows 35 tries of a card in 30 days"),
    ),
    None: (),
}

NEVER_CODES = frozenset(
    {
        "lost_card",
        "stolen_card",
        "pickup_card",
        "invalid_account",
        "stop_payment_order",
        "revocation_of_authorization",
        "revocation_of_all_authorizations",
    }
)
"""Codes after which a card is never tried again. (An expired card is: it may have been renewed.)"""
VISA_NEVER = frozenset({"04", "07", "12", "15", "41", "43", "46", "57", "R0", "R1", "R3"})
"""Visa's category 1: "the issuer will never approve"."""
STOP_ADVICE = "do_not_try_again"
MASTERCARD_STOP = frozenset({"03", "21"})
MASTERCARD_WAIT: Mapping[str, dt.timedelta] = {
    "24": _HOUR,
    "25": _DAY,
    "26": 2 * _DAY,
    "27": 4 * _DAY,
    "28": 6 * _DAY,
    "29": 8 * _DAY,
    "30": 10 * _DAY,
}
NOT_MASTERCARD = ("visa", "amex", "americanexpress", "discover", "diners", "jcb", "unionpay")
"""Brands whose cards Mastercard's numbers are not read of. A decline keeps a number only where the provider named
Mastercard or no brand at all (`providers.declines`); older ones kept any."""
MASTERCARD_LATER = "02"
LATER = _HOUR
"""What "later" means where nobody waits: the shortest wait that the network names. A customer at checkout who tries
again after filling the account is a new occasion, and is not held up."""


@dataclass(frozen=True, slots=True)
class Try:
    """One try of a card that an issuer was asked about, or may have been."""

    at: dt.datetime
    outcome: str
    amount: int
    currency: str
    decline: Mapping[str, Any] | None = None
    """As it is kept with the attempt: `code`, `network_code`, `advice`."""


@dataclass(frozen=True, slots=True)
class Occasion:
    """What a card is to be tried for now."""

    brand: str | None
    amount: int
    currency: str
    by_merchant: bool = False
    """Started by the merchant with a stored credential: nobody is there who could have put things right."""


def card_digest(merchant: str, fingerprint: str) -> str:
    """What a merchant's card is counted by; the fingerprint itself is kept nowhere but with the payment."""
    return hashlib.sha256(json.dumps([merchant, fingerprint]).encode()).hexdigest()


def network(brand: str | None) -> Network | None:
    """The network that a brand belongs to, where it is one with limits of ours."""
    word = letters(brand or "")
    if word.startswith("visa"):
        return "visa"
    return "mastercard" if word in ("mc", "maestro") or word.startswith("mastercard") else None


def obstacle(occasion: Occasion, tries: Iterable[Try], now: dt.datetime) -> str | None:
    """Why the card must not be tried now; None where it may."""
    known = [each for each in tries if each.outcome in COUNTED]
    brand = network(occasion.brand)
    for each in known:
        said = _said(each, brand, occasion, now)
        if said is not None:
            return f"network retry budget: {said}"
    for limit in LIMITS[brand]:
        counted = [
            each
            for each in known
            if now - each.at < limit.within
            and (not limit.of_one_amount or (each.amount, each.currency) == (occasion.amount, occasion.currency))
        ]
        if len(counted) >= limit.tries:
            return f"network retry budget: {limit.text}"
    return None


def _said(each: Try, brand: Network | None, occasion: Occasion, now: dt.datetime) -> str | None:
    """What a decline forbids now, by the issuer's or the network's own word."""
    decline = each.decline
    if each.outcome != "declined" or decline is None:
        return None
    code, network_code, advice = decline.get("code"), decline.get("network_code"), decline.get("advice")
    if code in NEVER_CODES or advice == STOP_ADVICE or (brand == "visa" and network_code in VISA_NEVER):
        return "the issuer will never approve this card"
    if letters(occasion.brand or "").startswith(NOT_MASTERCARD):
        return None  # another network's digits are no Mastercard advice
    if advice in MASTERCARD_STOP:
        return "the issuer asks not to try this card again"
    wait = MASTERCARD_WAIT.get(advice or "")
    if wait is None and advice == MASTERCARD_LATER and occasion.by_merchant:
        wait = LATER
    if wait is not None and now - each.at < wait:
        return f"the issuer asks to try this card again after {_text(wait)}"
    return None


def _text(wait: dt.timedelta) -> str:
    hours = round(wait.total_seconds() / 3600)
    if hours % 24 == 0 and hours > 24:
        return f"{hours // 24} days"
    return "1 hour" if hours == 1 else f"{hours} hours"
