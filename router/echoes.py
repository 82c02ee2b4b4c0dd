"""Card numbers that a provider's answer or notification repeats: taken out before anything of it is kept or shown.

What an adapter lets through is short words and ids, safe by their shape (`providers.faults.safe_word`). What the
customer's browser is to do next is the provider's own, and goes on as it came: only there is one looked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from providers.contract import Notice
from router.pan_written import holds_pan, places

REMOVED = "[removed]"


def of_action(action: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the customer's browser is to do, without card numbers."""
    cleaned: Mapping[str, Any] = _without(action) if holds_pan(action) else action
    return cleaned


def of_notice(notice: Notice) -> Notice | None:
    """A notice without card numbers in what it says; None where an id is one: that is another system's."""
    outcome = notice.outcome
    cleaned = dataclasses.replace(
        notice,
        name=_without(notice.name),
        reason=_without(notice.reason),
        outcome=outcome
        and dataclasses.replace(outcome, next_action=outcome.next_action and of_action(outcome.next_action)),
    )
    return None if holds_pan(dataclasses.asdict(cleaned)) else cleaned


def _without(value: Any) -> Any:
    if isinstance(value, str):
        for begin, end in reversed(places(value)):
            value = f"{value[:begin]}{REMOVED}{value[end:]}"
        return value
    if isinstance(value, Mapping):
        return {_without(name): _without(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without(each) for each in value]
    return REMOVED if isinstance(value, int | float) and holds_pan(value) else value
