"""Stripe's test payment methods, and what each decline looks like on the wire."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Decline:
    """How a decline is told: the error's `code`, `decline_code`, and what the network said."""

    decline_code: str
    code: str = "card_declined"
    message: str = "Your card was declined."
    advice_code: str | None = "try_again_later"
    network_decline_code: str | None = "05"
    network_advice_code: str | None = None


@dataclass(frozen=True, slots=True)
class Card:
    """A test payment method: approved, declined, or in want of 3-D Secure."""

    decline: Decline | None = None
    three_d_secure: Literal["no", "required"] = "no"
    brand: str = "visa"


_STOP, _CONFIRM, _LATER = "do_not_try_again", "confirm_card_data", "try_again_later"

DECLINES = {
    decline.decline_code: decline
    for decline in (
        Decline("generic_decline"),
        Decline("do_not_honor", network_decline_code="05"),
        Decline("call_issuer", network_decline_code="01"),
        Decline("issuer_not_available", network_decline_code="91"),
        Decline("insufficient_funds", message="Your card has insufficient funds.", network_decline_code="51"),
        Decline(
            "card_velocity_exceeded",
            message="Your card was declined: too many attempts, or more than its amount limit.",
            network_decline_code="65",
        ),
        Decline("withdrawal_count_limit_exceeded", network_decline_code="65"),
        Decline("lost_card", advice_code=_STOP, network_decline_code="41"),
        Decline("stolen_card", advice_code=_STOP, network_decline_code="43"),
        Decline("pickup_card", advice_code=_STOP, network_decline_code="04"),
        Decline("restricted_card", advice_code=_STOP, network_decline_code="62"),
        Decline("fraudulent", advice_code=_STOP, network_decline_code="59"),
        Decline("transaction_not_allowed", advice_code=_STOP, network_decline_code="57"),
        Decline("invalid_account", advice_code=_CONFIRM, network_decline_code="14"),
        Decline("expired_card", "expired_card", "Your card has expired.", _CONFIRM, "54"),
        Decline("incorrect_cvc", "incorrect_cvc", "Your card's security code is incorrect.", _CONFIRM, "N7"),
        Decline("incorrect_number", "incorrect_number", "Your card number is incorrect.", _CONFIRM, "14"),
        Decline(
            "processing_error",
            "processing_error",
            "An error occurred while processing your card. Try again in a little bit.",
            _LATER,
            "96",
        ),
        Decline(
            "authentication_required",
            "authentication_required",
            "Your card was declined. This transaction requires authentication.",
            None,
            "1A",
        ),
    )
}

_DECLINED_TOKENS = {
    "pm_card_visa_chargeDeclined": "generic_decline",
    "pm_card_visa_chargeDeclinedInsufficientFunds": "insufficient_funds",
    "pm_card_visa_chargeDeclinedLostCard": "lost_card",
    "pm_card_visa_chargeDeclinedStolenCard": "stolen_card",
    "pm_card_visa_chargeDeclinedVelocityLimitExceeded": "card_velocity_exceeded",
    "pm_card_chargeDeclined": "generic_decline",
    "pm_card_chargeDeclinedInsufficientFunds": "insufficient_funds",
    "pm_card_chargeDeclinedExpiredCard": "expired_card",
    "pm_card_chargeDeclinedIncorrectCvc": "incorrect_cvc",
    "pm_card_chargeDeclinedProcessingError": "processing_error",
    "pm_card_chargeCustomerFail": "generic_decline",
    "pm_card_radarBlock": "fraudulent",
}
_THREE_D_TOKENS = ("pm_card_authenticationRequired", "pm_card_threeDSecure2Required", "pm_card_threeDSecureRequired")
_BRANDS = (
    "visa visa_debit mastercard mastercard_debit mastercard_prepaid amex discover diners jcb unionpay "
    "threeDSecureOptional"
)
_APPROVED = re.compile(rf"pm_card_(?:{_BRANDS.replace(' ', '|')}|[a-z]{{2}})|pm_sandbox_.+", re.ASCII)

CARDS = {token: Card(decline=DECLINES[code]) for token, code in _DECLINED_TOKENS.items()} | {
    token: Card(three_d_secure="required") for token in _THREE_D_TOKENS
}
# The sandbox's own: Stripe has no test token of an acquirer that cannot be reached, nor of a network's advice.
CARDS["pm_sandbox_api_error"] = Card(decline=Decline("api_error", advice_code=None, network_decline_code=None))
CARDS |= {
    f"pm_sandbox_{brand}_advice_{code}": Card(decline=Decline("do_not_honor", network_advice_code=code), brand=brand)
    for brand in ("visa", "mastercard")
    for code in ("01", "03", "24")
}
APPROVED = Card()


def card(token: str) -> Card | None:
    """The test payment method of that name; None where there is none."""
    known = CARDS.get(token)
    if known is not None:
        return known
    return APPROVED if _APPROVED.fullmatch(token) else None


def decline_for(code: str | None) -> Decline:
    """The decline of that decline_code (a plain one for None); a code we do not know is sent as it is."""
    return DECLINES.get(code or "generic_decline") or Decline(str(code), advice_code=None, network_decline_code=None)
