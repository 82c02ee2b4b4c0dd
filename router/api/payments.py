"""`/v1/payments`: checkout's calls."""

from __future__ import annotations

from typing import Annotated, Any

from flask import Response, g, jsonify, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StringConstraints

from router.api import answers, views
from router.api.gate import TRIED, Tried, idempotency_key, require
from router.api.limiting import payment_refusal, refused
from router.api.problems import Problem, ProblemError, invalid, response
from router.api.request_ids import log_payment
from router.ledger.keys import Caller
from router.limits.guard import Guard, Refusal
from router.modifications import Modifications, Verdict
from router.order import MAXIMUM_AMOUNT, Order, Text40, Text80, Text255
from router.payments import Answer, MerchantShareError, Payments

NOT_YET = frozenset({"processing", "parked"})
"""Statuses whose answer is 202: accepted, and the outcome follows."""
PAGE = 20
RETRY_AFTER_SHARE_S = 1
"""A payment under way is over within a second, usually."""
_PAYMENT_ID = {"name": "payment_id", "in": "path", "required": True, "schema": {"type": "string"}}

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


class EmptyBody(BaseModel):
    """Nothing is asked for but the thing itself; the body may be left out."""

    model_config = ConfigDict(extra="forbid")


class AmountBody(BaseModel):
    """How much; the body may be left out for all that is left."""

    model_config = ConfigDict(extra="forbid")

    amount: Annotated[StrictInt, Field(ge=1, le=MAXIMUM_AMOUNT)] | None = Field(
        None, description="Integer minor units by ISO 4217; all that is left by default"
    )


class DetailsBody(BaseModel):
    """What the customer's browser brought back from the 3-D Secure step."""

    model_config = ConfigDict(extra="forbid")

    details: dict[Text40, Annotated[str, StringConstraints(max_length=100_000)]] = Field(
        default_factory=dict, max_length=8, description="at most 256 KiB of body in all"
    )


class VerdictBody(BaseModel):
    """What the provider's dashboard says of what is in doubt."""

    model_config = ConfigDict(extra="forbid")

    attempt: Text80 | None = Field(None, description="of what it is said, where more than one thing is in doubt")
    operation: Text80 | None = Field(None, description="likewise, of a capture, void or refund")

    outcome: Verdict
    evidence: Text255 = Field(description="where it was read, and by whom")
    provider_reference: Text80 | None = Field(None, description="the provider's id; needed for an approval")


class ReferenceQuery(BaseModel):
    """Which payments to list."""

    reference: Text80
    cursor: Text80 | None = Field(None, description="`next` of a page")


