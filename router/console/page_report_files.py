"""Of *Reports*: its files, the payments behind a figure, and plotly's script from its wheel."""

from __future__ import annotations

import gzip
import importlib.util
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from flask import Blueprint, Response, render_template, request

from router.console.doors import STATIC_KEPT_S
from router.console.parts import Parts, asked, refuse, require
from router.ledger.rollups import Rollups
from router.reports import sending
from router.reports.figures import SUMMED
from router.reports.files import TooManyRowsError, streamed
from router.reports.query import Query, QueryError
from router.reports.report import payments_behind

PAYMENTS_SHOWN = 100


def add(pages: Blueprint, parts: Parts, rollups: Rollups, wanted_by: Callable[[Parts], Query]) -> None:
    """The addresses; `wanted_by` reads a report's query from this request."""

    @pages.get("/reports/file")
    def report_file() -> Response:
        wanted, kind = wanted_by(parts), request.args.get("format", "csv")
        if kind not in sending.TYPES:
            refuse(422, "This cannot be reported", f"format: is none of {', '.join(sending.TYPES)}")
        try:
            with rollups.moment() as sources:
                file = sending.written(streamed(wanted, sources, made_at=parts.clock.now()), kind)
        except QueryError as error:
            refuse(422, "This cannot be reported", str(error))
        except TooManyRowsError:
            refuse(422, "Too many rows for a workbook", "Its sheets do not hold so many; a CSV does.")
        answer = Response(sending.sent(file), content_type=sending.TYPES[kind], direct_passthrough=True)
        answer.call_on_close(file.close)
        answer.headers["Content-Disposition"] = f'attachment; filename="{sending.name(wanted, kind)}"'
        return answer

    @pages.get("/reports/payments")
    def report_payments() -> str:
        wanted, figure = wanted_by(parts), asked("figure") or "payments"
        if figure not in SUMMED:
            refuse(422, "This cannot be reported", "figure: is not a sum of payments")
        try:
            with rollups.moment() as sources:
                after, limit = asked("cursor") or "", PAYMENTS_SHOWN + 1
                found = payments_behind(wanted, figure, sources, after=after, limit=limit)
        except QueryError as error:
            refuse(422, "This cannot be reported", str(error))
        kept = {name: value for name, value in request.args.items() if name != "cursor"}
        return render_template(
            "console/report_payments.html",
            figure=figure,
            rows=found[:PAYMENTS_SHOWN],
            following=found[PAYMENTS_SHOWN - 1][0] if len(found) > PAYMENTS_SHOWN else None,
            asked=kept,
            query=wanted,
            is_seen=not require("reports").scopes.isdisjoint({"payments", "operate"}),
        )

    @pages.get("/plotly.js")
    def plotly() -> Response:
        require("reports")
        script = plotly_script()
        if script is None:
            refuse(404, "Not found", "Plotly is not installed: the figures are in the table.")
        answer = Response(script.packed, content_type="text/javascript; charset=utf-8")
        answer.headers["Content-Encoding"] = "gzip"
        # The address names its version: a browser asks once.
        answer.headers["Cache-Control"] = f"private, max-age={STATIC_KEPT_S}, immutable"
        return answer


@dataclass(frozen=True, slots=True)
class Script:
    """Plotly's script."""

    packed: bytes
    """By gzip: a quarter of its five megabytes."""
    styles: Sequence[str]
    """Ids of style elements that it puts into a page where nothing has that id: of maps, which no report has."""


@cache
def plotly_script() -> Script | None:
    """The script, read once; None where plotly's wheel is not installed. Its package itself is not imported."""
    found = importlib.util.find_spec("plotly")
    if found is None or not found.submodule_search_locations:
        return None
    path = Path(found.submodule_search_locations[0]) / "package_data" / "plotly.min.js"
    if not path.exists():
        return None
    text = path.read_bytes()
    styles = re.findall(rb'getElementById\("([0-9a-f]{64})"\)', text)
    return Script(gzip.compress(text, 6), sorted({each.decode() for each in styles}))
