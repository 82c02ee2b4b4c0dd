"""Moving a flag in a flags file: the same contract as at LaunchDarkly."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from flags import filewriter
from flags.contract import (
    PRIMARY_PROVIDER,
    FlagChangedError,
    FlagMover,
    FlagState,
    FlagUnavailableError,
    FlagWriteError,
    Serves,
)
from flags.filemover import FileFlagMover
from flags.filewriter import FileFlagWriter, complete_file

PROVIDERS = ("stripe", "adyen", "worldline")
TO_ADYEN = Serves("adyen")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "flags.json"
    complete_file(path, PROVIDERS)
    return path


@pytest.fixture
def mover(path: Path) -> FlagMover:
    return FileFlagMover(path, PROVIDERS)


def flag(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())["flags"][PRIMARY_PROVIDER]
    return found


def edit(path: Path, **changes: Any) -> None:
    """A person's editor: no lock, no version."""
    content = json.loads(path.read_text())
    content["flags"][PRIMARY_PROVIDER].update(changes)
    path.write_text(json.dumps(content))


def flip(mover: FlagMover, seen: FlagState | None = None, **options: Any) -> FlagState:
    seen = seen or mover.look(PRIMARY_PROVIDER)
    return mover.move(PRIMARY_PROVIDER, TO_ADYEN, seen=seen, comment="stripe open 61 s", **options)


def test_a_move_serves_the_target_and_says_why(mover: FlagMover, path: Path) -> None:
    """The version rises, so that the SDK's listeners notice; the flag read back is what the next look has."""
    seen = mover.look(PRIMARY_PROVIDER)
    assert (seen.serves, seen.off, seen.is_on, seen.pins) == (Serves("stripe"), "stripe", True, {})
    after = flip(mover)
    assert after.serves == TO_ADYEN
    assert after.mark != seen.mark
    assert mover.look(PRIMARY_PROVIDER) == after
    assert (flag(path)["version"], flag(path)["comment"]) == (2, "stripe open 61 s")
    assert FileFlagWriter(path, PROVIDERS).current(PRIMARY_PROVIDER) == "adyen"
    mover.close()


def test_serving_it_already_writes_nothing(mover: FlagMover, path: Path) -> None:
    """A repeated move is no second change."""
    after = flip(mover)
    before = path.read_bytes()
    assert flip(mover) == after
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "changes", [{"fallthrough": {"variation": 2}}, {"on": False}, {"rules": [{"variation": 1}]}, {"comment": "mine"}]
)
def test_a_change_that_was_not_seen_is_not_overwritten(mover: FlagMover, path: Path, changes: Any) -> None:
    """Whatever a person changed of the flag, even with no version."""
    seen = mover.look(PRIMARY_PROVIDER)
    edit(path, **changes)
    before = path.read_bytes()
    with pytest.raises(FlagChangedError, match="changed since"):
        flip(mover, seen)
    assert path.read_bytes() == before


