"""Why a payment was declined, in the router's own words: the vendors' codes as data.

Sources: https://docs.stripe.com/declines/codes, https://docs.stripe.com/declines/network-codes and
https://docs.adyen.com/development-resources/refusal-reasons; the classes are facts/providers.md's. The words are
Stripe's, as the most widely known; Adyen's numbers are translated into them.

Advice beats the code: an issuer that adds "do not try again" means it, whatever its first word was. Its number is
read by the card's network: 03 is Mastercard's "do not try again", and something else at every other network.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from providers.contract import Decline, DeclineClass
from providers.faults import safe_word

_SOFT = (DeclineClass.SOFT, True)
_LIMIT = (DeclineClass.SOFT, False)  # the customer's own limit: another provider rarely helps
_HARD = (DeclineClass.HARD, False)
_FRAUD = (DeclineClass.FRAUD, False)
_AUTHENTICATION = (DeclineClass.AUTHENTICATION, False)
_INVALID = (DeclineClass.INVALID, False)

BY_WORD: Mapping[str, tuple[DeclineClass, bool]] = MappingProxyType(
    {
        "generic_decline": _SOFT,
        "do_not_honor": _SOFT,
        "call_issuer": _SOFT,
        "try_again_later": _SOFT,
        "reenter_transaction": _SOFT,
        "no_action_taken": _SOFT,
        "issuer_not_available": _SOFT,
        "processing_error": _SOFT,
        "insufficient_funds": _LIMIT,
        "card_velocity_exceeded": _LIMIT,
        "withdrawal_count_limit_exceeded": _LIMIT,
        "withdrawal_amount_limit_exceeded": _LIMIT,
        "expired_card": _HARD,
        "lost_card": _HARD,
        "stolen_card": _HARD,
        "pickup_card": _HARD,
        "restricted_card": _HARD,
        "invalid_account": _HARD,
        "revocation_of_authorization": _HARD,
        "revocation_of_all_authorizations": _HARD,
        "stop_payment_order": _HARD,
        "card_not_supported": _HARD,
        "transaction_not_allowed": _HARD,
        "excessive_retries": _HARD,
        "fraudulent": _FRAUD,
        "merchant_blacklist": _FRAUD,
        "security_violation": _FRAUD,
        "authentication_required": _AUTHENTICATION,
        "payment_intent_authentication_failure": _AUTHENTICATION,
        "shopper_cancelled": _AUTHENTICATION,
        "invalid_amount": _INVALID,
        "pin_try_exceeded": _INVALID,
        "confirm_card_data": _INVALID,
        "incorrect_number": _INVALID,
        "incorrect_cvc": _INVALID,
        "incorrect_zip": _INVALID,
        "incorrect_postal_code": _INVALID,
        "invalid_zip": _INVALID,
        "incorrect_address": _INVALID,
        "incorrect_pin": _INVALID,
        "invalid_number": _INVALID,
        "invalid_cvc": _INVALID,
        "invalid_expiry_month": _INVALID,
        "invalid_expiry_year": _INVALID,
        "invalid_pin": _INVALID,
    }
)
"""Each word's class, and whether another provider may approve."""

STRIPE_ACQUIRER_FAULTS = frozenset({"api_error"})

ADYEN_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "2": "generic_decline",
        "3": "call_issuer",
        "5": "restricted_card",
        "6": "expired_card",
        "7": "invalid_amount",
        "8": "incorrect_number",
        "9": "issuer_not_available",
        "10": "card_not_supported",
        "11": "authentication_required",
        "12": "insufficient_funds",
        "14": "fraudulent",
        "15": "shopper_cancelled",
        "16": "shopper_cancelled",
        "17": "incorrect_pin",
        "18": "pin_try_exceeded",
        "19": "invalid_pin",
        "20": "fraudulent",
        "22": "fraudulent",
        "23": "transaction_not_allowed",
        "24": "incorrect_cvc",
        "25": "restricted_card",
        "26": "revocation_of_authorization",
        "27": "do_not_honor",
        "28": "withdrawal_amount_limit_exceeded",
        "29": "withdrawal_count_limit_exceeded",
        "31": "fraudulent",
        "32": "incorrect_address",
        "38": "authentication_required",
        "39": "authentication_required",
        "42": "authentication_required",
        "46": "excessive_retries",
    }
)
"""Adyen's refusalReasonCode, in our words."""

