"""`pointsman replay`: what it refuses, in one line that names it, before it looks at any ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.cli import main

PERIOD = ["--from", "2026-11-01", "--to", "2026-11-08"]


@pytest.fixture(autouse=True)
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run directory of its own for every test."""
    monkeypatch.setenv("ROUTER_RUN_DIR", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--from", "2026-11-08", "--to", "2026-11-08"], "--from: must be before --to"),
        (["--from", "2026-11-09T01:00:00+02:00", "--to", "2026-11-08T22:00:00"], "--from: must be before --to"),
        (["--from", "yesterday", "--to", "2026-11-08"], "--from: not a time"),
        (["--from", "2026-11-01", "--to", "2026-13-01"], "--to: not a time"),
        (["--from", "2026-11-01", "--to", "9999-12-31T23:59:59-05:00"], "--to: not a time"),
        ([*PERIOD, "--strategy", "round-robin"], "--strategy: only primary-first or best-value"),
        ([*PERIOD, "--primary", "paypal"], "--primary: only stripe or adyen"),
        ([*PERIOD, "--enabled", "stripe,paypal"], "--enabled: only stripe, adyen"),
        ([*PERIOD, "--enabled", ""], "--enabled: only stripe, adyen"),
        ([*PERIOD, "--tuning", "{"], "--tuning: "),
        ([*PERIOD, "--tuning", "[]"], "--tuning: not a JSON object"),
        ([*PERIOD, "--tuning", '{"margin": "0.1"}'], "--tuning: margin is not a number"),
        ([*PERIOD, "--tuning", '{"margin": true}'], "--tuning: margin is not a number"),
        ([*PERIOD, "--tuning", '{"explore": 0.2}'], "--tuning: explore is outside 0 to 0.1"),
        ([*PERIOD, "--tuning", '{"margin": NaN}'], "--tuning: margin is outside 0 to 1"),
        ([*PERIOD, "--tuning", '{"mar\\ngin": 0.1}'], "is not a known key"),
        ([*PERIOD, "--currency", "eur"], "--currency: must be a currency"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    words: list[str], named: str, run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And no ledger is made by it."""
    assert main(["replay", *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("pointsman: ")
    assert named in shown.err
    assert shown.err.count("\n") == 1
    assert list(run_dir.iterdir()) == []


def test_without_a_ledger_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """As the other commands do, with status 1."""
    assert main(["replay", *PERIOD]) == 1
    assert "pointsman migrate" in capsys.readouterr().err
