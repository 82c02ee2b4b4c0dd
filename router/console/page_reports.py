"""*Reports*: the finance reports as a page, with charts, files, and the payments behind each figure."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from flask import Blueprint, Response, render_template, request, url_for

from router.console import formats, page_report_files
from router.console.doors import POLICY
from router.console.parts import Parts, asked, refuse, require
from router.console.report_charts import charts
from router.ledger.decision_log import DecisionLog
from router.ledger.rollups import Rollups
from router.report_measures import DIMENSIONS
from router.reports.compared import against_the_primary
from router.reports.figures import PARTS, SUMMED, Column, Shape, Value
from router.reports.query import GROUPS, Query, QueryError
from router.reports.query import query as checked
from router.reports.report import Report, TooManyRowsError, link, report

USUAL_DAYS = 7
ROWS_SHOWN = 400
"""Of a page: more are in the files."""
COMPARED_AT_MOST = 20_000
"""Payments: some two seconds."""
SUMMARY = (
    "payments",
    "approval_rate",
    "approval_rate_low",
    "approval_rate_high",
    "first_approval_rate",
    "captured_amount",
    "refunded_amount",
    "cost",
    "effective_cost",
    "failed_over",
    "recovered_by_failover_amount",
    "recovered_by_cascade_amount",
    "latency_p95",
)
EMPTY_STYLE = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
"""Plotly makes one empty style element and fills it by script, which the policy does not forbid: only the empty one,
whose digest this is, may be made."""


def add(pages: Blueprint, parts: Parts, rollups: Rollups, log: DecisionLog) -> None:
    """The page, and what belongs to it."""
    page_report_files.add(pages, parts, rollups, wanted_by)

    @pages.get("/reports")
    def reports() -> Response:
        wanted = wanted_by(parts)
        part = request.args.get("part", "summary")
        compared: dict[str, Any] | None = None
        try:
            with rollups.moment() as sources:
                found = report(wanted, sources)
            if request.args.get("compare") == "primary":
                compared = against_the_primary(log, wanted, most=COMPARED_AT_MOST)
        except QueryError as error:
            refuse(422, "This cannot be reported", str(error))
        except TooManyRowsError:
            refuse(
                422, "Too many rows for a page", "Group by less, or take a shorter period; a CSV takes any number."
            )
        shown = [
            place
            for place, column in enumerate(found.columns)
            if place < len(wanted.group_by) or (column.name in SUMMARY if part == "summary" else column.part == part)
        ]
        page = render_template(
            "console/reports.html",
            query=wanted,
            part=part,
            parts=("summary", *[each for each in PARTS if each != "converted"]),
            groups=GROUPS,
            columns=[found.columns[place] for place in shown],
            lines=[_line(wanted, found, row, shown) for row in found.rows[:ROWS_SHOWN]],
            totals=[_line(wanted, found, row, shown, total=True) for row in found.totals],
            left_out=max(0, len(found.rows) - ROWS_SHOWN),
            standing=found.standing,
            script=page_report_files.plotly_script(),
            charts=[dataclasses.asdict(each) for each in charts(found)],
            compared=compared,
            again=_again,
        )
        answer = Response(page)
        answer.headers["Content-Security-Policy"] = POLICY.replace("style-src", f"style-src {EMPTY_STYLE}")
        return answer


def _again(endpoint: str = "console.reports", **changed: str) -> str:
    """This page's address with something changed."""
    same: dict[str, Any] = {name: request.args.getlist(name) for name in request.args if name not in changed}
    return url_for(endpoint, **(same | changed))


def wanted_by(parts: Parts) -> Query:
    """The report that the address asks for, of the session's own merchant. Raises a page that names the field."""
    session = require("reports")
    groups = [each for each in request.args.getlist("group_by") if each]
    zone, now = asked("time_zone") or "UTC", parts.clock.now()
    since, until = asked("from"), asked("to")
    # Of one's own merchant, whatever is asked.
    filters = {name: request.args[name] for name in DIMENSIONS if name in request.args} | {
        "merchant": session.merchant
    }
    if "group_by" not in request.args:
        groups = ["day", "provider", "currency"]
    try:
        return checked(
            since or f"{now - dt.timedelta(days=USUAL_DAYS - 1):%Y-%m-%d}",
            until or f"{now + dt.timedelta(days=1):%Y-%m-%d}",
            time_zone=zone,
            group_by=groups,
            filters=filters,
            now=now,
        )
    except QueryError as error:
        return refuse(422, "This cannot be reported", str(error))


def _line(
    query: Query, found: Report, row: Sequence[Value], shown: Sequence[int], *, total: bool = False
) -> list[tuple[str, str | None, bool]]:
    """The cells of a row: as a person writes it, the address of its payments, and whether it is a number."""
    currency = row[[each.name for each in found.columns].index("currency")]
    behind = None if total else dict(parse_qsl(urlsplit(link(query, row)).query, keep_blank_values=True))
    cells = []
    for place in shown:
        column, value = found.columns[place], row[place]
        href = None
        if behind is not None and column.name in SUMMED and value:
            values: dict[str, Any] = {**behind, "figure": column.name}
            href = url_for("console.report_payments", **values)
        text = _written(column, value, currency)
        if place < len(query.group_by) and value is None:
            text = "all" if total else "none"
        cells.append((text, href, column.shape is not Shape.TEXT))
    return cells


def _written(column: Column, value: Value, currency: Value) -> str:
    if value is None:
        return formats.NOTHING
    if column.shape is Shape.MONEY:
        return formats.money(int(value), str(currency))
    if column.shape is Shape.RATE:
        return formats.share(float(value), 2)
    if column.shape is Shape.COUNT:
        return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    if column.shape is Shape.FEE:
        return f"{value} {currency}"
    return f"{value} bp" if column.shape is Shape.BASIS_POINTS else str(value)
