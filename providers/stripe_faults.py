"""What goes wrong on the way to Stripe and back: the SDK's exceptions as verdicts.

Vendor's documentation: https://docs.stripe.com/error-handling.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import stripe
import structlog

from providers import faults
from providers.faults import Fault, safe_word
from providers.transport import SendFailed

_log = structlog.get_logger(__name__)


def fault(error: Exception) -> Fault:
    """Everything else that can come out of a call: the transport's verdict, Stripe's errors, the SDK's own bugs."""
    match error:
        case SendFailed():
            return error.fault
        case stripe.IdempotencyError():
            return faults.KEY_REUSED
        case stripe.RateLimitError():
            return faults.RATE_LIMITED
        case stripe.StripeError():
            found = faults.of_status(error.http_status)
            if found.our_fault:
                # `param` names a field of ours, never what was in it.
                _log.error(
                    "provider_rejected_our_request",
                    provider="stripe",
                    status=error.http_status,
                    code=code(error),
                    param=safe_word(error_object(error).get("param")),
                )
            return found
        case _:
            _log.error("sdk_failed", provider="stripe", error=type(error).__name__)
            return faults.SENSELESS_ANSWER


def error_object(error: stripe.StripeError) -> Mapping[str, Any]:
    """The error's JSON as a plain mapping; empty where the answer had none. (`e.error` and `e.code` can be None.)"""
    body = error.json_body
    found = body.get("error") if isinstance(body, dict) else None
    return found if isinstance(found, dict) else {}


def code(error: stripe.StripeError) -> str | None:
    """The error's own code, fit to print."""
    found = error_object(error).get("code")
    return safe_word(found) if found else None
