"""`/v1/webhook-endpoints`: where checkout is told of its payments, and what came of it."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

from flask import Response, jsonify
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, ConfigDict, Field

from router.api.gate import require
from router.api.paging import page_of
from router.api.problems import Problem, ProblemError, invalid, response
from router.api.views import moment
from router.ledger.webhook_deliveries import DeliveryLedger
from router.ledger.webhook_endpoints import TooManyEndpointsError
from router.ledger.webhook_records import Delivery, Endpoint
from router.order import Moment, Text80, Text255, Text500
from router.webhooks_out_endpoints import (
    OLD_SECRET_AT_MOST_H,
    OLD_SECRET_FOR_H,
    BadEndpointError,
    Endpoints,
    NoSuchEndpointError,
)

HIGHEST_NUMBER = 2**63 - 1
BY_API = "disabled over the API"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class EndpointPath(BaseModel):
    """An endpoint's id."""

    endpoint_id: Text80


class NewEndpoint(_Strict):
    """What checkout asks for."""

    url: Annotated[str, Field(min_length=1, max_length=1000, description="https, at a public address")]
    event_types: list[Text80] = Field(
        [], max_length=50, description="Which types of events; absent or empty: all but `updated`"
    )
    description: Text500 = ""


class Rotation(_Strict):
    """How a secret is replaced."""

    old_secret_hours: float = Field(
        OLD_SECRET_FOR_H, ge=0, le=OLD_SECRET_AT_MOST_H, description="For so long the old secret signs as well"
    )


class Disabling(_Strict):
    """Why nothing more is to be sent."""

    reason: Text255 | None = None


class Resending(_Strict):
    """From when on."""

    since: Moment = Field(description="Everything since then is sent again, in order, and some of the minute before")


class DeliveryQuery(BaseModel):
    """Which deliveries, and where in the list to go on."""

    state: Literal["pending", "accepted", "given_up"] | None = None
    cursor: int | None = Field(None, ge=1, le=HIGHEST_NUMBER, description="`next` of a page")


class EndpointView(BaseModel):
    """An endpoint; its secret is not shown again."""

    id: str
    url: str
    event_types: list[str]
    description: str
    state: Literal["enabled", "disabled"]
    cause: str | None = Field(description="why it is disabled")
    state_since: str
    failing_since: str | None = Field(description="since when it has accepted nothing that it was sent")
    next_try_at: str | None = Field(description="of one that is failing")
    old_secret_until: str | None = Field(description="until when a secret that was replaced signs too")
    created_at: str


class EndpointWithSecret(EndpointView):
    """A new endpoint, with what its deliveries are signed with."""

    secret: str


class EndpointList(BaseModel):
    """A merchant's endpoints, oldest first."""

    endpoints: list[EndpointView]
    next: None


class DeliveryView(BaseModel):
    """One event to one endpoint."""

    event_id: str
    type: str
    payment: str
    version: int
    state: Literal["pending", "accepted", "given_up"]
    attempts: int
    last_attempt_at: str | None
    last_status: int | None = Field(description="of the endpoint's last answer")
    last_reason: str | None = Field(description="why it was not accepted, as a word")
    latency_ms: int | None
    next_try_at: str | None
    accepted_at: str | None
    created_at: str


class DeliveryList(BaseModel):
    """A page of deliveries, the latest first; `next` is the cursor of the following page."""

    deliveries: list[DeliveryView]
    next: int | None


