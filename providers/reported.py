"""A decline whose code a client tells, of a provider that it called by itself: what the adapters would make of it.

The code is the vendor's own (Stripe's `decline_code` or `code`, Adyen's `refusalReasonCode`) or a word of ours
(`providers.declines`), which stands for the same at every provider. An unknown one is a soft decline that no other
provider is tried after, as everywhere.
"""

from __future__ import annotations

from providers import declines
from providers.contract import Decline, DeclineClass
from providers.faults import safe_word


def is_code(text: str) -> bool:
    """Whether this can be a code at all: one short word, never a long number."""
    return safe_word(text) == text


def decline(provider: str, code: str | None) -> Decline | None:
    """The decline; None: that code is an acquirer's fault, and no issuer has answered."""
    if provider == "adyen" and code is not None and code not in declines.BY_WORD:
        if code in declines.ADYEN_ACQUIRER_FAULTS:
            return None
        return declines.of_adyen(code, {})
    if code in declines.STRIPE_ACQUIRER_FAULTS:
        return None
    return declines.of_stripe({"decline_code": code or "generic_decline"})


def ends_it(found: Decline) -> bool:
    """Whether no provider can approve this card for this payment any more.

    Not a soft decline, after which a checkout may try another, nor a missing authentication, which it may ask for.
    """
    return found.decline_class in (DeclineClass.HARD, DeclineClass.FRAUD, DeclineClass.INVALID)
