"""Stripe's wire format (API 2026-10-28): routes, credentials, idempotency keys, forms in and JSON out."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from providers.sandbox import stripe_params as read
from providers.sandbox.accounts import Account
from providers.sandbox.books import Books, Charge, Mishap
from providers.sandbox.faults import CallKind
from providers.sandbox.http import Reply, Request
from providers.sandbox.idempotency import Clash, IdempotencyKeys
from providers.sandbox.ids import stripe_id
from providers.sandbox.settlements import stripe_file
from providers.sandbox.standin import Work
from providers.sandbox.stripe_cards import decline_for
from providers.sandbox.stripe_errors import StripeError, error_object
from providers.sandbox.stripe_events import API_VERSION
from providers.sandbox.stripe_intents import Intents
from providers.sandbox.stripe_mishaps import happen
from providers.sandbox.stripe_operations import Call, Operation, Operations

MAX_KEY_LENGTH = 255


class StripeWire:
    """Stand-in Stripe. `clock` gives Unix seconds; `base_url` is where its 3-D Secure page is reached."""

    def __init__(self, books: Books, *, clock: Callable[[], float], base_url: str) -> None:
        self.books = books
        self.keys = IdempotencyKeys()
        self.intents = Intents(books, clock, base_url)
        self.account = Account()
        self._clock = clock
        self.operations = Operations(self.intents)

    # -- what the stand-in asks of a wire

    def kind(self, request: Request) -> CallKind:
        """An authorization is asked for by a confirmed creation or a confirmation."""
        if request.method == "POST":
            if request.path == "/v1/payment_intents":
                return CallKind.AUTHORIZE if b"confirm=true" in request.body else CallKind.OTHER
            if request.path.endswith("/confirm"):
                return CallKind.AUTHORIZE
        elif request.path.startswith("/sandbox/"):
            return CallKind.COMPLETE
        return CallKind.OTHER

    def admit(self, request: Request) -> Work | Reply:
        """Credentials, then the route, then the idempotency key (POST only), as Stripe does."""
        try:
            if request.path.startswith("/sandbox/authenticate/"):
                return _Page(self, request)
            _authenticate(request.headers.get("authorization"))
            if request.method == "GET" and request.path == "/v1/account":
                return _reply(200, dict(self.account.at_stripe(self._clock())))
            operation, id = self.operations.find(request.method, request.path)
            flat = read.pairs(request.query if request.method == "GET" else request.body.decode("utf-8", "replace"))
            params = read.nest(flat)
        except StripeError as error:
            return _reply(error.status, error.body)
        key = request.headers.get("idempotency-key") if request.method == "POST" else None
        if key:
            if len(key) > MAX_KEY_LENGTH:
                message = f"Idempotency keys may be at most {MAX_KEY_LENGTH} characters long."
                return _reply(400, {"error": error_object(message, type="idempotency_error")})
            found = self.keys.claim(key, (request.path, tuple(sorted(flat))))
            if found is not None:
                return _replay(found, key)
        return _Work(self, operation, params, id, key or None)

    def unavailable(self) -> Reply:
        """503, as Stripe tells a fault of its own."""
        message = "Sorry! There was an error while talking to one of our backends. Support has been notified."
        return _reply(503, {"error": error_object(message, type="api_error")})

    def rate_limited(self) -> Reply:
        """429: nothing was done."""
        message = (
            "Request rate limit exceeded. Learn more about rate limits here https://stripe.com/docs/rate-limits."
        )
        return _reply(429, {"error": error_object(message, code="rate_limit")})

    def happen(self, kind: Mishap, charge: Charge) -> bool:
        """Something nobody asked for; False where the charge's state does not allow it."""
        return happen(self.intents, kind, charge)

    def settlement(self, plants: Mapping[str, int]) -> bytes:
        """The books as Stripe's report."""
        return stripe_file(self.intents.all.values(), plants)

    def clear(self) -> None:
        """Forget intents, keys and books."""
        self.keys.clear()
        self.intents.all.clear()
        self.account.configure({})
        self.books.clear()


