"""What processes saw of approvals and of calls, by segment and minute: scores are shared, and outlive a process.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "score_counts",
        sa.Column("process", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("segment", sa.Text(), nullable=False),
        sa.Column("starts_s", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("width_s", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("good", sa.BigInteger(), nullable=False),
        sa.Column("bad", sa.BigInteger(), nullable=False),
        sa.Column("good_ms", sa.BigInteger(), nullable=False),
        sa.Column("bad_ms", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "process", "provider", "segment", "starts_s", "width_s", name=op.f("pk_score_counts")
        ),
    )
    op.create_index("ix_score_counts_updated_at", "score_counts", ["updated_at"])
    op.create_index("ix_score_counts_width_s_starts_s", "score_counts", ["width_s", "starts_s"])
