"""`/v1/providers`: every provider's circuit and health, and an operator's orders to it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Annotated, Any

import structlog
from flask import Response, jsonify
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, ConfigDict, Field

from flags.contract import FlagContext, FlagSource
from router.accounts import Accounts
from router.api import operator_views
from router.api.gate import require
from router.api.paging import page_of
from router.api.problems import Problem, ProblemError, invalid
from router.appraisal import Appraiser
from router.clock import Clock
from router.health import ProviderHealth
from router.ledger.circuits import CircuitLedger
from router.ledger.unavailable import LedgerUnavailableError
from router.order import Moment, Text80, Text255
from router.overrides import AlreadyAutomaticError, AutomaticHasNoEndError, EndsInThePastError, Mode, Overrides

log = structlog.get_logger("router.api")

RECOVERIES_OF = dt.timedelta(days=30)
HIGHEST_VERSION = 2**31 - 1
"""What the ledger's column holds; more makes a database refuse the query."""


class ProviderPath(BaseModel):
    """A provider's name."""

    name: Text80


class BreakerOrder(BaseModel):
    """What an operator orders of a circuit."""

    model_config = ConfigDict(extra="forbid")

    mode: Mode
    reason: Annotated[Text255, Field(description="Why, for the audit record")]
    until: Moment | None = Field(None, description="When the order ends by itself; absent: never")


class TransitionQuery(BaseModel):
    """Where in the list to go on."""

    cursor: int | None = Field(None, ge=1, le=HIGHEST_VERSION, description="`next` of a page")


def blueprint(
    *,
    providers: Sequence[str],
    health: ProviderHealth,
    appraiser: Appraiser,
    flags: FlagSource,
    circuits: CircuitLedger,
    accounts: Accounts,
    overrides: Overrides,
    clock: Clock,
) -> APIBlueprint:
    """The views."""
    api = APIBlueprint("circuits", __name__, abp_tags=[Tag(name="operations", description="On-call's calls")])
    secured: dict[str, Any] = {"security": [{"key": []}]}

    def shown(name: str) -> dict[str, Any]:
        now = clock.now()
        told = operator_views.provider_json(
            health, name, flags.read(FlagContext()), now, appraiser.typical(now)[name]
        )
        return told | {"account": operator_views.account_json(accounts.known(name))}

    @api.get(
        "/v1/providers",
        summary="Every provider's circuit and health",
        responses={200: operator_views.ProviderList, 401: Problem, 403: Problem},
        **secured,
    )
    def list_providers() -> Response:
        require("operate", "reports")
        try:
            recoveries = circuits.recoveries(providers, since=clock.now() - RECOVERIES_OF)
        except LedgerUnavailableError:
            # Whoever is on call wants to see the circuits in that hour above all.
            return jsonify({"providers": [shown(name) | {"recovery": None} for name in providers]})
        rows = [shown(name) | {"recovery": operator_views.recovery_json(recoveries.get(name))} for name in providers]
        return jsonify({"providers": rows})

    @api.get(
        "/v1/providers/<name>/transitions",
        summary="A circuit's history, newest first: who or what moved it, when and why",
        responses={200: operator_views.TransitionList, **dict.fromkeys((401, 403, 404, 422, 503), Problem)},
        **secured,
    )
    def list_transitions(path: ProviderPath, query: TransitionQuery) -> Response:
        require("operate", "reports")
        _known(path.name)
        page, cursor = page_of(
            lambda limit: circuits.history(path.name, limit=limit, before=query.cursor), lambda each: each.version
        )
        return jsonify({"transitions": [operator_views.transition_json(each) for each in page], "next": cursor})

    @api.post(
        "/v1/providers/<name>/breaker",
        summary="Order a circuit open, bypassed, only measured, back to automatic, or closed anew",
        responses={
            200: operator_views.TransitionView,
            **dict.fromkeys((400, 401, 403, 404, 409, 422, 503), Problem),
        },
        **secured,
    )
    def order_breaker(path: ProviderPath, body: BreakerOrder) -> Response:
        caller = require("operate")
        _known(path.name)
        until = None if body.until is None else body.until.astimezone(dt.UTC)
        by = f"operator: {caller.label or 'a key without a label'} of {caller.merchant}"
        try:
            transition = overrides.order(path.name, body.mode, reason=body.reason, by=by, until=until)
        except AlreadyAutomaticError:
            raise ProblemError(409, "state-conflict", "The circuit is automatic: nothing is overridden.") from None
        except EndsInThePastError:
            raise invalid("until", "must be in the future") from None
        except AutomaticHasNoEndError:
            raise invalid("until", "an automatic circuit has no end") from None
        log.warning("override", provider=path.name, mode=body.mode, by=by, reason=body.reason)
        health.follow(transition)
        return jsonify(operator_views.transition_json(transition))

    def _known(name: str) -> None:
        if name not in providers:
            raise ProblemError(404, "not-found", "There is no provider of this name.")

    return api
