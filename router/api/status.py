"""`GET /v1/status`: whether payments go through, for checkout's pages. Needs no key, and no ledger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

from flask import Response, jsonify, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, Field

from flags.contract import FlagContext, FlagSource, RoutingFlags
from router.health import ProviderHealth

MAX_AGE_S = 3
"""A page that polls sees a change within so long, whatever caches are before it; a process within 0.25 s."""

Status = Literal["available", "degraded", "parking", "maintenance"]


class StatusView(BaseModel):
    """Whether payments go through now."""

    status: Status = Field(
        description="`available`; `degraded`: some providers have trouble, payments go through; `parking`: none can "
        "take a payment now, they are accepted and paid later; `maintenance`: the team says so, in `notice`"
    )
    notice: str | None = Field(description="what the team has to say; plain text")


def status_of(flags: RoutingFlags, health: ProviderHealth, providers: Sequence[str]) -> Status:
    """The service as a customer has it. A provider that is switched off on purpose is no trouble."""
    if flags.maintenance_notice.strip():
        return "maintenance"
    enabled = [name for name in providers if flags.is_enabled(name)]
    if not any(health.is_admitting(name) for name in enabled):
        return "parking"
    return "available" if all(health.is_well(name) for name in enabled) else "degraded"


def blueprint(*, providers: Sequence[str], health: ProviderHealth, flags: FlagSource) -> APIBlueprint:
    """The view."""
    api = APIBlueprint("status", __name__, abp_tags=[Tag(name="payments", description="Checkout's calls")])

    @api.get(
        "/v1/status",
        summary="Do payments go through now",
        description="For a page that is shown to customers: no key, cacheable, with an ETag.",
        responses={200: StatusView},
    )
    def read_status() -> Response:
        view = flags.read(FlagContext())
        notice = view.maintenance_notice.strip() or None
        response = jsonify({"status": status_of(view, health, providers), "notice": notice})
        response.cache_control.public, response.cache_control.max_age = True, MAX_AGE_S
        # A shop's page is of another origin than this; there is nothing in it that is not for everybody.
        response.access_control_allow_origin = "*"
        response.add_etag()
        return cast("Response", response.make_conditional(request))

    return api
