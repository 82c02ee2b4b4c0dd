"""Moving a flag in a flags file: what LaunchDarklyMover does at LaunchDarkly, for one machine with no account."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flags import document, targeting
from flags.contract import Approval, FlagChangedError, FlagState, FlagUnavailableError, FlagWriteError, Serves
from flags.definitions import FlagDefinition, definition
from flags.filewriter import read_file, update_file

ROLLOUT_KIND = "customer"
"""Whom a rollout goes by where the flag has none to keep the kind of (design §7)."""


class FileFlagMover:
    """A `FlagMover` over a flags file. A flag that is not in the file is there as a new file would have it."""

    def __init__(self, path: Path, providers: Sequence[str]) -> None:
        self._path = path
        self._providers = tuple(providers)

    def look(self, key: str) -> FlagState:
        """The flag now. Raises FlagUnavailableError for an unreadable file, FlagWriteError for an unknown key."""
        flag = definition(key, self._providers)
        return _state(flag, read_file(self._path)["flags"].get(key))

    def move(
        self, key: str, to: Serves, *, seen: FlagState, comment: str, pins: tuple[str, str] | None = None
    ) -> FlagState:
        """Serve `to`, while the flag is as `seen`. `comment` is kept beside the flag. Raises as `FlagMover.move`.

        Unlike `FileFlagWriter.set`, a person's hand, it leaves a flag off that is off.
        """
        flag = definition(key, self._providers)
        after = seen

        def change(content: document.Document) -> bool:
            nonlocal after
            before = _state(flag, content["flags"].get(key))
            if before.mark != seen.mark:
                raise FlagChangedError(f"{key} was changed since it was looked at; nothing was written")
            entry = copy.deepcopy(content["flags"].get(key) or document.new_flag(flag))
            as_it_was = copy.deepcopy(entry)
            _move(flag, entry, before, to, pins)
            if entry == as_it_was:
                after = before
                return False
            entry["version"] = document.version(entry) + 1  # the SDK's change listeners go by it
            entry["comment"] = comment
            content["flags"][key] = entry
            after = _state(flag, entry)
            return True

        update_file(self._path, change)
        return after

    def ask_approval(
        self,
        key: str,  # noqa: ARG002 - the contract's
        to: Serves,  # noqa: ARG002 - the contract's
        *,
        comment: str,  # noqa: ARG002 - the contract's
        pins: tuple[str, str] | None = None,  # noqa: ARG002 - the contract's
    ) -> str:
        """Raises FlagWriteError."""
        raise FlagWriteError("a flags file asks nobody: whoever may write it may change the flag")

    def approval(self, key: str, request: str) -> Approval:  # noqa: ARG002 - the contract's
        """Nothing is ever asked."""
        return "gone"

    def pending_approvals(self, key: str, *, comment: str) -> Sequence[str]:  # noqa: ARG002 - the contract's
        """Nothing is ever asked."""
        return []

    def withdraw(self, key: str, request: str) -> None:
        """Nothing is ever asked, so nothing is to be taken back."""

    def close(self) -> None:
        """Nothing is held between calls."""


def _state(flag: FlagDefinition, entry: document.Flag | None) -> FlagState:
    digest = hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()[:16]
    found = document.new_flag(flag) if entry is None else entry
    variations = found.get("variations")
    try:
        return targeting.state(digest, variations if isinstance(variations, list) else [], found)
    except targeting.UnreadableError as error:
        raise FlagUnavailableError(f"{flag.key} in the flags file is broken ({error}): mend it first") from None


def _move(
    flag: FlagDefinition, entry: document.Flag, before: FlagState, to: Serves, pins: tuple[str, str] | None
) -> None:
    if not targeting.alike(before.serves, to):
        if targeting.is_experiment(entry["fallthrough"]):
            raise FlagWriteError(f"{flag.key} serves an experiment: stop that first")
        entry["fallthrough"] = _serving(flag, entry, to, entry["fallthrough"])
    if pins is None:
        return
    source, target = pins
    for rule in entry.get("rules") or []:
        serves = targeting.served(entry["variations"], rule)
        if rule.get("disabled") is not True and serves.share_of(source) and not targeting.is_experiment(rule):
            serving = _serving(flag, entry, serves.moved(source, target), rule)
            rule.pop("variation", None)
            rule.pop("rollout", None)
            rule.update(serving)
    for part in ("targets", "contextTargets"):
        for keys in entry.get(part) or []:
            # Two lists of one kind for one variation are well: the SDK goes through them all.
            if keys.get("variation") == targeting.find(entry["variations"], source):
                keys["variation"] = _index(flag, entry, target)


def _serving(flag: FlagDefinition, entry: document.Flag, to: Serves, before: Any) -> dict[str, Any]:
    if not to.weights:
        return {"variation": _index(flag, entry, to.value)}
    targeting.check_weights(flag.key, to)
    rollout = before.get("rollout") or {"contextKind": ROLLOUT_KIND}
    shares = [
        {"variation": _index(flag, entry, value), "weight": weight} for value, weight in to.weights.items() if weight
    ]
    return {"rollout": {**rollout, "variations": shares}}


def _index(flag: FlagDefinition, entry: document.Flag, value: Any) -> int:
    """The variation with this value, which is added where there is none. Raises FlagWriteError for a wrong one."""
    index = targeting.find(entry["variations"], value)
    if index is None:
        flag.check(value)
        entry["variations"].append(value)
        index = len(entry["variations"]) - 1
    return index
