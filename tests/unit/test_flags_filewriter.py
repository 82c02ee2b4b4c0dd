"""Writing the flags file: no update is lost, no reader sees half a file, nothing of a person's is thrown away."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flags import document, filewriter
from flags.contract import (
    MAINTENANCE_NOTICE,
    PRIMARY_PROVIDER,
    ROUTING_TUNING,
    FlagWriteError,
    provider_enabled_key,
)
from flags.definitions import definitions
from flags.filewriter import FileFlagWriter, complete_file, describe

PROVIDERS = ("stripe", "adyen")
STRIPE_ENABLED = provider_enabled_key("stripe")

WRITE_FOR_EVER = """
import itertools, pathlib, sys
from flags.filewriter import FileFlagWriter
writer = FileFlagWriter(pathlib.Path(sys.argv[1]), ("stripe", "adyen"))
for number in itertools.count() if sys.argv[2] == "for ever" else range(int(sys.argv[2])):
    writer.set("payments-primary-provider", ("adyen", "stripe")[number % 2], expected=None, comment="a")
    writer.set("payments-maintenance-notice", f"{sys.argv[3]} {number}" * 50, expected=None, comment="b")
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "flags.json"
    complete_file(path, PROVIDERS)
    return path


@pytest.fixture
def writer(path: Path) -> FileFlagWriter:
    return FileFlagWriter(path, PROVIDERS)


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the flags of the file as a person's editor does: in place, without a lock or a version."""
    content = json.loads(path.read_text())
    change(content["flags"])
    path.write_text(json.dumps(content))


def flag(path: Path, key: str) -> dict[str, Any]:
    found = json.loads(path.read_text())["flags"][key]
    assert isinstance(found, dict)
    return found


def start_writer(path: Path, how_often: str, name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, str(path), how_often, name])


def test_a_new_file_has_every_flag_at_its_default(path: Path, writer: FileFlagWriter) -> None:
    """The first start needs nobody to write a file."""
    assert {key: writer.current(key) for key in definitions(PROVIDERS)} == {
        key: flag.default for key, flag in definitions(PROVIDERS).items()
    }


def test_an_existing_file_keeps_everything_and_gains_what_it_lacks(tmp_path: Path) -> None:
    """An upgrade that brings a flag does not undo what a team has set."""
    path = tmp_path / "flags.json"
    mine = {
        "key": PRIMARY_PROVIDER,
        "version": 9,
        "on": True,
        "variations": ["adyen"],
        "fallthrough": {"variation": 0},
    }
    path.write_text(json.dumps({"flags": {PRIMARY_PROVIDER: mine, "other": {"version": 1}}, "note": "ours"}))
    added = complete_file(path, PROVIDERS)
    assert PRIMARY_PROVIDER not in added
    assert len(added) == len(definitions(PROVIDERS)) - 1
    after = json.loads(path.read_text())
    assert (after["flags"][PRIMARY_PROVIDER], after["note"]) == (mine, "ours")
    assert "other" in after["flags"]
    before = path.read_bytes()
    assert complete_file(path, PROVIDERS) == []
    assert path.read_bytes() == before


def test_the_short_form_that_a_person_wrote_is_understood(tmp_path: Path) -> None:
    """`flagValues` is the form that LaunchDarkly's documentation shows first."""
    path = tmp_path / "flags.json"
    path.write_text(json.dumps({"flagValues": {PRIMARY_PROVIDER: "adyen"}}))
    writer = FileFlagWriter(path, PROVIDERS)
    assert writer.current(PRIMARY_PROVIDER) == "adyen"
    assert writer.set(PRIMARY_PROVIDER, "stripe", expected="adyen", comment="back")
    assert writer.current(PRIMARY_PROVIDER) == "stripe"
    assert flag(path, PRIMARY_PROVIDER)["variations"] == ["adyen", "stripe"]


