"""Stripe's operations: from a route and its parameters to what is done to a payment intent, and the object back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import dropwhile, islice, takewhile
from typing import Any

from providers.sandbox import stripe_params as read
from providers.sandbox.stripe_cards import Card, Decline, card
from providers.sandbox.stripe_errors import (
    StripeError,
    invalid_parameter,
    missing_parameter,
    no_such,
    unexpected_state,
)
from providers.sandbox.stripe_intents import Intent, Intents
from providers.sandbox.stripe_objects import shown

_CAPTURE_METHODS = ("automatic", "automatic_async", "manual")
_CANCELLATION_REASONS = ("abandoned", "duplicate", "fraudulent", "requested_by_customer")
_CONFIRMABLE = ("requires_payment_method", "requires_confirmation", "requires_action")


@dataclass(frozen=True, slots=True)
class Call:
    """One request on its way to an operation."""

    params: read.Params
    id: str
    """From the path; empty where it has none."""
    idempotency_key: str | None
    forced_decline: Decline | None


Operation = Callable[[Call], dict[str, Any]]


class Operations:
    """What Stripe's API can do here."""

    def __init__(self, intents: Intents) -> None:
        self._intents = intents

    def find(self, method: str, path: str) -> tuple[Operation, str]:
        """The operation of a route and the id in it; StripeError 404 where there is none."""
        match [method, *path.strip("/").split("/")]:
            case ["POST", "v1", "payment_intents"]:
                return self._create, ""
            case ["GET", "v1", "payment_intents"]:
                return self._list, ""
            case ["GET", "v1", "payment_intents", id]:
                return self._retrieve, id
            case ["POST", "v1", "payment_intents", id, "confirm"]:
                return self._confirm, id
            case ["POST", "v1", "payment_intents", id, "capture"]:
                return self._capture, id
            case ["POST", "v1", "payment_intents", id, "cancel"]:
                return self._cancel, id
            case ["POST", "v1", "refunds"]:
                return self._refund, ""
            case ["GET", "v1", "balance"]:
                return _balance, ""
            case _:
                message = f"Unrecognized request URL ({method}: {path})."
                raise StripeError(404, message)

    def _create(self, call: Call) -> dict[str, Any]:
        params = call.params
        read.only(params, read.CREATE)
        read.expand(params)
        currency = read.currency(params)
        amount = read.amount(params, "amount", currency)
        if amount is None:
            raise missing_parameter("amount")
        token = read.text(params, "payment_method")
        paid_with = _card(token)
        customer = read.text(params, "customer")
        if customer is not None and not customer.startswith("cus_"):
            raise no_such("customer", customer, "customer")
        automatic = _automatic_payment_methods(params)
        confirm = read.boolean(params, "confirm")
        return_url = read.text(params, "return_url")
        if confirm:
            _check_confirmation(params, automatic, return_url)
        elif return_url is not None or "error_on_requires_action" in params or "off_session" in params:
            name = next(n for n in ("return_url", "error_on_requires_action", "off_session") if n in params)
            raise invalid_parameter(name, f"You cannot set `{name}` without setting `confirm` to true.")
        intent_arguments: dict[str, Any] = {
            "amount": amount,
            "currency": currency,
            "capture_method": _capture_method(params) or "automatic_async",
            "metadata": dict(read.hash_of(params, "metadata")),
            "customer": customer,
            "description": read.text(params, "description"),
            "automatic_payment_methods": automatic,
            "payment_method": token,
        }
        if not confirm:
            return self._intents.create(**intent_arguments).as_json()
        if paid_with is None:
            message = "You cannot confirm this PaymentIntent because it's missing a payment method."
            raise StripeError(400, message, code="payment_intent_unexpected_state")
        off_session = read.text(params, "off_session") not in (None, "false")
        strict = read.boolean(params, "error_on_requires_action")
        intent = self._intents.create(**intent_arguments)
        intent.return_url = return_url
        return self._ask_issuer(call, intent, paid_with, off_session=off_session, strict=strict)

    def _confirm(self, call: Call) -> dict[str, Any]:
        params = call.params
        read.only(params, read.CONFIRM)
        read.expand(params)
        intent = self._intents.get(call.id)
        token = read.text(params, "payment_method") or intent.payment_method
        paid_with = _card(token)
        return_url = read.text(params, "return_url")
        capture_method = _capture_method(params)
        off_session = read.text(params, "off_session") not in (None, "false")
        strict = read.boolean(params, "error_on_requires_action")
        _check_return_url(intent.automatic_payment_methods, return_url)
        if intent.status not in _CONFIRMABLE:
            message = f"You cannot confirm this PaymentIntent because it has a status of {intent.status}."
            raise unexpected_state(message, intent.as_json())
        if paid_with is None:
            message = "You cannot confirm this PaymentIntent because it's missing a payment method."
            raise unexpected_state(message, intent.as_json())
        intent.payment_method = token
        intent.return_url = return_url
        intent.capture_method = capture_method or intent.capture_method
        return self._ask_issuer(call, intent, paid_with, off_session=off_session, strict=strict)

    def _ask_issuer(
        self, call: Call, intent: Intent, paid_with: Card, *, off_session: bool, strict: bool
    ) -> dict[str, Any]:
        intent.idempotency_key = call.idempotency_key
        self._intents.confirm(
            intent,
            paid_with,
            forced=call.forced_decline,
            off_session=off_session,
            error_on_requires_action=strict,
        )
        return _shown(intent, call, is_answer=True)

    def _retrieve(self, call: Call) -> dict[str, Any]:
        read.only(call.params, read.RETRIEVE)
        return _shown(self._intents.get(call.id), call)

    def _list(self, call: Call) -> dict[str, Any]:
        params = call.params
        read.only(params, read.LIST)
        limit = read.integer(params, "limit", low=1, high=100) or 10
        within = _created_filter(params)
        customer = read.text(params, "customer")
        after, before = read.text(params, "starting_after"), read.text(params, "ending_before")
        for name, id in (("starting_after", after), ("ending_before", before)):
            if id is not None:
                self._intents.get(id, param=name, in_path=False)
        newest_first: Iterator[Intent] = reversed(self._intents.all.values())
        if after is not None:
            newest_first = dropwhile(lambda intent: intent.id != after, newest_first)
            next(newest_first)
        if before is not None:
            newest_first = takewhile(lambda intent: intent.id != before, newest_first)
        matching = (one for one in newest_first if within(int(one.created)) and customer in (None, one.customer))
        if before is None:
            found = list(islice(matching, limit + 1))
            page = found[:limit]
        else:  # the page that ends just before it
            found = list(matching)
            page = found[-limit:]
        more = len(found) > limit
        data = [intent.as_json() for intent in page]
        return {"object": "list", "data": data, "has_more": more, "url": "/v1/payment_intents"}

    def _capture(self, call: Call) -> dict[str, Any]:
        read.only(call.params, read.CAPTURE)
        read.expand(call.params)
        intent = self._intents.get(call.id)
        amount = read.amount(call.params, "amount_to_capture", intent.currency)
        self._intents.capture(intent, amount, idempotency_key=call.idempotency_key)
        return _shown(intent, call)

    def _cancel(self, call: Call) -> dict[str, Any]:
        read.only(call.params, read.CANCEL)
        intent = self._intents.get(call.id)
        reason = read.text(call.params, "cancellation_reason")
        if reason is not None and reason not in _CANCELLATION_REASONS:
            message = f"Invalid cancellation_reason: must be one of {', '.join(_CANCELLATION_REASONS)}"
            raise invalid_parameter("cancellation_reason", message)
        self._intents.cancel(intent, reason, idempotency_key=call.idempotency_key)
        return intent.as_json()

    def _refund(self, call: Call) -> dict[str, Any]:
        params = call.params
        read.only(params, read.REFUND)
        id, charge_id = read.text(params, "payment_intent"), read.text(params, "charge")
        if id is not None:
            intent = self._intents.get(id, param="payment_intent", in_path=False)
        else:
            if charge_id is None:
                raise StripeError(400, "One of the following params should be provided: payment_intent or charge.")
            of_charge = [one for one in self._intents.all.values() if one.latest_charge == charge_id]
            if not of_charge:
                raise no_such("charge", charge_id, "charge")
            intent = of_charge[0]
        amount = read.amount(params, "amount", intent.currency)
        return self._intents.refund(
            intent,
            amount,
            reason=read.text(params, "reason"),
            metadata=dict(read.hash_of(params, "metadata")),
            idempotency_key=call.idempotency_key,
        )


