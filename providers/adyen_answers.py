"""What Adyen's JSON says, in the router's words: the one exhaustive place for its result codes.

Settled in facts/providers.md. Vendor's documentation:
https://docs.adyen.com/online-payments/build-your-integration/payment-result-codes and
https://docs.adyen.com/development-resources/refusal-reasons.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import structlog

from providers import declines, faults
from providers.contract import Health, ModificationKind, ModificationOutcome, Outcome, OutcomeKind
from providers.faults import safe_word

PSP_REFERENCE = re.compile(r"[A-Za-z0-9]{1,64}")

_FINAL = frozenset({OutcomeKind.APPROVED, OutcomeKind.DECLINED, OutcomeKind.CANCELED})

_log = structlog.get_logger(__name__)


def outcome(answer: Mapping[str, Any], *, automatic: bool) -> Outcome:
    """What a payment came to, by its resultCode. An unknown one is loud, and unknown.

    `automatic`: the payment was sent to be captured at once, so an approval is a capture.
    """
    result = answer.get("resultCode")
    psp = answer.get("pspReference")
    reference = psp if isinstance(psp, str) and PSP_REFERENCE.fullmatch(psp) else None
    match result:
        case "Authorised" if reference is not None:  # an approval that cannot be captured or voided is none
            return Outcome(OutcomeKind.APPROVED, Health.OK, provider_reference=reference, captured=automatic)
        case "Refused":
            code = answer.get("refusalReasonCode")
            return refused(
                None if code is None else str(code),
                answer.get("additionalData"),
                reference,
                payment_method=answer.get("paymentMethod"),
            )
        case "Cancelled":
            decline = declines.shopper_cancelled()
            return Outcome(
                OutcomeKind.DECLINED, Health.OK, decline.code, provider_reference=reference, decline=decline
            )
        case "Error":
            return _acquirer_fault(reference)
        case "RedirectShopper" | "IdentifyShopper" | "ChallengeShopper":
            return Outcome(
                OutcomeKind.REQUIRES_ACTION,
                Health.OK,
                provider_reference=reference,
                next_action=_next_action(answer.get("action")),
            )
        case "Pending" | "Received":
            return Outcome(OutcomeKind.UNKNOWN, Health.OK, "pending", provider_reference=reference)
        case "PartiallyAuthorised":
            # Part of the money is held: neither the approval that was asked for nor a refusal, and to try the rest
            # elsewhere would charge twice. Held as unknown, loudly, so that it is voided or judged by a person.
            _log.error("partially_authorised", provider="adyen", provider_reference=reference)
            return Outcome(OutcomeKind.UNKNOWN, Health.OK, "partially_authorised", provider_reference=reference)
        case None | "Authorised":
            return faults.SENSELESS_ANSWER.as_outcome()
        case _:
            _log.error("unrecognised_vendor_status", provider="adyen", status=safe_word(result))
            return Outcome(
                OutcomeKind.UNKNOWN, Health.PROVIDER_ERROR, "unrecognised_status", provider_reference=reference
            )


def refused(
    refusal: str | None, additional_data: object, reference: str | None, *, payment_method: object = None
) -> Outcome:
    """What a refusal with this refusalReasonCode is: a decline, or an acquirer that could not ask the issuer."""
    if refusal in declines.ADYEN_ACQUIRER_FAULTS:
        return _acquirer_fault(reference)
    more = additional_data if isinstance(additional_data, Mapping) else {}
    decline = declines.of_adyen(refusal, more, payment_method=payment_method)
    if not decline.known:
        _log.error("unrecognised_decline_code", provider="adyen", code=decline.code)
    return Outcome(OutcomeKind.DECLINED, Health.OK, decline.code, provider_reference=reference, decline=decline)


def _acquirer_fault(reference: str | None) -> Outcome:
    """The acquirer answered that there is no authorization.

    `Error` and `Refused` are final states by the vendor's schema of `resultCode` (Checkout v72), and so is an
    AUTHORISATION without success: a payment's record, which carries its pspReference. It ends the doubt that an
    earlier send left, because a key's first result is what every send under it is answered with.
    """
    return replace(
        faults.ACQUIRER_FAULT.as_outcome(), provider_reference=reference, final_record=reference is not None
    )


def _next_action(action: object) -> Mapping[str, Any]:
    if isinstance(action, Mapping) and action.get("type") == "redirect" and action.get("method", "GET") == "GET":
        return {"type": "redirect", "url": action["url"]}
    return {"type": "sdk", "provider": "adyen", "action": action}


def names_another(answer: Mapping[str, Any], attempt_id: str, outcome: Outcome) -> bool:
    """Whether an answer is of another attempt than this one. Loud: somebody brought back another payment's details.

    One that asks for a further action may name none.
    """
    named = answer.get("merchantReference")
    final = outcome.kind in _FINAL or outcome.final_record
    if named == attempt_id or (named is None and not final):
        return False
    _log.error("another_attempts_details", provider="adyen", attempt=attempt_id)
    return True


def modified(answer: Mapping[str, Any]) -> ModificationOutcome:
    """What a capture, void or refund came to: `received` is all that Adyen says at once."""
    status = answer.get("status")
    if status == "received":
        psp = answer.get("pspReference")
        reference = psp if isinstance(psp, str) else None
        return ModificationOutcome(ModificationKind.RECEIVED, Health.OK, provider_reference=reference)
    if status is not None:
        _log.error("unrecognised_vendor_status", provider="adyen", status=safe_word(status))
    return faults.SENSELESS_ANSWER.as_modification()
