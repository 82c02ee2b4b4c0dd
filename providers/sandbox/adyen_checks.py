"""What Adyen requires of a request before it does anything: fields, lengths, accounts."""

from __future__ import annotations

import json
import re
from typing import Any

from providers.sandbox.adyen_errors import AdyenError, invalid, missing
from providers.sandbox.adyen_refusals import SANDBOX_TOKEN
from providers.sandbox.words import words

Body = dict[str, Any]

MAX_REFERENCE = 80
PAYMENT_FIELDS = words(
    "accountInfo additionalAmount additionalData amount applicationInfo authenticationData bankAccount "
    "billingAddress browserInfo captureDelayHours channel checkoutAttemptId company countryCode dateOfBirth dccQuote "
    "deliverAt deliveryAddress deliveryDate deviceFingerprint enableOneClick enablePayOut enableRecurring "
    "enhancedSchemeData entityType fraudOffset fundOrigin fundRecipient industryUsage installments lineItems "
    "localizedShopperStatement mandate mcc merchantAccount merchantOrderReference merchantRiskIndicator metadata "
    "mpiData order orderReference origin paymentMethod paymentValidations platformChargebackLogic recurringExpiry "
    "recurringFrequency recurringProcessingModel redirectFromIssuerMethod redirectToIssuerMethod reference returnUrl "
    "riskData sessionValidity shopperConversionId shopperEmail shopperIP shopperInteraction shopperLocale "
    "shopperName shopperReference shopperStatement shopperTaxInfo socialSecurityNumber splits store "
    "storePaymentMethod subMerchants surcharge telephoneNumber threeDS2RequestData threeDSAuthenticationOnly "
    "trustedShopper"
)
DETAILS_FIELDS = frozenset(("authenticationData", "details", "paymentData", "threeDSAuthenticationOnly"))
CAPTURE_FIELDS = words(
    "amount applicationInfo enhancedSchemeData lineItems merchantAccount platformChargebackLogic reference splits "
    "subMerchants"
)
REFUND_FIELDS = words(
    "amount applicationInfo capturePspReference enhancedSchemeData lineItems merchantAccount merchantRefundReason "
    "reference splits store"
)
CANCEL_FIELDS = frozenset(("applicationInfo", "merchantAccount", "reference"))
TECHNICAL_CANCEL_FIELDS = CANCEL_FIELDS | {"paymentReference"}
METHODS_FIELDS = words(
    "additionalData allowedPaymentMethods amount blockedPaymentMethods browserInfo channel countryCode "
    "merchantAccount order shopperConversionId shopperEmail shopperIP shopperLocale shopperReference "
    "splitCardFundingSources store storeFiltrationMode telephoneNumber"
)
_STORED_ID = re.compile(r"8[0-9]{15}")
_CURRENCY = re.compile(r"[A-Z]{3}")


def parse(raw: bytes, known: frozenset[str]) -> Body:
    """The JSON body, with no field that the call does not know."""
    try:
        body = json.loads(raw)
    except ValueError:
        raise AdyenError(400, "702", "Unexpected input, expected: valid JSON") from None
    if not isinstance(body, dict):
        raise AdyenError(400, "702", "Unexpected input, expected: {")
    unknown = [name for name in body if name not in known]
    if unknown:
        raise AdyenError(400, "702", f"Structure contains the following unknown fields: [{', '.join(unknown)}]")
    return body


def merchant_account(body: Body) -> str:
    """The account, or 422 where missing and 403 where it is not ours."""
    value = text(body, "merchantAccount")
    if value is None:
        raise missing("merchantAccount")
    if value.lower().startswith(("unknown", "forbidden")):
        raise AdyenError(403, "901", "Invalid Merchant Account", "security")
    return value


def text(body: Body, name: str, *, longest: int | None = None) -> str | None:
    """A string field; None where absent or empty."""
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise AdyenError(400, "702", f"Unexpected input for '{name}', expected: string")
    if value and longest is not None and len(value) > longest:
        raise invalid(name, f"at most {longest} characters")
    return value or None


def amount(body: Body) -> tuple[int, str]:
    """The amount in Adyen's minor units and its currency."""
    given = body.get("amount")
    if not isinstance(given, dict) or "value" not in given:
        raise missing("amount", "100")
    value, currency = given["value"], given.get("currency")
    if isinstance(value, bool) or not isinstance(value, int):
        raise AdyenError(400, "702", "Unexpected input for 'amount.value', expected: integer")
    if value < 0:
        raise AdyenError(422, "137", "Invalid amount specified")
    if not isinstance(currency, str) or not _CURRENCY.fullmatch(currency):
        raise AdyenError(422, "138", "Unsupported currency specified")
    return value, currency


def payment(body: Body) -> None:
    """Everything that `/payments` requires."""
    merchant_account(body)
    amount(body)
    if text(body, "reference", longest=MAX_REFERENCE) is None:
        raise missing("reference", "130")
    text(body, "merchantOrderReference", longest=1000)
    extra = body.get("additionalData") or {}
    if not isinstance(extra, dict) or not all(isinstance(value, str) for value in extra.values()):
        raise AdyenError(400, "702", "Unexpected input for 'additionalData', expected: strings")
    metadata = body.get("metadata") or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise AdyenError(400, "702", "Unexpected input for 'metadata', expected: strings")
    _payment_method(body)
    if text(body, "returnUrl") is None:
        raise AdyenError(422, "14_030", "Return URL is missing.")


def _payment_method(body: Body) -> None:
    method = body.get("paymentMethod")
    if not isinstance(method, dict) or not method:
        raise missing("paymentMethod", "14_002")
    if "number" in method:
        # Raw card data needs a certified account: refused as the vendor refuses it, and never echoed.
        raise AdyenError(403, "010", "Not allowed", "security")
    stored = text(method, "storedPaymentMethodId")
    if stored is None:
        if method.get("type", "scheme") in ("scheme", "card") and not method.get("encryptedCardNumber"):
            raise missing("paymentMethod.encryptedCardNumber", "14_004")
        return
    shopper = text(body, "shopperReference", longest=256)
    if shopper is None or len(shopper) < 3:
        raise invalid("shopperReference", "3 to 256 characters are required with stored details", "702")
    if not (_STORED_ID.fullmatch(stored) or (stored.startswith(SANDBOX_TOKEN) and stored != SANDBOX_TOKEN)):
        raise AdyenError(422, "803", "PaymentDetail not found")