def test_a_person_who_saves_between_reading_and_writing_wins(
    mover: FlagMover, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An editor knows no lock: the file is compared with what was read before it is replaced."""
    really = filewriter._replace

    def late(target: Path, before: bytes | None, content: bytes) -> bool:
        monkeypatch.undo()
        edit(path, fallthrough={"variation": 2})
        return really(target, before, content)

    monkeypatch.setattr(filewriter, "_replace", late)
    with pytest.raises(FlagChangedError):
        flip(mover)
    assert flag(path)["fallthrough"] == {"variation": 2}


def test_of_many_movers_at_once_one_moves(mover: FlagMover, path: Path) -> None:
    """All have seen the same; the lock lets one write, and the others find the flag changed."""
    seen = mover.look(PRIMARY_PROVIDER)
    outcomes: list[str] = []

    def one(value: str) -> None:
        try:
            FileFlagMover(path, PROVIDERS).move(PRIMARY_PROVIDER, Serves(value), seen=seen, comment=value)
            outcomes.append("moved")
        except FlagChangedError:
            outcomes.append("changed")

    threads = [threading.Thread(target=one, args=(("adyen", "worldline")[i % 2],)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["changed"] * 7 + ["moved"]
    assert flag(path)["version"] == 2


def test_a_flag_that_is_off_stays_off(mover: FlagMover, path: Path) -> None:
    """A person switched it off; the machine does not switch it on."""
    edit(path, on=False)
    assert flip(mover).is_on is False
    assert (flag(path)["on"], flag(path)["fallthrough"]) == (False, {"variation": 1})


def test_in_a_rollout_one_weight_moves_and_all_else_stays(mover: FlagMover, path: Path) -> None:
    """And back again."""
    shares = [{"variation": 0, "weight": 60_000}, {"variation": 1, "weight": 40_000}]
    rollout = {"variations": shares, "contextKind": "merchant", "bucketBy": "tier", "seed": 7}
    edit(path, fallthrough={"rollout": rollout})
    seen = mover.look(PRIMARY_PROVIDER)
    after = mover.move(PRIMARY_PROVIDER, seen.serves.moved("stripe", "worldline"), seen=seen, comment="c")
    assert after.serves == Serves(weights={"adyen": 40_000, "worldline": 60_000})
    kept = flag(path)["fallthrough"]["rollout"]
    assert (kept["contextKind"], kept["bucketBy"], kept["seed"]) == ("merchant", "tier", 7)
    # In the failing provider's place: with another order adyen's merchants would be moved as well.
    assert kept["variations"] == [{"variation": 2, "weight": 60_000}, {"variation": 1, "weight": 40_000}]
    assert mover.move(PRIMARY_PROVIDER, seen.serves, seen=after, comment="restored").serves == seen.serves


def test_a_rollout_where_there_was_none_goes_by_customer(mover: FlagMover, path: Path) -> None:
    """As at LaunchDarkly."""
    to = Serves(weights={"stripe": 50_000, "adyen": 50_000})
    mover.move(PRIMARY_PROVIDER, to, seen=mover.look(PRIMARY_PROVIDER), comment="c")
    assert flag(path)["fallthrough"]["rollout"]["contextKind"] == "customer"


def pin(path: Path) -> None:
    clause = {"contextKind": "payment", "attribute": "currency", "op": "in", "values": ["JPY"], "negate": False}
    shares = [{"variation": 0, "weight": 25_000}, {"variation": 1, "weight": 75_000}]
    edit(
        path,
        rules=[
            {"id": "1", "variation": 0, "clauses": [clause]},
            {"id": "2", "rollout": {"variations": shares, "contextKind": "customer"}, "clauses": []},
        ],
        targets=[{"variation": 0, "values": ["u1"]}],
        contextTargets=[{"contextKind": "merchant", "variation": 1, "values": ["z"]}],
    )


def test_pins_are_named_and_left_alone_unless_told(mover: FlagMover, path: Path) -> None:
    """In the same words as at LaunchDarkly."""
    pin(path)
    pins = {
        "stripe": ('target: user "u1"', 'rule 1: payment currency is "JPY"', "rule 2: everyone, 25.0% of them"),
        "adyen": ('target: merchant "z"', "rule 2: everyone, 75.0% of them"),
    }
    assert mover.look(PRIMARY_PROVIDER).pins == pins
    assert flip(mover).pins == pins


def test_a_move_with_pins_moves_rules_and_targets_too(mover: FlagMover, path: Path) -> None:
    """In one write."""
    pin(path)
    after = flip(mover, pins=("stripe", "adyen"))
    assert "stripe" not in after.pins
    found = flag(path)
    assert found["rules"][0]["variation"] == 1
    rollout = found["rules"][1]["rollout"]
    assert rollout == {"variations": [{"variation": 1, "weight": 100_000}], "contextKind": "customer"}
    assert found["targets"] == [{"variation": 1, "values": ["u1"]}]


def test_a_value_the_file_lacks_is_added_and_a_wrong_one_refused(mover: FlagMover, path: Path) -> None:
    """A file written before a provider was configured is no obstacle."""
    edit(path, variations=["stripe"])
    assert flip(mover).serves == TO_ADYEN
    for wrong in (Serves("paypal"), Serves(weights={"stripe": 1})):
        with pytest.raises(FlagWriteError, match=r"takes stripe|add up"):
            mover.move(PRIMARY_PROVIDER, wrong, seen=mover.look(PRIMARY_PROVIDER), comment="c")


def test_a_flag_that_the_file_lacks_is_at_its_default(mover: FlagMover, path: Path) -> None:
    """As readers take it; a move writes it."""
    path.write_text("{}")
    assert mover.look(PRIMARY_PROVIDER).serves == Serves("stripe")
    assert flip(mover).serves == TO_ADYEN


def test_an_experiments_allocation_is_not_changed(mover: FlagMover, path: Path) -> None:
    """A person must end it first."""
    shares = [{"variation": 0, "weight": 50_000}, {"variation": 1, "weight": 50_000}]
    edit(path, fallthrough={"rollout": {"kind": "experiment", "variations": shares}})
    with pytest.raises(FlagWriteError, match="experiment"):
        flip(mover)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"flags": {"payments-primary-provider": {"on": true}}}'])
def test_a_broken_file_is_unavailable_until_it_is_mended(mover: FlagMover, path: Path, content: str) -> None:
    """Someone is editing it, or must mend it: the worker comes again."""
    seen = mover.look(PRIMARY_PROVIDER)
    path.write_text(content)
    with pytest.raises(FlagUnavailableError, match="broken"):
        mover.look(PRIMARY_PROVIDER)
    with pytest.raises(FlagUnavailableError, match="broken"):
        flip(mover, seen)
    assert path.read_text() == content


def test_no_file_and_a_held_lock_are_unavailable(
    mover: FlagMover, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each in one line that says which file."""
    seen = mover.look(PRIMARY_PROVIDER)
    monkeypatch.setattr(filewriter, "LOCK_WAIT_S", 0.02)
    with open(path.with_name("flags.json.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(FlagUnavailableError, match="another writer has held"):
            flip(mover, seen)
    path.unlink()
    with pytest.raises(FlagUnavailableError, match="cannot be read"):
        mover.look(PRIMARY_PROVIDER)


def test_an_unknown_key_is_answered_with_the_nearest(mover: FlagMover) -> None:
    """As everywhere."""
    with pytest.raises(FlagWriteError, match="did you mean payments-primary-provider"):
        mover.look("payments-primary")


def test_a_file_asks_nobody(mover: FlagMover) -> None:
    """And there is nothing to withdraw."""
    with pytest.raises(FlagWriteError, match="asks nobody"):
        mover.ask_approval(PRIMARY_PROVIDER, TO_ADYEN, comment="c")
    mover.withdraw(PRIMARY_PROVIDER, "any")


def test_what_moves_flags_does_not_load_the_sdk() -> None:
    """`pointsman flags` answers at once."""
    code = "import sys, flags.filemover, flags.rest; sys.exit('ldclient' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
