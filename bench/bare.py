"""What the router is measured beside: an empty Flask endpoint, and one that calls the vendor's SDK and nothing else.

`/charge` is what a shop without a router has: the SDK's own function, its default HTTP client, the intent's typed
object; no ledger, no flags, no circuit. Served by granian with the router's own options, against the sandbox.
"""

from __future__ import annotations

import os
from typing import Any

import stripe
from flask import Flask, Response, jsonify, request

stripe.api_key = "sk_test_sandbox"
stripe.api_base = os.environ.get("BENCH_STRIPE", "http://127.0.0.1:8091")


def charge(order: dict[str, Any], key: str) -> stripe.PaymentIntent:
    """One payment, by the vendor's documentation: created and confirmed in one call."""
    return stripe.PaymentIntent.create(
        amount=order["amount"],
        currency=order["currency"].lower(),
        payment_method=order["payment_method"]["tokens"]["stripe"],
        confirm=True,
        automatic_payment_methods={"enabled": True, "allow_redirects": "never"},
        metadata={"reference": order["reference"]},
        idempotency_key=key,
    )


app = Flask("bare")


@app.post("/empty")
def empty() -> Response:
    """A constant."""
    return jsonify({"ok": True})


@app.post("/charge")
def take() -> tuple[Response, int]:
    """Charge, and say how it went."""
    intent = charge(request.get_json(), request.headers["Idempotency-Key"])
    return jsonify({"id": intent.id, "status": intent.status, "amount": intent.amount}), 201
