"""Adyen's payments and modifications: what each does to the books, and tells. Modifications are at once done."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlencode

from providers.sandbox.adyen_checks import Body, amount, merchant_account, text
from providers.sandbox.adyen_errors import AdyenError, invalid, missing
from providers.sandbox.adyen_refusals import AUTHORISED, CANCELLED, NOT_AUTHENTICATED, Result, triggered
from providers.sandbox.books import Books, Charge, EventKind, Status
from providers.sandbox.ids import psp_reference

_TOLD_AS: dict[str, EventKind] = {"captures": "capture", "refunds": "refund", "cancels": "cancellation"}


@dataclass(slots=True)
class Modification:
    """A capture or refund that was done, and may be undone later."""

    id: str
    """Its own pspReference."""
    kind: Literal["capture", "refund"]
    reference: str | None
    """As its call gave it."""
    amount: int


@dataclass(frozen=True, slots=True)
class TechnicalCancel:
    """A cancel by the payment's reference."""

    id: str
    merchant_account: str
    payment_reference: str
    reference: str | None


@dataclass(slots=True)
class Payment:
    """One payment that got a pspReference."""

    psp: str
    body: Body
    """As it was sent."""
    idempotency_key: str | None
    charge: Charge | None = None
    """Its row in the books; None while it waits for the customer or for good news."""
    answer: Body = field(default_factory=dict)
    """The last answer it was given."""
    modifications: list[Modification] = field(default_factory=list)
    """Captures and refunds that stand, oldest first."""
    dispute_id: str | None = None

    @property
    def reference(self) -> str:
        """The merchant's reference: our attempt."""
        return str(self.body["reference"])

    @property
    def merchant_account(self) -> str:
        """Whose it is."""
        return str(self.body["merchantAccount"])

    def last(self, kind: Literal["capture", "refund"]) -> Modification | None:
        """The newest capture or refund that stands."""
        return next((one for one in reversed(self.modifications) if one.kind == kind), None)


