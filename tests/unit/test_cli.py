"""The commands, as a person types them: what they print, what they change, and one clear line when they cannot."""

from __future__ import annotations

import argparse
import datetime as dt
import getpass
import json
import re
import socket
from pathlib import Path

import pytest

from router.cli import command_parser, main
from router.ledger.circuits import CircuitLedger
from router.ledger.engine import Database
from router.ledger.keys import KeyLedger
from router.sealing import Ring
from router.transitions import State, following


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
    assert main(["api-keys", "create", "--merchant", "shop", "--scopes", "payments,reports"]) == 0
    key = capsys.readouterr().out.strip()
    caller = KeyLedger(Database(f"sqlite:///{run_dir / 'ledger.db'}")).find(key)
    assert caller is not None
    assert (caller.merchant, sorted(caller.scopes)) == ("shop", ["payments", "reports"])
    assert key.encode() not in b"".join(path.read_bytes() for path in run_dir.glob("ledger.db*"))
    assert main(["api-keys", "create", "--merchant", "shop", "--scopes", "everything"]) == 1


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


# ---------------------------------------------------------------- circuits


def circuits(run_dir: Path) -> CircuitLedger:
    """The ledger as another process sees it."""
    return CircuitLedger(Database(f"sqlite:///{run_dir / 'ledger.db'}"))


