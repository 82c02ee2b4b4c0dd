"""The flags of one project with one environment: as the SDK is sent them, as REST shows them, and as it changes them.

Written from LaunchDarkly's OpenAPI file. A flag is kept in the SDK's format; variation ids live beside it.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MADE_AT_MS = 1_795_000_000_000
Json = dict[str, Any]


class RefusedError(Exception):
    """REST answers this status, code and message, and nothing was changed."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"code": code, "message": message, "id": str(uuid.uuid4())}


def invalid(message: str) -> RefusedError:
    return RefusedError(400, "invalid_request", message)


@dataclass
class Flag:
    """One flag; `sdk` is its state in the environment, `version` that of what all environments share."""

    sdk: Json
    version: int = 1
    description: str = ""
    temporary: bool = False
    tags: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    @property
    def variations(self) -> list[Any]:
        found: list[Any] = self.sdk["variations"]
        while len(self.ids) < len(found):  # a test may put others in their place
            self.ids.append(str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.sdk['key']}/{len(self.ids)}")))
        return found

    def index(self, value: Any) -> int:
        same = [i for i, one in enumerate(self.variations) if type(one) is type(value) and one == value]
        return same[0]

    def index_of_id(self, id_: Any) -> int:
        if id_ not in self.ids[: len(self.variations)]:
            raise invalid(f"invalid variation id {id_}")
        return self.ids.index(id_)

    def id_of(self, value: Any) -> str:
        return self.ids[self.index(value)]

    def serves(self) -> Any:
        """The default rule's value, or {value: weight}."""
        rule = self.sdk["fallthrough"]
        if rule.get("rollout") is None:
            return self.variations[rule["variation"]]
        shares = rule["rollout"]["variations"]
        return {self.variations[share["variation"]]: share["weight"] for share in shares if share["weight"]}


# ---------------------------------------------------------------- as REST shows it


def shown(flag: Flag, project: str, environment: str, with_environment: bool = True) -> Json:
    """The flag's representation (FeatureFlag in the OpenAPI file)."""
    key, values = flag.sdk["key"], flag.variations
    here = {"href": f"/api/v2/flags/{project}/{key}", "type": "application/json"}
    body = {
        "name": key,
        "kind": "boolean" if all(isinstance(value, bool) for value in values) else "multivariate",
        "description": flag.description,
        "key": key,
        "_version": flag.version,
        "creationDate": MADE_AT_MS,
        "includeInSnippet": False,
        "clientSideAvailability": {"usingMobileKey": False, "usingEnvironmentId": False},
        "variations": [{"_id": id_, "value": value} for id_, value in zip(flag.ids, values, strict=False)],
        "temporary": flag.temporary,
        "tags": flag.tags,
        "_links": {"self": here, "parent": {"href": f"/api/v2/flags/{project}", "type": "application/json"}},
        "experiments": {"baselineIdx": 0, "items": []},
        "customProperties": {},
        "archived": False,
        "deprecated": False,
        "environments": {environment: _configuration(flag, project, environment)} if with_environment else {},
    }
    if values:
        body["defaults"] = {"onVariation": 0, "offVariation": len(values) - 1}
    return copy.deepcopy(body)


def environment(key: str) -> Json:
    """The environment's representation (Environment in the OpenAPI file)."""
    return {
        "_links": {},
        "_id": "57be1db38b75bf0772d11384",
        "key": key,
        "name": key.title(),
        "apiKey": "sdk-key",
        "mobileKey": "mob-key",
        "color": "417505",
        "defaultTtl": 0,
        "secureMode": False,
        "defaultTrackEvents": False,
        "requireComments": False,
        "confirmChanges": False,
        "tags": [],
        "critical": True,
    }


def _configuration(flag: Flag, project: str, environment: str) -> Json:
    sdk = flag.sdk
    site = f"/{project}/{environment}/features/{sdk['key']}"
    return {
        "on": sdk["on"],
        "archived": False,
        "salt": sdk.get("salt", ""),
        "sel": "5e1ec7ab1e",
        "lastModified": MADE_AT_MS + sdk["version"],
        "version": sdk["version"],
        "targets": sdk.get("targets", []),
        "contextTargets": sdk.get("contextTargets", []),
        "rules": [_rule(rule) for rule in sdk.get("rules", [])],
        "fallthrough": sdk["fallthrough"],
        "offVariation": sdk["offVariation"],
        "prerequisites": sdk.get("prerequisites", []),
        "_site": {"href": site, "type": "text/html"},
        "_environmentName": environment.title(),
        "trackEvents": False,
        "trackEventsFallthrough": False,
    }


def _rule(rule: Json) -> Json:
    body: Json = {name: rule[name] for name in ("variation", "rollout", "description", "disabled") if name in rule}
    clauses = [
        {"_id": f"{rule['id']}-{number}", "negate": False, **clause}
        for number, clause in enumerate(rule.get("clauses", []))
    ]
    return {**body, "_id": rule["id"], "clauses": clauses, "trackEvents": False}


# ---------------------------------------------------------------- as REST changes it