ADYEN_REASONS: Mapping[str, str] = MappingProxyType(
    {
        "refused": "2",
        "referral": "3",
        "acquirer error": "4",
        "blocked card": "5",
        "expired card": "6",
        "invalid amount": "7",
        "invalid card number": "8",
        "issuer unavailable": "9",
        "not supported": "10",
        "3d not authenticated": "11",
        "not enough balance": "12",
        "acquirer fraud": "14",
        "cancelled": "15",
        "shopper cancelled": "16",
        "invalid pin": "17",
        "pin tries exceeded": "18",
        "pin validation not possible": "19",
        "fraud": "20",
        "not submitted": "21",
        "fraud-cancelled": "22",
        "transaction not permitted": "23",
        "cvc declined": "24",
        "restricted card": "25",
        "revocation of auth": "26",
        "declined non generic": "27",
        "withdrawal amount exceeded": "28",
        "withdrawal count exceeded": "29",
        "issuer suspected fraud": "31",
        "avs declined": "32",
        "authentication required": "38",
        "rreq not received from ds": "39",
        "3ds authentication error": "42",
        "transaction blocked by adyen to prevent excessive retry fees": "46",
    }
)
"""A webhook says in words (any case) what an answer says in refusalReasonCode."""

_ADYEN_BRANDS = ("paymentMethod", "cardPaymentMethod", "paymentMethodVariant")
"""Where `additionalData` names the card's brand."""

ADYEN_ACQUIRER_FAULTS = frozenset({"4", "21"})

_STOP_WORD = "do_not_try_again"
"""Stripe's own advice, whatever the card's network."""
_CORRECT_WORD = "confirm_card_data"
"""Likewise: the data is out of date, and the same data will fail elsewhere too."""
_STOP = frozenset({"03", "21"})
"""Mastercard's merchant advice codes that forbid any further try."""
_CORRECT = frozenset({"01"})
"""Mastercard: there is new account data."""
_WAIT = frozenset({"24", "25", "26", "27", "28", "29", "30"})
"""Mastercard: try again in 1 h, 24 h, 2, 4, 6, 8 or 10 days, and not at once at another provider."""

_MASTERCARD = re.compile(r"mc.*|mastercard.*|maestro.*|cirrus.*", re.ASCII)
"""Mastercard's brands in the vendors' words: Stripe's `mastercard`, Adyen's `mc`, `mccredit`, `maestro`, …"""

_MESSAGES = MappingProxyType(
    {
        DeclineClass.SOFT: "The card was declined for now.",
        DeclineClass.HARD: "The card was declined, and will be declined again.",
        DeclineClass.FRAUD: "The card was declined.",  # a fraudster is told nothing
        DeclineClass.AUTHENTICATION: "The customer must authenticate the payment.",
        DeclineClass.INVALID: "The card's details are not right.",
    }
)
_MESSAGES_BY_WORD = MappingProxyType(
    {
        "insufficient_funds": "The card has insufficient funds.",
        "expired_card": "The card has expired.",
        "incorrect_cvc": "The card's security code is not right.",
        "call_issuer": "The card was declined; its issuer can say why.",
        "issuer_not_available": "The card's issuer could not be reached.",
        "shopper_cancelled": "The customer cancelled the payment.",
    }
)


def of_stripe(error: Mapping[str, object]) -> Decline:
    """The decline in Stripe's error object (`error` of a 402, or a PaymentIntent's `last_payment_error`).

    Stripe gives `network_advice_code` as the network said it, whichever that is.
    """
    word = _text(error.get("decline_code")) or _text(error.get("code"))
    if word is None:
        word = "api_error" if error.get("type") == "api_error" else "unknown"
    found = BY_WORD.get(word)
    if found is None and word.startswith("revocation_"):
        found = _HARD
    return _decline(
        word,
        found,
        network_code=_text(error.get("network_decline_code")),
        advice=_text(error.get("advice_code")),
        network_advice=_text(error.get("network_advice_code")),
        mastercard=_is_mastercard(*_stripe_brands(error)),
    )


