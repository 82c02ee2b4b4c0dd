"""`/v1/api-keys`: who may call, made, listed, replaced and ended."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

from flask import Response, jsonify
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, ConfigDict, Field

from router.api.gate import require, unauthenticated
from router.api.paging import page_of
from router.api.problems import Problem, ProblemError, invalid, response
from router.api.views import moment
from router.clock import Clock
from router.key_keeping import (
    GRACE_AT_MOST_H,
    GRACE_H,
    ApiKeys,
    BadKeyError,
    BeyondOwnError,
    CallerOverError,
    KeyOverError,
    NoSuchKeyError,
    TooManyKeysError,
)
from router.ledger.keys import Caller, KeyChange, KeyRecord
from router.order import Moment, Text80, Text255


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class KeyPath(BaseModel):
    """A key's id."""

    key_id: Text80 = Field(description="`key_…`")


class NewKey(_Strict):
    """What a new key is to be able to do."""

    scopes: list[Literal["payments", "reports", "operate"]] = Field(
        min_length=1, max_length=3, description="no more than the key that asks has itself"
    )
    label: str = Field("", max_length=255, description="what it is for")
    merchant: Text80 | None = Field(None, description="another merchant's only with the house's key")
    expires_at: Moment | None = Field(None, description="absent: never, or with the key that asks")


class KeyRotation(_Strict):
    """How a key is replaced."""

    grace_hours: float = Field(GRACE_H, ge=0, le=GRACE_AT_MOST_H, description="For so long the old key works as well")


class KeyRevocation(_Strict):
    """Why a key ends."""

    reason: Text255 | None = None


class KeyQuery(BaseModel):
    """Which keys, and where in the list to go on."""

    merchant: Text80 | None = Field(None, description="only with the house's key")
    revoked: bool = Field(False, description="whether those that were revoked are listed too")
    cursor: Text80 | None = Field(None, description="`next` of a page")


class KeyView(BaseModel):
    """A key; the key itself is not shown again."""

    id: str
    merchant: str
    scopes: list[str]
    label: str
    hint: str = Field(description="how the key begins")
    state: Literal["valid", "expired", "revoked"]
    created_at: str
    created_by: str
    last_used_at: str | None = Field(description="right to two minutes; null: never")
    expires_at: str | None
    revoked_at: str | None
    revoked_by: str
    replaced_by: str | None = Field(description="the id of the key in its place")


class KeyWithSecret(KeyView):
    """A new key, with the key itself: in this answer only."""

    key: str


class KeyList(BaseModel):
    """A page of keys; `next` is the cursor of the following page."""

    api_keys: list[KeyView]
    next: str | None


class KeyChangeView(BaseModel):
    """What somebody did to a key."""

    what: Literal["created", "rotated", "revoked"]
    by: str
    detail: str
    at: str


class KeyHistory(BaseModel):
    """What was done to a key, oldest first."""

    changes: list[KeyChangeView]


