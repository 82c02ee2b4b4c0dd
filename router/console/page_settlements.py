"""*Settlements*: the providers' files beside the ledger, what differs, and the upload of a file.

Files are the house's, of all its merchants: only `operate` may send one. A line shows to a login of the merchant
whose payment it is of; a line of no payment here, to nobody but an operator. As `/v1/settlements` has it.
"""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import structlog
from flask import Blueprint, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from providers.settlement import SettlementFileError
from router.api.paging import PAGE, page_of
from router.console.parts import Parts, an_id, asked, asked_moment, refuse, require
from router.ledger.settlements import Import, ImportRunningError, LeaseLostError
from router.reconciliation.matching import DIFFERING, VERDICTS
from router.reconciliation.standing import GRACE, covered

log = structlog.get_logger("router.console")

OUGHT_FIRST = (*DIFFERING, *(each for each in VERDICTS if each not in DIFFERING))
"""What somebody has to look at stands before what is well."""
USUAL_PERIOD = dt.timedelta(days=31)
"""Of what is in the ledger only: longer ones take longer, and can be asked for."""
BLOCK_BYTES = 1024 * 1024
HIGHEST_LINE = 2**62


def add(pages: Blueprint, parts: Parts) -> None:
    """The pages."""

    @pages.get("/settlements")
    def settlements() -> BaseResponse:
        return _files(parts)

    @pages.post("/settlements")
    def import_settlement() -> BaseResponse:
        session = require("operate")
        provider, file = request.form.get("provider", ""), request.files.get("file")
        if provider not in parts.importer.providers:
            return _files(parts, "provider: there is none of this name", 422)
        if file is None or not file.filename:
            return _files(parts, "file: choose one", 422)
        by = f"{session.label} of {session.merchant}"
        with tempfile.TemporaryDirectory(prefix="settlement-") as folder:
            path = Path(folder, "upload.csv")
            file.save(path, buffer_size=BLOCK_BYTES)

            def opened() -> BinaryIO:
                return path.open("rb")

            try:
                result = parts.importer.run(provider, opened, name=file.filename, imported_by=by)
            except SettlementFileError as error:
                # It names the line and the column, never the value.
                return _files(parts, f"file: {error}. Nothing was imported.", 422)
            except (ImportRunningError, LeaseLostError):
                told = f"Another file of {provider} is being imported. Nothing was done; send this one again."
                return _files(parts, told, 409)
        log.info("settlement_imported", id=result.file.id, provider=provider, by=by, known=result.known)
        told = "before" if result.known else "now"
        return redirect(url_for("console.settlement", import_id=result.file.id, imported=told), code=303)

    @pages.get("/settlements/missing")
    def settlement_missing() -> str:
        return _missing(parts)

    @pages.get("/settlements/<import_id>")
    def settlement(import_id: str) -> str:
        return _one(parts, import_id)


def _files(parts: Parts, error: str | None = None, status: int = 200) -> BaseResponse:
    """Every file, the latest first, and the form for the next one."""
    require("operate", "reports")
    cursor = asked("cursor")
    page, following = page_of(
        lambda limit: parts.settlement_views.imports(limit=limit, before=cursor), lambda each: each.id
    )
    text = render_template(
        "console/settlements.html",
        files=page,
        verdicts=parts.settlement_summaries.verdicts([each.id for each in page], DIFFERING) if page else {},
        differing=DIFFERING,
        providers=parts.importer.providers,
        following=following,
        error=error,
    )
    return make_response(text, status)


def _one(parts: Parts, import_id: str) -> str:
    """One file: how many lines are judged how, and those of one verdict."""
    session = require("operate", "reports")
    file = parts.settlements.get(an_id(import_id))
    if file is None:
        refuse(404, "Not found", "There is no such import.")
    counts = parts.settlement_summaries.verdicts([file.id])[file.id]
    verdict = asked("verdict") or _first(counts)
    if verdict not in VERDICTS:
        refuse(422, "This cannot be taken", "verdict: is not one of these")
    after = _line_number("cursor")
    page, following = page_of(
        lambda limit: parts.settlement_views.lines(
            file.id,
            limit=limit,
            verdict=verdict,
            after=after,
            merchant=session.merchant,
            strangers="operate" in session.scopes,
        ),
        lambda each: each.number,
    )
    return render_template(
        "console/settlement.html",
        file=file,
        counts=counts,
        verdicts=OUGHT_FIRST,
        verdict=verdict,
        lines=page,
        following=following,
        is_seen=_sees_payments(),
        told=_told(file),
    )


def _first(counts: Mapping[str, int]) -> str:
    return next((each for each in OUGHT_FIRST if counts.get(each)), OUGHT_FIRST[0])


def _told(file: Import) -> str | None:
    """What came of an upload that led here."""
    match request.args.get("imported"):
        case "before":
            return "This very file was imported before: nothing was done."
        case "now":
            return f"{file.new_lines} new lines of {file.lines} were imported and compared."
    return None


def _missing(parts: Parts) -> str:
    """Captures and refunds that no file has, though one should by now."""
    session = require("operate", "reports")
    provider = asked("provider") or next(iter(parts.importer.providers))
    if provider not in parts.importer.providers:
        refuse(422, "This cannot be taken", "provider: there is none of this name")
    since, until = asked_moment("from"), asked_moment("to")
    if since is not None and until is not None and since >= until:
        refuse(422, "This cannot be taken", "from: must be before to")
    period, due = covered(parts.settlement_views, provider), parts.clock.now() - GRACE
    until = min(until or (due if period is None else period[1]), due)
    since = since or max(until - USUAL_PERIOD, until - USUAL_PERIOD if period is None else period[0])
    rows = parts.settlement_summaries.missing(
        provider, since, until, limit=PAGE + 1, after=_place("cursor"), merchant=session.merchant
    )
    last = rows[PAGE - 1] if len(rows) > PAGE else None
    return render_template(
        "console/settlement_missing.html",
        provider=provider,
        providers=parts.importer.providers,
        since=since,
        until=until,
        grace=GRACE,
        is_covered=period is not None,
        rows=rows[:PAGE],
        following=None if last is None else f"{last.at.isoformat()}~{last.id}",
        asked={"provider": provider, "from": since.isoformat(), "to": until.isoformat()},
        is_seen=_sees_payments(),
    )


def _sees_payments() -> bool:
    """Whether a payment's page is open to this login."""
    return not require("operate", "reports").scopes.isdisjoint({"payments", "operate"})


def _line_number(name: str) -> int:
    value = asked(name)
    if value is None:
        return 0
    if not value.isascii() or not value.isdecimal() or len(value) > 18:
        refuse(422, "This cannot be taken", f"{name}: is not one that a page gave")
    return min(int(value), HIGHEST_LINE)


def _place(name: str) -> tuple[dt.datetime, str] | None:
    value = asked(name)
    if value is None:
        return None
    at, _, id = value.partition("~")
    try:
        found = dt.datetime.fromisoformat(at)
        if found.tzinfo is None or not 2000 <= found.year <= 2200:
            raise ValueError
    except ValueError:
        refuse(422, "This cannot be taken", f"{name}: is not one that a page gave")
    return found, id
