"""API keys: hints, ends, last uses and an audit record; what merchants' quotas are made from.

Revision ID: 0017
Revises: 0016
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Apply."""
    # With defaults: processes of the version before still add keys.
    for name in ("hint", "created_by", "revoked_by"):
        op.add_column("api_keys", sa.Column(name, sa.Text(), nullable=False, server_default=""))
    for name in ("last_used_at", "expires_at"):
        op.add_column("api_keys", sa.Column(name, sa.BigInteger(), nullable=True))
    op.add_column("api_keys", sa.Column("replaced_by", sa.Text(), nullable=True))
    op.create_index("ix_api_keys_merchant", "api_keys", ["merchant", "digest"])
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "api_key_changes",
        sa.Column("number", number, autoincrement=True, nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("merchant", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_api_key_changes")),
    )
    op.create_index("ix_api_key_changes_key_id", "api_key_changes", ["key_id"])
    op.create_table(
        "merchant_volumes",
        sa.Column("merchant", sa.Text(), nullable=False),
        sa.Column("hour", sa.BigInteger(), nullable=False),
        sa.Column("peak", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("merchant", "hour", name=op.f("pk_merchant_volumes")),
    )
    op.create_index("ix_merchant_volumes_hour", "merchant_volumes", ["hour"])
