"""`/v1/settlements`: the providers' settlement files beside the ledger.

Files are the house's, of all its merchants: only `operate` may send one. A line shows to a key of the merchant whose
payment it is of; a line of no payment here, to nobody but an operator.
"""

from __future__ import annotations

import datetime as dt
import tempfile
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from flask import Response, jsonify, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, Field

from providers.settlement import SettlementFileError
from router.api.gate import require
from router.api.paging import PAGE, CursorQuery, page_of
from router.api.problems import Problem, ProblemError, invalid
from router.clock import Clock
from router.ledger.settlement_views import JudgedLine, Missing, SettlementViews
from router.ledger.settlements import Import, ImportRunningError, LeaseLostError, SettlementLedger
from router.order import Moment, Text80
from router.reconciliation.importing import Importer, Result
from router.reconciliation.standing import GRACE, covered

KEPT_IN_MEMORY = 1024 * 1024
"""Bytes of an upload; more of it goes to a temporary file."""
HIGHEST_LINE = 2**62


class SettlementFilePath(BaseModel):
    """Whose file it is."""

    provider: Text80


class SettlementPath(BaseModel):
    """An import."""

    id: Text80


class SettlementUpload(BaseModel):
    """About the file."""

    name: Text80 = Field("upload", description="What it is called, for people")


class SettlementLineQuery(BaseModel):
    """Which lines, and where to go on."""

    verdict: Literal["matched", "amount_differs", "fee_differs", "provider_only", "apart"] | None = None
    cursor: int = Field(0, ge=0, le=HIGHEST_LINE, description="`next` of a page")


class SettlementMissingQuery(BaseModel):
    """Which captures and refunds: begun from `from` until before `to`, and older than the grace."""

    provider: Text80
    since: Moment | None = Field(None, alias="from", description="by default since the first line of any file")
    until: Moment | None = Field(
        None, alias="to", description="by default until what the last line of any file covers"
    )
    grace_days: int = Field(GRACE.days, ge=0, le=365)
    cursor: Text80 | None = Field(None, description="`next` of a page")


class SettlementFileView(BaseModel):
    """An imported file; moments in RFC 3339, UTC."""

    id: str
    provider: str
    account: str
    name: str
    state: Literal["importing", "judging", "done"]
    lines: int
    new_lines: int
    first_at: str | None
    last_at: str | None
    at: str
    imported_by: str
    lines_by_verdict: dict[str, dict[str, int]]
    """New lines by verdict, and then by kind."""


class SettlementImported(SettlementFileView):
    """A file that was imported now, or before."""

    known: bool
    ledger_only: int


class SettlementFileList(BaseModel):
    """A page of files, the latest first."""

    settlements: list[SettlementFileView]
    next: str | None


class SettlementLineView(BaseModel):
    """A line and its verdict. Money is integer minor units; positive where it came to the merchant."""

    provider: str
    id: str
    import_id: str
    number: int
    kind: str
    type: str
    reference: str | None
    amount: int
    currency: str
    fee: int
    net: int
    net_currency: str
    at: str
    batch: str | None
    verdict: str
    payment_id: str | None
    attempt_id: str | None
    operation_id: str | None
    settled: int | None
    """What the files say of this capture or refund in all."""
    expected: int | None
    expected_currency: str | None
    expected_fee: int | None
    expected_fee_currency: str | None
    fee_basis: Literal["told", "estimated", "none"] | None


class SettlementLineList(BaseModel):
    """A page of lines in the file's order."""

    lines: list[SettlementLineView]
    next: int | None


class SettlementMissingView(BaseModel):
    """A capture or refund that no file has."""

    provider: str
    kind: str
    id: str
    payment_id: str
    reference: str | None
    amount: int
    currency: str
    at: str


class SettlementMissingList(BaseModel):
    """A page of them, the oldest first; `from` and `to` as they were taken."""

    missing: list[SettlementMissingView]
    since: str = Field(alias="from")
    until: str = Field(alias="to")
    next: str | None


