"""`/v1/flips`, `/v1/flags/changes`, `/v1/incidents` and the health pages: on-call's calls."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import structlog
from flask import Response, jsonify
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, ConfigDict, Field

from flags.contract import FlagSource
from router.api import operator_views
from router.api.gate import require
from router.api.paging import CursorQuery, page_of
from router.api.problems import Problem, ProblemError
from router.clock import Clock
from router.health import ProviderHealth
from router.ledger.circuits import CircuitLedger
from router.ledger.flag_values import FlagValueLedger
from router.ledger.flips import FlipLedger, RestoreRefusedError
from router.ledger.parked import ParkedLedger
from router.ledger.unavailable import LedgerUnavailableError
from router.local_override import LocalOverride
from router.order import Text80, Text255

log = structlog.get_logger("router.api")

HIGHEST_NUMBER = 2**63 - 1
"""What the ledger's column holds; more makes a database refuse the query."""


class ChangesQuery(BaseModel):
    """Which changes of flags, and where to go on."""

    key: Text80 | None = Field(None, description="Of this flag only")
    cursor: int | None = Field(None, ge=1, le=HIGHEST_NUMBER, description="`next` of a page")


class Alive(BaseModel):
    """The process answers."""

    status: str


class RelayLag(BaseModel):
    """How far behind one of the relays of payment events is."""

    events: int = Field(description="Not delivered yet; 100,000 stands for as many or more")
    seconds: float = Field(description="Since the oldest of them happened")
    failing_since: str | None = Field(description="Nothing could be delivered since; null: it goes on")
    cause: str | None


class WebhookLag(BaseModel):
    """How far behind checkout's webhook endpoints are, together. 100,000 stands for as many or more."""

    pending: int = Field(description="Deliveries that are ready to be sent, or sent again")
    pending_seconds: float = Field(description="Since the oldest of them was made")
    unread: int = Field(
        description="Events after the place of the enabled endpoint that is furthest behind; a minute's that it does"
        " not want may be among them"
    )
    unread_seconds: float = Field(description="Since the first of them happened")
    failing: int = Field(description="Enabled endpoints that accepted nothing when they were last tried")
    disabled: int


class Sealing(BaseModel):
    """Secrets at rest: what is sealed, and what cannot be opened."""

    seals: bool = Field(description="Whether what is new is sealed")
    key: str | None = Field(description="The id of the key that this process seals with")
    unreadable: list[str] = Field(description="What it could not open, and why; what needs it waits")
    trouble: str | None = Field(description="Why the keys that are set now are not in force")


class Ready(BaseModel):
    """Whether a payment can be taken, and what to know besides. Only the ledger makes it not ready."""

    ready: bool
    ledger: str
    flags: operator_views.FlagsView
    circuits: dict[str, str]
    overrides: list[operator_views.OverrideView]
    parked: operator_views.WaitingView | None = None
    """None: the ledger, which knows it, is away."""
    relays: dict[str, RelayLag] = Field(description="By name; one that has never run is not among them")
    webhooks: WebhookLag | None = None
    """None: the ledger, which knows it, is away."""
    sealing: Sealing | None = None


class FlipPath(BaseModel):
    """A flip's id."""

    id: Text80


