"""Refusals as RFC 9457 problem documents: a stable type, the field that is wrong, never its value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import structlog
from flask import Flask, Response, json, request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from werkzeug.exceptions import HTTPException

from router.ledger.records import ReferenceInUseError
from router.ledger.sealed import UnreadableError
from router.ledger.unavailable import CommitUnknownError, LedgerUnavailableError
from router.modifications import NoSuchPaymentError, StateConflictError, WrongReferenceError
from router.payments import (
    AlreadyExpiredError,
    IdempotencyKeyReusedError,
    NoEligibleProviderError,
    PaymentBusyError,
    ProvidersUnavailableError,
    RequestInProgressError,
)

log = structlog.get_logger("router.api")

TYPE_PREFIX = "urn:pointsman:problem:"
RETRY_AFTER_IN_PROGRESS_S = 1
RETRY_AFTER_UNAVAILABLE_S = 5


class Problem(BaseModel):
    """A problem document (RFC 9457), `application/problem+json`."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=[TYPE_PREFIX + "invalid-request"])
    title: str
    status: int
    detail: str
    errors: list[FieldError] | None = None


class FieldError(BaseModel):
    """One thing that is wrong with a request; the value is never repeated."""

    field: str = Field(examples=["payment_method.tokens.stripe"])
    detail: str


