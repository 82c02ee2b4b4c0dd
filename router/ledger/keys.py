"""API keys: only a digest is kept, so a stolen ledger opens nothing."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa

from router.ledger.engine import Database
from router.ledger.tables import api_keys, to_micros

SCOPES = frozenset({"payments", "reports", "operate"})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: a merchant, and what this key lets it do."""

    merchant: str
    scopes: frozenset[str]
    label: str = ""
    """What the key is for: named where an order of its holder is recorded."""


def digest(key: str) -> str:
    """SHA-256: the keys are 160 random bits, so a slow hash would protect nothing more."""
    return hashlib.sha256(key.encode()).hexdigest()


class KeyLedger:
    """The keys' queries."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, key: str, *, merchant: str, scopes: Iterable[str], label: str, now: dt.datetime) -> None:
        """Commit a new key."""
        with self._database.write() as connection:
            connection.execute(
                api_keys.insert(),
                {
                    "digest": digest(key),
                    "merchant": merchant,
                    "scopes": sorted(scopes),
                    "label": label,
                    "created_at": to_micros(now),
                },
            )

    def find(self, key: str) -> Caller | None:
        """Whose key this is; None for an unknown or revoked one."""
        with self._database.read() as connection:
            row = connection.execute(
                sa.select(api_keys.c.merchant, api_keys.c.scopes, api_keys.c.label).where(
                    api_keys.c.digest == digest(key), api_keys.c.revoked_at.is_(None)
                )
            ).one_or_none()
        return None if row is None else Caller(row[0], frozenset(row[1]), row[2])
