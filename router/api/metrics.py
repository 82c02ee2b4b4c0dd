"""`GET /metrics`: this machine's figures for Prometheus. Nothing of a merchant, a payment or a card is in them."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from flask import Response, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from router.api.problems import Problem, ProblemError

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


def blueprint(page: Callable[[], bytes], *, token: str | None) -> APIBlueprint:
    """The view; with a `token`, only for whoever sends it as a bearer token."""
    api = APIBlueprint("metrics", __name__, abp_tags=[Tag(name="operations", description="On-call's calls")])

    @api.get(
        "/metrics",
        summary="Figures for Prometheus, of all processes of this machine",
        description="Needs no API key; where `ROUTER_METRICS_TOKEN` is set, that as a bearer token.",
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, 401: Problem},
    )
    def read_metrics() -> Response:
        if token is not None and not _is_sent(token):
            challenge = {"WWW-Authenticate": 'Bearer realm="pointsman metrics"'}
            raise ProblemError(401, "unauthenticated", "The metrics' token is needed.", headers=challenge)
        answer = Response(page(), content_type=CONTENT_TYPE)
        answer.headers["Cache-Control"] = "no-store"
        return answer

    return api


def _is_sent(token: str) -> bool:
    scheme, _, sent = request.headers.get("Authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(sent.strip().encode(), token.encode())
