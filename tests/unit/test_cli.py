"""The commands, as a person types them: what they print, what they change, and one clear line when they cannot."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from router.cli import main
from router.ledger.engine import Database
from router.ledger.keys import KeyLedger


@pytest.fixture(autouse=True)
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run directory of its own for every test."""
    monkeypatch.setenv("ROUTER_RUN_DIR", str(tmp_path))
    return tmp_path


def test_flags_shows_every_flag_with_what_it_serves(capsys: pytest.CaptureFixture[str]) -> None:
    """On first use the file is made, with all flags of the contract at their defaults."""
    assert main(["flags"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"payments-primary-provider +stripe ", shown)
    assert re.search(r"payments-provider-adyen-enabled +true ", shown)
    assert re.search(r"payments-routing-tuning +\{\} ", shown)
    assert len(re.findall(r"^  payments-", shown, re.MULTILINE)) == 9


def test_flags_set_changes_what_is_served(capsys: pytest.CaptureFixture[str], run_dir: Path) -> None:
    """A string, a switch and JSON, each as a person writes it."""
    for key, value in (
        ("payments-primary-provider", "adyen"),
        ("payments-provider-stripe-enabled", "false"),
        ("payments-routing-tuning", '{"margin": 0.2}'),
    ):
        assert main(["flags", "set", key, value]) == 0
    capsys.readouterr()
    main(["flags"])
    shown = capsys.readouterr().out
    assert re.search(r"payments-primary-provider +adyen ", shown)
    assert re.search(r"payments-provider-stripe-enabled +false ", shown)
    assert '{"margin": 0.2}' in shown
    assert json.loads((run_dir / "flags.json").read_text())["flags"]["payments-primary-provider"]["version"] > 1


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["payments-primary-provider", "paypal"], "stripe or adyen"),
        (["payments-primary", "adyen"], "payments-primary-provider"),
        (["payments-auto-flip-enabled", "maybe"], "true or false"),
        (["payments-routing-tuning", "{"], "JSON"),
    ],
)
def test_a_wrong_flag_is_refused_in_one_line(
    words: list[str], named: str, capsys: pytest.CaptureFixture[str], run_dir: Path
) -> None:
    """The line names what is allowed; nothing is changed."""
    main(["flags"])
    before = (run_dir / "flags.json").read_bytes()
    assert main(["flags", "set", *words]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert named in said
    assert (run_dir / "flags.json").read_bytes() == before


def test_with_launchdarkly_the_file_is_neither_shown_nor_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run_dir: Path
) -> None:
    """A toggle that silently does nothing is what a product team must never see."""
    monkeypatch.setenv("ROUTER_LAUNCHDARKLY_SDK_KEY", "sdk-1")
    assert main(["flags", "set", "payments-primary-provider", "adyen"]) == 1
    assert "LaunchDarkly" in capsys.readouterr().err
    assert not (run_dir / "flags.json").exists()


def test_a_new_key_opens_what_its_scopes_say(capsys: pytest.CaptureFixture[str], run_dir: Path) -> None:
    """It is shown once; the ledger holds a digest of it."""
    assert main(["keys", "create", "--merchant", "shop", "--scopes", "payments,reports"]) == 0
    key = capsys.readouterr().out.strip()
    caller = KeyLedger(Database(f"sqlite:///{run_dir / 'ledger.db'}")).find(key)
    assert caller is not None
    assert (caller.merchant, sorted(caller.scopes)) == ("shop", ["payments", "reports"])
    assert key.encode() not in b"".join(path.read_bytes() for path in run_dir.glob("ledger.db*"))
    assert main(["keys", "create", "--merchant", "shop", "--scopes", "everything"]) == 1


def test_a_ledger_that_cannot_be_used_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback: the address is wrong, or the database is away."""
    monkeypatch.setenv("ROUTER_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    assert main(["migrate"]) == 1
    assert capsys.readouterr().err.startswith("pointsman: the ledger cannot be used")


def test_a_wrong_setting_stops_every_command_with_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, before anything is started."""
    monkeypatch.setenv("ROUTER_FLIP_AFTER_SECONDS", "soon")
    assert main(["flags"]) == 1
    assert "ROUTER_FLIP_AFTER_SECONDS" in capsys.readouterr().err
