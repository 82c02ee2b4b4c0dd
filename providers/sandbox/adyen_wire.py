"""Adyen's wire format (Checkout v72): routes, credentials, idempotency keys, JSON in and out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from providers.sandbox import adyen_checks as check
from providers.sandbox.accounts import Account
from providers.sandbox.adyen_errors import AdyenError, error_body, missing
from providers.sandbox.adyen_mishaps import happen
from providers.sandbox.adyen_payments import Payments
from providers.sandbox.adyen_refusals import Result, result_of
from providers.sandbox.books import Books, Charge, Mishap
from providers.sandbox.faults import CallKind
from providers.sandbox.http import Reply, Request
from providers.sandbox.idempotency import Clash, IdempotencyKeys
from providers.sandbox.ids import psp_reference
from providers.sandbox.settlements import adyen_file
from providers.sandbox.standin import Work

MAX_KEY_LENGTH = 64
PLAIN_REFUSAL = "2"
_PREFIX = re.compile(r"^(?:/checkout)?(?:/v[0-9]+)?(?=/)")
_METHODS = {
    "paymentMethods": [
        {"name": "Cards", "type": "scheme", "brands": ["visa", "mc", "amex"]},
        {"name": "iDEAL", "type": "ideal"},
    ]
}


@dataclass(frozen=True, slots=True)
class Call:
    """One request on its way to an operation."""

    body: bytes
    idempotency_key: str | None
    forced: Result | None


Operation = Callable[[Call], tuple[int, dict[str, Any]]]


class AdyenWire:
    """Stand-in Adyen Checkout; `base_url` is where its 3-D Secure page is reached."""

    def __init__(self, books: Books, *, base_url: str) -> None:
        self.books = books
        self.keys = IdempotencyKeys()
        self.payments = Payments(books, base_url)
        self.account = Account()

    # -- what the stand-in asks of a wire

    def kind(self, request: Request) -> CallKind:
        """An authorization is asked for by `/payments`, and finished by `/payments/details`."""
        path = _PREFIX.sub("", request.path)
        if path == "/payments":
            return CallKind.AUTHORIZE
        return CallKind.COMPLETE if path == "/payments/details" else CallKind.OTHER

    def admit(self, request: Request) -> Work | Reply:
        """Credentials, then the route, then the idempotency key."""
        path = _PREFIX.sub("", request.path)
        if request.method == "GET" and path.startswith("/sandbox/redirect/"):
            return self._page(path.rsplit("/", 1)[-1], passed="result=fail" not in request.query)
        api_key = request.headers.get("x-api-key", "")
        if not api_key or api_key.startswith(("invalid", "revoked")):
            return _error(401, "000", "HTTP Status Response - Unauthorized", "security")
        operation = self._route(request.method, path)
        if operation is None:
            return _error(404, "000", "HTTP Status Response - Not Found", "validation")
        key = request.headers.get("idempotency-key") or None
        if key is not None:
            if len(key) > MAX_KEY_LENGTH:
                message = f"Idempotency key is longer than {MAX_KEY_LENGTH} characters"
                return _error(422, "702", message, "validation")
            # Adyen does not compare parameters: whoever uses a key again is given the first answer.
            found = self.keys.claim(key, None)
            if isinstance(found, Reply):
                return found
            if isinstance(found, Clash):
                return _error(422, "704", "Request already processed or in progress", "validation")
        return _Work(self, operation, request.body, key)

    def unavailable(self) -> Reply:
        """503."""
        return _error(503, "000", "HTTP Status Response - Service Unavailable", "internal")

    def rate_limited(self) -> Reply:
        """429: nothing was done."""
        return _error(429, "000", "HTTP Status Response - Too Many Requests", "security")

    def happen(self, kind: Mishap, charge: Charge) -> bool:
        """Something nobody asked for; False where the charge's state does not allow it."""
        return happen(self.books, self.payments, kind, charge)

    def settlement(self, plants: Mapping[str, int]) -> bytes:
        """The books as Adyen's report."""
        return adyen_file(self.payments.all(), plants)

    def clear(self) -> None:
        """Forget payments, keys and books."""
        self.keys.clear()
        self.payments.clear()
        self.account.configure({})
        self.books.clear()

    # -- operations

    def _route(self, method: str, path: str) -> Operation | None:
        match [method, *path.strip("/").split("/")]:
            case ["POST", "payments"]:
                return self._pay
            case ["POST", "payments", "details"]:
                return self._complete
            case ["POST", "payments", psp, "captures"]:
                return lambda call: self._modify(call, "captures", psp, check.CAPTURE_FIELDS)
            case ["POST", "payments", psp, "refunds"]:
                return lambda call: self._modify(call, "refunds", psp, check.REFUND_FIELDS)
            case ["POST", "payments", psp, "cancels"]:
                return lambda call: self._modify(call, "cancels", psp, check.CANCEL_FIELDS)
            case ["POST", "payments", psp, "reversals"]:
                return lambda call: self._modify(call, "reversals", psp, check.CANCEL_FIELDS)
            case ["POST", "cancels"]:
                return self._technical_cancel
            case ["POST", "paymentMethods"]:
                return _payment_methods
            case ["GET", "merchants", merchant]:
                return lambda _call: (200, dict(self.account.at_adyen(merchant)))
            case _:
                return None

    def _pay(self, call: Call) -> tuple[int, dict[str, Any]]:
        body = check.parse(call.body, check.PAYMENT_FIELDS)
        check.payment(body)
        return 200, self.payments.pay(body, idempotency_key=call.idempotency_key, forced=call.forced)

    def _complete(self, call: Call) -> tuple[int, dict[str, Any]]:
        body = check.parse(call.body, check.DETAILS_FIELDS)
        if "details" not in body:
            raise missing("details")
        return 200, self.payments.complete(body, forced=call.forced)

    def _modify(self, call: Call, kind: Any, psp: str, fields: frozenset[str]) -> tuple[int, dict[str, Any]]:
        return 201, self.payments.modify(kind, psp, check.parse(call.body, fields))

    def _technical_cancel(self, call: Call) -> tuple[int, dict[str, Any]]:
        return 201, self.payments.technical_cancel(check.parse(call.body, check.TECHNICAL_CANCEL_FIELDS))

    def _page(self, psp: str, *, passed: bool) -> Reply:
        """The issuer's 3-D Secure page: `GET /sandbox/redirect/{psp}?result=success|fail`, then back to the shop."""
        location = self.payments.back_from_issuer(psp, passed=passed)
        if location is None:
            return Reply(404, b"There is nothing to authenticate here.", content_type="text/plain")
        return Reply(302, b"", content_type="text/plain", headers=(("Location", location),))