def of_adyen(
    refusal_code: str | None, additional_data: Mapping[str, object], *, payment_method: object = None
) -> Decline:
    """The decline of an Adyen `Refused` or `Cancelled`, with `additionalData` where the account has it enabled.

    `merchantAdviceCode` is Mastercard's by the vendor's schema, so it is taken to be where no brand is told.
    """
    brand = payment_method.get("brand") if isinstance(payment_method, Mapping) else payment_method
    brands = (brand, *(additional_data.get(name) for name in _ADYEN_BRANDS))
    word = ADYEN_WORDS.get(refusal_code or "", f"refusal_{refusal_code or 'unknown'}")
    return _decline(
        word,
        BY_WORD.get(word),
        network_code=_leading_code(additional_data.get("refusalReasonRaw")),
        advice=None,
        network_advice=_leading_code(additional_data.get("merchantAdviceCode")),
        mastercard=_is_mastercard(*brands) is not False,
    )


def shopper_cancelled() -> Decline:
    """The customer turned back: nobody refused anything, and no other provider is to be asked."""
    return of_adyen("16", {})


def _decline(
    word: str,
    found: tuple[DeclineClass, bool] | None,
    *,
    network_code: str | None,
    advice: str | None,
    network_advice: str | None,
    mastercard: bool | None,
) -> Decline:
    decline_class, cascade = found or _LIMIT
    if mastercard is False:
        network_advice = None  # a code of another network's own, of which the facts have no table
    # Of two advices the one that forbids any further try, by the word that no network can read otherwise; else the
    # network's own, which says more: the card's later payments are judged by it.
    kept = _STOP_WORD if advice == _STOP_WORD else network_advice or advice
    judged = network_advice if mastercard else None
    if advice == _STOP_WORD or judged in _STOP:
        cascade = False
        if decline_class is not DeclineClass.FRAUD:  # which is never tried again either, and says more
            decline_class = DeclineClass.HARD
    elif advice == _CORRECT_WORD or judged in _CORRECT:
        cascade = False
        if decline_class is DeclineClass.SOFT:
            decline_class = DeclineClass.INVALID
    elif network_advice in _STOP | _CORRECT | _WAIT:
        cascade = False  # of a card whose brand nobody told, too: it may be Mastercard's, and is called nothing worse
    return Decline(
        decline_class=decline_class,
        code=safe_word(word),
        message=_MESSAGES_BY_WORD.get(word) or _MESSAGES[decline_class],
        cascade=cascade,
        network_code=safe_word(network_code) if network_code else None,
        advice=safe_word(kept) if kept else None,
        known=found is not None,
    )


def _is_mastercard(*brands: object) -> bool | None:
    """By the first of them that says anything; None where none does."""
    told = (re.sub(r"[^a-z]", "", each.lower()) for each in brands if isinstance(each, str))
    brand = next((each for each in told if each not in ("", "unknown", "card", "scheme")), None)
    return None if brand is None else _MASTERCARD.fullmatch(brand) is not None


def _stripe_brands(error: Mapping[str, object]) -> Iterator[object]:
    """The network of the charge, where it is expanded; else the card's brand, in the error or its intent."""
    intent = _mapping(error.get("payment_intent"))
    for charge in (error.get("charge"), intent.get("latest_charge")):
        card = _mapping(_mapping(_mapping(charge).get("payment_method_details")).get("card"))
        yield from (card.get("network"), card.get("brand"))
    for method in (error.get("payment_method"), error.get("source"), intent.get("payment_method")):
        yield _mapping(_mapping(method).get("card")).get("brand") or _mapping(method).get("brand")


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _leading_code(value: object) -> str | None:
    """`05` of Adyen's `05 : Do not honor`; None where it does not begin with a code."""
    found = re.match(r"\s*([0-9A-Z]{1,3})(?=\s*(?:[:-]|$))", value) if isinstance(value, str) else None
    return found.group(1) if found else None
