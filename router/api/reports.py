"""`/v1/reports`: what payments, providers and routing earned and cost, for finance."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from flask import Response, jsonify
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from router.api.gate import require
from router.api.problems import Problem, invalid
from router.clock import Clock
from router.ledger.decision_log import DecisionLog
from router.ledger.rollups import Rollups
from router.order import Text80
from router.report_measures import DIMENSIONS
from router.reports import sending
from router.reports.compared import against_the_primary
from router.reports.figures import SUMMED
from router.reports.files import TooManyRowsError, streamed
from router.reports.query import GROUPS, Query, QueryError, query
from router.reports.report import payments_behind

PAGE = 100
COMPARED_AT_MOST = 50_000
"""Payments: some seconds of a thread."""
Filter = Annotated[str, StringConstraints(max_length=80)] | None


class _Period(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    since: Text80 = Field(alias="from", description="A day, or a time by ISO 8601; the first moment that is in it")
    until: Text80 = Field(alias="to", description="The first moment that is not in it")
    time_zone: Text80 = Field("UTC", description="Of the IANA database, such as Europe/Berlin")
    provider: Filter = Field(None, description="Only this one; empty: payments that no provider took")
    currency: Filter = None
    country: Filter = Field(None, description="Of the card; empty: not known")
    brand: Filter = None
    merchant: Filter = Field(None, description="The key's own; it sees no other")
    decline_class: Filter = Field(None, description="Empty: not declined")

    def filters(self) -> dict[str, str]:
        """Those that are given."""
        found = {name: getattr(self, name) for name in DIMENSIONS}
        return {name: value for name, value in found.items() if value is not None}


class ReportQuery(_Period):
    """Which report."""

    group_by: str = Field("", max_length=200, description=f"Any of {', '.join(GROUPS)}, separated by commas")
    format: Literal["json", "csv", "xlsx"] = "json"
    compare: Literal["primary"] | None = Field(None, description="Routing against always taking the primary")


class PaymentsQuery(_Period):
    """Which payments, of which figure."""

    figure: Text80 = Field("payments", description="A count or an amount of the report")
    cursor: Text80 | None = Field(None, description="`next` of a page")


class RoutingReport(BaseModel):
    """A report; every row has its groups, its figures, and `link`, the address of its payments."""

    model_config = ConfigDict(extra="allow")

    rows: list[dict[str, Any]]
    totals: list[dict[str, Any]]
    since: str = Field(alias="from")
    to: str
    time_zone: str
    complete: bool = Field(description="False: changes of the last moments, or old payments, are not in it yet")
    behind_since: str | None


class FigurePayment(BaseModel):
    """A payment, and what it adds to a figure."""

    id: str
    currency: str
    adds: int


class FigurePayments(BaseModel):
    """A page of them."""

    figure: str
    payments: list[FigurePayment]
    next: str | None


def blueprint(rollups: Rollups, log: DecisionLog, clock: Clock) -> APIBlueprint:
    """The views, over the rollup and the log of decisions."""
    api = APIBlueprint("reports", __name__, abp_tags=[Tag(name="reports", description="Finance's calls")])
    secured: dict[str, Any] = {"security": [{"key": []}]}

    def asked(told: _Period, group_by: str = "") -> Query:
        caller = require("reports")
        filters = told.filters()
        if filters.setdefault("merchant", caller.merchant) != caller.merchant:
            raise invalid("merchant", "a key sees only its own merchant's payments")
        try:
            return query(
                told.since,
                told.until,
                time_zone=told.time_zone,
                group_by=group_by,
                filters=filters,
                now=clock.now(),
            )
        except QueryError as error:
            raise invalid(error.field, error.problem) from None

    @api.get(
        "/v1/reports/routing",
        summary="Volume, approval, money, costs, recoveries, declines and latency of a period",
        description="Amounts are integers in minor units of the row's currency; fees and costs are in major units.",
        responses={200: RoutingReport, **dict.fromkeys((401, 403, 422, 503), Problem)},
        **secured,
    )
    def routing_report(query: ReportQuery) -> Response:
        wanted = asked(query, query.group_by)
        if query.compare is not None and query.format == "csv":
            raise invalid("compare", "only in JSON and XLSX")
        try:
            compared = None if query.compare is None else against_the_primary(log, wanted, most=COMPARED_AT_MOST)
            with rollups.moment() as sources:
                found = streamed(wanted, sources, made_at=clock.now(), comparison=compared)
                file = sending.written(found, query.format)
        except QueryError as error:
            raise invalid(error.field, error.problem) from None
        except TooManyRowsError:
            raise invalid("format", "a workbook's sheet does not hold so many rows; csv does") from None
        answer = Response(sending.sent(file), content_type=sending.TYPES[query.format], direct_passthrough=True)
        answer.call_on_close(file.close)
        answer.headers["Cache-Control"] = "no-store"
        if query.format != "json":
            called = sending.name(wanted, query.format)
            answer.headers["Content-Disposition"] = f'attachment; filename="{called}"'
        return answer

    @api.get(
        "/v1/reports/payments",
        summary="The payments that a figure of a report is made of, and what each adds to it",
        responses={200: FigurePayments, **dict.fromkeys((401, 403, 422, 503), Problem)},
        **secured,
    )
    def figure_payments(query: PaymentsQuery) -> Response:
        wanted = asked(query)
        if query.figure not in SUMMED:
            raise invalid("figure", f"only {', '.join(SUMMED)}")
        try:
            with rollups.moment() as sources:
                found = payments_behind(wanted, query.figure, sources, after=query.cursor or "", limit=PAGE + 1)
        except QueryError as error:
            raise invalid(error.field, error.problem) from None
        page = [{"id": each[0], "currency": each[1], "adds": each[2]} for each in found[:PAGE]]
        return jsonify(
            {"figure": query.figure, "payments": page, "next": page[-1]["id"] if len(found) > PAGE else None}
        )

    return api