class _Work:
    """A request that was let in."""

    def __init__(self, wire: AdyenWire, operation: Operation, body: bytes, key: str | None) -> None:
        self._wire = wire
        self._operation = operation
        self._body = body
        self._key = key

    def perform(self, *, decline_code: str | None, decline: bool, answer_instead: Reply | None) -> Reply:
        """Act; an answer is kept for the key, a refusal of the request frees it."""
        forced = result_of(decline_code or PLAIN_REFUSAL) if decline else None
        try:
            status, body = self._operation(Call(self._body, self._key, forced))
        except AdyenError as error:
            reply, kept = _reply(error.status, error.body, self._key), None
        else:
            reply = _reply(status, body, self._key)
            kept = answer_instead or reply
        if self._key is not None:
            self._wire.keys.settle(self._key, kept)
        return reply

    def keep(self, reply: Reply) -> None:
        """A stored error without any effect."""
        if self._key is not None:
            self._wire.keys.settle(self._key, reply)


def _payment_methods(call: Call) -> tuple[int, dict[str, Any]]:
    check.merchant_account(check.parse(call.body, check.METHODS_FIELDS))
    return 200, _METHODS


def _reply(status: int, body: dict[str, Any], key: str | None = None) -> Reply:
    headers = [("pspReference", str(body.get("pspReference") or psp_reference()))]
    if key is not None:
        headers.append(("Idempotency-Key", key))
    return Reply(status, json.dumps(body).encode(), headers=tuple(headers))


def _error(status: int, code: str, message: str, kind: str) -> Reply:
    return _reply(status, error_body(status, code, message, kind))
