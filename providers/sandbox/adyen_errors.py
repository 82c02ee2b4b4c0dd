"""Adyen's error bodies: `{"status", "errorCode", "message", "errorType", "pspReference"}`."""

from __future__ import annotations

from typing import Any

from providers.sandbox.ids import psp_reference


class AdyenError(Exception):
    """A refusal in Adyen's shape; never kept for its idempotency key."""

    def __init__(self, status: int, code: str, message: str, kind: str = "validation") -> None:
        super().__init__(message)
        self.status = status
        self.body = error_body(status, code, message, kind)


def error_body(status: int, code: str, message: str, kind: str) -> dict[str, Any]:
    """The body; `kind` is validation, security, configuration or internal."""
    return {
        "status": status,
        "errorCode": code,
        "message": message,
        "errorType": kind,
        "pspReference": psp_reference(),
    }


def missing(field: str, code: str = "702") -> AdyenError:
    """422: a required field is not there."""
    return AdyenError(422, code, f"Required field '{field}' is not provided.")


def invalid(field: str, why: str, code: str = "702") -> AdyenError:
    """422: a field's value cannot be taken."""
    return AdyenError(422, code, f"Field '{field}' is not valid: {why}")