def test_a_set_value_is_served_under_a_higher_version_with_its_comment(path: Path, writer: FileFlagWriter) -> None:
    """The SDK's listeners go by the version, a person by the comment."""
    assert writer.set(PRIMARY_PROVIDER, "adyen", expected=None, comment="stripe open 61 s")
    assert writer.current(PRIMARY_PROVIDER) == "adyen"
    after = flag(path, PRIMARY_PROVIDER)
    assert (after["version"], after["comment"]) == (2, "stripe open 61 s")
    before = path.read_bytes()
    assert writer.set(PRIMARY_PROVIDER, "adyen", expected=None, comment="again")
    assert path.read_bytes() == before


def test_a_value_that_is_no_longer_served_changes_nothing(path: Path, writer: FileFlagWriter) -> None:
    """A person was faster: the machine's flip is off."""
    writer.set(PRIMARY_PROVIDER, "adyen", expected="stripe", comment="flip")
    before = path.read_bytes()
    assert not writer.set(PRIMARY_PROVIDER, "stripe", expected="stripe", comment="late flip")
    assert path.read_bytes() == before


def test_false_is_an_expectation_and_not_the_absence_of_one(writer: FileFlagWriter) -> None:
    """`expected=False` compares; 0 is not False."""
    assert not writer.set(STRIPE_ENABLED, False, expected=False, comment="")
    assert not writer.set(STRIPE_ENABLED, False, expected=1, comment="")
    assert writer.current(STRIPE_ENABLED) is True
    assert writer.set(STRIPE_ENABLED, False, expected=True, comment="")
    assert writer.current(STRIPE_ENABLED) is False


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("payments-primary", "adyen", "did you mean payments-primary-provider"),
        (PRIMARY_PROVIDER, "paypal", "stripe or adyen"),
        (PRIMARY_PROVIDER, True, "stripe or adyen"),
        (STRIPE_ENABLED, "false", "true or false"),
        (STRIPE_ENABLED, 0, "true or false"),
        (ROUTING_TUNING, {"margin": True}, "margin is not a number"),
    ],
)
def test_a_wrong_value_is_refused_and_nothing_is_written(
    path: Path, writer: FileFlagWriter, key: str, value: object, says: str
) -> None:
    """The file never holds what the reader would have to ignore."""
    before = path.read_bytes()
    with pytest.raises(FlagWriteError, match=says):
        writer.set(key, value, expected=None, comment="")
    assert path.read_bytes() == before


def test_a_flag_that_is_off_is_turned_on_by_setting_it(path: Path, writer: FileFlagWriter) -> None:
    """Whoever sets a value expects it to be served; what "off" serves stays what it was."""
    edit(path, lambda flags: flags[STRIPE_ENABLED].update(on=False))
    assert writer.current(STRIPE_ENABLED) is False
    assert writer.set(STRIPE_ENABLED, True, expected=False, comment="")
    assert writer.current(STRIPE_ENABLED) is True
    assert flag(path, STRIPE_ENABLED)["on"] is True
    edit(path, lambda flags: flags[STRIPE_ENABLED].update(on=False))
    assert writer.current(STRIPE_ENABLED) is False


def test_rules_and_targets_that_a_person_wrote_are_kept(path: Path, writer: FileFlagWriter) -> None:
    """A flip moves everyone else, not the merchant that somebody pinned."""
    rules = [{"id": "r", "variation": 0, "clauses": []}]
    targets = [{"contextKind": "merchant", "variation": 0, "values": ["m"]}]
    edit(path, lambda flags: flags[PRIMARY_PROVIDER].update(rules=rules, contextTargets=targets))
    writer.set(PRIMARY_PROVIDER, "adyen", expected=None, comment="")
    after = flag(path, PRIMARY_PROVIDER)
    assert (after["rules"], after["contextTargets"]) == (rules, targets)
    row = next(row for row in describe(path, PROVIDERS) if row.key == PRIMARY_PROVIDER)
    assert (row.value, row.notes) == ("adyen", ("2 rule(s) or target(s) may serve something else",))


