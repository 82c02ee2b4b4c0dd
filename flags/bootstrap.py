"""Setting up a LaunchDarkly project: every flag is created or checked, and nothing of a team's is undone."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from flags import targeting
from flags.contract import MAINTENANCE_NOTICE, ROUTING_TUNING, FlagUnavailableError
from flags.definitions import FlagDefinition, show

EXAMPLES: dict[str, Any] = {
    MAINTENANCE_NOTICE: "Card payments may take longer than usual.",
    ROUTING_TUNING: {"margin": 0.1},
}
"""A second variation for flags of free content: LaunchDarkly's dashboard makes no flag with only one."""

TRIES = 4
WAIT_AT_MOST_S = 15.0
"""The API's limits last ten seconds; a longer one is for a person to wait for."""

T = TypeVar("T")


class Api(Protocol):
    """What of the REST API is needed; `LaunchDarklyApi` has it."""

    def check_environment(self, environment: str) -> None: ...
    def find(self, key: str, environment: str) -> dict[str, Any] | None: ...
    def create(self, body: Mapping[str, Any]) -> dict[str, Any]: ...
    def patch(self, key: str, body: Mapping[str, Any]) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Finding:
    """One way in which a flag is not as the table has it."""

    key: str
    what: Literal["missing", "variations", "wrong", "off", "note"]
    """`missing` and `variations` are mended on demand; `wrong` and `off` by a person; a `note` is no difference."""
    text: str

    @property
    def can_be_mended(self) -> bool:
        """Whether `mend` does something about it."""
        return self.what in ("missing", "variations")


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Checks and makes flags in one environment of a project."""

    api: Api
    environment: str
    sleep: Callable[[float], None] = time.sleep

    def check(self, table: Sequence[FlagDefinition]) -> Iterator[tuple[FlagDefinition, list[Finding]]]:
        """Each flag with what is found. Changes nothing. Raises FlagWriteError."""
        self._call(lambda: self.api.check_environment(self.environment))
        for flag in table:
            yield flag, self.findings(flag)

    def findings(self, flag: FlagDefinition) -> list[Finding]:
        """How the flag differs from the table. Raises FlagWriteError."""
        body = self._call(lambda: self.api.find(flag.key, self.environment))
        if body is None:
            return [Finding(flag.key, "missing", f"missing: {flag.kind}, on, serving {show(flag.default)}")]
        return [Finding(flag.key, what, text) for what, text in _differences(flag, body, self.environment)]

    def mend(self, flag: FlagDefinition, findings: Sequence[Finding], comment: str) -> None:
        """Do what can be done about the findings. Raises FlagWriteError.

        Nothing that exists is taken away, and what a flag serves is left alone, also that it is off: somebody may
        have switched it off on purpose, and for a kill switch that is what switching off is for.
        """
        found = {finding.what for finding in findings}
        if "missing" in found:
            self._call(lambda: self.api.create(_new(flag)))
            self._serve_default(flag, comment)
        elif "variations" in found and "wrong" not in found:
            body = self._call(lambda: self.api.find(flag.key, self.environment)) or {}
            adding = [
                {"kind": "addVariation", "value": value, "name": _name(value)} for value in _lacking(flag, body)
            ]
            if adding:
                self._call(lambda: self.api.patch(flag.key, {"comment": comment, "instructions": adding}))

    def _serve_default(self, flag: FlagDefinition, comment: str) -> None:
        """A new flag is on and serves its default here, also where the environment's own rules made it otherwise."""
        body = self._call(lambda: self.api.find(flag.key, self.environment)) or {}
        here, ids = _environment(body, self.environment), [one.get("_id") for one in body.get("variations") or []]
        index = targeting.find(_values(body), flag.default)
        if index is None or (here.get("on") is True and (here.get("fallthrough") or {}).get("variation") == index):
            return
        serving = {"kind": "updateFallthroughVariationOrRollout", "variationId": ids[index]}
        change = {"environmentKey": self.environment, "comment": comment}
        self._call(lambda: self.api.patch(flag.key, {**change, "instructions": [{"kind": "turnFlagOn"}, serving]}))

    def _call(self, call: Callable[[], T]) -> T:
        """The call's answer, after the API's limit where it has one. Only what was refused is done again."""
        for _ in range(TRIES - 1):
            try:
                return call()
            except FlagUnavailableError as error:
                if error.retry_after_s is None or error.retry_after_s > WAIT_AT_MOST_S:
                    raise
                self.sleep(error.retry_after_s)
        return call()


