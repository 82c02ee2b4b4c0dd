"""`/v1/events/schema`: what those who listen to payment events can rely on."""

from __future__ import annotations

from flask import Response, jsonify
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel

from router import events
from router.api.problems import Problem


class EventSchema(BaseModel):
    """A JSON schema, draft 2020-12."""


def blueprint() -> APIBlueprint:
    """The view; any key may read it."""
    api = APIBlueprint("events", __name__, abp_tags=[Tag(name="events", description="For those who listen")])
    schema = events.schema()

    @api.get(
        "/v1/events/schema",
        summary="The JSON schema of the payment events that go to Kafka",
        responses={200: EventSchema, 401: Problem, 503: Problem},
        security=[{"key": []}],
    )
    def read_schema() -> Response:
        response = jsonify(schema)
        response.content_type = "application/schema+json"
        return response

    return api
