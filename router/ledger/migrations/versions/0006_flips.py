"""A flip knows how far it got, overrides are in force by the ledger, and alerts wait in it until they are told.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_FLIP_COLUMNS = (
    ("holder", sa.Text()),
    ("lease_until", sa.BigInteger()),
    ("next_try_at", sa.BigInteger()),
    ("requested_at", sa.BigInteger()),
    ("before", sa.JSON(none_as_null=True)),
    ("mark", sa.Text()),
    ("written", sa.Text()),
    ("pins", sa.JSON(none_as_null=True)),
    ("approval", sa.Text()),
    ("cause", sa.Text()),
    ("restore_by", sa.Text()),
    ("restore_reason", sa.Text()),
    ("restore_at", sa.BigInteger()),
    ("restore_sent_at", sa.BigInteger()),
    ("restored_at", sa.BigInteger()),
)


def upgrade() -> None:
    """Apply."""
    for name, kind in _FLIP_COLUMNS:
        op.add_column("flips", sa.Column(name, kind, nullable=True))
    for name in ("tries", "refusals"):
        op.add_column("flips", sa.Column(name, sa.Integer(), server_default="0", nullable=False))
    op.create_table(
        "primary_overrides",
        sa.Column("flip_id", sa.Text(), nullable=False),
        sa.Column("from_value", sa.Text(), nullable=False),
        sa.Column("to_value", sa.Text(), nullable=False),
        sa.Column("began_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("why_ended", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["flip_id"], ["flips.id"], name=op.f("fk_primary_overrides_flip_id")),
        sa.PrimaryKeyConstraint("flip_id", name=op.f("pk_primary_overrides")),
    )
    op.create_index(
        "ix_primary_overrides_in_force",
        "primary_overrides",
        ["began_at"],
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_table(
        "alerts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("occasion", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("incident", sa.Text(), nullable=False),
        sa.Column("flip_id", sa.Text(), nullable=True),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("detail", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("sent_at", sa.BigInteger(), nullable=True),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_try_at", sa.BigInteger(), nullable=True),
        sa.Column("cause", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alerts")),
        sa.UniqueConstraint("occasion", name=op.f("uq_alerts_occasion")),
    )
    op.create_index(
        "ix_alerts_waiting",
        "alerts",
        ["next_try_at"],
        sqlite_where=sa.text("next_try_at IS NOT NULL"),
        postgresql_where=sa.text("next_try_at IS NOT NULL"),
    )