def test_an_old_notice_is_not_kept_for_ever_but_one_that_a_rule_serves_is(path: Path, writer: FileFlagWriter) -> None:
    """A file that a person reads does not grow by a sentence with every outage."""
    for number in range(5):
        writer.set(MAINTENANCE_NOTICE, f"notice {number}", expected=None, comment="")
    assert flag(path, MAINTENANCE_NOTICE)["variations"] == ["", "notice 4"]
    rule = {"variation": 1, "clauses": [{"attribute": "currency", "op": "in", "values": ["EUR"]}]}
    edit(path, lambda flags: flags[MAINTENANCE_NOTICE].update(rules=[rule]))
    writer.set(MAINTENANCE_NOTICE, "other", expected=None, comment="")
    assert flag(path, MAINTENANCE_NOTICE)["variations"] == ["", "notice 4", "other"]


def test_a_percentage_rollout_is_no_one_value(path: Path, writer: FileFlagWriter) -> None:
    """It is neither flipped by a machine nor mistaken for a value, but a person may replace it."""
    rollout = {"rollout": {"contextKind": "customer", "variations": [{"variation": 0, "weight": 100_000}]}}
    edit(path, lambda flags: flags[PRIMARY_PROVIDER].update(fallthrough=rollout))
    with pytest.raises(FlagWriteError, match="percentage rollout"):
        writer.current(PRIMARY_PROVIDER)
    assert "percentage rollout" in describe(path, PROVIDERS)[0].notes[0]
    assert not writer.set(PRIMARY_PROVIDER, "adyen", expected="stripe", comment="")
    assert writer.set(PRIMARY_PROVIDER, "adyen", expected=None, comment="")
    assert writer.current(PRIMARY_PROVIDER) == "adyen"


def test_prerequisites_are_not_overruled_in_silence(path: Path, writer: FileFlagWriter) -> None:
    """A value that would not be served is refused."""
    edit(path, lambda flags: flags[PRIMARY_PROVIDER].update(prerequisites=[{"key": "x", "variation": 0}]))
    with pytest.raises(FlagWriteError, match="prerequisites"):
        writer.set(PRIMARY_PROVIDER, "adyen", expected=None, comment="")


def test_the_list_says_what_is_served_and_what_is_odd(path: Path) -> None:
    """A wrong value, a missing flag and a flag that is off are visible at a glance."""

    def change(flags: dict[str, Any]) -> None:
        flags[PRIMARY_PROVIDER]["variations"][0] = "paypal"
        del flags[MAINTENANCE_NOTICE]
        flags[STRIPE_ENABLED]["on"] = False

    edit(path, change)
    rows = {row.key: row for row in describe(path, PROVIDERS)}
    assert list(rows) == list(definitions(PROVIDERS))
    assert rows[PRIMARY_PROVIDER].value == "paypal"
    assert rows[PRIMARY_PROVIDER].notes == ('not one of stripe, adyen: its default "stripe" is used',)
    assert rows[PRIMARY_PROVIDER].allowed == "stripe or adyen"
    assert rows[MAINTENANCE_NOTICE].notes == ("not in the file: its default is served",)
    assert (rows[STRIPE_ENABLED].value, rows[STRIPE_ENABLED].notes) == (False, ("switched off",))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"flags": []}', b'{"flags": {"k": 1}}', b"\xff", b"[" * 99_999]
)
def test_a_broken_file_is_left_as_it_is_and_says_so(path: Path, writer: FileFlagWriter, content: bytes) -> None:
    """Half a sentence of a person's is not overwritten by a machine."""
    path.write_bytes(content)
    for call in (
        lambda: writer.current(PRIMARY_PROVIDER),
        lambda: writer.set(PRIMARY_PROVIDER, "adyen", expected=None, comment=""),
        lambda: complete_file(path, PROVIDERS),
        lambda: describe(path, PROVIDERS),
    ):
        with pytest.raises(FlagWriteError, match="mend it first"):
            call()
    assert path.read_bytes() == content