def _differences(
    flag: FlagDefinition, body: Mapping[str, Any], environment: str
) -> Iterator[tuple[Literal["variations", "wrong", "off", "note"], str]]:
    values = _values(body)
    if body.get("archived") is True:
        yield "wrong", "archived: restore it in LaunchDarkly"
    others = [value for value in values if _kind(value) != flag.kind]
    if others:
        kinds = " and ".join(sorted({_kind(value) for value in others}))
        yield (
            "wrong",
            f"wrong kind: {kinds} where it must be {flag.kind}; a kind stays, so delete the flag, then --apply",
        )
        return
    if lacking := _lacking(flag, body):
        yield "variations", f"no variation {', '.join(map(show, lacking))}"
    for value in values:
        if problem := flag.problem(value):
            yield "note", f"variation {show(value)} would not be used: {problem}"
    here = _environment(body, environment)
    off = here.get("offVariation")
    served_off = values[off] if isinstance(off, int) and 0 <= off < len(values) else None
    if here.get("on") is not True:
        yield (
            "off",
            f"off in {environment}, where it serves {show(served_off)}: turn it on there if nobody meant that",
        )
    if flag.closed and not lacking and served_off != flag.off:
        yield "note", f"switched off it serves {show(served_off)}, not {show(flag.off)}"


def as_plain(flag: FlagDefinition) -> dict[str, Any]:
    """A flag as another tool makes it in LaunchDarkly (Terraform): values as text, JSON where it is not a string."""
    values = _offered(flag)
    return {
        "key": flag.key,
        "kind": flag.kind,
        "description": _described(flag),
        "variations": [value if isinstance(value, str) else json.dumps(value) for value in values],
        "on_variation": values.index(flag.default),
        "off_variation": values.index(flag.off),
    }


def _offered(flag: FlagDefinition) -> list[Any]:
    return [*flag.variations, *([EXAMPLES[flag.key]] if flag.key in EXAMPLES else [])]


def _described(flag: FlagDefinition) -> str:
    return f"{flag.description} Takes {flag.allowed}."


def _new(flag: FlagDefinition) -> dict[str, Any]:
    values = _offered(flag)
    return {
        "key": flag.key,
        "name": flag.key,
        "description": _described(flag),
        "variations": [{"value": value, "name": _name(value)} for value in values],
        "defaults": {"onVariation": values.index(flag.default), "offVariation": values.index(flag.off)},
        "isFlagOn": True,
        "temporary": False,  # LaunchDarkly asks nobody to remove it
        "tags": ["payments", "pointsman"],
        "clientSideAvailability": {"usingEnvironmentId": False, "usingMobileKey": False},
    }


def _lacking(flag: FlagDefinition, body: Mapping[str, Any]) -> list[Any]:
    """Variations of the table that the flag has not; of free content none is needed."""
    values = _values(body)
    return [one for one in flag.variations if targeting.find(values, one) is None] if flag.closed else []


def _values(body: Mapping[str, Any]) -> list[Any]:
    variations = body.get("variations")
    if not isinstance(variations, list) or not all(isinstance(one, dict) for one in variations):
        raise FlagUnavailableError("LaunchDarkly's API answered something that is no flag")
    return [one.get("value") for one in variations]


def _environment(body: Mapping[str, Any], environment: str) -> Mapping[str, Any]:
    environments = body.get("environments")
    here = environments.get(environment) if isinstance(environments, dict) else None
    if not isinstance(here, dict):
        raise FlagUnavailableError(f"LaunchDarkly tells nothing of {show(body.get('key'))} in {environment}")
    return here


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    return "number" if isinstance(value, int | float) else "json"


def _name(value: Any) -> str:
    return value if isinstance(value, str) and value else "none" if value in ("", {}) else show(value)