def blueprint(endpoints: Endpoints, deliveries: DeliveryLedger) -> APIBlueprint:
    """The views."""
    about = "Payment events, told to checkout"
    api = APIBlueprint("webhook_endpoints", __name__, abp_tags=[Tag(name="webhooks", description=about)])
    secured: dict[str, Any] = {"security": [{"key": []}]}
    refusals: dict[int | str, Any] = dict.fromkeys((401, 403, 422, 503), Problem)
    one: dict[int | str, Any] = {**refusals, 404: Problem}

    @api.errorhandler(BadEndpointError)
    def _bad(error: BadEndpointError) -> Response:
        return response(invalid(error.field, error.detail))

    @api.errorhandler(NoSuchEndpointError)
    def _unknown(_error: NoSuchEndpointError) -> Response:
        return response(ProblemError(404, "not-found", "There is no such webhook endpoint."))

    @api.errorhandler(TooManyEndpointsError)
    def _too_many(_error: TooManyEndpointsError) -> Response:
        detail = "This merchant has as many webhook endpoints as one may have."
        return response(ProblemError(409, "too-many-endpoints", detail))

    @api.post(
        "/v1/webhook-endpoints",
        summary="Have events told to an address; its secret is in this answer only",
        responses={201: EndpointWithSecret, **refusals, 400: Problem, 409: Problem},
        **secured,
    )
    def create_endpoint(body: NewEndpoint) -> tuple[Response, int]:
        caller = require("operate")
        endpoint, secret = endpoints.create(
            merchant=caller.merchant, url=body.url, event_types=body.event_types, description=body.description
        )
        return jsonify(endpoint_json(endpoint) | {"secret": secret}), 201

    @api.get(
        "/v1/webhook-endpoints",
        summary="Where events are told",
        responses={200: EndpointList, 401: Problem, 403: Problem, 503: Problem},
        **secured,
    )
    def list_endpoints() -> Response:
        caller = require("operate")
        return jsonify({"endpoints": [endpoint_json(each) for each in endpoints.list(caller.merchant)], "next": None})

    @api.get(
        "/v1/webhook-endpoints/<endpoint_id>",
        summary="One endpoint, and how it fares",
        responses={200: EndpointView, **one},
        **secured,
    )
    def read_endpoint(path: EndpointPath) -> Response:
        return jsonify(endpoint_json(endpoints.find(path.endpoint_id, require("operate").merchant)))

    @api.post(
        "/v1/webhook-endpoints/<endpoint_id>/rotate-secret",
        summary="A new secret; for a while both sign",
        responses={200: EndpointWithSecret, **one, 400: Problem},
        **secured,
    )
    def rotate_secret(path: EndpointPath, body: Rotation) -> Response:
        merchant = require("operate").merchant
        secret = endpoints.rotate(path.endpoint_id, merchant, old_for_h=body.old_secret_hours)
        return jsonify(endpoint_json(endpoints.find(path.endpoint_id, merchant)) | {"secret": secret})

    @api.post(
        "/v1/webhook-endpoints/<endpoint_id>/disable",
        summary="Send it nothing; what happens meanwhile waits",
        responses={200: EndpointView, **one, 400: Problem},
        **secured,
    )
    def disable_endpoint(path: EndpointPath, body: Disabling) -> Response:
        caller = require("operate")
        return jsonify(endpoint_json(endpoints.disable(path.endpoint_id, caller.merchant, body.reason or BY_API)))

    @api.post(
        "/v1/webhook-endpoints/<endpoint_id>/enable",
        summary="Go on sending where it was left",
        responses={200: EndpointView, **one, 400: Problem},
        **secured,
    )
    def enable_endpoint(path: EndpointPath) -> Response:
        return jsonify(endpoint_json(endpoints.enable(path.endpoint_id, require("operate").merchant)))

    @api.post(
        "/v1/webhook-endpoints/<endpoint_id>/resend",
        summary="Send again, in order, whatever happened since a moment",
        responses={202: EndpointView, **one, 400: Problem},
        **secured,
    )
    def resend(path: EndpointPath, body: Resending) -> tuple[Response, int]:
        merchant = require("operate").merchant
        endpoints.resend(path.endpoint_id, merchant, body.since.astimezone(dt.UTC))
        return jsonify(endpoint_json(endpoints.find(path.endpoint_id, merchant))), 202

    @api.delete(
        "/v1/webhook-endpoints/<endpoint_id>",
        summary="Forget an endpoint, its secrets and what it was to be sent",
        responses={204: None, **one},
        **secured,
    )
    def delete_endpoint(path: EndpointPath) -> tuple[str, int]:
        endpoints.delete(path.endpoint_id, require("operate").merchant)
        return "", 204

    @api.get(
        "/v1/webhook-endpoints/<endpoint_id>/deliveries",
        summary="What was sent to it, and what came of it, the latest first",
        responses={200: DeliveryList, **one},
        **secured,
    )
    def list_deliveries(path: EndpointPath, query: DeliveryQuery) -> Response:
        endpoint = endpoints.find(path.endpoint_id, require("operate").merchant)
        page, cursor = page_of(
            lambda limit: deliveries.page(endpoint.id, query.state, limit=limit, before=query.cursor),
            lambda each: each.number,
        )
        return jsonify({"deliveries": [delivery_json(each) for each in page], "next": cursor})

    return api


def endpoint_json(endpoint: Endpoint) -> dict[str, Any]:
    """EndpointView."""
    return {
        "id": endpoint.id,
        "url": endpoint.url,
        "event_types": list(endpoint.event_types),
        "description": endpoint.description,
        "state": endpoint.state,
        "cause": endpoint.cause,
        "state_since": _time(endpoint.state_at),
        "failing_since": _time(endpoint.failing_since),
        "next_try_at": _time(endpoint.next_try_at) if endpoint.state == "enabled" else None,
        "old_secret_until": _time(endpoint.old_secret_until),
        "created_at": _time(endpoint.created_at),
    }


def delivery_json(delivery: Delivery) -> dict[str, Any]:
    """DeliveryView."""
    return {
        "event_id": delivery.event_id,
        "type": delivery.type,
        "payment": delivery.payment_id,
        "version": delivery.version,
        "state": delivery.state,
        "attempts": delivery.attempts,
        "last_attempt_at": _time(delivery.last_at),
        "last_status": delivery.last_status,
        "last_reason": delivery.last_reason,
        "latency_ms": delivery.latency_ms,
        "next_try_at": _time(delivery.next_try_at) if delivery.state == "pending" else None,
        "accepted_at": _time(delivery.ended_at) if delivery.state == "accepted" else None,
        "created_at": _time(delivery.created_at),
    }


def _time(at: dt.datetime | None) -> str | None:
    return None if at is None else moment(at)
