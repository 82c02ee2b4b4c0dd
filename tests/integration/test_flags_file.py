"""The real SDK over real files: what is written is served, in every process, and a broken file breaks nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flags.contract import (
    PRIMARY_PROVIDER,
    ROUTING_TUNING,
    FlagContext,
    RoutingFlags,
    provider_enabled_key,
)
from flags.file import FileFlags
from flags.filewriter import FileFlagWriter, complete_file
from flags.values import WrongValue

PROVIDERS = ("stripe", "adyen")
ANYONE = FlagContext()

READER = """
import pathlib, sys, time
from flags.contract import FlagContext
from flags.file import FileFlags
flags = FileFlags(pathlib.Path(sys.argv[1]), ("stripe", "adyen"), report=print)
seen = None
while True:
    value = flags.read(FlagContext()).primary
    if value != seen:
        seen = value
        print(value, time.monotonic(), flush=True)
    time.sleep(0.002)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "flags.json"
    complete_file(path, PROVIDERS)
    return path


@pytest.fixture
def reports() -> list[WrongValue]:
    return []


@pytest.fixture
def open_flags(reports: list[WrongValue]) -> Iterator[Callable[[Path], FileFlags]]:
    opened: list[FileFlags] = []

    def open_flags(path: Path) -> FileFlags:
        opened.append(FileFlags(path, PROVIDERS, report=reports.append, poll_interval_s=0.02))
        return opened[-1]

    yield open_flags
    for flags in opened:
        flags.close()


OpenFlags = Callable[[Path], FileFlags]


def wait_for(condition: Callable[[], bool], within_s: float = 1.0) -> float:
    """Poll until it holds; how many seconds that took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < within_s, f"not within {within_s} s"
        time.sleep(0.002)
    return time.monotonic() - started


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the flags of the file as a person's editor does: in place, without raising a version."""
    content = json.loads(path.read_text())
    change(content["flags"])
    path.write_text(json.dumps(content))


def serve_variation(key: str, index: int) -> Callable[[dict[str, Any]], None]:
    return lambda flags: flags[key].update(fallthrough={"variation": index})