class RestoreOrder(BaseModel):
    """Why a flip is undone."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[Text255, Field(description="Why, for the audit record")]


def blueprint(
    *,
    providers: Sequence[str],
    health: ProviderHealth,
    flags: FlagSource,
    flips: FlipLedger,
    override: LocalOverride,
    flag_values: FlagValueLedger,
    circuits: CircuitLedger,
    clock: Clock,
    ledger_fault: Callable[[], str | None],
    parked: ParkedLedger,
    relay_lags: Callable[[], Mapping[str, Mapping[str, Any]]],
    webhook_lag: Callable[[], Mapping[str, Any] | None],
    sealing: Callable[[], Mapping[str, Any]],
) -> APIBlueprint:
    """The views; `ledger_fault` tries a write and answers what is wrong, or None."""
    api = APIBlueprint("operations", __name__, abp_tags=[Tag(name="operations", description="On-call's calls")])
    secured: dict[str, Any] = {"security": [{"key": []}]}

    @api.get(
        "/v1/flips",
        summary="What the router changed by itself",
        responses={200: operator_views.FlipList, 401: Problem, 403: Problem, 503: Problem},
        **secured,
    )
    def list_flips(query: CursorQuery) -> Response:
        require("operate", "reports")
        page, cursor = page_of(lambda limit: flips.page(limit=limit, before=query.cursor), lambda each: each.id)
        return jsonify({"flips": [operator_views.flip_json(each) for each in page], "next": cursor})

    @api.post(
        "/v1/flips/<id>/restore",
        summary="End the flip's override, and have the flag serve again what it did, if nobody has touched it since",
        responses={202: operator_views.FlipView, **dict.fromkeys((400, 401, 403, 404, 409, 422, 503), Problem)},
        **secured,
    )
    def restore_flip(path: FlipPath, body: RestoreOrder) -> tuple[Response, int]:
        caller = require("operate")
        by = f"operator: {caller.label or 'a key without a label'} of {caller.merchant}"
        try:
            flip = flips.ask_restore(path.id, by=by, reason=body.reason, at=clock.now())
        except RestoreRefusedError as error:
            raise ProblemError(409, "state-conflict", str(error)) from None
        if flip is None:
            raise ProblemError(404, "not-found", "There is no flip of this id.")
        log.warning("restore_asked", flip=flip.id, by=by, reason=body.reason)
        return jsonify(operator_views.flip_json(flip)), 202

    @api.get(
        "/v1/flags/changes",
        summary="What was changed of the flags, newest first, whoever changed it",
        responses={200: operator_views.FlagChangeList, **dict.fromkeys((401, 403, 422, 503), Problem)},
        **secured,
    )
    def list_flag_changes(query: ChangesQuery) -> Response:
        require("operate", "reports")
        page, cursor = page_of(
            lambda limit: flag_values.page(limit=limit, before=query.cursor, key=query.key), lambda each: each.number
        )
        return jsonify({"changes": [operator_views.flag_change_json(each) for each in page], "next": cursor})

    @api.get(
        "/v1/incidents",
        summary="What went wrong with the providers, newest first",
        responses={200: operator_views.IncidentList, **dict.fromkeys((401, 403, 422, 503), Problem)},
        **secured,
    )
    def list_incidents(query: CursorQuery) -> Response:
        require("operate", "reports")
        page, cursor = page_of(
            lambda limit: circuits.incidents(providers, limit=limit, before=query.cursor), lambda each: each.id
        )
        moved = flips.of(each.id for each in page)
        now = clock.now()
        rows = [operator_views.incident_json(each, moved.get(each.id), now) for each in page]
        return jsonify({"incidents": rows, "next": cursor})

    @api.get("/healthz", summary="Is this process alive", responses={200: Alive})
    def healthz() -> Response:
        return jsonify({"status": "ok"})

    @api.get("/readyz", summary="Can this process take a payment", responses={200: Ready, 503: Ready})
    def readyz() -> Response:
        fault = ledger_fault()
        waiting = None
        if fault is None:
            with contextlib.suppress(LedgerUnavailableError):
                waiting = operator_views.waiting_json(parked.waiting(), clock.now())
        response = jsonify(
            {
                "ready": fault is None,
                "ledger": fault or "ok",
                "flags": operator_views.flags_json(flags.status(), clock.now()),
                "circuits": {name: health.snapshot(name).state.value for name in providers},
                "overrides": [operator_views.override_json(each) for each in override.in_force],
                "parked": waiting,
                # A ledger that is away must not be asked twice: the page would come too late to be of use.
                "relays": relay_lags() if fault is None else {},
                "webhooks": webhook_lag() if fault is None else None,
                "sealing": sealing(),
            }
        )
        response.status_code = 200 if fault is None else 503
        return response

    return api
