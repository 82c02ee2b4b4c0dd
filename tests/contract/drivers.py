"""What the contract suite must know of each provider to drive it in the sandbox. A new provider adds one entry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from providers.adyen import AdyenProvider
from providers.contract import DeclineClass, ModificationKind, Provider
from providers.sandbox.server import SANDBOX_ADYEN_HMAC_KEY, SANDBOX_STRIPE_WEBHOOK_SECRET, Sandbox
from providers.stripe import StripeProvider

Token = str | Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Driver:
    """One provider, its test tokens, and what is its own."""

    name: str
    connect: Callable[[Sandbox, str, int], Provider]
    """An adapter of the sandbox's stand-in, with that API key and pool size."""
    url: Callable[[str, str], Provider]
    """An adapter of any base URL, with that API key."""
    good_key: str
    revoked_key: str
    approved: Token
    requires_action: Token
    acquirer_fault: Token
    """Answered that the acquirer could not: no authorization, and nobody's decline."""
    declined: Mapping[str, tuple[Token, DeclineClass, bool]]
    """Word: the token that is declined with it, its class, and whether another provider may be tried."""
    modified: ModificationKind
    """How a capture, void or refund that works is answered."""
    refuses_by_state: bool
    """Whether a modification that the payment's state forbids is refused at once (else only by webhook)."""
    amounts: Mapping[tuple[int, str], int]
    """ISO amount and currency: what the books show, in the vendor's own minor units."""


def _stripe(url: str, key: str, pool_size: int = 8) -> Provider:
    return StripeProvider(
        api_key=key, base_url=url, webhook_secrets=(SANDBOX_STRIPE_WEBHOOK_SECRET,), pool_size=pool_size
    )


def _adyen(url: str, key: str, pool_size: int = 8) -> Provider:
    return AdyenProvider(
        api_key=key,
        merchant_account="ShopECOM",
        base_url=url,
        default_return_url="https://shop.example/return",
        management_url=f"{url}/v3",
        hmac_keys=(SANDBOX_ADYEN_HMAC_KEY,),
        pool_size=pool_size,
    )


def _stored(holder_name: str) -> Token:
    return {
        "stored_payment_method_id": "8415718415172204",
        "shopper_reference": "shopper_1",
        "holder_name": holder_name,
    }


STRIPE = Driver(
    name="stripe",
    connect=lambda sandbox, key, pool_size: _stripe(sandbox.stripe_url, key, pool_size),
    url=_stripe,
    good_key="sk_test_contract",
    revoked_key="sk_live_revoked",
    approved="pm_card_visa",
    requires_action="pm_card_threeDSecure2Required",
    acquirer_fault="pm_sandbox_api_error",
    declined={
        "generic_decline": ("pm_card_visa_chargeDeclined", DeclineClass.SOFT, True),
        "processing_error": ("pm_card_chargeDeclinedProcessingError", DeclineClass.SOFT, True),
        "insufficient_funds": ("pm_card_visa_chargeDeclinedInsufficientFunds", DeclineClass.SOFT, False),
        "card_velocity_exceeded": ("pm_card_visa_chargeDeclinedVelocityLimitExceeded", DeclineClass.SOFT, False),
        "lost_card": ("pm_card_visa_chargeDeclinedLostCard", DeclineClass.HARD, False),
        "stolen_card": ("pm_card_visa_chargeDeclinedStolenCard", DeclineClass.HARD, False),
        "expired_card": ("pm_card_chargeDeclinedExpiredCard", DeclineClass.HARD, False),
        "incorrect_cvc": ("pm_card_chargeDeclinedIncorrectCvc", DeclineClass.INVALID, False),
    },
    modified=ModificationKind.DONE,
    refuses_by_state=True,
    amounts={
        (500, "JPY"): 500,
        (1230, "KWD"): 1230,
        (500, "ISK"): 50000,
        (500, "CLP"): 500,
        (500, "UGX"): 50000,
        (500, "MGA"): 5,
        (50000, "IDR"): 50000,
    },
)

ADYEN = Driver(
    name="adyen",
    connect=lambda sandbox, key, pool_size: _adyen(sandbox.adyen_url, key, pool_size),
    url=_adyen,
    good_key="AQE-contract",
    revoked_key="revoked-key",
    approved="8415718415172204",
    requires_action=_stored("REDIRECT_SHOPPER"),
    acquirer_fault=_stored("ERROR"),
    declined={
        "generic_decline": (_stored("DECLINED"), DeclineClass.SOFT, True),
        "call_issuer": (_stored("REFERRAL"), DeclineClass.SOFT, True),
        "issuer_not_available": (_stored("ISSUER_UNAVAILABLE"), DeclineClass.SOFT, True),
        "insufficient_funds": (_stored("NOT_ENOUGH_BALANCE"), DeclineClass.SOFT, False),
        "restricted_card": (_stored("BLOCK_CARD"), DeclineClass.HARD, False),
        "expired_card": (_stored("CARD_EXPIRED"), DeclineClass.HARD, False),
        "fraudulent": (_stored("ACQUIRER_FRAUD"), DeclineClass.FRAUD, False),
        "authentication_required": (_stored("NOT_3D_AUTHENTICATED"), DeclineClass.AUTHENTICATION, False),
    },
    modified=ModificationKind.RECEIVED,
    refuses_by_state=False,
    amounts={
        (500, "JPY"): 500,
        (1234, "KWD"): 1234,
        (500, "ISK"): 50000,
        (500, "CLP"): 50000,
        (500, "UGX"): 500,
        (500, "MGA"): 500,
        (50000, "IDR"): 500,
    },
)

DRIVERS = (STRIPE, ADYEN)
