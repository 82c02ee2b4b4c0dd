"""`pointsman fees`, as finance types it, and the fees file as a setting of the start."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from pathlib import Path

import pytest

from providers.fees import FeeBook
from router.cli import main
from router.fee_book import fee_book
from router.settings import PREFIX, Settings, SettingsError

TODAY = dt.date(2026, 11, 21)
HEADER = "provider,valid_from,currency,brand,funding,region,percent,fixed,per_attempt"
SOUND = f"""{HEADER}
stripe,2024-01-01,,,,,2.9,,
stripe,2024-01-01,EUR,,,,1.5,0.25,
stripe,2999-01-01,EUR,,,,1.4,0.25,
adyen,2024-01-01,,,,,2.1,,
adyen,2024-01-01,EUR,,,,2.1,,0.13
"""


@pytest.fixture(autouse=True)
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run directory of its own for every test."""
    for name in os.environ:
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.setenv("ROUTER_RUN_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def fees(tmp_path: Path) -> Path:
    """A file without an error."""
    path = tmp_path / "fees.csv"
    path.write_text(SOUND)
    return path


def test_a_sound_file_is_shown_as_it_is_understood(fees: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table of each provider, with what 60.00 would cost, and from when a line of a later day applies."""
    assert main(["fees", "check", str(fees)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "adyen",
        "line currency brand funding region percent fixed attempt of 60.00 holds",
        "5 any any any any 2.1% 0 0 1.2600 since 2024-01-01",
        "6 EUR any any any 2.1% 0 0.13 1.3900 since 2024-01-01",
        "",
        "stripe",
        "line currency brand funding region percent fixed attempt of 60.00 holds",
        "2 any any any any 2.9% 0 0 1.7400 since 2024-01-01",
        "3 EUR any any any 1.5% 0.25 0 1.1500 since 2024-01-01, until 2999-01-01",
        "4 EUR any any any 1.4% 0.25 0 1.0900 from 2999-01-01",
        "",
        "5 lines, no error",
    ]


def test_a_line_that_is_over_says_so(fees: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And has no price today."""
    fees.write_text(f"{SOUND}stripe,2023-01-01,EUR,,,,9,,\n")
    assert main(["fees", "check", str(fees)]) == 0
    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "7 EUR any any any 9% 0 0 until 2024-01-01: over" in shown


def test_every_error_is_printed_with_its_line(fees: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And the command fails, for a pipeline that checks before it installs."""
    fees.write_text(f"{HEADER}\nstripe,2024-01-01,,,,,-2.9,,\nadyen,2024-01-01,EUR,,,,x,,\n")
    assert main(["fees", "check", str(fees)]) == 1
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        f"{fees}:2: percent: negative",
        f"{fees}:3: percent: not a number such as 0.30 (a point, no signs, at most 7 digits before it)",
    ]
    assert shown.err == "2 errors\n"
    fees.write_text(f"{HEADER}\n" + "x\n" * 60)
    assert main(["fees", "check", str(fees)]) == 1
    assert capsys.readouterr().err.endswith("50 and more errors\n")


def test_a_file_is_checked_while_the_one_in_use_is_wrong(
    fees: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else nobody could mend it."""
    monkeypatch.setenv("ROUTER_FEES_FILE", str(fees.parent / "absent.csv"))
    assert main(["fees", "check", str(fees)]) == 0
    assert main(["fees", "check", str(fees.parent / "absent.csv")]) == 1
    assert "absent.csv cannot be read: No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "web", "worker"])
def test_a_wrong_file_stops_the_start_with_one_line(
    fees: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """It names the setting, the file and its line, and nothing is begun."""
    fees.write_text(SOUND.replace("2.9", "-2.9"))
    monkeypatch.setenv("ROUTER_FEES_FILE", str(fees))
    assert main([command]) == 1
    assert capsys.readouterr().err == f"pointsman: setting ROUTER_FEES_FILE: {fees}:2: percent: negative\n"
    assert sorted(path.name for path in fees.parent.iterdir()) == ["fees.csv"]


def test_a_wrong_file_stops_a_server_that_others_start(fees: Path) -> None:
    """granian and gunicorn import wsgi."""
    fees.write_text(SOUND.replace("2.1", "x"))
    env = {**os.environ, "ROUTER_FEES_FILE": str(fees), "ROUTER_RUN_DIR": str(fees.parent)}
    ended = subprocess.run(
        [sys.executable, "-c", "import wsgi"], env=env, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert f"setting ROUTER_FEES_FILE: {fees}:5: percent: not a number" in ended.stderr.splitlines()[-1]
    assert "(and more: `pointsman fees check` lists them)" in ended.stderr.splitlines()[-1]


def test_without_a_file_the_default_is_decided_by(fees: Path) -> None:
    """With one, that alone; one that is not there is an error, not the default."""
    assert fee_book(Settings(), TODAY).lines == FeeBook.default().lines
    assert len(fee_book(Settings(fees_file=fees), TODAY).lines) == 5
    with pytest.raises(SettingsError, match=r"setting ROUTER_FEES_FILE: .*none\.csv cannot be read"):
        fee_book(Settings(fees_file=fees.parent / "none.csv"), TODAY)
    with pytest.raises(SettingsError, match="Is a directory"):
        fee_book(Settings(fees_file=fees.parent), TODAY)


def test_one_sale_is_quoted(fees: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By the default, the file in use or another one, on any day."""

    def quoted(*words: str) -> list[str]:
        assert main(["fees", "quote", *words]) == 0
        return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()][1:]

    assert quoted("60.00", "eur", "--region", "international") == [
        "stripe 2.9400 0.0000 default",
        "adyen 1.2600 0.1300 default",
    ]
    assert quoted("60", "EUR", "--file", str(fees)) == ["stripe 1.1500 0.0000 3", "adyen 1.2600 0.1300 6"]
    monkeypatch.setenv("ROUTER_FEES_FILE", str(fees))
    assert quoted("60", "EUR", "--on", "2999-01-01")[0] == "stripe 1.0900 0.0000 4"
    assert quoted("60", "EUR", "--on", "2023-12-31") == [
        f"{name} 0.0000 0.0000 none holds on that day" for name in ("stripe", "adyen")
    ]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["x", "EUR"], "amount: not a number such as 60.00"),
        (["0", "EUR"], "amount: more than 0"),
        (["NaN", "EUR"], "amount: more than 0"),
        (["1e30", "EUR"], "amount: more than 0"),
        (["1", "XYZ"], "currency: three letters of ISO 4217"),
    ],
)
def test_what_cannot_be_quoted_is_refused(words: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In one line."""
    assert main(["fees", "quote", *words]) == 1
    assert capsys.readouterr().err.startswith(f"pointsman: {why}")


def test_the_days_of_a_difference_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    """And without any fee told, that is said."""
    assert main(["migrate"]) == 0
    days = ["--from", "2026-11-01", "--to", "2026-11-01"]
    assert main(["fees", "difference", *days]) == 1
    assert capsys.readouterr().err == "pointsman: --to: must be after --from\n"
    assert main(["fees", "difference", "--from", "2026-11-01", "--to", "2026-11-02"]) == 0
    assert capsys.readouterr().out == "no provider has told a fee of a payment of these days\n"
    with pytest.raises(SystemExit):
        main(["fees", "difference", "--from", "x", "--to", "2026-11-02"])
