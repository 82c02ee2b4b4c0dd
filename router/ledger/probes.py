"""Synthetic probes: a row each, written before the call. They move no money, and are in no report."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from router.ledger.engine import Database
from router.ledger.tables import from_micros, probes, to_micros


@dataclass(frozen=True, slots=True)
class Probe:
    """One call that asked a provider whether it works."""

    provider: str
    version: int
    """The transition that it is a probe of: a half-open round, or a stage of slow start."""
    nth: int
    """Which of that transition's probes, from 1."""
    actor: str
    at: dt.datetime
    """When it was sent."""
    healthy: bool | None = None
    """None: it has not ended, or it says nothing of the provider."""
    reason: str | None = None
    latency: dt.timedelta | None = None


class ProbeLedger:
    """The probes' queries."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, probe: Probe) -> bool:
        """Commit that this probe is about to be sent; False when another process has sent it.

        Raises LedgerUnavailableError. After either nothing may be sent.
        """
        try:
            with self._database.write() as connection:
                connection.execute(probes.insert(), _to_row(probe))
        except sa.exc.IntegrityError:
            return False
        return True

    def finish(self, probe: Probe) -> None:
        """Commit how it ended. Raises LedgerUnavailableError."""
        row = _to_row(probe)
        table = probes
        with self._database.write() as connection:
            connection.execute(
                table.update()
                .where(
                    table.c.provider == probe.provider,
                    table.c.version == probe.version,
                    table.c.nth == probe.nth,
                    table.c.actor == probe.actor,
                )
                .values({name: row[name] for name in ("healthy", "reason", "latency_us")})
            )

    def history(self, provider: str, *, limit: int) -> Sequence[Probe]:
        """A provider's last probes, the newest first."""
        table = probes
        query = table.select().where(table.c.provider == provider)
        with self._database.read() as connection:
            rows = connection.execute(
                query.order_by(table.c.version.desc(), table.c.nth.desc()).limit(limit)
            ).mappings()
            return [_from_row(row) for row in rows]


def _to_row(probe: Probe) -> dict[str, object]:
    return {
        "provider": probe.provider,
        "version": probe.version,
        "nth": probe.nth,
        "actor": probe.actor,
        "at": to_micros(probe.at),
        "healthy": probe.healthy,
        "reason": probe.reason,
        "latency_us": None if probe.latency is None else probe.latency // dt.timedelta(microseconds=1),
    }


def _from_row(row: sa.RowMapping) -> Probe:
    latency_us = row["latency_us"]
    return Probe(
        provider=row["provider"],
        version=row["version"],
        nth=row["nth"],
        actor=row["actor"],
        at=from_micros(row["at"]),
        healthy=row["healthy"],
        reason=row["reason"],
        latency=None if latency_us is None else dt.timedelta(microseconds=latency_us),
    )
