"""`pointsman console password`."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from router.cli import main
from router.console.passwords import is_right
from router.ledger.console_access import ConsoleAccess
from router.ledger.engine import Database


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A ledger that is not there yet."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    monkeypatch.setenv("ROUTER_DATABASE_URL", url)
    return url


def test_the_first_line_of_standard_input_becomes_the_password(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is kept as a hash, replaces the one before, and is not shown."""
    for word in ("correct horse battery", "another horse battery"):
        monkeypatch.setattr("sys.stdin", io.StringIO(word + "\n"))
        assert main(["console", "password", "--merchant", "shop"]) == 0
    (kept,) = ConsoleAccess(Database(url)).passwords()

    assert kept.merchant == "shop"
    assert is_right("another horse battery", kept.hash)
    shown = capsys.readouterr()
    assert "horse" not in shown.out + shown.err + kept.hash


def test_a_weak_password_is_refused_and_nothing_is_kept(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the rule, not the word."""
    monkeypatch.setattr("sys.stdin", io.StringIO("hunter2\n"))
    assert main(["console", "password"]) == 1
    error = capsys.readouterr().err
    assert "12 to 200 characters" in error
    assert "hunter2" not in error
