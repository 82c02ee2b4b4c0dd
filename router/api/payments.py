"""`/v1/payments`: checkout's calls."""

from __future__ import annotations

from flask import Response, jsonify
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, Field

from router.api import views
from router.api.gate import idempotency_key, require
from router.api.problems import Problem, ProblemError
from router.order import Order, Text80
from router.payments import Answer, Payments

NOT_YET = frozenset({"processing", "parked"})
"""Statuses whose answer is 202: accepted, and the outcome follows."""
PAGE = 20

_KEY_HEADER = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": True,
    "description": "Names this request: sent again, it answers the payment that it made and charges nothing.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}


class PaymentPath(BaseModel):
    """A payment's address."""

    payment_id: Text80 = Field(description="`pay_…`")


class ReferenceQuery(BaseModel):
    """Which payments to list."""

    reference: Text80
    cursor: Text80 | None = Field(None, description="`next` of a page")


def blueprint(payments: Payments) -> APIBlueprint:
    """The views, over the service that answers them."""
    api = APIBlueprint(
        "payments",
        __name__,
        url_prefix="/v1/payments",
        abp_tags=[Tag(name="payments", description="Checkout's calls")],
        abp_security=[{"key": []}],
        abp_responses={401: Problem, 403: Problem, 503: Problem},
    )

    @api.post(
        "",
        summary="Pay",
        description="Routes, charges and fails over. 201: final, or the customer must act. 202: the outcome follows.",
        responses={
            201: views.PaymentView,
            202: views.PaymentView,
            400: Problem,
            409: Problem,
            413: Problem,
            422: Problem,
        },
        openapi_extensions={"parameters": [_KEY_HEADER]},
    )
    def create_payment(body: Order) -> Response:
        caller = require("payments")
        answer = payments.create(body, merchant=caller.merchant, key=idempotency_key())
        response = _answer(answer, 202 if answer.payment.status in NOT_YET else 201)
        response.headers["Location"] = f"/v1/payments/{answer.payment.id}"
        if answer.replayed:
            response.headers["Idempotent-Replayed"] = "true"
        return response

    @api.get("/<payment_id>", summary="Read a payment", responses={200: views.PaymentView, 404: Problem})
    def read_payment(path: PaymentPath) -> Response:
        caller = require("payments")
        answer = payments.get(caller.merchant, path.payment_id)
        if answer is None:
            raise ProblemError(404, "not-found", "There is no such payment.")
        return _answer(answer, 200)

    @api.get("", summary="Find payments by reference", responses={200: views.PaymentList, 422: Problem})
    def find_payments(query: ReferenceQuery) -> Response:
        caller = require("payments")
        answers, cursor = payments.by_reference(caller.merchant, query.reference, limit=PAGE, before=query.cursor)
        return jsonify({"payments": [views.payment_json(each) for each in answers], "next": cursor})

    return api


def _answer(answer: Answer, status: int) -> Response:
    response = jsonify(views.payment_json(answer))
    response.status_code = status
    response.headers["Cache-Control"] = "no-store"
    return response
