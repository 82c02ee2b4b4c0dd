"""Moving a flag through LaunchDarkly's REST API, as a person at its dashboard would."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flags import targeting
from flags.contract import FlagChangedError, FlagState, FlagUnavailableError, FlagWriteError, Serves
from flags.definitions import show
from flags.restapi import LaunchDarklyApi, system_now

API_URI = "https://app.launchdarkly.com"
CONNECT_S = 2.0
READ_S = 5.0
ROLLOUT_KIND = "customer"
"""Whom a rollout goes by where the flag has none to keep the kind of (design §7)."""

Instruction = dict[str, Any]


class LaunchDarklyMover:
    """A `FlagMover` over LaunchDarkly's REST API, for one environment of one project."""

    def __init__(
        self,
        token: str,
        *,
        project: str,
        environment: str,
        api_uri: str = API_URI,
        notify: Sequence[str] = (),
        connect_s: float = CONNECT_S,
        read_s: float = READ_S,
        now: Callable[[], dt.datetime] = system_now,
    ) -> None:
        """`notify`: ids of the members who are told of an approval request. Raises ValueError for an empty token."""
        self._environment = environment
        self._notify = list(notify)
        self._api = LaunchDarklyApi(
            token, project=project, api_uri=api_uri, connect_s=connect_s, read_s=read_s, now=now
        )

    def look(self, key: str) -> FlagState:
        """The flag now. Raises FlagUnavailableError, FlagWriteError."""
        return self._get(key).state

    def move(
        self, key: str, to: Serves, *, seen: FlagState, comment: str, pins: tuple[str, str] | None = None
    ) -> FlagState:
        """Serve `to`, while the flag is as `seen`; answers the flag as LaunchDarkly has it then.

        Raises every error of `FlagMover.move`. LaunchDarkly knows no conditional change: between our last look and
        the change lie some milliseconds, in which a person's change would be overwritten, unless both are applied
        at the same moment, which it refuses.
        """
        flag = self._get(key)
        if flag.state.mark != seen.mark:
            raise FlagChangedError(f"{key} was changed since it was looked at; nothing was written")
        instructions = flag.instructions(to, pins)
        if not instructions:
            return flag.state
        answer = self._api.patch(
            key, {"environmentKey": self._environment, "comment": comment, "instructions": instructions}
        )
        has_environment = isinstance(answer.get("environments"), dict) and self._environment in answer["environments"]
        after = _parsed(key, answer, self._environment) if has_environment else self._get(key)
        # What the API does not understand of a change it ignores without a word.
        if not targeting.alike(after.state.serves, to):
            raise FlagWriteError(f"LaunchDarkly took the change of {key}, and does not serve it: look at the flag")
        return after.state

    def ask_approval(self, key: str, to: Serves, *, comment: str) -> str:
        """File an approval request, unless one with this comment waits already. Raises as `look`.

        A request whose answer was lost is found again so: a second one nobody would ever withdraw.
        """
        for each in self._api.approvals(key, self._environment):
            if (each.get("description"), each.get("status")) == (comment, "pending") and each.get("_id"):
                return str(each["_id"])
        instructions = self._get(key).instructions(to, None)
        if not instructions:
            raise FlagWriteError(f"{key} serves that already: there is nothing to approve")
        body = {"description": comment, "instructions": instructions, "notifyMemberIds": self._notify}
        request = self._api.ask_approval(key, self._environment, body).get("_id")
        if not isinstance(request, str) or not request:
            raise FlagUnavailableError("LaunchDarkly took the approval request and told no id of it")
        return request

    def withdraw(self, key: str, request: str) -> None:
        """Take the request back; one that is gone already is no error. Raises as `look`."""
        self._api.withdraw(key, self._environment, request)

    def close(self) -> None:
        """Let go of connections."""
        self._api.close()

    def _get(self, key: str) -> RestFlag:
        return _parsed(key, self._api.flag(key, self._environment), self._environment)


