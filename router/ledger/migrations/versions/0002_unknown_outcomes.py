"""Unknown outcomes: operations, webhooks, and what the resolver needs to know of a payment.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

BATCH = 1_000
DECIDED = ("processing", "requires_action", "authorized", "captured", "declined")
"""Statuses that an attempt decides."""

payments = sa.table(
    "payments",
    sa.column("id", sa.Text),
    sa.column("status", sa.Text),
    sa.column("capture_pending", sa.Boolean),
    sa.column("order", sa.JSON),
    sa.column("next_action", sa.JSON(none_as_null=True)),
    sa.column("version", sa.Integer),
    sa.column("lease_holder", sa.Text),
    sa.column("tries", sa.Integer),
    sa.column("next_try_at", sa.BigInteger),
    sa.column("updated_at", sa.BigInteger),
    sa.column("attempt_id", sa.Text),
    sa.column("contact_at", sa.BigInteger),
    sa.column("told", sa.Boolean),
    sa.column("resolve_at", sa.BigInteger),
)
attempts = sa.table(
    "attempts",
    sa.column("id", sa.Text),
    sa.column("payment_id", sa.Text),
    sa.column("number", sa.Integer),
    sa.column("outcome", sa.Text),
    sa.column("at_once", sa.Boolean),
    sa.column("capture", sa.Text),
    sa.column("next_action", sa.JSON(none_as_null=True)),
)
payment_events = sa.table(
    "payment_events",
    sa.column("payment_id", sa.Text),
    sa.column("version", sa.Integer),
    sa.column("type", sa.Text),
    sa.column("changes", sa.JSON(none_as_null=True)),
    sa.column("at", sa.BigInteger),
)


def upgrade() -> None:
    """Apply."""
    if op.get_bind().dialect.name == "postgresql":
        # In the order in which a payment's commits take them, so that neither waits for the other for ever.
        op.execute("LOCK TABLE payments, idempotency_keys, payment_events, attempts IN ACCESS EXCLUSIVE MODE")
    op.create_table(
        "webhooks",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("notice_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("notice", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("applied_at", sa.BigInteger(), nullable=True),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("next_try_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_webhooks")),
        sa.UniqueConstraint("provider", "notice_id", name=op.f("uq_webhooks_provider_notice_id")),
    )
    op.create_index(
        "ix_webhooks_waiting",
        "webhooks",
        ["next_try_at"],
        unique=False,
        sqlite_where=sa.text("applied_at IS NULL"),
        postgresql_where=sa.text("applied_at IS NULL"),
    )

    op.create_table(
        "operations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("payment_id", sa.Text(), nullable=False),
        sa.Column("attempt_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("provider_reference", sa.Text(), nullable=True),
        sa.Column("asked_by", sa.Text(), nullable=False),
        sa.Column("sends", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name=op.f("fk_operations_attempt_id")),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name=op.f("fk_operations_payment_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operations")),
    )
    op.create_index("ix_operations_payment", "operations", ["payment_id"], unique=False)

    op.add_column("attempts", sa.Column("at_once", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("attempts", sa.Column("capture", sa.Text(), nullable=True))
    for name in ("final_record", "was_approved", "was_canceled"):
        op.add_column("attempts", sa.Column(name, sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("attempts", sa.Column("sends", sa.Integer(), server_default="1", nullable=False))
    op.add_column("attempts", sa.Column("card", sa.Text(), nullable=True))
    op.add_column("attempts", sa.Column("next_action", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("attempts", sa.Column("last_sent_at", sa.BigInteger(), nullable=True))
    op.create_index(
        "ix_attempts_tries_of_card",
        "attempts",
        ["card", "started_at"],
        unique=False,
        sqlite_where=sa.text("outcome IN ('declined', 'requires_action', 'unknown')"),
        postgresql_where=sa.text("outcome IN ('declined', 'requires_action', 'unknown')"),
    )

    op.add_column("idempotency_keys", sa.Column("operation_id", sa.Text(), nullable=True))
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"], unique=False)

    op.add_column("payments", sa.Column("attempt_id", sa.Text(), nullable=True))
    op.add_column("payments", sa.Column("contact_at", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("payments", sa.Column("told", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("payments", sa.Column("given_up_at", sa.BigInteger(), nullable=True))
    op.add_column("payments", sa.Column("dispute", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("payments", sa.Column("resolve_at", sa.BigInteger(), nullable=True))
    op.add_column("payments", sa.Column("resolve_tries", sa.Integer(), server_default="0", nullable=False))
    op.add_column("payments", sa.Column("attention", sa.Text(), nullable=True))
    op.create_index(
        "ix_payments_awaiting_customer",
        "payments",
        ["attempt_id"],
        unique=False,
        sqlite_where=sa.text("status = 'requires_action'"),
        postgresql_where=sa.text("status = 'requires_action'"),
    )
    op.create_index(
        "ix_payments_leased",
        "payments",
        ["lease_until"],
        unique=False,
        sqlite_where=sa.text("lease_until IS NOT NULL"),
        postgresql_where=sa.text("lease_until IS NOT NULL"),
    )
    op.create_index(
        "ix_payments_to_resolve",
        "payments",
        ["resolve_at"],
        unique=False,
        sqlite_where=sa.text("resolve_at IS NOT NULL"),
        postgresql_where=sa.text("resolve_at IS NOT NULL"),
    )

    _fill_attempts(op.get_bind())
    _fill_payments(op.get_bind())


def _fill_attempts(connection: sa.Connection) -> None:
    """How the first version's attempts were sent, and what came of it."""
    own = payments.c.id == attempts.c.payment_id
    # It sent an automatic payment to be captured with its approval, always.
    asked = sa.func.coalesce(payments.c.order["capture"].as_string(), "automatic")
    connection.execute(attempts.update().values(at_once=sa.select(asked == "automatic").where(own).scalar_subquery()))
    taken = sa.case((payments.c.capture_pending, "pending"), else_="done")
    connection.execute(
        attempts.update()
        .where(
            attempts.c.outcome == "approved",
            attempts.c.payment_id.in_(sa.select(payments.c.id).where(payments.c.status == "captured")),
        )
        .values(capture=sa.select(taken).where(own).scalar_subquery())
    )
    connection.execute(
        attempts.update()
        .where(
            attempts.c.outcome == "requires_action",
            attempts.c.payment_id.in_(sa.select(payments.c.id).where(payments.c.status == "requires_action")),
        )
        .values(next_action=sa.select(payments.c.next_action).where(own).scalar_subquery())
    )


