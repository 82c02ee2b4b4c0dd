"""`/v1/events/schema`: what those who listen to payment events can rely on."""

from __future__ import annotations

from flask import Response, jsonify
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag

from router import events
from router.api.problems import Problem

MEDIA_TYPE = "application/schema+json"
SCHEMA = {"description": "A JSON schema, draft 2020-12", "content": {MEDIA_TYPE: {"schema": {"type": "object"}}}}


def blueprint() -> APIBlueprint:
    """The view; any key may read it."""
    api = APIBlueprint("events", __name__, abp_tags=[Tag(name="events", description="For those who listen")])
    schema = events.schema()

    @api.get(
        "/v1/events/schema",
        summary="The JSON schema of the payment events that go to Kafka",
        responses={200: SCHEMA, 401: Problem, 503: Problem},
        security=[{"key": []}],
    )
    def read_schema() -> Response:
        response = jsonify(schema)
        response.content_type = MEDIA_TYPE
        return response

    return api