def blueprint(importer: Importer, views: SettlementViews, ledger: SettlementLedger, clock: Clock) -> APIBlueprint:
    """The views."""
    api = APIBlueprint("settlements", __name__, abp_tags=[Tag(name="settlements", description="Finance's calls")])
    secured: dict[str, Any] = {"security": [{"key": []}]}

    @api.post(
        "/v1/settlements/<provider>",
        summary="Import a settlement file: the body is the CSV; the same one may come again",
        responses={
            200: SettlementImported,
            201: SettlementImported,
            **dict.fromkeys((401, 403, 404, 409, 413, 422, 503), Problem),
        },
        **secured,
    )
    def import_file(path: SettlementFilePath, query: SettlementUpload) -> tuple[Response, int]:
        caller = require("operate")
        if path.provider not in importer.providers:
            raise ProblemError(404, "not-found", "There is no provider of this name.")
        by = f"{caller.label or 'a key without a label'} of {caller.merchant}"
        with tempfile.TemporaryDirectory(prefix="settlement-") as folder:
            file = Path(folder, "upload.csv")

            def opened() -> BinaryIO:
                return file.open("rb")

            with file.open("wb") as kept:
                _copy(cast("BinaryIO", request.stream), kept)
            try:
                result = importer.run(path.provider, opened, name=query.name, imported_by=by)
            except SettlementFileError as error:
                raise invalid("body", f"{error}. Nothing was imported.") from None
            except (ImportRunningError, LeaseLostError):
                detail = "Another file of this provider is being imported. Nothing was done; send it again."
                raise ProblemError(409, "request-in-progress", detail, headers={"Retry-After": "5"}) from None
        return jsonify(_result(result)), 200 if result.known else 201

    @api.get(
        "/v1/settlements",
        summary="Imported settlement files, the latest first, with how many lines are judged how",
        responses={200: SettlementFileList, **dict.fromkeys((401, 403, 404, 422, 503), Problem)},
        **secured,
    )
    def list_files(query: CursorQuery) -> Response:
        require("operate", "reports")
        page, cursor = page_of(lambda limit: views.imports(limit=limit, before=query.cursor), lambda each: each.id)
        return jsonify({"settlements": [_file(each, views) for each in page], "next": cursor})

    @api.get(
        "/v1/settlements/missing",
        summary="Captures and refunds in the ledger that no settlement file has, though it should by now",
        responses={200: SettlementMissingList, **dict.fromkeys((401, 403, 404, 422, 503), Problem)},
        **secured,
    )
    def list_missing(query: SettlementMissingQuery) -> Response:
        caller = require("operate", "reports")
        if query.provider not in importer.providers:
            raise invalid("provider", "there is no provider of this name")
        period = covered(views, query.provider)
        due = clock.now() - dt.timedelta(days=query.grace_days)
        since = query.since or (due if period is None else period[0])
        asked = query.until or (due if period is None else period[1])
        if query.since is not None and query.until is not None and query.until <= query.since:
            raise invalid("to", "must be after from")
        rows = views.missing(
            query.provider,
            since,
            min(asked, due),
            limit=PAGE + 1,
            after=_after(query.cursor),
            merchant=caller.merchant,
        )
        last = rows[PAGE - 1] if len(rows) > PAGE else None
        cursor = None if last is None else f"{last.at.isoformat()}~{last.id}"
        taken = {"from": since.isoformat(), "to": min(asked, due).isoformat()}
        return jsonify({"missing": [_missing(each) for each in rows[:PAGE]], **taken, "next": cursor})

    @api.get(
        "/v1/settlements/<id>",
        summary="One imported file",
        responses={200: SettlementFileView, **dict.fromkeys((401, 403, 404, 422, 503), Problem)},
        **secured,
    )
    def read_file(path: SettlementPath) -> Response:
        require("operate", "reports")
        return jsonify(_file(_known(path.id), views))

    @api.get(
        "/v1/settlements/<id>/lines",
        summary="An imported file's lines, each with its verdict",
        responses={200: SettlementLineList, **dict.fromkeys((401, 403, 404, 422, 503), Problem)},
        **secured,
    )
    def list_lines(path: SettlementPath, query: SettlementLineQuery) -> Response:
        caller = require("operate", "reports")
        _known(path.id)
        page, cursor = page_of(
            lambda limit: views.lines(
                path.id,
                limit=limit,
                verdict=query.verdict,
                after=query.cursor,
                merchant=caller.merchant,
                strangers="operate" in caller.scopes,
            ),
            lambda each: each.number,
        )
        return jsonify({"lines": [_line(each) for each in page], "next": cursor})

    def _known(id: str) -> Import:
        found = ledger.get(id)
        if found is None:
            raise ProblemError(404, "not-found", "There is no such import.")
        return found

    return api


def _copy(source: BinaryIO, kept: BinaryIO) -> None:
    while block := source.read(KEPT_IN_MEMORY):
        kept.write(block)


def _after(cursor: str | None) -> tuple[dt.datetime, str] | None:
    if cursor is None:
        return None
    at, _, id = cursor.partition("~")
    try:
        found = dt.datetime.fromisoformat(at)
    except ValueError:
        raise invalid("cursor", "is not one that a page gave") from None
    if found.tzinfo is None:
        raise invalid("cursor", "is not one that a page gave")
    return found, id


def _file(file: Import, views: SettlementViews) -> dict[str, Any]:
    return _shown(file) | {"lines_by_verdict": _by_verdict(views.counts(file.id))}


def _result(result: Result) -> dict[str, Any]:
    more = {"known": result.known, "ledger_only": result.missing}
    return _shown(result.file) | {"lines_by_verdict": _by_verdict(result.counts)} | more


def _shown(file: Import) -> dict[str, Any]:
    names = ("id", "provider", "account", "name", "state", "lines", "new_lines", "first_at", "last_at", "at")
    return {name: _value(getattr(file, name)) for name in (*names, "imported_by")}


def _by_verdict(counts: Any) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (verdict, kind), count in sorted(counts.items()):
        found.setdefault(verdict, {})[kind] = count
    return found


def _line(line: JudgedLine) -> dict[str, Any]:
    return {name: _value(getattr(line, name)) for name in JudgedLine.__slots__}


def _missing(each: Missing) -> dict[str, Any]:
    return {name: _value(getattr(each, name)) for name in Missing.__slots__}


def _value(value: Any) -> Any:
    return value.isoformat(timespec="milliseconds") if isinstance(value, dt.datetime) else value
