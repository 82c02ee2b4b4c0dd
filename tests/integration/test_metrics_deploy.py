"""The dashboard and the alert rules ask for what `/metrics` has, and promtool finds the rules right."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from router.clock import SystemClock
from router.ledger.engine import Database
from router.measuring.catalogue import Catalogue
from router.measuring.instruments import Counter, Gauge, Histogram, Shelf
from router.measuring.ledger_state import StateReader
from router.settings import PROVIDER_NAMES

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy/prometheus"
GRAFANA = ROOT / "deploy/grafana"
RULES = PROMETHEUS / "pointsman.rules.yml"
TESTS = PROMETHEUS / "pointsman.test.yml"
SELECTOR = re.compile(r"\b(pointsman_[a-z_]+)(?:\{([^}]*)\})?")
PROMETHEUS_OWN = {"instance", "job", "le"}


def in_process() -> Mapping[str, set[str]]:
    """Names of samples that processes write, with their labels."""
    found: dict[str, set[str]] = {"pointsman_metrics_readable": set()}
    for each in vars(Catalogue(Shelf(None), PROVIDER_NAMES)).values():
        if isinstance(each, Counter):
            found[f"{each.name}_total"] = set(each.labels)
        elif isinstance(each, Histogram):
            found |= {f"{each.name}_{suffix}": set(each.labels) for suffix in ("bucket", "sum", "count")}
        elif isinstance(each, Gauge):
            found[each.name] = set(each.labels)
    return found


def in_ledger(database: Database) -> Mapping[str, set[str]]:
    """The same of those that are read from the ledger; labels where there is a row."""
    found: dict[str, set[str]] = {"pointsman_ledger_up": set(), "pointsman_ledger_state_seconds": set()}
    for family in StateReader(database, SystemClock(), PROVIDER_NAMES).read():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = {"relay", "provider", "kind", "state"} | {key for each in family.samples for key in each.labels}
    return found


def queries_of_dashboard(node: Any) -> Iterable[str]:
    """Every query of it, wherever it stands."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "expr":
                yield value
            else:
                yield from queries_of_dashboard(value)
    elif isinstance(node, list):
        for each in node:
            yield from queries_of_dashboard(each)


def rules() -> list[dict[str, Any]]:
    """Every alert rule."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def test_every_query_asks_for_what_there_is(database: Database) -> None:
    """A name or a label that does not exist is an empty panel, and an alert that never comes."""
    known = {**in_process(), **in_ledger(database)}
    dashboard = list(queries_of_dashboard(dashboard_json()))
    asked = [*dashboard, *(rule["expr"] for rule in rules())]
    assert len(dashboard) > 50
    for query in asked:
        for name, labels in SELECTOR.findall(query):
            assert name in known, f"{name} in {query}"
            used = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", labels))
            assert used <= known[name] | PROMETHEUS_OWN, query


def test_what_is_the_whole_services_is_never_added_up(database: Database) -> None:
    """Each machine tells the same of the ledger: two of them would show twice the payments that are parked."""
    whole = in_ledger(database).keys()
    for query in [*queries_of_dashboard(dashboard_json()), *(rule["expr"] for rule in rules())]:
        for name, _ in SELECTOR.findall(query):
            if name in whole:
                aggregations = re.findall(r"\b(sum|avg|count|max|min)\b", query[: query.index(name)])
                assert aggregations[-1:] in (["max"], ["min"]), query


def dashboard_json() -> Any:
    """The dashboard as it is in the repository."""
    return yaml.safe_load((GRAFANA / "pointsman.json").read_text(encoding="utf-8"))


def test_the_dashboard_is_as_its_table_makes_it() -> None:
    """`python deploy/grafana/make_dashboard.py` was run after the last change."""
    spec = importlib.util.spec_from_file_location("make_dashboard", GRAFANA / "make_dashboard.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "make_dashboard", made)
        spec.loader.exec_module(made)
        assert (GRAFANA / "pointsman.json").read_text(encoding="utf-8") == made.rendered()


def test_no_panel_lies_on_another() -> None:
    """Grafana would push one of them away."""
    taken: set[tuple[int, int]] = set()
    for panel in dashboard_json()["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_every_alert_is_raised_by_one_made_up_history() -> None:
    """A rule that no test has ever seen fire may never do."""
    raised = {
        each["alertname"]
        for test in yaml.safe_load(TESTS.read_text())["tests"]
        for each in test["alert_rule_test"]
        if each["exp_alerts"]
    }
    assert raised == {rule["alert"] for rule in rules()}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("words", [["check", "rules", RULES.name], ["test", "rules", TESTS.name]])
def test_promtool_finds_the_rules_right(words: list[str]) -> None:
    """By the tool that Prometheus itself reads them with."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: apt install prometheus)")
    told = subprocess.run(
        [promtool, *words], cwd=PROMETHEUS, capture_output=True, text=True, check=False, timeout=170
    )
    assert told.returncode == 0, told.stdout + told.stderr
