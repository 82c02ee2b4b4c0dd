"""The third migration hands the resolver what the first version left in doubt, and the ledger still adds up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from alembic import command

from router.audit import verify
from router.ledger.engine import Database
from router.ledger.migrate import alembic_config, migrate
from router.ledger.payments import PaymentLedger
from router.ledger.records import Payment
from router.ledger.tables import from_micros, payment_events, payments
from tests.fakes.house import build_house
from tests.fakes.providers import UNKNOWN, FakeProvider

ADDED_SINCE = {
    "payments": "claimed_until faults dead_at failure",
    "payment_events": "xact",
    "circuit_transitions": "share suspect until since",
    "attempts": "fee_actual fee_currency",
    "operations": "failures",
    "webhooks": "payment_id",
    "api_keys": "hint created_by revoked_by last_used_at expires_at replaced_by",
    "flips": "holder lease_until next_try_at requested_at before mark written pins approval cause restore_by"
    " restore_reason restore_at restore_sent_at restored_at tries refusals",
}
"""Columns that the migrations after the second one add."""


@pytest.fixture
def database(bare_url: str) -> Iterator[Database]:
    database = Database(bare_url, pool_size=4)
    yield database
    database.close()


def _as_the_second_migration_left_it(database: Database) -> dict[str, Payment]:
    """Two payments in doubt, of which the first version left the first with nobody to find out; by id, as they were.

    They are read before the columns go that the queries of this version name.
    """
    migrate(database)
    stripe = FakeProvider("stripe")
    house = build_house(database, [stripe])
    ids = []
    for _ in range(2):
        stripe.outcomes.extend([UNKNOWN] * 4)
        ids.append(house.pay().payment.id)
        stripe.outcomes.clear()
    paid = house.pay().payment
    assert paid.status == "captured"
    with database.write() as connection:
        # What the first version wrote: the same row and the same events, without a word of resolving.
        for payment_id in ids[:1]:
            connection.execute(payments.update().where(payments.c.id == payment_id).values(resolve_at=None))
            events = payment_events
            for number, changes in connection.execute(
                sa.select(events.c.number, events.c.changes).where(events.c.payment_id == payment_id)
            ).all():
                kept = {name: value for name, value in changes.items() if name != "resolve_at"}
                connection.execute(events.update().where(events.c.number == number).values(changes=kept))
    loaded = [PaymentLedger(database).get(payment_id) for payment_id in ids]
    with database.write() as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        # In reverse: what came with the migrations after the second one.
        for table in (
            "webhook_deliveries",
            "webhook_endpoints",
            "report_marks",
            "report_state",
            "report_cells",
            "report_facts",
            "relays",
            "event_clock",
            "alerts",
            "primary_overrides",
            "probes",
            "provider_accounts",
            "provider_counts",
            "flag_values",
            "flag_changes",
            "score_counts",
            "parked_ramp",
            "decisions",
            "decision_outcomes",
            "secrets",
            "settlement_lines",
            "settlement_imports",
            "console_sessions",
            "console_passwords",
            "console_failures",
            "sealing_keys",
            "sealing_processes",
            "api_key_changes",
            "merchant_volumes",
        ):
            connection.execute(sa.text(f"DROP TABLE {table}"))
        for index in ("ix_payments_listed", "ix_attempts_started_at", "ix_webhooks_payment", "ix_api_keys_merchant"):
            connection.execute(sa.text(f"DROP INDEX {index}"))
        for index in ("ix_payments_parked_by_merchant", "ix_payments_parked_due", "ix_payments_parked_expiring"):
            connection.execute(sa.text(f"DROP INDEX {index}"))
        connection.execute(sa.text("DROP INDEX ix_payment_events_xact_number"))  # SQLite keeps a column for it
        for index in ("attempts_approved", "operations_provider_reference", "operations_started_at"):
            connection.execute(sa.text(f"DROP INDEX ix_{index}"))
        for table, columns in ADDED_SINCE.items():
            for column in columns.split():
                connection.execute(sa.text(f'ALTER TABLE {table} DROP COLUMN "{column}"'))
        command.stamp(config, "0002")
    return {each[0].id: each[0] for each in loaded if each is not None}


def test_payments_that_the_first_version_left_in_doubt_are_taken_up(database: Database) -> None:
    """They are due at once; those that were being resolved, and those that are paid, are left alone."""
    before = _as_the_second_migration_left_it(database)
    ids = list(before)
    assert len(ids) == 2
    ledger = PaymentLedger(database)
    migrate(database)
    for payment_id, was in before.items():
        found = ledger.get(payment_id)
        assert found is not None
        if payment_id == ids[1]:
            assert found[0] == was
            continue
        assert found[0].resolve_at == found[0].updated_at == was.updated_at
        assert found[0].version == was.version + 1
        with database.read() as connection:
            kinds = connection.scalars(
                sa.select(payment_events.c.type)
                .where(payment_events.c.payment_id == payment_id)
                .order_by(payment_events.c.version)
            ).all()
            at = connection.scalar(sa.select(payments.c.updated_at).where(payments.c.id == payment_id))
        assert kinds[-1] == "taken_up"
        assert at is not None
        assert payment_id in ledger.due_unresolved(from_micros(at), limit=9)
    assert [each for progress in verify(database) for each in progress.differences] == []


def test_a_payment_that_somebody_works_on_is_left_to_them(database: Database) -> None:
    """Its lease ends, or runs out, and then it is due anyway."""
    ids = list(_as_the_second_migration_left_it(database))
    with database.write() as connection:
        connection.execute(
            payments.update().where(payments.c.id == ids[0]).values(lease_holder="web:1", lease_until=1)
        )
    migrate(database)
    found = PaymentLedger(database).get(ids[0])
    assert found is not None
    assert (found[0].resolve_at, found[0].lease_holder) == (None, "web:1")
