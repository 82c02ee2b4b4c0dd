"""Parked payments: claims, dead letters, why a payment failed, and how fast all workers together try them.

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

PARKED = sa.text("status = 'parked'")


def upgrade() -> None:
    """Apply."""
    op.add_column("payments", sa.Column("claimed_until", sa.BigInteger(), nullable=True))
    op.add_column("payments", sa.Column("faults", sa.Integer(), server_default="0", nullable=False))
    op.add_column("payments", sa.Column("dead_at", sa.BigInteger(), nullable=True))
    op.add_column("payments", sa.Column("failure", sa.Text(), nullable=True))
    op.drop_index("ix_payments_parked", table_name="payments", if_exists=True)
    for name, columns in (
        ("ix_payments_parked_by_merchant", ["merchant", "next_try_at", "id"]),
        ("ix_payments_parked_due", ["next_try_at", "created_at", "status"]),
        ("ix_payments_parked_expiring", ["expires_at"]),
    ):
        op.create_index(name, "payments", columns, unique=False, sqlite_where=PARKED, postgresql_where=PARKED)
    op.create_table(
        "parked_ramp",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("rate", sa.Float(), nullable=False),
        sa.Column("began_at", sa.BigInteger(), nullable=False),
        sa.Column("spent_until", sa.BigInteger(), nullable=False),
        sa.Column("restarted_at", sa.BigInteger(), nullable=False),
        sa.Column("good", sa.Integer(), nullable=False),
        sa.Column("bad", sa.Integer(), nullable=False),
        sa.Column("wake_at", sa.BigInteger(), nullable=True),
        sa.Column("merchant", sa.Text(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_parked_ramp_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_parked_ramp")),
    )
