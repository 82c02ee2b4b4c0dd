"""Stripe's error objects: `{"error": {"type", "code", "message", "param", …}}`."""

from __future__ import annotations

from typing import Any


class StripeError(Exception):
    """A refusal in Stripe's shape. `saved`: kept for its idempotency key, because execution had begun."""

    def __init__(self, status: int, message: str, *, saved: bool = False, **fields: Any) -> None:
        super().__init__(message)
        self.status = status
        self.saved = saved
        self.body = {"error": error_object(message, **fields)}


def error_object(message: str, **fields: Any) -> dict[str, Any]:
    """The inner object; `type` is `invalid_request_error` where nothing else is said."""
    error: dict[str, Any] = {"type": "invalid_request_error", "message": message, **fields}
    code = error.get("code")
    if code:
        error["doc_url"] = f"https://stripe.com/docs/error-codes/{code.replace('_', '-')}"
    return error


def unknown_parameter(name: str) -> StripeError:
    """400: the parameter does not exist (any more)."""
    return StripeError(400, f"Received unknown parameter: {name}", code="parameter_unknown", param=name)


def missing_parameter(name: str) -> StripeError:
    """400: the parameter is required."""
    return StripeError(400, f"Missing required param: {name}.", code="parameter_missing", param=name)


def invalid_parameter(name: str, message: str, code: str = "parameter_invalid") -> StripeError:
    """400: the parameter's value cannot be taken."""
    return StripeError(400, message, code=code, param=name)


def no_such(what: str, id: str, param: str, *, in_path: bool = False) -> StripeError:
    """404 for an object named by the path, 400 for one named by a parameter."""
    return StripeError(404 if in_path else 400, f"No such {what}: '{id}'", code="resource_missing", param=param)


def unexpected_state(message: str, intent: dict[str, Any]) -> StripeError:
    """400: the payment intent's status does not allow it; kept for the idempotency key."""
    return StripeError(400, message, saved=True, code="payment_intent_unexpected_state", payment_intent=intent)
