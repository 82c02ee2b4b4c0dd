"""Writes `pointsman.json`, the Grafana dashboard: `python deploy/grafana/make_dashboard.py`.

A dashboard edited by hand in Grafana is thousands of lines in which nobody sees what was changed. Here a panel is a
line; a test holds the file to this table, and each of its queries to names that `/metrics` has.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OUTPUT = Path(__file__).with_name("pointsman.json")
COLUMNS = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
RATE = "[$__rate_interval]"


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph, or one figure; each query with its legend."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    about: str = ""
    width: int = 8
    kind: str = "timeseries"
    stacked: bool = False


def quantiles(name: str, by: str, where: str = "", *, shares: tuple[float, ...] = (0.5, 0.99)) -> Any:
    """Queries of a histogram's quantiles."""
    group = f"{by}, le" if by else "le"
    legend = f"{{{{{by}}}}} " if by else ""
    return tuple(
        (f"histogram_quantile({share}, sum by ({group}) (rate({name}_bucket{where}{RATE})))", f"{legend}p{share:g}")
        for share in shares
    )


def now(title: str, query: str, unit: str = "short", about: str = "") -> Panel:
    """One figure of this moment."""
    return Panel(title, ((query, ""),), unit, about, width=4, kind="stat")


OF_THE_SERVICE = "From the ledger: the whole service's, whichever process is asked."

ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Now",
        (
            now("Payments/s", f"sum(rate(pointsman_payments_created_total{RATE}))", "reqps"),
            now(
                "Approval, 15 min",
                'sum(rate(pointsman_attempts_total{outcome="approved"}[15m]))'
                ' / sum(rate(pointsman_attempts_total{outcome=~"approved|declined"}[15m]))',
                "percentunit",
                "Issuers' answers alone: approvals among approvals and declines.",
            ),
            now(
                "Open circuits",
                'sum(max by (provider) (pointsman_circuit_state{state=~"open|half_open|forced_open"}))',
            ),
            now("Parked", "max(pointsman_parked_payments)", about=OF_THE_SERVICE),
            now("In doubt", "max(pointsman_unresolved_waiting)", about=OF_THE_SERVICE),
            now("Need a person", "max(pointsman_attention_payments) + max(pointsman_parked_dead_letters)"),
        ),
    ),
    (
        "Payments",
        (
            Panel(
                "Payments by status",
                ((f"sum by (status) (rate(pointsman_payments_total{RATE}))", "{{status}}"),),
                "reqps",
                "Arrivals at a status: a payment is counted at processing, and again where it ends.",
            ),
            Panel(
                "Captured and authorized, by provider",
                (
                    (
                        f'sum by (provider) (rate(pointsman_payments_total{{status=~"captured|authorized"}}{RATE}))',
                        "{{provider}}",
                    ),
                ),
                "reqps",
                stacked=True,
            ),
            Panel(
                "Approval by provider",
                (
                    (
                        f'sum by (provider) (rate(pointsman_attempts_total{{outcome="approved"}}{RATE})) / sum by'
                        f' (provider) (rate(pointsman_attempts_total{{outcome=~"approved|declined"}}{RATE}))',
                        "{{provider}}",
                    ),
                ),
                "percentunit",
            ),
            Panel(
                "A payment's request",
                quantiles("pointsman_http_request_seconds", "", '{endpoint="payments.create_payment"}'),
                "s",
            ),
            Panel("To a final status", quantiles("pointsman_payment_to_final_seconds", "status"), "s"),
            Panel("Decision", quantiles("pointsman_decision_seconds", ""), "s"),
        ),
    ),
    (
        "Providers",
        (
            Panel(
                "Attempts that were not approved",
                (
                    (
                        'sum by (provider, outcome, failure) (rate(pointsman_attempts_total{outcome!="approved"}'
                        f"{RATE}))",
                        "{{provider}} {{outcome}} {{failure}}",
                    ),
                ),
                "reqps",
            ),
            Panel(
                "Authorization",
                quantiles(
                    "pointsman_provider_call_seconds", "provider", '{call="authorize"}', shares=(0.5, 0.95, 0.99)
                ),
                "s",
            ),
            Panel(
                "Calls by what they say of the provider",
                (
                    (
                        f"sum by (provider, call, result) (rate(pointsman_provider_calls_total{RATE}))",
                        "{{provider}} {{call}} {{result}}",
                    ),
                ),
                "reqps",
            ),
            Panel(
                "Circuits that are not closed",
                (
                    (
                        'max by (provider, state) (pointsman_circuit_state{state!="closed"})',
                        "{{provider}} {{state}}",
                    ),
                    ("max by (provider) (pointsman_circuit_suspect)", "{{provider}} suspect"),
                ),
            ),
            Panel(
                "Transitions",
                (
                    (
                        "max by (provider, state) (increase(pointsman_circuit_transitions_total[5m]))",
                        "{{provider}} to {{state}}",
                    ),
                ),
                about=OF_THE_SERVICE,
            ),
            Panel(
                "Recovery",
                (
                    ("min by (provider) (pointsman_circuit_share)", "{{provider}} share"),
                    ("max by (provider) (pointsman_circuit_stage_calls)", "{{provider}} calls of the stage"),
                    ("max by (provider) (pointsman_circuit_stage_failures)", "{{provider}} failures"),
                    (
                        f'sum by (provider, result) (rate(pointsman_provider_calls_total{{call="probe"}}{RATE}))',
                        "{{provider}} probes/s {{result}}",
                    ),
                ),
                about="Half-open: the worker's probes. Slow start: a growing share of payments.",
            ),
            Panel(
                "Places taken",
                (
                    (
                        "sum by (provider) (pointsman_bulkhead_in_use)"
                        " / sum by (provider) (pointsman_bulkhead_permits)",
                        "{{provider}} bulkhead",
                    ),
                    (
                        "sum by (provider) (pointsman_provider_pool_in_use)"
                        " / sum by (provider) (pointsman_provider_pool_size)",
                        "{{provider}} connections",
                    ),
                ),
                "percentunit",
            ),
            Panel(
                "Attempts turned away",
                ((f"sum by (provider) (rate(pointsman_bulkhead_refused_total{RATE}))", "{{provider}}"),),
                "reqps",
            ),
        ),
    ),
    (
        "Flags and flips",
        (
            Panel("Flips on record", (("max by (state) (pointsman_flips)", "{{state}}"),), about=OF_THE_SERVICE),
            Panel(
                "Flags",
                (
                    ("max(pointsman_flags_staleness_seconds)", "stale for"),
                    ("max(pointsman_overrides_in_force)", "overrides in force"),
                    ('max by (state) (pointsman_flags_state{state!="valid"})', "{{state}}"),
                ),
            ),
            Panel(
                "Where flags come from",
                (("max by (source) (pointsman_flags_source_info)", "{{source}}"),),
                kind="stat",
            ),
        ),
    ),
    (
        "What waits",
        (
            Panel(
                "How much",
                (
                    ("max(pointsman_parked_payments)", "parked"),
                    ("max(pointsman_unresolved_waiting)", "in doubt"),
                    ("max(pointsman_inbox_waiting)", "providers' webhooks"),
                    ("max(pointsman_webhook_deliveries_waiting)", "checkout's webhooks"),
                    ("max(pointsman_alerts_waiting)", "alerts"),
                    ("max by (relay) (pointsman_relay_lag_events)", "{{relay}}"),
                ),
                about=OF_THE_SERVICE,
            ),
            Panel(
                "For how long",
                (
                    ("max(pointsman_parked_oldest_age_seconds)", "parked"),
                    ("max(pointsman_unresolved_oldest_age_seconds)", "in doubt"),
                    ("max(pointsman_inbox_oldest_age_seconds)", "providers' webhooks"),
                    ("max(pointsman_webhook_deliveries_oldest_age_seconds)", "checkout's webhooks"),
                    ("max(pointsman_webhook_events_oldest_age_seconds)", "events for endpoints"),
                    ("max by (relay) (pointsman_relay_lag_seconds)", "{{relay}}"),
                    ("max(pointsman_rollup_lag_seconds)", "reports"),
                ),
                "s",
                OF_THE_SERVICE,
            ),
            Panel(
                "Settlement differences",
                (("max by (provider, kind) (pointsman_settlement_differences)", "{{provider}} {{kind}}"),),
                about=OF_THE_SERVICE,
            ),
        ),
    ),
    (
        "Processes",
        (
            Panel(
                "Requests",
                ((f"sum by (status) (rate(pointsman_http_requests_total{RATE}))", "{{status}}"),),
                "reqps",
                stacked=True,
            ),
            Panel(
                "Requests refused by limits",
                ((f"sum by (reason) (rate(pointsman_requests_refused_total{RATE}))", "{{reason}}"),),
                "reqps",
            ),
            Panel(
                "Threads and pools",
                (
                    ("sum(pointsman_http_requests_in_progress) / sum(pointsman_http_threads)", "web threads"),
                    ("sum(pointsman_ledger_pool_in_use) / sum(pointsman_ledger_pool_size)", "ledger connections"),
                ),
                "percentunit",
            ),
            Panel("Writes to the ledger", quantiles("pointsman_ledger_write_seconds", ""), "s"),
            Panel(
                "Faults of the ledger",
                (
                    (f"sum by (kind) (rate(pointsman_ledger_faults_total{RATE}))", "{{kind}}"),
                    ("1 - min by (instance) (pointsman_ledger_up)", "away from {{instance}}"),
                ),
            ),
            Panel(
                "Rounds of loops that failed",
                (
                    (
                        f'sum by (loop, result) (rate(pointsman_loop_rounds_total{{result!="ok"}}{RATE}))',
                        "{{loop}} {{result}}",
                    ),
                ),
            ),
            Panel("CPU", ((f"sum by (role) (rate(pointsman_process_cpu_seconds_total{RATE}))", "{{role}}"),)),
            Panel("Memory", (("sum by (role) (pointsman_process_resident_memory_bytes)", "{{role}}"),), "bytes"),
            Panel(
                "Processes, threads, files",
                (
                    ("sum by (role) (pointsman_processes)", "{{role}}"),
                    ("sum by (role) (pointsman_process_threads)", "{{role}} threads"),
                    ("sum by (role) (pointsman_process_open_fds)", "{{role}} files"),
                ),
            ),
            Panel(
                "Versions",
                (("count by (version, python) (pointsman_build_info)", "{{version}}, Python {{python}}"),),
                kind="stat",
            ),
        ),
    ),
)


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it (schema 39, Grafana 11)."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS:
        panels.append({"type": "row", "title": title, "collapsed": False, "gridPos": _place(0, top, COLUMNS, 1)})
        left, top, height = 0, top + 1, 8
        for panel in row:
            height = 4 if panel.width == 4 else 8
            if left + panel.width > COLUMNS:
                left, top = 0, top + height
            panels.append(_panel(panel, _place(left, top, panel.width, height)))
            left += panel.width
        top += height
    for number, each in enumerate(panels, 1):
        each["id"] = number
    return {
        "uid": "pointsman",
        "title": "pointsman",
        "tags": ["payments"],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "15s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Prometheus",
                    "type": "datasource",
                    "query": "prometheus",
                    "current": {},
                }
            ]
        },
        "annotations": {
            "list": [
                {
                    "name": "Flips",
                    "datasource": SOURCE,
                    "enable": True,
                    "iconColor": "orange",
                    "expr": "max(changes(pointsman_flip_last_timestamp_seconds[1m])) > 0",
                    "titleFormat": "The primary was flipped",
                }
            ]
        },
        "panels": panels,
    }


def _panel(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    custom = {"stacking": {"mode": "normal"}, "fillOpacity": 20} if panel.stacked else {"fillOpacity": 5}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0, **({"custom": custom} if panel.kind == "timeseries" else {})},
            "overrides": [],
        },
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": SOURCE, "expr": query, "legendFormat": legend or "__auto"}
            for number, (query, legend) in enumerate(panel.queries)
        ],
    }


def _place(left: int, top: int, width: int, height: int) -> dict[str, int]:
    return {"x": left, "y": top, "w": width, "h": height}


def rendered() -> str:
    """The file's text."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    OUTPUT.write_text(rendered(), encoding="utf-8")
