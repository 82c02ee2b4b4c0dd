"""A flags file as data: what a flag in it serves, and how to make it serve something else. Pure.

The format is the LaunchDarkly SDK's own, in full form:
https://launchdarkly.com/docs/sdk/features/flags-from-files
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from typing import Any

from flags.contract import FlagWriteError
from flags.definitions import FlagDefinition

Flag = dict[str, Any]
Document = dict[str, Any]


def parse(content: bytes) -> Document:
    """The document in a file's bytes. Raises ValueError, in words fit for a page, where there is none.

    The short form (`flagValues`) that a person may have written is turned into the full one.
    """
    try:
        document = json.loads(content.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON at line {error.lineno}, column {error.colno}") from error
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8 text") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    for part in ("flags", "segments", "flagValues"):
        if not isinstance(document.get(part, {}), dict):
            raise ValueError(f'"{part}" is not a JSON object')
    flags = document.setdefault("flags", {})
    document.setdefault("segments", {})
    for key, value in document.pop("flagValues", {}).items():
        if key in flags:
            raise ValueError(f'"{key}" is in both "flags" and "flagValues"')
        flags[key] = _flag(key, [value], served=0, off=0)
    for part in ("flags", "segments"):
        for key, item in document[part].items():
            if not isinstance(item, dict) or item.setdefault("key", key) != key:
                raise ValueError(f'"{key}" in "{part}" is not an object with that key')
    return document


def render(document: Document) -> bytes:
    """The bytes of a file that a person can read and edit."""
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def new_document(definitions: Iterable[FlagDefinition]) -> Document:
    """A document with these flags, each serving its default."""
    return {"flags": {flag.key: new_flag(flag) for flag in definitions}, "segments": {}}


def new_flag(definition: FlagDefinition) -> Flag:
    """A flag as a new file or project has it: on, serving its default."""
    variations = copy.deepcopy(list(definition.variations))
    served, off = variations.index(definition.default), variations.index(definition.off)
    return _flag(definition.key, variations, served, off)


def served(flag: Flag) -> Any:
    """The value served to everyone whom no rule or target catches; None where the flag has none.

    Raises FlagWriteError where there is no one value: a percentage rollout, or prerequisites.
    """
    variations = flag.get("variations")
    fallthrough = flag.get("fallthrough")
    index: Any = None
    if not flag.get("on"):
        index = flag.get("offVariation")
    elif flag.get("prerequisites"):
        raise FlagWriteError(f"{flag.get('key')} depends on other flags (prerequisites): edit the file by hand")
    elif isinstance(fallthrough, dict):
        if fallthrough.get("rollout") is not None:
            raise FlagWriteError(f"{flag.get('key')} serves a percentage rollout, not one value")
        index = fallthrough.get("variation")
    if not isinstance(variations, list) or isinstance(index, bool) or not isinstance(index, int):
        return None
    return variations[index] if 0 <= index < len(variations) else None


def serve(flag: Flag, value: Any, comment: str, *, closed: bool) -> None:
    """Make the flag serve this value to everyone whom no rule or target catches.

    A flag that is off is turned on: what it serves while off is left alone, so that switching it off by hand
    still does what it did. Rules and targets are kept, and a rollout is replaced. The version rises, which is
    how the SDK's change listeners notice. `comment` is kept in the file, for whoever wonders.
    `closed` is whether the flag's values are a fixed set; the old text of an open one is not kept for ever.
    Raises FlagWriteError where prerequisites would keep the value from being served.
    """
    if flag.get("prerequisites"):
        raise FlagWriteError(f"{flag.get('key')} depends on other flags (prerequisites): edit the file by hand")
    variations = flag.get("variations")
    if not isinstance(variations, list):
        variations = flag["variations"] = []
    fallthrough = flag.pop("fallthrough", None)
    index = next((i for i, variation in enumerate(variations) if same(variation, value)), None)
    if index is None:
        before = fallthrough.get("variation") if isinstance(fallthrough, dict) else None
        if not closed and isinstance(before, int) and 0 <= before < len(variations) and before not in _used(flag):
            variations[before] = value
            index = before
        else:
            variations.append(value)
            index = len(variations) - 1
    flag["fallthrough"] = {"variation": index}
    flag["on"] = True
    flag["version"] = version(flag) + 1
    flag["comment"] = comment


def version(flag: Flag) -> int:
    """The flag's version; 0 where a person left it out or wrote something else."""
    number = flag.get("version")
    return number if isinstance(number, int) and not isinstance(number, bool) else 0


def same(one: Any, other: Any) -> bool:
    """Whether two flag values are the same; Python's `True == 1` is not."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _used(part: Any) -> set[int]:
    """The indexes of variations that any part of a flag (a rule, a target, a rollout) refers to."""
    if isinstance(part, list):
        return set().union(*map(_used, part))
    if not isinstance(part, dict):
        return set()
    own = {part[name] for name in ("variation", "offVariation") if isinstance(part.get(name), int)}
    nested = (part.get(name) for name in ("rules", "targets", "contextTargets", "rollout", "variations"))
    return own.union(*map(_used, nested))


def _flag(key: str, variations: list[Any], served: int, off: int) -> Flag:
    return {
        "key": key,
        "version": 1,
        "on": True,
        "variations": variations,
        "fallthrough": {"variation": served},
        "offVariation": off,
        "salt": key,
        "targets": [],
        "contextTargets": [],
        "rules": [],
        "prerequisites": [],
    }