def _shown(intent: Intent, call: Call, *, is_answer: bool = False) -> dict[str, Any]:
    return shown(intent, read.expand(call.params), is_answer=is_answer)


def _card(token: str | None) -> Card | None:
    if token is None:
        return None
    found = card(token)
    if found is None:
        raise no_such("PaymentMethod", token, "payment_method")
    return found


def _capture_method(params: read.Params) -> str | None:
    value = read.text(params, "capture_method")
    if value is not None and value not in _CAPTURE_METHODS:
        message = f"Invalid capture_method: must be one of {', '.join(_CAPTURE_METHODS)}"
        raise invalid_parameter("capture_method", message)
    return value


def _automatic_payment_methods(params: read.Params) -> dict[str, Any]:
    """As given, or the default since API 2023-08-16: on, with redirects."""
    given = read.hash_of(params, "automatic_payment_methods")
    for name in given:
        if name not in ("enabled", "allow_redirects"):
            raise invalid_parameter(f"automatic_payment_methods[{name}]", "Unknown parameter", "parameter_unknown")
    enabled = read.boolean(given, "enabled", within="automatic_payment_methods") if given else True
    redirects = given.get("allow_redirects", "always")
    if redirects not in ("always", "never"):
        raise invalid_parameter("automatic_payment_methods[allow_redirects]", "Must be always or never")
    return {"enabled": enabled, "allow_redirects": redirects}


