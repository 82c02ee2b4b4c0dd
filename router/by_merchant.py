"""Settings that say something of each merchant: JSON objects, checked. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from providers.regions import COUNTRIES

EVERY_OTHER = "*"
"""Stands for every merchant that is not named."""


def _by_merchant(value: object) -> dict[str, Any]:
    """What stands for each merchant in a JSON object. Its errors name no merchant: that is part of the value."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            msg = "names a merchant twice"
            raise _NamedTwiceError(msg)
        return found

    if isinstance(value, str):
        try:
            value = json.loads(value, object_pairs_hook=once)
        except _NamedTwiceError:
            raise
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, Mapping) or not all(isinstance(name, str) and name.strip() for name in value):
        msg = "must be a JSON object by merchant, with * for every other one"
        raise ValueError(msg)
    return dict(value)


class _NamedTwiceError(ValueError):
    """A JSON object has one name twice, and which of both holds nobody could tell."""


def countries(value: object) -> dict[str, str]:
    """A country for each merchant. Raises ValueError, which names neither merchant nor value."""
    found = _by_merchant(value)
    if not all(isinstance(each, str) and each in COUNTRIES for each in found.values()):
        msg = "each merchant needs a country of ISO 3166 in two capital letters (GB, not UK)"
        raise ValueError(msg)
    return found


def provider_lists(value: object, known: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Providers, of those known, for each merchant. Raises ValueError, which names neither merchant nor value."""
    found = _by_merchant(value)
    for each in found.values():
        if not isinstance(each, list | tuple) or not each or not all(isinstance(name, str) for name in each):
            msg = "each merchant needs a list of provider names, and at least one"
            raise ValueError(msg)
        if not set(each) <= set(known) or len(set(each)) < len(each):
            msg = f"names a provider that is not known, or one twice: known are {', '.join(known)}"
            raise ValueError(msg)
    return {merchant: tuple(names) for merchant, names in found.items()}


def words(value: object, known: Sequence[str]) -> dict[str, str]:
    """One of the known words for each merchant. Raises ValueError, which names neither merchant nor value."""
    found = _by_merchant(value)
    if not all(isinstance(each, str) and each in known for each in found.values()):
        msg = f"each merchant needs one of {', '.join(known)}"
        raise ValueError(msg)
    return found
