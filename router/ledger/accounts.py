"""Providers' accounts: a row each, with how it stands and who may ask next."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

import sqlalchemy as sa

from providers.contract import AccountStanding, AccountState
from router.accounts import Known
from router.ledger import alerts
from router.ledger.alerts import Alert
from router.ledger.engine import Database
from router.ledger.tables import from_micros, provider_accounts, to_micros


class AccountLedger:
    """The accounts' queries. Each raises LedgerUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def known(self) -> Mapping[str, Known]:
        """Every account of which something was learned, by its provider."""
        query = provider_accounts.select().where(provider_accounts.c.learned_at.is_not(None))
        with self._database.read() as connection:
            return {row["provider"]: _known(row) for row in connection.execute(query).mappings()}

    def take(self, provider: str, *, now: dt.datetime, again_at: dt.datetime) -> bool:
        """Be the one who asks now; nobody else does before `again_at`. False: it is not time, or another is first."""
        table = provider_accounts
        due = (table.c.provider == provider, table.c.next_at <= to_micros(now))
        with self._database.write() as connection:
            if connection.execute(table.update().where(*due).values(next_at=to_micros(again_at))).rowcount:
                return True
        try:
            with self._database.write() as connection:
                if connection.scalar(sa.select(table.c.provider).where(table.c.provider == provider)) is not None:
                    return False
                connection.execute(table.insert(), {"provider": provider, "next_at": to_micros(again_at)})
        except sa.exc.IntegrityError:
            return False
        return True

    def learned(self, provider: str, known: Known, *, again_at: dt.datetime, alert: Alert | None) -> None:
        """Commit how an account stands, when to ask again, and what a person is to hear of it."""
        standing = known.standing
        values = {
            "state": standing.state.value,
            "reasons": list(standing.reasons),
            "until": None if standing.until is None else to_micros(standing.until),
            "since": to_micros(known.since),
            "learned_at": to_micros(known.learned_at),
            "next_at": to_micros(again_at),
        }
        with self._database.write() as connection:
            table = provider_accounts
            connection.execute(table.update().where(table.c.provider == provider).values(values))
            if alert is not None:
                alerts.add(connection, alert)


def _known(row: sa.RowMapping) -> Known:
    until = None if row["until"] is None else from_micros(row["until"])
    return Known(
        AccountStanding(AccountState(row["state"]), tuple(row["reasons"] or ()), until),
        from_micros(row["since"]),
        from_micros(row["learned_at"]),
    )