class _Work:
    """A request that was let in."""

    def __init__(self, wire: StripeWire, operation: Operation, params: read.Params, id: str, key: str | None) -> None:
        self._wire = wire
        self._operation = operation
        self._params = params
        self._id = id
        self._key = key

    def perform(self, *, decline_code: str | None, decline: bool, answer_instead: Reply | None) -> Reply:
        """Act; what began to execute is kept for the key, a refusal before that frees it."""
        call = Call(self._params, self._id, self._key, decline_for(decline_code) if decline else None)
        executed = True
        try:
            reply = _reply(200, self._operation(call))
        except StripeError as error:
            reply, executed = _reply(error.status, error.body), error.saved
        if self._key is not None:
            self._wire.keys.settle(self._key, (answer_instead or reply) if executed else None)
        return reply

    def keep(self, reply: Reply) -> None:
        """A stored error without any effect."""
        if self._key is not None:
            self._wire.keys.settle(self._key, reply)


class _Page:
    """The issuer's 3-D Secure page: `GET /sandbox/authenticate/{pi}?result=success|fail`, then back to the shop."""

    def __init__(self, wire: StripeWire, request: Request) -> None:
        self._intents = wire.intents
        self._id = request.path.rsplit("/", 1)[-1]
        self._failed = "result=fail" in request.query

    def perform(self, *, decline_code: str | None, decline: bool, answer_instead: Reply | None) -> Reply:
        """The customer passes, or fails."""
        del decline_code, answer_instead
        intent = self._intents.all.get(self._id)
        if intent is None or intent.status != "requires_action":
            return Reply(404, b"There is nothing to authenticate here.", content_type="text/plain")
        if self._failed or decline:
            self._intents.fail_authentication(intent)
        else:
            self._intents.approve(intent, by_page=True)
        if intent.return_url is None:
            return Reply(200, b"You may close this page.", content_type="text/plain")
        back = {
            "payment_intent": intent.id,
            "payment_intent_client_secret": intent.client_secret,
            "redirect_status": "failed" if intent.last_payment_error else "succeeded",
        }
        joint = "&" if "?" in intent.return_url else "?"
        location = f"{intent.return_url}{joint}{urlencode(back)}"
        return Reply(302, b"", content_type="text/plain", headers=(("Location", location),))

    def keep(self, reply: Reply) -> None:
        """A page has no idempotency key."""


def _reply(status: int, body: dict[str, Any]) -> Reply:
    headers = [("Request-Id", stripe_id("req")), ("Stripe-Version", API_VERSION)]
    return Reply(status, json.dumps(body).encode(), headers=tuple(headers))


def _replay(found: Reply | Clash, key: str) -> Reply:
    match found:
        case Reply():
            headers = (*found.headers, ("Idempotent-Replayed", "true"))
            return Reply(found.status, found.body, found.content_type, headers)
        case Clash.OTHER_PARAMETERS:
            message = (
                "Keys for idempotent requests can only be used with the same parameters they were first used with. "
                f"Try using a key other than '{key}' if you meant to execute a different request."
            )
            return _reply(400, {"error": error_object(message, type="idempotency_error")})
        case Clash.IN_USE:
            message = (
                "There is currently another in-progress request using this Idempotent Key (that probably means you "
                f"submitted twice, and the other request is still going through): {key}. Please try again later."
            )
            return _reply(409, {"error": error_object(message, code="idempotency_key_in_use")})


def _authenticate(header: str | None) -> None:
    scheme, _, credentials = (header or "").partition(" ")
    key = credentials.strip()
    if scheme.lower() == "basic":
        try:
            key = base64.b64decode(key, validate=True).decode("latin-1").partition(":")[0]
        except (binascii.Error, ValueError):
            key = ""
    if not key:
        raise StripeError(401, "You did not provide an API key. You need to provide it in the Authorization header.")
    if not key.startswith("sk_test_"):
        raise StripeError(401, f"Invalid API Key provided: {key[:7]}{'*' * 12}")
