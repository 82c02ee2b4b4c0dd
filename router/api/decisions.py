"""`/v1/decisions`: for a checkout that calls the providers by itself."""

from __future__ import annotations

from typing import Annotated

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, StringConstraints

from providers import reported
from router.api import views
from router.api.answers import answer
from router.api.gate import require
from router.api.problems import RETRY_AFTER_UNAVAILABLE_S, Problem, ProblemError, invalid
from router.decision_ids import MAXIMUM_CHARS
from router.decisions import (
    LONGEST_MS,
    DecisionExpiredError,
    DecisionFinishedError,
    DecisionOrder,
    Decisions,
    NoSuchDecisionError,
    NotACandidateError,
    OutcomeAlreadyToldError,
    OutcomeWord,
)
from router.ledger.unavailable import LedgerUnavailableError
from router.order import ProviderName


def _code(value: str) -> str:
    if not reported.is_code(value):
        msg = "must be a provider's code or one of ours: letters, digits, underscores, dots and dashes"
        raise ValueError(msg)
    return value


class DecisionPath(BaseModel):
    """A decision's address."""

    decision_id: Annotated[str, StringConstraints(min_length=1, max_length=MAXIMUM_CHARS)] = Field(
        description="`dec_…`, as it was answered"
    )


class OutcomeBody(BaseModel):
    """How a call at one provider ended."""

    model_config = ConfigDict(extra="forbid")

    provider: ProviderName = Field(description="one of the decision's `order`")
    outcome: OutcomeWord = Field(
        description=(
            "`not_executed`: it is proved that the provider did nothing; `unknown`: it may have acted; "
            "`requires_action`: the customer has to; afterwards tell `approved` or `declined` of the same provider"
        )
    )
    latency_ms: Annotated[StrictInt, Field(ge=0, le=LONGEST_MS)]
    decline_code: Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(_code)] | None = (
        Field(
            None, description="Of a decline: the provider's own code, or a word of ours; unknown ones count as soft"
        )
    )


def blueprint(decisions: Decisions) -> APIBlueprint:
    """The views, over the service that answers them."""
    api = APIBlueprint(
        "decisions",
        __name__,
        url_prefix="/v1/decisions",
        abp_tags=[Tag(name="decisions", description="For a checkout that calls the providers by itself")],
        abp_security=[{"key": []}],
        abp_responses={401: Problem, 403: Problem, 422: Problem, 503: Problem},
    )

    @api.post(
        "",
        summary="Decide and explain, charge nothing",
        description="The body of a payment, whose tokens may be left out. 200: nothing is made that could be read.",
        responses={200: views.DecidedView, 400: Problem, 413: Problem},
    )
    def decide(body: DecisionOrder) -> Response:
        decided = decisions.decide(body, merchant=require("payments").merchant)
        return answer(views.decided_body(decided))

    @api.post(
        "/<decision_id>/outcome",
        summary="Tell how the call at a provider ended, once for each, and what came of a customer's step",
        description="Teaches scores; it can make a provider suspect, and never opens its circuit.",
        responses={200: views.OutcomeView, 400: Problem, 404: Problem, 409: Problem, 410: Problem},
    )
    def tell_outcome(path: DecisionPath, body: OutcomeBody) -> Response:
        caller = require("payments")
        if body.decline_code is not None and body.outcome != "declined":
            raise invalid("decline_code", "only with the outcome declined")
        try:
            told, replayed = decisions.tell(
                path.decision_id,
                merchant=caller.merchant,
                provider=body.provider,
                outcome=body.outcome,
                latency_ms=body.latency_ms,
                decline_code=body.decline_code,
            )
        except NoSuchDecisionError:
            raise ProblemError(404, "not-found", "There is no such decision.") from None
        except DecisionExpiredError:
            raise ProblemError(410, "decision-expired", "This decision is too old for an outcome.") from None
        except NotACandidateError:
            raise invalid("provider", "was not among the decision's eligible providers") from None
        except OutcomeAlreadyToldError:
            raise _conflict("outcome-already-told", "another outcome of this provider was told before") from None
        except DecisionFinishedError:
            raise _conflict("decision-finished", "an outcome told before has finished this decision") from None
        except LedgerUnavailableError:
            retry = {"Retry-After": str(RETRY_AFTER_UNAVAILABLE_S)}
            detail = "The ledger is away. Tell the same outcome again: it counts once."
            raise ProblemError(503, "ledger-unavailable", detail, headers=retry) from None
        response = answer(views.outcome_json(path.decision_id, told))
        if replayed:
            response.headers["Idempotent-Replayed"] = "true"
        return response

    return api


def _conflict(kind: str, detail: str) -> ProblemError:
    return ProblemError(409, kind, f"provider: {detail}", errors=[{"field": "provider", "detail": detail}])