def test_a_file_that_is_not_there_is_an_error_for_a_writer(tmp_path: Path) -> None:
    """Only `complete_file` creates it."""
    writer = FileFlagWriter(tmp_path / "flags.json", PROVIDERS)
    with pytest.raises(FlagWriteError, match="cannot be read"):
        writer.set(PRIMARY_PROVIDER, "adyen", expected=None, comment="")
    with pytest.raises(FlagWriteError, match="cannot be read"):
        writer.current(PRIMARY_PROVIDER)


def test_permissions_and_links_stay(path: Path, tmp_path: Path) -> None:
    """A file shared with a group stays shared, and a link goes on pointing where it pointed."""
    path.chmod(0o664)
    link = tmp_path / "elsewhere" / "link.json"
    link.parent.mkdir()
    link.symlink_to(path)
    assert FileFlagWriter(link, PROVIDERS).set(PRIMARY_PROVIDER, "adyen", expected=None, comment="")
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o664
    assert FileFlagWriter(path, PROVIDERS).current(PRIMARY_PROVIDER) == "adyen"


def test_a_person_who_saves_meanwhile_is_not_overwritten(
    path: Path, writer: FileFlagWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The editor knows no lock: the flip is decided anew on what the person saved."""
    real = document.serve
    saves = iter([lambda flags: flags[PRIMARY_PROVIDER].update(on=False, offVariation=1)])

    def serve(*args: Any, **kwargs: Any) -> None:
        for save in saves:
            edit(path, save)
        real(*args, **kwargs)

    monkeypatch.setattr(document, "serve", serve)
    assert not writer.set(PRIMARY_PROVIDER, "adyen", expected="stripe", comment="flip")
    assert writer.current(PRIMARY_PROVIDER) == "adyen"
    assert flag(path, PRIMARY_PROVIDER)["on"] is False


def test_a_lock_that_is_held_too_long_is_an_error(
    path: Path, writer: FileFlagWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped writer does not stop the others for ever."""
    monkeypatch.setattr(filewriter, "LOCK_WAIT_S", 0.05)
    with open(f"{path}.lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(FlagWriteError, match="another writer"):
            writer.set(PRIMARY_PROVIDER, "adyen", expected=None, comment="")
    assert writer.set(PRIMARY_PROVIDER, "adyen", expected=None, comment="")


def test_two_processes_that_write_at_once_lose_no_update(path: Path) -> None:
    """Each write of a version is one more: 2 processes x 50 notices, none written over unseen."""
    writers = [start_writer(path, "50", name) for name in ("one", "two")]
    assert [process.wait(timeout=20) for process in writers] == [0, 0]
    assert flag(path, MAINTENANCE_NOTICE)["version"] == 1 + 2 * 50


def test_many_processes_that_start_at_once_create_one_file(tmp_path: Path) -> None:
    """Web, worker and command may all be first; whoever comes later adds nothing."""
    path = tmp_path / "deep" / "flags.json"
    added: list[list[str]] = []
    threads = [threading.Thread(target=lambda: added.append(complete_file(path, PROVIDERS))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(len, added)) == [0] * 7 + [len(definitions(PROVIDERS))]


def test_a_writer_that_is_killed_leaves_a_whole_file_and_no_lock(path: Path, writer: FileFlagWriter) -> None:
    """SIGKILL at ten moments: the file is always whole, and the next writer goes on at once."""
    for number in range(10):
        process = start_writer(path, "for ever", "killed")
        version = flag(path, MAINTENANCE_NOTICE)["version"]
        give_up_at = time.monotonic() + 10
        while flag(path, MAINTENANCE_NOTICE)["version"] == version:
            assert time.monotonic() < give_up_at
        time.sleep(number / 3000)
        process.kill()
        process.wait()
        notice = f"after {number}"
        assert writer.set(MAINTENANCE_NOTICE, notice, expected=None, comment="")
        assert writer.current(MAINTENANCE_NOTICE) == notice
    assert sorted(os.listdir(path.parent)) == ["flags.json", "flags.json.lock"]
