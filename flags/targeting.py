"""What a flag's targeting serves, to everyone and to those whom it singles out. Pure.

LaunchDarkly's REST API and its SDK's files have the same shape for it: `fallthrough`, `rules`, `targets` and
`contextTargets`, which name variations by their index.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flags.contract import WHOLE, FlagState, FlagWriteError, Serves
from flags.definitions import show
from flags.document import same

SHOWN_AT_MOST = 3
"""Keys and values named of one rule or target: enough to find it, and no list of customers in an alert."""

ALWAYS = "payment"
"""The one kind of context that every payment has."""

Part = Mapping[str, Any]


class UnreadableError(ValueError):
    """What should be a flag is none, or a part of it is not what its format says."""


def state(mark: str, variations: Sequence[Any], targeting: Part) -> FlagState:
    """The flag's state. Raises UnreadableError."""
    is_on = targeting.get("on")
    off = targeting.get("offVariation")
    return FlagState(
        mark=mark,
        is_on=is_on is True,
        serves=served(variations, _part(targeting.get("fallthrough"))),
        off=None if off is None else _value(variations, off),
        pins=pins(variations, targeting),
    )


def served(variations: Sequence[Any], part: Part) -> Serves:
    """What a default rule or another rule serves. Raises UnreadableError."""
    if part.get("rollout") is None:
        return Serves(_value(variations, part.get("variation")))
    weights: dict[Any, int] = {}
    for share in _parts(_part(part["rollout"]).get("variations")):
        weight = share.get("weight")
        if isinstance(weight, bool) or not isinstance(weight, int) or weight < 0:
            raise UnreadableError("a weight of a rollout is not a number")
        value = name(_value(variations, share.get("variation")))
        if weight:
            weights[value] = weights.get(value, 0) + weight
    if not weights:
        raise UnreadableError("a rollout serves nothing")
    return Serves(weights=weights)


def name(value: Any) -> Any:
    """The value as the weights of a rollout name it: itself, or its JSON where it is an object or a list."""
    return value if isinstance(value, str | int | float | bool) else show(value)


def alike(one: Serves, other: Serves) -> bool:
    """Whether the two serve the same; a weight of nothing is no weight."""
    if one.weights or other.weights:
        return {k: v for k, v in one.weights.items() if v} == {k: v for k, v in other.weights.items() if v}
    return same(one.value, other.value)


def find(variations: Sequence[Any], value: Any) -> int | None:
    """The index of the variation with this value, or with this name in a rollout."""
    return next((i for i, one in enumerate(variations) if same(one, value) or same(name(one), value)), None)


def check_weights(key: str, to: Serves) -> None:
    """Raise FlagWriteError where a rollout does not add up."""
    if to.weights and (sum(to.weights.values()) != WHOLE or min(to.weights.values()) < 0):
        raise FlagWriteError(f"{key}: the weights of a percentage rollout must add up to {WHOLE}")


def is_experiment(part: Any) -> bool:
    """Whether this rollout is an experiment's allocation, which nothing but the experiment may change."""
    rollout = part.get("rollout") if isinstance(part, Mapping) else None
    return isinstance(rollout, Mapping) and (
        rollout.get("kind") == "experiment" or rollout.get("experimentAllocation") is not None
    )


def pins(variations: Sequence[Any], targeting: Part) -> dict[str, tuple[str, ...]]:
    """By value: the rules and targets that serve it, each in words. Raises UnreadableError."""
    found: dict[Any, list[str]] = {}
    for prerequisite in _parts(targeting.get("prerequisites")):
        off = targeting.get("offVariation")
        if off is not None:
            words = f"prerequisite {show(prerequisite.get('key'))}, wherever it is not met"
            found.setdefault(name(_value(variations, off)), []).append(words)
    everyone = targeting.get("fallthrough")
    if isinstance(everyone, Mapping) and everyone.get("rollout") is not None and _kind(everyone["rollout"]) != ALWAYS:
        first = served_first(variations, everyone["rollout"])
        found.setdefault(first, []).append(f"percentage rollout: payments without a {_kind(everyone['rollout'])}")
    for target in targets(targeting):
        words = f"target: {_listed(_kind(target), target['values'])}"
        found.setdefault(name(_value(variations, target.get("variation"))), []).append(words)
    for number, rule in enumerate(_parts(targeting.get("rules")), start=1):
        if rule.get("disabled") is True:
            continue
        serves = served(variations, rule)
        for value in serves.weights or (name(serves.value),):
            share = f", {serves.share_of(value):.1%} of them" if serves.weights else ""
            found.setdefault(value, []).append(f"{_rule(number, rule)}{share}")
    return {value: tuple(words) for value, words in found.items()}


def served_first(variations: Sequence[Any], rollout: Part) -> Any:
    """What the SDK serves to a context without the rollout's kind: the first share, even one of nothing."""
    shares = _parts(rollout.get("variations"))
    return name(_value(variations, shares[0].get("variation") if shares else None))


def targets(targeting: Part) -> Iterator[dict[str, Any]]:
    """Every list of keys that one variation is served to. Raises UnreadableError."""
    for part in ("targets", "contextTargets"):
        for target in _parts(targeting.get(part)):
            values = target.get("values")
            if not isinstance(values, list):
                raise UnreadableError("a target has no keys")
            if values:  # `contextTargets` holds an empty place for each list in `targets`
                yield dict(target)


def _rule(number: int, rule: Part) -> str:
    title = rule.get("description")
    if isinstance(title, str) and title:
        return f"rule {number} {show(title)}"
    return f"rule {number}: {' and '.join(map(_clause, _parts(rule.get('clauses')))) or 'everyone'}"


def _clause(clause: Part) -> str:
    values = clause.get("values")
    named = _some(values if isinstance(values, list) else [])
    operator = "is" if clause.get("op") == "in" else str(clause.get("op"))
    if clause.get("op") == "segmentMatch":
        return f"{'not ' if clause.get('negate') else ''}in segment {named}"
    return f"{_kind(clause)} {clause.get('attribute')} {operator} {'not ' if clause.get('negate') else ''}{named}"


def _kind(part: Part) -> str:
    return str(part.get("contextKind") or "user")


def _listed(kind: str, keys: Sequence[Any]) -> str:
    return f"{kind}{'s' if len(keys) > 1 else ''} {_some(keys)}"


def _some(values: Sequence[Any]) -> str:
    more = len(values) - SHOWN_AT_MOST
    shown = ", ".join(show(value) for value in values[:SHOWN_AT_MOST])
    return f"{shown} and {more} more" if more > 0 else shown


def _value(variations: Sequence[Any], index: Any) -> Any:
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(variations):
        raise UnreadableError("a rule names a variation that there is not")
    return variations[index]


def _part(value: Any) -> Part:
    if not isinstance(value, Mapping):
        raise UnreadableError("it has no rule for everyone" if value is None else "a part of it is not an object")
    return value


def _parts(value: Any) -> list[Part]:
    if not isinstance(value, list | None):
        raise UnreadableError("a part of it is not a list")
    return [_part(one) for one in value or []]