class Payments:
    """Every payment of the stand-in Adyen."""

    def __init__(self, books: Books, base_url: str) -> None:
        self._books = books
        self._base_url = base_url
        self._by_psp: dict[str, Payment] = {}
        self._cancels_ahead: dict[str, TechnicalCancel] = {}

    def get(self, psp: str) -> Payment | None:
        """The payment with that pspReference."""
        return self._by_psp.get(psp)

    def all(self) -> Collection[Payment]:
        """Every payment, oldest first."""
        return self._by_psp.values()

    def clear(self) -> None:
        """Forget every payment and technical cancel."""
        self._by_psp.clear()
        self._cancels_ahead.clear()

    # -- payments

    def pay(self, body: Body, *, idempotency_key: str | None, forced: Result | None) -> Body:
        """`/payments`, with a body that was checked; `forced` overrides what its triggers ask for."""
        payment = Payment(psp_reference(), body, idempotency_key)
        self._by_psp[payment.psp] = payment
        result = forced or triggered(body)
        if result is None:
            payment.answer = self._redirect(payment)
        else:
            self._conclude(payment, result)
        return payment.answer

    def complete(self, body: Body, *, forced: Result | None) -> Body:
        """`/payments/details`: the customer comes back from 3-D Secure with a redirectResult."""
        details = body.get("details")
        if not isinstance(details, dict):
            raise missing("details")
        psp, _, word = (text(details, "redirectResult") or "").partition("!")
        payment = self._by_psp.get(psp)
        if payment is None or word not in ("success", "fail"):
            raise invalid("details.redirectResult", "not one that we gave out")
        if payment.answer["resultCode"] == "RedirectShopper":
            passed = forced or AUTHORISED
            self._conclude(payment, passed if word == "success" else NOT_AUTHENTICATED)
        return payment.answer

    def back_from_issuer(self, psp: str, *, passed: bool) -> str | None:
        """Where the issuer's page sends the customer; None for an unknown payment."""
        payment = self._by_psp.get(psp)
        if payment is None:
            return None
        return_url = str(payment.body["returnUrl"])
        word = "success" if passed else "fail"
        return f"{return_url}{'&' if '?' in return_url else '?'}{urlencode({'redirectResult': f'{psp}!{word}'})}"

    # -- modifications

    def modify(self, kind: Literal["captures", "cancels", "refunds", "reversals"], psp: str, body: Body) -> Body:
        """A modification by pspReference: always received; whether it was possible is told by `on_event`."""
        account = merchant_account(body)
        reference = text(body, "reference")
        money = amount(body) if kind in ("captures", "refunds") else None
        payment = self._by_psp.get(psp)
        if payment is None:
            raise AdyenError(422, "167", "Original pspReference required for this operation")
        answer: Body = {"merchantAccount": account, "paymentPspReference": psp, "pspReference": psp_reference()}
        if reference is not None:
            answer["reference"] = reference
        answer["status"] = "received"
        if money is not None:
            answer["amount"] = {"value": money[0], "currency": money[1]}
        self._apply(kind, payment, money, reference, str(answer["pspReference"]))
        return answer

    def technical_cancel(self, body: Body) -> Body:
        """`/cancels`: release every authorization of that reference; one that is still on its way dies on arrival."""
        account = merchant_account(body)
        payment_reference = text(body, "paymentReference")
        if payment_reference is None:
            raise missing("paymentReference")
        reference = text(body, "reference")
        answer: Body = {
            "merchantAccount": account,
            "paymentReference": payment_reference,
            "pspReference": psp_reference(),
            "status": "received",
        }
        if reference is not None:
            answer["reference"] = reference
        cancel = TechnicalCancel(str(answer["pspReference"]), account, payment_reference, reference)
        found = self._books.find(attempt=payment_reference)
        if not found:
            self._cancels_ahead[payment_reference] = cancel
            self._tell_technical_cancel(cancel, None, "Original payment not found")
        for charge in found:
            done = self._books.cancel(charge)
            self._tell_technical_cancel(cancel, charge, None if done else f"Payment is {charge.status}")
        return answer

    # -- inside

    def _apply(
        self, kind: str, payment: Payment, money: tuple[int, str] | None, reference: str | None, id: str
    ) -> None:
        books, charge = self._books, payment.charge
        value = money[0] if money is not None and charge is not None and money[1] == charge.currency else 0
        told: EventKind
        if kind == "reversals":  # refunds what was captured, else cancels
            captured = charge is not None and charge.amount_captured > 0
            kind, told = "refunds" if captured else "cancels", "reversal"
            value = charge.amount_captured - charge.amount_refunded if charge is not None else 0
        else:
            told = _TOLD_AS[kind]
        match kind:
            case "captures":
                done = charge is not None and books.capture(charge, value)
            case "refunds":
                done = charge is not None and books.refund(charge, value)
            case _:
                done = charge is not None and books.cancel(charge)
        if done and kind in ("captures", "refunds"):
            change = Modification(id, "capture" if kind == "captures" else "refund", reference, value)
            payment.modifications.append(change)
        books.tell(
            told,
            success=done,
            charge=charge,
            subject=payment,
            reference=reference,
            modification_id=id,
            amount=None if kind == "cancels" else (money[0] if money is not None else value),
            reason="" if done else f"Payment is {charge.status if charge else 'pending'}, or less of it is left",
        )

    def _tell_technical_cancel(self, cancel: TechnicalCancel, charge: Charge | None, why_not: str | None) -> None:
        self._books.tell(
            "technical_cancel",
            success=why_not is None,
            charge=charge,
            subject=cancel,
            reference=cancel.reference or cancel.payment_reference,
            modification_id=cancel.id,
            reason=why_not or "",
        )

    def _conclude(self, payment: Payment, result: Result) -> None:
        """Write the issuer's answer down, make ours of it, and tell."""
        status: Status | None
        cancel = self._cancels_ahead.get(payment.reference) if result is AUTHORISED else None
        if cancel is not None:
            result, status = CANCELLED, "canceled"
        elif result.result_code == "Authorised":
            manual = (payment.body.get("additionalData") or {}).get("manualCapture") == "true"
            status = "authorized" if manual else "captured"
        else:
            status = "declined" if result.result_code != "Pending" else None
        payment.answer = _answer(payment, result)
        if status is None:
            return
        payment.charge = charge = self._enter(payment, status)
        good = status in ("authorized", "captured")
        key = payment.idempotency_key
        self._books.tell(
            "authorization",
            success=good,
            charge=charge,
            subject=payment,
            reason=result.reason or "",
            idempotency_key=key,
        )
        if cancel is not None:
            self._tell_technical_cancel(cancel, charge, None)

    def _enter(self, payment: Payment, status: Status) -> Charge:
        body = payment.body
        value, currency = amount(body)
        return self._books.open(
            id=payment.psp,
            reference=text(body, "merchantOrderReference") or (body.get("metadata") or {}).get("reference"),
            attempt=payment.reference,
            amount=value,
            currency=currency,
            idempotency_key=payment.idempotency_key,
            status=status,
        )

    def _redirect(self, payment: Payment) -> Body:
        return {
            "resultCode": "RedirectShopper",
            "action": {
                "type": "redirect",
                "method": "GET",
                "paymentMethodType": "scheme",
                "url": f"{self._base_url}/sandbox/redirect/{payment.psp}",
            },
        }


def _answer(payment: Payment, result: Result) -> Body:
    value, currency = amount(payment.body)
    extra = {"paymentMethod": "visa", "cardSummary": "1111", "merchantReference": payment.reference}
    answer: dict[str, Any] = {
        "additionalData": extra,
        "pspReference": payment.psp,
        "resultCode": result.result_code,
        "amount": {"currency": currency, "value": value},
        "merchantReference": payment.reference,
        "paymentMethod": {"brand": "visa", "type": "scheme"},
    }
    if result.refusal_code is not None and result.reason is not None:
        answer["refusalReason"] = result.reason
        answer["refusalReasonCode"] = result.refusal_code
        if result.raw is not None:
            extra["refusalReasonRaw"] = result.raw
    elif result.result_code == "Authorised":
        extra["authCode"] = payment.psp[:6]
    return answer
