"""`/v1/dead-letters`: parked payments that an error of ours keeps from being tried, and their re-drive."""

from __future__ import annotations

from typing import Any

import structlog
from flask import Response, jsonify
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, Field

from router.api import views
from router.api.gate import require
from router.api.paging import CursorQuery, page_of
from router.api.problems import Problem, ProblemError
from router.clock import Clock
from router.ledger.parked import ParkedLedger
from router.ledger.records import Payment, StaleError
from router.order import Text80

log = structlog.get_logger("router.api")


class DeadLetterPath(BaseModel):
    """A dead letter's address."""

    payment_id: Text80 = Field(description="`pay_…`")


class DeadLetterView(BaseModel):
    """A parked payment that is not tried any more: for checkout it is `parked`, with no `retry_at`."""

    id: str
    reference: str
    amount: int
    currency: str
    faults: int = Field(description="errors of the router's own, in a row")
    cause: str | None = Field(description="the last one's kind; the log has its traceback")
    dead_at: str | None
    expires_at: str = Field(description="then it ends `failed`, tried or not")
    created_at: str


class DeadLetterList(BaseModel):
    """A page of dead letters, the oldest first; `next` is the cursor of the following page."""

    payments: list[DeadLetterView]
    next: str | None


def dead_letter_json(payment: Payment, cause: str | None) -> dict[str, Any]:
    """A payment as DeadLetterView describes it."""
    return {
        "id": payment.id,
        "reference": payment.reference,
        "amount": payment.amount,
        "currency": payment.currency,
        "faults": payment.faults,
        "cause": cause,
        "dead_at": None if payment.dead_at is None else views.moment(payment.dead_at),
        "expires_at": views.moment(payment.expires_at),
        "created_at": views.moment(payment.created_at),
    }


def blueprint(parked: ParkedLedger, clock: Clock) -> APIBlueprint:
    """The views, over the queries that answer them."""
    api = APIBlueprint("dead_letters", __name__, abp_tags=[Tag(name="operations", description="On-call's calls")])
    secured: dict[str, Any] = {"security": [{"key": []}]}

    @api.get(
        "/v1/dead-letters",
        summary="Parked payments that an error of the router's own keeps from being tried",
        responses={200: DeadLetterList, **dict.fromkeys((401, 403, 422, 503), Problem)},
        **secured,
    )
    def list_dead_letters(query: CursorQuery) -> Response:
        caller = require("operate")
        page, cursor = page_of(
            lambda limit: parked.dead(merchant=caller.merchant, limit=limit, after=query.cursor),
            lambda each: each[0].id,
        )
        return jsonify({"payments": [dead_letter_json(*each) for each in page], "next": cursor})

    @api.post(
        "/v1/dead-letters/<payment_id>/redrive",
        summary="Have a dead letter tried again, now",
        responses={200: DeadLetterView, **dict.fromkeys((401, 403, 404, 409, 422, 503), Problem)},
        **secured,
    )
    def redrive(path: DeadLetterPath) -> Response:
        caller = require("operate")
        by = f"operator: {caller.label or 'a key without a label'} of {caller.merchant}"
        try:
            payment = parked.redrive(path.payment_id, merchant=caller.merchant, by=by, now=clock.now())
        except StaleError:
            raise ProblemError(409, "state-conflict", "The payment is not a dead letter.") from None
        if payment is None:
            raise ProblemError(404, "not-found", "There is no such payment.")
        log.warning("redriven", payment=payment.id, by=by)
        return jsonify(dead_letter_json(payment, None))

    return api