def set_rules(*rules: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    return lambda flags: flags[PRIMARY_PROVIDER].update(rules=list(rules))


def test_a_new_file_serves_the_defaults(path: Path, open_flags: OpenFlags, reports: list[WrongValue]) -> None:
    """Straight after the first start everything is as the design says, and nothing is reported."""
    flags = open_flags(path)
    assert flags.read(ANYONE) == RoutingFlags(enabled={"stripe": True, "adyen": True})
    assert flags.status().state == "valid"
    assert flags.status().detail is None
    assert reports == []


def test_a_written_value_is_served_by_two_processes_within_a_second(path: Path) -> None:
    """Ten changes in a row; each process says when it served each of them."""
    writer = FileFlagWriter(path, PROVIDERS)
    readers = [
        subprocess.Popen([sys.executable, "-c", READER, str(path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        delays = []
        for reader in readers:
            assert reader.stdout is not None
            assert reader.stdout.readline().split()[0] == "stripe"
        for number in range(10):
            value = ("adyen", "stripe")[number % 2]
            assert writer.set(PRIMARY_PROVIDER, value, expected=None, comment="")
            written_at = time.monotonic()
            for reader in readers:
                assert reader.stdout is not None
                seen, at = reader.stdout.readline().split()
                assert seen == value
                delays.append(float(at) - written_at)
        assert max(delays) < 1.0
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()
            if reader.stdout is not None:
                reader.stdout.close()


def test_an_edit_by_hand_is_served_without_raising_the_version(path: Path, open_flags: OpenFlags) -> None:
    """Nobody who edits a file at night thinks of its version."""
    flags = open_flags(path)
    edit(path, serve_variation(PRIMARY_PROVIDER, 1))
    wait_for(lambda: flags.read(ANYONE).primary == "adyen")
    edit(path, serve_variation(provider_enabled_key("stripe"), 1))
    wait_for(lambda: not flags.read(ANYONE).is_enabled("stripe"))


def test_an_edit_by_hand_reaches_the_sdks_change_listeners(path: Path, open_flags: OpenFlags) -> None:
    """What the audit of changes hangs on, with old and new value, and only for the flag that changed."""
    flags = open_flags(path)
    changed: list[str] = []
    flags.client.flag_tracker.add_listener(lambda change: changed.append(change.key))
    edit(path, serve_variation(PRIMARY_PROVIDER, 1))
    wait_for(lambda: changed != [])
    edit(path, serve_variation(PRIMARY_PROVIDER, 0))
    wait_for(lambda: len(changed) > 1)
    FileFlagWriter(path, PROVIDERS).set(PRIMARY_PROVIDER, "adyen", expected=None, comment="")
    wait_for(lambda: len(changed) > 2)
    assert changed == [PRIMARY_PROVIDER] * 3


def test_an_edit_within_the_clock_tick_of_the_last_one_is_seen(path: Path, open_flags: OpenFlags) -> None:
    """A file system's times tick in milliseconds; two edits may bear the same one."""
    flags = open_flags(path)
    before = path.stat()
    edit(path, serve_variation(PRIMARY_PROVIDER, 1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    wait_for(lambda: flags.read(ANYONE).primary == "adyen")


def test_a_rule_serves_its_contexts_another_provider(path: Path, open_flags: OpenFlags) -> None:
    """Every attribute that a payment has can be targeted, its merchant and its customer too."""
    clauses = {
        "payment": [("currency", "EUR"), ("method", "card"), ("card_brand", "visa"), ("card_country", "DE")],
        "customer": [("country", "FR"), ("key", "cus_1")],
        "merchant": [("key", "shop")],
    }
    matching = FlagContext("pay_1", "shop", "cus_1", 1999, "EUR", "card", "visa", "DE", "FR")
    flags = open_flags(path)
    for kind, attributes in clauses.items():
        for attribute, value in attributes:
            clause = {"contextKind": kind, "attribute": attribute, "op": "in", "values": [value], "negate": False}
            rule = {"id": "r", "variation": 1, "clauses": [clause]}
            edit(path, set_rules(rule))
            wait_for(lambda: flags.read(matching).primary == "adyen")
            assert flags.read(ANYONE).primary == "stripe"
            edit(path, set_rules())
            wait_for(lambda: flags.read(matching).primary == "stripe")


def test_a_broken_file_keeps_the_values_and_says_so_until_it_is_mended(
    path: Path, open_flags: OpenFlags, capfd: pytest.CaptureFixture[str]
) -> None:
    """A missing comma at three in the morning does not send payments to another provider."""
    FileFlagWriter(path, PROVIDERS).set(PRIMARY_PROVIDER, "adyen", expected=None, comment="")
    flags = open_flags(path)
    good = path.read_bytes()
    malformed = json.dumps({"flags": {"k": {"version": 1, "variations": 7, "rules": "none"}}}).encode()
    for broken, says in ((good[:-20], "not JSON at line"), (b"", "not JSON"), (malformed, "malformed")):
        path.write_bytes(broken)
        wait_for(lambda: flags.status().state == "interrupted")
        detail = flags.status().detail
        assert detail is not None
        assert says in detail
        assert flags.read(ANYONE).primary == "adyen"
        path.write_bytes(good)
        wait_for(lambda: flags.status().state == "valid")
    assert "Traceback" not in capfd.readouterr().err


def test_a_deleted_file_keeps_the_values_and_says_so_until_it_is_back(path: Path, open_flags: OpenFlags) -> None:
    """The SDK's own file source would say that all is well."""
    flags = open_flags(path)
    kept = path.with_name("kept.json")
    path.rename(kept)
    wait_for(lambda: flags.status().state == "interrupted")
    assert flags.status().detail == "the flags file cannot be read (No such file or directory)"
    assert flags.read(ANYONE).primary == "stripe"
    kept.rename(path)
    wait_for(lambda: flags.status().state == "valid")


@pytest.mark.parametrize("content", [None, b"{"])
def test_a_file_that_is_missing_or_broken_at_start_serves_the_defaults_until_it_is_mended(
    path: Path, open_flags: OpenFlags, caplog: pytest.LogCaptureFixture, content: bytes | None
) -> None:
    """The service starts at once, says what is wrong, and follows the file when it is there."""
    good = path.read_bytes()
    path.unlink() if content is None else path.write_bytes(content)
    started = time.monotonic()
    flags = open_flags(path)
    assert time.monotonic() - started < 3
    for _ in range(100):
        assert flags.read(ANYONE) == RoutingFlags(enabled={"stripe": True, "adyen": True})
    assert len(caplog.records) <= 2, "the SDK warns of every single read"
    status = flags.status()
    assert (status.state, status.detail is not None) == ("initializing", True)
    path.write_bytes(good)
    FileFlagWriter(path, PROVIDERS).set(PRIMARY_PROVIDER, "adyen", expected=None, comment="")
    wait_for(lambda: flags.status().state == "valid")
    wait_for(lambda: flags.read(ANYONE).primary == "adyen")


def test_wrong_values_in_the_file_are_reported_once_and_not_obeyed(
    path: Path, open_flags: OpenFlags, reports: list[WrongValue]
) -> None:
    """A number for the primary, a typo in the tuning, a deleted flag: three lines, whatever the traffic."""

    def change(flags: dict[str, Any]) -> None:
        flags[PRIMARY_PROVIDER]["variations"] = [7]
        flags[ROUTING_TUNING]["variations"] = [{"margin": 0.5, "explor": 0.01}]
        del flags[provider_enabled_key("adyen")]

    edit(path, change)
    flags = open_flags(path)
    for _ in range(50):
        read = flags.read(ANYONE)
    assert (read.primary, read.tuning.margin, read.is_enabled("adyen")) == ("stripe", 0.5, True)
    assert sorted(report.key for report in reports) == sorted(
        [PRIMARY_PROVIDER, ROUTING_TUNING, provider_enabled_key("adyen")]
    )


def test_a_closed_reader_says_off_and_goes_on_answering(path: Path, open_flags: OpenFlags) -> None:
    """A payment that is still under way while the process stops has flags."""
    flags = open_flags(path)
    started = time.monotonic()
    flags.close()
    flags.close()
    assert time.monotonic() - started < 3
    assert flags.status().state == "off"
    assert flags.read(ANYONE).primary == "stripe"


def test_a_reader_built_before_a_fork_says_that_it_is_frozen(path: Path) -> None:
    """The SDK itself would go on saying VALID in a web worker that never hears of a toggle."""
    code = """
import os, pathlib, sys
from flags.file import FileFlags
flags = FileFlags(pathlib.Path(sys.argv[1]), ("stripe", "adyen"), report=print)
if os.fork() == 0:
    os._exit(0 if flags.status().state == "off" and "fork" in flags.status().detail else 1)
os._exit(os.waitstatus_to_exitcode(os.wait()[1]) + (flags.status().state != "valid"))
"""
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False, timeout=20).returncode == 0
