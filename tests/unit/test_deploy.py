"""What ships is what the service is: names of settings, commands and paths, and the promises of the manifests."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from flags.bootstrap import as_plain
from flags.definitions import definitions
from router.cli import command_parser
from router.settings import PREFIX, PROVIDER_NAMES, Settings

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
MANIFESTS: list[dict[str, Any]] = list(yaml.safe_load_all((DEPLOY / "kubernetes/pointsman.yaml").read_text()))
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
OURS = ("web", "worker")


def pods() -> list[dict[str, Any]]:
    """Every pod of the manifests."""
    return [each["spec"]["template"]["spec"] for each in MANIFESTS if each["kind"] in ("Deployment", "Job")]


def deployment(name: str) -> dict[str, Any]:
    (found,) = [each for each in MANIFESTS if (each["kind"], each["metadata"]["name"]) == ("Deployment", name)]
    return dict(found["spec"])


def test_every_setting_that_is_named_exists() -> None:
    """A misspelt one would silently do nothing."""
    config = next(each for each in MANIFESTS if each["kind"] == "ConfigMap")
    named = set(config["data"]) | set(re.findall(r"\bROUTER_[A-Z_]+\b", DOCKERFILE))
    for service in OURS:
        named |= set(COMPOSE["services"][service]["environment"])
    assert len(named) > 15
    assert {each.removeprefix(PREFIX).lower() for each in named} <= set(Settings.model_fields)


def test_settings_that_are_given_are_ones_the_service_takes() -> None:
    """With their values, as Kubernetes hands them over."""
    config = next(each for each in MANIFESTS if each["kind"] == "ConfigMap")["data"]
    settings = Settings(**{name.removeprefix(PREFIX).lower(): value for name, value in config.items()})
    assert settings.drain_seconds > settings.deadline_seconds


def test_commands_are_ones_the_service_has() -> None:
    """Of containers and of the image itself."""
    wanted = [COMPOSE["services"][each]["command"] for each in OURS]
    wanted += [container["args"] for pod in pods() for container in pod["containers"]]
    wanted.append(json.loads(re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.M)[-1]))
    for command in wanted:
        assert callable(command_parser().parse_args(command).command)


@pytest.mark.parametrize("number", range(len(pods())))
def test_no_pod_runs_as_root_or_writes_its_root(number: int) -> None:
    """Nor may it become more than it is."""
    pod = pods()[number]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    written = {each["name"] for each in pod["volumes"]}
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert {each["name"] for each in container["volumeMounts"]} == written
        assert container["resources"]["limits"]["memory"]


def test_what_compose_runs_is_as_tight() -> None:
    """PostgreSQL apart, which is its maker's."""
    for name in OURS:
        service = COMPOSE["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "healthcheck" in service or name == "web"  # the image's own


def test_a_pod_has_longer_to_end_than_it_drains() -> None:
    """Or the kill comes while a provider is asked."""
    drain = Settings().drain_seconds
    web, worker = deployment("pointsman-web")["template"]["spec"], deployment("pointsman-worker")["template"]["spec"]
    pause = int(web["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert web["terminationGracePeriodSeconds"] > pause + drain
    assert worker["terminationGracePeriodSeconds"] > drain
    assert int(COMPOSE["services"]["web"]["stop_grace_period"].removesuffix("s")) > drain


def test_a_rollout_or_a_drained_node_leaves_one_that_takes_payments() -> None:
    """Disruption budgets name pods that exist."""
    assert deployment("pointsman-web")["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    budgets = [each["spec"] for each in MANIFESTS if each["kind"] == "PodDisruptionBudget"]
    labels = [deployment(f"pointsman-{part}")["template"]["metadata"]["labels"] for part in OURS]
    assert [each["selector"]["matchLabels"] for each in budgets] == labels
    for each, part in zip(budgets, OURS, strict=True):
        assert 0 < each["minAvailable"] < deployment(f"pointsman-{part}")["replicas"]


def test_probes_ask_for_paths_that_are_served() -> None:
    """Readiness asks whether it can take a payment; liveness only whether it lives."""
    (web,) = deployment("pointsman-web")["template"]["spec"]["containers"]
    assert web["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert web["livenessProbe"]["httpGet"]["path"] == web["startupProbe"]["httpGet"]["path"] == "/healthz"


def test_terraform_makes_the_services_own_flags() -> None:
    """Written anew by `pointsman flags definitions > deploy/terraform/flags.json`."""
    kept = json.loads((DEPLOY / "terraform/flags.json").read_text())
    assert kept == [as_plain(flag) for flag in definitions(PROVIDER_NAMES).values()]


def test_the_image_copies_what_the_package_is_made_of() -> None:
    """What the recipe names is there, and its own ignore file lets it in."""
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.M)
    names = [name for line in copied for name in line.split()]
    let_in = (DEPLOY / "Dockerfile.dockerignore").read_text()
    for name in names:
        assert (DEPLOY.parent / name).exists(), name
        assert f"!{name.rstrip('/')}" in let_in or "!requirements/*.txt" in let_in
    packages = set(
        re.findall(r'"(\w+)\*"', (DEPLOY.parent / "pyproject.toml").read_text().partition("[tool.ruff]")[0])
    )
    assert packages <= {name.rstrip("/") for name in names}


def test_the_audit_says_when_it_could_not_look(tmp_path: Path) -> None:
    """And does not fail a change for it; a database that is reached and knows a fault does (see its docstring)."""
    missing = tmp_path / "requirements.txt"
    missing.write_text("pointsman-that-nobody-publishes==1.0 --hash=sha256:" + "0" * 64 + "\n")
    audit = DEPLOY.parent / ".ci/audit.py"
    run = subprocess.run([sys.executable, str(audit), str(missing)], capture_output=True, text=True, check=False)
    assert (run.returncode, "NOT audited" in run.stdout) == (0, True), run.stdout + run.stderr