class ProblemError(Exception):
    """Ends a request with a problem document."""

    def __init__(
        self, status: int, kind: str, detail: str, *, headers: Mapping[str, str] | None = None, **extra: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.headers = headers or {}
        self.extra = extra


def invalid(field: str, detail: str, *, status: int = 422) -> ProblemError:
    """The refusal of one field."""
    return ProblemError(status, "invalid-request", f"{field}: {detail}", errors=[{"field": field, "detail": detail}])


def response(problem: ProblemError) -> Response:
    """The document of a problem."""
    body = {
        "type": TYPE_PREFIX + problem.kind,
        "title": problem.kind.replace("-", " ").capitalize(),
        "status": problem.status,
        "detail": problem.detail,
        **problem.extra,
    }
    answer = Response(json.dumps(body), status=problem.status, content_type="application/problem+json")
    answer.headers.extend(dict(problem.headers))
    return answer


_NAME = re.compile(r"^[A-Za-z0-9_.\-]{1,64}$")


def _field(location: tuple[int | str, ...]) -> str:
    """A dotted path to the field. Parts that are pydantic's, or that cannot be a field's name, are left out."""
    parts = []
    for part, following in zip(location, (*location[1:], None), strict=True):
        # A key that is itself refused is a value the client sent, not the name of a field.
        if following == "[key]":
            break
        if _NAME.match(str(part)) and part not in {"constrained-str", "str"}:
            parts.append(str(part))
    return ".".join(parts) or "body"


def from_validation(error: ValidationError) -> Response:
    """Every field that is wrong, by name; pydantic's own answer would repeat the values."""
    errors: dict[str, str] = {}
    for each in error.errors(include_input=False, include_url=False, include_context=False):
        errors.setdefault(_field(each["loc"]), each["msg"].removeprefix("Value error, "))
    rows = [{"field": field, "detail": detail} for field, detail in errors.items()]
    detail = "; ".join(f"{row['field']}: {row['detail']}" for row in rows[:3])
    return response(ProblemError(422, "invalid-request", detail, errors=rows))


def install(app: Flask) -> None:
    """Answer every refusal and every fault of ours with a problem document."""

    @app.errorhandler(ProblemError)
    def _problem(error: ProblemError) -> Response:
        return response(error)

    @app.errorhandler(IdempotencyKeyReusedError)
    def _reused(_error: IdempotencyKeyReusedError) -> Response:
        detail = "This Idempotency-Key was used with another body."
        return response(ProblemError(422, "idempotency-key-reused", detail))

    @app.errorhandler(RequestInProgressError)
    def _in_progress(_error: RequestInProgressError) -> Response:
        retry = {"Retry-After": str(RETRY_AFTER_IN_PROGRESS_S)}
        detail = "The first request with this Idempotency-Key is still running."
        return response(ProblemError(409, "request-in-progress", detail, headers=retry))

    @app.errorhandler(PaymentBusyError)
    def _busy(_error: PaymentBusyError) -> Response:
        retry = {"Retry-After": str(RETRY_AFTER_IN_PROGRESS_S)}
        detail = "Another request, or the worker, is at work on this payment. Nothing was done; ask again."
        return response(ProblemError(409, "request-in-progress", detail, headers=retry))

    @app.errorhandler(ReferenceInUseError)
    def _in_use(error: ReferenceInUseError) -> Response:
        detail = "An open or paid payment has this reference; allow_repeat_reference permits another."
        return response(ProblemError(409, "reference-in-use", detail, payment_id=error.payment_id))

    @app.errorhandler(AlreadyExpiredError)
    def _expired(_error: AlreadyExpiredError) -> Response:
        return response(invalid("expires_at", "must be in the future"))

    @app.errorhandler(StateConflictError)
    def _conflict(error: StateConflictError) -> Response:
        doubts: dict[str, Any] = {"in_doubt": error.in_doubt} if error.in_doubt else {}
        return response(ProblemError(409, "state-conflict", str(error), payment_status=error.status, **doubts))

    @app.errorhandler(WrongReferenceError)
    def _wrong_reference(_error: WrongReferenceError) -> Response:
        return response(invalid("provider_reference", "is not what this provider's ids of payments look like"))

    @app.errorhandler(NoSuchPaymentError)
    def _unknown_payment(_error: NoSuchPaymentError) -> Response:
        return response(ProblemError(404, "not-found", "There is no such payment."))

    @app.errorhandler(NoEligibleProviderError)
    def _not_eligible(error: NoEligibleProviderError) -> Response:
        detail = "No provider could ever take this payment."
        return response(ProblemError(422, "no-eligible-provider", detail, reasons=dict(error.reasons)))

    @app.errorhandler(ProvidersUnavailableError)
    def _unavailable(_error: ProvidersUnavailableError) -> Response:
        retry = {"Retry-After": str(RETRY_AFTER_UNAVAILABLE_S)}
        detail = "Every provider is unavailable now. Nothing was charged."
        return response(ProblemError(503, "providers-unavailable", detail, headers=retry))

    @app.errorhandler(LedgerUnavailableError)
    def _no_ledger(error: LedgerUnavailableError) -> Response:
        log.error("ledger_unavailable", cause=str(error))
        retry = {"Retry-After": str(RETRY_AFTER_UNAVAILABLE_S)}
        detail = "The ledger is away. This request charged nothing; send it again with the same Idempotency-Key."
        return response(ProblemError(503, "ledger-unavailable", detail, headers=retry))

    @app.errorhandler(UnreadableError)
    def _unreadable(error: UnreadableError) -> Response:
        log.error("unreadable", cause=str(error))
        retry = {"Retry-After": str(RETRY_AFTER_UNAVAILABLE_S)}
        detail = "What this needs is sealed under a key that this process does not have now. Nothing was charged."
        return response(ProblemError(503, "ledger-unavailable", detail, headers=retry))

    @app.errorhandler(CommitUnknownError)
    def _commit_unknown(error: CommitUnknownError) -> Response:
        log.error("ledger_unavailable", cause=str(error), commit="unknown")
        retry = {"Retry-After": str(RETRY_AFTER_UNAVAILABLE_S)}
        detail = (
            "The ledger went away while it recorded this request. Whether it is recorded is not known; if it is, it"
            " will be carried out. Send it again with the same Idempotency-Key to learn which."
        )
        return response(ProblemError(503, "outcome-unknown", detail, headers=retry))

    @app.errorhandler(HTTPException)
    def _http(error: HTTPException) -> Response:
        kind = (error.name or "error").lower().replace(" ", "-")
        # A 405 must name what is allowed.
        headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
        return response(ProblemError(error.code or 500, kind, error.name or "Error", headers=headers))

    @app.errorhandler(Exception)
    def _fault(_error: Exception) -> Response:
        log.exception("fault", method=request.method, endpoint=request.endpoint)
        return response(ProblemError(500, "internal-error", "A fault of ours; it has been reported."))


def documented(document: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI document with every refusal under its own media type, as it is sent."""
    for path in document["paths"].values():
        for operation in path.values():
            answers = operation.get("responses", {})
            if operation.get("security"):
                answers.setdefault("429", _refusal("Beyond the key's rate: see Retry-After"))
            if not operation.get("parameters") and "requestBody" not in operation:
                answers.pop("422", None)  # the library documents it everywhere; here nothing could be invalid
            if "requestBody" in operation:
                answers["413"] = {
                    "description": "The body is larger than this call takes",
                    "content": {"application/json": {"schema": {}}},
                }
            for status, answer in answers.items():
                content = answer.get("content", {})
                if status >= "400" and "application/json" in content and not _is_page(content["application/json"]):
                    schema = {"$ref": f"#/components/schemas/{Problem.__name__}"}
                    answer["content"] = {"application/problem+json": {"schema": schema}}
    return document


def _refusal(about: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{Problem.__name__}"}
    return {"description": about, "content": {"application/problem+json": {"schema": schema}}}


def _is_page(media: Mapping[str, Any]) -> bool:
    # /readyz answers its page with 503 too.
    return str(media.get("schema", {}).get("$ref", "")).endswith("/Ready")