def patched(flag: Flag, instructions: Any) -> Flag:
    """The flag after a semantic patch: all of it or nothing. Raises RefusedError. Unknown fields are ignored."""
    if not isinstance(instructions, list) or not instructions:
        raise invalid("instructions: must not be empty")
    after = copy.deepcopy(flag)
    for instruction in instructions:
        apply = _INSTRUCTIONS.get(instruction.get("kind")) if isinstance(instruction, dict) else None
        if apply is None:
            raise invalid("unknown instruction kind")
        apply(after, instruction)
    if (after.variations, after.description) != (flag.variations, flag.description):
        after.version += 1
    if after.sdk != flag.sdk:
        after.sdk["version"] += 1
    return after


def _served(flag: Flag, instruction: Json) -> Json:
    weights = instruction.get("rolloutWeights")
    if weights is None:
        return {"variation": flag.index_of_id(instruction.get("variationId"))}
    if sum(weights.values()) != 100_000:
        raise invalid("rollout weights must sum to 100000")
    shares = {flag.index_of_id(id_): weight for id_, weight in weights.items()}
    rollout: Json = {
        "variations": [{"variation": i, "weight": shares.get(i, 0)} for i in range(len(flag.variations))],
        "contextKind": instruction.get("rolloutContextKind", "user"),
    }
    if "rolloutBucketBy" in instruction:
        rollout["bucketBy"] = instruction["rolloutBucketBy"]
    return {"rollout": rollout}


def _set_fallthrough(flag: Flag, instruction: Json) -> None:
    flag.sdk["fallthrough"] = _served(flag, instruction)


def _set_rule(flag: Flag, instruction: Json) -> None:
    for rule in flag.sdk.get("rules", []):
        if rule["id"] == instruction.get("ruleId"):
            rule.pop("variation", None)
            rule.pop("rollout", None)
            rule.update(_served(flag, instruction))
            return
    raise invalid("invalid rule id")


def _targets(flag: Flag, instruction: Json) -> tuple[list[Json], Json, int]:
    kind = instruction.get("contextKind", "user")
    index = flag.index_of_id(instruction.get("variationId"))
    lists = flag.sdk.setdefault("targets" if kind == "user" else "contextTargets", [])
    alike = [one for one in lists if one.get("contextKind", "user") == kind]
    for one in alike:
        if one["variation"] == index:
            return alike, one, index
    one = {"variation": index, "values": []}
    if kind != "user":
        one["contextKind"] = kind
    lists.append(one)
    return [*alike, one], one, index


def _add_targets(flag: Flag, instruction: Json) -> None:
    alike, mine, _ = _targets(flag, instruction)
    for other in alike:
        if other is not mine and set(other["values"]) & set(instruction["values"]):
            raise invalid("the same context key is targeted in several variations")
    mine["values"] += [value for value in instruction["values"] if value not in mine["values"]]


def _remove_targets(flag: Flag, instruction: Json) -> None:
    _, mine, _ = _targets(flag, instruction)
    mine["values"] = [value for value in mine["values"] if value not in instruction["values"]]
    for part in ("targets", "contextTargets"):
        flag.sdk[part] = [one for one in flag.sdk.get(part, []) if one["values"]]


def _add_variation(flag: Flag, instruction: Json) -> None:
    if instruction.get("value") in flag.variations:
        raise invalid("variation values must be unique")
    flag.sdk["variations"] = [*flag.variations, instruction.get("value")]


def _set_off_variation(flag: Flag, instruction: Json) -> None:
    flag.sdk["offVariation"] = flag.index_of_id(instruction.get("variationId"))


_INSTRUCTIONS: dict[Any, Callable[[Flag, Json], None]] = {
    "turnFlagOn": lambda flag, _: flag.sdk.update(on=True),
    "turnFlagOff": lambda flag, _: flag.sdk.update(on=False),
    "updateFallthroughVariationOrRollout": _set_fallthrough,
    "updateRuleVariationOrRollout": _set_rule,
    "updateOffVariation": _set_off_variation,
    "addTargets": _add_targets,
    "removeTargets": _remove_targets,
    "addVariation": _add_variation,
}


def created(body: Json) -> Flag:
    """A new flag (FeatureFlagBody in the OpenAPI file). Raises RefusedError."""
    if not body.get("key") or not body.get("name"):
        raise invalid("key and name are required")
    values = [one["value"] for one in body.get("variations") or [{"value": True}, {"value": False}]]
    defaults = body.get("defaults") or {"onVariation": 0, "offVariation": len(values) - 1}
    sdk = {
        "key": body["key"],
        "version": 1,
        "on": bool(body.get("isFlagOn", False)),
        "variations": values,
        "fallthrough": {"variation": defaults["onVariation"]},
        "offVariation": defaults["offVariation"],
        "salt": body["key"],
        "targets": [],
        "contextTargets": [],
        "rules": [],
        "prerequisites": [],
    }
    return Flag(sdk, 1, body.get("description", ""), body.get("temporary", True), body.get("tags", []))
