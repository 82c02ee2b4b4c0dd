"""What is known of flags' definitions: which of them a payment depends on, and a few words on each. Pure.

A definition is the SDK's own JSON of a flag or a segment, as LaunchDarkly's stream and the flags file have it.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from flags import targeting
from flags.contract import WHOLE

Kind = Literal["flag", "segment"]
Name = tuple[Kind, str]
"""A flag and a segment may have the same key."""
SINGLED_OUT: Mapping[Kind, tuple[str, ...]] = {
    "flag": ("rules", "targets", "contextTargets", "prerequisites"),
    "segment": ("rules", "included", "includedContexts", "excluded", "excludedContexts"),
}
"""The parts of a definition of which the words on it leave something out: a long list names a few."""


@dataclass(frozen=True, slots=True)
class Definition:
    """A flag or segment as one process was told it."""

    kind: Kind
    key: str
    version: int
    """0 where it was missing from a full set: nobody said in which version it went."""
    data: Mapping[str, Any] | None
    """None: it was deleted."""
    at: dt.datetime
    """When it was told."""
    settled: bool = False
    """Whether it counts by when it was told instead of by its version."""

    @property
    def name(self) -> Name:
        """What it is the definition of."""
        return self.kind, self.key


@dataclass(frozen=True, slots=True)
class FlagChange:
    """One line of the audit: a flag or segment, and in a few words what it was and what it is."""

    number: int
    kind: Kind
    key: str
    version: int
    old: Mapping[str, Any] | None
    """None: nothing was known of it."""
    new: Mapping[str, Any] | None
    """None: it was deleted."""
    at: dt.datetime
    seen_by: str


def same_but_for_version(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    """Whether two definitions do the same."""
    if one is None or other is None:
        return one is other
    return {**one, "version": 0} == {**other, "version": 0}


def needed(keys: Iterable[str], flags: Mapping[str, Any], segments: Mapping[str, Any]) -> set[Name]:
    """These flags, and the flags and segments that they depend on; one that is missing is needed all the same.

    Nothing is taken for granted of a definition: LaunchDarkly adds fields, and a file is written by hand.
    """
    found: set[Name] = set()
    waiting: list[Name] = [("flag", key) for key in keys]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        kind, key = name
        item = (flags if kind == "flag" else segments).get(key)
        if item is None:
            continue
        waiting.extend(("flag", str(each["key"])) for each in _dicts(item.get("prerequisites")) if "key" in each)
        waiting.extend(
            ("segment", segment)
            for rule in _dicts(item.get("rules"))
            for clause in _dicts(rule.get("clauses"))
            if clause.get("op") == "segmentMatch" and isinstance(clause.get("values"), list)
            for segment in clause["values"]
            if isinstance(segment, str)
        )
    return found


def describe(kind: Kind, data: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What a person wants to know of a definition at a glance; None for one that is not there."""
    if data is None:
        return None
    told: dict[str, Any] = {"rules": sum(1 for _ in _dicts(data.get("rules")))}
    if kind == "segment":
        told = {"included": _members(data, "included"), "excluded": _members(data, "excluded"), **told}
    else:
        told = {
            "on": data.get("on") is True,
            "serves": _serves(data),
            "off": _variation(data, data.get("offVariation")),
            **told,
            "targets": _targets(data),
            **_told_of_rollout(data),
            **_pins(data),
        }
    return told | _fingerprint(kind, data)


def _told_of_rollout(data: Mapping[str, Any]) -> dict[str, Any]:
    """Whom a rollout goes by: with another kind of context the same shares fall to others."""
    fallthrough = data.get("fallthrough")
    rollout = fallthrough.get("rollout") if isinstance(fallthrough, dict) else None
    if not isinstance(rollout, dict):
        return {}
    kind, attribute = str(rollout.get("contextKind") or "user"), rollout.get("bucketBy")
    return {"rollout_by": f"{kind} {attribute}" if attribute else kind}


def _pins(data: Mapping[str, Any]) -> dict[str, Any]:
    """By what they serve: the rules and targets, in words."""
    variations = data.get("variations")
    if not isinstance(variations, list):
        return {}
    try:
        pins = targeting.pins(variations, data)
    except targeting.UnreadableError:
        return {}  # it is evaluated as far as the SDK understands it; the fingerprint tells of a change
    return {"pins": {str(value): list(words) for value, words in pins.items()}} if pins else {}


def _fingerprint(kind: Kind, data: Mapping[str, Any]) -> dict[str, str]:
    """Of whom the definition singles out, so that a change of it is seen where the words stay the same."""
    parts = {part: data[part] for part in SINGLED_OUT[kind] if data.get(part)}
    if not parts:
        return {}
    return {"fingerprint": hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]}


def _serves(data: Mapping[str, Any]) -> Any:
    """The value for everyone whom no rule or target catches; of a rollout, per cent by value."""
    fallthrough = data.get("fallthrough")
    if not isinstance(fallthrough, dict):
        return None
    rollout = fallthrough.get("rollout")
    if not isinstance(rollout, dict):
        return _variation(data, fallthrough.get("variation"))
    shares: dict[str, float] = {}
    for each in _dicts(rollout.get("variations")):
        weight = each.get("weight")
        if isinstance(weight, int | float):
            value = _variation(data, each.get("variation"))
            word = value if isinstance(value, str) else repr(value)
            shares[word] = round(shares.get(word, 0) + weight * 100 / WHOLE, 3)
    return {"per_cent": shares}


def _variation(data: Mapping[str, Any], index: Any) -> Any:
    variations = data.get("variations")
    if not isinstance(variations, list) or isinstance(index, bool) or not isinstance(index, int):
        return None
    return variations[index] if 0 <= index < len(variations) else None


def _targets(data: Mapping[str, Any]) -> int:
    """Whom the flag names one by one. LaunchDarkly names a user target in both lists, empty in the second."""
    return sum(
        len(each["values"])
        for part in ("targets", "contextTargets")
        for each in _dicts(data.get(part))
        if isinstance(each.get("values"), list)
    )


def _members(data: Mapping[str, Any], part: str) -> int:
    named = data.get(part)
    contexts = (each.get("values") for each in _dicts(data.get(part + "Contexts")))
    return sum(len(each) for each in (named, *contexts) if isinstance(each, list))


def _dicts(items: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(items, list):
        yield from (each for each in items if isinstance(each, dict))