@dataclass(frozen=True, slots=True)
class RestFlag:
    """A flag in one environment, with the ids that instructions name things by."""

    key: str
    ids: Sequence[str]
    """Of the variations, in their order."""
    values: Sequence[Any]
    targeting: Mapping[str, Any]
    state: FlagState

    def instructions(self, to: Serves, pins: tuple[str, str] | None) -> list[Instruction]:
        """What changes the default rule to `to`, and the pins of the one value to the other.

        Raises FlagWriteError for a value that is no variation, and where an experiment has the default rule.
        """
        found: list[Instruction] = []
        if not targeting.alike(self.state.serves, to):
            if targeting.is_experiment(self.targeting["fallthrough"]):
                raise FlagWriteError(f"{self.key} serves an experiment: stop that in LaunchDarkly first")
            kind = "updateFallthroughVariationOrRollout"
            found.append({"kind": kind, **self._serving(to, self.targeting["fallthrough"])})
        return found if pins is None else [*found, *self._rules(*pins), *self._targets(*pins)]

    def _rules(self, source: str, target: str) -> list[Instruction]:
        found: list[Instruction] = []
        for rule in self.targeting.get("rules") or []:
            serves = targeting.served(self.values, rule)
            if rule.get("disabled") is True or not serves.share_of(source) or targeting.is_experiment(rule):
                continue
            kind = {"kind": "updateRuleVariationOrRollout", "ruleId": rule.get("_id")}
            found.append({**kind, **self._serving(serves.moved(source, target), rule)})
        return found

    def _targets(self, source: str, target: str) -> list[Instruction]:
        found: list[Instruction] = []
        for keys in targeting.targets(self.targeting):
            if keys.get("variation") != targeting.find(self.values, source):
                continue
            named = {"contextKind": keys.get("contextKind") or "user", "values": keys["values"]}
            # In this order: a key that two variations are served to is refused.
            found.append({"kind": "removeTargets", "variationId": self._id(source), **named})
            found.append({"kind": "addTargets", "variationId": self._id(target), **named})
        return found

    def _serving(self, to: Serves, before: Mapping[str, Any]) -> Instruction:
        if not to.weights:
            return {"variationId": self._id(to.value)}
        targeting.check_weights(self.key, to)
        rollout = before.get("rollout") or {"contextKind": ROLLOUT_KIND}
        serving: Instruction = {
            "rolloutWeights": {self._id(value): weight for value, weight in to.weights.items() if weight}
        }
        # Left out, the kind would become `user`, and everyone would fall into the first share.
        for name, field in (("rolloutContextKind", "contextKind"), ("rolloutBucketBy", "bucketBy")):
            if rollout.get(field):
                serving[name] = rollout[field]
        return serving

    def _id(self, value: Any) -> str:
        index = targeting.find(self.values, value)
        if index is None:
            raise FlagWriteError(
                f"{self.key} has no variation {show(value)} in LaunchDarkly: `pointsman flags bootstrap` adds it"
            )
        return self.ids[index]


def _parsed(key: str, body: Mapping[str, Any], environment: str) -> RestFlag:
    """The flag in an answer. Raises FlagUnavailableError where it is none, FlagWriteError without the environment."""
    try:
        return _flag(key, body, environment)
    except targeting.UnreadableError as error:
        raise FlagUnavailableError(f"LaunchDarkly's answer about {key} cannot be read: {error}") from None


def _flag(key: str, body: Mapping[str, Any], environment: str) -> RestFlag:
    variations, environments = body.get("variations"), body.get("environments")
    if not isinstance(variations, list) or body.get("key") != key:
        raise targeting.UnreadableError("it is not this flag")
    if body.get("archived") is True:
        raise FlagWriteError(f"{key} is archived in LaunchDarkly: restore it there first")
    if not isinstance(environments, dict) or not isinstance(here := environments.get(environment), dict):
        raise FlagWriteError(
            f"LaunchDarkly tells nothing of {key} in environment {show(environment)}: "
            "is ROUTER_LAUNCHDARKLY_ENVIRONMENT right?"
        )
    ids, values = [], []
    for variation in variations:
        if not isinstance(variation, dict) or not isinstance(variation.get("_id"), str) or "value" not in variation:
            raise targeting.UnreadableError("a variation has no id")
        ids.append(variation["_id"])
        values.append(variation["value"])
    versions = (body.get("_version"), here.get("version"))
    if not all(isinstance(version, int) for version in versions):
        raise targeting.UnreadableError("it has no version")
    mark = ".".join(map(str, versions))
    return RestFlag(key, ids, values, here, targeting.state(mark, values, here))
