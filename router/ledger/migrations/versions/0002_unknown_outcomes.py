"""Unknown outcomes: operations, webhooks, and what the resolver needs to know of a payment.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Apply."""
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
        ["updated_at"],
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
