"""Stripe's payment intents and refunds: their states, what each operation does to them and the books, and tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from providers.sandbox.books import Books, Charge, EventKind
from providers.sandbox.ids import stripe_id, stripe_secret
from providers.sandbox.stripe_cards import DECLINES, Card, Decline
from providers.sandbox.stripe_errors import StripeError, error_object, no_such, unexpected_state
from providers.sandbox.stripe_objects import refund_object


@dataclass(slots=True)
class Intent:
    """One payment intent; amounts in Stripe's minor units, times in Unix seconds."""

    id: str
    amount: int
    currency: str
    capture_method: str
    created: float
    client_secret: str
    metadata: dict[str, str]
    customer: str | None
    description: str | None
    automatic_payment_methods: dict[str, Any] | None
    status: str = "requires_payment_method"
    payment_method: str | None = None
    return_url: str | None = None
    latest_charge: str | None = None
    next_action: dict[str, Any] | None = None
    last_payment_error: dict[str, Any] | None = None
    canceled_at: int | None = None
    cancellation_reason: str | None = None
    charge: Charge | None = None
    """Its row in the books, once there is one."""
    idempotency_key: str | None = None
    """Of the call that asked for the authorization."""
    refunds: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Its refund objects by id, oldest first."""
    dispute: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """The object as the API shows it."""
        charge = self.charge
        return {
            "id": self.id,
            "object": "payment_intent",
            "amount": self.amount,
            "amount_capturable": self.amount if self.status == "requires_capture" else 0,
            "amount_details": {"tip": {}},
            "amount_received": charge.amount_captured if charge is not None else 0,
            "application": None,
            "application_fee_amount": None,
            "automatic_payment_methods": self.automatic_payment_methods,
            "canceled_at": self.canceled_at,
            "cancellation_reason": self.cancellation_reason,
            "capture_method": self.capture_method,
            "client_secret": self.client_secret,
            "confirmation_method": "automatic",
            "created": int(self.created),
            "currency": self.currency,
            "customer": self.customer,
            "description": self.description,
            "last_payment_error": self.last_payment_error,
            "latest_charge": self.latest_charge,
            "livemode": False,
            "metadata": self.metadata,
            "next_action": self.next_action,
            "on_behalf_of": None,
            "payment_method": self.payment_method,
            "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
            "payment_method_types": ["card"],
            "processing": None,
            "receipt_email": None,
            "setup_future_usage": None,
            "shipping": None,
            "statement_descriptor": None,
            "statement_descriptor_suffix": None,
            "status": self.status,
            "transfer_data": None,
            "transfer_group": None,
        }


@dataclass(slots=True)
class Intents:
    """Every payment intent of the stand-in Stripe, oldest first."""

    books: Books
    clock: Callable[[], float]
    base_url: str
    all: dict[str, Intent] = field(default_factory=dict)

    def get(self, id: str, *, param: str = "intent", in_path: bool = True) -> Intent:
        """The intent, or Stripe's `resource_missing`."""
        intent = self.all.get(id)
        if intent is None:
            raise no_such("payment_intent", id, param, in_path=in_path)
        return intent

    def create(
        self,
        *,
        amount: int,
        currency: str,
        capture_method: str,
        metadata: dict[str, str],
        customer: str | None,
        description: str | None,
        automatic_payment_methods: dict[str, Any] | None,
        payment_method: str | None,
    ) -> Intent:
        """A new intent, not confirmed."""
        id = stripe_id("pi")
        intent = Intent(
            id=id,
            amount=amount,
            currency=currency,
            capture_method=capture_method,
            created=self.clock(),
            client_secret=stripe_secret(id),
            metadata=metadata,
            customer=customer,
            description=description,
            automatic_payment_methods=automatic_payment_methods,
        )
        if payment_method is not None:
            intent.payment_method = payment_method
            intent.status = "requires_confirmation"
        self.all[id] = intent
        return intent

    def confirm(
        self,
        intent: Intent,
        card: Card,
        *,
        forced: Decline | None,
        off_session: bool,
        error_on_requires_action: bool,
    ) -> None:
        """Ask the issuer: approved, waiting for the customer, or StripeError 402."""
        intent.next_action = intent.last_payment_error = None
        if forced is not None or card.decline is not None:
            self._decline(intent, card, forced or card.decline or DECLINES["generic_decline"])
        elif card.three_d_secure == "no":
            self.approve(intent)
        elif off_session or error_on_requires_action:
            self._decline(intent, card, DECLINES["authentication_required"])
        else:
            intent.status = "requires_action"
            url = f"{self.base_url}/sandbox/authenticate/{intent.id}"
            if intent.return_url is not None:
                redirect = {"url": url, "return_url": intent.return_url}
                intent.next_action = {"type": "redirect_to_url", "redirect_to_url": redirect}
            else:
                sdk = {"type": "three_d_secure_redirect", "stripe_js": url, "source": stripe_id("src")}
                intent.next_action = {"type": "use_stripe_sdk", "use_stripe_sdk": sdk}
            self._tell("requires_action", intent, idempotency_key=intent.idempotency_key)

    def approve(self, intent: Intent, *, by_page: bool = False) -> None:
        """The issuer said yes: authorized, and captured where the capture method says so."""
        manual = intent.capture_method == "manual"
        intent.latest_charge = stripe_id("ch")
        intent.status = "requires_capture" if manual else "succeeded"
        intent.next_action = None
        intent.charge = self._enter(intent, "authorized" if manual else "captured")
        self._tell("authorization", intent, idempotency_key=None if by_page else intent.idempotency_key)

    def fail_authentication(self, intent: Intent) -> None:
        """The customer did not pass 3-D Secure."""
        message = "The provided PaymentMethod has failed authentication."
        code = "payment_intent_authentication_failure"
        intent.status = "requires_payment_method"
        intent.payment_method = intent.next_action = None
        intent.last_payment_error = error_object(message, type="invalid_request_error", code=code)
        self._tell("authorization", intent, success=False, charge=self._enter(intent, "declined"))

    def capture(self, intent: Intent, amount: int | None, *, idempotency_key: str | None) -> None:
        """Capture all of it, or a part; what is left is released."""
        if intent.status != "requires_capture" or intent.charge is None:
            message = f"This PaymentIntent could not be captured because it has a status of {intent.status}."
            raise unexpected_state(message, intent.as_json())
        amount = amount or intent.amount
        if not self.books.capture(intent.charge, amount):
            message = "The amount_to_capture is greater than the amount that can be captured."
            raise StripeError(400, message, saved=True, code="amount_too_large", param="amount_to_capture")
        intent.status = "succeeded"
        self._tell("capture", intent, amount=amount, idempotency_key=idempotency_key)

    def cancel(self, intent: Intent, reason: str | None, *, idempotency_key: str | None) -> None:
        """Cancel an intent that has not been captured; an authorization is released."""
        if intent.status in ("succeeded", "canceled"):
            message = f"You cannot cancel this PaymentIntent because it has a status of {intent.status}."
            raise unexpected_state(message, intent.as_json())
        intent.status = "canceled"
        intent.next_action = None
        intent.canceled_at = int(self.clock())
        intent.cancellation_reason = reason
        if intent.charge is not None:
            self.books.cancel(intent.charge)
        self._tell("cancellation", intent, idempotency_key=idempotency_key)

    def refund(
        self,
        intent: Intent,
        amount: int | None,
        *,
        reason: str | None,
        metadata: dict[str, str],
        idempotency_key: str | None,
    ) -> dict[str, Any]:
        """Pay back what is left, or a part of it; returns the refund object."""
        charge = intent.charge
        if charge is None or charge.amount_captured == 0:
            message = f"This PaymentIntent ({intent.id}) does not have a successful charge to refund."
            raise unexpected_state(message, intent.as_json())
        left = charge.amount_captured - charge.amount_refunded
        if left == 0:
            message = f"Charge {intent.latest_charge} has already been refunded."
            raise StripeError(400, message, saved=True, code="charge_already_refunded")
        if not self.books.refund(charge, amount or left):
            message = f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})"
            raise StripeError(400, message, saved=True, code="amount_too_large", param="amount")
        refund = refund_object(
            amount=amount or left,
            charge=intent.latest_charge,
            created=int(self.clock()),
            currency=intent.currency,
            metadata=metadata,
            payment_intent=intent.id,
            reason=reason,
        )
        intent.refunds[refund["id"]] = refund
        self._tell(
            "refund", intent, modification_id=refund["id"], amount=amount or left, idempotency_key=idempotency_key
        )
        return refund

    def _decline(self, intent: Intent, card: Card, decline: Decline) -> None:
        """Write the refusal down and raise it as the API does."""
        charge_id = stripe_id("ch")
        intent.latest_charge = charge_id
        intent.status = "requires_payment_method"
        fields: dict[str, Any] = {
            "type": "card_error",
            "code": decline.code,
            "decline_code": decline.decline_code,
            "charge": charge_id,
            "payment_method": {
                "id": intent.payment_method,
                "object": "payment_method",
                "type": "card",
                "card": {"brand": card.brand},
            },
        }
        if decline.code == "incorrect_cvc":
            fields["param"] = "cvc"
        if decline.advice_code is not None:
            fields["advice_code"] = decline.advice_code
        if decline.network_decline_code is not None:
            fields["network_decline_code"] = decline.network_decline_code
        if decline.network_advice_code is not None:
            fields["network_advice_code"] = decline.network_advice_code
        intent.payment_method = None
        intent.last_payment_error = error_object(decline.message, **fields)
        row = self._enter(intent, "declined")
        self._tell("authorization", intent, success=False, charge=row, idempotency_key=intent.idempotency_key)
        raise StripeError(402, decline.message, saved=True, **fields, payment_intent=intent.as_json())

    def _tell(
        self, kind: EventKind, intent: Intent, *, success: bool = True, charge: Charge | None = None, **more: Any
    ) -> None:
        self.books.tell(kind, success=success, charge=charge or intent.charge, subject=intent, **more)

    def _enter(self, intent: Intent, status: Any) -> Charge:
        return self.books.open(
            id=intent.id,
            reference=intent.metadata.get("reference"),
            attempt=intent.metadata.get("attempt"),
            amount=intent.amount,
            currency=intent.currency,
            idempotency_key=intent.idempotency_key,
            status=status,
        )
