"""`pointsman webhooks`: what an operator at the machine does with endpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.cli import main


@pytest.fixture(autouse=True)
def _a_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ROUTER_RUN_DIR", str(tmp_path))
    assert main(["migrate"]) == 0
    capsys.readouterr()


def _said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main(["webhooks", *arguments]) == code
    captured = capsys.readouterr()
    return captured.err if code else captured.out


def test_an_endpoint_from_its_making_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    """The secret is shown when it is made, and when it is rotated, and in no list."""
    made = _said(capsys, "create", "--merchant", "shop", "--url", "https://shop.example/in")
    endpoint, secret = made.strip().split("\t")
    listed = _said(capsys, "list")
    assert listed == _said(capsys) == f"{endpoint}\tshop\tenabled\thttps://shop.example/in\tall\t\n"
    rotated = _said(capsys, "rotate", endpoint, "--old-hours", "2").strip()
    assert rotated.startswith("whsec_")
    assert rotated != secret
    assert "\tdisabled\t" in _said(capsys, "disable", endpoint, "--reason", "moving house")
    assert "moving house (operator: " in _said(capsys, "list")
    assert "\tenabled\t" in _said(capsys, "enable", endpoint)
    assert _said(capsys, "resend", endpoint, "--since", "2026-11-21T02:00:00+01:00") == ""
    assert _said(capsys, "deliveries", endpoint, "--state", "pending") == ""
    assert _said(capsys, "delete", endpoint) == ""
    assert _said(capsys, "list") == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["create", "--merchant", "shop", "--url", "https://10.0.0.1/"], "--url: must be at a public address"),
        (["create", "--merchant", "shop", "--url", "https://a.example/", "--types", "x"], "--types: must be of"),
        (["create", "--merchant", "shop", "--url", "https://a.example/4111111111111111"], "must not hold a card"),
        (["create", "--merchant", "a\nb", "--url", "https://a.example/"], "--merchant, --description"),
        (["rotate", "whe_1"], "there is no such webhook endpoint"),
        (["rotate", "whe_1", "--old-hours", "-1"], "--old-hours: must be"),
        (["resend", "whe_1", "--since", "noon"], "--since: must be a moment"),
        (["resend", "whe_1", "--since", "2026-11-21T02:00:00"], "--since: must say its time zone"),
        (["resend", "whe_1", "--since", "2999-11-21T02:00:00Z"], "--since: must not be in the future"),
        (["disable", "whe_1", "--reason", ""], "--reason"),
        (["deliveries", "whe_1"], "there is no such webhook endpoint"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(capsys: pytest.CaptureFixture[str], arguments: list[str], says: str) -> None:
    """By the option's name."""
    said = _said(capsys, *arguments, code=1)
    assert said.startswith("pointsman: ")
    assert says in said
    assert said.count("\n") == 1