def blueprint(keys: ApiKeys, clock: Clock) -> APIBlueprint:
    """The views, over the rules that answer them."""
    about = "Who may call: scope `operate`, and never more than the calling key may itself"
    api = APIBlueprint(
        "api_keys",
        __name__,
        url_prefix="/v1/api-keys",
        abp_tags=[Tag(name="keys", description=about)],
        abp_security=[{"key": []}],
        abp_responses={401: Problem, 403: Problem, 422: Problem, 503: Problem},
    )

    @api.errorhandler(BadKeyError)
    def _bad(error: BadKeyError) -> Response:
        return response(invalid(error.field, error.detail))

    @api.errorhandler(BeyondOwnError)
    def _beyond(_error: BeyondOwnError) -> Response:
        detail = "This key may make and replace keys of its own merchant, with scopes of its own, that end no later."
        return response(ProblemError(403, "forbidden", detail))

    @api.errorhandler(CallerOverError)
    def _ended(_error: CallerOverError) -> Response:
        return response(unauthenticated())

    @api.errorhandler(NoSuchKeyError)
    def _unknown(_error: NoSuchKeyError) -> Response:
        return response(ProblemError(404, "not-found", "There is no such API key."))

    @api.errorhandler(TooManyKeysError)
    def _too_many(_error: TooManyKeysError) -> Response:
        detail = "This merchant has as many API keys as one may have; revoke some."
        return response(ProblemError(409, "too-many-keys", detail))

    @api.errorhandler(KeyOverError)
    def _over(_error: KeyOverError) -> Response:
        detail = "This API key was revoked, has expired or was replaced already."
        return response(ProblemError(409, "state-conflict", detail))

    @api.post(
        "",
        summary="Make a key; it is in this answer only",
        description="Not idempotent: the key is kept nowhere, so it cannot be answered again. Where the answer was "
        "lost, the list shows a key that was never used: revoke it, and make another.",
        responses={201: KeyWithSecret, 400: Problem, 409: Problem},
    )
    def create_key(body: NewKey) -> Response:
        caller = require("operate")
        record, key = keys.create(
            caller,
            merchant=body.merchant,
            scopes=body.scopes,
            label=body.label,
            by=_name(caller),
            expires_at=None if body.expires_at is None else body.expires_at.astimezone(dt.UTC),
        )
        return _secret(record, key, clock)

    @api.get("", summary="The merchant's keys", responses={200: KeyList})
    def list_keys(query: KeyQuery) -> Response:
        caller = require("operate")
        if query.merchant is not None and query.merchant != caller.merchant and not caller.is_house:
            raise BeyondOwnError
        page, cursor = page_of(
            lambda limit: keys.page(
                caller, merchant=query.merchant, with_revoked=query.revoked, limit=limit, after=query.cursor
            ),
            lambda each: each.id,
        )
        return jsonify({"api_keys": [key_json(each, clock) for each in page], "next": cursor})

    @api.get("/<key_id>", summary="One key", responses={200: KeyView, 404: Problem})
    def read_key(path: KeyPath) -> Response:
        return jsonify(key_json(keys.get(require("operate"), path.key_id), clock))

    @api.get("/<key_id>/changes", summary="Who did what to a key", responses={200: KeyHistory, 404: Problem})
    def read_changes(path: KeyPath) -> Response:
        found = keys.changes(require("operate"), path.key_id)
        return jsonify({"changes": [_change_json(each) for each in found]})

    @api.post(
        "/<key_id>/rotate",
        summary="Replace a key; for a while both work",
        description="Not idempotent, as making one is not: sent again, it is refused, for the key was replaced.",
        responses={201: KeyWithSecret, 400: Problem, 404: Problem, 409: Problem},
    )
    def rotate_key(path: KeyPath, body: KeyRotation) -> Response:
        caller = require("operate")
        record, key = keys.rotate(caller, path.key_id, by=_name(caller), grace_h=body.grace_hours)
        return _secret(record, key, clock)

    @api.post(
        "/<key_id>/revoke",
        summary="End a key: within 5 s no process takes it any more",
        responses={200: KeyView, 400: Problem, 404: Problem},
    )
    def revoke_key(path: KeyPath, body: KeyRevocation) -> Response:
        caller = require("operate")
        found = keys.revoke(caller, path.key_id, by=_name(caller), reason=body.reason or "")
        return jsonify(key_json(found, clock))

    return api


def key_json(record: KeyRecord, clock: Clock) -> dict[str, Any]:
    """KeyView."""
    state = "valid" if record.is_valid(clock.now()) else "revoked" if record.revoked_at is not None else "expired"
    return {
        "id": record.id,
        "merchant": record.merchant,
        "scopes": sorted(record.scopes),
        "label": record.label,
        "hint": record.hint,
        "state": state,
        "created_at": moment(record.created_at),
        "created_by": record.created_by,
        "last_used_at": _time(record.last_used_at),
        "expires_at": _time(record.expires_at),
        "revoked_at": _time(record.revoked_at),
        "revoked_by": record.revoked_by,
        "replaced_by": record.replaced_by,
    }


def _secret(record: KeyRecord, key: str, clock: Clock) -> Response:
    answer = jsonify(key_json(record, clock) | {"key": key})
    answer.status_code = 201
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _change_json(change: KeyChange) -> dict[str, Any]:
    return {"what": change.what, "by": change.by, "detail": change.detail, "at": moment(change.at)}


def _name(caller: Caller) -> str:
    return f"{caller.merchant}: {caller.label or 'a key without a label'} ({caller.key_id})"


def _time(at: dt.datetime | None) -> str | None:
    return None if at is None else moment(at)
