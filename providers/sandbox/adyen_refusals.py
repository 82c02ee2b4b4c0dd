"""Adyen's refusal reasons, and the test triggers that ask for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

REASONS = {
    "2": "Refused",
    "3": "Referral",
    "4": "Acquirer Error",
    "5": "Blocked Card",
    "6": "Expired Card",
    "7": "Invalid Amount",
    "8": "Invalid Card Number",
    "9": "Issuer Unavailable",
    "10": "Not supported",
    "11": "3D Not Authenticated",
    "12": "Not enough balance",
    "14": "Acquirer Fraud",
    "15": "Cancelled",
    "16": "Shopper Cancelled",
    "17": "Invalid Pin",
    "18": "Pin tries exceeded",
    "19": "Pin validation not possible",
    "20": "FRAUD",
    "21": "Not Submitted",
    "22": "FRAUD-CANCELLED",
    "23": "Transaction Not Permitted",
    "24": "CVC Declined",
    "25": "Restricted Card",
    "26": "Revocation Of Auth",
    "27": "Declined Non Generic",
    "28": "Withdrawal amount exceeded",
    "29": "Withdrawal count exceeded",
    "31": "Issuer Suspected Fraud",
    "32": "AVS Declined",
    "38": "Authentication required",
    "39": "RReq not received from DS",
    "42": "3DS Authentication Error",
    "46": "Transaction blocked by Adyen to prevent excessive retry fees",
}
_RAW = {
    "2": "05 : Do not honor",
    "3": "01 : Refer to card issuer",
    "6": "54 : Expired card",
    "9": "91 : Issuer or switch inoperative",
    "12": "51 : Insufficient funds",
    "14": "59 : Suspected fraud",
    "25": "62 : Restricted card",
}
_TRIGGERS = {
    "APPROVED": "1",
    "DECLINED": "2",
    "REFERRAL": "3",
    "ERROR": "4",
    "BLOCK_CARD": "5",
    "CARD_EXPIRED": "6",
    "ISSUER_UNAVAILABLE": "9",
    "NOT_3D_AUTHENTICATED": "11",
    "NOT_ENOUGH_BALANCE": "12",
    "PENDING": "13",
    "ACQUIRER_FRAUD": "14",
}
REDIRECT = "REDIRECT_SHOPPER"
"""The sandbox's own trigger (holder name, or `adyen_sandbox_REDIRECT_SHOPPER`) for a 3-D Secure redirect."""
SANDBOX_TOKEN = "adyen_sandbox_"  # noqa: S105 - a prefix of test tokens, no secret


@dataclass(frozen=True, slots=True)
class Result:
    """What the issuer says: a resultCode, and where it is a refusal its code (a string, as sent) and reason."""

    result_code: str = "Authorised"
    refusal_code: str | None = None
    reason: str | None = None
    raw: str | None = None


AUTHORISED = Result()
CANCELLED = Result("Cancelled", "15", REASONS["15"])
NOT_AUTHENTICATED = Result("Refused", "11", REASONS["11"])


def result_of(code: str) -> Result:
    """The result that a test code, a trigger's name or a refusalReasonCode stands for (unknown: a refusal)."""
    code = _TRIGGERS.get(code, code)
    match code:
        case "1":
            return AUTHORISED
        case "13":
            return Result("Pending")
        case "4":
            result_code = "Error"
        case "15" | "16":
            result_code = "Cancelled"
        case _:
            result_code = "Refused"
    return Result(result_code, code, REASONS.get(code, "Refused"), _RAW.get(code))


def triggered(payment: Mapping[str, Any]) -> Result | None:
    """What a `/payments` body asks for by its test triggers; None where the customer must authenticate first."""
    method = payment["paymentMethod"]
    extra = payment.get("additionalData") or {}
    token = str(method.get("storedPaymentMethodId") or "")
    asked = [token.removeprefix(SANDBOX_TOKEN) if token.startswith(SANDBOX_TOKEN) else None, method.get("holderName")]
    wants_3ds = (payment.get("authenticationData") or {}).get("attemptAuthentication") == "always"
    if REDIRECT in asked or wants_3ds or extra.get("executeThreeD") == "true":
        return None
    code = extra.get("RequestedTestAcquirerResponseCode")
    if code is not None:
        return result_of(str(code))
    for name in asked:
        if name in _TRIGGERS:
            return result_of(name)
    return AUTHORISED