@pytest.fixture
def migrated(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A run directory whose ledger has its tables."""
    assert main(["migrate"]) == 0
    capsys.readouterr()
    return run_dir


@pytest.mark.parametrize(
    ("order", "state"),
    [
        ("force-open", State.FORCED_OPEN),
        ("bypass", State.BYPASS),
        ("metrics-only", State.METRICS_ONLY),
        ("reset", State.CLOSED),
    ],
)
def test_an_order_to_a_circuit_is_on_record_with_who_and_why(
    order: str, state: State, migrated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every process follows the row; the command says what holds, and `breaker` shows it."""
    assert main(["breaker", "stripe", order, "--reason", "fraud wave, OPS-77"]) == 0
    assert capsys.readouterr().out == f"stripe: {state.value} from now on\n"
    (row,) = circuits(migrated).history("stripe", limit=9)
    assert (row.state, row.reason, row.until) == (state, "fraud wave, OPS-77", None)
    assert row.actor == f"operator: {getpass.getuser()} at {socket.gethostname()}"
    assert main(["breaker", "stripe"]) == 0
    shown = capsys.readouterr().out
    assert re.fullmatch(
        rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d  {state.value}  by {re.escape(row.actor)}: fraud wave, OPS-77\n", shown
    )


def test_an_order_may_end_by_itself(migrated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After so many minutes, which is on record and shown."""
    assert main(["breaker", "adyen", "bypass", "--reason", "why", "--for-minutes", "90"]) == 0
    (row,) = circuits(migrated).history("adyen", limit=9)
    assert row.until is not None
    assert abs(row.until - row.at - dt.timedelta(minutes=90)) < dt.timedelta(seconds=10)
    capsys.readouterr()
    main(["breaker", "adyen"])
    assert f"bypass, until {row.until:%Y-%m-%d %H:%M:%S}  by " in capsys.readouterr().out


@pytest.mark.parametrize("fault", [KeyError("getpwuid(): uid not found: 54321"), OSError("No username set")])
def test_a_user_without_a_name_may_order_too(
    migrated: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    """As in a container that runs as a number: the record has the number."""

    def nameless() -> str:
        raise fault

    monkeypatch.setattr("getpass.getuser", nameless)
    monkeypatch.setattr("os.getuid", lambda: 54321)
    assert main(["breaker", "stripe", "force-open", "--reason", "why"]) == 0
    (row,) = circuits(migrated).history("stripe", limit=9)
    assert row.actor.startswith("operator: uid 54321 at ")


def test_a_circuit_goes_back_to_automatic_after_its_probes(
    migrated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was shut is probed before it gets a payment; the newest stands first."""
    main(["breaker", "stripe", "force-open", "--reason", "why"])
    capsys.readouterr()
    assert main(["breaker", "stripe", "automatic", "--reason", "over"]) == 0
    assert capsys.readouterr().out == "stripe: open from now on\n"
    main(["breaker", "stripe"])
    newest, oldest = capsys.readouterr().out.splitlines()
    assert "  open  by operator: " in newest
    assert newest.endswith(": over")
    assert "  forced_open  by " in oldest


def test_a_circuit_that_never_moved_and_one_that_is_suspect_are_shown(
    migrated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten transitions at most: the page of the HTTP interface has the rest."""
    assert main(["breaker", "stripe"]) == 0
    assert capsys.readouterr().out == "stripe: closed, and always has been\n"
    ledger, last = circuits(migrated), None
    for n in range(1, 13):
        last = following(
            last,
            State.CLOSED,
            provider="stripe",
            at=dt.datetime(2026, 11, 21, 10, n, tzinfo=dt.UTC),
            actor="web:1",
            reason=f"mark {n}",
            suspect=bool(n % 2),
        )
        assert ledger.append(last)
    main(["breaker", "stripe"])
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "2026-11-21 10:12:00  closed  by web:1: mark 12"
    assert shown[1] == "2026-11-21 10:11:00  closed, suspect  by web:1: mark 11"
    assert len(shown) == 10


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["automatic", "--reason", "why"], "the circuit of stripe is automatic: nothing is overridden"),
        (["bypass", "--reason", ""], "--reason: 1 to 255"),
        (["bypass", "--reason", "x" * 256], "--reason: 1 to 255"),
        (["bypass", "--reason", "two\nlines"], "--reason: 1 to 255"),
        (["bypass", "--reason", "\x1b[2J"], "--reason: 1 to 255"),
        (["bypass", "--reason", "4111 1111 1111 1111"], "--reason:"),
        (["bypass", "--reason", "why", "--for-minutes", "0"], "--for-minutes"),
        (["bypass", "--reason", "why", "--for-minutes", "-5"], "--for-minutes"),
        (["bypass", "--reason", "why", "--for-minutes", "nan"], "--for-minutes"),
        (["bypass", "--reason", "why", "--for-minutes", "inf"], "--for-minutes"),
        (["bypass", "--reason", "why", "--for-minutes", "600000"], "--for-minutes"),
        (["automatic", "--reason", "why", "--for-minutes", "5"], "--for-minutes: an automatic circuit has no end"),
    ],
)
def test_a_wrong_order_to_a_circuit_is_refused_in_one_line(
    words: list[str], said: str, migrated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is ordered, and no card number is repeated."""
    assert main(["breaker", "stripe", *words]) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith(f"pointsman: {said}")
    assert shown.err.count("\n") == 1
    assert "1111" not in shown.err + shown.out
    assert circuits(migrated).history("stripe", limit=9) == []


@pytest.mark.parametrize(
    "words", [["paypal", "bypass", "--reason", "why"], ["stripe", "close"], ["stripe", "bypass"]]
)
def test_an_order_that_is_none_names_what_there_is(
    words: list[str], migrated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown provider, an unknown order, and one without its reason."""
    with pytest.raises(SystemExit) as ended:
        main(["breaker", *words])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert any(word in said for word in ("'stripe', 'adyen'", "'automatic'", "--reason"))


@pytest.mark.parametrize("words", [["stripe"], ["stripe", "bypass", "--reason", "why"]])
def test_circuits_of_a_ledger_without_tables_are_one_line(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what to do."""
    assert main(["breaker", *words]) == 1
    assert "pointsman migrate" in capsys.readouterr().err


def test_a_first_encryption_key_is_printed_and_kept_nowhere(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As deploy/compose.yaml says: whoever sets up a PostgreSQL has a checkout, and in it a ledger that is a file."""
    assert main(["keys", "new", "--print"]) == 0
    shown = capsys.readouterr()
    assert len(Ring([shown.out.strip()]).ids) == 1
    assert shown.err == ""
    assert list(run_dir.iterdir()) == []


def test_every_command_tells_of_itself() -> None:
    """`--help`, of `pointsman`, of each command and each thing that it can be told: no % in a line trips argparse."""
    waiting = [command_parser()]
    seen = 0
    while waiting:
        parser = waiting.pop()
        assert parser.format_help().startswith("usage: pointsman"), parser.prog
        seen += 1
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                waiting += action.choices.values()
    assert seen > 40