def _fill_payments(connection: sa.Connection) -> None:
    """Where the first version's payments stand in the new columns, with an event each.

    A process of the first version that works on one at this moment finds its version taken, and stops before it
    sends or writes anything more: the resolver goes on when its lease has run out.
    """
    deciding = (
        sa.select(attempts.c.id)
        .where(
            attempts.c.payment_id == payments.c.id,
            sa.func.coalesce(attempts.c.outcome, "") != "not_executed",
        )
        .order_by(attempts.c.number.desc())
        .limit(1)
        .scalar_subquery()
    )
    connection.execute(
        payments.update().values(
            version=payments.c.version + 1,
            attempt_id=sa.case((payments.c.status.in_(DECIDED), deciding)),
            contact_at=payments.c.updated_at,
            # One whose request was cut short was never answered: it must not be charged hours later.
            told=sa.or_(payments.c.lease_holder.is_(None), payments.c.tries > 0),
            resolve_at=sa.case((payments.c.status == "processing", payments.c.updated_at)),
            # Of a parked payment that was being tried again, it can say what no event did.
            next_try_at=sa.case((payments.c.status == "parked", payments.c.next_try_at)),
        )
    )
    at = int(dt.datetime.now(dt.UTC).timestamp() * 1e6)
    filled = ("version", "attempt_id", "contact_at", "told", "resolve_at", "next_try_at")
    query = sa.select(payments.c.id, *(payments.c[name] for name in filled)).order_by(payments.c.id).limit(BATCH)
    last = ""
    while rows := connection.execute(query.where(payments.c.id > last)).mappings().all():
        last = rows[-1]["id"]
        connection.execute(
            payment_events.insert(),
            [
                {
                    "payment_id": row["id"],
                    "version": row["version"],
                    "type": "upgraded",
                    "changes": {name: row[name] for name in filled}
                    | {"given_up_at": None, "dispute": None, "resolve_tries": 0, "attention": None},
                    "at": at,
                }
                for row in rows
            ],
        )
