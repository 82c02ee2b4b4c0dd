"""`/v1/attention`: the operator's queue."""

from __future__ import annotations

from flask import Response, jsonify
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from router import doubts
from router.api import views
from router.api.gate import require
from router.api.paging import CursorQuery, page_of
from router.api.problems import Problem
from router.ledger.attention import AttentionLedger


def blueprint(queue: AttentionLedger) -> APIBlueprint:
    """The view, over the queue's query."""
    api = APIBlueprint("attention", __name__, abp_tags=[Tag(name="operations", description="On-call's calls")])

    @api.get(
        "/v1/attention",
        summary="Payments that the router cannot end without a person, and what is in doubt of each",
        responses={200: views.AttentionList, 401: Problem, 403: Problem, 422: Problem, 503: Problem},
        security=[{"key": []}],
    )
    def list_attention(query: CursorQuery) -> Response:
        caller = require("operate")
        page, cursor = page_of(
            lambda limit: queue.page(merchant=caller.merchant, limit=limit, after=query.cursor),
            lambda each: each[0].id,
        )
        rows = [views.attention_json(each[0], doubts.of_payment(*each)) for each in page]
        return jsonify({"payments": rows, "next": cursor})

    return api
