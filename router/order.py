"""What checkout asks for: the body of `POST /v1/payments`, checked.

The same model is kept with the payment, so that a worker can go on where a request stopped.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from typing import Annotated, Any, Literal

from iso4217 import Currency
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StringConstraints,
)

from router.sealing import INSIDE

MAXIMUM_AMOUNT = 999_999_999_999
"""Twelve digits of minor units: the largest that any vendor's interface takes."""

# Whatever ends up in logs, files and headers must be printable and free of line breaks.
_PRINTABLE = re.compile(r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]*\Z")


def _printable(value: str) -> str:
    if not _PRINTABLE.match(value):
        msg = "must not contain control characters"
        raise ValueError(msg)
    return value


def _no_word_of_the_ledgers(value: str) -> str:
    # Tokens of that name would look like what the ledger has sealed.
    if value == INSIDE:
        msg = "is no provider's name"
        raise ValueError(msg)
    return value


def _known_currency(value: str) -> str:
    try:
        known = Currency(value)
    except ValueError:
        known = None
    # Funds, metals and test codes (XAU, XTS, XXX) have no minor unit: nobody pays with them.
    if known is None or known.exponent is None:
        msg = "must be a currency of ISO 4217, in capital letters"
        raise ValueError(msg)
    return value


def _in_the_calendar(value: dt.datetime) -> dt.datetime:
    try:
        value.astimezone(dt.UTC)
    except OverflowError:
        msg = "must be a time of the years 1 to 9999 in UTC"
        raise ValueError(msg) from None
    return value


Moment = Annotated[AwareDatetime, AfterValidator(_in_the_calendar)]
Text40 = Annotated[str, StringConstraints(min_length=1, max_length=40), AfterValidator(_printable)]
Text80 = Annotated[str, StringConstraints(min_length=1, max_length=80), AfterValidator(_printable)]
Text255 = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(_printable)]
Text500 = Annotated[str, StringConstraints(max_length=500), AfterValidator(_printable)]
Url = Annotated[
    str, StringConstraints(min_length=8, max_length=1000, pattern=r"^https?://[^\s]+$"), AfterValidator(_printable)
]
CountryCode = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
CurrencyCode = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$"), AfterValidator(_known_currency)]
ProviderName = Annotated[
    str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$"), AfterValidator(_no_word_of_the_ledgers)
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


EXAMPLE: dict[str, Any] = {
    "reference": "ORD-12345",
    "amount": 1999,
    "currency": "EUR",
    "capture": "automatic",
    "payment_method": {
        "type": "card",
        "tokens": {"stripe": "pm_card_visa", "adyen": "8415718415172204"},
        "card": {"brand": "visa", "country": "DE", "funding": "credit"},
    },
    "customer": {"id": "cus_1", "country": "DE"},
    "return_url": "https://shop.example/return",
    "metadata": {"cart": "77"},
    "allow_repeat_reference": True,
}
"""A body that the sandbox pays, for whoever tries the calls from /docs."""


class Card(_Strict):
    """What is known of the card; used to choose a provider, never to charge."""

    brand: Text40 | None = None
    country: CountryCode | None = None
    funding: Literal["credit", "debit", "prepaid", "unknown"] | None = None
    fingerprint: Text255 | None = None
    """An opaque word that is the same for the same card at every provider."""


Token = Text255 | Annotated[dict[Text40, Text255], Field(min_length=1, max_length=4)]


class PaymentMethod(_Strict):
    """The customer's payment method, as each provider has it on file."""

    type: Literal["card"]
    tokens: dict[ProviderName, Token] = Field(min_length=1, max_length=8)
    """Provider name to that provider's token; an object where the vendor needs more than one value."""
    card: Card | None = None


class Customer(_Strict):
    """Who pays."""

    id: Text255 | None = None
    country: CountryCode | None = None
    email: (
        Annotated[str, StringConstraints(max_length=254, pattern=r"^[^\s@]+@[^\s@]+$"), AfterValidator(_printable)]
        | None
    ) = None
    ip: Annotated[str, StringConstraints(max_length=45, pattern=r"^[0-9a-fA-F.:]+$")] | None = None


class Browser(_Strict):
    """What 3-D Secure wants to know of the customer's browser."""

    user_agent: Text500 | None = None
    accept_header: Text500 | None = None
    language: Text40 | None = None
    color_depth: Annotated[StrictInt, Field(ge=1, le=64)] | None = None
    screen_height: Annotated[StrictInt, Field(ge=0, le=100_000)] | None = None
    screen_width: Annotated[StrictInt, Field(ge=0, le=100_000)] | None = None
    time_zone_offset: Annotated[StrictInt, Field(ge=-1440, le=1440)] | None = None
    """Minutes between UTC and the customer's time, as JavaScript's getTimezoneOffset has it."""
    java_enabled: StrictBool | None = None


class Order(_Strict):
    """One payment that checkout asks for. Amounts are integer minor units by ISO 4217."""

    model_config = ConfigDict(json_schema_extra={"example": EXAMPLE})

    reference: Text80
    """Checkout's own name for the order."""
    amount: Annotated[StrictInt, Field(ge=1, le=MAXIMUM_AMOUNT)]
    currency: CurrencyCode
    capture: Literal["automatic", "manual"] = "automatic"
    payment_method: PaymentMethod
    customer: Customer = Customer()
    browser: Browser | None = None
    return_url: Url | None = None
    initiator: Literal["customer", "merchant"] = "customer"
    """Who starts it: the customer at checkout, or the merchant with a stored credential."""
    when_unavailable: Literal["park", "fail"] | None = None
    """With every provider unavailable: accept and pay later, or refuse at once; None: checkout did not say."""
    expires_at: Moment | None = None
    """Until when a parked payment is tried; 24 hours after its creation by default."""
    allow_repeat_reference: StrictBool = False
    metadata: Annotated[dict[Text40, Text500], Field(max_length=20)] = Field(default_factory=dict)
    """Checkout's own notes; kept, and not sent to a provider."""

    def fingerprint(self) -> str:
        """A digest of everything asked for: two requests under one key must agree on it."""
        # Defaults are left out: a later version with one more field must know today's requests again.
        body = self.model_dump(mode="json", exclude_defaults=True)
        # The default of earlier versions, which knew no other: said and not said are one request, as they were.
        if self.when_unavailable == "park":
            del body["when_unavailable"]
        if self.expires_at is not None:
            body["expires_at"] = self.expires_at.astimezone(dt.UTC).isoformat()
        return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