def _check_confirmation(params: read.Params, automatic: dict[str, Any], return_url: str | None) -> None:
    if "payment_method_data" in params or "confirmation_token" in params:
        raise invalid_parameter("payment_method_data", "The sandbox takes payment_method only.")
    _check_return_url(automatic, return_url)


def _check_return_url(automatic: dict[str, Any] | None, return_url: str | None) -> None:
    if return_url is not None and "://" not in return_url:
        raise invalid_parameter("return_url", "Not a valid URL", "url_invalid")
    if automatic and automatic["enabled"] and automatic["allow_redirects"] == "always" and return_url is None:
        message = (
            "This PaymentIntent is configured to accept payment methods that might redirect your customer off of "
            "your page, so you must provide a `return_url`, or set `automatic_payment_methods[allow_redirects]` to "
            "`never`."
        )
        raise StripeError(400, message)


def _created_filter(params: read.Params) -> Callable[[int], bool]:
    given = params.get("created")
    if given is None:
        return lambda _created: True
    bounds = given if isinstance(given, dict) else {"gte": given, "lte": given}
    for name in bounds:
        if name not in ("gt", "gte", "lt", "lte"):
            raise invalid_parameter(f"created[{name}]", "Unknown parameter", "parameter_unknown")
    at = {name: read.integer(bounds, name, low=0, high=2**40) or 0 for name in bounds}
    low = max(at.get("gte", 0), at.get("gt", -1) + 1)
    high = min(at.get("lte", 2**40), at.get("lt", 2**41) - 1)
    return lambda created: low <= created <= high


def _balance(call: Call) -> dict[str, Any]:
    read.only(call.params, frozenset(("expand",)))
    zero = [{"amount": 0, "currency": "eur", "source_types": {"card": 0}}]
    return {"object": "balance", "available": zero, "livemode": False, "pending": zero}