def blueprint(payments: Payments, modifications: Modifications, guard: Guard | None = None) -> APIBlueprint:
    """The views, over the service that answers them; `guard` knows the merchants' quotas."""
    api = APIBlueprint(
        "payments",
        __name__,
        url_prefix="/v1/payments",
        abp_tags=[Tag(name="payments", description="Checkout's calls")],
        abp_security=[{"key": []}],
        abp_responses={401: Problem, 403: Problem, 503: Problem},
    )

    @api.errorhandler(MerchantShareError)
    def _over_share(_error: MerchantShareError) -> Response:
        if guard is not None:
            guard.tell("share")
        return response(refused(Refusal("share", RETRY_AFTER_SHARE_S)))

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
            429: Problem,
        },
        openapi_extensions={"parameters": [_KEY_HEADER]},
    )
    def create_payment(body: Order) -> Response:
        caller = require("payments")
        answer = _created(payments, guard, caller, body)
        log_payment(answer, g.monotonic() - g.begun)
        response = _answer(answer, status_of(answer))
        response.headers.update(headers_of(answer))
        return response

    modified: dict[str, Any] = {
        "responses": {
            200: views.PaymentView,
            202: views.PaymentView,
            400: Problem,
            404: Problem,
            409: Problem,
            422: Problem,
        },
        "openapi_extensions": {"parameters": [_KEY_HEADER, _PAYMENT_ID]},
    }

    @api.post("/<payment_id>/capture", summary="Capture an authorized payment, whole or in part, once", **modified)
    def capture_payment(path: PaymentPath, body: AmountBody) -> Response:
        caller, key = require("payments"), idempotency_key()
        return _modified(modifications.capture(caller.merchant, path.payment_id, body.amount, key=key))

    @api.post("/<payment_id>/cancel", summary="Release a payment of which nothing is captured", **modified)
    def cancel_payment(path: PaymentPath, body: EmptyBody) -> Response:  # noqa: ARG001 - checked to be empty
        caller, key = require("payments"), idempotency_key()
        return _modified(modifications.cancel(caller.merchant, path.payment_id, key=key))

    @api.post("/<payment_id>/refunds", summary="Refund a captured payment, whole or in part", **modified)
    def refund_payment(path: PaymentPath, body: AmountBody) -> Response:
        caller, key = require("payments"), idempotency_key()
        return _modified(modifications.refund(caller.merchant, path.payment_id, body.amount, key=key))

    @api.post("/<payment_id>/complete", summary="Finish after the customer's 3-D Secure step", **modified)
    def complete_payment(path: PaymentPath, body: DetailsBody) -> Response:
        caller, key = require("payments"), idempotency_key()
        return _modified(modifications.complete(caller.merchant, path.payment_id, body.details, key=key))

    @api.post(
        "/<payment_id>/resolve", summary="Say what the provider's dashboard says of an attempt in doubt", **modified
    )
    def resolve_payment(path: PaymentPath, body: VerdictBody) -> Response:
        caller, key = require("operate"), idempotency_key()
        if body.attempt is not None and body.operation is not None:
            raise invalid("operation", "only one of attempt and operation")
        answer = modifications.resolve(
            caller.merchant,
            path.payment_id,
            body.outcome,
            body.evidence,
            body.provider_reference,
            key=key,
            about=body.attempt or body.operation,
            by=f"{caller.merchant}: {caller.label or 'a key without a label'}",
        )
        return _modified(answer)

    @api.get("/<payment_id>", summary="Read a payment", responses={200: views.PaymentView, 404: Problem})
    def read_payment(path: PaymentPath) -> Response:
        caller = require("payments", "operate")
        answer = payments.get(caller.merchant, path.payment_id, by_checkout="payments" in caller.scopes)
        if answer is None:
            raise ProblemError(404, "not-found", "There is no such payment.")
        return _answer(answer, 200)

    @api.get("", summary="Find payments by reference", responses={200: views.PaymentList, 422: Problem})
    def find_payments(query: ReferenceQuery) -> Response:
        caller = require("payments")
        answers, cursor = payments.by_reference(caller.merchant, query.reference, limit=PAGE, before=query.cursor)
        return jsonify({"payments": [views.payment_json(each) for each in answers], "next": cursor})

    return api


def _created(payments: Payments, guard: Guard | None, caller: Caller, order: Order) -> Answer:
    """The payment: a new one within the caller's limits, one that was made before whatever they say."""
    key = idempotency_key()
    tried: Tried | None = request.environ.get(TRIED)
    if tried is not None and tried.error is not None:
        # Let go of: the error has the frames that have the environment that has `tried`.
        error, tried.error = tried.error, None
        try:
            raise error
        finally:
            del error
    refusal = tried.refusal if tried is not None and tried.refusal is not None else payment_refusal(guard, caller)
    if refusal is None:
        return created(payments, guard, caller, order, key)
    known = payments.replay(order, merchant=caller.merchant, key=key)
    if known is None:
        if guard is not None:
            guard.tell(refusal.limit)
        raise refused(refusal)
    return known


def created(payments: Payments, guard: Guard | None, caller: Caller, order: Order, key: str) -> Answer:
    """The payment of a request that is within its limits and counted against them: given back where none was made."""
    answer = payments.create(order, merchant=caller.merchant, key=key)
    if answer.replayed and guard is not None:
        guard.not_made(caller.merchant)
    return answer


def status_of(answer: Answer) -> int:
    """What a request for a payment is answered with."""
    return 202 if answer.payment.status in NOT_YET else 201


def headers_of(answer: Answer) -> list[tuple[str, str]]:
    """The headers that go with it."""
    headers = [("Location", f"/v1/payments/{answer.payment.id}")]
    return [*headers, ("Idempotent-Replayed", "true")] if answer.replayed else headers


def _modified(answer: Answer) -> Response:
    response = _answer(answer, 202 if answer.payment.resolve_at is not None else 200)
    if answer.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return response


def _answer(answer: Answer, status: int) -> Response:
    return answers.answer(views.payment_json(answer), status)
