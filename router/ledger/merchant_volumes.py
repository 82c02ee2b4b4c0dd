"""Each merchant's busiest minute of every hour: what its quota is made from.

Any number of workers may count the same minutes: what is on record only goes up, so a minute counted twice, or by two
at once, changes nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from router.clock import CROCKFORD
from router.ledger.engine import Database
from router.ledger.tables import merchant_volumes, payments, to_micros

MINUTE_US = 60_000_000
ID_SLACK = dt.timedelta(seconds=5)
"""A payment's id is made a moment before its row says it was created; the clocks of two processes differ a little."""
_ULID_LETTERS = 26


class MerchantVolumes:
    """The queries."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def count(self, begin: dt.datetime, end: dt.datetime) -> Mapping[tuple[str, int], int]:
        """Payments created from `begin` until before `end`, by merchant and minute (since 1970).

        Along the primary key, which begins with the time: it costs what was made in that time.
        """
        table = payments.c
        minute = table.created_at.op("/")(MINUTE_US).label("minute")  # of integers, in both databases: rounded down
        query = (
            sa.select(table.merchant, minute, sa.func.count())
            .where(
                table.id >= _least_id(begin - ID_SLACK),
                table.id < _least_id(end + ID_SLACK),
                table.created_at >= to_micros(begin),
                table.created_at < to_micros(end),
            )
            .group_by(table.merchant, minute)
        )
        with self._database.read() as connection:
            return {(row[0], int(row[1])): int(row[2]) for row in connection.execute(query)}

    def raise_to(self, peaks: Mapping[tuple[str, int], int]) -> None:
        """Commit busiest minutes, by merchant and hour (since 1970), where they are busier than those on record."""
        if not peaks:
            return
        insert = sqlite.insert if self._database.is_sqlite else postgresql.insert
        table = merchant_volumes
        statement = insert(table)
        statement = statement.on_conflict_do_update(
            index_elements=[table.c.merchant, table.c.hour],
            set_={"peak": statement.excluded.peak},
            where=statement.excluded.peak > table.c.peak,
        )
        # In one order, so that two workers never wait for each other's rows.
        rows = [{"merchant": each[0], "hour": each[1], "peak": peak} for each, peak in sorted(peaks.items())]
        with self._database.write() as connection:
            connection.execute(statement, rows)

    def peaks(self, hours: Collection[int]) -> Mapping[str, list[int]]:
        """The busiest minutes of these hours, by merchant."""
        table = merchant_volumes
        query = sa.select(table.c.merchant, table.c.peak).where(table.c.hour.in_(sorted(hours)))
        found: dict[str, list[int]] = {}
        with self._database.read() as connection:
            for merchant, peak in connection.execute(query):
                found.setdefault(merchant, []).append(int(peak))
        return found

    def forget(self, before_hour: int) -> int:
        """Commit that hours before this one are forgotten; answers how many rows."""
        table = merchant_volumes
        with self._database.read() as connection:
            if connection.scalar(sa.select(table.c.hour).where(table.c.hour < before_hour).limit(1)) is None:
                return 0
        with self._database.write() as connection:
            return connection.execute(table.delete().where(table.c.hour < before_hour)).rowcount


def _least_id(moment: dt.datetime) -> str:
    """The least id that a payment of that moment can have: ids begin with their milliseconds."""
    number, letters = max(0, to_micros(moment) // 1000) << 80, []
    for _ in range(_ULID_LETTERS):
        number, digit = divmod(number, 32)
        letters.append(CROCKFORD[digit])
    return "pay_" + "".join(reversed(letters))
