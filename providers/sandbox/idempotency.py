"""Idempotency keys: the first result of a key is kept and given again."""

from __future__ import annotations

import enum
from collections.abc import Hashable
from dataclasses import dataclass

from providers.sandbox.http import Reply


class Clash(enum.Enum):
    """Why a key cannot be used now."""

    IN_USE = "in_use"
    """The first request with it is still running."""
    OTHER_PARAMETERS = "other_parameters"
    """It was first used with something else."""


@dataclass(slots=True)
class _Entry:
    fingerprint: Hashable
    reply: Reply | None


class IdempotencyKeys:
    """The keys one provider has seen. Real ones expire (Stripe 24 h, Adyen 31 days); these live until cleared."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def claim(self, key: str, fingerprint: Hashable) -> Reply | Clash | None:
        """The stored answer, or why the key cannot be used; None: the key is now the caller's, who must `settle`."""
        entry = self._entries.get(key)
        if entry is None:
            self._entries[key] = _Entry(fingerprint, None)
            return None
        if entry.fingerprint != fingerprint:
            return Clash.OTHER_PARAMETERS
        return Clash.IN_USE if entry.reply is None else entry.reply

    def settle(self, key: str, reply: Reply | None) -> None:
        """End a claim: keep this answer for the key, or (None) forget the key, free for another try."""
        if reply is None:
            self._entries.pop(key, None)
        else:
            self._entries[key].reply = reply

    def clear(self) -> None:
        """Forget every key."""
        self._entries.clear()
